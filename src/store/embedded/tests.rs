use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::config::{Durability, OnStoreError, Secret, StoreLocation};
use crate::record::{State, Terms, Unknown};
use crate::store::conformance::{self, Subject, claim, completed, name};

fn config(durability: Durability) -> config::Store {
    config::Store {
        location: StoreLocation::Memory,
        prefix: "onlyonce".to_owned(),
        // A slow machine is no reason to fail.
        timeout: Duration::from_secs(20),
        on_error: OnStoreError::Reject,
        digest_key: None,
        durability,
        accept_eviction: false,
    }
}

fn open(folder: &TempDir) -> Embedded {
    Embedded::open(folder.path(), &config(Durability::Disk)).expect("a store")
}

const HOUR: Duration = Duration::from_secs(3600);
const RETRY: Terms = Terms { lease: HOUR, retention: HOUR, on_unknown: Unknown::Retry };

fn subject(durability: Durability) -> Subject {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(folder.path(), &config(durability)).expect("a store");
    let (disk, clock) = (store.disk.clone(), store.clock.clone());
    Subject::new(Arc::new(store), folder).with_plant(move |name, bytes| {
        let mut changes = disk.change();
        changes.put(&name.to_string(), &Stored { expires_at: clock.now() + 3_600_000, record: bytes.into() });
        changes.commit(PersistMode::Buffer).expect("written");
        async {}
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

#[tokio::test]
async fn records_and_digest_key_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (settled, flying, released, mine) = (name(), name(), name(), claim(1, RETRY));
    let record = completed(&mine, b"{}");

    let store = open(&folder);
    let digest_key = store.digest_key().await.expect("a key");
    for name in [&settled, &flying, &released] {
        store.claim(name, &mine).await.expect("an answer");
    }
    store.settle(&settled, &record).await.expect("an answer");
    store.release(&released, mine.token).await.expect("an answer");
    drop(store);

    let store = open(&folder);
    assert_eq!(store.digest_key().await.expect("a key"), digest_key);
    assert_eq!(store.find(&settled).await.expect("an answer").expect("a record").record, record);
    let held = store.find(&flying).await.expect("an answer").expect("a record");
    assert_eq!((held.record.claim, held.record.state), (mine, State::InFlight));
    assert_eq!(store.find(&released).await.expect("an answer"), None);
}

/// A child acknowledges records until it is killed in the act.
#[test]
fn what_was_acknowledged_survives_a_kill() {
    const FOLDER: &str = "ONLYONCE_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        acknowledge_for_ever(Path::new(&folder));
    }
    for durability in [Durability::Disk, Durability::Process] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::embedded::tests::what_was_acknowledged_survives_a_kill", "--nocapture"])
            .env(FOLDER, folder.path())
            .env("ONLYONCE_TEST_DURABILITY", format!("{durability:?}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut last = None;
        let mut read = |line: std::io::Result<String>| {
            if let Some(number) = line.expect("text").strip_prefix("settled ") {
                last = Some(number.parse::<u64>().expect("a number"));
            }
        };
        // The harness prints a few lines of its own.
        lines.by_ref().take(300).for_each(&mut read);
        child.kill().expect("it was running");
        lines.for_each(&mut read);
        child.wait().expect("it is our child");

        let last = last.expect("it acknowledged some");
        let store = open(&folder);
        for number in 0..=last {
            let held = store.disk.stored(&numbered(number).to_string()).expect("readable").expect("a record");
            let held = read_at(&store, number, &held);
            assert_eq!(held.record, completed(&claim(1, RETRY), b"{}"), "{number} of {last}");
        }
    }
}

fn read_at(store: &Embedded, number: u64, stored: &Stored) -> Held {
    super::read(&numbered(number), stored, store.clock.now()).expect("readable").expect("alive")
}

fn numbered(number: u64) -> RecordName {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    RecordName { route: "orders".into(), digest }
}

fn acknowledge_for_ever(folder: &Path) -> ! {
    let durability = match std::env::var("ONLYONCE_TEST_DURABILITY").as_deref() {
        Ok("Process") => Durability::Process,
        _ => Durability::Disk,
    };
    let store = Embedded::open(folder, &config(durability)).expect("a store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for number in 0.. {
            let (name, mine) = (numbered(number), claim(1, RETRY));
            store.claim(&name, &mine).await.expect("an answer");
            store.settle(&name, &completed(&mine, b"{}")).await.expect("an answer");
            let mut out = std::io::stdout().lock();
            writeln!(out, "settled {number}").and_then(|()| out.flush()).expect("somebody reads");
        }
    });
    unreachable!("numbers do not end")
}

