use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::report::{ByteRange, FileReport, nearest};
use super::shape::Shape;
use crate::rule::Words;
use crate::units::{HumanDuration, HumanSize, UnitError};

/// One value of the file.
///
/// A parser declares the shape that it expects ([`Item::ask`]). The schema is made in the same way: the parser gets an
/// item without a value, and the shapes that it asks for are the key's [`Shape`]s.
pub(super) struct Item<'a> {
    name: String,
    value: Option<&'a Spanned<DeValue<'a>>>,
    /// The shapes that the parser asked for, when there is no value.
    asked: RefCell<Vec<Shape>>,
    report: &'a FileReport<'a>,
}

/// A string of the file, or of the environment variable that it names.
pub(super) struct Text {
    pub(super) value: String,
    variable: Option<String>,
}

impl<'a> Item<'a> {
    pub(super) fn new(name: String, value: &'a Spanned<DeValue<'a>>, report: &'a FileReport<'a>) -> Self {
        Self { name, value: Some(value), asked: RefCell::default(), report }
    }

    /// The shapes that `parse` accepts.
    pub(super) fn shapes<T>(report: &'a FileReport<'a>, parse: impl FnOnce(&Self) -> Option<T>) -> Vec<Shape> {
        let item = Self { name: String::new(), value: None, asked: RefCell::default(), report };
        parse(&item);
        item.asked.into_inner()
    }

    /// The value, which should have this `shape`; `None` when the key is only described. The only access to the value.
    fn ask(&self, shape: Shape) -> Option<&'a DeValue<'a>> {
        match self.value {
            Some(value) => Some(value.get_ref()),
            None => {
                self.asked.borrow_mut().push(shape);
                None
            }
        }
    }

    /// Where the value is.
    pub(super) fn span(&self) -> ByteRange {
        self.value.map_or(0..0, Spanned::span)
    }

    /// The key, as messages name it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The key, as in the file.
    fn key(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// Registers a file that the value names.
    pub(super) fn reads(&self, file: &Path) {
        self.report.reads(file);
    }

    /// A path of the file, which is relative to the file's folder, relative to the working directory.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.report.path(path)
    }

    /// Reports the value as wrong.
    pub(super) fn refuse<T>(&self, message: impl Into<String>, advice: impl Into<String>) -> Option<T> {
        let value = self.value?;
        let mut message = message.into();
        if let DeValue::String(text) = value.get_ref()
            && let Some(variable) = text.strip_prefix(VARIABLE)
            && !message.contains(variable)
        {
            message = format!("{message} (it is the value of ${variable})");
        }
        self.report.add(Some(self.span()), message, advice);
        None
    }

    /// A string. `"env:NAME"` stands for the environment variable's value.
    pub(super) fn text(&self) -> Option<Text> {
        self.string(Shape::Text, &format!("in quotes: {} = \"…\"", self.key()))
    }

    /// The same; `right` is how the whole line may be.
    pub(super) fn text_like(&self, right: &str) -> Option<Text> {
        self.string(Shape::Text, right)
    }

    /// The same, where nothing more is said about it.
    pub(super) fn owned_text(&self) -> Option<String> {
        self.text().map(|text| text.value)
    }

