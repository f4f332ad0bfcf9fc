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
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing_subscriber::fmt::format::Writer;
    use tracing_subscriber::fmt::time::FormatTime;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::lines;
    use super::*;

    #[derive(Debug, Clone)]
    struct LineFields {
        warns: bool,
        route: String,
        digest: [u8; 16],
        key: Option<String>,
        attempt: Option<u32>,
        status: Option<u16>,
        upstream: Option<Duration>,
        total: Duration,
    }

    const STYLES: [Style; 3] = [Style::Text, Style::Coloured, Style::Json];

    fn hex(digest: &[u8; 16]) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn ours(fields: &LineFields, style: Style, now: SystemTime) -> Vec<u8> {
        let mut out = Vec::new();
        let level = if fields.warns { Level::WARN } else { Level::INFO };
        let mut line = LogLine::begin(&mut out, style, (now, &mut CachedSecond::default()), level, "request");
        line.text("route", &fields.route);
        line.texts("record", &[&fields.route, ":", &hex(&fields.digest)]);
        if let Some(key) = &fields.key {
            line.text("key", key);
        }
        if let Some(attempt) = fields.attempt {
            line.number("attempt", attempt.into());
        }
        if let Some(status) = fields.status {
            line.number("status", status.into());
        }
        if let Some(key) = &fields.key {
            line.display("reason", &format_args!("no key: {key} is missing ({})", fields.route));
        }
        if let Some(upstream) = fields.upstream {
            line.millis("upstream_ms", upstream);
        }
        line.millis("total_ms", fields.total);
        line.end();
        out
    }

    /// A clock that is stopped.
    struct At(SystemTime);

    impl FormatTime for At {
        fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
            write!(w, "{}", humantime::format_rfc3339_micros(self.0))
        }
    }

    #[derive(Clone, Default)]
    struct CapturedLines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for CapturedLines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What the event was before it was formatted here.
    fn theirs(fields: &LineFields, style: Style, now: SystemTime) -> Vec<u8> {
        let taken = CapturedLines::default();
        let writer = taken.clone();
        let layer = lines(style, move || writer.clone(), At(now));
        let millis = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    route = &*fields.route,
                    record = Some(format!("{}:{}", fields.route, hex(&fields.digest))),
                    key = fields.key,
                    attempt = fields.attempt,
                    status = fields.status,
                    reason = fields.key.as_ref().map(|key| format!("no key: {key} is missing ({})", fields.route)),
                    upstream_ms = fields.upstream.map(millis),
                    total_ms = millis(fields.total),
                    "request"
                )
            };
        }
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            if fields.warns { tell!(warn) } else { tell!(info) }
        });
        let taken = taken.0.lock().expect("no panic");
        taken.clone()
    }

    fn is_same(fields: &LineFields, now: SystemTime) {
        for style in STYLES {
            let (ours, theirs) = (ours(fields, style, now), theirs(fields, style, now));
            assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs), "{style:?}");
        }
    }

    const NOW: SystemTime = UNIX_EPOCH;

    #[test]
    fn a_line_is_the_one_that_tracing_subscriber_writes_whatever_is_in_it() {
        let plain = LineFields {
            warns: false,
            route: "create-order".into(),
            digest: *b"0123456789abcdef",
            key: None,
            attempt: Some(1),
            status: Some(201),
            upstream: Some(Duration::from_micros(1500)),
            total: Duration::from_nanos(2_000_499),
        };
        is_same(&plain, NOW + Duration::from_nanos(1_795_262_400_123_456_789));
        is_same(&LineFields { warns: true, attempt: None, status: None, upstream: None, ..plain.clone() }, NOW);
        for hostile in [
            "",
            "\"quoted\" and \\ behind",
            "a\tb\r\nc\0d",
            "\x1b[31mred\x1b[0m",
            "\x07\x08\x0c\x7f",
            "\u{80}\u{9b}31m",
            "'single'",
            "caf\u{e9} \u{6f22}",
            "\u{301}begins with an accent, and e\u{301} has one",
            "\u{200b}\u{202e}\u{feff}\u{2028}",
            "\u{1f600}",
            &String::from_utf8_lossy(b"not \xff\xfe UTF-8"),
        ] {
            is_same(&LineFields { route: hostile.into(), key: Some(hostile.into()), ..plain.clone() }, NOW);
        }
        for total in [
            Duration::ZERO,
            Duration::from_nanos(499),
            Duration::from_nanos(500),
            Duration::from_nanos(1500),
            Duration::from_micros(999),
            Duration::from_micros(1000),
            Duration::from_micros(1010),
            Duration::from_micros(1100),
            Duration::from_secs(600),
            Duration::from_secs(86_400 * 365),
        ] {
            is_same(&LineFields { total, upstream: Some(total), ..plain.clone() }, NOW);
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,20}",
            "\\PC{0,20}",
            proptest::collection::vec(any::<char>(), 0..20).prop_map(|chars| chars.into_iter().collect())
        ]
    }

    fn fields() -> impl Strategy<Value = LineFields> {
        let times = (any::<Option<u32>>(), 0..10_000_000_000_000_u64);
        (
            any::<bool>(),
            text(),
            any::<[u8; 16]>(),
            proptest::option::of(text()),
            any::<Option<u32>>(),
            any::<Option<u16>>(),
            times,
        )
            .prop_map(|(warns, route, digest, key, attempt, status, (upstream, total))| LineFields {
                warns,
                route,
                digest,
                key,
                attempt,
                status,
                upstream: upstream.map(|nanos| Duration::from_nanos(nanos.into())),
                total: Duration::from_nanos(total),
            })
    }

    proptest! {
        #[test]
        fn every_line_is_the_one_that_tracing_subscriber_writes(fields in fields(), now in 0..4_000_000_000_000_000_u64) {
            is_same(&fields, NOW + Duration::from_micros(now));
        }
    }

    #[test]
    fn timestamps_are_those_of_tracing_subscriber() {
        for _ in 0..100 {
            let mut theirs = String::new();
            tracing_subscriber::fmt::time::SystemTime.format_time(&mut Writer::new(&mut theirs)).expect("a time");
            let now = humantime::parse_rfc3339(&theirs).expect("RFC 3339");
            let mut ours = Vec::new();
            CachedSecond::default().write(now, &mut ours);
            assert_eq!(String::from_utf8(ours).expect("ASCII"), theirs);
        }
    }

    #[test]
    fn a_timestamp_goes_with_its_second() {
        let mut second = CachedSecond::default();
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (999_999_999, "1970-01-01T00:00:00.999999Z"),
            (1_000_001_000, "1970-01-01T00:00:01.000001Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z"),
            (5_000_000, "1970-01-01T00:00:00.005000Z"),
        ] {
            let mut out = Vec::new();
            second.write(NOW + Duration::from_nanos(nanos), &mut out);
            assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
        }
        let mut out = Vec::new();
        second.write(NOW - Duration::from_secs(5), &mut out);
        second.write(NOW + Duration::from_secs(LAST + 5), &mut out);
        assert_eq!(String::from_utf8(out).expect("ASCII"), "1970-01-01T00:00:00.000000Z9999-12-31T23:59:59.000000Z");
    }
}
