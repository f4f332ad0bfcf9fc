//! A line of a text with a part of it underlined, for error messages.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::text::WIDTH;

/// A line of a file with a part of it underlined, ready to be printed. Secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    rendered: String,
}

/// Stands for a secret.
const MASK: &str = "\"****\"";

impl Excerpt {
    /// The line of `text` where `span` begins. The bytes in `masks` are not shown.
    pub(crate) fn new(text: &str, span: &Range<usize>, masks: &[Range<usize>]) -> Self {
        let start = visible(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        let end = visible(text, span.end).clamp(start, line_end);
        let line = line_number(text, start);
        let column = text[line_start..start].trim_start_matches(BOM).chars().count() + 1;

        // A mask is shown as a whole, so a mark that ends within one includes it.
        let within = |offset: usize| masks.iter().find(|mask| mask.start < offset && offset < mask.end);
        let from = within(start).map_or(start, |mask| mask.start.max(line_start));
        let to = within(end).map_or(end, |mask| mask.end.min(line_end));
        let before = masked(text, line_start..from, masks);
        let mark = shortened(masked(text, from..to, masks));
        let after = masked(text, to..line_end, masks);
        let (before, after) = (before.trim_start_matches(BOM), after.trim_end());
        let place = before.len()..before.len() + mark.len();
        let snippet = Snippet::source(format!("{before}{mark}{after}"))
            .line_start(line)
            .annotation(AnnotationKind::Primary.span(place));
        let group = Group::with_level(Level::ERROR).element(snippet);
        let rendered = Renderer::plain().term_width(WIDTH).render(&[group]);
        Self { line, column, rendered }
    }
}

const BOM: char = '\u{feff}';

/// The line of the byte at `offset`, from 1.
pub(crate) fn line_number(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// `offset`, or the end of the last line with anything on it when `offset` is behind that.
fn visible(text: &str, offset: usize) -> usize {
    text.floor_char_boundary(offset.min(text.trim_end().len()))
}

/// `range` of `text`, each part that is in `masks` replaced.
fn masked(text: &str, range: Range<usize>, masks: &[Range<usize>]) -> String {
    let mut out = String::new();
    let mut at = range.start;
    for mask in masks.iter().filter(|mask| !range.is_empty() && mask.start < range.end && range.start < mask.end) {
        out.push_str(&text[at..mask.start.max(at)]);
        out.push_str(MASK);
        at = mask.end.min(range.end);
    }
    out.push_str(&text[at..range.end]);
    out
}

/// The renderer cuts a line around the mark, and never the mark itself.
fn shortened(mark: String) -> String {
    // A wide character takes two columns.
    let most = if mark.is_ascii() { 60 } else { 30 };
    match mark.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &mark[..end]),
        None => mark,
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, part: &str, masks: &[&str]) -> String {
        let place = |part: &str| text.find(part).map(|at| at..at + part.len()).expect("a part of the text");
        let masks: Vec<_> = masks.iter().map(|mask| place(mask)).collect();
        Excerpt::new(text, &place(part), &masks).to_string()
    }

    #[test]
    fn the_mark_is_under_its_part() {
        assert_eq!(shown("a = 1\nlease = 30\n", "30", &[]), "  |\n2 | lease = 30\n  |         ^^");
    }

    #[test]
    fn tabs_combining_and_wide_characters_keep_the_mark_in_place() {
        assert_eq!(shown("\ta = 1", "1", &[]), "  |\n1 |     a = 1\n  |         ^");
        assert_eq!(shown("漢e\u{301} = 1", "1", &[]), "  |\n1 | 漢e\u{301} = 1\n  |       ^");
    }

    #[test]
    fn a_secret_is_never_shown() {
        let text = "token = \"hunter2hunter2\" # mine";
        assert_eq!(
            shown(text, "\"hunter2hunter2\"", &["\"hunter2hunter2\""]),
            "  |\n1 | token = \"****\" # mine\n  |         ^^^^^^"
        );
    }

    #[test]
    fn a_place_behind_the_text_is_shown_at_its_end() {
        let text = "a = [1\n\n";
        let excerpt = Excerpt::new(text, &(text.len()..text.len()), &[]);
        assert_eq!(excerpt.to_string(), "  |\n1 | a = [1\n  |       ^");
        assert_eq!(Excerpt::new("", &(0..0), &[]).to_string(), "  |\n1 |\n  | ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = format!("a = \"{}\", b = 7, c = \"{}\"", "x".repeat(100), "y".repeat(100));
        let out = shown(&text, "7", &[]);
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{out}");
        let column = lines[2].find('^').expect("a caret");
        assert_eq!(lines[1].chars().nth(column), Some('7'), "{out}");
    }

    #[test]
    fn no_place_in_any_text_makes_it_fail() {
        for text in ["", "\n", "é\r\n\té漢 = \"x\"\n", &"漢".repeat(45)] {
            let mask = 0..text.chars().next().map_or(0, char::len_utf8);
            for start in 0..=text.len() + 1 {
                for end in start..=text.len() + 2 {
                    let _ = Excerpt::new(text, &(start..end), std::slice::from_ref(&mask)).to_string();
                }
            }
        }
    }
}
