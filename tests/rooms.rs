//! Dependencies point one way, from the edge inwards. This test holds the arrows that the crate's documentation draws.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room, the rooms it may use besides itself, and the crates that only it (and others that list them) may name.
const ROOMS: [(&str, &[&str], &[&str]); 17] = [
    ("clock", &[], &[]),
    ("config", &["tls"], &["ipnet", "jsonwebtoken", "toml", "matchit", "serde_json", "strsim"]),
    ("metrics", &[], &["prometheus"]),
    ("telemetry", &["config"], &["tracing_subscriber"]),
    ("tls", &[], &["rustls_native_certs", "tokio_rustls"]),
    ("record", &[], &["blake3"]),
    ("key", &["config", "record"], &["base64", "blake3", "humantime", "json_event_parser", "jsonwebtoken", "multer"]),
    ("problem", &["record"], &["serde_json"]),
    ("store", &["clock", "config", "key", "metrics", "record"], &["redis", "fjall"]),
    ("fail_point", &[], &[]),
    ("guard", &["clock", "config", "fail_point", "key", "metrics", "record", "store"], &[]),
    (
        "proxy",
        &["clock", "config", "fail_point", "guard", "key", "metrics", "problem", "record", "store", "tls"],
        &["h2", "hyper", "hyper_util", "tokio_rustls"],
    ),
    ("admin", &["clock", "config", "metrics", "record", "store"], &["base64", "blake3", "humantime", "serde_json"]),
    (
        "server",
        &["config", "metrics", "proxy", "tls"],
        &["arc_swap", "hyper", "hyper_util", "listenfd", "tokio_rustls"],
    ),
    (
        "run",
        &["admin", "config", "guard", "key", "metrics", "proxy", "record", "server", "store", "telemetry"],
        &["arc_swap", "hyper", "prometheus"],
    ),
    ("demo", &["config", "run"], &["hyper", "hyper_util", "serde_json"]),
    (
        "cli",
        &["admin", "clock", "config", "demo", "key", "record", "run", "telemetry"],
        &["clap", "hyper", "hyper_util", "serde_json", "terminal_size"],
    ),
];

fn files(room: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut left = vec![src.join(room), src.join(format!("{room}.rs"))];
    let mut files = Vec::new();
    while let Some(path) = left.pop() {
        if !path.exists() {
            continue;
        }
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The code of a file, without comments and without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// Every name that follows `prefix` in `code` as a path, at the start of a word.
fn names<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let ends = code.match_indices(prefix).map(|(at, _)| &code[at + prefix.len()..]);
    ends.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()).collect()
}

fn is_named(code: &str, name: &str) -> bool {
    let pattern = format!("{name}::");
    code.match_indices(&pattern).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        // A module of ours may bear a crate's name: then its path has something before it, or is `self::`.
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

#[test]
fn every_room_uses_only_the_rooms_below_it() {
    for (room, allowed, _) in ROOMS {
        for file in files(room).iter().filter(|file| !file.ends_with("conformance.rs")) {
            let code = code(file);
            for used in names(&code, "crate::") {
                let fine = used.is_empty() || used == room || allowed.contains(&used);
                assert!(fine, "{} uses {used}, which {room} must not know", file.display());
            }
        }
    }
}

#[test]
fn each_library_is_named_in_its_rooms_only() {
    let owned: BTreeSet<&str> = ROOMS.iter().flat_map(|(_, _, crates)| crates.iter().copied()).collect();
    for (room, _, crates) in ROOMS {
        for file in files(room) {
            let code = code(&file);
            for name in owned.iter().filter(|name| !crates.contains(name)) {
                let is_module = code.contains(&format!("mod {name};"));
                assert!(is_module || !is_named(&code, name), "{} names {name}, and {room} must not", file.display());
            }
        }
    }
}

#[test]
fn every_room_is_drawn() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let drawn: BTreeSet<&str> = ROOMS.iter().map(|(room, _, _)| *room).collect();
    for entry in fs::read_dir(src).expect("src") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(matches!(name, "lib" | "main") || drawn.contains(name), "{name} is not in the drawing");
    }
}

/// The name that the environment gives them by is in the program, or it has none.
#[test]
fn only_a_test_build_has_fail_points() {
    let program = fs::read(env!("CARGO_BIN_EXE_onlyonce")).expect("the program");
    let has_them = String::from_utf8_lossy(&program).contains("ONLYONCE_FAIL_POINT");
    assert_eq!(has_them, cfg!(feature = "fail-points"));
}
