//! What a repeat gets, decided by the record. Pure.

use std::sync::Arc;

use super::replay_permission::{OriginalAnswer, Sealed};
use crate::record::transitions::{OwnerState, StoredRecord, may_take_over};
use crate::record::{Comparison, Extensions, Fingerprint, Reply, State};
use crate::rule::OnMismatch;

/// What a repeat gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The recorded response, and what else its record keeps.
    Replay(Sealed<Arc<Reply>>, Extensions),
    /// The first request is still running.
    InFlight,
    /// The key was used for another request, which differs in this.
    KeyReused(Difference),
    /// The request was sent, and it is unknown whether it took effect.
    OutcomeUnknown,
    /// The request took effect, and the response is not stored.
    AlreadyCompleted(Sealed<OriginalAnswer>),
}

/// What two requests with one key differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Method, path or query. This is always an error.
    Target,
    /// The body only. The route decides what this means.
    Body,
}

/// Decides. A key that was used for another request comes before the state of the record.
pub fn decide(held: StoredRecord, fingerprint: &Fingerprint, on_mismatch: OnMismatch) -> Verdict {
    if let Some(difference) = difference(fingerprint.compare(&held.record.claim.fingerprint), on_mismatch) {
        return Verdict::KeyReused(difference);
    }
    let owner = held.owner();
    match held.record.state {
        State::Completed { reply, .. } => Verdict::Replay(Sealed(reply), held.record.claim.extensions),
        State::Unreplayable { status, location, .. } => {
            Verdict::AlreadyCompleted(Sealed(OriginalAnswer { status, location }))
        }
        State::Unknown { .. } => Verdict::OutcomeUnknown,
        State::InFlight => match owner {
            OwnerState::Lost => Verdict::OutcomeUnknown,
            // The record was abandoned but refused the claim: another repeat has just taken it over.
            OwnerState::Alive | OwnerState::Abandoned => Verdict::InFlight,
        },
    }
}

/// What a request would get if it came now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// It would run as the first.
    Runs,
    /// It would take over from a lost owner, and run.
    TakesOver,
    /// It would be a repeat.
    Repeat(Verdict),
}

/// Predicts by the record of the store.
pub fn forecast(held: Option<StoredRecord>, fingerprint: &Fingerprint, on_mismatch: OnMismatch) -> Forecast {
    match held {
        None => Forecast::Runs,
        Some(held) if may_take_over(&held, fingerprint) => Forecast::TakesOver,
        Some(held) => Forecast::Repeat(decide(held, fingerprint, on_mismatch)),
    }
}

