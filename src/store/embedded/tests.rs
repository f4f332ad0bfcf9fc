mod any_order;
mod bodies;
mod cost;
mod damage;
mod folder;
mod full_disk;
mod kill;
mod queue;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::config::{Durability, Secret};
use crate::record::{State, Terms, UnknownPolicy, codec};
use crate::store::conformance::{self, Subject, claim, completed, name};

fn config(durability: Durability) -> config::StoreConfig {
    config::StoreConfig { durability, ..conformance::settings() }
}

fn open(folder: &TempDir) -> Embedded {
    Embedded::open(folder.path(), &config(Durability::Disk), HOUR).expect("a store")
}

const HOUR: Duration = Duration::from_secs(3600);
const RETRY: Terms = Terms { lease: HOUR, retention: HOUR, on_unknown: UnknownPolicy::Retry };

fn subject(durability: Durability) -> Subject {
    subject_with(&config(durability))
}

fn subject_with(config: &config::StoreConfig) -> Subject {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Embedded::open(folder.path(), config, HOUR).expect("a store"));
    let planter = store.clone();
    Subject::new(store, folder).with_plant(move |name, bytes| {
        let planter = planter.clone();
        async move {
            let write = |on: &mut Transaction<'_>| on.write(Some((bytes.into(), HOUR)));
            let planted = planter.change(&name, planter.shared.timeout, Purpose::End, None, write);
            planted.await.expect("written");
        }
    })
}

mod on_disk {
    use super::*;

    async fn on_disk() -> Subject {
        subject(Durability::Disk)
    }

    conformance::suite!(on_disk);
}

mod in_process {
    use super::*;

    async fn in_process() -> Subject {
        subject(Durability::Process)
    }

    conformance::suite!(in_process);
}

mod encrypted {
    use super::*;

    async fn encrypted() -> Subject {
        let encryption_keys = vec![config::SecretKey::new([1; 32]), config::SecretKey::new([2; 32])];
        subject_with(&config::StoreConfig { encryption_keys, ..config(Durability::Process) })
    }

    conformance::suite!(encrypted);
}

#[tokio::test]
async fn records_and_digest_key_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (settled, flying, released, mine) = (name(), name(), name(), claim(1, RETRY));
    let record = completed(&mine, b"{}");

    let store = open(&folder);
    let digest_key = store.digest_key().expect("a key");
    for name in [&settled, &flying, &released] {
        store.claim(name, &mine).await.expect("an answer");
    }
    store.settle(&settled, &record).await.expect("an answer");
    store.release(&released, mine.token).await.expect("an answer");
    drop(store);

    let store = open(&folder);
    assert_eq!(store.digest_key().expect("a key"), digest_key);
    assert_eq!(store.find(&settled).await.expect("an answer").expect("a record").record, record);
    let held = store.find(&flying).await.expect("an answer").expect("a record");
    assert_eq!((held.record.claim, held.record.state), (mine, State::InFlight));
    assert_eq!(store.find(&released).await.expect("an answer"), None);
}

#[tokio::test]
async fn expired_records_leave_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let empty = size(&folder);
    let short = claim(1, Terms { retention: HOUR / 2, ..RETRY });
    let stays = name();
    store.claim(&stays, &claim(1, Terms { retention: HOUR * 2, ..RETRY })).await.expect("an answer");
    for name in (0..3000).map(|_| name()) {
        store.claim(&name, &short).await.expect("an answer");
    }
    assert!(size(&folder) > empty + 500_000);
    store.shared.clock.advance(HOUR);
    until(|| size(&folder) < empty + 200_000).await;
    assert!(store.find(&stays).await.expect("an answer").is_some());
}

#[test]
fn the_clock_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    store.shared.clock.advance(HOUR * 2);
    let ahead = store.shared.clock.now();
    drop(store);
    // It looks as if the wall clock had been set back by two hours while the store was closed.
    assert!(open(&folder).shared.clock.now() >= ahead);
}

#[tokio::test]
async fn claims_that_wait_go_to_the_disk_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(open(&folder));
    let (before, claims) = (store.shared.syncs.load(Ordering::Relaxed), 16 * 60_u64);
    let mine = claim(1, RETRY);
    // One client after the other: each claim has its own sync.
    for _ in 0..60 {
        store.claim(&name(), &mine).await.expect("an answer");
    }
    let alone = store.shared.syncs.load(Ordering::Relaxed) - before;
    assert!((60..65).contains(&alone), "{alone}");
    // 16 clients at once: one sync for all claims that wait.
    let before = store.shared.syncs.load(Ordering::Relaxed);
    let clients = (0..16).map(|_| {
        let (store, mine) = (store.clone(), mine.clone());
        tokio::spawn(async move {
            for _ in 0..60 {
                store.claim(&name(), &mine).await.expect("an answer");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
    let together = store.shared.syncs.load(Ordering::Relaxed) - before;
    assert!(together < claims / 4, "{together} syncs for {claims} claims");
}

#[tokio::test]
async fn a_claim_that_was_granted_is_on_the_disk_and_a_renewal_need_not_be() {
    for (durability, expected) in [(Durability::Disk, [1, 0, 1, 1]), (Durability::Process, [0, 0, 0, 0])] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Embedded::open(folder.path(), &config(durability), HOUR).expect("a store");
        let (name, other, mine) = (name(), name(), claim(1, RETRY));
        store.claim(&other, &mine).await.expect("an answer");
        let count = || store.shared.syncs.load(Ordering::Relaxed);
        let mut syncs = vec![count()];
        store.claim(&name, &mine).await.expect("an answer");
        syncs.push(count());
        store.renew(&name, &mine).await.expect("an answer");
        syncs.push(count());
        store.settle(&name, &completed(&mine, b"{}")).await.expect("an answer");
        syncs.push(count());
        store.release(&other, mine.token).await.expect("an answer");
        syncs.push(count());
        let each: Vec<_> = syncs.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(each, expected, "{durability:?}");
    }
}

#[test]
fn a_configured_digest_key_is_not_forgotten_by_accident() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |secret: &str| config::StoreConfig { digest_key: Some(Secret::new(secret)), ..config(Durability::Disk) };
    let first = Embedded::open(folder.path(), &with("first"), HOUR).expect("a store").shared.digest_key;
    assert_eq!(first, DigestKey::from_secret("first"));
    let error = Embedded::open(folder.path(), &config(Durability::Disk), HOUR).err().expect("no store");
    assert!(matches!(error, EmbeddedError::DigestKeyWithheld(_)));
    let second =
        Embedded::open(folder.path(), &with("second"), HOUR).expect("a store, with a warning").shared.digest_key;
    assert_ne!(second, first);
}

/// The bytes of all files.
fn size(folder: &TempDir) -> u64 {
    let entries = std::fs::read_dir(folder.path()).expect("a folder");
    // A file may be removed meanwhile.
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Waits until the condition holds.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_listed_while_others_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(open(&folder));
    let mine = claim(1, RETRY);
    for name in (0..2000).map(|_| name()) {
        store.claim(&name, &mine).await.expect("an answer");
    }
    let lister = store.clone();
    let listing = tokio::spawn(async move {
        for _ in 0..40 {
            let mut wanted = ListQuery { route: None, after: None, limit: 500 };
            loop {
                let page = lister.list(&wanted).await.expect("an answer");
                wanted.after = page.next;
                if wanted.after.is_none() {
                    break;
                }
            }
        }
    });
    while !listing.is_finished() {
        store.claim(&name(), &mine).await.expect("an answer");
    }
    listing.await.expect("no panic");
}
