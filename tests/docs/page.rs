//! A page of the documents, and the blocks of code in it.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Page {
    /// As seen from the root: `docs/rules.md`.
    pub(crate) name: String,
    pub(crate) text: String,
}

pub(crate) struct Block {
    pub(crate) line: usize,
    /// What stands behind the fence: `toml`, `console`.
    pub(crate) info: String,
    pub(crate) text: String,
    /// Where its commands are played: `<!-- played: demo -->` above it says so.
    pub(crate) played: Option<String>,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page at the top and in `docs/`.
pub(crate) fn pages() -> Vec<Page> {
    let mut names: Vec<PathBuf> = Vec::new();
    for folder in ["", "docs"] {
        let entries = fs::read_dir(root().join(folder)).expect("a folder");
        let paths = entries.map(|entry| Path::new(folder).join(entry.expect("an entry").file_name()));
        names.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    names.sort();
    names.iter().map(|name| Page::read(name.to_str().expect("UTF-8"))).collect()
}

impl Page {
    pub(crate) fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), text }
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut played = None;
        let mut open: Option<Block> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (open.take(), line.strip_prefix("```")) {
                (Some(block), Some("")) => blocks.push(block),
                (Some(mut block), _) => {
                    block.text += &format!("{line}\n");
                    open = Some(block);
                }
                (None, Some(info)) => {
                    let (line, info) = (index + 1, info.to_owned());
                    open = Some(Block { line, info, text: String::new(), played: played.take() });
                }
                (None, None) => {
                    let told = line.strip_prefix("<!-- played: ").and_then(|rest| rest.strip_suffix(" -->"));
                    played = told.map(str::to_owned);
                }
            }
        }
        assert!(open.is_none(), "{}: a block does not end", self.name);
        blocks
    }

    /// The text without the blocks of code.
    pub(crate) fn prose(&self) -> String {
        self.text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
    }
}
