//! The documents: links lead somewhere, examples load, commands print what is shown, and the reference is what the schema
//! says. `ONLYONCE_BLESS=1` writes the reference anew.

// Processes are waited for in real time.
#![allow(clippy::disallowed_methods)]

mod commands;
mod configuration;
mod links;
mod page;

use page::{Page, pages};

#[test]
fn the_readme_is_short() {
    let readme = Page::read("README.md");
    assert!(readme.text.lines().count() <= 250, "{} lines", readme.text.lines().count());
}

/// What can be copied from a page works: files are loaded, and commands are played.
#[test]
fn every_example_says_what_it_is() {
    let mut loose = Vec::new();
    for page in pages() {
        for block in page.blocks() {
            let is_session = block.text.lines().any(|line| line.starts_with("$ "));
            let is_file =
                block.text.lines().any(|line| line.starts_with("[[route]]") || line.starts_with("[upstream]"));
            if is_session != (block.info == "console") || is_file && block.info != "toml" {
                loose.push(format!("{}:{}", page.name, block.line));
            }
            if is_session && block.played.is_none() {
                loose.push(format!("{}:{} is not played", page.name, block.line));
            }
        }
    }
    assert!(loose.is_empty(), "{}", loose.join("\n"));
}
