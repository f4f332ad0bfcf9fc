//! Any transitions of any three owners and of one prober, in any order.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::record::probe::{
    AbsenceRule, FoundEffect, ProbeLook, ProbeProgress, ProbeStep, ProbeVerdict, complete_by_probe,
};
use crate::record::{Fingerprint, Record, Reply, State, Terms};

const SECOND: Duration = Duration::from_secs(1);
const RULE: AbsenceRule = AbsenceRule { after: SECOND, attempt_timeout: Duration::from_secs(3) };

/// The smallest possible store: one record. And what the prober has seen of it.
#[derive(Default)]
struct One {
    held: Option<StoredRecord>,
    left: Duration,
    progress: ProbeProgress,
    now: Duration,
    /// Since when every answer was absent, and the record was neither written nor renewed.
    absent_since: Option<Duration>,
}

#[derive(Debug, Clone)]
enum Move {
    Claim(Claim),
    Renew(Claim),
    Settle(Record),
    Release(Token),
    Wait(u32),
    /// Somebody asks about the present record, and gets this answer.
    Probe(ProbeVerdict),
}

impl Move {
    fn token(&self) -> Option<Token> {
        match self {
            Self::Claim(claim) | Self::Renew(claim) => Some(claim.token),
            Self::Settle(record) => Some(record.claim.token),
            Self::Release(token) => Some(*token),
            Self::Wait(_) | Self::Probe(_) => None,
        }
    }
}

impl One {
    fn write(&mut self, record: Record) {
        self.absent_since = None;
        self.left = time_to_live(&record);
        self.held = Some(StoredRecord { record, silent_for: Duration::ZERO });
    }

    fn in_flight(&mut self, claim: &Claim) {
        self.write(Record { claim: claim.clone(), state: State::InFlight });
    }

    fn make(&mut self, step: &Move) {
        let record = self.held.as_ref().map(|held| held.record.clone());
        match step {
            Move::Claim(wanted) => {
                if let ClaimTransition::Write(claim) = claim(self.held.clone(), wanted) {
                    self.in_flight(&claim);
                }
            }
            Move::Renew(claim) => match (renew(record.as_ref(), claim.token), record) {
                (RenewTransition::Extend, Some(record)) => self.write(record),
                (RenewTransition::ClaimAgain, None) => self.in_flight(claim),
                (RenewTransition::Refuse, Some(_)) => {}
                (other, record) => panic!("{other:?} of {record:?}"),
            },
            Move::Settle(settled) => {
                if settles(record.as_ref(), settled.claim.token) {
                    self.write(settled.clone());
                }
            }
            Move::Release(token) => self.held = self.held.take().filter(|held| !releases(&held.record, *token)),
            Move::Probe(verdict) => self.probe(*verdict),
            Move::Wait(seconds) => {
                let time = SECOND * *seconds;
                self.now += time;
                self.left = self.left.saturating_sub(time);
                self.held.iter_mut().for_each(|held| held.silent_for += time);
                self.held = self.held.take().filter(|_| self.left > Duration::ZERO);
            }
        }
    }
}

impl One {
    /// A prober that asks when it likes, also too early for an absence, but not about what is known, or left to others.
    fn probe(&mut self, verdict: ProbeVerdict) {
        let Some(held) = &self.held else { return };
        if RULE.counts_in(&held.seen()).is_none() {
            return;
        }
        self.absent_since = self.absent_since.or(Some(self.now)).filter(|_| verdict == ProbeVerdict::Absent);
        let look = ProbeLook { seen: held.seen(), read_at: self.now, answered_at: self.now };
        let swap = match std::mem::take(&mut self.progress).next(verdict, look, &RULE) {
            ProbeStep::Complete => {
                let found = FoundEffect::Unreplayable { status: StatusCode::OK, location: None };
                Some(complete_by_probe(held.seen(), found, 0))
            }
            ProbeStep::Release(swap) => Some(*swap),
            ProbeStep::AskAgain { progress, .. } => {
                self.progress = progress;
                None
            }
            ProbeStep::Leave => None,
        };
        match swap.filter(|swap| swap.still_matches(held)) {
            Some(CompareAndSwap { to: Some(to), .. }) => self.write(to.into_record()),
            Some(CompareAndSwap { to: None, .. }) => self.held = None,
            None => {}
        }
    }
}

fn claims() -> impl Strategy<Value = Claim> {
    let on_unknown =
        prop_oneof![(4_u32..=20).prop_map(|hold| UnknownPolicy::Hold(SECOND * hold)), Just(UnknownPolicy::Retry)];
    (0_u8..3, 1_u32..=4, on_unknown, 0_u8..8).prop_map(|(token, lease, on_unknown, use_of_key)| Claim {
        token: Token([token; 16]),
        attempt: 1,
        terms: Terms { lease: SECOND * lease, retention: SECOND * 20, on_unknown },
        // Most requests are equal.
        fingerprint: Fingerprint { target: [use_of_key / 7; 16], recipe: 0, body: [0; 16] },
        claimed_at: 0,
        extensions: Default::default(),
    })
}