    /// `advice` is for a value that is not a string.
    fn string(&self, shape: Shape, advice: &str) -> Option<Text> {
        let DeValue::String(text) = self.ask(shape)? else {
            return self.mistyped("a string", advice);
        };
        let Some(variable) = text.strip_prefix(VARIABLE) else {
            if let Some(variable) = of_a_shell(text) {
                let message = format!("${{{variable}}} is not replaced by the value of an environment variable");
                return self.refuse(message, format!("write it as \"{VARIABLE}{variable}\""));
            }
            return Some(Text { value: text.to_string(), variable: None });
        };
        match self.report.variable(variable) {
            Some(value) if value.is_empty() => self.refuse(
                format!("the environment variable {variable} is empty"),
                format!("set {variable} to a value, or write the value here"),
            ),
            Some(value) => Some(Text { value, variable: Some(variable.to_owned()) }),
            None => self.refuse(
                format!("the environment variable {variable} is not set"),
                format!("set {variable}, or write the value here"),
            ),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.ask(Shape::Boolean)? {
            DeValue::Boolean(value) => Some(*value),
            _ => self.mistyped("true or false", &format!("without quotes: {} = true", self.key())),
        }
    }

    /// The number, where quotes are missing around it.
    pub(super) fn bare_number(&self) -> Option<String> {
        match self.value?.get_ref() {
            DeValue::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(number) = self.ask(Shape::Number(range.clone()))? else {
            let advice = format!("one from {} to {}, without quotes", range.start(), range.end());
            return self.mistyped("a whole number", &advice);
        };
        let advice = format!("it is a whole number from {} to {}", range.start(), range.end());
        self.within(number, &range, &advice)
    }

    fn within(&self, number: &DeInteger<'_>, range: &RangeInclusive<u64>, advice: &str) -> Option<u64> {
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if range.contains(&value) => Some(value),
            _ => self.refuse(format!("{} cannot be {number}", self.name), advice),
        }
    }

    /// The same, as a `usize`.
    pub(super) fn count(&self, range: RangeInclusive<u32>) -> Option<usize> {
        self.number(u64::from(*range.start())..=u64::from(*range.end())).and_then(count_of)
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&self, least: Duration) -> Option<Duration> {
        let advice = "a duration is a whole number and a unit, in quotes: \"250ms\", \"30s\", \"10m\", \"24h\", \"3d\"";
        let HumanDuration(duration) = self.measure(Shape::Duration { least }, "a duration", advice)?;
        if duration >= least {
            return Some(duration);
        }
        let message = format!("{} cannot be {}", self.name, HumanDuration(duration));
        self.refuse(message, format!("it is at least {}", HumanDuration(least)))
    }

    /// A number of bytes.
    pub(super) fn size(&self) -> Option<u64> {
        let advice = "a size is a whole number and a unit, in quotes: \"512B\", \"64KiB\", \"1MiB\", \"2GiB\"";
        self.measure(Shape::Size, "a size", advice).map(|HumanSize(bytes)| bytes)
    }

    /// The same, where none at all has the `effect`. Other programs take 0 for no limit.
    pub(super) fn size_above_zero(&self, effect: &str) -> Option<u64> {
        match self.size()? {
            0 => self.refuse(
                format!("{} cannot be 0B: {effect}", self.name),
                "0 does not stand for no limit; name the largest size that is taken: \"1MiB\"",
            ),
            bytes => Some(bytes),
        }
    }

    fn measure<T: FromStr<Err = UnitError>>(&self, shape: Shape, kind: &str, advice: &str) -> Option<T> {
        if self.value.is_some_and(|value| !matches!(value.get_ref(), DeValue::String(_))) {
            return self.mistyped(kind, advice);
        }
        let text = self.string(shape, advice)?;
        match text.value.parse() {
            Ok(value) => Some(value),
            Err(reason) => self.refuse(format!("{text} is not {kind}: {}", text.reason(&reason)), advice),
        }
    }

    /// One of the words of `choices`.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let all = match words.as_slice() {
            [only] => format!("{} is {only}", self.name),
            [one, other] => format!("{} is {one} or {other}", self.name),
            words => format!("{} is one of {}", self.name, words.join(", ")),
        };
        let shape = Shape::Choice(choices.iter().map(|(word, _)| (*word).to_owned()).collect());
        let text = self.string(shape, &all)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let near = nearest(&text.value, choices.iter().map(|(word, _)| *word));
        let advice = near.map_or(all.clone(), |near| format!("did you mean \"{near}\"? {all}"));
        self.refuse(format!("{} cannot be {text}", self.name), advice)
    }

    /// One of the words of `T`.
    pub(super) fn word<T: Words>(&self) -> Option<T> {
        self.choice(T::WORDS)
    }

    /// The word, or a whole number within `range`.
    pub(super) fn choice_or_count<T>(
        &self,
        (word, chosen): (&str, T),
        range: RangeInclusive<u32>,
        count: impl FnOnce(usize) -> T,
    ) -> Option<T> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let advice = format!("\"{word}\", or a whole number from {} to {} without quotes", range.start(), range.end());
        match self.ask(Shape::ChoiceOrNumber(word.to_owned(), range.clone()))? {
            DeValue::Integer(number) => count_of(self.within(number, &range, &advice)?).map(count),
            DeValue::String(_) => {
                let text = self.text()?;
                // The value of an environment variable is always text.
                let number = text.value.parse().ok().filter(|value| !text.is_literal() && range.contains(value));
                match number.and_then(count_of) {
                    Some(value) => Some(count(value)),
                    None if text.value == word => Some(chosen),
                    None => self.refuse(format!("{} cannot be {text}", self.name), advice),
                }
            }
            _ => self.mistyped(&format!("\"{word}\" or a whole number"), &advice),
        }
    }

    /// The elements of a list; `None` when it is something else, which is not reported.
    pub(super) fn elements(&self) -> Option<Vec<Item<'a>>> {
        let DeValue::Array(array) = self.value?.get_ref() else { return None };
        Some(array.iter().map(|value| Item::new(self.name.clone(), value, self.report)).collect())
    }

    /// A list without duplicates, each element read with `parse`.
    pub(super) fn list<T: PartialEq>(&self, parse: impl Fn(&Item<'a>) -> Option<T>) -> Option<Vec<(T, ByteRange)>> {
        self.ask(Shape::List(Item::shapes(self.report, &parse)))?;
        match self.elements() {
            Some(items) => distinct(&items, parse),
            None => self.mistyped("a list", &format!("in square brackets: {} = [\"…\", \"…\"]", self.key())),
        }
    }

    /// The same, where a single value needs no brackets.
    pub(super) fn one_or_more<T: PartialEq>(
        &self,
        parse: impl Fn(&Item<'a>) -> Option<T>,
    ) -> Option<Vec<(T, ByteRange)>> {
        match self.ask(Shape::OneOrMore(Item::shapes(self.report, &parse)))? {
            DeValue::Array(_) => self.list(parse),
            DeValue::Table(_) => self.mistyped("a string, or a list of them", &format!("{} = [\"…\"]", self.key())),
            _ => parse(self).map(|value| vec![(value, self.span())]),
        }
    }

    /// A table; `advice` says how to write it.
    pub(super) fn table(&self, advice: &str) -> Option<&'a DeTable<'a>> {
        match self.ask(Shape::Table)? {
            DeValue::Table(table) => Some(table),
            _ => self.refuse(format!("`{}` must be a table", self.name), advice),
        }
    }

    fn mistyped<T>(&self, wanted: &str, advice: &str) -> Option<T> {
        let given = match self.value?.get_ref() {
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

/// What stands before the name of an environment variable.
const VARIABLE: &str = "env:";

/// The name in `${NAME}`, as a shell or Compose has it.
fn of_a_shell(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some(name)
}

fn count_of(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

/// Reads all elements, so that every problem is reported.
fn distinct<'a, T: PartialEq>(
    items: &[Item<'a>],
    parse: impl Fn(&Item<'a>) -> Option<T>,
) -> Option<Vec<(T, ByteRange)>> {
    let read: Vec<Option<T>> = items.iter().map(parse).collect();
    let mut values: Vec<(T, ByteRange)> = Vec::new();
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

/// The value of an environment variable may be a misplaced secret, so that messages show only its name.
impl Text {
    /// Whether the text is in the file itself.
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
