//! The transitions of a request, as in the guard.

use std::time::Duration;

use onlyonce::guard::attempt::{AttemptResult, recorded};
use onlyonce::guard::cleanup::{Arrival, HORIZON, looks_again};
use onlyonce::guard::decide;
use onlyonce::guard::policy::Outcome;
use onlyonce::rule::OnMismatch;
use onlyonce::store::{Released, Renewed, Settled};

use crate::prober::{LONGEST_SILENCE, Prober, ProberStage, SentAges};
use crate::protocol::{Event, Flaw, Protocol};
use crate::store::{Age, Answer, Call, Ending, Id, LEASE, carry_out, claim};
use crate::world::{End, Message, Request, Seen, Sent, Stage, World};

impl World {
    pub fn happens(&mut self, protocol: &Protocol, event: Event) {
        match event {
            Event::Arrives(id) => {
                self.of(id).stage = Stage::Claiming { tries: 1 };
                self.call(id, Call::Claim);
            }
            Event::Delivered(message) => {
                self.network.remove(self.network.iter().position(|other| *other == message).expect("it is there"));
                self.deliver(protocol, message);
            }
            Event::DeliveredTwice(message) => {
                self.duplicates -= 1;
                self.happens(protocol, Event::Delivered(message));
                self.network.push(Message { ghost: true, ..message });
            }
            Event::Late(message) => {
                self.happens(protocol, Event::Lost(message));
                self.network.push(Message { ghost: true, ..message });
            }
            Event::Lost(message) => {
                self.faults -= 1;
                self.network.remove(self.network.iter().position(|other| *other == message).expect("it is there"));
                self.go_without(protocol, message);
            }
            Event::Renews(id) => {
                let trusts = protocol.flaw == Some(Flaw::TrustsRenewal) && !self.of(id).may_send(protocol);
                self.deliver(protocol, Message { from: id, call: Call::Renew, ghost: false });
                let request = self.of(id);
                if trusts && request.stage == Stage::Owner && request.may_send(protocol) {
                    request.stage = Stage::Cleared;
                }
            }
            Event::RenewsLate(id) => {
                self.faults -= 1;
                self.of(id).unanswered = true;
                self.network.push(Message { from: id, call: Call::Renew, ghost: true });
            }
            Event::Clears(id) => self.of(id).stage = Stage::Cleared,
            Event::Sends(id) => {
                let request = self.of(id);
                (request.stage, request.age) = (Stage::Sent, 0);
                let attempt = Some(request.attempt);
                self.upstream.push(Sent { by: id, attempt, failed: false, ran: false, ages: SentAges::default() });
                self.past.sent_after_end |= self.past.ended.is_some();
            }
            Event::Ends(id, end) => {
                if end == End::Failed {
                    self.upstream.iter_mut().filter(|sent| sent.by == id).for_each(|sent| sent.failed = true);
                }
                if protocol.probers > 0 {
                    self.upstream.iter_mut().filter(|sent| sent.by == id).for_each(|sent| sent.ages.end());
                }
                self.of(id).stage = Stage::Recording(end);
                self.record(protocol, id, end);
            }
            Event::CleansUp(id) => self.clean_up(protocol, id),
            Event::Crashes(some) => {
                self.crashes -= 1;
                for id in (0..protocol.requests).filter(|id| some & (1 << id) != 0) {
                    self.of(id).unanswered = false;
                    self.over(id);
                }
            }
            Event::StoreForgets => self.record = None,
            Event::TimePasses => self.time_passes(protocol),
            Event::Runs(id) => self.upstream.iter_mut().filter(|sent| sent.by == id).for_each(|sent| sent.ran = true),
            Event::Asks(prober) => {
                let seen = self.record.expect("there is a record");
                self.probers[prober].stage = ProberStage::Asking(seen);
                self.probers[prober].since_read = 0;
            }
            Event::Decides(prober, verdict) => self.prober_decides(protocol, prober, verdict),
            Event::Exchanges(prober) => self.prober_exchanges(protocol, prober),
        }
    }

    /// Merges states that cannot behave differently any more, so that there are fewer to check.
    pub fn forget_moments(&mut self) {
        self.past.cleaned = false;
        let ended = |request: &Request| matches!(request.stage, Stage::Orphan | Stage::Over);
        for (id, request) in (0..).zip(&mut self.requests).filter(|(_, request)| ended(request)) {
            request.seen = request.seen.filter(|seen| matches!(seen, Seen::Own(_) | Seen::Replay(_)));
            if !self.network.iter().any(|message| message.from == id) {
                request.attempt = 1;
            }
        }
    }

    fn of(&mut self, id: Id) -> &mut Request {
        &mut self.requests[usize::from(id)]
    }

    fn call(&mut self, from: Id, call: Call) {
        self.network.push(Message { from, call, ghost: false });
    }

    /// Writes the outcome of an attempt, for the first time or again.
    fn record(&mut self, protocol: &Protocol, id: Id, end: End) {
        match end.outcome(id, protocol) {
            Outcome::Leave => {
                self.of(id).is_told(&AttemptResult::new(end.send_outcome(id), None));
                self.of(id).unanswered = false;
                self.over(id);
            }
            Outcome::Release => self.call(id, Call::Release),
            Outcome::Settle(settlement) => self.call(id, Call::Settle(Ending::new(&settlement.at(0)))),
        }
    }

