use http::HeaderMap;

use super::super::transitions::{StoredRecord, complete_by_hand};
use super::super::{Claim, Fingerprint, Record, State, Terms, UnknownPolicy};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(30);
const AFTER: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(600);
/// A lost owner may have sent half a lease after its last sign.
const OVER: Duration = Duration::from_secs(600 + 15);
const HOLD: Duration = Duration::from_secs(3600);
const RETENTION: Duration = Duration::from_secs(7200);
const RULE: AbsenceRule = AbsenceRule { after: AFTER, attempt_timeout: TIMEOUT };

fn record(state: State, on_unknown: UnknownPolicy, silent_for: Duration) -> StoredRecord {
    let claim = Claim {
        token: Token([3; 16]),
        attempt: 2,
        terms: Terms { lease: LEASE, retention: RETENTION, on_unknown },
        fingerprint: Fingerprint { target: [1; 16], recipe: 1, body: [2; 16] },
        claimed_at: 4,
        extensions: Default::default(),
    };
    StoredRecord { record: Record { claim, state }, silent_for }
}

fn in_flight(silent_for: Duration) -> RecordSnapshot {
    record(State::InFlight, UnknownPolicy::Hold(HOLD), silent_for).seen()
}

fn abandoned(silent_for: Duration) -> RecordSnapshot {
    record(State::InFlight, UnknownPolicy::Retry, silent_for).seen()
}

/// Unknown for this time. The record began with an hour to live, of the retention's two.
fn unknown(unchanged_for: Duration) -> RecordSnapshot {
    record(State::Unknown { settled_at: 5 }, UnknownPolicy::Hold(HOLD), RETENTION - HOLD + unchanged_for).seen()
}

fn settled() -> [RecordSnapshot; 2] {
    let unreplayable = State::Unreplayable { settled_at: 5, status: StatusCode::OK, location: None };
    [State::Completed { settled_at: 5, reply: reply() }, unreplayable]
        .map(|state| record(state, UnknownPolicy::Hold(HOLD), HOLD).seen())
}

fn reply() -> Arc<Reply> {
    let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
    Arc::new(Reply { status: StatusCode::CREATED, headers, body: Vec::new().into(), trailers })
}

fn found() -> FoundEffect {
    FoundEffect::Unreplayable { status: StatusCode::OK, location: Some(HeaderValue::from_static("/orders/7")) }
}

/// A look that takes a second.
fn look(seen: &RecordSnapshot, read_at: Duration) -> ProbeLook {
    ProbeLook { seen: seen.clone(), read_at, answered_at: read_at + SECOND }
}

/// The step after an absence.
fn absent(progress: ProbeProgress, seen: &RecordSnapshot, read_at: Duration) -> ProbeStep {
    progress.next(ProbeVerdict::Absent, look(seen, read_at), &RULE)
}

