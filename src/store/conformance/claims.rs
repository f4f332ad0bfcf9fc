//! Claims, takeovers and renewals.

use super::*;

pub(in crate::store) async fn a_claim_on_nothing_is_granted(subject: &Subject) {
    let (store, name, wanted) = (&*subject.store, name(), claim(1, RETRY));
    assert_eq!(find(store, &name).await, None);
    assert_eq!(grant(store, &name, &wanted).await, wanted);
    assert_eq!(find(store, &name).await.expect("a record").record, in_flight(&wanted));
}

pub(in crate::store) async fn a_claim_on_a_living_owner_is_refused(subject: &Subject) {
    for terms in [RETRY, HOLD] {
        let (store, name, first) = (&*subject.store, name(), claim(1, terms));
        grant(store, &name, &first).await;
        let held = refuse(store, &name, &claim(2, terms)).await;
        assert_eq!((held.owner(), held.record), (OwnerState::Alive, in_flight(&first)));
    }
}

pub(in crate::store) async fn a_claim_that_arrived_before_is_granted_again(subject: &Subject) {
    for terms in [RETRY, LOST_RETRY, LOST_HOLD] {
        let (store, name, wanted) = (&*subject.store, name(), claim(1, terms));
        assert_eq!(grant(store, &name, &wanted).await, wanted);
        assert_eq!(grant(store, &name, &wanted).await, wanted);
    }
    // A takeover that arrived before keeps its number.
    let (store, name) = (&*subject.store, name());
    grant(store, &name, &claim(1, LOST_RETRY)).await;
    let taken = grant(store, &name, &claim(2, RETRY)).await;
    assert_eq!(grant(store, &name, &claim(2, RETRY)).await, taken);
}

pub(in crate::store) async fn a_lost_owner_is_replaced_under_retry(subject: &Subject) {
    let (store, name) = (&*subject.store, name());
    let terms = Terms { lease: SHORT, ..RETRY };
    grant(store, &name, &claim(1, terms)).await;
    tokio::time::sleep(OVER).await;
    assert_eq!(find(store, &name).await.expect("a record").owner(), OwnerState::Abandoned);
    let second = grant(store, &name, &claim(2, LOST_RETRY)).await;
    assert_eq!(second, Claim { attempt: 2, ..claim(2, LOST_RETRY) });
    let third = grant(store, &name, &claim(3, RETRY)).await;
    assert_eq!(third.attempt, 3);
    assert_eq!(find(store, &name).await.expect("a record").record, in_flight(&third));
    assert_eq!(store.renew(&name, &second).await.expect("an answer"), Renewed::Lost);
    assert_eq!(settle(store, &name, &completed(&second, b"late")).await, Settled::Kept(Box::new(in_flight(&third))));
}

pub(in crate::store) async fn a_lost_owner_blocks_the_key_under_hold(subject: &Subject) {
    let (store, name) = (&*subject.store, name());
    let first = claim(1, Terms { lease: SHORT, ..HOLD });
    grant(store, &name, &first).await;
    tokio::time::sleep(OVER).await;
    let held = refuse(store, &name, &claim(2, RETRY)).await;
    assert_eq!((held.owner(), held.record), (OwnerState::Lost, in_flight(&first)));
}

pub(in crate::store) async fn a_lost_owner_is_replaced_after_the_hold(subject: &Subject) {
    let (store, name) = (&*subject.store, name());
    let terms = Terms { lease: SHORT / 2, on_unknown: UnknownPolicy::Hold(SHORT), ..HOLD };
    grant(store, &name, &claim(1, terms)).await;
    tokio::time::sleep(OVER).await;
    assert_eq!(grant(store, &name, &claim(2, HOLD)).await.attempt, 2);
}

pub(in crate::store) async fn another_use_of_the_key_takes_nothing_over(subject: &Subject) {
    let fingerprint = claim(1, RETRY).fingerprint;
    let others = [Fingerprint { target: [9; 16], ..fingerprint }, Fingerprint { body: [9; 16], ..fingerprint }];
    for other in others {
        let (store, name, first) = (&*subject.store, name(), claim(1, LOST_RETRY));
        grant(store, &name, &first).await;
        let held = refuse(store, &name, &Claim { fingerprint: other, ..claim(2, RETRY) }).await;
        assert_eq!(held.record, in_flight(&first));
    }
    let (store, name) = (&*subject.store, name());
    grant(store, &name, &claim(1, LOST_RETRY)).await;
    let incomparable = Fingerprint { recipe: 9, body: [9; 16], ..fingerprint };
    assert_eq!(grant(store, &name, &Claim { fingerprint: incomparable, ..claim(2, RETRY) }).await.attempt, 2);
}

pub(in crate::store) async fn one_of_many_claims_is_granted(subject: &Subject) {
    let name = name();
    assert_eq!(race(subject, &name).await, [1]);
}

pub(in crate::store) async fn one_of_many_takeovers_is_granted(subject: &Subject) {
    let name = name();
    grant(&*subject.store, &name, &claim(0, LOST_RETRY)).await;
    assert_eq!(race(subject, &name).await, [2]);
}

/// 64 claims at once, and the attempt numbers of those that were granted.
async fn race(subject: &Subject, name: &RecordName) -> Vec<u32> {
    let runners = (1..=64).map(|token| {
        let (store, name) = (subject.store.clone(), name.clone());
        tokio::spawn(async move { store.claim(&name, &claim(token, RETRY)).await.expect("an answer") })
    });
    let mut granted = Vec::new();
    for runner in runners.collect::<Vec<_>>() {
        match runner.await.expect("no panic") {
            Claimed::Granted(claim) => granted.push(claim.attempt),
            Claimed::Refused(held) => assert_eq!(held.owner(), OwnerState::Alive),
        }
    }
    granted
}

pub(in crate::store) async fn a_renewal_ends_the_silence(subject: &Subject) {
    let (store, name, mine) = (&*subject.store, name(), claim(1, RETRY));
    grant(store, &name, &mine).await;
    tokio::time::sleep(OVER).await;
    let silent_for = find(store, &name).await.expect("a record").silent_for;
    assert!(silent_for >= SHORT, "{silent_for:?}");

    let before = Instant::now();
    assert_eq!(store.renew(&name, &mine).await.expect("an answer"), Renewed::Extended);
    let held = find(store, &name).await.expect("a record");
    // Clocks of stores count in milliseconds.
    let at_most = before.elapsed() + Duration::from_millis(20);
    assert!(held.silent_for <= at_most, "{:?} of {at_most:?}", held.silent_for);
    assert_eq!(held.record, in_flight(&mine));
}

pub(in crate::store) async fn a_renewal_that_finds_nothing_claims_again(subject: &Subject) {
    let (store, name) = (&*subject.store, name());
    let mine = Claim { attempt: 4, ..claim(1, RETRY) };
    assert_eq!(store.renew(&name, &mine).await.expect("an answer"), Renewed::ClaimedAgain);
    let held = refuse(store, &name, &claim(2, RETRY)).await;
    assert_eq!((held.owner(), held.record), (OwnerState::Alive, in_flight(&mine)));
}

pub(in crate::store) async fn a_renewal_that_finds_another_is_lost(subject: &Subject) {
    let (store, name) = (&*subject.store, name());
    grant(store, &name, &claim(1, LOST_RETRY)).await;
    let second = grant(store, &name, &claim(2, RETRY)).await;
    assert_eq!(store.renew(&name, &claim(1, LOST_RETRY)).await.expect("an answer"), Renewed::Lost);
    assert_eq!(find(store, &name).await.expect("a record").record, in_flight(&second));
}