    fn deliver(&mut self, protocol: &Protocol, message: Message) {
        let Message { from, call, ghost } = message;
        let attempt = if matches!(call, Call::Claim | Call::TakeOver(_)) { 1 } else { self.of(from).attempt };
        let blind = protocol.flaw == Some(Flaw::Blind);
        let answer = carry_out(&mut self.record, call, &claim(from, attempt, protocol.retry), protocol.retry, blind);
        match answer {
            // An abandoned call has no further effect.
            _ if ghost => {}
            Answer::GoOn(call) => self.call(from, call),
            answer => self.answered(protocol, from, answer),
        }
    }

    /// The caller reads the store's answer.
    fn answered(&mut self, protocol: &Protocol, id: Id, answer: Answer) {
        let settled = self.record.filter(|record| record.owner == id).map(|record| record.held(protocol.retry).record);
        let request = self.of(id);
        let released = matches!(answer, Answer::Released(_));
        match answer {
            Answer::Granted(claim) => {
                request.attempt = u8::try_from(claim.attempt).expect("few attempts");
                request.stage = Stage::Owner;
            }
            Answer::Refused(held) => {
                let fingerprint = held.record.claim.fingerprint;
                let verdict = decide(held, &fingerprint, OnMismatch::Reject);
                request.seen = Some(Seen::verdict(&verdict));
                self.over(id);
            }
            Answer::GoOn(_) => unreachable!("it is with the store"),
            Answer::Renewed(Renewed::Extended | Renewed::ClaimedAgain) => {
                request.age = 0;
            }
            Answer::Renewed(Renewed::Lost) => {}
            Answer::Settled(_) | Answer::Released(_) => {
                let Stage::Recording(end) = request.stage else { unreachable!("it records") };
                let kept = match answer {
                    Answer::Settled(Settled::Kept(kept)) => recorded(&claim(id, request.attempt, false), *kept),
                    // It looks at once.
                    Answer::Released(Released::Kept) => {
                        settled.and_then(|kept| recorded(&claim(id, request.attempt, false), kept))
                    }
                    _ => None,
                };
                request.is_told(&AttemptResult::new(end.send_outcome(id), kept));
                request.unanswered &= released;
                self.over(id);
            }
        }
    }

    /// The caller has no certain answer.
    fn go_without(&mut self, protocol: &Protocol, message: Message) {
        let id = message.from;
        let request = self.of(id);
        request.unanswered |= matches!(request.stage, Stage::Claiming { .. });
        match (request.stage, message.call) {
            (Stage::Claiming { tries: 0 }, _) => {
                request.seen = Some(Seen::Trouble);
                self.over(id);
            }
            (Stage::Claiming { tries }, _) => {
                request.stage = Stage::Claiming { tries: tries - 1 };
                self.call(id, Call::Claim);
            }
            (Stage::Recording(end), _) => {
                request.is_told(&AttemptResult::new(end.send_outcome(id), None));
                self.record(protocol, id, end);
            }
            _ => unreachable!("{message:?} was not called in {:?}", request.stage),
        }
    }

    /// One check for an abandoned claim. The clean-up lasts longer than any pending call.
    fn clean_up(&mut self, protocol: &Protocol, id: Id) {
        let claim = claim(id, 1, protocol.retry);
        let answer = carry_out(&mut self.record, Call::Release, &claim, protocol.retry, false);
        let Answer::Released(found) = answer else { unreachable!("it was a release") };
        self.past.cleaned = found == Released::Deleted;
        let age = if self.network.iter().any(|message| message.from == id) { Duration::ZERO } else { HORIZON };
        if !looks_again(&Ok(found), age, Arrival::Possible) {
            self.of(id).stage = Stage::Over;
        }
    }

    /// The request has ended; only its clean-up may be left.
    fn over(&mut self, id: Id) {
        let request = self.of(id);
        request.stage = if request.unanswered { Stage::Orphan } else { Stage::Over };
        (request.age, request.unanswered) = (0, false);
        self.network.iter_mut().filter(|message| message.from == id).for_each(|message| message.ghost = true);
    }

    fn time_passes(&mut self, protocol: &Protocol) {
        let older = |age: &mut Age| *age = LEASE.min(*age + 1);
        let longest = if protocol.probers > 0 { LONGEST_SILENCE } else { LEASE };
        // The age of a final record decides nothing.
        let ages = self.record.iter_mut().filter(|record| protocol.probers == 0 || !record.ending.is_final());
        ages.for_each(|record| record.silent = longest.min(record.silent + 1));
        if protocol.probers > 0 {
            self.upstream.iter_mut().for_each(|sent| sent.ages.time_passes());
            self.probers.iter_mut().for_each(Prober::time_passes);
        }
        for request in &mut self.requests {
            if matches!(request.stage, Stage::Claiming { .. } | Stage::Owner | Stage::Cleared) {
                older(&mut request.age);
            }
        }
        if protocol.flaw == Some(Flaw::Expires) {
            self.record = self.record.filter(|record| record.ending != Ending::InFlight || record.silent < LEASE);
        }
    }
}
