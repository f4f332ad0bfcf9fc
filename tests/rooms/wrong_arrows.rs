//! Arrows that are not allowed are found, in each file and however they are written.

use super::*;

/// The test of the test.
#[test]
fn an_arrow_back_up_is_found() {
    let mut sources = sources();
    let name = |module: &[&str]| module.iter().map(ToString::to_string).collect::<Vec<_>>();
    let low = sources.iter_mut().find(|source| source.module == name(&["proxy", "body", "error"])).expect("a file");
    *low = low.with(format!("{}\nfn planted(_: &super::super::state::Proxy) {{}}", low.text));
    assert!(circle(arrows_within("proxy", &sources)).contains(&"proxy/body/error".to_owned()));
}

/// The test of the test: a wrong arrow that is put into a file is found, at its top and at its end.
#[test]
fn a_wrong_arrow_is_found_in_every_file() {
    for source in sources() {
        // One room and one library; the other spellings are tried below.
        for place in wrong_places(&source).into_iter().step_by(2) {
            let import = format!("use {place}::Planted;");
            let inline = format!("fn planted() {{ println!(\"{{}}\", {place}::planted()); }}");
            for text in [at_the_top(&source.text, &import), at_the_end(&source.text, &inline)] {
                let wrong = wrong_arrows(&source.with(text));
                assert_eq!(wrong.len(), 1, "{}: {place}: {wrong:?}", source.path.display());
            }
        }
    }
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written_but_for_tests() {
    let sources = sources();
    let deep = sources.iter().filter(|source| source.module.len() > 1);
    for source in deep.take(3) {
        for place in wrong_places(source) {
            for arrow in arrows(&place) {
                let wrong = wrong_arrows(&source.with(at_the_top(&source.text, &arrow)));
                assert_eq!(wrong.len(), 1, "{}: {arrow}: {wrong:?}", source.path.display());
                let hidden = format!("#[cfg(test)]\nmod planted {{ {} }}", arrow.replace("super::", "super::super::"));
                let wrong = wrong_arrows(&source.with(at_the_top(&source.text, &hidden)));
                assert!(wrong.is_empty(), "{}: {hidden}: {wrong:?}", source.path.display());
                // Only `cfg(test)` is left out.
                let shown = hidden.replace("cfg(test)", "cfg(not(test))");
                let wrong = wrong_arrows(&source.with(at_the_top(&source.text, &shown)));
                assert_eq!(wrong.len(), 1, "{}: {shown}: {wrong:?}", source.path.display());
            }
        }
    }
}

/// A room and a crate that the file must not name.
fn wrong_places(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    let (_, allowed, crates) = ROOMS.iter().find(|(name, ..)| *name == room).expect("a room");
    let other = ROOMS.iter().map(|(name, ..)| *name).find(|name| *name != room && !allowed.contains(name));
    let other = other.expect("a room that is not below it");
    let mut owned = ROOMS.iter().flat_map(|(_, _, crates)| crates.iter().copied());
    let library = owned.find(|name| !crates.contains(name)).expect("a crate of another room");
    let up = "super::".repeat(source.module.len());
    vec![format!("crate::{other}"), format!("{up}{other}"), library.to_owned(), format!("::{library}")]
}

/// Ways to name something in a place.
fn arrows(place: &str) -> [String; 10] {
    [
        format!("use {place}::Planted;"),
        format!("use {place}::{{planted::{{self, Other}}, Planted as Renamed}};"),
        format!("use {place}::*;"),
        format!("use {place} as renamed;"),
        format!("type Planted = Vec<Option<{place}::Planted>>;"),
        format!("fn planted() -> u8 {{ if true {{ <{place}::Planted as Default>::default().0 }} else {{ 0 }} }}"),
        format!("fn planted() {{ println!(\"{{:?}}\", vec![1, {place}::planted(2)]); }}"),
        format!("fn planted() {{ use {place}::Planted; }}"),
        format!("#[serde(with = \"{place}::planted\")] struct Planted;"),
        format!("mod planted {{ fn planted() {{ let _ = {}::PLANTED; }} }}", inside_a_module(place)),
    ]
}

/// The same place, named from a module that lies deeper by one.
fn inside_a_module(place: &str) -> String {
    if place.starts_with("super::") { format!("super::{place}") } else { place.to_owned() }
}

/// After the comments and attributes at the start of a file.
fn at_the_top(text: &str, arrow: &str) -> String {
    let lead =
        text.lines().take_while(|line| line.is_empty() || line.starts_with("//!") || line.starts_with("#![")).count();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}\n{arrow}\n{}\n", lines[..lead].join("\n"), lines[lead..].join("\n"))
}

fn at_the_end(text: &str, arrow: &str) -> String {
    format!("{text}\n{arrow}\n")
}
