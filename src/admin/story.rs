//! What becomes of a repeat, and what an operator does about a record, in words.

use super::shape::{OwnerName, RecordEntry, StateName};

/// What a repeat with the same content does or gets.
pub fn retry(entry: &RecordEntry) -> &'static str {
    let facts = entry.facts.as_ref();
    let holds = facts.is_some_and(|facts| facts.hold_for.is_some());
    match (entry.state, facts.and_then(|facts| facts.owner)) {
        (StateName::Completed, _) => "gets the answer below",
        (StateName::Unreplayable, _) => "gets 409 already-completed",
        (StateName::Unknown, _) => "gets 409 outcome-unknown",
        (StateName::InFlight, Some(OwnerName::Lost)) if holds => "gets 409 outcome-unknown",
        (StateName::InFlight, Some(OwnerName::Lost)) => "takes over, and runs",
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

/// Whether nobody knows what came of it.
pub(super) fn needs_a_hand(entry: &RecordEntry) -> bool {
    let facts = entry.facts.as_ref();
    let owner = facts.and_then(|facts| facts.owner);
    let holds = facts.is_some_and(|facts| facts.hold_for.is_some());
    match entry.state {
        StateName::Unknown => true,
        // Where a repeat may take over, none is needed.
        StateName::InFlight => owner == Some(OwnerName::Lost) && holds,
        StateName::Completed | StateName::Unreplayable | StateName::Unreadable | StateName::Absent => false,
    }
}