fn endings() -> impl Strategy<Value = State> {
    let reply = |status: StatusCode| {
        Arc::new(Reply { status, headers: HeaderMap::new(), body: Vec::new().into(), trailers: HeaderMap::new() })
    };
    (0_u64..9).prop_map(move |settled_at| match settled_at % 3 {
        0 => State::Completed { settled_at, reply: reply(StatusCode::CREATED) },
        1 => State::Unreplayable { settled_at, status: StatusCode::OK, location: None },
        _ => State::Unknown { settled_at },
    })
}

fn steps() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        3 => claims().prop_map(Move::Claim),
        2 => claims().prop_map(Move::Renew),
        1 => (claims(), endings()).prop_map(|(claim, state)| Move::Settle(Record { claim, state })),
        1 => (0_u8..3).prop_map(|token| Move::Release(Token([token; 16]))),
        3 => (1_u32..=6).prop_map(Move::Wait),
        3 => (0_u8..8).prop_map(|verdict| Move::Probe(match verdict {
            0 => ProbeVerdict::Found,
            1 => ProbeVerdict::Inconclusive,
            _ => ProbeVerdict::Absent,
        })),
    ];
    proptest::collection::vec(step, 1..60)
}

fn is_final_state(state: &State) -> bool {
    matches!(state, State::Completed { .. } | State::Unreplayable { .. })
}

/// What one step may have done to a record.
fn judge(
    step: &Move,
    before: &StoredRecord,
    after: Option<&StoredRecord>,
    absent_for: Duration,
) -> Result<(), TestCaseError> {
    let (was, own) = (&before.record, step.token() == Some(before.record.claim.token));
    let is_final = is_final_state(&was.state);
    let Some(after) = after else {
        let freed = matches!(step, Move::Release(_)) && own && was.state == State::InFlight;
        let was_absent = matches!(step, Move::Probe(ProbeVerdict::Absent));
        prop_assert!(freed || was_absent || matches!(step, Move::Wait(_)), "only its owner frees a record, or time");
        if was_absent {
            prop_assert!(!is_final, "what is final stays");
            prop_assert!(was.state != State::InFlight || before.owner() == OwnerState::Lost);
            let apart = if was.state == State::InFlight { was.claim.terms.lease.max(RULE.after) } else { RULE.after };
            prop_assert!(absent_for >= apart, "an absence is seen twice");
            let over = match was.state {
                State::InFlight => RULE.attempt_timeout + was.claim.terms.lease / 2,
                State::Unknown { .. } | State::Completed { .. } | State::Unreplayable { .. } => Duration::ZERO,
            };
            prop_assert!(before.seen().unchanged_for() >= over + RULE.after + apart);
        }
        return Ok(());
    };
    let is = &after.record;
    if is == was {
        let renewed = matches!(step, Move::Renew(_)) && own;
        prop_assert!(after.silent_for >= before.silent_for || renewed || matches!(step, Move::Settle(_)) && own);
        return Ok(());
    }
    prop_assert!(!is_final, "what is final stays");
    if let Move::Probe(verdict) = step {
        prop_assert_eq!(*verdict, ProbeVerdict::Found);
        prop_assert_eq!(&Claim { extensions: was.claim.extensions.clone(), ..is.claim.clone() }, &was.claim);
        prop_assert!(is_final_state(&is.state) && is.summary().is_found_by_probe());
        let at_work = was.state == State::InFlight && before.owner() == OwnerState::Alive;
        prop_assert!(!at_work, "a living owner is not replaced");
        return Ok(());
    }
    prop_assert_eq!(Some(is.claim.token), step.token(), "a record names the last who wrote it");
    if own {
        prop_assert!(is.state != State::InFlight, "an owner changes its record only by settling it");
    } else {
        let terms = was.claim.terms;
        let patience = match terms.on_unknown {
            UnknownPolicy::Retry => terms.lease,
            UnknownPolicy::Hold(hold_for) => hold_for.max(terms.lease),
        };
        prop_assert!(matches!(step, Move::Claim(_)) && was.state == State::InFlight && is.state == State::InFlight);
        prop_assert!(before.silent_for >= patience, "a living owner is not replaced");
        prop_assert_eq!(is.claim.fingerprint, was.claim.fingerprint);
        prop_assert_eq!(is.claim.attempt, was.claim.attempt + 1);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_order_of_moves_breaks_the_rules(steps in steps()) {
        let mut store = One::default();
        for step in &steps {
            let before = store.held.clone();
            let absent_for = store.absent_since.map_or(Duration::ZERO, |since| store.now - since);
            store.make(step);
            match &before {
                Some(before) => judge(step, before, store.held.as_ref(), absent_for)?,
                None => if let Some(held) = &store.held {
                    prop_assert_eq!((Some(held.record.claim.token), held.record.claim.attempt), (step.token(), 1));
                },
            }
        }
    }
}
