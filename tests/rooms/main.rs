//! Dependencies point one way, from the edge inwards. This test holds the arrows of [`ROOMS`], which the crate's
//! documentation draws.

// In a binary, nothing is reachable from outside.
#![allow(unreachable_pub)]

mod allowed;
mod source;
mod wrong_arrows;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use allowed::{EVERYWHERE, ROOMS};
use source::{Names, Source};

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files that are part of the program.
fn sources() -> Vec<Source> {
    source::sources(&src()).into_iter().filter(|source| !source.of_tests).collect()
}

/// What is wrong with the arrows of a file.
fn wrong_arrows(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    let Some((_, allowed, crates)) = ROOMS.iter().find(|(name, ..)| *name == room) else {
        return vec![format!("{room} is not in the drawing")];
    };
    let names = source.names();
    let rooms = names.rooms.iter().map(String::as_str).filter(|name| *name != room && !allowed.contains(name));
    let rooms = rooms.map(|name| format!("{} uses {name}, which {room} must not know", source.path.display()));
    let owned: BTreeSet<&str> = ROOMS.iter().flat_map(|(_, _, crates)| crates.iter().copied()).collect();
    let crates = names.crates.iter().filter(|name| owned.contains(name.as_str()) && !crates.contains(&name.as_str()));
    let crates = crates.map(|name| format!("{} names {name}, and {room} must not", source.path.display()));
    rooms.chain(crates).collect()
}

#[test]
fn every_room_uses_only_the_rooms_below_it_and_its_own_libraries() {
    let wrong: Vec<String> = sources().iter().flat_map(wrong_arrows).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rooms whose files have an order: no file leads back to itself.
const WITHOUT_CIRCLES: [&str; 1] = ["proxy"];

/// The modules of a file, `["proxy", "body", "error"]`.
type FileName = Vec<String>;

/// For each file of a room, the files of that room that it names. A path leads to the file of its longest known module.
fn arrows_within(room: &str, sources: &[Source]) -> BTreeMap<FileName, BTreeSet<FileName>> {
    let files: Vec<&Source> = sources.iter().filter(|source| source.room() == Some(room)).collect();
    let known: BTreeSet<&FileName> = files.iter().map(|source| &source.module).collect();
    let file_of = |path: &FileName| {
        let modules = (1..=path.len()).rev().map(|end| path[..end].to_vec());
        modules.into_iter().find(|module| known.contains(module))
    };
    let of_file = |source: &&Source| {
        let mut named: BTreeSet<FileName> = source.names().paths.iter().filter_map(file_of).collect();
        named.remove(&source.module);
        (source.module.clone(), named)
    };
    files.iter().map(of_file).collect()
}

/// The files that are part of a circle, or that lead into one.
fn circle(mut arrows: BTreeMap<FileName, BTreeSet<FileName>>) -> Vec<String> {
    loop {
        let left = arrows.len();
        let there: BTreeSet<FileName> = arrows.keys().cloned().collect();
        arrows.retain(|_, named| named.iter().any(|name| there.contains(name)));
        if arrows.len() == left {
            break;
        }
    }
    arrows.into_keys().map(|module| module.join("/")).collect()
}

#[test]
fn the_files_of_a_room_have_an_order() {
    let sources = sources();
    for room in WITHOUT_CIRCLES {
        let arrows = arrows_within(room, &sources);
        assert!(arrows.len() > 20, "{room} has {} files", arrows.len());
        assert_eq!(circle(arrows), Vec::<String>::new());
    }
}

/// Who holds the current connection needs neither what is sent on it nor how its server is examined.
#[test]
fn the_link_to_a_redis_names_neither_commands_nor_the_examiner() {
    let name = |module: &str| ["store", "redis", module].map(str::to_owned).to_vec();
    let arrows = arrows_within("store", &sources());
    let named = arrows.get(&name("link")).expect("a file");
    assert!(named.contains(&name("connected")), "{named:?}");
    for module in ["commands", "examine", "supervisor", "call"] {
        assert!(arrows.contains_key(&name(module)), "there is no {module}");
        assert!(!named.contains(&name(module)), "the link names {module}");
    }
}

#[test]
fn every_file_is_looked_at() {
    let known: BTreeSet<PathBuf> = source::sources(&src()).into_iter().map(|source| source.path).collect();
    let mut left = vec![src()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            assert!(known.contains(&path), "no module leads to {}", path.display());
        }
    }
}

#[test]
fn every_arrow_that_is_drawn_is_used() {
    let mut used: BTreeMap<String, Names> = BTreeMap::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        let Names { rooms, crates, .. } = source.names();
        let all = used.entry(room.to_owned()).or_default();
        all.rooms.extend(rooms);
        all.crates.extend(crates);
    }
    for (room, rooms, crates) in ROOMS.iter().copied() {
        let used = used.get(room).unwrap_or_else(|| panic!("there is no room {room}"));
        for name in rooms {
            assert!(used.rooms.contains(*name), "{room} does not use {name} any more: take it out of the drawing");
        }
        for name in crates {
            assert!(used.crates.contains(*name), "{room} does not name {name} any more: take it out of the drawing");
        }
    }
}

