//! What the TOML parser has to say, in words that help.

use super::super::excerpt::line_number;
use super::report::{ByteRange, Finding};

/// The places where a file is not TOML: at most one for each line, since one slip often makes several.
pub(super) struct SyntaxErrors {
    pub(super) faults: Vec<Finding>,
    lines: Vec<usize>,
    /// After such an error nobody can tell which keys are in which table, so only the syntax is reported.
    pub(super) hide_the_rest: bool,
}

impl SyntaxErrors {
    pub(super) fn of(text: &str, errors: &[toml::de::Error]) -> Self {
        let mut this = Self { faults: Vec::new(), lines: Vec::new(), hide_the_rest: false };
        let mut errors: Vec<(ByteRange, &str)> =
            errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        for (span, message) in errors {
            let line = line_number(text, span.start);
            if this.lines.contains(&line) {
                continue;
            }
            let (message, advice, contained) = explain(message);
            this.hide_the_rest |= !contained;
            this.lines.push(line);
            this.faults.push(Finding { span: Some(span), message, advice: advice.to_owned() });
            if this.hide_the_rest {
                // What follows a broken structure is mostly its echo.
                break;
            }
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

/// The message, what to do, and whether the rest of the file can be read all the same.
fn explain(message: &str) -> (String, &'static str, bool) {
    let slips = SLIPS.iter().map(|slip| (slip, true));
    let breaks = BREAKS.iter().map(|broken| (broken, false));
    match slips.chain(breaks).find(|((theirs, ..), _)| message.starts_with(theirs)) {
        Some(((_, ours, advice), contained)) => ((*ours).to_owned(), advice, contained),
        None => (message.to_owned(), "the file is TOML: [table], key = \"value\", # comment", false),
    }
}

/// How the parser's message begins, what we say instead, and what to do.
type Explanation = (&'static str, &'static str, &'static str);

const UNQUOTED: &str = "this value is not in quotes";
const QUOTE: &str = "text goes in quotes, as in lease = \"30s\"";
const UNCLOSED: &str = "a string is not closed";
const CLOSE: &str = "a string ends with the quote it began with, on one line";

/// Errors within one value.
const SLIPS: [Explanation; 11] = [
    ("string values must be quoted", UNQUOTED, QUOTE),
    ("invalid float", UNQUOTED, QUOTE),
    ("invalid mantissa", UNQUOTED, QUOTE),
    ("invalid integer", UNQUOTED, QUOTE),
    ("invalid date", UNQUOTED, QUOTE),
    ("invalid basic string", UNCLOSED, CLOSE),
    ("invalid literal string", UNCLOSED, CLOSE),
    ("duplicate key", "this is given twice", "leave one of them out"),
    ("invalid boolean", "this is not true or false", "they are written in lower case and without quotes"),
    ("unexpected leading zero", "a number begins with a zero", "leave the zeros out"),
    (
        "missing escaped value",
        "a backslash in double quotes must escape something",
        "write \\\\ for a backslash, or use single quotes: 'C:\\data'",
    ),
];

/// Errors that leave it open where a table or a list ends.
const BREAKS: [Explanation; 6] = [
    ("unclosed array table", "a header is not closed", "tables of a list are headed [[route]]"),
    ("unclosed array", "a list is not closed", "a list ends with ]"),
    ("missing comma between array", "a list goes on where it cannot", "a list ends with ], and commas part its values"),
    ("unclosed table", "a header is not closed", "a table's header ends with ]"),
    ("key with no value", "a key has no value", "a key and its value: lease = \"30s\""),
    ("invalid unquoted key", "this is not a key", "a key and its value: lease = \"30s\""),
];
