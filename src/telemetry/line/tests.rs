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
    line.word("outcome", b"executed");
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
                outcome = "executed",
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
