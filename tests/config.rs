//! All shipped configuration files are valid; the broken ones have exact error messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onlyonce::config::{Config, ConfigError, load, parse};
use onlyonce::rule::{OnConcurrent, OnUnknown, Policy, Selector};
use onlyonce::schema;
use serde_json::Value;

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
        "EMPTY" => Some(String::new()),
        "NOT_A_URL" => Some("hunter2".into()),
        "TOKEN" => Some("hunter2hunter2hunter2".into()),
        _ => None,
    }
}

#[test]
fn every_shipped_file_loads() {
    for path in files("config") {
        load(&path).unwrap_or_else(|error| panic!("{error}"));
    }
}

const SCHEMA: &str = "onlyonce.schema.json";

/// The errors of a configuration file by the schema.
fn seen_by_an_editor(text: &str) -> Result<(), String> {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource(SCHEMA, schema::configuration()).expect("JSON");
    let index = compiler.compile(SCHEMA, &mut schemas).unwrap_or_else(|error| panic!("{error}"));
    let instance: Value = toml::from_str(text).expect("TOML");
    schemas.validate(&instance, index).map_err(|error| error.to_string())
}

/// `ONLYONCE_BLESS=1` writes the file anew.
#[test]
fn the_schema_beside_the_examples_is_the_one_that_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(SCHEMA);
    let printed = schema::configuration();
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        fs::write(&path, format!("{printed:#}\n")).expect("to write the schema");
    }
    let there: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap_or_default();
    assert!(there == printed, "config/{SCHEMA} is not what `onlyonce schema` prints (ONLYONCE_BLESS=1 writes it)");
}

#[test]
fn an_editor_is_content_with_every_shipped_file() {
    for path in files("config") {
        let text = fs::read_to_string(&path).expect("a file");
        seen_by_an_editor(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.starts_with(&format!("#:schema ./{SCHEMA}\n")), "{} names no schema", path.display());
    }
}

#[test]
fn an_editor_sees_slips_while_they_are_made() {
    let whole = include_str!("../config/orders.toml");
    for (right, wrong, said) in [
        ("on_concurrent =", "on_concurent =", "on_concurent"),
        ("[store]", "[stroe]", "stroe"),
        ("\"wait\"", "\"wiat\"", "on_concurrent"),
        ("path = \"/orders\"\n", "lease = \"30\"\n", "path"),
        ("message = \"", "lease = \"", "lease"),
        ("listen = \"0.0.0.0:8080\"", "listen = 8080", "listen"),
        ("listen = \"0.0.0.0:8080\"", "max_connections = 0", "max_connections"),
        ("url = \"redis://127.0.0.1:6379/0\"", "", "url"),
        ("scope = [\"header:Authorization\"]", "scope = 7", "scope"),
    ] {
        assert!(whole.contains(right), "{right}");
        let error = seen_by_an_editor(&whole.replace(right, wrong)).expect_err(wrong);
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn an_editor_takes_what_the_environment_gives() {
    let whole = include_str!("../config/orders.toml");
    seen_by_an_editor(&whole.replace("\"wait\"", "\"env:CONCURRENT\"\nlease = \"env:LEASE\"")).expect("right");
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

/// `tests/config/warn-NAME.toml` is checked with exactly the text of `warn-NAME.txt`; an editor sees nothing wrong.
#[test]
fn unwise_files_are_warned_of() {
    let bless = std::env::var_os("ONLYONCE_BLESS").is_some();
    let mut different = Vec::new();
    for path in unwise_files() {
        let name = path.display();
        let output = Command::new(env!("CARGO_BIN_EXE_onlyonce")).args(["check", "--config"]).arg(&path).output();
        let output = output.expect("the program");
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let wide = shown.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{name} is wider than a terminal");
        let text = fs::read_to_string(&path).expect("a file");
        seen_by_an_editor(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let golden = path.with_extension("txt");
        if bless {
            fs::write(&golden, &shown).expect("to write what is said now");
        } else if fs::read_to_string(&golden).unwrap_or_default() != shown {
            different.push(shown);
        }
    }
    assert!(different.is_empty(), "not as expected (ONLYONCE_BLESS=1 accepts it):\n\n{}", different.join("\n"));
}

/// What depends on the machine.
const SEEN_ELSEWHERE: [&str; 1] = ["can be believed: this machine knows no authorities"];

/// Each sentence with which the reader refuses, or `check` warns, is in one of the texts.
#[test]
fn every_sentence_has_a_file_that_shows_it() {
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        // The texts are being written.
        return;
    }
    let shown: String = broken_files().into_iter().chain(unwise_files()).map(|path| golden(&path)).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut unseen = Vec::new();
    for path in sources(&source.join("config")).into_iter().chain(sources(&source.join("advice"))) {
        let code = fs::read_to_string(&path).expect("a source file");
        let code = code.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        for said in sentences(code) {
            if !shown.contains(&said) && !SEEN_ELSEWHERE.contains(&said.as_str()) {
                unseen.push(format!("{}: {said}", path.display()));
            }
        }
    }
    assert!(unseen.is_empty(), "no file in tests/config is answered with:\n{}", unseen.join("\n"));
}

/// What is said in a golden file, without its line breaks.
fn golden(path: &Path) -> String {
    let text = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
    format!("{} ", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The longest fixed part of each message: of the first string after the name of a function that reports.
fn sentences(code: &str) -> Vec<String> {
    let calls = [".refuse(", ".not_built(", "warn(", ".add("];
    let mut all = Vec::new();
    for call in calls {
        for (at, _) in code.match_indices(call) {
            let arguments = code[at + call.len()..].split(");").next().unwrap_or_default();
            let Some((_, literal)) = arguments.split_once('"') else { continue };
            let literal = literal.replace("\\\"", "\u{1}");
            let literal = literal.split('"').next().unwrap_or_default();
            let text = literal.replace("\\\n", "").replace('\u{1}', "\"").replace("\\n", " ");
            let fixed = text.split(['{', '}']).step_by(2).max_by_key(|part| part.len()).unwrap_or_default();
            let fixed = fixed.split_whitespace().collect::<Vec<_>>().join(" ");
            if fixed.len() > 8 {
                all.push(fixed);
            }
        }
    }
    all
}

fn broken_files() -> Vec<PathBuf> {
    files("tests/config").into_iter().filter(|path| !is_unwise(path)).collect()
}

fn unwise_files() -> Vec<PathBuf> {
    files("tests/config").into_iter().filter(|path| is_unwise(path)).collect()
}

fn is_unwise(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("warn-"))
}

/// The TOML files of a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder");
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
        "no onlyonce.toml in this folder\nhelp: make one with `onlyonce init`, name one with --config or $ONLYONCE_CONFIG,\n      or try `onlyonce demo`"
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
