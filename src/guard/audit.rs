//! What operators and probes did to a record: kept in the store beside it, for its retention, also after it was released.
//!
//! The lines of a record are the answer of a completed record in a name space of their own, so that every store keeps them,
//! and appending one is a compare-and-swap. A line is written before the change that it tells of: no change goes untold. One
//! that was then not made is marked so.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::random::random;
use crate::record::codec::Unreadable;
use crate::record::transitions::{CompareAndSwap, StoredRecord};
use crate::record::{
    Claim, Extensions, Fingerprint, RecordName, Reply, SettledRecord, Settlement, State, StateName, Terms, Token,
    UnknownPolicy,
};
use crate::rule::BY_PROBE;
use crate::store::{Settled, Store, StoreError, StoredBody, SwapResult};
use crate::timestamp::Timestamp;

/// One thing that an operator or a probe did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditLine {
    /// By the sidecar's clock.
    pub at: Timestamp,
    /// What was done: an [`AuditAction`], or what a newer version does.
    pub did: String,
    /// By which right: the token's name (`admin.token`, or that in `[admin.tokens]`), or `this machine` where none is set;
    /// [`BY_PROBE`].
    pub by: String,
    /// From which address; absent over a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What the backend was asked, as it is configured: without the values of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether an owner that is alive was no obstacle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// What the record was.
    pub was: StateName,
    /// The status of the answer that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it was not done, or may not have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_done: Option<String>,
}

/// What an operator or a probe does to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// Its key is freed.
    Release,
    /// It is settled.
    Complete,
    /// An operator has the backend asked about it.
    Probe,
}

impl AuditAction {
    /// What this change does.
    pub fn of(swap: &CompareAndSwap) -> Self {
        if swap.to.is_some() { Self::Complete } else { Self::Release }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Complete => "complete",
            Self::Probe => "probe",
        }
    }
}

/// Lines that are kept of one record. With the longest reasons they are some 20 KB.
const MOST: usize = 25;
/// Characters of a reason.
pub const LONGEST_REASON: usize = 500;
/// Operators who write at once take turns.
const TRIES: usize = 10;

/// All lines, the oldest first.
pub async fn read(store: &dyn Store, name: &RecordName) -> Result<Vec<AuditLine>, StoreError> {
    let name = name.audit();
    let told = match store.find(&name).await? {
        Some(held) => lines(store, &name, &held).await?,
        None => Vec::new(),
    };
    // A newer version may write some otherwise: the others are shown all the same.
    Ok(told.into_iter().filter_map(|line| serde_json::from_value(line).ok()).collect())
}

/// Adds a line.
pub async fn add(store: &dyn Store, name: &RecordName, line: &AuditLine, keep_for: Duration) -> Result<(), StoreError> {
    let line = json(line)?;
    let add = |lines: &mut Vec<Value>| {
        lines.push(line.clone());
        true
    };
    change(store, name, keep_for, add).await
}

/// Says of a line that what it tells of was not done. Nothing is written where the line is not there.
pub async fn withdraw(
    store: &dyn Store,
    name: &RecordName,
    line: &AuditLine,
    why: &str,
    keep_for: Duration,
) -> Result<(), StoreError> {
    let marked = json(&AuditLine { not_done: Some(why.to_owned()), ..line.clone() })?;
    let line = json(line)?;
    let mark = |lines: &mut Vec<Value>| {
        let told = lines.iter_mut().rev().find(|told| **told == line);
        told.map(|told| *told = marked.clone()).is_some()
    };
    change(store, name, keep_for, mark).await
}

fn json(line: &AuditLine) -> Result<Value, StoreError> {
    serde_json::to_value(line).map_err(|error| StoreError::Refused(error.into()))
}

/// `change` says whether there is anything to write.
async fn change(
    store: &dyn Store,
    name: &RecordName,
    keep_for: Duration,
    change: impl Fn(&mut Vec<Value>) -> bool,
) -> Result<(), StoreError> {
    let name = name.audit();
    for _ in 0..TRIES {
        let held = store.find(&name).await?;
        let mut told = match &held {
            Some(held) => lines(store, &name, held).await?,
            None => Vec::new(),
        };
        if !change(&mut told) {
            return Ok(());
        }
        shorten(&mut told);
        let is_written = match held {
            None => matches!(store.settle(&name, &record(&told, keep_for, 1)).await?, Settled::Written),
            Some(held) => {
                let before = &held.record.claim;
                let to = record(&told, keep_for.max(before.terms.retention), before.attempt.saturating_add(1));
                let swap = CompareAndSwap { seen: held.seen(), to: Some(to) };
                matches!(store.compare_and_swap(&name, &swap).await?, SwapResult::Done)
            }
        };
        if is_written {
            return Ok(());
        }
    }
    Err(StoreError::Refused("another operator writes to this record all the time".into()))
}

