//! Changes of operators.

use super::stored_bytes::{joined, whole};
use super::*;

pub(super) fn seen(record: Record) -> RecordSnapshot {
    StoredRecord { record, silent_for: Duration::ZERO }.seen()
}

pub(super) async fn swap(store: &dyn Store, name: &RecordName, swap: &CompareAndSwap) -> SwapResult {
    store.compare_and_swap(name, swap).await.expect("an answer")
}

/// What an operator saw against what is there, for every state of either.
pub(in crate::store) async fn operators_move_every_state(subject: &Subject) {
    let store = &*subject.store;
    let owner = claim(1, RETRY);
    let settled = [completed(&owner, b"{}"), unreplayable(&owner), unknown(&owner)];
    let states = [vec![in_flight(&owner)], settled.map(SettledRecord::into_record).into()].concat();
    let others = [Claim { token: Token([9; 16]), ..owner.clone() }, Claim { attempt: 2, ..owner.clone() }];
    let others = others.iter().flat_map(|other| [in_flight(other), unknown(other).into_record()]);
    let sights: Vec<Record> = states.iter().cloned().chain(others).collect();
    let there: Vec<Option<Record>> = [None].into_iter().chain(states.into_iter().map(Some)).collect();

    for (sight, there) in sights.iter().flat_map(|sight| there.iter().map(move |there| (sight, there))) {
        for to in [None, Some(completed(&owner, b"[1]")), Some(unknown(&owner))] {
            let what = format!("{there:?} was seen as {sight:?}");
            let name = name();
            if let Some(record) = there {
                grant(store, &name, &owner).await;
                if let Some(record) = SettledRecord::of(record.clone()) {
                    settle(store, &name, &record).await;
                }
            }
            let wanted = CompareAndSwap { seen: seen(sight.clone()), to };
            let held = there.clone().map(|record| StoredRecord { record, silent_for: Duration::ZERO });
            let due = held.is_some_and(|held| wanted.still_matches(&held));
            let exchanged = swap(store, &name, &wanted).await;
            let left = find(store, &name).await.map(|held| held.record);
            if due {
                assert_eq!((exchanged, left), (SwapResult::Done, wanted.to.map(SettledRecord::into_record)), "{what}");
            } else {
                let SwapResult::Changed(instead) = exchanged else { panic!("{what}: it was changed") };
                assert_eq!((&instead.map(|held| held.record), &left), (there, there), "{what}");
            }
        }
    }
}

pub(in crate::store) async fn an_owner_that_is_heard_of_keeps_its_record(subject: &Subject) {
    let store = &*subject.store;
    let mine = claim(1, Terms { lease: SHORT, ..HOLD });
    let lost = async || {
        let name = name();
        grant(store, &name, &mine).await;
        tokio::time::sleep(OVER).await;
        let held = find(store, &name).await.expect("a record");
        assert_eq!(held.owner(), OwnerState::Lost);
        (name, held.seen())
    };

    let (name, sight) = lost().await;
    let release = transitions::release_by_hand(sight.clone(), false).expect("lost");
    assert_eq!(store.renew(&name, &mine).await.expect("an answer"), Renewed::Extended);
    let SwapResult::Changed(Some(held)) = swap(store, &name, &release).await else { panic!("it was renewed") };
    assert_eq!(held.record, in_flight(&mine));
    // By force, or where nothing was heard.
    let forced = transitions::release_by_hand(sight, true).expect("forced");
    assert_eq!(swap(store, &name, &forced).await, SwapResult::Done);
    assert_eq!(find(store, &name).await, None);
    assert_eq!(swap(store, &name, &forced).await, SwapResult::Changed(None));
    let (name, sight) = lost().await;
    let release = transitions::release_by_hand(sight, false).expect("lost");
    assert_eq!(swap(store, &name, &release).await, SwapResult::Done);
    assert_eq!(grant(store, &name, &claim(2, HOLD)).await.attempt, 1);
}

pub(in crate::store) async fn one_of_many_operators_moves_a_record(subject: &Subject) {
    let (store, name, mine) = (&subject.store, name(), claim(1, LOST_HOLD));
    grant(&**store, &name, &mine).await;
    let sight = find(&**store, &name).await.expect("a record").seen();
    let runners = (0..32_u64).map(|number| {
        let (store, name, sight) = (store.clone(), name.clone(), sight.clone());
        let wanted = transitions::complete_by_hand(sight, reply(Vec::new()), number, false).expect("lost");
        tokio::spawn(async move { store.compare_and_swap(&name, &wanted).await.expect("an answer") })
    });
    let mut done = 0;
    for runner in runners.collect::<Vec<_>>() {
        done += u32::from(runner.await.expect("no panic") == SwapResult::Done);
    }
    assert_eq!(done, 1);
}

