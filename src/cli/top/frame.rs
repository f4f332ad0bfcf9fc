//! What is shown at one moment, as text.

use std::io::stdout;

use super::columns::{Columns, clipped};
use super::records;
use super::sums::{Sums, compact};
use crate::admin::Timestamp;
use crate::admin::shape::{RecordEntry, UnknownList};
use crate::admin::status::{RouteStatus, Status};
use crate::text::{WIDTH, wrap_within};

/// The answers of one sidecar at one moment.
pub(super) struct Frame {
    pub(super) url: String,
    pub(super) status: Status,
    /// Absent for those who may not see records.
    pub(super) unknown: Option<UnknownList>,
    /// Why a later look failed, after which these figures are old.
    pub(super) fault: Option<String>,
}

/// The room on the screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    width: usize,
    height: usize,
    is_styled: bool,
}

impl Size {
    /// For a file or a pipe: as wide as all output, and as long as it needs.
    pub(super) fn unbounded() -> Self {
        Self { width: WIDTH, height: usize::MAX, is_styled: false }
    }

    pub(super) fn of_terminal() -> Self {
        let size = terminal_size::terminal_size_of(stdout());
        let (width, height) = size.map_or((WIDTH, 24), |(width, height)| (width.0.into(), height.0.into()));
        let is_styled = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { width, height, is_styled }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Emphasis {
    Plain,
    Title,
    Alarm,
}

type Line = (Emphasis, String);

fn plain(text: impl Into<String>) -> Line {
    (Emphasis::Plain, text.into())
}

fn alarm_if(is_alarm: bool) -> Emphasis {
    if is_alarm { Emphasis::Alarm } else { Emphasis::Plain }
}

/// A label and its text, in as many lines as it takes.
fn broken(style: Emphasis, label: &str, text: &str, size: Size) -> Vec<Line> {
    let mut out = String::new();
    wrap_within(size.width, &mut out, label, label.chars().count(), text);
    out.lines().map(|line| (style, line.to_owned())).collect()
}

/// The least number of lines that are kept for records that need a hand, whatever the other parts take.
const HANDS: usize = 5;

impl Frame {
    /// As many lines as there is room for, none of them wider.
    pub(super) fn text(&self, size: Size) -> String {
        let mut lines = self.head(size);
        let hands = self.hands(size);
        let room = size.height.saturating_sub(lines.len()).saturating_sub(hands.len().min(HANDS));
        lines.extend(self.routes(size, room));
        lines.extend(hands);
        lines.truncate(size.height);
        lines.iter().map(|(style, text)| shown(*style, text, size)).collect()
    }

    fn head(&self, size: Size) -> Vec<Line> {
        let status = &self.status;
        let up = records::coarse(status.now.since(status.started_at));
        let title = format!("onlyonce {} at {}, running for {up}", status.version, self.url);
        let mut lines = broken(Emphasis::Title, "", &title, size);
        if let Some(fault) = &self.fault {
            let old = format!("These figures are of {}: {fault}", records::time(status.now));
            lines.extend(broken(Emphasis::Alarm, "", &old, size));
        }
        let is_well = !status.draining && status.store.up && status.reload.last_ok;
        lines.extend(broken(alarm_if(!is_well), "", &state(status), size));
        lines.push(plain(""));
        let now = format!(
            "{} requests/s, {} in flight, {} waiting, {}",
            rate(status.per_second),
            status.in_flight,
            status.waiting,
            counted(status.connections, "connection"),
        );
        let hand = format!("{}, {} lost", counted(status.unknown, "outcome"), counted(status.lease_lost, "lease"));
        let is_alarm = status.unknown > 0 || status.lease_lost > 0;
        for (style, label, text) in [
            (Emphasis::Plain, "now        ", now),
            (Emphasis::Plain, "last hour  ", Sums::of(&status.routes).in_words()),
            (alarm_if(is_alarm), "unknown    ", hand),
            (Emphasis::Plain, "store      ", stored(status)),
        ] {
            lines.extend(broken(style, label, &text, size));
        }
        lines.push(plain(""));
        lines
    }

    fn routes(&self, size: Size, room: usize) -> Vec<Line> {
        let mut routes: Vec<(&RouteStatus, Sums)> =
            self.status.routes.iter().map(|route| (route, Sums::of(std::slice::from_ref(route)))).collect();
        // The table's head, and an empty line after it.
        let fit = room.saturating_sub(2);
        let mut left_out = self.status.more_routes;
        if routes.len() > fit {
            // In the order of the configuration, as the others are.
            let mut busiest: Vec<u64> = routes.iter().map(|(_, sums)| sums.all()).collect();
            busiest.sort_unstable_by(|one, other| other.cmp(one));
            let fit = fit.saturating_sub(1);
            let least = busiest.get(fit).copied().unwrap_or_default();
            let all = routes.len();
            routes.sort_by_key(|(_, sums)| sums.all() <= least);
            routes.truncate(fit);
            left_out += all - routes.len();
        }
        let widest = routes.iter().map(|(route, _)| route.route.chars().count()).max().unwrap_or_default();
        let columns = Columns::within(size.width, widest);
        let mut lines = vec![(Emphasis::Title, columns.head())];
        lines.extend(
            routes
                .iter()
                .map(|(route, sums)| (alarm_if(sums.trouble > 0 || route.unknown > 0), columns.row(route, sums))),
        );
        if left_out > 0 {
            lines.push(plain(format!("and {left_out} more with less traffic")));
        }
        lines.push(plain(""));
        lines
    }

    /// Records of which nobody knows whether they took effect, the oldest first.
    fn hands(&self, size: Size) -> Vec<Line> {
        let Some(unknown) = &self.unknown else {
            let why = self.status.records.as_ref().map_or("", |why| match &*why.code {
                "unauthorized" => "They are for those who have a token: put yours into $ONLYONCE_ADMIN_TOKEN.",
                _ => &why.detail,
            });
            return broken(Emphasis::Plain, "", &format!("Records are not listed. {why}"), size);
        };
        if unknown.records.is_empty() && !self.status.store.up {
            return broken(Emphasis::Plain, "", "The store is down: which outcomes are unknown cannot be told.", size);
        }
        if unknown.records.is_empty() {
            return broken(Emphasis::Plain, "", "Nothing needs a hand: every outcome is known.", size);
        }
        let count = unknown.count;
        let title = format!("{count} NEED{} A HAND (onlyonce records show RECORD)", if count == 1 { "S" } else { "" });
        let mut lines = broken(Emphasis::Title, "", &title, size);
        lines.extend(unknown.records.iter().flat_map(|entry| named(entry, self.status.now, size)));
        lines
    }
}

fn state(status: &Status) -> String {
    let serving = if status.draining { "stopping" } else { "serving" };
    let store = if status.store.up { "store up" } else { "STORE DOWN" };
    let reload =
        if status.reload.last_ok { "configuration in force" } else { "CONFIGURATION REFUSED, the old one holds" };
    format!("{serving}, {store}, {reload}")
}

fn stored(status: &Status) -> String {
    let store = &status.store;
    let (calls, errors) = (store.calls.iter().sum::<u64>(), store.errors.iter().sum::<u64>());
    let mut said = store.location.as_ref().map_or_else(String::new, |location| format!("{location}, "));
    said.push_str(&format!("{} calls, {errors} failed", compact(calls)));
    if let Some(typical) = store.typical_ms.iter().rev().flatten().next() {
        said.push_str(&format!(", {typical:.1} ms each"));
    }
    if let Some(ratio) = store.used_ratio {
        said.push_str(&format!(", {:.0} % full", ratio * 100.0));
    }
    if store.losses > 0 {
        said.push_str(&format!(", lost its data {} times", store.losses));
    }
    if store.may_evict {
        said.push_str(", may drop records");
    }
    said
}

/// The name of a record whole, since it is what `records show` asks for, in two lines where one is too narrow.
fn named(entry: &RecordEntry, now: Timestamp, size: Size) -> Vec<Line> {
    let line = records::named(entry, now);
    if line.chars().count() <= size.width {
        return vec![plain(line)];
    }
    let mut lines = Vec::new();
    let mut rest = &*entry.record;
    while !rest.is_empty() {
        // Names are ASCII.
        let (first, more) = rest.split_at_checked(size.width.max(1)).unwrap_or((rest, ""));
        lines.push(plain(first));
        rest = more;
    }
    let state = line.strip_prefix(&*entry.record).unwrap_or_default();
    lines.extend(broken(Emphasis::Plain, "  ", state.trim_start(), size));
    lines
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

fn counted(count: impl Into<i128> + Copy, noun: &str) -> String {
    let count: i128 = count.into();
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn shown(style: Emphasis, text: &str, size: Size) -> String {
    let text = clipped(text, size.width);
    match style {
        Emphasis::Title if size.is_styled => format!("\x1b[1m{text}\x1b[m\n"),
        Emphasis::Alarm if size.is_styled => format!("\x1b[31m{text}\x1b[m\n"),
        Emphasis::Plain | Emphasis::Title | Emphasis::Alarm => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::columns::MINUTES;
    use super::*;
    use crate::admin::shape::StateName;
    use crate::admin::status::{NoRecords, ReloadStatus, StoreStatus};

    const NOON: Timestamp = Timestamp { millis: 1_795_262_400_000 };

    fn route(name: &str, each: u64) -> RouteStatus {
        let outcomes = ["executed", "replayed", "key_reused", "missing_key", "upstream_error"];
        RouteStatus {
            route: name.to_owned(),
            matches: Some("POST /orders".to_owned()),
            mode: Some("enforce".to_owned()),
            key: None,
            scope: None,
            needs_url: false,
            says: String::new(),
            in_flight: 3,
            waiting: 1,
            unknown: 2,
            lease_lost: 0,
            outcomes: outcomes.map(|outcome| (outcome.to_owned(), vec![each; MINUTES])).into(),
        }
    }

    fn frame(routes: Vec<RouteStatus>, unknown: usize) -> Frame {
        let name = format!("{}:{}", "r".repeat(40), "0".repeat(32));
        let entry =
            RecordEntry { record: name, route: "r".into(), state: StateName::Unknown, detail: None, facts: None };
        let status = Status {
            version: "1.0.0".to_owned(),
            now: NOON,
            started_at: NOON.before(Duration::from_secs(3600 * 50)),
            draining: false,
            records: None,
            may_change: true,
            per_second: 12345.6,
            in_flight: 4096,
            waiting: 100,
            unknown: unknown as i64,
            lease_lost: 7,
            connections: 10_000,
            buffered_bytes: 0,
            store: StoreStatus {
                location: Some("redis+sentinel://10.0.0.1:26379,10.0.0.2:26379,10.0.0.3:26379/mymaster/0".to_owned()),
                up: true,
                used_ratio: Some(0.91),
                losses: 2,
                may_evict: true,
                calls: vec![1_000_000; MINUTES],
                errors: vec![5; MINUTES],
                typical_ms: vec![Some(0.4); MINUTES],
                slow_ms: vec![Some(5.0); MINUTES],
            },
            reload: ReloadStatus { ok: 1, refused: 1, last_ok: false },
            buckets: MINUTES,
            bucket_seconds: 60,
            routes,
            more_routes: 0,
        };
        let unknown = UnknownList { count: unknown, records: vec![entry; unknown.min(25)] };
        Frame { url: "http://127.0.0.1:9464".to_owned(), status, unknown: Some(unknown), fault: None }
    }

    fn screen(width: usize, height: usize) -> Size {
        Size { width, height, is_styled: false }
    }

    #[test]
    fn it_fits_its_screen_whatever_there_is_to_show() {
        for many in [0, 1, 3, 100] {
            for unknown in [0, 1, 30] {
                let names = (0..many).map(|at| format!("{}{at}", "a-long-name-".repeat(1 + at % 4)));
                let mut frame = frame(names.map(|name| route(&name, 99_999_999)).collect(), unknown);
                for fault in [None, Some("no sidecar answers at http://127.0.0.1:9464: Connection refused".to_owned())]
                {
                    frame.fault = fault;
                    for (width, height) in [(80, 24), (60, 20), (200, 50), (40, 30), (20, 5), (1, 1)] {
                        let text = frame.text(screen(width, height));
                        assert!(text.lines().count() <= height, "{many} {unknown} {width}x{height}:\n{text}");
                        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}x{height}:\n{text}");
                    }
                    let text = frame.text(screen(80, 24));
                    assert!(unknown == 0 || text.contains("A HAND"), "{text}");
                    assert!(many == 0 || text.contains("a-long-name-0"), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_table_at_80_columns() {
        let mut busy = route("create-order", 0);
        busy.outcomes.insert("executed".to_owned(), (0..60).collect());
        let text = frame(vec![busy], 0).text(screen(80, 24));
        let row = text.lines().find(|line| line.starts_with("create-order")).expect("a row");
        assert_eq!(row, "create-order   1770        0      0       0       0     4       2  ▁▁▂▃▄▄▅▆▆▇██", "{text}");
    }

    #[test]
    fn at_40_columns_it_tells_less_and_cuts_nothing_off() {
        let mut frame = frame(vec![route("create-order", 7)], 1);
        frame.status.store.location = Some("redis://10.0.0.1:6379/0".to_owned());
        let text = frame.text(screen(40, 50));
        let table: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("ROUTE")).take(2).collect();
        assert_eq!(
            table,
            ["ROUTE       RAN REPLAYED TROUBLE UNKNOWN", "create-…    420      420     420       2"],
            "{text}"
        );
        let name = format!("{}\n:{}\n  unknown\n", "r".repeat(40), "0".repeat(32));
        assert!(text.ends_with(&format!("1 NEEDS A HAND (onlyonce records show\nRECORD)\n{name}")), "{text}");
        assert!(!text.replace("create-…", "").contains('…'), "{text}");
    }

    #[test]
    fn who_may_not_see_records_is_told_why() {
        let mut frame = frame(Vec::new(), 0);
        frame.unknown = None;
        frame.status.records = Some(NoRecords { code: "forbidden".to_owned(), detail: "Not from there.".to_owned() });
        let text = frame.text(Size::unbounded());
        assert!(text.ends_with("Records are not listed. Not from there.\n"), "{text}");
    }
}
