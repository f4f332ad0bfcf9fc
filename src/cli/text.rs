//! Text for terminals of 80 columns.

use crate::config::Selector;

const WIDTH: usize = 80;
const LABEL: usize = 13;

/// A label and its text, broken at 80 columns.
pub(super) fn labelled(out: &mut String, label: &str, text: &str) {
    wrapped(out, &format!("{label:<LABEL$} "), text);
}

/// Breaks a line at 80 columns, the following lines set under the first.
pub(super) fn wrapped(out: &mut String, label: &str, text: &str) {
    let indent = label.chars().count();
    let mut column = indent;
    out.push_str(label);
    for (index, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
}

/// Selectors as one text; `none` where there are none.
pub(super) fn selectors(selectors: &[Selector], none: &str) -> String {
    if selectors.is_empty() {
        return none.to_owned();
    }
    selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ")
}
