//! The store: one record, and calls that are carried out atomically by the program's own transitions.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use onlyonce::record::transitions::{self, ClaimTransition, RenewTransition, StoredRecord};
use onlyonce::record::{Claim, Fingerprint, Record, Reply, State, Terms, Token, UnknownPolicy};
use onlyonce::store::{Released, Renewed, Settled};

/// The number of a request: also its token, and the number in its response.
pub type Id = u8;

/// The unit of ages: half a lease.
pub const TICK: Duration = Duration::from_secs(15);
pub const LEASE: Age = 2;

/// The age in ticks, up to the lease: no decision distinguishes longer ones (see [`terms`]), so time is unbounded.
pub type Age = u8;

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stored {
    pub owner: Id,
    pub attempt: u8,
    pub ending: Ending,
    /// The age since it was written or renewed.
    pub silent: Age,
}

/// [`State`] without the parts that the protocol ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    InFlight,
    Completed(Id),
    Unreplayable(Id),
    Unknown,
}

/// A pending call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    Claim,
    /// The second half of a takeover: write, if the record is unchanged.
    TakeOver(Stored),
    Renew,
    Settle(Ending),
    Release,
}

/// A reply of the store.
#[derive(Debug)]
pub enum Answer {
    Granted(Claim),
    Refused(StoredRecord),
    /// The claim continues with another call.
    GoOn(Call),
    Renewed(Renewed),
    Settled(Settled),
    Released(Released),
}

/// The terms of every claim. Retention and `hold_for` are longer than everything in the model.
pub fn terms(retry: bool) -> Terms {
    let retention = Duration::from_secs(72 * 3600);
    let on_unknown = if retry { UnknownPolicy::Retry } else { UnknownPolicy::Hold(retention) };
    Terms { lease: TICK * u32::from(LEASE), retention, on_unknown }
}

/// The claim of a request.
pub fn claim(owner: Id, attempt: u8, retry: bool) -> Claim {
    Claim {
        token: Token([owner; 16]),
        attempt: attempt.into(),
        terms: terms(retry),
        fingerprint: Fingerprint { target: [0; 16], recipe: 0, body: [0; 16] },
        claimed_at: 0,
        extensions: Default::default(),
    }
}

/// The response to this attempt when it succeeds: different for each execution, so that they cannot be confused.
pub fn created(by: Id) -> Arc<Reply> {
    let status = StatusCode::from_u16(200 + u16::from(by)).expect("a status");
    Arc::new(Reply { status, headers: HeaderMap::new(), body: Vec::new().into(), trailers: HeaderMap::new() })
}

/// The response to a failure.
pub fn failed() -> Arc<Reply> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Arc::new(Reply { status, headers: HeaderMap::new(), body: Vec::new().into(), trailers: HeaderMap::new() })
}

/// The attempt that a response belongs to.
pub fn creator(status: StatusCode) -> Id {
    Id::try_from(status.as_u16() - 200).expect("a success")
}

impl Stored {
    fn new(record: &Record) -> Self {
        let attempt = u8::try_from(record.claim.attempt).expect("few attempts");
        Self { owner: record.claim.token.0[0], attempt, ending: Ending::new(&record.state), silent: 0 }
    }

    fn record(self, retry: bool) -> Record {
        Record { claim: claim(self.owner, self.attempt, retry), state: self.ending.state() }
    }

    /// Whether it has changed, or was renewed: then its age is smaller.
    fn stirred_since(self, seen: Self) -> bool {
        Self { silent: 0, ..self } != Self { silent: 0, ..seen } || self.silent < seen.silent
    }

    pub fn held(self, retry: bool) -> StoredRecord {
        StoredRecord { record: self.record(retry), silent_for: TICK * u32::from(self.silent) }
    }
}

impl Ending {
    pub fn new(state: &State) -> Self {
        match state {
            State::InFlight => Self::InFlight,
            State::Completed { reply, .. } => Self::Completed(creator(reply.status)),
            State::Unreplayable { status, .. } => Self::Unreplayable(creator(*status)),
            State::Unknown { .. } => Self::Unknown,
        }
    }

    fn state(self) -> State {
        let location = Some(HeaderValue::from_static("/orders/1"));
        match self {
            Self::InFlight => State::InFlight,
            Self::Completed(by) => State::Completed { settled_at: 0, reply: created(by) },
            Self::Unreplayable(by) => State::Unreplayable { settled_at: 0, status: created(by).status, location },
            Self::Unknown => State::Unknown { settled_at: 0 },
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed(_) | Self::Unreplayable(_))
    }
}

/// Carries out `call` under the claim of `from`. `blind`: like a store that writes without comparing.
pub fn carry_out(kept: &mut Option<Stored>, call: Call, from: &Claim, retry: bool, blind: bool) -> Answer {
    let held = kept.map(|stored| stored.held(retry));
    let in_flight = |claim: &Claim| Some(Stored::new(&Record { claim: claim.clone(), state: State::InFlight }));
    match call {
        Call::Claim => {
            let found = *kept;
            match (transitions::claim(held, from), found) {
                (ClaimTransition::Write(_), Some(seen)) => Answer::GoOn(Call::TakeOver(seen)),
                (ClaimTransition::Write(claim), None) => {
                    *kept = in_flight(&claim);
                    Answer::Granted(claim)
                }
                (ClaimTransition::AlreadyMine(claim), _) => Answer::Granted(claim),
                (ClaimTransition::Refuse(held), _) => Answer::Refused(*held),
            }
        }
        Call::TakeOver(seen) => {
            let claim = transitions::takeover(&seen.held(retry), from).expect("it was found to be lost");
            match *kept {
                Some(now) if !blind && now.stirred_since(seen) => match transitions::claim(held, from) {
                    ClaimTransition::AlreadyMine(claim) => Answer::Granted(claim),
                    ClaimTransition::Refuse(_) | ClaimTransition::Write(_) => Answer::Refused(now.held(retry)),
                },
                None if !blind => Answer::GoOn(Call::Claim),
                Some(_) | None => {
                    *kept = in_flight(&claim);
                    Answer::Granted(claim)
                }
            }
        }
        Call::Renew => match transitions::renew(held.as_ref().map(|held| &held.record), from.token) {
            RenewTransition::Extend => {
                *kept = kept.map(|stored| Stored { silent: 0, ..stored });
                Answer::Renewed(Renewed::Extended)
            }
            RenewTransition::ClaimAgain => {
                *kept = in_flight(from);
                Answer::Renewed(Renewed::ClaimedAgain)
            }
            RenewTransition::Refuse => Answer::Renewed(Renewed::Lost),
        },
        Call::Settle(ending) => match held.map(|held| held.record) {
            Some(record) if !blind && !transitions::settles(Some(&record), from.token) => {
                Answer::Settled(Settled::Kept(Box::new(record)))
            }
            _ => {
                *kept = Some(Stored::new(&Record { claim: from.clone(), state: ending.state() }));
                Answer::Settled(Settled::Written)
            }
        },
        Call::Release => match held {
            None => Answer::Released(Released::Absent),
            Some(held) if blind || transitions::releases(&held.record, from.token) => {
                *kept = None;
                Answer::Released(Released::Deleted)
            }
            Some(_) => Answer::Released(Released::Kept),
        },
    }
}
