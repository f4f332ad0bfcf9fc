//! Where a file is not TOML, in the words of the TOML parser.

use toml::de::DeTable;

use super::report::{ByteRange, Finding};
use crate::excerpt::line_number;

/// The places where a file is not TOML: at most one for each line, since one slip often makes several errors.
pub(super) struct SyntaxErrors {
    pub(super) faults: Vec<Finding>,
    lines: Vec<usize>,
    /// It is not known which keys are in which table, so only errors up to there are reported.
    pub(super) hide_the_rest: bool,
}

impl SyntaxErrors {
    pub(super) fn of(text: &str, errors: &[toml::de::Error]) -> Self {
        let mut faults: Vec<Finding> = errors.iter().map(|error| finding(text, error)).collect();
        faults.retain(|fault| !is_in_second_table(text, errors, fault));
        let line = |fault: &Finding| fault.span.as_ref().map_or(1, |span| line_number(text, span.start));
        faults.sort_by_key(|fault| fault.span.as_ref().map(|span| span.start));
        faults.dedup_by_key(|fault| line(fault));
        let mut this = Self { lines: faults.iter().map(line).collect(), faults, hide_the_rest: false };
        let header = this.lines.iter().position(|line| is_broken_header(text, *line)).map(|at| at + 1);
        if let Some(count) = header.or_else(|| (!is_toml_without(text, &this.lines)).then_some(1)) {
            // What follows a broken structure is mostly its echo.
            this.faults.truncate(count);
            this.hide_the_rest = true;
        }
        this
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether a fault is on a line that is already reported.
    pub(super) fn covers(&self, text: &str, span: Option<&ByteRange>) -> bool {
        span.is_some_and(|span| self.lines.contains(&line_number(text, span.start)))
    }
}

/// Common mistakes are recognised by the line itself. For others, the message is the parser's.
fn finding(text: &str, error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or(0..0);
    let line = text.lines().nth(line_number(text, span.start) - 1).unwrap_or_default().trim();
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    let is_open = |quote: char| value.starts_with(quote) && value.matches(quote).count() == 1;
    if let Some(first) = is_duplicate(error).then(|| first_place(text, span.start)).flatten() {
        let (what, advice) = match line.starts_with('[') {
            true => (line.split(']').next().unwrap_or(line).to_owned() + "]", "put the keys together under one header"),
            false => (format!("`{}`", key_of(line)), "leave one of them out"),
        };
        let message = format!("{what} is there already, in line {first}");
        return Finding { span: Some(span), hidden: None, message, advice: advice.to_owned() };
    }
    let slip = if is_toml(line) {
        None
    } else if line.starts_with('[') && !line.contains(']') {
        Some(("a header is not closed", "a header is [table], or [[route]] for each route"))
    } else if !line.contains('=')
        && ["key with no value", "invalid unquoted key"].iter().any(|why| error.message().contains(why))
    {
        Some((
            "a key without `=`",
            "between a key and its value there is an equals sign: url = \"http://127.0.0.1:3000\"",
        ))
    } else if is_open('"') || is_open('\'') {
        Some(("a string is not closed", "a string ends with the quote it began with, on one line"))
    } else if value.starts_with('"') && value.contains('\\') {
        let advice = "write \\\\ for a backslash, or use single quotes: 'C:\\data'";
        Some(("a backslash in double quotes must escape something", advice))
    } else if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") {
        Some(("this is not true or false", "they are written in lower case and without quotes"))
    } else if !value.is_empty()
        && !value.contains(['"', '\'', '[', '{'])
        && value.contains(|c: char| !c.is_ascii_digit())
    {
        Some(("this value is not in quotes", "text goes in quotes, as in lease = \"30s\""))
    } else {
        None
    };
    let (message, advice) = match slip {
        Some((message, advice)) => (message.to_owned(), advice),
        None => (format!("this is not TOML: {}", error.message()), "TOML is [table], key = \"value\", # comment"),
    };
    Finding { span: Some(span), hidden: None, message, advice: advice.to_owned() }
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

/// The line, from 1, of the same header, or of the same key under the same header.
fn first_place(text: &str, offset: usize) -> Option<usize> {
    let at = line_number(text, offset) - 1;
    let lines: Vec<&str> = text.lines().map(str::trim).take(at + 1).collect();
    let (own, before) = lines.split_last()?;
    let is_header = |line: &&str| line.starts_with('[');
    let first = if is_header(own) {
        before.iter().position(|line| is_header(line) && header_of(line) == header_of(own))
    } else {
        let begin = before.iter().rposition(is_header).map_or(0, |header| header + 1);
        before[begin..].iter().position(|line| line.contains('=') && key_of(line) == key_of(own)).map(|at| begin + at)
    };
    first.map(|first| first + 1)
}

/// Whether a duplicate key is below a header that is a duplicate itself: there is one mistake, and not two.
fn is_in_second_table(text: &str, errors: &[toml::de::Error], fault: &Finding) -> bool {
    let Some(at) = fault.span.as_ref().map(|span| line_number(text, span.start)) else { return false };
    let header =
        text.lines().take(at.saturating_sub(1)).map(str::trim_start).zip(1..).filter(|(line, _)| line.starts_with('['));
    let Some((_, header)) = header.last() else { return false };
    let is_at = |error: &toml::de::Error, line: usize| {
        is_duplicate(error) && error.span().is_some_and(|span| line_number(text, span.start) == line)
    };
    errors.iter().any(|error| is_at(error, header)) && errors.iter().any(|error| is_at(error, at))
}

fn header_of(line: &str) -> &str {
    line.split('#').next().unwrap_or(line).trim()
}

fn key_of(line: &str) -> &str {
    line.split('=').next().unwrap_or(line).trim()
}

/// Whether the rest is TOML when these lines are left out.
fn is_toml_without(text: &str, lines: &[usize]) -> bool {
    let rest = text.lines().zip(1..).filter(|(_, number)| !lines.contains(number));
    is_toml(&rest.map(|(line, _)| format!("{line}\n")).collect::<String>())
}

fn is_toml(text: &str) -> bool {
    DeTable::parse(text).is_ok()
}

fn is_broken_header(text: &str, line: usize) -> bool {
    text.lines().nth(line - 1).is_some_and(|line| line.trim_start().starts_with('[') && !is_toml(line))
}
