//! Text for terminals of 80 columns, and for pages.

/// The width that all output fits.
pub const WIDTH: usize = 80;

/// Appends `first` and `text`, wrapped between words; every line but the first begins with this number of spaces.
pub fn wrap(out: &mut String, first: &str, indent: usize, text: &str) {
    wrap_within(WIDTH, out, first, indent, text);
}

/// The same for lines of another width.
pub fn wrap_within(columns: usize, out: &mut String, first: &str, indent: usize, text: &str) {
    out.push_str(first);
    let mut column = first.chars().count();
    for (index, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > columns {
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
}

/// The first few names, and the number of the others.
pub fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    match names.len().checked_sub(SHOWN + 1) {
        None => names.join(", "),
        Some(_) => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
    }
}

/// `text` for HTML, also within quoted attributes.
pub fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