/// The oldest lines go first, and before them those that tell of no change: questions of operators, and what a probe has
/// not done. Somebody may ask every minute, and a probe tries by itself: that hides nobody who has changed the record.
fn shorten(told: &mut Vec<Value>) {
    let is_no_change = |line: &Value| {
        let is = |member, text| line.get(member).and_then(Value::as_str) == Some(text);
        is("did", AuditAction::Probe.as_str()) || is("by", BY_PROBE) && line.get("not_done").is_some()
    };
    while told.len() > MOST {
        told.remove(told.iter().position(is_no_change).unwrap_or(0));
    }
}

/// The lines as they are kept: those that this version cannot read stay in the list. What is no list of lines is never
/// overwritten: a newer version may have written it.
async fn lines(store: &dyn Store, name: &RecordName, held: &StoredRecord) -> Result<Vec<Value>, StoreError> {
    let lines = match &held.record.state {
        State::Completed { reply, .. } => {
            let bytes = match StoredBody::of(store, name, &reply.body).await? {
                Some(body) => body.rest().await?.concat(),
                None => reply.body.pieces().concat(),
            };
            serde_json::from_slice(&bytes).ok()
        }
        State::InFlight | State::Unreplayable { .. } | State::Unknown { .. } => None,
    };
    lines.ok_or_else(|| StoreError::Unreadable {
        name: name.to_string(),
        source: Unreadable::Damaged("what operators did to it is no list that this version reads"),
    })
}

