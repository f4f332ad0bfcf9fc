//! A bounded model check of the protocol: every order of events in a small model is tried.
//!
//! # What is modelled
//!
//! One key; its record in a store; two or three requests with that key, at any time and through any sidecar; the backend
//! that they are sent to ([`world`]). In any order ([`protocol`]):
//!
//! - a call to the store arrives, or is lost, or arrives after its caller gave it up, or twice;
//! - an owner renews, or does not; is slow, or stalls, anywhere and for any time;
//! - an attempt is not sent, succeeds, breaks off after a success, fails by the backend's word, or falls silent, and
//!   then nobody knows whether it ran;
//! - a sidecar dies with all that it was at, whichever requests those were, and is started again;
//! - in some of the tests, one or two ask the backend about an unknown outcome, at any time, and stop anywhere ([`prober`]).
//!   The backend runs a request at any time after it was sent, until so long after the attempt has ended, or can have
//!   ended, as the probe's `after` says. That is the assumption of a probe. Without it, a second execution is found.
//!
//! The transitions ([`life`], [`store`]) use the program's own functions, not copies: `record::transitions`, `record::probe`,
//! `guard::decide`, `guard::policy::outcome`, `guard::lease::readiness`, `guard::attempt::{AttemptResult, recorded}`
//! and `guard::cleanup::looks_again`. [`properties`] has what must hold; each is checked in every reachable state.
//!
//! # What is not
//!
//! - Retention, and with it `hold_for`: they outlast the model. A record is never freed by time here, nor is one in the
//!   program before they end.
//! - The unguarded ways: `on_error = "forward"`, observe mode, operators who release a key.
//! - Waiters, who write nothing: they get what the owner's client gets, or look at the record as any repeat does.
//! - Keys used for something else: they are refused whatever the record says.
//! - Clocks that run at different speeds. Half a lease is the margin for that.
//! - Whether something happens in the end: only that nothing wrong does.
//!
//! # Bounds
//!
//! Requests, faults, duplicates and crashes are counted out in each test below. Time is not bounded, nor is the number
//! of renewals: beyond a lease, ages are not told apart, as no decision tells them apart. `cargo test --test model --
//! --nocapture` prints how many worlds there were, and a way to what had to be found; `--ignored` takes some minutes for
//! more of everything.

#![allow(clippy::disallowed_methods)]
// In a binary, nothing is reachable from outside.
#![allow(unreachable_pub)]

mod life;
mod prober;
mod properties;
mod protocol;
mod store;
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use properties::{FINAL, GROW, ONCE, TWICE};
use protocol::{Event, Flaw, Protocol};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};
use world::World;

const HOLD: Protocol = Protocol {
    requests: 3,
    retry: false,
    faults: 0,
    duplicates: 0,
    crashes: 0,
    freezes: false,
    flaw: None,
    probers: 0,
    found_is_kept: false,
    runs_late: false,
};
/// With one who asks the backend about unknown outcomes.
const PROBED: Protocol = Protocol { requests: 2, probers: 1, ..HOLD };
const RETRY: Protocol = Protocol { retry: true, ..HOLD };

/// All properties hold in every state, and every allowed result is reached.
fn holds(protocol: Protocol) {
    let begun = Instant::now();
    let checker = protocol.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{protocol:?}\n{} worlds in {:.0?}", checker.unique_state_count(), begun.elapsed());
    for (promise, way) in checker.discoveries() {
        if protocol.property(promise).expectation == Expectation::Always {
            panic!("{}", told(&protocol, promise, way));
        }
    }
    checker.assert_properties();
}

/// A property is violated, and a trace is found.
fn is_broken(promise: &'static str, protocol: Protocol) {
    let checker = protocol.checker().finish_when(HasDiscoveries::AllOf(BTreeSet::from([promise]))).spawn_bfs().join();
    let way = checker.assert_any_discovery(promise);
    println!("{protocol:?}\n{} worlds, and {}", checker.unique_state_count(), told(&protocol, promise, way));
}

