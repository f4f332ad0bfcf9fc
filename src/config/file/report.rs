use std::cell::RefCell;
use std::ops::Range;

use strsim::damerau_levenshtein;

use super::super::excerpt::line_number;
use super::setting::Setting;

/// A place in the file, in bytes.
pub(super) type Span = Range<usize>;

/// What is wrong with a file, gathered while it is read. Every section writes to it, hence the cells.
pub(super) struct Report<'a> {
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    faults: RefCell<Vec<Fault>>,
    strays: RefCell<Vec<Stray>>,
    known: RefCell<Vec<Known>>,
}

/// A problem that is not laid out yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) span: Option<Span>,
    pub(super) message: String,
    pub(super) advice: String,
}

/// A key that no reader asked for.
struct Stray {
    table: &'static str,
    key: String,
    span: Span,
}

/// A key that a reader asked for and made use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { text, env, faults: RefCell::default(), strays: RefCell::default(), known: RefCell::default() }
    }

    /// Writes down a problem, once.
    pub(super) fn add(&self, span: Option<Span>, message: impl Into<String>, advice: impl Into<String>) {
        let fault = Fault { span, message: message.into(), advice: advice.into() };
        let mut faults = self.faults.borrow_mut();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// Remembers that `key` is one of `table`'s.
    pub(super) fn know(&self, table: &'static str, key: &'static str) {
        let known = Known { table, key };
        let mut all = self.known.borrow_mut();
        if !all.contains(&known) {
            all.push(known);
        }
    }

    /// Remembers a key that nobody asked for.
    pub(super) fn stray(&self, table: &'static str, key: String, span: Span) {
        self.strays.borrow_mut().push(Stray { table, key, span });
    }

    /// The environment variable `name`.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        line_number(self.text, span.start)
    }

    /// Where a value comes from, as an aside.
    pub(super) fn origin<T>(&self, setting: &Setting<T>) -> String {
        match setting.span() {
            Some(span) => format!("line {}", self.line(&span)),
            None => "the default".to_owned(),
        }
    }

    /// Everything that was found. To be called when all is read: only then is it known where a stray key belongs.
    pub(super) fn finish(self) -> (Vec<Fault>, Vec<Known>) {
        let known = self.known.into_inner();
        let mut faults = self.faults.into_inner();
        faults.extend(self.strays.into_inner().into_iter().map(|stray| stray.fault(&known)));
        (faults, known)
    }
}

impl Stray {
    fn fault(self, known: &[Known]) -> Fault {
        let Self { table, key, span } = self;
        let here: Vec<&str> = known.iter().filter(|known| known.table == table).map(|known| known.key).collect();
        let elsewhere = known.iter().find(|known| known.key == key && !known.table.is_empty());
        let place =
            if table.is_empty() { "at the top of the file".to_owned() } else { format!("in {}", header(table)) };
        let all = format!("the keys {place} are {}", here.join(", "));
        let advice = match (nearest(&key, here.iter().copied()), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(known)) => format!("`{key}` is a key of {}; {all}", header(known.table)),
            (None, None) => all,
        };
        Fault { span: Some(span), message: format!("unknown key `{key}` {place}"), advice }
    }
}

/// A table's header as it is written.
pub(super) fn header(table: &str) -> String {
    if table == "route" { "[[route]]".to_owned() } else { format!("[{table}]") }
}

/// The candidate that `word` was most likely meant to be, if any comes close.
pub(super) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    let slips = (word.len() / 3).max(1);
    candidates
        .map(|candidate| (damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
