use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

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

#[test]
fn what_was_acknowledged_survives_a_kill() {
    for durability in [Durability::Disk, Durability::Process] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Acknowledging::start(&folder, durability, "unlimited");
        child.read(300);
        child.process.kill().expect("it was running");
        child.read(usize::MAX);
        child.check_all(&folder);
    }
}

#[test]
fn what_was_acknowledged_survives_a_disk_that_takes_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    // A new journal takes its whole size at once, and would meet the limit first.
    drop(open(&folder));
    let mut child = Acknowledging::start(&folder, Durability::Disk, "2048");
    child.read(usize::MAX);
    assert!(child.out_of_use, "nothing was refused");
    child.check_all(&folder);
}

/// A process that acknowledges one record after the other: this test binary again, as a child.
struct Acknowledging {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    last: Option<u64>,
    out_of_use: bool,
}

const FOLDER: &str = "ONLYONCE_TEST_FOLDER";
const DURABILITY: &str = "ONLYONCE_TEST_DURABILITY";

impl Acknowledging {
    fn start(folder: &TempDir, durability: Durability, largest_file: &str) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"", "sh", largest_file])
            .arg(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::embedded::tests::acknowledging", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(DURABILITY, format!("{durability:?}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        Self { process, lines, last: None, out_of_use: false }
    }

    /// Reads what it acknowledged. The test harness has a few lines of its own.
    fn read(&mut self, lines: usize) {
        for line in self.lines.by_ref().take(lines) {
            let line = line.expect("text");
            self.out_of_use |= line == "out of use";
            if let Some(number) = line.strip_prefix("settled ") {
                self.last = Some(number.parse().expect("a number"));
            }
        }
    }

    fn check_all(mut self, folder: &TempDir) {
        self.process.wait().expect("it is our child");
        let last = self.last.expect("it acknowledged some");
        let store = open(folder);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        for number in 0..=last {
            let held = runtime.block_on(store.find(&numbered(number))).expect("an answer").expect("a record");
            assert_eq!(held.record, completed(&claim(1, RETRY), BODY), "{number} of {last}");
        }
    }
}

const BODY: &[u8] = &[7; 4096];

fn numbered(number: u64) -> RecordName {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    RecordName { route: "orders".into(), digest }
}

/// What the child does; nothing in a run of all tests.
#[tokio::test]
async fn acknowledging() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let process = std::env::var(DURABILITY).is_ok_and(|durability| durability == "Process");
    let durability = if process { Durability::Process } else { Durability::Disk };
    let store = Embedded::open(Path::new(&folder), &config(durability)).expect("a store");
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody reads");
    };
    let mine = claim(1, RETRY);
    for number in 0.. {
        let name = numbered(number);
        let done = match store.claim(&name, &mine).await {
            Ok(_) => store.settle(&name, &completed(&mine, BODY)).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => say(format!("settled {number}")),
            Err(StoreError::Uncertain(_)) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    let refused = store.renew(&numbered(0), &mine).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.health(), Health::Down);
    drop(store);
    say("out of use".to_owned());
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
    assert!(matches!(error(&file).1, EmbeddedError::NotAFolder(_)));
    assert!(matches!(error(&file.join("store")).1, EmbeddedError::Inaccessible { .. }));

    let path = folder.path().join("store");
    let store = Embedded::open(&path, &config(Durability::Disk)).expect("a store");
    let (text, in_use) = error(&path);
    assert!(matches!(in_use, EmbeddedError::InUse(_)));
    assert_eq!(text, format!("another onlyonce uses {}", path.display()));
    drop(store);

    std::fs::write(path.join("version"), "nonsense").expect("written");
    assert!(matches!(error(&path).1, EmbeddedError::Damaged { .. }));
}

#[test]
fn a_configured_digest_key_is_not_forgotten_by_accident() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |secret: &str| config::Store { digest_key: Some(Secret::new(secret)), ..config(Durability::Disk) };
    let first = Embedded::open(folder.path(), &with("first")).expect("a store").digest_key;
    assert_eq!(first, DigestKey::from_secret("first"));
    let error = Embedded::open(folder.path(), &config(Durability::Disk)).err().expect("no store");
    assert!(matches!(error, EmbeddedError::DigestKeyWithheld(_)));
    let second = Embedded::open(folder.path(), &with("second")).expect("a store, with a warning").digest_key;
    assert_ne!(second, first);
}
