//! Every step that a record can take. The stores carry these out atomically, and decide nothing themselves.
//!
//! ```text
//!            claim                 settle
//!   absent ─────────▶ in flight ───────────▶ completed, unreplayable   (final)
//!     ▲                │  │  ▲ └────────────▶ unknown ─▶ (late answer) completed, unreplayable
//!     │     release    │  │  │ takeover: lost owner; another token, attempt + 1
//!     └────────────────┘  └──┘
//! ```
//!
//! An operator may free a key in every state ([`release_by_hand`]), and may record the response of an operation that
//! has none ([`complete_by_hand`]). Both are refused while the owner is alive. What a question to the backend may do is
//! in [`probe`](super::probe).

#[cfg(test)]
mod any_order;

use std::sync::Arc;
use std::time::Duration;

use super::{
    Claim, Fingerprint, Phase, Record, Reply, SettledRecord, Settlement, State, Summary, Terms, Token, UnknownPolicy,
};

/// A record as a store holds it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record.
    pub record: Record,
    /// How long the owner has been silent: the retention minus the remaining time to live, on the store's clock. Of a
    /// record that is not in flight it only tells how long that is unchanged, see [`RecordSnapshot::unchanged_for`].
    pub silent_for: Duration,
}

/// Whether the owner of a record in flight is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    /// It has renewed within its lease.
    Alive,
    /// It has not, and the key is not free for another attempt yet.
    Lost,
    /// It has not, and a repeat may take over.
    Abandoned,
}

impl StoredRecord {
    /// A record that was written just now.
    pub fn fresh(record: Record) -> Self {
        Self { record, silent_for: Duration::ZERO }
    }

    /// Whether the owner is alive, if the record is in flight.
    pub fn owner(&self) -> OwnerState {
        OwnerState::after(self.silent_for, &self.record.claim.terms)
    }

    /// The same without the response.
    pub fn seen(&self) -> RecordSnapshot {
        RecordSnapshot { summary: self.record.summary(), silent_for: self.silent_for }
    }
}

impl OwnerState {
    fn after(silent_for: Duration, terms: &Terms) -> Self {
        if silent_for < terms.lease {
            return Self::Alive;
        }
        match terms.on_unknown {
            UnknownPolicy::Hold(hold_for) if silent_for < hold_for => Self::Lost,
            UnknownPolicy::Hold(_) | UnknownPolicy::Retry => Self::Abandoned,
        }
    }
}

/// A record as it was read, without its response. It may have changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSnapshot {
    /// The record.
    pub summary: Summary,
    /// As in [`StoredRecord`].
    pub silent_for: Duration,
}

impl RecordSnapshot {
    /// Whether the owner is alive, if the record is in flight.
    pub fn owner(&self) -> OwnerState {
        OwnerState::after(self.silent_for, &self.summary.claim.terms)
    }

    /// How long ago the record was written or renewed, at least.
    pub fn unchanged_for(&self) -> Duration {
        let terms = &self.summary.claim.terms;
        // A record that lives shorter than the retention began with less of it left.
        let less = terms.retention.saturating_sub(lifetime(self.summary.phase, terms));
        self.silent_for.saturating_sub(less)
    }

    /// The remaining time to live.
    pub fn left(&self) -> Duration {
        self.summary.claim.terms.retention.saturating_sub(self.silent_for)
    }
}

/// What a claim does to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimTransition {
    /// Write this claim, with the full retention. The record was absent, or its owner was lost.
    Write(Claim),
    /// The record is this claim: an earlier try of it arrived.
    AlreadyMine(Claim),
    /// Leave the record unchanged.
    Refuse(Box<StoredRecord>),
}

/// A request claims the operation.
pub fn claim(held: Option<StoredRecord>, wanted: &Claim) -> ClaimTransition {
    let Some(held) = held else {
        return ClaimTransition::Write(wanted.clone());
    };
    if held.record.state == State::InFlight && held.record.claim.token == wanted.token {
        return ClaimTransition::AlreadyMine(held.record.claim);
    }
    match takeover(&held, wanted) {
        Some(claim) => ClaimTransition::Write(claim),
        None => ClaimTransition::Refuse(Box::new(held)),
    }
}

/// Whether a request with this fingerprint takes over from a lost owner.
pub fn may_take_over(held: &StoredRecord, fingerprint: &Fingerprint) -> bool {
    let same = fingerprint.compare(&held.record.claim.fingerprint).may_be_same();
    same && held.record.state == State::InFlight && held.owner() == OwnerState::Abandoned
}

/// The claim that replaces a lost owner's, if a takeover is allowed. A key that was used for another request is
/// refused, whatever became of the owner.
pub fn takeover(held: &StoredRecord, wanted: &Claim) -> Option<Claim> {
    may_take_over(held, &wanted.fingerprint)
        .then(|| Claim { attempt: held.record.claim.attempt.saturating_add(1), ..wanted.clone() })
}