pub(in crate::store) async fn what_was_settled_by_hand_is_replayed(subject: &Subject) {
    let store = &*subject.store;
    for length in [0, 3, 65_537] {
        let (name, mine) = (name(), claim(1, HOLD));
        grant(store, &name, &mine).await;
        settle(store, &name, &unknown(&mine)).await;
        let body = if length == 0 { vec![] } else { vec![Bytes::from(vec![7; length])] };
        let sight = find(store, &name).await.expect("a record").seen();
        let by_hand = transitions::complete_by_hand(sight, reply(body), 8, false).expect("unknown");
        assert_eq!(swap(store, &name, &by_hand).await, SwapResult::Done);
        let record = by_hand.to.expect("a record");
        let replayed = refuse(store, &name, &claim(2, HOLD)).await.record;
        assert_eq!(joined(whole(store, &name, replayed).await), joined(record.clone().into_record()));
        // Too late, for the owner as for another operator.
        let late = settle(store, &name, &completed(&mine, b"late")).await;
        let Settled::Kept(kept) = late else { panic!("{length}") };
        assert_eq!(joined(whole(store, &name, *kept).await), joined(record.into_record()));
    }
}

pub(super) fn reply(body: Vec<Bytes>) -> Arc<Reply> {
    Arc::new(Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into(), trailers: HeaderMap::new() })
}

/// All pages of a list.
pub(super) async fn everything(store: &dyn Store, route: Option<&str>, limit: usize) -> Vec<ListedRecord> {
    let mut listing = ListQuery { route: route.map(Into::into), after: None, limit };
    let mut records: Vec<ListedRecord> = Vec::new();
    loop {
        let page = store.list(&listing).await.expect("an answer");
        assert!(page.records.len() <= limit * 10, "{} on a page of {limit}", page.records.len());
        records.extend(page.records);
        listing.after = page.next;
        if listing.after.is_none() {
            // A record may be on two pages.
            records.sort_by_key(|listed| listed.name.to_string());
            records.dedup_by_key(|listed| listed.name.to_string());
            return records;
        }
    }
}

pub(in crate::store) async fn records_are_listed_page_by_page(subject: &Subject) {
    let store = &*subject.store;
    assert_eq!(everything(store, None, 10).await, []);
    let mut expected = Vec::new();
    for number in 0..60_u8 {
        let mine = Claim { attempt: number.into(), ..claim(number, HOLD) };
        let record = match number % 4 {
            0 => in_flight(&mine),
            1 => completed(&mine, b"{}").into_record(),
            2 => unreplayable(&mine).into_record(),
            _ => unknown(&mine).into_record(),
        };
        // One route's name begins with another's.
        let route = ["orders", "orders-eu", "a"][usize::from(number) % 3];
        let name = RecordName { route: route.into(), ..name() };
        match SettledRecord::of(record.clone()) {
            Some(settled) => drop(settle(store, &name, &settled).await),
            None => drop(grant(store, &name, &mine).await),
        }
        if record.state == State::InFlight {
            let name = RecordName { route: "gone".into(), ..name.clone() };
            grant(store, &name, &claim(number, Terms { retention: Duration::from_millis(1), ..RETRY })).await;
        }
        expected.push((name, record.summary()));
    }
    tokio::time::sleep(OVER).await;
    expected.sort_by_key(|(name, _)| name.to_string());
    for limit in [1, 7, 1000] {
        for route in [None, Some("orders"), Some("orders-eu"), Some("a"), Some("nobody's"), Some("*")] {
            let listed = everything(store, route, limit).await.into_iter().map(|listed| {
                let seen = listed.seen.expect("readable");
                assert!(seen.silent_for < LONG / 2 && seen.left() > LONG / 2, "{seen:?}");
                (listed.name, seen.summary)
            });
            let mut expected = expected.clone();
            expected.retain(|(name, _)| route.is_none_or(|route| *name.route == *route));
            assert_eq!(listed.collect::<Vec<_>>(), expected, "{route:?}");
        }
    }
}

/// A list that began again instead would never end for a client that asks for page after page.
pub(in crate::store) async fn a_cursor_that_no_list_gave_is_refused(subject: &Subject) {
    let store = &*subject.store;
    for number in 0..5 {
        grant(store, &name(), &claim(number, HOLD)).await;
    }
    for made_up in ["", "x", "-1", "0", "x.1", ".", "orders", "\u{0}", "99999999999999999999.0", "é"] {
        let listing = ListQuery { route: None, after: Some(Cursor(made_up.to_owned())), limit: 2 };
        let listed = store.list(&listing).await;
        assert!(matches!(listed, Err(ListError::BadCursor)), "{made_up:?}: {listed:?}");
    }
    assert_eq!(everything(store, None, 2).await.len(), 5);
}
