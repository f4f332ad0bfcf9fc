use std::fmt;
use std::ops::Range;

use super::problem::WIDTH;

/// A line of a file with a part of it underlined, ready to be printed: secrets masked, tabs and wide characters laid
/// out, cut to the width of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
    text: String,
    /// In columns of `text`.
    mark: Range<usize>,
}

/// What stands for a secret.
const MASK: &str = "\"****\"";

impl Excerpt {
    /// The line of `text` where `span` begins. The bytes in `masks` are not shown.
    pub(super) fn new(text: &str, span: &Range<usize>, masks: &[Range<usize>]) -> Self {
        let start = visible(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        let (cells, mark) = lay_out(text, line_start..line_end, start..span.end, masks);
        let line = line_number(text, start);
        let (text_shown, mark) = cut(&cells, mark, WIDTH - line.to_string().len() - " | ".len());
        let column = text[line_start..start].trim_start_matches('\u{feff}').chars().count() + 1;
        Self { line, column, text: text_shown, mark }
    }
}

/// The line of the byte at `offset`, from 1.
pub(super) fn line_number(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// `offset`, or the end of the last line with anything on it when `offset` is behind that.
fn visible(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.trim_end().len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// What is printed in each column of a line, and the columns of `marked`. A wide character has an empty second cell.
fn lay_out(
    text: &str,
    line: Range<usize>,
    marked: Range<usize>,
    masks: &[Range<usize>],
) -> (Vec<String>, Range<usize>) {
    let mut cells: Vec<String> = Vec::new();
    let mut mark: Option<Range<usize>> = None;
    let mut masked = None;
    for (offset, c) in text[line.clone()].char_indices().map(|(offset, c)| (line.start + offset, c)) {
        let first = cells.len();
        match masks.iter().position(|mask| mask.contains(&offset)) {
            Some(mask) if masked == Some(mask) => {}
            Some(mask) => {
                masked = Some(mask);
                cells.extend(MASK.chars().map(String::from));
            }
            None => push(&mut cells, c),
        }
        if marked.contains(&offset) {
            let start = mark.map_or(first, |mark| mark.start);
            mark = Some(start..cells.len());
        }
    }
    let end = cells.len();
    // A mark behind the last character, or on one without a column, still needs its caret.
    let mark = mark.filter(|mark| !mark.is_empty()).unwrap_or(end..end + 1);
    (cells, mark)
}

fn push(cells: &mut Vec<String>, c: char) {
    match c {
        '\t' => cells.extend((0..4).map(|_| " ".to_owned())),
        '\r' | '\u{feff}' => {}
        c if c.is_control() => cells.push('\u{fffd}'.to_string()),
        c if is_combining(c) => {
            if let Some(last) = cells.last_mut() {
                last.push(c);
            }
        }
        c => {
            cells.push(c.to_string());
            if is_wide(c) {
                cells.push(String::new());
            }
        }
    }
}

fn is_combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{fe00}'..='\u{fe0f}')
}

/// East Asian characters and pictographs take two columns in a terminal.
fn is_wide(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}')
}

/// The part of a line around the mark that fits `width`.
fn cut(cells: &[String], mark: Range<usize>, width: usize) -> (String, Range<usize>) {
    if cells.len().max(mark.end) <= width {
        return (cells.concat().trim_end().to_owned(), mark);
    }
    let room = width - "……".chars().count();
    let from =
        if mark.end <= room { 0 } else { mark.start.saturating_sub(width / 4).min(cells.len().saturating_sub(room)) };
    let to = cells.len().min(from + room);
    let before = if from > 0 { "…" } else { "" };
    let after = if to < cells.len() { "…" } else { "" };
    let shift = |column: usize| column.clamp(from, to.max(from + 1)) - from + usize::from(from > 0);
    let mark = shift(mark.start)..shift(mark.end).max(shift(mark.start) + 1);
    (format!("{before}{}{after}", cells[from..to].concat()), mark)
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.to_string();
        let gutter = " ".repeat(line.len());
        let underline = format!("{}{}", " ".repeat(self.mark.start), "^".repeat(self.mark.len()));
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{}", format!("{line} | {}", self.text).trim_end())?;
        write!(f, "{gutter} | {underline}")
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
        let mask = 0..2;
        for text in ["", "\n", "é\r\n\té漢 = \"x\"\n", &"漢".repeat(45)] {
            for start in 0..=text.len() + 1 {
                for end in start..=text.len() + 2 {
                    let _ = Excerpt::new(text, &(start..end), std::slice::from_ref(&mask)).to_string();
                }
            }
        }
    }
}
