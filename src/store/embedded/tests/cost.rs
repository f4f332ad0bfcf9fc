//! The cost of many records, in bytes read and held and in instructions, never in time. Each measurement runs in its
//! own process, so all its figures belong to the store.
//!
//! The figures of docs/embedded-store.md are those of an optimised build, which `tests/run --all` makes too:
//! `cargo test --profile gate --lib -- --ignored --nocapture embedded::tests::cost`.

use std::fmt::Display;
use std::fs;
use std::process::Command;

use super::*;
use crate::record::Record;
use crate::store::embedded::frame::{FrameContent, RecordVersion, frame_len};
use crate::store::embedded::log::{LogWrite, SupersededFrame};

#[test]
fn a_claim_costs_no_more_among_300_000_records() {
    claims_cost_the_same(300_000);
}

#[test]
#[ignore = "tests/run --all"]
fn a_claim_costs_no_more_among_10_million_records() {
    claims_cost_the_same(10_000_000);
}

#[test]
fn the_folder_shrinks_when_300_000_records_have_expired() {
    the_folder_shrinks(300_000);
}

#[test]
#[ignore = "tests/run --all"]
fn the_folder_shrinks_when_10_million_records_have_expired() {
    the_folder_shrinks(10_000_000);
}

fn claims_cost_the_same(records: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = measure(folder.path(), None);
    let instructions = instructions_of_a_claim(folder.path());
    fill(folder.path(), 0..records, |_| HOUR);
    // First after a crash, then after a stop in good order.
    for _ in 0..2 {
        let full = measure(folder.path(), None);
        eprintln!("{records} records: {full:?}; none: {empty:?}");
        // Sometimes another record matches until its name is read.
        let allowed = empty.read_by_claim * 13 / 10 + 32;
        assert!(full.read_by_claim <= allowed, "{} bytes, and {} in an empty store", full.read_by_claim, allowed);
        assert!(full.written_by_claim <= empty.written_by_claim * 13 / 10, "{full:?}");
        assert!(full.read_by_replay <= 1100, "{full:?}");
        // The index, and after a crash the last segment.
        assert!(full.read_to_open <= records * 8 + 410_000_000, "{full:?}");
        assert!(full.resident <= 50_000_000 + records * 10, "{full:?}");
    }
    let among_many = instructions_of_a_claim(folder.path());
    eprintln!("{records} records: {among_many} instructions for a claim; none: {instructions}");
    // Unoptimised, a look into a segment's index costs ten times as much, and the rest of a claim four times.
    let tenths = if cfg!(debug_assertions) { 15 } else { 13 };
    assert!(
        among_many <= instructions * tenths / 10,
        "{among_many} instructions, and {instructions} in an empty store"
    );
}

fn the_folder_shrinks(records: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    // A few records stay. They are scattered, so that no segment can be removed without copying.
    let stays = |number: u64| number.is_multiple_of(records / 2500);
    drop(open(&folder));
    fill(folder.path(), 0..records, |number| if stays(number) { HOUR * 24 } else { HOUR });
    let frame = frame_len(&numbered(0), completed_bytes().len());
    let live = (0..records).filter(|number| stays(*number)).count() as u64 * frame;
    assert!(size(&folder) > records * frame);

    let full = measure(folder.path(), Some(live * 2));
    eprintln!("{records} records, {live} bytes of them live after a while: {full:?}");
    // The records that stay are read and written again once or twice. Of the others, only their expiry is read.
    assert!(full.read_to_expire <= records * 10 + live * 8, "{full:?}");
    let store = open(&folder);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for number in (0..records).filter(|number| stays(*number)) {
        let held = runtime.block_on(store.find(&numbered(number))).expect("an answer");
        assert!(held.is_some(), "{number}");
    }
}

fn numbered(number: u64) -> RecordName {
    let digest = blake3::hash(&number.to_le_bytes());
    RecordName { route: "create-order".into(), digest: digest.as_bytes()[..16].try_into().expect("16 bytes") }
}

const BODY: &[u8] = &[7; 300];

fn completed_bytes() -> Bytes {
    codec::encode(&completed(&claim(1, RETRY), BODY), Placement::Within).into()
}

