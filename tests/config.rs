//! The configuration files that come with onlyonce load; the broken ones say what is wrong with them, word by word.

use std::fs;
use std::path::{Path, PathBuf};

use onlyonce::config::{Config, ConfigError, OnConcurrent, OnUnknown, Policy, Selector, load, parse};

fn shipped(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    load(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn environment(variable: &str) -> Option<String> {
    match variable {
        "LEASE" => Some("hunter2 seconds".into()),
        "SHORT_KEY" => Some("hunter2".into()),
        "STORE_URL" => Some("redis://:hunter2@redis:port/0".into()),
        "HEADER" => Some("header:hunter2 hunter2".into()),
        "COOKIE" => Some("cookie:hunter2 hunter2".into()),
        "POINTER" => Some("json:hunter2".into()),
        "SELECTOR" => Some("hunter2:hunter2".into()),
        "QUERY" => Some("/hunter2?hunter2".into()),
        "DOTS" => Some("/hunter2/..".into()),
        "TOKEN" => Some("hunter2hunter2hunter2".into()),
        _ => None,
    }
}

#[test]
fn every_shipped_file_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for entry in fs::read_dir(folder).expect("the folder of shipped files") {
        let path = entry.expect("an entry").path();
        load(&path).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_payments_example_would_rather_hold() {
    for rule in shipped("payments.toml").routes.rules() {
        assert_eq!((rule.policy.base(), rule.on_unknown), (Policy::Strict, OnUnknown::Hold));
        assert_eq!(rule.hold_for, rule.retention);
    }
}

#[test]
fn the_orders_example_lets_a_second_click_wait() {
    for rule in shipped("orders.toml").routes.rules() {
        assert_eq!(rule.on_concurrent, OnConcurrent::Wait);
    }
}

#[test]
fn the_webhooks_example_would_rather_deliver_again() {
    for rule in shipped("webhooks.toml").routes.rules() {
        assert_eq!((rule.policy.base(), rule.on_unknown), (Policy::Lenient, OnUnknown::Retry));
        assert_eq!(rule.scope, Vec::<Selector>::new());
    }
}

/// `tests/config/NAME.toml` is refused with exactly the text of `NAME.txt`. `ONLYONCE_BLESS=1` writes the texts anew.
#[test]
fn broken_files_say_what_is_wrong() {
    let bless = std::env::var_os("ONLYONCE_BLESS").is_some();
    let mut different = Vec::new();
    for path in broken_files() {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let text = fs::read_to_string(&path).expect("a broken file");
        let Err(error) = parse(&name, &text, &environment) else { panic!("{name} is not broken") };
        let shown = format!("{error}\n");
        assert!(!shown.contains("hunter2"), "{name} shows a secret:\n{shown}");
        assert!(!format!("{error:?}").contains("hunter2"), "{name} holds a secret");
        let wide = shown.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{name} is wider than a terminal");
        let golden = path.with_extension("txt");
        if bless {
            fs::write(&golden, &shown).expect("to write what is said now");
        } else if fs::read_to_string(&golden).unwrap_or_default() != shown {
            different.push(shown);
        }
    }
    assert!(different.is_empty(), "not as expected (ONLYONCE_BLESS=1 accepts it):\n\n{}", different.join("\n"));
}

fn broken_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let entries = fs::read_dir(folder).expect("the folder of broken files");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

#[test]
fn a_file_that_cannot_be_read_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = load(Path::new("no/such.toml")).expect_err("there is none").to_string();
    assert_eq!(
        missing,
        "there is no file no/such.toml\nhelp: check the path, or name one with --config or $ONLYONCE_CONFIG"
    );
    let default = load(Path::new("onlyonce.toml")).expect_err("there is none").to_string();
    assert_eq!(
        default,
        "no onlyonce.toml in this folder\nhelp: name one with --config or $ONLYONCE_CONFIG, or try `onlyonce demo`"
    );
    let error = load(folder.path()).expect_err("a folder is no file");
    assert!(matches!(&error, ConfigError::Unreadable { message, .. } if message.ends_with("is a folder")), "{error}");
    let path = folder.path().join("latin1.toml");
    fs::write(&path, b"# one\n# caf\xe9\n").expect("to write");
    let error = load(&path).expect_err("not UTF-8");
    assert!(matches!(&error, ConfigError::Unreadable { message, .. } if message.contains("line 2")), "{error}");
}

#[test]
fn no_half_written_file_makes_the_reader_fail() {
    let whole = include_str!("../config/payments.toml");
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let _ = parse("half.toml", &whole[..end], &environment).map_err(|error| error.to_string());
    }
    for start in (0..whole.len()).filter(|start| whole.is_char_boundary(*start)) {
        let _ = parse("half.toml", &whole[start..], &environment).map_err(|error| error.to_string());
    }
}
