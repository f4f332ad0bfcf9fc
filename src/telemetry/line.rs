//! The log lines of requests, formatted byte for byte like those of `tracing-subscriber`.
//!
//! With `tracing`, such a line takes 25,000 instructions: a String for each field, a visitor and `core::fmt`. Here, fields
//! are copied directly.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::Level;

/// The format of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Text,
    /// Text for a terminal.
    Coloured,
    Json,
}

/// A line that is being written.
pub struct LogLine<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
}

impl<'a> LogLine<'a> {
    /// `message` is a literal, which needs no escaping.
    pub(super) fn begin(
        out: &'a mut Vec<u8>,
        style: Style,
        (now, second): (SystemTime, &mut CachedSecond),
        level: Level,
        message: &'static str,
    ) -> Self {
        let name = level.as_str().as_bytes();
        match style {
            Style::Text => {
                second.write(now, out);
                out.extend_from_slice(if name.len() < 5 { b"  " } else { b" " });
                out.extend_from_slice(name);
                out.push(b' ');
                out.extend_from_slice(message.as_bytes());
            }
            Style::Coloured => {
                out.extend_from_slice(b"\x1b[2m");
                second.write(now, out);
                out.extend_from_slice(b"\x1b[0m \x1b[");
                out.extend_from_slice(match level {
                    Level::ERROR => b"31m",
                    Level::WARN => b"33m",
                    Level::INFO => b"32m",
                    Level::DEBUG => b"34m",
                    Level::TRACE => b"35m",
                });
                out.extend_from_slice(if name.len() < 5 { b" " } else { b"" });
                out.extend_from_slice(name);
                out.extend_from_slice(b"\x1b[0m ");
                out.extend_from_slice(message.as_bytes());
            }
            Style::Json => {
                out.extend_from_slice(b"{\"timestamp\":\"");
                second.write(now, out);
                out.extend_from_slice(b"\",\"level\":\"");
                out.extend_from_slice(name);
                out.extend_from_slice(b"\",\"message\":\"");
                out.extend_from_slice(message.as_bytes());
                out.push(b'"');
            }
        }
        Self { out, style }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(if self.style == Style::Json { b"}\n" } else { b"\n" });
    }

    /// A text.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.texts(name, &[value]);
    }

    /// A word of ASCII letters, digits and `-_:`. Nothing in it is escaped, so it is cheaper than a text.
    pub fn word(&mut self, name: &'static str, word: &[u8]) {
        debug_assert!(word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_:".contains(byte)));
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(word);
        self.out.push(b'"');
    }

    /// A text of several parts.
    pub fn texts(&mut self, name: &'static str, pieces: &[&str]) {
        self.name(name);
        self.out.push(b'"');
        pieces.iter().for_each(|piece| escape(piece, self.style, self.out));
        self.out.push(b'"');
    }

    /// A text by `Display`.
    pub fn display(&mut self, name: &'static str, value: &dyn fmt::Display) {
        self.name(name);
        self.out.push(b'"');
        // Writing to a vector cannot fail.
        let _ = write!(Escaped(&mut *self.out, self.style), "{value}");
        self.out.push(b'"');
    }

    /// A number.
    pub fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        digits(value, self.out);
    }

    /// A duration in milliseconds, exact to the microsecond.
    pub fn millis(&mut self, name: &'static str, value: Duration) {
        self.name(name);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration is no less than 0")]
        let micros = (value.as_secs_f64() * 1e6).round() as u64;
        digits(micros / 1000, self.out);
        let fraction = three_digits(micros % 1000);
        let length = match fraction {
            [_, b'0', b'0'] => 1,
            [_, _, b'0'] => 2,
            _ => 3,
        };
        self.out.push(b'.');
        self.out.extend_from_slice(&fraction[..length]);
    }

    fn name(&mut self, name: &'static str) {
        match self.style {
            Style::Text => {
                self.out.push(b' ');
                self.out.extend_from_slice(name.as_bytes());
                self.out.push(b'=');
            }
            Style::Coloured => {
                self.out.extend_from_slice(b" \x1b[3m");
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b"\x1b[0m\x1b[2m=\x1b[0m");
            }
            Style::Json => {
                self.out.extend_from_slice(b",\"");
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
        }
    }
}

/// The text inside the quotes.
fn escape(text: &str, style: Style, out: &mut Vec<u8>) {
    // No early return: the loop is vectorised.
    let is_escaped = |byte: u8| !(b' '..=b'~').contains(&byte) | (byte == b'"') | (byte == b'\\');
    if !text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let quoted = out.len();
    // Writing text as JSON to a vector cannot fail.
    match style {
        Style::Text | Style::Coloured => drop(write!(out, "{text:?}")),
        Style::Json => drop(serde_json::to_writer(&mut *out, text)),
    }
    out.pop();
    out.remove(quoted);
}

struct Escaped<'a>(&'a mut Vec<u8>, Style);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        escape(piece, self.1, self.0);
        Ok(())
    }
}

fn digits(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = digit(number);
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[start..]);
        }
    }
}

fn three_digits(number: u64) -> [u8; 3] {
    [digit(number / 100), digit(number / 10), digit(number)]
}

/// The last one.
fn digit(number: u64) -> u8 {
    b"0123456789"[(number % 10) as usize]
}

/// The formatted current second, which is reused for all lines of that second.
#[derive(Default)]
pub(super) struct CachedSecond {
    /// Since 1970; `None`: not formatted yet.
    count: Option<u64>,
    /// A timestamp without its fraction: `2026-11-28T12:00:00.`
    text: [u8; 20],
}

/// The last second of the year 9999. Later timestamps would be longer.
const LAST: u64 = 253_402_300_799;

impl CachedSecond {
    fn write(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        // A wall clock before 1970 is not set.
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let count = since.as_secs().min(LAST);
        if self.count != Some(count) {
            let mut text = &mut self.text[..];
            let time = UNIX_EPOCH + Duration::from_secs(count);
            // The rest has no room.
            let _ = write!(text, "{}", humantime::format_rfc3339_micros(time));
            self.count = Some(count);
        }
        out.extend_from_slice(&self.text);
        let micros = u64::from(since.subsec_micros());
        out.extend_from_slice(&three_digits(micros / 1000));
        out.extend_from_slice(&three_digits(micros % 1000));
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests;
