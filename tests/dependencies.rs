//! The dependencies of the program have allowed licences, come from crates.io, and exist in one version.
//!
//! `cargo deny check` does the same and more, and takes minutes to install. Both read `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

fn rules() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    std::fs::read_to_string(path).expect("deny.toml").parse().expect("TOML")
}

/// A dependency of the program.
struct Package {
    name: String,
    version: String,
    license: String,
    /// Its source, if it is not crates.io.
    elsewhere: Option<String>,
}

/// All dependencies but those of tests.
fn packages() -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    // `cargo metadata` also lists optional crates that are not built.
    cargo.args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--no-dedupe"]);
    cargo.args(["--format", "{p};{l}"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let packages: Vec<Package> = lines.into_iter().map(package).filter(|package| package.name != "onlyonce").collect();
    assert!(packages.len() > 100, "{}", packages.len());
    packages
}

/// `serde v1.0.228;MIT OR Apache-2.0`, with `(proc-macro)` or a source behind the version.
fn package(line: &str) -> Package {
    let (package, license) = line.split_once(';').expect("a licence");
    let mut words = package.split_whitespace();
    let name = words.next().expect("a name").to_owned();
    let version = words.next().expect("a version").trim_start_matches('v').to_owned();
    let elsewhere = words.find(|word| *word != "(proc-macro)").map(ToOwned::to_owned);
    Package { name, version, license: license.to_owned(), elsewhere }
}

/// Whether the allowed licences satisfy an SPDX expression. `/` is an old way to write OR.
fn is_met(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().peekable();
    return any(&mut words, allowed);

    type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

    fn any(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> bool {
        let mut met = all(words, allowed);
        while words.next_if_eq(&"OR").is_some() {
            met |= all(words, allowed);
        }
        met
    }

    fn all(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> bool {
        let mut met = one(words, allowed);
        while words.next_if_eq(&"AND").is_some() {
            met &= one(words, allowed);
        }
        met
    }

    fn one(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> bool {
        if words.next_if_eq(&"(").is_some() {
            let met = any(words, allowed);
            assert_eq!(words.next(), Some(")"));
            return met;
        }
        let license = words.next().expect("a licence");
        match words.next_if_eq(&"WITH") {
            Some(_) => allowed(&format!("{license} WITH {}", words.next().expect("an exception"))),
            None => allowed(license),
        }
    }
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let allow = rules["licenses"]["allow"].as_array().expect("a list");
    let allowed = |license: &str| allow.iter().any(|allowed| allowed.as_str() == Some(license));
    for package in packages() {
        let Package { name, license, .. } = package;
        assert!(is_met(&license, &allowed), "{name}: {license:?} is not in deny.toml");
    }
}

#[test]
fn a_licence_that_is_not_allowed_is_seen() {
    let allowed = |license: &str| matches!(license, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception");
    for right in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "GPL-3.0 OR (MIT AND ISC)",
        "Apache-2.0 WITH LLVM-exception",
        "MIT AND (GPL-3.0 OR ISC)",
        "GPL-3.0 AND ISC OR MIT",
    ] {
        assert!(is_met(right, &allowed), "{right}");
    }
    for wrong in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "Apache-2.0", "GPL-3.0 OR MIT AND GPL-3.0"]
    {
        assert!(!is_met(wrong, &allowed), "{wrong}");
    }
}

#[test]
fn every_crate_comes_from_crates_io() {
    for package in packages() {
        assert_eq!(package.elsewhere, None, "{}", package.name);
    }
}

#[test]
fn no_crate_is_there_that_is_denied() {
    let rules = rules();
    let denied = rules["bans"]["deny"].as_array().expect("a list");
    for package in packages() {
        let why = denied.iter().find(|rule| rule["crate"].as_str() == Some(&package.name));
        assert!(why.is_none(), "{why:?}");
    }
}

#[test]
fn no_crate_is_there_twice_but_for_those_that_are_known() {
    let rules = rules();
    let skipped = rules["bans"]["skip"].as_array().expect("a list");
    let skipped: Vec<&str> = skipped.iter().map(|rule| rule["crate"].as_str().expect("text")).collect();
    let packages = packages();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let is_skipped = |name: &str, version: &str| {
        skipped.iter().any(|skipped| {
            let known = skipped.strip_prefix(name).and_then(|rest| rest.strip_prefix('@'));
            known.is_some_and(|known| version == known || version.starts_with(&format!("{known}.")))
        })
    };
    for (name, versions) in versions {
        let counted: Vec<&str> = versions.iter().copied().filter(|version| !is_skipped(name, version)).collect();
        assert!(counted.len() < 2, "{name}: {versions:?}; have one of them, or say why not in deny.toml (bans.skip)");
    }
}
