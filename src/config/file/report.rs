use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use strsim::damerau_levenshtein;

use super::super::excerpt::line_number;
use super::setting::Setting;
use super::shape::Shape;

/// A place in the file, in bytes.
pub(super) type ByteRange = Range<usize>;

/// What is wrong with a file, gathered while it is read. Every section writes to it, hence the cells.
pub(super) struct FileReport<'a> {
    text: &'a str,
    /// What relative paths in the file are relative to.
    folder: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    faults: RefCell<Vec<Finding>>,
    strays: RefCell<Vec<UnknownKey>>,
    known: RefCell<Vec<KnownKey>>,
    files: RefCell<Vec<PathBuf>>,
}

/// A problem that is not laid out yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) span: Option<ByteRange>,
    pub(super) message: String,
    pub(super) advice: String,
}

/// A key that no reader asked for.
struct UnknownKey {
    table: String,
    key: String,
    span: ByteRange,
}

/// A key that a reader asked for and makes use of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct KnownKey {
    /// As in its header, `server.tls`; empty for the top of the file.
    pub(in super::super) table: String,
    pub(in super::super) key: &'static str,
    /// Where the table is there, this must be too.
    pub(in super::super) required: bool,
    /// False where nothing but the default is taken.
    pub(in super::super) built: bool,
    /// Any of these will do. Empty when the key was in the file, since then its value was read instead.
    pub(in super::super) shapes: Vec<Shape>,
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

    /// Writes down a problem, once.
    pub(super) fn add(&self, span: Option<ByteRange>, message: impl Into<String>, advice: impl Into<String>) {
        let fault = Finding { span, message: message.into(), advice: advice.into() };
        let mut faults = self.faults.borrow_mut();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// Remembers a key that there is.
    pub(super) fn know(&self, known: KnownKey) {
        let mut all = self.known.borrow_mut();
        if !all.iter().any(|earlier| earlier.table == known.table && earlier.key == known.key) {
            all.push(known);
        }
    }

    /// Remembers another file that the configuration names, and that is read with it.
    pub(super) fn reads(&self, file: &Path) {
        self.files.borrow_mut().push(file.into());
    }

    /// A path in the file, from where the program is.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Remembers a key that nobody asked for.
    pub(super) fn stray(&self, table: &str, key: String, span: ByteRange) {
        self.strays.borrow_mut().push(UnknownKey { table: table.to_owned(), key, span });
    }

    /// The environment variable `name`.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, span: &ByteRange) -> usize {
        line_number(self.text, span.start)
    }

    /// Where a value comes from, as an aside.
    pub(super) fn origin<T>(&self, setting: &Setting<T>) -> String {
        match setting {
            Setting::Given(_, span) | Setting::Wrong(span) => format!("line {}", self.line(span)),
            Setting::Preset(_) => "the preset".to_owned(),
            Setting::Absent | Setting::Default(_) => "the default".to_owned(),
        }
    }

    /// Everything that was found. To be called when all is read: only then is it known where a stray key belongs.
    pub(super) fn finish(self) -> (Vec<Finding>, Vec<KnownKey>, Vec<PathBuf>) {
        let known = self.known.into_inner();
        let mut faults = self.faults.into_inner();
        faults.extend(self.strays.into_inner().into_iter().map(|stray| stray.fault(&known)));
        (faults, known, self.files.into_inner())
    }
}

impl UnknownKey {
    fn fault(self, known: &[KnownKey]) -> Finding {
        let Self { table, key, span } = self;
        let here: Vec<&str> =
            known.iter().filter(|known| known.built && known.table == table).map(|known| known.key).collect();
        let elsewhere = known.iter().find(|known| known.built && known.key == key && !known.table.is_empty());
        let place =
            if table.is_empty() { "at the top of the file".to_owned() } else { format!("in {}", header(&table)) };
        let all = format!("the keys {place} are {}", here.join(", "));
        let advice = match (nearest(&key, here.iter().copied()), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(known)) => format!("`{key}` is a key of {}; {all}", header(&known.table)),
            (None, None) => all,
        };
        Finding { span: Some(span), message: format!("unknown key `{key}` {place}"), advice }
    }
}

/// A table's header as it is written.
pub(super) fn header(table: &str) -> String {
    if table == "route" { "[[route]]".to_owned() } else { format!("[{table}]") }
}

/// The candidate that `word` was most likely meant to be, if any comes close.
pub(crate) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    let slips = (word.len() / 3).max(1);
    candidates
        .map(|candidate| (damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
