//! What `onlyonce explain` says, word by word: in `tests/explain/`, and in the README.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_onlyonce");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a line of a shell in `folder`, with the program in its path.
fn shell(folder: &Path, line: &str) -> String {
    let programs = Path::new(PROGRAM).parent().expect("the folder of the program");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("PATH", path).env_remove("ONLYONCE_CONFIG");
    let output = command.output().expect("a shell");
    assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
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
        let shown = shell(&folder, line);
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

/// Values are what identifies a caller, or a key: neither is in what is printed.
#[test]
fn no_value_of_a_request_is_printed() {
    let folder = root().join("tests/explain");
    let line = "onlyonce explain POST /orders -H 'Idempotency-Key: s3cr3t-key' -H 'X-Tenant: s3cr3t-tenant' -d s3cr3t";
    let shown = shell(&folder, line);
    assert!(shown.contains("record") && !shown.contains("s3cr3t"), "{shown}");
}

#[test]
fn the_readme_shows_what_is_printed() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let blocks = || readme.split("\n```").collect::<Vec<_>>().into_iter().skip(1).step_by(2);
    let config = blocks().find_map(|block| block.strip_prefix("toml\n")).expect("a configuration");
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("onlyonce.toml"), config).expect("a writable folder");
    let told = blocks().find_map(|block| block.trim_start().strip_prefix("$ onlyonce explain")).expect("a command");
    let (arguments, told) = told.split_once('\n').expect("what it prints");
    let shown = shell(folder.path(), &format!("onlyonce explain{arguments}"));
    assert_eq!(told.trim_end(), shown.trim_end());
    let checked = shell(folder.path(), "onlyonce check");
    let (_, warnings) = checked.split_once("policy standard").expect("a policy");
    assert!(readme.contains(warnings), "the README does not show what check says:\n{checked}");
}

fn texts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}
