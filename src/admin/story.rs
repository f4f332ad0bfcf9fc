//! What becomes of a repeat, and what an operator does about a record, in words.

use super::shape::{OwnerName, RecordEntry, StateName};

/// What a repeat with the same content does or gets.
pub fn retry(entry: &RecordEntry) -> &'static str {
    match (entry.state, entry.facts.as_ref().and_then(|facts| facts.owner)) {
        (StateName::Completed, _) => "gets the answer below",
        (StateName::Unreplayable, _) => "gets 409 already-completed",
        (StateName::Unknown, _) => "gets 409 outcome-unknown",
        (StateName::InFlight, Some(OwnerName::Lost)) if is_abandoned(entry) => "takes over, and runs",
        (StateName::InFlight, Some(OwnerName::Lost)) => "gets 409 outcome-unknown",
        (StateName::InFlight, Some(OwnerName::Alive) | None) => "waits, or gets 409 in-flight",
        (StateName::Unreadable, _) => "gets 503 record-unreadable",
        (StateName::Absent, _) => "runs",
    }
}

/// What somebody does who has this record in hand.
pub fn advice(entry: &RecordEntry) -> &'static str {
    let owner = entry.facts.as_ref().and_then(|facts| facts.owner);
    match (entry.state, owner) {
        (StateName::Unknown, _) => {
            "It was sent, and its answer never came: it may have had its effect or not. Look into the backend. If it had \
             its effect, complete the record with the answer that the client should have got; if it had none, release it, \
             and the next repeat runs."
        }
        (StateName::InFlight, Some(OwnerName::Lost)) if is_abandoned(entry) => {
            "The process that ran it is gone: it may have been sent or not, and the next repeat runs. Look into the \
             backend. If it had its effect, complete the record before a repeat comes."
        }
        (StateName::InFlight, Some(OwnerName::Lost)) => {
            "The process that ran it is gone: it may have been sent or not. Look into the backend. If it had its effect, \
             complete the record; if it had none, release it, and the next repeat runs."
        }
        (StateName::InFlight, Some(OwnerName::Alive) | None) => {
            "It is running. Nothing needs to be done: what comes of it is recorded by itself."
        }
        (StateName::Completed, _) => {
            "It is done, and repeats get its answer. Nothing needs to be done. Released, the next repeat would run it again."
        }
        (StateName::Unreplayable, _) => {
            "It is done, and its answer was not kept: it was too large, or it broke off. Repeats are told so. Complete the \
             record if they should get an answer; release it only if the request may run again."
        }
        (StateName::Absent, _) => {
            "There is no record: the key is free, and the next request with it runs. Below is what operators did to the \
             record that was there."
        }
        (StateName::Unreadable, _) => {
            "Its bytes are damaged, or a newer version wrote them. Its request is refused until the record is gone. Find \
             out what else writes to this store; a newer sidecar can read what it wrote."
        }
    }
}

/// Whether a repeat takes over: at once, or once the time for which it is held is over.
fn is_abandoned(entry: &RecordEntry) -> bool {
    entry.facts.as_ref().is_some_and(|facts| facts.is_abandoned)
}

/// The same where the record was completed by what a probe had found.
pub(super) fn advice_after_probe(entry: &RecordEntry) -> &'static str {
    match entry.state {
        StateName::Unreplayable => {
            "It is done: the backend was asked, and has what the request made. The answer to the request itself never came. \
             Repeats are told that it is done. Complete the record if they should get an answer; release it only if the \
             request may run again."
        }
        StateName::Completed => {
            "It is done: the backend was asked, and has what the request made. Repeats get what the backend told of it. \
             Nothing needs to be done. Released, the next repeat would run it again."
        }
        StateName::InFlight | StateName::Unknown | StateName::Unreadable | StateName::Absent => advice(entry),
    }
}

/// Whether nobody knows what came of it.
pub(super) fn needs_a_hand(entry: &RecordEntry) -> bool {
    let owner = entry.facts.as_ref().and_then(|facts| facts.owner);
    match entry.state {
        StateName::Unknown => true,
        // Where a repeat may take over, none is needed.
        StateName::InFlight => owner == Some(OwnerName::Lost) && !is_abandoned(entry),
        StateName::Completed | StateName::Unreplayable | StateName::Unreadable | StateName::Absent => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::Timestamp;
    use crate::record::transitions::RecordSnapshot;
    use crate::record::{Claim, Fingerprint, Record, RecordName, State, Terms, Token, UnknownPolicy};

    const LEASE: Duration = Duration::from_secs(30);
    const HOLD_FOR: Duration = Duration::from_secs(3600);

    fn in_flight(on_unknown: UnknownPolicy, silent_for: Duration) -> RecordEntry {
        let terms = Terms { lease: LEASE, retention: HOLD_FOR * 24, on_unknown };
        let fingerprint = Fingerprint { target: [1; 16], recipe: 1, body: [2; 16] };
        let extensions = Default::default();
        let claim = Claim { token: Token([3; 16]), attempt: 1, terms, fingerprint, claimed_at: 4, extensions };
        let summary = Record { claim, state: State::InFlight }.summary();
        let name = RecordName { route: "orders".into(), digest: [5; 16] };
        RecordEntry::new(&name, Ok(&RecordSnapshot { summary, silent_for }), Timestamp::now())
    }

    #[test]
    fn a_repeat_takes_over_once_the_hold_is_over() {
        let hold = UnknownPolicy::Hold(HOLD_FOR);
        for (on_unknown, silent_for, told, is_held) in [
            (hold, LEASE / 2, "waits, or gets 409 in-flight", false),
            (hold, LEASE, "gets 409 outcome-unknown", true),
            (hold, HOLD_FOR, "takes over, and runs", false),
            (UnknownPolicy::Retry, LEASE, "takes over, and runs", false),
        ] {
            let entry = in_flight(on_unknown, silent_for);
            assert_eq!((retry(&entry), needs_a_hand(&entry)), (told, is_held));
            assert_eq!(advice(&entry).contains("release it"), is_held);
        }
    }
}
