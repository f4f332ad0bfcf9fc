//! A write that fails. A disk that is really full is tested with the whole program.

use std::sync::atomic::AtomicBool;

use super::*;

#[tokio::test]
async fn what_was_never_on_the_disk_is_nowhere_and_the_store_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (before, lost, after, mine) = (name(), name(), name(), claim(1, RETRY));
    store.claim(&before, &mine).await.expect("an answer");
    store.shared.fails.store(true, Ordering::Relaxed);
    let failed = store.claim(&lost, &mine).await.expect_err("the disk failed");
    assert!(matches!(failed, StoreError::Uncertain(_)), "{failed:?}");
    // Written records are found, whether the store can be written or not.
    assert!(store.find(&before).await.expect("an answer").is_some());
    assert_eq!(store.find(&lost).await.expect("an answer"), None);
    until(|| store.health() == Health::Up).await;
    assert_eq!(store.find(&lost).await.expect("an answer"), None);
    store.claim(&after, &mine).await.expect("an answer");
    assert_eq!(store.losses(), 0);

    drop(store);
    let store = open(&folder);
    for (name, is_there) in [(before, true), (lost, false), (after, true)] {
        assert_eq!(store.find(&name).await.expect("an answer").is_some(), is_there);
    }
}

#[tokio::test]
async fn what_waits_to_be_settled_is_settled_once_the_store_can_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let mine = claim(1, RETRY);
    for _ in 0..5 {
        let name = name();
        store.claim(&name, &mine).await.expect("an answer");
        store.shared.fails.store(true, Ordering::Relaxed);
        let record = completed(&mine, b"{}");
        store.settle(&name, &record).await.expect_err("the disk failed");
        // An owner tries again until the outcome is written.
        while store.settle(&name, &record).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(store.find(&name).await.expect("an answer").expect("a record").record, record);
    }
}

/// While the store was not writable, the owner could not renew, and its last renewal may be lost.
#[tokio::test]
async fn an_owner_is_not_taken_for_lost_because_the_store_could_not_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let lease = HOUR / 60;
    let terms = Terms { lease, ..RETRY };
    let (owned, mine, other) = (name(), claim(1, terms), claim(2, terms));
    store.claim(&owned, &mine).await.expect("an answer");
    // The renewal is only in memory when a write fails.
    store.shared.clock.advance(lease / 2);
    assert_eq!(store.renew(&owned, &mine).await.expect("an answer"), Renewed::Extended);
    store.shared.clock.advance(lease * 2);
    store.shared.fails.store(true, Ordering::Relaxed);
    store.claim(&name(), &mine).await.expect_err("the disk failed");
    until(|| store.health() == Health::Up).await;
    let refused = store.claim(&owned, &other).await.expect("an answer");
    assert!(matches!(refused, Claimed::Refused(held) if held.silent_for < lease));
    // From then on, its silence counts in full.
    store.shared.clock.advance(lease);
    assert!(
        matches!(store.claim(&owned, &other).await.expect("an answer"), Claimed::Granted(claim) if claim.attempt == 2)
    );
}

/// A failed write takes the renewals that are not on the disk along. Their records are read from the frames before them.
#[tokio::test]
async fn a_record_is_readable_at_each_moment_of_a_failed_write() {
    const ROUNDS: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (owned, mine) = (name(), claim(1, RETRY));
    store.claim(&owned, &mine).await.expect("an answer");
    let (view, is_over) = (Arc::clone(&store.shared.view), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (view, is_over, owned) = (Arc::clone(&view), Arc::clone(&is_over), owned.clone());
            std::thread::spawn(move || {
                let mut reads = 0;
                while !is_over.load(Ordering::Relaxed) {
                    assert!(view.find(&owned).expect("a whole frame").is_some());
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        assert_eq!(store.renew(&owned, &mine).await.expect("an answer"), Renewed::Extended);
        store.shared.fails.store(true, Ordering::Relaxed);
        store.claim(&name(), &mine).await.expect_err("the disk failed");
        until(|| store.health() == Health::Up).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().expect("no panic") > ROUNDS);
    }
}

/// With `on_error = "forward"` a failing store lets requests through, but never for a key that has an owner.
#[tokio::test]
async fn a_record_that_cannot_be_taken_over_is_not_taken_for_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let lease = HOUR / 60;
    let terms = Terms { lease, ..RETRY };
    let owned = name();
    store.claim(&owned, &claim(1, terms)).await.expect("an answer");
    store.shared.clock.advance(lease * 2);
    store.shared.condition.set(Condition::Full);
    let failed = store.claim(&owned, &claim(2, terms)).await.expect_err("the disk is full");
    assert!(matches!(failed, StoreError::Uncertain(_)), "{failed:?}");
    store.shared.condition.set(Condition::Full);
    let failed = store.claim(&name(), &claim(2, terms)).await.expect_err("the disk is full");
    assert!(matches!(failed, StoreError::Refused(_)), "{failed:?}");
}
