use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

#[test]
fn what_was_acknowledged_survives_a_kill() {
    for durability in [Durability::Disk, Durability::Process] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Acknowledging::start(&folder, durability);
        child.read(300);
        child.process.kill().expect("it was running");
        child.read(usize::MAX);
        child.check_all(&folder);
    }
}

/// A child process that acknowledges one record after the other. It runs this test binary.
struct Acknowledging {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    last: Option<u64>,
}

const FOLDER: &str = "ONLYONCE_TEST_FOLDER";
const DURABILITY: &str = "ONLYONCE_TEST_DURABILITY";

impl Acknowledging {
    fn start(folder: &TempDir, durability: Durability) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::embedded::tests::kill::acknowledging", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(DURABILITY, format!("{durability:?}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        Self { process, lines, last: None }
    }

    /// Reads lines with acknowledgements. A few lines are of the test harness.
    fn read(&mut self, lines: usize) {
        for line in self.lines.by_ref().take(lines) {
            let line = line.expect("text");
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

/// Runs in the child process. Does nothing in a run of all tests.
#[tokio::test]
async fn acknowledging() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let process = std::env::var(DURABILITY).is_ok_and(|durability| durability == "Process");
    let durability = if process { Durability::Process } else { Durability::Disk };
    let store = Embedded::open(Path::new(&folder), &config(durability), HOUR).expect("a store");
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody reads");
    };
    let mine = claim(1, RETRY);
    for number in 0.. {
        let name = numbered(number);
        store.claim(&name, &mine).await.expect("an answer");
        store.settle(&name, &completed(&mine, BODY)).await.expect("an answer");
        say(format!("settled {number}"));
    }
}