/// What a renewal does to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewTransition {
    /// Set the time to live to the retention again.
    Extend,
    /// The record is gone: write the claim again.
    ClaimAgain,
    /// It is settled, or another owner's: leave it unchanged.
    Refuse,
}

/// An owner renews its claim.
pub fn renew(held: Option<&Record>, token: Token) -> RenewTransition {
    match held {
        None => RenewTransition::ClaimAgain,
        Some(record) if record.claim.token == token && record.state == State::InFlight => RenewTransition::Extend,
        Some(_) => RenewTransition::Refuse,
    }
}

/// Whether an owner's settling is written. If not, the record that is there stays.
///
/// If there is no record, it is written: the request took effect, and later repeats must learn of it.
pub fn settles(held: Option<&Record>, token: Token) -> bool {
    held.is_none_or(|record| {
        record.claim.token == token
            && match record.state {
                State::InFlight | State::Unknown { .. } => true,
                State::Completed { .. } | State::Unreplayable { .. } => false,
            }
    })
}

/// Whether an owner's release deletes the record.
pub fn releases(held: &Record, token: Token) -> bool {
    held.claim.token == token && held.state == State::InFlight
}

/// A change that is carried out only if the record is still as its author saw it: of an operator, of a probe, or of an
/// audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompareAndSwap {
    /// The expected record, see [`still_matches`](Self::still_matches).
    pub seen: RecordSnapshot,
    /// The new record. `None` frees the key.
    pub to: Option<SettledRecord>,
}

impl CompareAndSwap {
    /// Whether the record is still as it was seen: the same state of the same owner, which has not renewed since, if
    /// that matters.
    pub fn still_matches(&self, held: &StoredRecord) -> bool {
        let (then, now) = (&self.seen.summary, held.record.summary());
        then.phase == now.phase
            && then.claim.token == now.claim.token
            && then.claim.attempt == now.claim.attempt
            && held.silent_for >= self.least_silence()
    }

    /// When it may not be asked for any more, where the record was read at this time. From then on an owner that has
    /// renewed and was lost again may have been silent for as long as it is [expected](Self::least_silence). `None`: it is
    /// void by itself once the record has changed.
    pub fn void_at(&self, read_at: Duration) -> Option<Duration> {
        match self.seen.summary.phase {
            Phase::InFlight => Some(read_at.saturating_add(self.seen.silent_for)),
            Phase::Completed | Phase::Unreplayable | Phase::Unknown => None,
        }
    }

    /// How long the owner must have been silent. A renewal changes nothing else about a record.
    pub fn least_silence(&self) -> Duration {
        match self.seen.summary.phase {
            Phase::InFlight => self.seen.silent_for,
            Phase::Completed | Phase::Unreplayable | Phase::Unknown => Duration::ZERO,
        }
    }
}

/// Why an operator's change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManualChangeRefused {
    /// The owner is alive, and will settle the record itself.
    OwnerAlive,
    /// A response is recorded, and clients may have received it.
    Completed,
}

/// An operator frees the key: the next request with it runs.
///
/// `force` is needed if the owner is alive. Its attempt goes on, and another one may run at the same time.
pub fn release_by_hand(seen: RecordSnapshot, force: bool) -> Result<CompareAndSwap, ManualChangeRefused> {
    Ok(CompareAndSwap { seen: unhindered(seen, force)?, to: None })
}

/// An operator records the response, which repeats will get. The claim stays: repeats are compared with its
/// fingerprint, and a late outcome of the owner finds the record settled.
pub fn complete_by_hand(
    seen: RecordSnapshot,
    reply: Arc<Reply>,
    settled_at: u64,
    force: bool,
) -> Result<CompareAndSwap, ManualChangeRefused> {
    if seen.summary.phase == Phase::Completed {
        return Err(ManualChangeRefused::Completed);
    }
    let claim = seen.summary.claim.clone();
    let to = SettledRecord::new(claim, &Settlement::Completed(reply), settled_at);
    Ok(CompareAndSwap { seen: unhindered(seen, force)?, to: Some(to) })
}

/// Checks that no owner is alive. With `force`, the owner does not matter and may even renew.
fn unhindered(seen: RecordSnapshot, force: bool) -> Result<RecordSnapshot, ManualChangeRefused> {
    match (seen.summary.phase, seen.owner()) {
        _ if force => Ok(RecordSnapshot { silent_for: Duration::ZERO, ..seen }),
        (Phase::InFlight, OwnerState::Alive) => Err(ManualChangeRefused::OwnerAlive),
        (Phase::InFlight, OwnerState::Lost | OwnerState::Abandoned)
        | (Phase::Completed | Phase::Unreplayable | Phase::Unknown, _) => Ok(seen),
    }
}

/// How long a record lives after it is written.
pub fn time_to_live(record: &Record) -> Duration {
    lifetime(record.state.phase(), &record.claim.terms)
}

