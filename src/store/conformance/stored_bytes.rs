//! Records come back byte by byte, and unreadable ones are left alone.

use xxhash_rust::xxh3::xxh3_64;

use super::by_hand::{everything, seen};
use super::*;
use crate::record::codec::{HEAD, Placement, VERSION, encode};

pub(in crate::store) async fn replies_come_back_as_they_were(subject: &Subject) {
    let mut headers = HeaderMap::new();
    headers.append("link", HeaderValue::from_static("<a>"));
    headers.append("location", HeaderValue::from_static("/orders/1"));
    headers.append("link", HeaderValue::from_bytes(b"<\xfcber>").expect("obs-text"));
    headers.append("link", HeaderValue::from_static(""));
    let mut trailers = HeaderMap::new();
    trailers.append("grpc-status", HeaderValue::from_static("0"));
    let every_byte: Vec<u8> = (0..=255).collect();
    let bodies = [0, 1, 300, 65_536, 65_537, 1 << 20]
        .map(|length| -> Vec<u8> { every_byte.iter().copied().cycle().take(length).collect() });

    for body in bodies {
        let (store, name, mine) = (&*subject.store, name(), claim(1, RETRY));
        grant(store, &name, &mine).await;
        let pieces = body.chunks(40_000).map(Bytes::copy_from_slice).collect::<Vec<_>>().into();
        let reply =
            Reply { status: StatusCode::ACCEPTED, headers: headers.clone(), body: pieces, trailers: trailers.clone() };
        let record = SettledRecord::new(mine, &Settlement::Completed(reply.into()), 9);
        assert_eq!(settle(store, &name, &record).await, Settled::Written);

        let other = claim(2, RETRY);
        let found = find(store, &name).await.expect("a record").record;
        let kept = match settle(store, &name, &completed(&other, b"")).await {
            Settled::Kept(kept) => *kept,
            Settled::Written => panic!("it was completed already"),
        };
        for replayed in [refuse(store, &name, &other).await.record, found, kept] {
            let replayed = whole(store, &name, replayed).await;
            assert!(joined(replayed) == joined(Record::clone(&record)), "a body of {} bytes", body.len());
        }
    }
}

/// The reply to a settle may be lost, after it was done. Then its owner must know its own outcome again: it is the same,
/// with its body at hand.
pub(in crate::store) async fn an_outcome_that_is_written_again_is_known_to_be_the_same(subject: &Subject) {
    for length in [0, 2, 40_000, 65_537, 300_000] {
        let (store, name, mine) = (&*subject.store, name(), claim(1, RETRY));
        grant(store, &name, &mine).await;
        let body = b"compressible ".repeat(length / 13 + 1);
        // In several pieces, as it comes from a backend.
        let pieces = body[..length].chunks(length / 3 + 1).map(Bytes::copy_from_slice).collect::<Vec<_>>();
        let reply = |status, pieces: Vec<Bytes>| Reply {
            status,
            headers: HeaderMap::new(),
            body: pieces.into(),
            trailers: HeaderMap::new(),
        };
        let of = |reply: Reply| SettledRecord::new(mine.clone(), &Settlement::Completed(reply.into()), 9);
        let record = of(reply(StatusCode::CREATED, pieces.clone()));
        assert_eq!(settle(store, &name, &record).await, Settled::Written);
        for _ in 0..2 {
            match settle(store, &name, &record).await {
                Settled::Kept(kept) => assert!(*kept == record, "a body of {length} bytes"),
                Settled::Written => panic!("it was completed already"),
            }
        }
        let other = of(reply(StatusCode::OK, pieces));
        // A body that lies apart is recognised by its attempt alone.
        if length < 65_536 {
            match settle(store, &name, &other).await {
                Settled::Kept(kept) => assert!(*kept != other, "a body of {length} bytes"),
                Settled::Written => panic!("it was completed already"),
            }
        }
    }
}

/// A record with its body.
pub(super) async fn whole(store: &dyn Store, name: &RecordName, mut record: Record) -> Record {
    if let Some(body) = record.apart_body().cloned()
        && let State::Completed { reply, .. } = &mut record.state
    {
        let body = StoredBody::open(store, name, body).await.expect("a body");
        Arc::make_mut(reply).body = body.rest().await.expect("all of it").into();
    }
    record
}

/// A record with its body in one piece.
pub(super) fn joined(mut record: Record) -> Record {
    if let State::Completed { reply, .. } = &mut record.state {
        let body = reply.body.pieces().concat().into();
        Arc::make_mut(reply).body = vec![body].into();
    }
    record
}

pub(in crate::store) async fn what_cannot_be_read_is_left_alone(subject: &Subject) {
    let Some(plant) = &subject.plant else { return };
    let store = &*subject.store;
    let mine = claim(1, LOST_RETRY);
    let of_layout = |layout| {
        let mut bytes = encode(&in_flight(&mine), Placement::Within);
        bytes[0] = layout;
        bytes
    };
    // A critical one, which no version knows yet, put there by another owner.
    let extended = {
        let mut bytes = encode(&in_flight(&claim(9, LOST_RETRY)), Placement::Within);
        bytes.truncate(bytes.len() - 8);
        bytes[26] = 3;
        bytes.splice(HEAD..HEAD, [0xfe, 0, 0]);
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    };
    let damaged = {
        let mut bytes = encode(&completed(&mine, b"{}"), Placement::Within);
        bytes[HEAD] ^= 1;
        bytes
    };
    let (older, newer) = (of_layout(VERSION - 1), of_layout(VERSION + 1));
    for bytes in [older, newer, extended, damaged, Vec::new(), b"something else".to_vec()] {
        let name = name();
        plant(name.clone(), bytes).await;
        let unreadable = |error: StoreError| match error {
            StoreError::Unreadable { name: said, .. } => assert_eq!(said, name.to_string()),
            other => panic!("{other:?}"),
        };
        unreadable(store.find(&name).await.expect_err("no record"));
        unreadable(store.claim(&name, &claim(2, RETRY)).await.expect_err("no record"));
        unreadable(store.claim(&name, &mine).await.expect_err("no record"));
        unreadable(store.settle(&name, &completed(&mine, b"[]")).await.expect_err("no record"));
        assert!(!matches!(store.renew(&name, &mine).await, Ok(Renewed::Extended | Renewed::ClaimedAgain)));
        assert!(!matches!(store.release(&name, mine.token).await, Ok(Released::Deleted | Released::Absent)));
        unreadable(store.find(&name).await.expect_err("still there"));
        // Only what begins as the record that was seen is taken for it, and then an operator gets it out of the way.
        let wanted = CompareAndSwap { seen: seen(in_flight(&mine)), to: None };
        unreadable(store.compare_and_swap(&name, &wanted).await.expect_err("no record"));
    }
    let unreadable = everything(store, None, 100).await.into_iter().filter(|listed| listed.seen.is_err());
    // The damage of one, and the extension of another, are behind what a list reads.
    assert_eq!(unreadable.count(), 4);
}
