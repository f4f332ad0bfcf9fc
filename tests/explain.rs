//! The exact output of `onlyonce explain`, in `tests/explain/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_onlyonce");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a line of a shell prints that succeeds.
fn shell(folder: &Path, line: &str) -> String {
    let (status, shown) = ran(folder, line);
    assert_eq!(status, Some(0), "{line}: {shown}");
    shown
}

/// Runs a line of a shell in `folder`, with the program in its path: its exit status, and what it prints.
fn ran(folder: &Path, line: &str) -> (Option<i32>, String) {
    let programs = Path::new(PROGRAM).parent().expect("the folder of the program");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("PATH", path).env_remove("ONLYONCE_CONFIG");
    let output = command.output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{line}: {said}");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Each file is a command and what it prints. `ONLYONCE_BLESS=1` writes them anew.
#[test]
fn requests_are_explained_word_by_word() {
    let folder = root().join("tests/explain");
    let bless = std::env::var_os("ONLYONCE_BLESS").is_some();
    let mut different = Vec::new();
    for path in texts(&folder) {
        let text = fs::read_to_string(&path).expect("a file");
        let (command, told) = text.split_once('\n').unwrap_or((&text, ""));
        let line = command.strip_prefix("$ ").expect("a command");
        let (status, shown) = ran(&folder, line);
        // 1 where it was asked for what nobody can tell.
        let is_told = !shown.contains("\nnow           cannot be told");
        assert_eq!(status, Some(i32::from(!is_told)), "{line}: {shown}");
        let wide = shown.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{} is wider than a terminal", path.display());
        if bless {
            fs::write(&path, format!("{command}\n{shown}")).expect("to write what is said now");
        } else if told != shown {
            different.push(format!("{}\n{shown}", path.display()));
        }
    }
    assert!(different.is_empty(), "not as expected (ONLYONCE_BLESS=1 accepts it):\n\n{}", different.join("\n"));
}

/// The output contains no values that identify a caller or a key.
#[test]
fn no_value_of_a_request_is_printed() {
    let folder = root().join("tests/explain");
    let line = "onlyonce explain POST /orders -H 'Idempotency-Key: s3cr3t-key' -H 'X-Tenant: s3cr3t-tenant' -d s3cr3t";
    let shown = shell(&folder, line);
    assert!(shown.contains("record") && !shown.contains("s3cr3t"), "{shown}");
}

/// A line of curl can be pasted: the same flags, and the same fields that it adds.
#[test]
fn a_body_is_what_curl_makes_of_it() {
    let folder = root().join("tests/explain");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let file = scratch.path().join("body");
    fs::write(&file, "a=1\r\n").expect("a writable folder");
    let said = |body: &str| {
        let line = format!("onlyonce explain POST /orders -H 'Idempotency-Key: 17' -H 'X-Tenant: acme' {body}");
        shell(&folder, &line).replace("digest", "").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let form = "-H 'Content-Type: application/x-www-form-urlencoded'";
    assert!(said("-d a=1").contains("the body as a form, by its fields"));
    assert_eq!(said("-d a=1"), said(&format!("{form} -d a=1")));
    assert_eq!(said("-d a=1 -d b=2"), said("-d 'a=1&b=2'"));
    assert_eq!(said(&format!("-d @{}", file.display())), said("-d a=1"));
    assert!(said("--json '[1]'").contains("the body as JSON, by value"));
    assert_eq!(said("--json '[1]'"), said("-H 'Content-Type: application/json' -d '[1]'"));
    assert!(said("-H 'Content-Type: text/plain' -d a=1").contains("the body, by its bytes"));
    // What looks like JSON is a form all the same, and it says so; `onlyonce verify` sends it as JSON.
    fs::write(&file, " {\"a\":1}\n").expect("a writable folder");
    let note = "body a form, as curl -d sends it, although it looks like JSON: --json";
    for like in ["-d '{\"a\":1}'".to_owned(), "-d '[1]'".to_owned(), format!("-d @{}", file.display())] {
        let shown = said(&like);
        assert!(shown.contains(note), "{shown}");
        assert!(!shown.contains("the body as JSON"), "{shown}");
        assert!(!said(&format!("-H 'Content-Type: application/json' {like}")).contains(note));
    }
    assert!(!said("-d a=1").contains(note) && !said("--json '{}'").contains(note));
    // Of standard input, too.
    let line =
        |body: &str| format!("onlyonce explain POST /orders -H 'Idempotency-Key: 17' -H 'X-Tenant: acme' {body}");
    for (typed, body) in [("a=1\n", "-d a=1"), ("[1]", "--json '[1]'")] {
        let option = body.split_once(' ').expect("an option").0;
        let piped = format!("printf '%s' '{typed}' | {}", line(&format!("{option} @-")));
        assert_eq!(shell(&folder, &piped), shell(&folder, &line(body)), "{body}");
    }
}

/// The record's name is printed if the digest key is available; otherwise the output says where it is.
#[test]
fn where_the_digest_is_not_known_the_way_to_it_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for store in ["embedded:store", "memory:", "redis://127.0.0.1:1"] {
        let file = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[store]\nurl = \"{store}\"\n[[route]]\nname = \"orders\"\n\
             path = \"/orders\"\nscope = []\n"
        );
        fs::write(folder.path().join("onlyonce.toml"), file).expect("a writable folder");
        let line = "onlyonce explain POST /orders -H 'Idempotency-Key: 17'";
        let words = |line: &str| shell(folder.path(), line).split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = words(line);
        assert!(shown.contains("(its digest cannot be told: "), "{shown}");
        assert!(shown.contains("; --lookup asks the running sidecar)"), "{shown}");
        // Nobody is there, and the exit status says so.
        let (status, asked) = ran(folder.path(), &format!("{line} --lookup --admin http://127.0.0.1:1"));
        assert!(status == Some(1) && asked.contains("now           cannot be told: "), "{asked}");
        assert!(!asked.contains("--lookup"), "{asked}");
        // What has no record has nothing to be looked up.
        for line in ["onlyonce explain GET /orders --lookup", "onlyonce explain POST /orders --lookup"] {
            assert!(!shell(folder.path(), line).contains("cannot be told: "), "{line}");
        }
    }
}

fn texts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}
