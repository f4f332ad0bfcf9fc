//! Files in the documents load, and `docs/configuration.md` is made of the schema.

use std::fmt::Write;
use std::fs;

use onlyonce::config::parse;
use onlyonce::schema;
use serde_json::Value;

use crate::page::{Page, pages, root};

/// Each block of TOML is a file, or what a file says besides the backend, the store and a route.
#[test]
fn every_example_of_a_file_loads() {
    let mut loaded = 0;
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.info == "toml") {
            let mut text = block.text.clone();
            for (table, rest) in [
                ("[upstream]", "[upstream]\nurl = \"http://127.0.0.1:3000\"\n"),
                ("[store]", "[store]\nurl = \"memory:\"\n"),
                ("[[route]]", "[[route]]\nname = \"a\"\npath = \"/a\"\nscope = []\n"),
            ] {
                if !text.lines().any(|line| line == table) {
                    text += rest;
                }
            }
            // Certificates of the tests stand for those of the example.
            let pem = root().join("tests/config/pem");
            let text = text.replace("/etc/onlyonce", pem.to_str().expect("UTF-8"));
            let environment = |variable: &str| {
                // A key of 32 bytes, in base64; tokens, each another one; and what will do for all others.
                Some(match variable {
                    key if key.starts_with("ONLYONCE_KEY") => "A".repeat(43),
                    token if token.ends_with("_TOKEN") => format!("{token}-of-some-length"),
                    _ => "0123456789abcdef0123456789abcdef".to_owned(),
                })
            };
            if let Err(error) = parse("example.toml", &text, &environment) {
                panic!("{}:{}\n{error}", page.name, block.line);
            }
            loaded += 1;
        }
    }
    assert!(loaded >= 12, "{loaded} examples");
}

const PAGE: &str = "docs/configuration.md";
const MARKER: &str = "<!-- What follows is written by the test: ONLYONCE_BLESS=1 tests/run docs -->\n";

#[test]
fn the_reference_is_what_the_schema_says() {
    let page = Page::read(PAGE);
    let (before, _) = page.text.split_once(MARKER).expect("the marker");
    let written = format!("{before}{MARKER}{}", reference(&schema::configuration()));
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        fs::write(root().join(PAGE), &written).expect("to write the page");
    } else {
        assert!(page.text == written, "{PAGE} is not what the schema says (ONLYONCE_BLESS=1 writes it)");
    }
}

const TABLES: [&str; 13] = [
    "server",
    "server.tls",
    "log",
    "admin",
    "admin.tokens.*",
    "upstream",
    "store",
    "jwt",
    "defaults",
    "route",
    "route.probe",
    "route.probe.found",
    "route.probe.absent",
];

fn reference(schema: &Value) -> String {
    let mut out = String::new();
    let mut seen = Vec::new();
    for table in TABLES {
        let found = find(schema, table);
        let brackets =
            if table == "route" { format!("[[{table}]]") } else { format!("[{}]", table.replace('*', "NAME")) };
        // Tables under names of the file's own are described where those names are.
        let described = table.strip_suffix(".*").map_or(found, |outer| find(schema, outer));
        let _ = write!(out, "\n## `{brackets}`\n\n{}\n", cell(&described["description"]));
        seen.push(table.to_owned());
        // Its keys are those of a route.
        if table == "defaults" {
            continue;
        }
        let keys = properties(found);
        out += "\n| key | value | default | meaning |\n|---|---|---|---|\n";
        for name in in_order(table, keys.keys()) {
            let key = &keys[name];
            if !properties(key).is_empty() || key["additionalProperties"].is_object() {
                let any = if key["additionalProperties"].is_object() { ".*" } else { "" };
                let inner = format!("{table}.{name}{any}");
                assert!(TABLES.contains(&&*inner), "{inner} has no place in the reference");
                continue;
            }
            let default = key.get("default").map_or_else(String::new, |value| format!("`{}`", toml(value)));
            let _ = writeln!(out, "| `{name}` | {} | {default} | {} |", kinds(key), cell(&key["description"]));
        }
    }
    let tables = schema["properties"].as_object().expect("tables").keys();
    let lost: Vec<&String> = tables.filter(|table| !seen.contains(table)).collect();
    assert!(lost.is_empty(), "{lost:?} have no place in the reference");
    out
}

fn find<'a>(schema: &'a Value, table: &str) -> &'a Value {
    table.split('.').fold(schema, |schema, name| match name {
        "*" => &schema["additionalProperties"],
        name if schema.get("items").is_some() => &schema["items"]["properties"][name],
        name => &schema["properties"][name],
    })
}

fn properties(schema: &Value) -> &serde_json::Map<String, Value> {
    static NONE: std::sync::LazyLock<serde_json::Map<String, Value>> = std::sync::LazyLock::new(Default::default);
    let of = |schema: &'_ Value| schema.get("properties").is_some();
    let inner = if of(schema) { schema } else { &schema["items"] };
    inner["properties"].as_object().unwrap_or(&NONE)
}

/// As they stand in `config/onlyonce.toml`, which has all of them.
fn in_order<'a>(table: &str, keys: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let file = fs::read_to_string(root().join("config/onlyonce.toml")).expect("the reference file");
    let header = if table == "route" { "[[route]]".to_owned() } else { format!("[{table}]") };
    let start = file.find(&format!("\n{header}\n")).or_else(|| file.find(&format!("\n# {header}\n")));
    let rest = &file[start.unwrap_or_default()..];
    let place = |key: &&String| {
        let found = ["\n", "\n# "].iter().filter_map(|before| rest.find(&format!("{before}{key} = "))).min();
        found.unwrap_or(usize::MAX)
    };
    let mut keys: Vec<&String> = keys.collect();
    keys.sort_by_key(place);
    keys
}

/// What is taken, in a few words.
fn kinds(key: &Value) -> String {
    if let Some(several) = key["anyOf"].as_array() {
        let mut kinds: Vec<String> = several.iter().map(kinds).filter(|kind| !kind.is_empty()).collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    let pattern = key["pattern"].as_str().unwrap_or_default();
    match key["type"].as_str() {
        // Where all else is a word, a number or a measure, "env:NAME" may stand.
        Some("string") if pattern == "^env:." => String::new(),
        Some("string") if pattern.contains("KiB") => "size".into(),
        Some("string") if pattern.starts_with("^[0-9]") => "duration".into(),
        Some("string") => "string".into(),
        Some("array") => match kinds(&key["items"]) {
            kind if kind.contains('`') => format!("list of {kind}"),
            kind => format!("list of {kind}s"),
        },
        Some("integer") => format!("{} to {}", key["minimum"], key["maximum"]),
        Some(kind) => kind.to_owned(),
        None => {
            let words = key["enum"].as_array().map(Vec::as_slice).unwrap_or_default();
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
    }
}

fn toml(value: &Value) -> String {
    // Numbers, strings and lists of them look the same in JSON.
    value.to_string().replace("\",\"", "\", \"")
}

fn cell(text: &Value) -> String {
    text.as_str().unwrap_or_default().replace('|', "\\|").replace('<', "&lt;")
}
