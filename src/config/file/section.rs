//! Reading a parsed table key by key, so that everything wrong with it is found in one go.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use strsim::damerau_levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::excerpt::line_number;
use super::super::units::{HumanDuration, HumanSize, UnitError};

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

/// One table of the file.
pub(super) struct Section<'a> {
    /// As in its header; empty for the top of the file.
    name: &'static str,
    table: Option<&'a DeTable<'a>>,
    span: Option<Span>,
    report: &'a Report<'a>,
    asked: RefCell<Vec<&'static str>>,
}

/// One value of the file.
pub(super) struct Item<'a> {
    name: String,
    value: &'a Spanned<DeValue<'a>>,
    report: &'a Report<'a>,
}

/// A string of the file, or of the environment variable that it names.
pub(super) struct Text {
    pub(super) value: String,
    variable: Option<String>,
}

/// What is known about one key.
#[derive(Debug, Clone)]
pub(super) enum Setting<T> {
    Absent,
    /// Given, and reported as wrong.
    Wrong(Span),
    Given(T, Span),
    Default(T),
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

    fn know(&self, table: &'static str, key: &'static str) {
        let known = Known { table, key };
        let mut all = self.known.borrow_mut();
        if !all.contains(&known) {
            all.push(known);
        }
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
        let advice = match (nearest(&key, here.iter().copied()), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(known)) => format!("`{key}` belongs in {}", header(known.table)),
            (None, None) => format!("the keys {place} are {}", here.join(", ")),
        };
        Fault { span: Some(span), message: format!("unknown key `{key}` {place}"), advice }
    }
}