/// `None`: the record applies to this request.
fn difference(comparison: Comparison, on_mismatch: OnMismatch) -> Option<Difference> {
    match (comparison, on_mismatch) {
        (Comparison::OtherTarget, _) => Some(Difference::Target),
        (Comparison::OtherBody, OnMismatch::Reject | OnMismatch::Conflict) => Some(Difference::Body),
        (Comparison::OtherBody, OnMismatch::Replay) | (Comparison::Same | Comparison::Incomparable, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::record::{Claim, Record, Terms, Token, UnknownPolicy};

    const SAME: Fingerprint = Fingerprint { target: [1; 16], recipe: 1, body: [1; 16] };

    fn held(state: State, on_unknown: UnknownPolicy, silent_for: u64) -> StoredRecord {
        let terms = Terms { lease: Duration::from_secs(30), retention: Duration::from_secs(3600), on_unknown };
        let claim = Claim {
            token: Token([0; 16]),
            attempt: 1,
            terms,
            fingerprint: SAME,
            claimed_at: 0,
            extensions: Default::default(),
        };
        StoredRecord { record: Record { claim, state }, silent_for: Duration::from_secs(silent_for) }
    }

    fn hold(state: State, silent_for: u64) -> StoredRecord {
        held(state, UnknownPolicy::Hold(Duration::from_secs(3600)), silent_for)
    }

    fn completed() -> State {
        let reply = Reply {
            status: StatusCode::CREATED,
            headers: HeaderMap::new(),
            body: vec![].into(),
            trailers: HeaderMap::new(),
        };
        State::Completed { settled_at: 0, reply: Arc::new(reply) }
    }

    fn with(held: StoredRecord) -> Verdict {
        decide(held, &SAME, OnMismatch::Reject)
    }

    #[test]
    fn each_state_has_its_verdict() {
        assert!(
            matches!(with(hold(completed(), 3000)), Verdict::Replay(reply, _) if reply.0.status == StatusCode::CREATED)
        );
        assert_eq!(with(hold(State::InFlight, 29)), Verdict::InFlight);
        assert_eq!(with(hold(State::InFlight, 30)), Verdict::OutcomeUnknown);
        assert_eq!(with(held(State::InFlight, UnknownPolicy::Retry, 30)), Verdict::InFlight);
        assert_eq!(with(hold(State::Unknown { settled_at: 0 }, 0)), Verdict::OutcomeUnknown);
        let status = StatusCode::OK;
        let unreplayable = State::Unreplayable { settled_at: 0, status, location: None };
        let original = OriginalAnswer { status, location: None };
        assert_eq!(with(hold(unreplayable, 0)), Verdict::AlreadyCompleted(Sealed(original)));
    }

    #[test]
    fn what_a_request_would_get_is_foretold() {
        let forecast = |held, fingerprint: &Fingerprint| forecast(held, fingerprint, OnMismatch::Reject);
        let other = Fingerprint { body: [2; 16], ..SAME };
        let abandoned = || held(State::InFlight, UnknownPolicy::Retry, 30);
        assert_eq!(forecast(None, &SAME), Forecast::Runs);
        assert_eq!(forecast(Some(abandoned()), &SAME), Forecast::TakesOver);
        for held in [abandoned(), hold(State::InFlight, 0), hold(completed(), 0)] {
            let reused = Forecast::Repeat(Verdict::KeyReused(Difference::Body));
            assert_eq!(forecast(Some(held), &other), reused);
        }
        assert_eq!(forecast(Some(hold(State::InFlight, 0)), &SAME), Forecast::Repeat(Verdict::InFlight));
    }

    #[test]
    fn another_use_of_the_key_is_told_before_the_state() {
        for state in [completed(), State::InFlight, State::Unknown { settled_at: 0 }] {
            for (fingerprint, difference) in [
                (Fingerprint { target: [2; 16], ..SAME }, Difference::Target),
                (Fingerprint { body: [2; 16], ..SAME }, Difference::Body),
                (Fingerprint { target: [2; 16], body: [2; 16], ..SAME }, Difference::Target),
            ] {
                for on_mismatch in [OnMismatch::Reject, OnMismatch::Conflict] {
                    let verdict = decide(hold(state.clone(), 60), &fingerprint, on_mismatch);
                    assert_eq!(verdict, Verdict::KeyReused(difference));
                }
            }
        }
    }

    #[test]
    fn the_record_may_win_over_another_body_but_never_over_another_target() {
        let body = Fingerprint { body: [2; 16], ..SAME };
        assert!(matches!(decide(hold(completed(), 0), &body, OnMismatch::Replay), Verdict::Replay(..)));
        let target = Fingerprint { target: [2; 16], ..SAME };
        let verdict = decide(hold(completed(), 0), &target, OnMismatch::Replay);
        assert_eq!(verdict, Verdict::KeyReused(Difference::Target));
    }

    #[test]
    fn bodies_digested_by_different_recipes_count_as_the_same() {
        let other_recipe = Fingerprint { recipe: 2, body: [2; 16], ..SAME };
        assert!(matches!(decide(hold(completed(), 0), &other_recipe, OnMismatch::Reject), Verdict::Replay(..)));
    }
}
