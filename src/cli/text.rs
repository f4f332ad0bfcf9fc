//! Text for terminals of 80 columns.

use crate::rule::{Disposition, Rule};
use crate::text::{WIDTH, wrap};

const LABEL: usize = 13;

/// A label and its text, broken at 80 columns.
pub(super) fn labelled(out: &mut String, label: &str, text: &str) {
    wrapped(out, &format!("{label:<LABEL$} "), text);
}

/// Wraps a line at 80 columns, with the following lines aligned to the first.
pub(super) fn wrapped(out: &mut String, label: &str, text: &str) {
    wrap(out, label, label.chars().count(), text);
    out.push('\n');
}

/// A message, of which each line that is too long is broken at 80 columns, behind its label if it has one.
pub(super) fn fitted(message: &str) -> String {
    const LABELS: [&str; 3] = ["error: ", "help: ", "warning: "];
    let mut out = String::new();
    for line in message.lines() {
        let indent = line.len() - line.trim_start().len();
        let label = LABELS.iter().find(|label| line.starts_with(**label)).map_or(indent, |label| label.len());
        match line.chars().count() > WIDTH {
            true => wrapped(&mut out, &line[..label], &line[label..]),
            false => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// The width of the terminal; 80 columns where the output does not go to one.
pub(super) fn terminal_width() -> usize {
    terminal_size::terminal_size_of(std::io::stdout())
        .map_or(WIDTH, |(terminal_size::Width(columns), _)| columns.into())
}

/// The statuses with this disposition.
pub(super) fn ranges(rule: &Rule, disposition: Disposition) -> String {
    let ranges = rule.policy.ranges(disposition).into_iter().map(|(first, last)| match last {
        last if last == first => first.to_string(),
        last => format!("{first}-{last}"),
    });
    let ranges: Vec<String> = ranges.collect();
    if ranges.is_empty() { "-".to_owned() } else { ranges.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_behind_their_label_and_words_are_not() {
        let word = "x".repeat(30);
        let message = format!("error: {word} {word} {word}\n\n  a short line\nhelp: {}", "y".repeat(90));
        let indent = " ".repeat("error: ".len());
        let expected = format!("error: {word} {word}\n{indent}{word}\n\n  a short line\nhelp: {}\n", "y".repeat(90));
        assert_eq!(fitted(&message), expected);
    }
}
