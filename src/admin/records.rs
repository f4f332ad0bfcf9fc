//! The API of records: read them, release their keys, complete them by hand.
//!
//! | call | does |
//! |---|---|
//! | `GET /records?route=&state=&cursor=&limit=` | a page of them |
//! | `GET /records/{record}`, with `?body=1` | one, and its answer |
//! | `POST /records/{record}/release` | frees its key |
//! | `POST /records/{record}/complete` | settles it with an answer |
//! | `POST /records/{record}/probe` | has the backend asked about it |
//! | `POST /records/release` | frees many keys |
//!
//! A change is one compare-and-swap at the store, against the record that the call has read. It runs in a task of its own, so
//! that it is logged even if the client disconnects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::access::Operator;
use super::error::{AdminError, AdminErrorKind};
use super::shape::{
    BulkReleaseRequest, BulkReleaseResponse, CompleteRequest, LookUpResponse, RecordChange, RecordDetail, RecordEntry,
    RecordPage, RecordVersionSeen, ReleaseRequest, StateName, UnknownList,
};
use super::{Timestamp, answer, story};
use crate::guard::audit::{self, AuditAction, AuditLine, LONGEST_REASON};
use crate::guard::{Guard, NotChanged, why_not_done};
use crate::record::transitions::{self, CompareAndSwap, RecordSnapshot, StoredRecord};
use crate::record::{RecordName, ReplyBody, State};
use crate::store::{Cursor, ListQuery, ListedRecord, Store, StoreError, StoredBody, SwapResult};

/// The records API over one store.
#[derive(Clone)]
pub(super) struct RecordApi {
    pub(super) store: Arc<dyn Store>,
    pub(super) guard: Arc<Guard>,
}

/// Who makes a change.
pub(super) struct ChangeAuthor {
    pub(super) operator: Operator,
    /// `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
}

impl ChangeAuthor {
    /// The line of what this operator does.
    pub(super) fn audit_line(
        &self,
        did: AuditAction,
        reason: String,
        seen: &RecordSnapshot,
    ) -> Result<AuditLine, AdminError> {
        if reason.chars().count() > LONGEST_REASON {
            let detail = format!("A reason has {LONGEST_REASON} characters at most.");
            return Err(AdminError::new(AdminErrorKind::BadRequest, detail));
        }
        Ok(AuditLine {
            at: Timestamp::now(),
            did: did.as_str().to_owned(),
            by: self.operator.name().to_owned(),
            from: self.peer.map(|peer| peer.ip().to_string()),
            asked: None,
            reason: Some(reason).filter(|reason| !reason.is_empty()),
            force: false,
            was: seen.summary.phase.into(),
            status: None,
            not_done: None,
        })
    }
}

/// How an operator makes a change.
struct ByHand<'a> {
    force: bool,
    /// Why; empty where the operator does not say.
    reason: String,
    by: &'a ChangeAuthor,
}

/// A filter of records.
#[derive(Debug, Clone)]
pub(super) struct RecordFilter {
    pub(super) route: Option<String>,
    pub(super) state: Option<StateName>,
    pub(super) since: Option<Timestamp>,
    pub(super) cursor: Option<String>,
    pub(super) limit: usize,
}

/// The default number of records on a page.
pub(super) const LIMIT: usize = 100;
/// Those that need a hand, as many as a page shows.
const OLDEST: usize = 25;
/// The largest number of records on a page.
pub(super) const MOST: usize = 1000;
/// The approximate number of keys that one call releases. Each is a write that may wait for a disk.
const AT_ONCE: usize = 250;
/// After so long, one call releases no more keys: a slow store makes its client wait, and nothing else.
const RELEASE_FOR: Duration = Duration::from_secs(20);
/// How long one call looks for records before it returns those that it has found.
const PATIENCE: Duration = Duration::from_secs(1);

impl RecordApi {
    pub(super) async fn list(&self, query: &RecordFilter) -> Result<RecordPage, AdminError> {
        let (listed, next) = self.look_for(query).await?;
        let now = Timestamp::now();
        let entry = |listed: &ListedRecord| RecordEntry::new(&listed.name, listed.seen.as_ref(), now);
        Ok(RecordPage { records: listed.iter().map(entry).collect(), next, not_configured: None })
    }