fn record(lines: &[Value], keep_for: Duration, attempt: u32) -> SettledRecord {
    let now = Timestamp::now().millis;
    let claim = Claim {
        token: Token(random()),
        attempt,
        terms: Terms { lease: Duration::ZERO, retention: keep_for, on_unknown: UnknownPolicy::Hold(keep_for) },
        fingerprint: Fingerprint { target: [0; 16], recipe: 0, body: [0; 16] },
        claimed_at: now,
        extensions: Extensions::default(),
    };
    // Lines of text and numbers have a JSON form.
    let body: Vec<bytes::Bytes> = vec![serde_json::to_vec(lines).unwrap_or_default().into()];
    let reply =
        Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into(), trailers: HeaderMap::new() };
    SettledRecord::new(claim, &Settlement::Completed(Arc::new(reply)), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::store::Memory;

    fn record_in_memory() -> (Memory, RecordName) {
        with_store("")
    }

    /// With these keys of `[store]`.
    fn with_store(keys: &str) -> (Memory, RecordName) {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[store]\nurl = \"memory:\"\n{keys}\n\
             [[route]]\nname = \"orders\"\npath = \"/orders\"\nscope = []\n"
        );
        let config = config::parse("test", &text, &|_| None).expect("a configuration");
        let store = Memory::open(&config.store).expect("random bytes");
        let name = RecordName { route: "orders".into(), digest: [1; 16] };
        (store, name)
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_read_stays_and_hides_no_other() {
        let (store, name) = record_in_memory();
        let keep_for = Duration::from_secs(3600);
        let foreign = serde_json::json!({"of": "a newer version"});
        let written = store.settle(&name.audit(), &record(std::slice::from_ref(&foreign), keep_for, 1)).await;
        assert!(matches!(written, Ok(Settled::Written)));
        let line = line();
        add(&store, &name, &line, keep_for).await.expect("added");
        assert_eq!(read(&store, &name).await.expect("read"), std::slice::from_ref(&line));
        withdraw(&store, &name, &line, "for a test", keep_for).await.expect("withdrawn");
        let marked = AuditLine { not_done: Some("for a test".to_owned()), ..line };
        assert_eq!(read(&store, &name).await.expect("read"), [marked]);
        let held = store.find(&name.audit()).await.expect("found").expect("a record");
        assert_eq!(lines(&store, &name, &held).await.expect("lines")[0], foreign);
    }

    /// A store may compress what is written, and keep it apart.
    #[tokio::test]
    async fn many_long_lines_are_read_again_however_they_are_stored() {
        for keys in ["", "compress_above = \"64B\""] {
            let (store, name) = with_store(keys);
            let keep_for = Duration::from_secs(3600);
            let long = AuditLine { reason: Some("\u{e4}".repeat(LONGEST_REASON)), ..line() };
            for _ in 0..MOST + 3 {
                add(&store, &name, &long, keep_for).await.unwrap_or_else(|error| panic!("{keys}: {error}"));
            }
            withdraw(&store, &name, &long, "for a test", keep_for).await.expect("withdrawn");
            let kept = read(&store, &name).await.expect("read");
            assert_eq!(kept.len(), MOST, "{keys}");
            assert_eq!(kept.iter().filter(|line| line.not_done.is_some()).count(), 1, "{keys}");
        }
    }

    #[tokio::test]
    async fn what_is_no_list_of_lines_is_never_overwritten() {
        let text = "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\n\
                    [[route]]\nname = \"orders\"\npath = \"/orders\"\nscope = []\n";
        let config = config::parse("test", text, &|_| None).expect("a configuration");
        let store = Memory::open(&config.store).expect("random bytes");
        let keep_for = Duration::from_secs(3600);
        let claim = record(&[], keep_for, 1).claim.clone();
        let of = |settlement: &Settlement| SettledRecord::new(claim.clone(), settlement, 1);
        let body = |bytes: &'static [u8]| {
            let body = vec![bytes::Bytes::from_static(bytes)].into();
            let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
            Settlement::Completed(Arc::new(Reply { status: StatusCode::OK, headers, body, trailers }))
        };
        let strange = [body(b"{\"version\":2}"), body(b"\xff"), body(b""), Settlement::Unknown];
        for (digest, settlement) in (1..).zip(strange) {
            let name = RecordName { route: "orders".into(), digest: [digest; 16] };
            store.settle(&name.audit(), &of(&settlement)).await.expect("settled");
            let before = store.find(&name.audit()).await.expect("found").expect("a record").record;
            let line = line();
            let refused = add(&store, &name, &line, keep_for).await;
            assert!(matches!(refused, Err(StoreError::Unreadable { .. })), "{digest}: {refused:?}");
            assert!(withdraw(&store, &name, &line, "for a test", keep_for).await.is_err(), "{digest}");
            assert!(read(&store, &name).await.is_err(), "{digest}");
            let after = store.find(&name.audit()).await.expect("found").expect("a record").record;
            assert_eq!(before, after, "{digest}");
        }
    }

    #[tokio::test]
    async fn who_changed_a_record_is_told_however_often_the_backend_is_asked_after_that() {
        let (store, name) = record_in_memory();
        let keep_for = Duration::from_secs(3600);
        let released = line();
        add(&store, &name, &released, keep_for).await.expect("added");
        for minute in 0..2 * MOST as u64 {
            let at = Timestamp { millis: minute };
            let asked = AuditLine { at, did: AuditAction::Probe.as_str().to_owned(), by: "cron".to_owned(), ..line() };
            let tried = AuditLine { at, by: BY_PROBE.to_owned(), ..line() };
            for line in [asked, tried] {
                add(&store, &name, &line, keep_for).await.expect("added");
                withdraw(&store, &name, &line, "for a test", keep_for).await.expect("withdrawn");
            }
        }
        let told = read(&store, &name).await.expect("read");
        assert_eq!((&told[0], told.len()), (&released, MOST));
        assert!(told[1..].iter().all(|line| line.at.millis > 25), "the youngest of the others: {told:?}");
        // Changes take the room of questions, and then of older changes.
        let completed = |minute: u64| AuditLine {
            at: Timestamp { millis: minute },
            did: AuditAction::Complete.as_str().to_owned(),
            ..line()
        };
        for minute in 0..MOST as u64 {
            add(&store, &name, &completed(minute), keep_for).await.expect("added");
        }
        let all: Vec<AuditLine> = (0..MOST as u64).map(completed).collect();
        assert_eq!(read(&store, &name).await.expect("read"), all);
        let asked = AuditLine { did: AuditAction::Probe.as_str().to_owned(), ..line() };
        add(&store, &name, &asked, keep_for).await.expect("added");
        assert_eq!(read(&store, &name).await.expect("read"), all, "no question takes the room of a change");
    }

    fn line() -> AuditLine {
        AuditLine {
            at: Timestamp::now(),
            did: AuditAction::Release.as_str().to_owned(),
            by: "admin.token".to_owned(),
            from: None,
            asked: None,
            reason: None,
            force: false,
            was: StateName::Unknown,
            status: None,
            not_done: None,
        }
    }
}