/// What is known after an absence that is to be confirmed, and when.
fn once(seen: &RecordSnapshot, read_at: Duration) -> (ProbeProgress, Duration) {
    match absent(ProbeProgress::NothingYet, seen, read_at) {
        ProbeStep::AskAgain { at, progress: progress @ ProbeProgress::AbsentOnce(_) } => (progress, at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_absence_counts_from_the_latest_possible_end_of_the_attempt() {
    let rows = [
        (unknown(Duration::ZERO), Some(AFTER)),
        (unknown(AFTER / 2), Some(AFTER / 2)),
        (unknown(AFTER), Some(Duration::ZERO)),
        (in_flight(LEASE - SECOND), None),
        (in_flight(LEASE), Some(TIMEOUT + AFTER - LEASE / 2)),
        (in_flight(TIMEOUT), Some(AFTER + LEASE / 2)),
        (in_flight(OVER + AFTER), Some(Duration::ZERO)),
        // A repeat may take over.
        (in_flight(HOLD), None),
        (abandoned(OVER + AFTER), None),
    ];
    for (seen, counts_in) in rows.into_iter().chain(settled().map(|seen| (seen, None))) {
        assert_eq!(RULE.counts_in(&seen), counts_in, "{seen:?}");
    }
    assert_eq!(RULE.frees_lost(LEASE), OVER + AFTER + LEASE);
    // A lease that is longer than an attempt may take.
    let short = AbsenceRule { attempt_timeout: SECOND, ..RULE };
    assert_eq!(short.counts_in(&in_flight(LEASE)), Some(AFTER));
    assert_eq!(short.counts_in(&in_flight(LEASE + AFTER)), Some(Duration::ZERO));
}

#[test]
fn an_unknown_record_that_lives_as_long_as_any_is_as_old_as_it_is_silent() {
    for on_unknown in [UnknownPolicy::Hold(RETENTION), UnknownPolicy::Retry] {
        let seen = record(State::Unknown { settled_at: 5 }, on_unknown, AFTER).seen();
        assert_eq!(RULE.counts_in(&seen), Some(Duration::ZERO), "{on_unknown:?}");
    }
}

#[test]
fn an_absence_that_comes_too_early_counts_for_nothing() {
    let step = absent(ProbeProgress::NothingYet, &unknown(AFTER - SECOND), HOLD);
    assert_eq!(step, ProbeStep::AskAgain { at: HOLD + SECOND * 2, progress: ProbeProgress::NothingYet });
    for seen in [in_flight(Duration::ZERO), abandoned(HOLD)].into_iter().chain(settled()) {
        assert_eq!(absent(ProbeProgress::NothingYet, &seen, HOLD), ProbeStep::Leave, "{seen:?}");
    }
}

#[test]
fn an_answer_that_comes_later_than_the_record_was_silent_counts_for_nothing() {
    let seen = in_flight(OVER + AFTER);
    let (progress, at) = once(&seen, HOLD);
    let seen = RecordSnapshot { silent_for: seen.silent_for + SECOND + LEASE, ..seen };
    let answered_after = |took| ProbeLook { seen: seen.clone(), read_at: at, answered_at: at + took };
    let late = answered_after(seen.silent_for);
    assert_eq!(progress.clone().next(ProbeVerdict::Absent, late, &RULE), ProbeStep::Leave);
    let in_time = answered_after(seen.silent_for - SECOND);
    assert!(matches!(progress.next(ProbeVerdict::Absent, in_time, &RULE), ProbeStep::Release(_)));
}

#[test]
fn a_key_is_free_after_the_second_absence() {
    // Where an owner was lost, it has a lease to be heard of.
    let rows = [(unknown(AFTER), AFTER), (in_flight(OVER + AFTER), LEASE)];
    for (seen, apart) in rows {
        let (progress, at) = once(&seen, HOLD);
        assert_eq!(at, HOLD + SECOND + apart);
        let later = |passed: Duration| RecordSnapshot { silent_for: seen.silent_for + passed, ..seen.clone() };
        let early = later(SECOND + apart - Duration::from_millis(1));
        let step = absent(progress.clone(), &early, at - Duration::from_millis(1));
        assert_eq!(step, ProbeStep::AskAgain { at, progress: progress.clone() });
        let in_time = later(SECOND + apart);
        let ProbeStep::Release(swap) = absent(progress, &in_time, at) else { panic!("{in_time:?}") };
        assert_eq!((&swap.seen, &swap.to), (&in_time, &None));
    }
}

#[test]
fn any_other_answer_forgets_the_first_absence() {
    let (progress, _) = once(&unknown(AFTER), HOLD);
    let again = look(&unknown(AFTER * 3), HOLD + AFTER * 2);
    assert_eq!(progress.clone().next(ProbeVerdict::Inconclusive, again.clone(), &RULE), ProbeStep::Leave);
    assert_eq!(progress.next(ProbeVerdict::Found, again, &RULE), ProbeStep::Complete);
}

#[test]
fn an_absence_of_another_record_is_the_first_of_its_own() {
    let seen = in_flight(OVER + AFTER);
    let (progress, at) = once(&seen, HOLD);
    let passed = at + LEASE - HOLD;
    let same = RecordSnapshot { silent_for: seen.silent_for + passed, ..seen.clone() };
    assert!(matches!(absent(progress.clone(), &same, HOLD + passed), ProbeStep::Release(_)));
    let other = |change: fn(&mut RecordSnapshot)| {
        let mut other = same.clone();
        change(&mut other);
        other
    };
    for other in [
        other(|seen| seen.summary.claim.token = Token([9; 16])),
        other(|seen| seen.summary.claim.attempt += 1),
        unknown(AFTER),
    ] {
        let step = absent(progress.clone(), &other, HOLD + passed);
        assert!(matches!(step, ProbeStep::AskAgain { progress: ProbeProgress::AbsentOnce(_), .. }), "{step:?}");
    }
}

#[test]
fn a_renewal_between_two_absences_is_noticed_however_long_ago_it_was() {
    let seen = in_flight(OVER + AFTER);
    let (progress, _) = once(&seen, SECOND);
    for passed in [OVER + AFTER + SECOND, HOLD - SECOND] {
        // It was renewed just after the first question, and the owner was lost again.
        let renewed = RecordSnapshot { silent_for: passed - SECOND, ..seen.clone() };
        let step = absent(progress.clone(), &renewed, SECOND + passed);
        assert!(matches!(step, ProbeStep::AskAgain { progress: ProbeProgress::AbsentOnce(_), .. }), "{step:?}");
    }
}

#[test]
fn what_was_found_is_recorded_for_the_claim_that_was_seen() {
    for seen in [in_flight(LEASE), abandoned(LEASE), unknown(Duration::ZERO)] {
        for found in [found(), FoundEffect::Completed(reply())] {
            let swap = complete_by_probe(seen.clone(), found.clone(), 9);
            assert_eq!(swap.seen, seen);
            let to = swap.to.expect("a record").into_record();
            assert_eq!(to.state, Settlement::from(found).at(9));
            assert!(to.summary().is_found_by_probe() && !seen.summary.is_found_by_probe());
            let extensions = seen.summary.claim.extensions.clone();
            assert_eq!(Claim { extensions, ..to.claim.clone() }, seen.summary.claim);
            // An operator who settles it after that is another one.
            let by_hand = complete_by_hand(StoredRecord::fresh(to.clone()).seen(), reply(), 10, false);
            assert_eq!(by_hand.is_ok(), to.summary().phase == Phase::Unreplayable);
            if let Ok(swap) = by_hand {
                assert!(!swap.to.expect("a record").summary().is_found_by_probe());
            }
        }
    }
}