    /// Reads pages of the store until enough records match, or the time is up.
    async fn look_for(&self, query: &RecordFilter) -> Result<(Vec<ListedRecord>, Option<String>), AdminError> {
        let begun = Instant::now();
        let mut listing = ListQuery {
            route: query.route.as_deref().map(Into::into),
            after: query.cursor.clone().map(Cursor),
            limit: query.limit,
        };
        let mut found = Vec::new();
        loop {
            let page = self.store.list(&listing).await.map_err(|error| AdminError::of_list(&error))?;
            found.extend(page.records.into_iter().filter(|listed| listed.name.is_of_request() && query.fits(listed)));
            listing.after = page.next;
            if listing.after.is_none() || found.len() >= query.limit || begun.elapsed() >= PATIENCE {
                return Ok((found, listing.after.map(|Cursor(cursor)| cursor)));
            }
        }
    }

    /// Those that have been unknown for longest, each as it is now.
    pub(super) async fn unknown(&self, count: usize) -> Result<UnknownList, AdminError> {
        let mut records = Vec::new();
        for name in self.guard.oldest_unknown(OLDEST) {
            match self.store.find(&name).await {
                // It may have been resolved elsewhere since the last walk through the store.
                Ok(None) => {}
                Ok(Some(held)) => {
                    let entry = RecordEntry::new(&name, Ok(&held.seen()), Timestamp::now());
                    if story::needs_a_hand(&entry) {
                        records.push(entry);
                    }
                }
                Err(StoreError::Unreadable { .. }) => {}
                Err(error) => return Err(AdminError::of_look(&error)),
            }
        }
        Ok(UnknownList { count: count.max(records.len()), records })
    }

    /// One that may not be there.
    pub(super) async fn looked_up(&self, name: &RecordName) -> Result<LookUpResponse, AdminError> {
        let records = match self.show(name, false).await {
            Ok(shown) => vec![shown],
            Err(refusal) if refusal.is_no_record() => Vec::new(),
            Err(refusal) => return Err(refusal),
        };
        Ok(LookUpResponse { looked_for: vec![name.to_string()], records })
    }

    pub(super) async fn show(&self, name: &RecordName, with_body: bool) -> Result<RecordDetail, AdminError> {
        let audit = match audit::read(&*self.store, name).await {
            // A newer version may write it otherwise: the record itself is shown all the same.
            Err(StoreError::Unreadable { .. }) => Vec::new(),
            audit => audit.map_err(|error| AdminError::of_look(&error).about(name))?,
        };
        match self.store.find(name).await {
            Ok(None) if audit.is_empty() => Err(no_record(name)),
            Ok(None) => Ok(RecordDetail::new(RecordEntry::absent(name), None, audit)),
            Ok(Some(mut held)) => {
                let entry = RecordEntry::new(name, Ok(&held.seen()), Timestamp::now());
                if with_body && let State::Completed { reply, .. } = &mut held.record.state {
                    match self.body(name, &reply.body).await {
                        Ok(None) => {}
                        Ok(Some(pieces)) => Arc::make_mut(reply).body = pieces.into(),
                        Err(StoreError::Unreadable { source, .. }) => {
                            return Ok(RecordDetail::new(
                                RecordEntry::new(name, Err(&source), Timestamp::now()),
                                None,
                                audit,
                            ));
                        }
                        Err(error) => return Err(AdminError::of_look(&error).about(name)),
                    }
                }
                Ok(RecordDetail::new(entry, answer::shown(&held.record.state, with_body), audit))
            }
            Err(StoreError::Unreadable { source, .. }) => {
                Ok(RecordDetail::new(RecordEntry::new(name, Err(&source), Timestamp::now()), None, audit))
            }
            Err(error) => Err(AdminError::of_look(&error).about(name)),
        }
    }

