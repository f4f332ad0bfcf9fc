//! What becomes of the record after an attempt. Pure.

use std::sync::Arc;

use super::send_outcome::{BodyRemainder, ReceivedResponse, SendOutcome};
use crate::record::{Settlement, UnknownPolicy};
use crate::rule::{Disposition, PolicyTable};
use crate::store::SHORT;

/// What the owner does to its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Free the key: the request certainly did not run, or its response says that it may be repeated.
    Release,
    /// Record the outcome.
    Settle(Settlement),
    /// Write nothing: a repeat takes over after the lease.
    Leave,
}

/// Decides by the outcome of the request, the table of the route, and its `on_unknown`.
pub fn outcome<R>(sent: &SendOutcome<R>, table: &PolicyTable, on_unknown: UnknownPolicy) -> Outcome {
    let unknown = match on_unknown {
        UnknownPolicy::Hold(_) => Outcome::Settle(Settlement::Unknown),
        UnknownPolicy::Retry => Outcome::Leave,
    };
    let ReceivedResponse { reply, origin_directive, rest } = match sent {
        SendOutcome::NotSent => return Outcome::Release,
        SendOutcome::Unknown(_) => return unknown,
        SendOutcome::Answered(answer) => answer,
    };
    let status = reply.status;
    let whole = match rest {
        // The head was a success, so the request took effect. Only a part of the response is missing.
        BodyRemainder::Broken(_) if status.is_success() || status.is_redirection() => {
            return Outcome::Settle(Settlement::unreplayable(reply));
        }
        BodyRemainder::Broken(_) => return unknown,
        BodyRemainder::Nothing => true,
        BodyRemainder::Oversized(_) => false,
    };
    match origin_directive.unwrap_or_else(|| table.disposition(status)) {
        Disposition::Release => Outcome::Release,
        Disposition::Hold => unknown,
        Disposition::Store if whole => Outcome::Settle(Settlement::Completed(Arc::clone(reply))),
        Disposition::Store => Outcome::Settle(Settlement::unreplayable(reply)),
    }
}

/// Reduces an outcome when the store is short of room: only small responses are stored then, so that keys can still be
/// claimed. `used` is the used share of the store.
pub fn within_room(outcome: Outcome, used: Option<f64>) -> Outcome {
    let is_short = used.is_some_and(|used| used > SHORT);
    match outcome {
        Outcome::Settle(Settlement::Completed(reply)) if is_short && reply.body_len() > SMALL => {
            Outcome::Settle(Settlement::unreplayable(&reply))
        }
        outcome => outcome,
    }
}

