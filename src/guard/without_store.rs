//! What a request gets if the store cannot answer, by the knowledge of this process. Pure.
//!
//! An attempt that runs in this process is known to it, however slow the store is. A repeat of it must not be treated
//! as a first request, above all where requests are passed on unguarded without the store.

use super::decide::{Verdict, decide};
use crate::record::transitions::StoredRecord;
use crate::record::{Claim, Fingerprint, Record, State};
use crate::rule::OnMismatch;

/// What this process knows of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalKnowledge {
    /// Nothing.
    Nothing,
    /// The record as it is, or will be once the store takes it.
    Record(Claim, State),
    /// The attempt may be repeated. This is still to be written.
    Free,
    /// There is or may be an attempt, and others may know more: the lease was lost or is so old that another may have
    /// taken over, or a claim has no answer yet.
    Doubtful,
}

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// What a repeat gets.
    Repeat(Verdict),
    /// 503, whatever is configured for requests without the store.
    Refuse,
    /// What is configured for requests without the store.
    AsConfigured,
}

/// Decides.
pub fn without_store(known: LocalKnowledge, fingerprint: &Fingerprint, on_mismatch: OnMismatch) -> Fallback {
    match known {
        LocalKnowledge::Record(claim, state) => {
            let held = StoredRecord::fresh(Record { claim, state });
            Fallback::Repeat(decide(held, fingerprint, on_mismatch))
        }
        LocalKnowledge::Doubtful => Fallback::Refuse,
        LocalKnowledge::Free | LocalKnowledge::Nothing => Fallback::AsConfigured,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::super::decide::Difference;
    use super::super::replay_permission::{OriginalAnswer, Sealed};
    use super::*;
    use crate::record::{Reply, Terms, Token, UnknownPolicy};

    const SAME: Fingerprint = Fingerprint { target: [1; 16], recipe: 1, body: [1; 16] };
    const OTHER: Fingerprint = Fingerprint { body: [2; 16], ..SAME };

    fn record(state: State) -> LocalKnowledge {
        let on_unknown = UnknownPolicy::Hold(Duration::from_secs(3600));
        let terms = Terms { lease: Duration::from_secs(30), retention: Duration::from_secs(3600), on_unknown };
        LocalKnowledge::Record(
            Claim {
                token: Token([0; 16]),
                attempt: 1,
                terms,
                fingerprint: SAME,
                claimed_at: 0,
                extensions: Default::default(),
            },
            state,
        )
    }

    fn completed() -> (State, Arc<Reply>) {
        let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
        let reply = Arc::new(Reply { status: StatusCode::CREATED, headers, body: vec![].into(), trailers });
        (State::Completed { settled_at: 0, reply: Arc::clone(&reply) }, reply)
    }

    #[test]
    fn what_runs_here_is_told_from_memory() {
        let (completed, reply) = completed();
        let status = StatusCode::OK;
        for (state, verdict) in [
            (State::InFlight, Verdict::InFlight),
            (State::Unknown { settled_at: 0 }, Verdict::OutcomeUnknown),
            (
                State::Unreplayable { settled_at: 0, status, location: None },
                Verdict::AlreadyCompleted(Sealed(OriginalAnswer { status, location: None })),
            ),
            (completed, Verdict::Replay(Sealed(reply), Default::default())),
        ] {
            let known = record(state.clone());
            assert_eq!(without_store(known.clone(), &SAME, OnMismatch::Reject), Fallback::Repeat(verdict));
            let reused = without_store(known, &OTHER, OnMismatch::Reject);
            assert_eq!(reused, Fallback::Repeat(Verdict::KeyReused(Difference::Body)), "{state:?}");
        }
    }

    #[test]
    fn what_others_may_know_better_is_refused() {
        assert_eq!(without_store(LocalKnowledge::Doubtful, &SAME, OnMismatch::Reject), Fallback::Refuse);
        assert_eq!(without_store(LocalKnowledge::Doubtful, &OTHER, OnMismatch::Reject), Fallback::Refuse);
    }

    #[test]
    fn what_is_not_known_or_may_run_again_goes_by_the_configuration() {
        for known in [LocalKnowledge::Nothing, LocalKnowledge::Free] {
            assert_eq!(without_store(known, &SAME, OnMismatch::Reject), Fallback::AsConfigured);
        }
    }
}