/// The drawing in the crate's documentation has the rooms of this file, and no others.
#[test]
fn the_crate_documentation_draws_every_room() {
    let page = fs::read_to_string(src().join("lib.rs")).expect("lib.rs");
    let drawing = page.split("```text").nth(1).and_then(|rest| rest.split("```").next()).expect("a drawing");
    let drawn: BTreeSet<&str> = drawing
        .split(|letter: char| !letter.is_ascii_lowercase() && letter != '_')
        .filter(|word| !word.is_empty() && *word != "leaves")
        .collect();
    assert_eq!(drawn, ROOMS.iter().map(|(name, ..)| *name).collect::<BTreeSet<_>>());
}

#[test]
fn every_dependency_is_in_the_drawing() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let owned = ROOMS.iter().flat_map(|(_, _, crates)| crates.iter().copied());
    let drawn: BTreeSet<&str> = owned.chain(EVERYWHERE).collect();
    for name in manifest["dependencies"].as_table().expect("a table").keys().map(|name| name.replace('-', "_")) {
        assert!(drawn.contains(name.as_str()), "{name} is not in the drawing: which rooms may name it?");
    }
}

/// Type names that two files share, and why.
const SHARED_NAMES: [(&str, &str); 3] = [
    ("Parent", "of traces: one for each build, with the feature otlp and without"),
    ("Span", "the same"),
    ("Traces", "the same"),
];

/// A search for a type's name finds one type.
#[test]
fn no_two_types_have_the_same_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for name in source.types() {
            places.entry(name).or_default().push(source.path.display().to_string());
        }
    }
    places.retain(|_, places| places.len() > 1);
    for (name, reason) in SHARED_NAMES {
        assert!(places.remove(name).is_some(), "one type is called {name} now: take it off the list ({reason})");
    }
    let shared: Vec<String> = places.iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert!(shared.is_empty(), "types that have the same name:\n{}", shared.join("\n"));
}

/// What another request has recorded is sealed (`guard/replay_permission.rs`): the compiler lets nobody outside of `guard` see
/// it without a permission, and makes permissions there only. So what is left to hold is that there is one place.
#[test]
fn what_another_request_has_recorded_is_opened_in_one_file() {
    let opening = |source: &Source| source.text.contains(".open(permission)");
    let places: Vec<String> =
        sources().iter().filter(|source| opening(source)).map(|source| source.module.join("/")).collect();
    assert_eq!(places, ["proxy/replay"]);
    let permits = |source: &Source| source.text.contains("ReplayPermission(()") || source.text.contains("Sealed(pub");
    let places: Vec<String> =
        sources().iter().filter(|source| permits(source)).map(|source| source.module.join("/")).collect();
    assert_eq!(places, ["guard/replay_permission"]);
}

/// The page that shows what a request becomes shows types and files that are there.
#[test]
fn the_page_on_the_life_of_a_request_names_what_is_there() {
    // Types of hyper, tokio and the standard library.
    const OF_OTHERS: [&str; 5] = ["Request", "Incoming", "Response", "Drop", "RFC"];
    let page = fs::read_to_string(src().with_file_name("docs").join("architecture.md")).expect("the page");
    let sources = sources();
    let types: BTreeSet<String> = sources.iter().flat_map(Source::types).collect();
    let texts: Vec<&str> = sources.iter().map(|source| source.text.as_str()).collect();
    let is_variant = |name: &str| texts.iter().any(|text| text.contains(&format!("    {name}")));
    let is_name = |word: &&str| word.starts_with(|first: char| first.is_ascii_uppercase()) && word.len() > 1;
    let drawing: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    let quoted = page.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let mut words = 0;
    for text in drawing.into_iter().chain(quoted) {
        for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(is_name) {
            let is_known = types.contains(word) || OF_OTHERS.contains(&word) || is_variant(word);
            assert!(is_known, "docs/architecture.md names {word}, which is no type, trait or variant");
            words += 1;
        }
        for path in
            text.split_whitespace().map(|word| word.trim_matches([',', ';'])).filter(|word| word.ends_with(".rs"))
        {
            let path = path.strip_prefix("src/").unwrap_or(path);
            assert!(src().join(path).is_file(), "docs/architecture.md names {path}");
        }
    }
    assert!(words > 60, "{words}");
}

/// The data path waits with `tick` only: a timer of tokio costs a place in its wheel, and system calls.
#[test]
fn on_the_way_of_a_request_there_are_coarse_timers_only() {
    const TIMERS: [&str; 3] = ["time::sleep", "time::timeout", "time::interval"];
    // It counts records in the background.
    const BESIDE: [&str; 1] = ["guard/unknown.rs"];
    for source in sources().into_iter().filter(|source| matches!(source.room(), Some("guard" | "proxy"))) {
        let program = source.text.split("#[cfg(test)]\nmod tests {").next().expect("a first part");
        let found = TIMERS.into_iter().find(|timer| program.contains(timer));
        assert!(found.is_none() || BESIDE.iter().any(|path| source.path.ends_with(path)), "{}", source.path.display());
    }
}

/// The program contains the name of their environment variable if, and only if, it has fail points.
#[test]
fn only_a_test_build_has_fail_points() {
    let program = fs::read(env!("CARGO_BIN_EXE_onlyonce")).expect("the program");
    let has_them = String::from_utf8_lossy(&program).contains("ONLYONCE_FAIL_POINT");
    assert_eq!(has_them, cfg!(feature = "fail-points"));
}