    /// A body that is not at hand as it is.
    async fn body(&self, name: &RecordName, body: &ReplyBody) -> Result<Option<Vec<Bytes>>, StoreError> {
        match StoredBody::of(&*self.store, name, body).await? {
            Some(body) => body.rest().await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn release(
        &self,
        name: &RecordName,
        wanted: ReleaseRequest,
        by: &ChangeAuthor,
    ) -> Result<RecordChange, AdminError> {
        let seen = self.seen(name, wanted.was.as_ref()).await?;
        let swap = transitions::release_by_hand(seen.clone(), wanted.force);
        let swap = swap.map_err(|why| AdminError::of_move(why).about(name))?;
        self.change(name, &seen, swap, ByHand { force: wanted.force, reason: wanted.reason, by }).await
    }

    pub(super) async fn complete(
        &self,
        name: &RecordName,
        wanted: CompleteRequest,
        by: &ChangeAuthor,
    ) -> Result<RecordChange, AdminError> {
        let by_hand = ByHand { force: wanted.force, reason: wanted.reason.clone(), by };
        let was = wanted.was.clone();
        let reply = answer::given(wanted).map_err(|what| AdminError::new(AdminErrorKind::BadRequest, what))?;
        let seen = self.seen(name, was.as_ref()).await?;
        let now = Timestamp::now().millis;
        let swap = transitions::complete_by_hand(seen.clone(), Arc::new(reply), now, by_hand.force);
        let swap = swap.map_err(|why| AdminError::of_move(why).about(name))?;
        self.change(name, &seen, swap, by_hand).await
    }

    /// What the audit says of a change, before it is made.
    fn audit_line(seen: &RecordSnapshot, swap: &CompareAndSwap, by_hand: &ByHand<'_>) -> Result<AuditLine, AdminError> {
        let status = swap.to.as_ref().and_then(|record| record.summary().status).map(|status| status.as_u16());
        let line = by_hand.by.audit_line(AuditAction::of(swap), by_hand.reason.clone(), seen)?;
        Ok(AuditLine { force: by_hand.force, status, ..line })
    }

    /// The record as it is now. `was`: what the operator saw of it.
    pub(super) async fn seen(
        &self,
        name: &RecordName,
        was: Option<&RecordVersionSeen>,
    ) -> Result<RecordSnapshot, AdminError> {
        match self.store.find(name).await {
            Ok(Some(held)) => {
                let seen = held.seen();
                let now = RecordVersionSeen::of(&RecordEntry::new(name, Ok(&seen), Timestamp::now()));
                match was {
                    Some(was) if now.as_ref() != Some(was) => {
                        Err(changed(was.state.as_str(), StateName::from(seen.summary.phase).as_str()).about(name))
                    }
                    _ => Ok(seen),
                }
            }
            Ok(None) => Err(no_record(name)),
            Err(error) => Err(AdminError::of_look(&error).about(name)),
        }
    }

    /// Makes a change, and logs it.
    async fn change(
        &self,
        name: &RecordName,
        seen: &RecordSnapshot,
        swap: CompareAndSwap,
        by_hand: ByHand<'_>,
    ) -> Result<RecordChange, AdminError> {
        let line = Self::audit_line(seen, &swap, &by_hand)?;
        let done = match self.guard.change(name, &swap, &line).await {
            Ok(done) => Ok(done),
            Err(NotChanged::NotAnnounced(error)) => return Err(AdminError::untold(&error).about(name)),
            Err(NotChanged::Store(error)) => Err(error),
        };
        let ByHand { force, reason, by } = by_hand;
        let (by, from) = (by.operator.name(), by.peer.map(tracing::field::display));
        let reason = Some(&*reason).filter(|reason| !reason.is_empty());
        let (event, what) = match &swap.to {
            None => ("record_released", "an operator freed a key"),
            Some(_) => ("record_completed", "an operator settled a record"),
        };
        let was = StateName::from(seen.summary.phase).as_str();
        let status = swap.to.as_ref().and_then(|record| record.summary().status).map(|status| status.as_u16());
        let why = why_not_done(&done);
        match done {
            Ok(SwapResult::Done) => {
                tracing::info!(target: "onlyonce", event, record = %name, was, status, force, by, from, reason, "{what}");
                let now = Timestamp::now();
                let to = swap.to.map(|record| StoredRecord::fresh(record.into_record()).seen());
                Ok(RecordChange {
                    record: name.to_string(),
                    was: RecordEntry::new(name, Ok(seen), now),
                    now: to.map(|seen| RecordEntry::new(name, Ok(&seen), now)),
                })
            }
            Ok(SwapResult::Changed(instead)) => {
                let now = instead.map_or("gone", |held| StateName::from(held.record.summary().phase).as_str());
                Err(changed(was, now).about(name))
            }
            Err(error) => {
                if let StoreError::Uncertain(_) | StoreError::Unacknowledged(_) = error {
                    tracing::warn!(target: "onlyonce", event, record = %name, was, status, force, by, from, reason, why,
                        error = &error as &dyn std::error::Error, "{what}, or it was not done: the store did not answer");
                }
                Err(AdminError::of_store(&error).about(name))
            }
        }
    }

    pub(super) async fn release_many(
        &self,
        wanted: BulkReleaseRequest,
        by: &ChangeAuthor,
    ) -> Result<BulkReleaseResponse, AdminError> {
        let since = Timestamp::now().at_or_ago(&wanted.since);
        let since = since.map_err(|error| AdminError::new(AdminErrorKind::BadRequest, format!("since: {error}.")))?;
        let query = RecordFilter {
            route: Some(wanted.route),
            state: Some(wanted.state),
            since: Some(since),
            cursor: wanted.cursor.filter(|cursor| !cursor.is_empty()),
            limit: AT_ONCE,
        };
        let (listed, next) = self.look_for(&query).await?;
        let mut done = BulkReleaseResponse {
            dry_run: wanted.dry_run,
            released: Vec::new(),
            left: Vec::new(),
            next,
            not_configured: None,
        };
        let begun = Instant::now();
        for ListedRecord { name, seen } in listed {
            if begun.elapsed() >= RELEASE_FOR && !done.released.is_empty() {
                // The next call starts at the same cursor: the released records are gone.
                done.next = Some(query.cursor.unwrap_or_default());
                break;
            }
            match self.release_one(&name, seen, wanted.dry_run, &wanted.reason, by).await {
                Ok(entry) => done.released.push(entry),
                Err(refusal) if !refusal.is_of_store() => done.left.push(refusal.left()),
                Err(refusal) if done.released.is_empty() => return Err(refusal),
                Err(_) => {
                    // As above.
                    done.next = Some(query.cursor.unwrap_or_default());
                    break;
                }
            }
        }
        Ok(done)
    }

    async fn release_one(
        &self,
        name: &RecordName,
        seen: Result<RecordSnapshot, crate::record::codec::Unreadable>,
        dry_run: bool,
        reason: &str,
        by: &ChangeAuthor,
    ) -> Result<RecordEntry, AdminError> {
        let seen = seen.map_err(|why| {
            AdminError::new(AdminErrorKind::Unreadable, format!("It cannot be read: {why}.")).about(name)
        })?;
        let swap = transitions::release_by_hand(seen.clone(), false);
        let swap = swap.map_err(|why| AdminError::of_move(why).about(name))?;
        if dry_run {
            return Ok(RecordEntry::new(name, Ok(&seen), Timestamp::now()));
        }
        self.change(name, &seen, swap, ByHand { force: false, reason: reason.to_owned(), by })
            .await
            .map(|changed| changed.was)
    }
}

impl RecordFilter {
    fn fits(&self, listed: &ListedRecord) -> bool {
        let summary = listed.seen.as_ref().map(|seen| &seen.summary);
        let state = summary.map_or(StateName::Unreadable, |summary| summary.phase.into());
        // An unreadable record has no time.
        let began = summary.map_or(u64::MAX, |summary| summary.settled_at.unwrap_or(summary.claim.claimed_at));
        self.state.is_none_or(|wanted| wanted == state) && self.since.is_none_or(|since| began >= since.millis)
    }
}

/// Another request, or another operator, has changed the record.
fn changed(was: &str, now: &str) -> AdminError {
    let now = if was == now { "is another one by now".to_owned() } else { format!("is {now} now") };
    let detail = format!("The record was {was}, and {now}. Nothing was done: look at it again.");
    AdminError::new(AdminErrorKind::Changed, detail)
}

fn no_record(name: &RecordName) -> AdminError {
    let detail = "There is no such record: the key is free, and the next request with it runs.";
    AdminError::new(AdminErrorKind::NoRecord, detail).about(name)
}