#[tokio::test]
async fn expired_records_leave_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let short = claim(1, Terms { retention: Duration::from_millis(50), ..RETRY });
    let (gone, stays) = (name(), name());
    for name in (0..600).map(|_| name()).chain([gone.clone()]) {
        store.claim(&name, &short).await.expect("an answer");
    }
    store.claim(&stays, &claim(1, RETRY)).await.expect("an answer");
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A new store sweeps first of all.
    drop(store);
    let store = open(&folder);
    while store.disk.stored(&gone.to_string()).expect("readable").is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while store.disk.expiring(0, u64::MAX - 1).count() > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.find(&stays).await.expect("an answer").is_some());
}

#[test]
fn the_clock_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let ahead = open(&folder).clock.now() + 7_200_000;
    // As if the wall clock had been set back by two hours while the store was closed.
    let disk = Disk::open(folder.path()).expect("a store");
    let mut changes = disk.change();
    changes.put_meta(Meta::Clock, &ahead.to_be_bytes());
    changes.commit(PersistMode::Buffer).expect("written");
    drop(disk);
    assert!(open(&folder).clock.now() >= ahead);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_out_of_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (known, mine) = (name(), claim(1, RETRY));
    store.claim(&known, &mine).await.expect("an answer");
    store.broken.store(true, Ordering::Release);
    assert_eq!(store.health(), Health::Down);
    for error in [
        store.claim(&name(), &mine).await.expect_err("out of use"),
        store.renew(&known, &mine).await.expect_err("out of use"),
        store.find(&known).await.expect_err("out of use"),
    ] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}

#[test]
fn what_cannot_be_opened_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = |path: &Path| {
        let error = Embedded::open(path, &config(Durability::Disk)).err().expect("no store");
        (error.to_string(), error)
    };

    let file = folder.path().join("file");
    std::fs::write(&file, "text").expect("written");
    assert!(matches!(error(&file).1, OpenError::NotAFolder(_)));
    assert!(matches!(error(&file.join("store")).1, OpenError::Inaccessible { .. }));

    let path = folder.path().join("store");
    let store = Embedded::open(&path, &config(Durability::Disk)).expect("a store");
    let (text, in_use) = error(&path);
    assert!(matches!(in_use, OpenError::InUse(_)));
    assert_eq!(text, format!("another onlyonce uses {}", path.display()));
    drop(store);

    std::fs::write(path.join("version"), "nonsense").expect("written");
    assert!(matches!(error(&path).1, OpenError::Damaged { .. }));
}

#[test]
fn a_configured_digest_key_is_not_forgotten_by_accident() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |secret: &str| config::Store { digest_key: Some(Secret::new(secret)), ..config(Durability::Disk) };
    let first = Embedded::open(folder.path(), &with("first")).expect("a store").digest_key;
    assert_eq!(first, DigestKey::from_secret("first"));
    let error = Embedded::open(folder.path(), &config(Durability::Disk)).err().expect("no store");
    assert!(matches!(error, OpenError::DigestKeyWithheld(_)));
    let second = Embedded::open(folder.path(), &with("second")).expect("a store, with a warning").digest_key;
    assert_ne!(second, first);
}
