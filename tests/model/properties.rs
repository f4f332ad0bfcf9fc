//! The properties that must hold.

use stateright::Property;

use crate::protocol::Protocol;
use crate::store::{Ending, LEASE};
use crate::world::{Request, Seen, Sent, Stage, World};

/// The promise, and its preconditions.
pub fn of(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let both = [
        Property::always(FINAL, |_, world: &World| is_final(world)),
        Property::always(REPLAYS, |_, world: &World| replays_are_the_record(world)),
        Property::always(LIVE, |_, world: &World| live_owners_own(world)),
        Property::always(OVER, |_, world: &World| !world.past.sent_after_end),
        Property::sometimes("a repeat is answered from the record", |_, world: &World| {
            saw(world, |seen| matches!(seen, Seen::Replay(_)))
        }),
        Property::sometimes("a repeat meets an attempt in flight", |_, world: &World| {
            saw(world, |seen| seen == Seen::InFlight)
        }),
        Property::sometimes("a repeat is told that it was done", |_, world: &World| {
            saw(world, |seen| seen == Seen::AlreadyCompleted)
        }),
        Property::sometimes("a failed attempt is followed by one that succeeds", |_, world: &World| {
            world.past.freed && saw(world, |seen| matches!(seen, Seen::Own(_)))
        }),
    ];
    let cleaned = Property::sometimes("a late claim is deleted", |_, world: &World| world.past.cleaned);
    let cleaned = (protocol.faults > 0).then_some(cleaned);
    let hold = [
        Property::always(ONCE, no_attempt_follows_one_that_may_have_run),
        Property::always(SAME, |_, world: &World| all_answers_are_one(world)),
        Property::always(FREE, only_what_may_have_run_holds_the_key),
        Property::sometimes("a repeat is told that the outcome is unknown", |_, world: &World| {
            saw(world, |seen| seen == Seen::OutcomeUnknown)
        }),
    ];
    let retry = [
        Property::always(GROW, |_, world: &World| attempt_numbers_grow(world)),
        Property::sometimes("a repeat takes over", |_, world: &World| {
            world.upstream.iter().any(|sent| sent.attempt > Some(1))
        }),
    ];
    let probed = [
        Property::always(TWICE, |_, world: &World| world.upstream.iter().filter(|sent| sent.ran).count() <= 1),
        Property::sometimes("a probe frees a key, and its next attempt runs", |_, world: &World| {
            world.past.freed_by_probe && world.upstream.iter().any(|sent| sent.ran)
        }),
        Property::sometimes("a repeat is told what a probe has found", |_, world: &World| {
            world.past.completed_by_probe && saw(world, |seen| matches!(seen, Seen::Replay(_) | Seen::AlreadyCompleted))
        }),
    ];
    let late = Property::sometimes("the client of a late answer gets the record that a probe completed", |_, world| {
        World::told_by_probe(world)
    });
    let late = (protocol.probers > 0 && protocol.found_is_kept).then_some(late);
    // In retry mode, a repeat takes over: nothing needs to be freed, and another attempt may run.
    let probed = (protocol.probers > 0).then(|| Vec::from(probed)).into_iter().flatten();
    let probed = probed.enumerate().filter(|(at, _)| !protocol.retry || *at == 2).map(|(_, property)| property);
    let own = if protocol.retry { Vec::from(retry) } else { Vec::from(hold) };
    both.into_iter().chain(own).chain(cleaned).chain(probed).chain(late).collect()
}

pub const ONCE: &str = "no attempt is sent after one that succeeded or may have succeeded";
pub const TWICE: &str = "no two attempts take effect";
pub const SAME: &str = "all clients that are told of a success are told of the same one";
pub const FREE: &str = "a key stays claimed only for what may have run";
pub const FINAL: &str = "a record that is completed never changes";
pub const REPLAYS: &str = "every replay is what the record holds";
pub const LIVE: &str = "a live owner's record is its own";
pub const OVER: &str = "nothing is sent once an outcome is recorded";
pub const GROW: &str = "attempt numbers grow, until the key is freed";

fn no_attempt_follows_one_that_may_have_run(protocol: &Protocol, world: &World) -> bool {
    // Checked after each request to the backend, so the statements about earlier ones were true at their time.
    let never_ran = |sent: &Sent| sent.failed || protocol.probers > 0 && !sent.ran && !sent.may_run(protocol);
    world.upstream.split_last().is_none_or(|(_, earlier)| earlier.iter().all(never_ran))
}

fn all_answers_are_one(world: &World) -> bool {
    let mut answers = world.requests.iter().filter_map(|request| match request.seen {
        Some(Seen::Own(by) | Seen::Replay(by)) => Some(by),
        _ => None,
    });
    let Some(first) = answers.next() else { return true };
    let recorded = match world.record.map(|record| record.ending) {
        Some(Ending::Completed(by)) => by,
        _ => first,
    };
    recorded == first && answers.all(|other| other == first)
}

fn is_final(world: &World) -> bool {
    world.past.ended.is_none_or(|ending| world.record.is_some_and(|record| record.ending == ending))
}

fn replays_are_the_record(world: &World) -> bool {
    world.requests.iter().all(|request| match request.seen {
        Some(Seen::Replay(by)) => world.past.ended == Some(Ending::Completed(by)),
        _ => true,
    })
}

fn live_owners_own(world: &World) -> bool {
    let as_believed = (0..).zip(&world.requests).all(|(id, request)| {
        let live = matches!(request.stage, Stage::Owner | Stage::Cleared) && request.age < LEASE;
        !live || world.record.is_some_and(|record| record.owner == id && record.ending == Ending::InFlight)
    });
    as_believed && !world.past.robbed
}

/// In final states without faults that a sidecar cannot notice.
fn only_what_may_have_run_holds_the_key(protocol: &Protocol, world: &World) -> bool {
    let quiet = world.network.is_empty() && !world.requests.iter().any(Request::is_at_work);
    let held = world.record.is_some_and(|record| !record.ending.is_final());
    let excused = world.was_disturbed(protocol) || world.upstream.iter().any(|sent| !sent.failed);
    !quiet || !held || excused
}

fn attempt_numbers_grow(world: &World) -> bool {
    world.upstream.is_sorted_by(|earlier, later| earlier.attempt.is_none() || earlier.attempt < later.attempt)
}

fn saw(world: &World, what: impl Fn(Seen) -> bool) -> bool {
    world.requests.iter().any(|request| request.seen.is_some_and(&what))
}