/// The trace to the violation.
fn told(protocol: &Protocol, promise: &'static str, way: Path<World, Event>) -> String {
    let kept = protocol.property(promise).condition;
    let way = way.into_vec().into_iter().take_while(|(world, _)| kept(protocol, world));
    let events: String = way.flat_map(|(_, event)| event).map(|event| format!("\n  {event:?}")).collect();
    format!("not: {promise}{events}")
}

#[test]
fn in_hold_mode_nothing_is_sent_after_what_may_have_run() {
    // Also not by an owner that is frozen between its last check and the write.
    holds(Protocol { faults: 2, crashes: 1, freezes: true, ..HOLD });
}

#[test]
fn in_hold_mode_calls_may_arrive_twice() {
    holds(Protocol { faults: 2, duplicates: 1, crashes: 1, requests: 2, ..HOLD });
}

#[test]
fn in_retry_mode_an_attempt_is_sent_only_by_the_last_to_take_over() {
    holds(Protocol { faults: 2, crashes: 1, requests: 2, ..RETRY });
}

#[test]
fn in_retry_mode_several_may_take_over_at_once() {
    holds(RETRY);
}

#[test]
fn in_retry_mode_calls_may_arrive_twice() {
    holds(Protocol { faults: 2, duplicates: 1, requests: 2, ..RETRY });
}

#[test]
#[ignore = "tests/run --all"]
fn under_its_assumption_a_probe_makes_nothing_run_twice() {
    // Owners stop anywhere, go on later or never; the backend runs late; and who asks stops anywhere, too. What was found
    // is the answer from then on, also of the attempt that ends later.
    holds(Protocol { found_is_kept: true, ..PROBED });
}

#[test]
#[ignore = "tests/run --all"]
fn a_probe_and_a_takeover_exclude_each_other() {
    holds(Protocol { retry: true, found_is_kept: true, ..PROBED });
}

/// The assumption is not checked by anything: a backend that runs a request later than `after` is beyond the protocol.
#[test]
fn without_its_assumption_a_probe_makes_a_request_run_twice() {
    is_broken(TWICE, Protocol { runs_late: true, ..PROBED });
}

/// The other half of the assumption: no owner writes to its socket so long after its last check.
#[test]
#[ignore = "tests/run --all"]
fn an_owner_frozen_before_the_write_for_longer_than_a_probe_waits_is_sent_late() {
    is_broken(ONCE, Protocol { freezes: true, ..PROBED });
}

/// Takes minutes and gigabytes of memory.
#[test]
#[ignore = "tests/run --all"]
fn more_of_everything() {
    holds(Protocol { faults: 3, duplicates: 1, crashes: 2, freezes: true, ..HOLD });
    holds(Protocol { faults: 1, crashes: 1, ..RETRY });
}

/// The remaining window, which the README describes.
#[test]
fn in_retry_mode_an_owner_frozen_before_the_write_is_sent_late() {
    is_broken(GROW, Protocol { requests: 2, freezes: true, ..RETRY });
}

#[test]
fn a_store_that_forgets_is_found_out() {
    is_broken(ONCE, Protocol { requests: 2, flaw: Some(Flaw::Forgets), ..HOLD });
}

#[test]
fn a_store_that_does_not_compare_is_found_out() {
    let flaw = Some(Flaw::Blind);
    // A late release frees the key of another owner.
    is_broken(ONCE, Protocol { faults: 1, flaw, ..HOLD });
    // Two repeats take over from the same owner, and are sent under the same number.
    is_broken(GROW, Protocol { flaw, ..RETRY });
    // A final record is overwritten or deleted.
    is_broken(FINAL, Protocol { requests: 2, flaw, ..RETRY });
}

#[test]
fn a_claim_that_expires_is_found_out() {
    is_broken(ONCE, Protocol { requests: 2, flaw: Some(Flaw::Expires), ..HOLD });
}

#[test]
fn an_owner_that_relies_on_an_old_renewal_is_found_out() {
    is_broken(GROW, Protocol { requests: 2, flaw: Some(Flaw::TrustsRenewal), ..RETRY });
}
