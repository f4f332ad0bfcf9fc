//! What operators did to a record: kept in the store beside it, for its retention, also after it was released.
//!
//! The lines of a record are the answer of a completed record in a name space of their own, so that every store keeps them,
//! and appending one is a compare-and-swap. A line is written before the change that it tells of: no change goes untold. One
//! that was then not made is marked so.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::shape::StateName;
use crate::record::transitions::{CompareAndSwap, StoredRecord};
use crate::record::{Claim, Extensions, Fingerprint, Record, RecordName, Reply, State, Terms, Token, UnknownPolicy};
use crate::store::{Settled, Store, StoreError, SwapResult};

/// One thing that an operator did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditLine {
    /// By the sidecar's clock.
    pub at: Timestamp,
    /// `release` or `complete`.
    pub did: String,
    /// By which right: the token's name, or `this machine` where none is set.
    pub by: String,
    /// From which address; absent over a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
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

/// Lines that are kept of one record; the oldest go first. With the longest reasons they are shorter than what a store
/// puts apart.
const MOST: usize = 25;
/// Characters of a reason.
pub(super) const LONGEST_REASON: usize = 500;
/// Operators who write at once take turns.
const TRIES: usize = 10;

/// All lines, the oldest first.
pub(super) async fn read(store: &dyn Store, name: &RecordName) -> Result<Vec<AuditLine>, StoreError> {
    Ok(store.find(&name.audit()).await?.map(|held| lines(&held)).unwrap_or_default())
}

/// Adds a line.
pub(super) async fn add(
    store: &dyn Store,
    name: &RecordName,
    line: &AuditLine,
    keep_for: Duration,
) -> Result<(), StoreError> {
    change(store, name, keep_for, |lines| lines.push(line.clone())).await
}

/// Says of a line that what it tells of was not done.
pub(super) async fn withdraw(
    store: &dyn Store,
    name: &RecordName,
    line: &AuditLine,
    why: &str,
    keep_for: Duration,
) -> Result<(), StoreError> {
    change(store, name, keep_for, |lines| {
        if let Some(told) = lines.iter_mut().rev().find(|told| *told == line) {
            told.not_done = Some(why.to_owned());
        }
    })
    .await
}

async fn change(
    store: &dyn Store,
    name: &RecordName,
    keep_for: Duration,
    change: impl Fn(&mut Vec<AuditLine>),
) -> Result<(), StoreError> {
    let name = name.audit();
    for _ in 0..TRIES {
        let held = store.find(&name).await?;
        let mut told = held.as_ref().map(lines).unwrap_or_default();
        change(&mut told);
        let from = told.len().saturating_sub(MOST);
        let is_written = match held {
            None => matches!(store.settle(&name, &record(&told[from..], keep_for, 1)).await?, Settled::Written),
            Some(held) => {
                let before = &held.record.claim;
                let to = record(&told[from..], keep_for.max(before.terms.retention), before.attempt.saturating_add(1));
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

/// What cannot be read of it is left out.
fn lines(held: &StoredRecord) -> Vec<AuditLine> {
    match &held.record.state {
        State::Completed { reply, .. } => serde_json::from_slice(&reply.body.pieces().concat()).unwrap_or_default(),
        State::InFlight | State::Unreplayable { .. } | State::Unknown { .. } => Vec::new(),
    }
}

fn record(lines: &[AuditLine], keep_for: Duration, attempt: u32) -> Record {
    let mut token = [0; 16];
    getrandom::fill(&mut token).expect("the operating system gives random bytes");
    let now = Timestamp::now().millis;
    let claim = Claim {
        token: Token(token),
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
    Record { claim, state: State::Completed { settled_at: now, reply: Arc::new(reply) } }
}
