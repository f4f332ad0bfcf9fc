use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use strsim::damerau_levenshtein;

use super::setting::Setting;
use super::shape::Shape;
use crate::excerpt::line_number;

/// A place in the file, in bytes.
pub(super) type ByteRange = Range<usize>;

/// The problems of a file, collected while it is read. All sections share it, hence the cells.
pub(super) struct FileReport<'a> {
    text: &'a str,
    /// The base of relative paths in the file.
    folder: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    faults: RefCell<Vec<Finding>>,
    strays: RefCell<Vec<UnknownKey>>,
    known: RefCell<Vec<KnownKey>>,
    files: RefCell<Vec<PathBuf>>,
}

/// A problem, not yet formatted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) span: Option<ByteRange>,
    /// Not shown: it may be a secret under a name that nobody knows.
    pub(super) hidden: Option<ByteRange>,
    pub(super) message: String,
    pub(super) advice: String,
}

/// A key that no reader asked for.
struct UnknownKey {
    table: String,
    /// The [`KnownKey::table`] of its neighbours.
    known_as: String,
    key: String,
    span: ByteRange,
    value: ByteRange,
}

/// A key that a reader asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownKey {
    /// As in its header, `server.tls`; empty for the top of the file; `admin.tokens.*` where the file gives the name.
    pub(crate) table: String,
    pub(crate) key: &'static str,
    /// It must be given if its table is.
    pub(crate) required: bool,
    /// The accepted shapes. Empty when the key is in the file, because its value was read instead.
    pub(crate) shapes: Vec<Shape>,
}

impl<'a> FileReport<'a> {
    pub(super) fn new(text: &'a str, folder: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            text,
            folder,
            env,
            faults: RefCell::default(),
            strays: RefCell::default(),
            known: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// Adds a problem, once.
    pub(super) fn add(&self, span: Option<ByteRange>, message: impl Into<String>, advice: impl Into<String>) {
        let fault = Finding { span, hidden: None, message: message.into(), advice: advice.into() };
        let mut faults = self.faults.borrow_mut();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// Registers a key that exists.
    pub(super) fn know(&self, known: KnownKey) {
        let mut all = self.known.borrow_mut();
        if !all.iter().any(|earlier| earlier.table == known.table && earlier.key == known.key) {
            all.push(known);
        }
    }

    /// Registers another file that the configuration names.
    pub(super) fn reads(&self, file: &Path) {
        self.files.borrow_mut().push(file.into());
    }

    /// A path of the file, relative to the working directory.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Registers a key that no reader asked for.
    pub(super) fn stray(&self, table: &str, known_as: &str, key: String, span: ByteRange, value: ByteRange) {
        let (table, known_as) = (table.to_owned(), known_as.to_owned());
        self.strays.borrow_mut().push(UnknownKey { table, known_as, key, span, value });
    }

    /// The environment variable `name`.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, span: &ByteRange) -> usize {
        line_number(self.text, span.start)
    }

    /// The source of a value, for messages.
    pub(super) fn origin<T>(&self, setting: &Setting<T>) -> String {
        match setting {
            Setting::Given(_, span) | Setting::Wrong(span) => format!("line {}", self.line(span)),
            Setting::Preset(_) => "the preset".to_owned(),
            Setting::Absent | Setting::Default(_) => "the default".to_owned(),
        }
    }

    /// All results. Called at the end: the advice for an unknown key needs all known keys.
    pub(super) fn finish(self) -> (Vec<Finding>, Vec<KnownKey>, Vec<PathBuf>) {
        let known = self.known.into_inner();
        let mut faults = self.faults.into_inner();
        faults.extend(self.strays.into_inner().into_iter().map(|stray| stray.fault(&known)));
        (faults, known, self.files.into_inner())
    }
}

impl UnknownKey {
    fn fault(self, known: &[KnownKey]) -> Finding {
        let Self { table, known_as, key, span, value } = self;
        let here: Vec<&str> = known.iter().filter(|known| known.table == known_as).map(|known| known.key).collect();
        let elsewhere = known.iter().find(|known| known.key == key && !known.table.is_empty());
        let place =
            if table.is_empty() { "at the top of the file".to_owned() } else { format!("in {}", header(&table)) };
        let all = format!("the keys {place} are {}", here.join(", "));
        let near = nearest(&key, here.iter().copied());
        // The value of a table begins before or after its header, and holds lines that are not this one.
        let hidden = (near.is_none() && elsewhere.is_none() && value.start >= span.end).then_some(value);
        let advice = match (near, elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(known)) => format!("`{key}` is a key of {}; {all}", header(&known.table)),
            (None, None) => all,
        };
        Finding { span: Some(span), hidden, message: format!("unknown key `{key}` {place}"), advice }
    }
}

/// A table's header as it is written.
pub(super) fn header(table: &str) -> String {
    match table.strip_suffix(".*") {
        _ if table == "route" => "[[route]]".to_owned(),
        Some(outer) => format!("[{outer}.NAME]"),
        None => format!("[{table}]"),
    }
}

/// The candidate closest to `word`, if one is close enough.
pub(crate) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    let slips = (word.len() / 3).max(1);
    candidates
        .map(|candidate| (damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