/// How long a record lives that was written under these terms, and not renewed since.
pub(super) fn lifetime(phase: Phase, terms: &Terms) -> Duration {
    match (phase, terms.on_unknown) {
        (Phase::Unknown, UnknownPolicy::Hold(hold_for)) => hold_for,
        (Phase::Unknown, UnknownPolicy::Retry) | (Phase::InFlight | Phase::Completed | Phase::Unreplayable, _) => {
            terms.retention
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::record::Fingerprint;

    const LEASE: Duration = Duration::from_secs(30);
    const HOUR: Duration = Duration::from_secs(3600);

    fn reply() -> Arc<Reply> {
        let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
        Arc::new(Reply { status: StatusCode::CREATED, headers, body: Vec::new().into(), trailers })
    }

    fn held(state: State, on_unknown: UnknownPolicy, silent_for: Duration) -> StoredRecord {
        let terms = Terms { lease: LEASE, retention: HOUR, on_unknown };
        let fingerprint = Fingerprint { target: [1; 16], recipe: 1, body: [2; 16] };
        let claim = Claim {
            token: Token([3; 16]),
            attempt: 2,
            terms,
            fingerprint,
            claimed_at: 4,
            extensions: Default::default(),
        };
        StoredRecord { record: Record { claim, state }, silent_for }
    }

    fn hold(state: State, silent_for: Duration) -> StoredRecord {
        held(state, UnknownPolicy::Hold(HOUR), silent_for)
    }

    /// Every state and owner, and how a release and a completion without force are refused.
    fn every_case() -> [(StoredRecord, Option<ManualChangeRefused>, Option<ManualChangeRefused>); 6] {
        let (unknown, completed) =
            (State::Unknown { settled_at: 5 }, State::Completed { settled_at: 5, reply: reply() });
        let unreplayable = State::Unreplayable { settled_at: 5, status: StatusCode::OK, location: None };
        let alive = Some(ManualChangeRefused::OwnerAlive);
        [
            (hold(State::InFlight, LEASE / 2), alive, alive),
            (hold(State::InFlight, LEASE), None, None),
            (held(State::InFlight, UnknownPolicy::Retry, LEASE), None, None),
            (hold(unknown, Duration::ZERO), None, None),
            (hold(unreplayable, Duration::ZERO), None, None),
            (hold(completed, Duration::ZERO), None, Some(ManualChangeRefused::Completed)),
        ]
    }

    #[test]
    fn an_operator_may_free_whatever_no_living_owner_is_at() {
        for (held, refused, _) in every_case() {
            let released = release_by_hand(held.seen(), false);
            assert_eq!(released.as_ref().err().copied(), refused, "{held:?}");
            if let Ok(swap) = released {
                assert_eq!((swap.seen, swap.to), (held.seen(), None));
            }
            let forced = release_by_hand(held.seen(), true).expect("forced");
            assert!(forced.still_matches(&held) && forced.to.is_none(), "{held:?}");
        }
    }

    #[test]
    fn an_operator_may_settle_whatever_has_no_answer() {
        for (held, _, refused) in every_case() {
            let settled = complete_by_hand(held.seen(), reply(), 9, false);
            assert_eq!(settled.as_ref().err().copied(), refused, "{held:?}");
            let forced = complete_by_hand(held.seen(), reply(), 9, true);
            assert_eq!(forced.as_ref().err().copied(), refused.filter(|why| *why == ManualChangeRefused::Completed));
            for swap in [settled, forced].into_iter().flatten() {
                let to = swap.to.expect("a record");
                assert_eq!(to.claim, held.record.claim);
                assert_eq!(to.state, State::Completed { settled_at: 9, reply: reply() });
            }
        }
    }

    #[test]
    fn an_exchange_is_void_once_the_record_has_changed() {
        let lost = hold(State::InFlight, LEASE);
        let swap = release_by_hand(lost.seen(), false).expect("lost");
        assert!(swap.still_matches(&lost));
        assert!(swap.still_matches(&hold(State::InFlight, LEASE * 2)));
        let other = |change: fn(&mut Claim)| {
            let mut other = lost.clone();
            change(&mut other.record.claim);
            other
        };
        for changed in [
            hold(State::InFlight, Duration::ZERO),
            hold(State::Unknown { settled_at: 5 }, LEASE),
            other(|claim| claim.token = Token([9; 16])),
            other(|claim| claim.attempt += 1),
        ] {
            assert!(!swap.still_matches(&changed), "{changed:?}");
        }
    }

    #[test]
    fn a_renewal_matters_to_what_rests_on_silence_alone() {
        let renewed = hold(State::InFlight, Duration::ZERO);
        let alive = hold(State::InFlight, LEASE / 2);
        assert!(release_by_hand(alive.seen(), true).expect("forced").still_matches(&renewed));
        // The time to live is set again when a record is settled, and no owner renews it after that.
        let unknown = |silent_for| hold(State::Unknown { settled_at: 5 }, silent_for);
        let swap = release_by_hand(unknown(LEASE).seen(), false).expect("unknown");
        assert!(swap.still_matches(&unknown(Duration::ZERO)));
    }
}