/// The length of a response that is always stored.
const SMALL: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::super::send_outcome::LostReason;
    use super::*;
    use crate::record::{Reply, State};
    use crate::rule::{Policy, StatusSet};

    const HOLD: UnknownPolicy = UnknownPolicy::Hold(Duration::from_secs(60));

    fn answered(status: u16, rest: BodyRemainder<()>) -> SendOutcome<()> {
        directed(status, rest, None)
    }

    fn directed(status: u16, rest: BodyRemainder<()>, origin_directive: Option<Disposition>) -> SendOutcome<()> {
        let status = StatusCode::from_u16(status).expect("a status");
        SendOutcome::Answered(ReceivedResponse { reply: reply(status), origin_directive, rest })
    }

    fn reply(status: StatusCode) -> Arc<Reply> {
        let body = vec!["the body".into()].into();
        Arc::new(Reply { status, headers: HeaderMap::new(), body, trailers: HeaderMap::new() })
    }

    fn completed(status: u16) -> Outcome {
        Outcome::Settle(Settlement::Completed(reply(StatusCode::from_u16(status).expect("a status"))))
    }

    fn unreplayable(status: u16) -> Outcome {
        let status = StatusCode::from_u16(status).expect("a status");
        Outcome::Settle(Settlement::Unreplayable { status, location: None })
    }

    const UNKNOWN: Outcome = Outcome::Settle(Settlement::Unknown);

    fn standard(sent: &SendOutcome<()>, on_unknown: UnknownPolicy) -> Outcome {
        outcome(sent, &PolicyTable::new(Policy::Standard, &[]), on_unknown)
    }

    #[test]
    fn each_fate_has_its_outcome() {
        let timeout = || LostReason::Timeout;
        let rows = [
            (SendOutcome::NotSent, Outcome::Release, Outcome::Release),
            (SendOutcome::Unknown(LostReason::Timeout), UNKNOWN, Outcome::Leave),
            (SendOutcome::Unknown(LostReason::Broken), UNKNOWN, Outcome::Leave),
            (answered(201, BodyRemainder::Nothing), completed(201), completed(201)),
            (answered(303, BodyRemainder::Nothing), completed(303), completed(303)),
            (answered(307, BodyRemainder::Nothing), Outcome::Release, Outcome::Release),
            (answered(422, BodyRemainder::Nothing), Outcome::Release, Outcome::Release),
            (answered(500, BodyRemainder::Nothing), Outcome::Release, Outcome::Release),
            (answered(502, BodyRemainder::Nothing), UNKNOWN, Outcome::Leave),
            (answered(201, BodyRemainder::Oversized(())), unreplayable(201), unreplayable(201)),
            (answered(422, BodyRemainder::Oversized(())), Outcome::Release, Outcome::Release),
            (answered(504, BodyRemainder::Oversized(())), UNKNOWN, Outcome::Leave),
            (answered(201, BodyRemainder::Broken(timeout())), unreplayable(201), unreplayable(201)),
            (answered(303, BodyRemainder::Broken(timeout())), unreplayable(303), unreplayable(303)),
            (answered(422, BodyRemainder::Broken(timeout())), UNKNOWN, Outcome::Leave),
            (answered(500, BodyRemainder::Broken(timeout())), UNKNOWN, Outcome::Leave),
        ];
        for (sent, hold, retry) in rows {
            assert_eq!(standard(&sent, HOLD), hold, "{sent:?}");
            assert_eq!(standard(&sent, UnknownPolicy::Retry), retry, "{sent:?}");
        }
    }

    #[test]
    fn a_store_that_is_short_of_room_keeps_small_answers_only() {
        let with = |length: usize| {
            let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
            let reply = Reply { status: StatusCode::OK, headers, body: vec![vec![0; length].into()].into(), trailers };
            Outcome::Settle(Settlement::Completed(Arc::new(reply)))
        };
        let (small, large) = (with(16 * 1024), with(16 * 1024 + 1));
        for (used, kept) in [(None, large.clone()), (Some(0.8), large.clone()), (Some(0.81), unreplayable(200))] {
            assert_eq!(within_room(large.clone(), used), kept, "{used:?}");
            assert_eq!(within_room(small.clone(), used), small, "{used:?}");
            assert_eq!(within_room(Outcome::Release, used), Outcome::Release, "{used:?}");
        }
    }

    #[test]
    fn the_backend_s_word_beats_the_table_and_the_list_beats_the_policy() {
        let store = directed(422, BodyRemainder::Nothing, Some(Disposition::Store));
        assert_eq!(standard(&store, HOLD), completed(422));
        let hold = directed(201, BodyRemainder::Nothing, Some(Disposition::Hold));
        assert_eq!(standard(&hold, HOLD), UNKNOWN);
        let table = PolicyTable::new(Policy::Standard, &[(StatusSet::Class(4), Disposition::Store)]);
        assert_eq!(outcome(&answered(404, BodyRemainder::Nothing), &table, HOLD), completed(404));
    }

    #[test]
    fn every_end_has_its_state_and_none_of_them_is_in_flight() {
        let location = Some(HeaderValue::from_static("/orders/1"));
        let status = StatusCode::CREATED;
        for (settlement, state) in [
            (Settlement::Completed(reply(status)), State::Completed { settled_at: 7, reply: reply(status) }),
            (
                Settlement::Unreplayable { status, location: location.clone() },
                State::Unreplayable { settled_at: 7, status, location },
            ),
            (Settlement::Unknown, State::Unknown { settled_at: 7 }),
        ] {
            assert_eq!(settlement.at(7), state);
        }
    }

    #[test]
    fn an_outcome_in_a_log_line_holds_no_body() {
        assert_eq!(format!("{:?}", completed(201)), "Settle(Completed(201))");
        assert_eq!(format!("{:?}", unreplayable(303)), "Settle(Unreplayable(303))");
        assert_eq!(format!("{UNKNOWN:?}"), "Settle(Unknown)");
    }
}
