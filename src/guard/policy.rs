//! What becomes of the record after an attempt. Pure.

use super::fate::{Fate, Rest};
use crate::config::{Disposition, PolicyTable};
use crate::record::Unknown;

/// What the owner does to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Free the key: it certainly did not run, or its answer says that it may be tried again.
    Release,
    /// Keep the answer.
    Complete,
    /// Keep that it was done; the answer is not there to be replayed.
    Unreplayable,
    /// Keep that nobody knows.
    Unknown,
    /// Write nothing: a repeat takes over once the lease has run out.
    Leave,
}

/// What becomes of the record after an attempt that ended like this.
pub fn outcome<R>(fate: &Fate<R>, table: &PolicyTable, on_unknown: Unknown) -> Outcome {
    let unknown = match on_unknown {
        Unknown::Hold(_) => Outcome::Unknown,
        Unknown::Retry => Outcome::Leave,
    };
    let answer = match fate {
        Fate::NotSent => return Outcome::Release,
        Fate::Unknown(_) => return unknown,
        Fate::Answered(answer) => answer,
    };
    let status = answer.reply.status;
    let told = || answer.told.unwrap_or_else(|| table.disposition(status));
    match &answer.rest {
        // A success was announced, so it was done; only the rest of its description is missing.
        Rest::Broken(_) if status.is_success() || status.is_redirection() => Outcome::Unreplayable,
        Rest::Broken(_) => unknown,
        Rest::Nothing | Rest::Oversized(_) => match (told(), &answer.rest) {
            (Disposition::Release, _) => Outcome::Release,
            (Disposition::Hold, _) => unknown,
            (Disposition::Store, Rest::Nothing) => Outcome::Complete,
            (Disposition::Store, Rest::Oversized(_) | Rest::Broken(_)) => Outcome::Unreplayable,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::super::fate::{Answer, Silence};
    use super::*;
    use crate::config::{Policy, StatusSet};
    use crate::record::Reply;

    const HOLD: Unknown = Unknown::Hold(Duration::from_secs(60));

    fn answered(status: u16, rest: Rest<()>) -> Fate<()> {
        told(status, rest, None)
    }

    fn told(status: u16, rest: Rest<()>, told: Option<Disposition>) -> Fate<()> {
        let status = StatusCode::from_u16(status).expect("a status");
        let reply = Reply { status, headers: HeaderMap::new(), body: vec![], trailers: HeaderMap::new() };
        Fate::Answered(Answer { reply: Arc::new(reply), told, rest })
    }

    fn standard(fate: &Fate<()>, on_unknown: Unknown) -> Outcome {
        outcome(fate, &PolicyTable::new(Policy::Standard, &[]), on_unknown)
    }

    #[test]
    fn each_fate_has_its_outcome() {
        let timeout = || Silence::Timeout;
        let rows = [
            (Fate::NotSent, Outcome::Release, Outcome::Release),
            (Fate::Unknown(Silence::Timeout), Outcome::Unknown, Outcome::Leave),
            (Fate::Unknown(Silence::Broken), Outcome::Unknown, Outcome::Leave),
            (answered(201, Rest::Nothing), Outcome::Complete, Outcome::Complete),
            (answered(303, Rest::Nothing), Outcome::Complete, Outcome::Complete),
            (answered(307, Rest::Nothing), Outcome::Release, Outcome::Release),
            (answered(422, Rest::Nothing), Outcome::Release, Outcome::Release),
            (answered(500, Rest::Nothing), Outcome::Release, Outcome::Release),
            (answered(502, Rest::Nothing), Outcome::Unknown, Outcome::Leave),
            (answered(201, Rest::Oversized(())), Outcome::Unreplayable, Outcome::Unreplayable),
            (answered(422, Rest::Oversized(())), Outcome::Release, Outcome::Release),
            (answered(504, Rest::Oversized(())), Outcome::Unknown, Outcome::Leave),
            (answered(201, Rest::Broken(timeout())), Outcome::Unreplayable, Outcome::Unreplayable),
            (answered(303, Rest::Broken(timeout())), Outcome::Unreplayable, Outcome::Unreplayable),
            (answered(422, Rest::Broken(timeout())), Outcome::Unknown, Outcome::Leave),
            (answered(500, Rest::Broken(timeout())), Outcome::Unknown, Outcome::Leave),
        ];
        for (fate, hold, retry) in rows {
            assert_eq!(standard(&fate, HOLD), hold, "{fate:?}");
            assert_eq!(standard(&fate, Unknown::Retry), retry, "{fate:?}");
        }
    }

    #[test]
    fn the_backend_s_word_beats_the_table_and_the_list_beats_the_policy() {
        let store = told(422, Rest::Nothing, Some(Disposition::Store));
        assert_eq!(standard(&store, HOLD), Outcome::Complete);
        let hold = told(201, Rest::Nothing, Some(Disposition::Hold));
        assert_eq!(standard(&hold, HOLD), Outcome::Unknown);
        let table = PolicyTable::new(Policy::Standard, &[(StatusSet::Class(4), Disposition::Store)]);
        assert_eq!(outcome(&answered(404, Rest::Nothing), &table, HOLD), Outcome::Complete);
    }
}