/// A table's header as it is written.
fn header(table: &str) -> String {
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

impl<'a> Section<'a> {
    /// The top of the file.
    pub(super) fn root(table: &'a DeTable<'a>, report: &'a Report<'a>) -> Self {
        Self { name: "", table: Some(table), span: None, report, asked: RefCell::default() }
    }

    /// The table `[name]`; one that is absent reads as empty.
    pub(super) fn section(&self, name: &'static str) -> Section<'a> {
        self.report.know(self.name, name);
        let item = self.item(name);
        let table = item.as_ref().and_then(|item| item.table(&format!("write it as a table: [{name}]")));
        let span = item.map(|item| item.span());
        Section { name, table, span, report: self.report, asked: RefCell::default() }
    }

    /// The tables `[[name]]`, of which there must be one; `advice` shows it.
    pub(super) fn sections(&self, name: &'static str, advice: &str) -> Vec<Section<'a>> {
        self.report.know(self.name, name);
        let item = self.item(name);
        let brackets = format!("write each one under a header in double brackets: [[{name}]]");
        let values = match item.as_ref().map(|item| (item, item.value.get_ref())) {
            Some((_, DeValue::Array(array))) if !array.is_empty() => array.iter(),
            None | Some((_, DeValue::Array(_))) => {
                self.report.add(item.map(|item| item.span()), format!("there is no [[{name}]]"), advice);
                return Vec::new();
            }
            Some((item, _)) => {
                item.refuse::<()>(format!("`{name}` must be a list of tables"), brackets);
                return Vec::new();
            }
        };
        let section = |value| {
            let item = Item { name: name.to_owned(), value, report: self.report };
            let table = Some(item.table(&brackets)?);
            Some(Section { name, table, span: Some(item.span()), report: self.report, asked: RefCell::default() })
        };
        values.filter_map(section).collect()
    }

    /// Where the table begins, unless it is absent.
    pub(super) fn span(&self) -> Option<Span> {
        self.span.clone()
    }

    /// Reads `key` with `parse`, which reports what is wrong and then gives `None`.
    pub(super) fn read<T>(&self, key: &'static str, parse: impl FnOnce(&Item<'a>) -> Option<T>) -> Setting<T> {
        self.report.know(self.name, key);
        match self.item(key) {
            None => Setting::Absent,
            Some(item) => match parse(&item) {
                Some(value) => Setting::Given(value, item.span()),
                None => Setting::Wrong(item.span()),
            },
        }
    }

    /// The same for a key that must be there; `advice` says what to write.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        advice: &str,
        parse: impl FnOnce(&Item<'a>) -> Option<T>,
    ) -> Setting<T> {
        let setting = self.read(key, parse);
        let is_table = self.table.is_some() || self.span.is_none();
        if matches!(setting, Setting::Absent) && is_table {
            self.report.add(self.span(), format!("{} is missing", self.path(key)), advice);
        }
        setting
    }

    /// A key that is planned: refused if it is there. `instead` says what can be done today.
    pub(super) fn later(&self, key: &'static str, instead: &str) {
        if let Some(item) = self.item(key) {
            let subject = if self.name.is_empty() { header(key) } else { self.path(key) };
            item.not_built::<()>(&format!("{subject} is"), instead);
        }
    }

    /// A key of which only the default is built.
    pub(super) fn only<T: PartialEq>(
        &self,
        key: &'static str,
        default: &T,
        instead: &str,
        parse: impl FnOnce(&Item<'a>) -> Option<T>,
    ) {
        if let Some(item) = self.item(key)
            && parse(&item).is_some_and(|value| value != *default)
        {
            item.not_built::<()>(&format!("{} is", self.path(key)), instead);
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        let keys = self.table.iter().flat_map(|table| table.keys());
        let strays = keys.filter(|key| !asked.contains(&key.get_ref().as_ref())).map(|key| Stray {
            table: self.name,
            key: key.get_ref().to_string(),
            span: key.span(),
        });
        self.report.strays.borrow_mut().extend(strays);
    }

    fn item(&self, key: &'static str) -> Option<Item<'a>> {
        self.asked.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Item { name: self.path(key), value, report: self.report })
    }

    /// The key as messages name it. A route's keys go by themselves: they may stand in `[defaults]` too.
    fn path(&self, key: &str) -> String {
        match self.name {
            "" | "route" | "defaults" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }
}

impl<'a> Item<'a> {
    /// Where the value is.
    pub(super) fn span(&self) -> Span {
        self.value.span()
    }

    /// The key, as messages name it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The key, as it stands in the file.
    fn key(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// Reports the value as wrong.
    pub(super) fn refuse<T>(&self, message: impl Into<String>, advice: impl Into<String>) -> Option<T> {
        self.report.add(Some(self.span()), message, advice);
        None
    }

    /// Reports the value as planned. `what` is the subject and its verb.
    pub(super) fn not_built<T>(&self, what: &str, instead: &str) -> Option<T> {
        self.refuse(format!("{what} not built yet"), instead)
    }

    /// A string. `"env:NAME"` stands for the environment variable's value.
    pub(super) fn text(&self) -> Option<Text> {
        let DeValue::String(text) = self.value.get_ref() else {
            return self.mistyped("a string", &format!("in quotes: {} = \"…\"", self.key()));
        };
        let Some(variable) = text.strip_prefix("env:") else {
            return Some(Text { value: text.to_string(), variable: None });
        };
        match (self.report.env)(variable) {
            Some(value) => Some(Text { value, variable: Some(variable.to_owned()) }),
            None => self.refuse(
                format!("the environment variable {variable} is not set"),
                format!("set {variable}, or write the value here"),
            ),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.mistyped("true or false", &format!("without quotes: {} = true", self.key())),
        }
    }

    /// The number, where one was written without quotes.
    pub(super) fn bare_number(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.mistyped("a whole number", &format!("without quotes: {} = {}", self.key(), range.end()));
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if range.contains(&value) => Some(value),
            _ => self.refuse(
                format!("{} cannot be {number}", self.name),
                format!("it is a whole number from {} to {}", range.start(), range.end()),
            ),
        }
    }

    /// The same, as a `usize`.
    pub(super) fn count(&self, range: RangeInclusive<u32>) -> Option<usize> {
        self.number(u64::from(*range.start())..=u64::from(*range.end())).and_then(|number| usize::try_from(number).ok())
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&self, least: Duration) -> Option<Duration> {
        let advice = "a duration is a whole number and a unit, in quotes: \"250ms\", \"30s\", \"10m\", \"24h\", \"3d\"";
        let HumanDuration(duration) = self.measure("a duration", advice)?;
        if duration >= least {
            return Some(duration);
        }
        let message = format!("{} cannot be {}", self.name, HumanDuration(duration));
        self.refuse(message, format!("it is at least {}", HumanDuration(least)))
    }

    /// A number of bytes.
    pub(super) fn size(&self) -> Option<u64> {
        let advice = "a size is a whole number and a unit, in quotes: \"512B\", \"64KiB\", \"1MiB\", \"2GiB\"";
        self.measure("a size", advice).map(|HumanSize(bytes)| bytes)
    }

    fn measure<T: std::str::FromStr<Err = UnitError>>(&self, kind: &str, advice: &str) -> Option<T> {
        if !matches!(self.value.get_ref(), DeValue::String(_)) {
            return self.mistyped(kind, advice);
        }
        let text = self.text()?;
        match text.value.parse() {
            Ok(value) => Some(value),
            Err(reason) => self.refuse(format!("{text} is not {kind}: {}", text.reason(&reason)), advice),
        }
    }

    /// One of the words of `choices`; those of `later` are planned.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)], later: &[&str]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let all = match words.as_slice() {
            [only] => format!("{} is {only}", self.name),
            [one, other] => format!("{} is {one} or {other}", self.name),
            words => format!("{} is one of {}", self.name, words.join(", ")),
        };
        if later.contains(&text.value.as_str()) {
            return self.not_built(&format!("{} = {text} is", self.name), &format!("until then, {all}"));
        }
        let near = nearest(&text.value, choices.iter().map(|(word, _)| *word));
        let advice = near.map_or(all.clone(), |near| format!("did you mean \"{near}\"? {all}"));
        self.refuse(format!("{} cannot be {text}", self.name), advice)
    }

    /// A list, each element read with `parse`, none given twice.
    pub(super) fn list<T: PartialEq>(&self, parse: impl Fn(&Item<'a>) -> Option<T>) -> Option<Vec<(T, Span)>> {
        match self.value.get_ref() {
            DeValue::Array(array) => {
                let items: Vec<Item<'a>> =
                    array.iter().map(|value| Item { name: self.name.clone(), value, report: self.report }).collect();
                elements(&items, parse)
            }
            _ => self.mistyped("a list", &format!("in square brackets: {} = [\"…\", \"…\"]", self.key())),
        }
    }

    /// The same, where one value may stand without brackets.
    pub(super) fn one_or_more<T: PartialEq>(&self, parse: impl Fn(&Item<'a>) -> Option<T>) -> Option<Vec<(T, Span)>> {
        match self.value.get_ref() {
            DeValue::Array(_) => self.list(parse),
            DeValue::Table(_) => self.mistyped("a string, or a list of them", &format!("{} = [\"…\"]", self.key())),
            _ => parse(self).map(|value| vec![(value, self.span())]),
        }
    }

    fn table(&self, advice: &str) -> Option<&'a DeTable<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => self.refuse(format!("`{}` must be a table", self.name), advice),
        }
    }

    fn mistyped<T>(&self, wanted: &str, advice: &str) -> Option<T> {
        let given = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(format!("{} must be {wanted}, and this is {given}", self.name), advice)
    }
}

/// All elements are read before the first bad one counts, so that every problem is found.
fn elements<'a, T: PartialEq>(items: &[Item<'a>], parse: impl Fn(&Item<'a>) -> Option<T>) -> Option<Vec<(T, Span)>> {
    let read: Vec<Option<T>> = items.iter().map(parse).collect();
    let mut values: Vec<(T, Span)> = Vec::new();
    let mut whole = true;
    for (value, item) in read.into_iter().zip(items) {
        match value {
            Some(value) if values.iter().any(|(earlier, _)| *earlier == value) => {
                whole = false;
                item.refuse::<()>(format!("{} lists the same thing twice", item.name), "leave one of them out");
            }
            Some(value) => values.push((value, item.span())),
            None => whole = false,
        }
    }
    whole.then_some(values)
}

/// A value of the environment may be a secret in the wrong place, so messages show only the variable's name.
impl Text {
    /// Whether it stands in the file itself.
    pub(super) fn is_literal(&self) -> bool {
        self.variable.is_none()
    }

    /// A part of the text, as messages quote it.
    pub(super) fn quote(&self, part: &str) -> String {
        match &self.variable {
            Some(variable) => format!("the value of ${variable}"),
            None if part.chars().count() > 60 => {
                format!("{:?}", part.chars().take(59).chain(['…']).collect::<String>())
            }
            None => format!("{part:?}"),
        }
    }

    fn reason(&self, error: &UnitError) -> String {
        match error {
            UnitError::UnknownUnit(_) if !self.is_literal() => "it has another unit".to_owned(),
            error => error.to_string(),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.quote(&self.value))
    }
}

impl<T> Setting<T> {
    /// `default` where the file says nothing.
    pub(super) fn or(self, default: T) -> Self {
        match self {
            Self::Absent => Self::Default(default),
            said => said,
        }
    }

    /// What this layer says, else what the layer below says.
    pub(super) fn over(&self, below: &Self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Absent => below.clone(),
            said => said.clone(),
        }
    }

    /// Where it is given.
    pub(super) fn span(&self) -> Option<Span> {
        match self {
            Self::Given(_, span) | Self::Wrong(span) => Some(span.clone()),
            Self::Absent | Self::Default(_) => None,
        }
    }

    /// The value, unless there is none or it was reported as wrong.
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Given(value, _) | Self::Default(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    /// The same, owned.
    pub(super) fn take(self) -> Option<T> {
        match self {
            Self::Given(value, _) | Self::Default(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    /// Optional keys: `None` where the file says nothing, no answer at all where it is wrong.
    pub(super) fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Given(value, _) | Self::Default(value) => Some(Some(value)),
            Self::Wrong(_) => None,
        }
    }
}