/// Writes what requests write: a claim for each, and then its answer.
fn fill(folder: &Path, numbers: std::ops::Range<u64>, retention: impl Fn(u64) -> Duration) {
    let opened = RecordLog::open(folder, Durability::Process).expect("a store");
    let (mut log, now) = (opened.log, Clock::start(opened.clock).now());
    let in_flight = Record { claim: claim(1, RETRY), state: State::InFlight };
    let in_flight: Bytes = codec::encode(&in_flight, Placement::Within).into();
    let completed = completed_bytes();
    let numbers: Vec<_> = numbers.collect();
    for piece in numbers.chunks(256) {
        let change = |number: u64, record: &Bytes, replaces: Option<SupersededFrame>| {
            let expires_at = now + retention(number).as_millis() as u64;
            let version =
                RecordVersion { expires_at, kept_until: expires_at, content: FrameContent::Record(record.clone()) };
            LogWrite { name: numbered(number), version, replaces, record_sum: None }
        };
        let claims: Vec<_> = piece.iter().map(|number| change(*number, &in_flight, None)).collect();
        log.append(&claims, now, false).expect("written");
        let segment = log.open_segment().0;
        let answers = piece.iter().map(|number| {
            let bytes = frame_len(&numbered(*number), in_flight.len());
            let expires_at = now + retention(*number).as_millis() as u64;
            change(*number, &completed, Some(SupersededFrame { segment, kind: FrameKind::Record, expires_at, bytes }))
        });
        log.append(&answers.collect::<Vec<_>>(), now, false).expect("written");
    }
    // As if the process were killed, except that the indexes are on the disk.
    log.join_sorting();
}

/// The figures of one measurement.
#[derive(Debug)]
struct Measured {
    read_to_open: u64,
    /// Shown in the output only.
    #[expect(dead_code)]
    milliseconds_to_open: u64,
    read_by_claim: u64,
    written_by_claim: u64,
    read_by_replay: u64,
    read_to_expire: u64,
    resident: u64,
}

const FOLDER: &str = "ONLYONCE_TEST_FOLDER";
const EXPIRED: &str = "ONLYONCE_TEST_EXPIRED";
const CLAIMS: &str = "ONLYONCE_TEST_CLAIMS";
const MEASURING: [&str; 3] = ["--exact", "store::embedded::tests::cost::measuring", "--nocapture"];

fn measure(folder: &Path, expired: Option<u64>) -> Measured {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(MEASURING).env(FOLDER, folder);
    if let Some(size) = expired {
        command.env(EXPIRED, size.to_string());
    }
    let output = command.output().expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let number = |what: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        line.map_or(0, |number| number.parse().expect("a number"))
    };
    Measured {
        read_to_open: number("read_to_open"),
        milliseconds_to_open: number("milliseconds_to_open"),
        read_by_claim: number("read_by_claim"),
        written_by_claim: number("written_by_claim"),
        read_by_replay: number("read_by_replay"),
        read_to_expire: number("read_to_expire"),
        resident: number("resident"),
    }
}

/// The instructions of one claim. Two runs differ only in the number of claims, so the cost of opening cancels out.
fn instructions_of_a_claim(folder: &Path) -> u64 {
    let [few, many] = [500, 2500].map(|claims: u64| {
        let profile = tempfile::NamedTempFile::new().expect("a file");
        let output = Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg(format!("--callgrind-out-file={}", profile.path().display()))
            .arg(std::env::current_exe().expect("this test"))
            .args(MEASURING)
            .env(FOLDER, folder)
            .env(CLAIMS, claims.to_string())
            .output()
            .expect("valgrind, which tests/run installs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        let collected = text.lines().find_map(|line| line.split_once("Collected : ")).expect("a sum");
        collected.1.trim().parse::<u64>().expect("a number")
    });
    (many - few) / 2000
}

/// Runs in the child process. Does nothing in a run of all tests.
#[tokio::test]
async fn measuring() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let say = |what: &str, number: &dyn Display| println!("\n{what} {number}");
    let (before, begun) = (io("rchar"), std::time::Instant::now());
    let store = Embedded::open(Path::new(&folder), &config(Durability::Process), HOUR).expect("a store");
    say("milliseconds_to_open", &begun.elapsed().as_millis());
    say("read_to_open", &(io("rchar") - before));

    let claims = std::env::var(CLAIMS).map_or(4000, |number| number.parse().expect("a number"));
    let (read, written) = (io("rchar"), io("wchar"));
    // These numbers are in no other run.
    let first = store.shared.clock.now() << 20;
    let mine = claim(1, Terms { retention: HOUR, ..RETRY });
    for number in first..first + claims {
        store.claim(&numbered(number), &mine).await.expect("an answer");
    }
    say("read_by_claim", &((io("rchar") - read) / claims));
    say("written_by_claim", &((io("wchar") - written) / claims));
    let read = io("rchar");
    for number in 0..100 {
        store.find(&numbered(number)).await.expect("an answer");
    }
    say("read_by_replay", &((io("rchar") - read) / 100));
    say("resident", &resident());

    let Ok(expected) = std::env::var(EXPIRED) else { return };
    let expected: u64 = expected.parse().expect("a number");
    let read = io("rchar");
    store.shared.clock.advance(HOUR * 2);
    let size = || {
        let entries = fs::read_dir(&folder).expect("a folder");
        entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum::<u64>()
    };
    until(|| size() <= expected).await;
    say("read_to_expire", &(io("rchar") - read));
}

fn io(what: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/io").expect("Linux");
    let number = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    number.expect("a line").parse().expect("a number")
}

fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let number = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    number.expect("a line").parse::<u64>().expect("a number") * 1024
}
