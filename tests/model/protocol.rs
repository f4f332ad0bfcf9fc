//! All possible next events.

use onlyonce::record::probe::ProbeVerdict;
use stateright::{Model, Property};

use crate::prober::{Prober, ProberStage};
use crate::store::{Id, LEASE};
use crate::world::{End, Message, Past, Request, Stage, World};

/// A protocol, and the number of faults.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// Requests with one key: a first one and its repeats, at any time and through any sidecar.
    pub requests: Id,
    /// `on_unknown = "retry"`; otherwise `"hold"`.
    pub retry: bool,
    /// The number of store calls without a reply.
    pub faults: u8,
    /// The number of calls that are delivered twice, the second time at any time.
    pub duplicates: u8,
    /// The number of crashes.
    pub crashes: u8,
    /// An owner may stop for any time between its last check and the write to the socket.
    pub freezes: bool,
    /// The deliberate error.
    pub flaw: Option<Flaw>,
    /// The number of those who ask the backend about unknown outcomes.
    pub probers: u8,
    /// What was found is stored as the answer. Otherwise, repeats are told that it is done.
    pub found_is_kept: bool,
    /// The backend may run a request at any time after it was sent, also long after its attempt has ended.
    pub runs_late: bool,
}

/// A wrong protocol, in which a violation must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The store loses the record.
    Forgets,
    /// The store writes without comparing.
    Blind,
    /// A claim is a key with a TTL of one lease.
    Expires,
    /// An owner with an old lease sends after a renewal, however long that took.
    TrustsRenewal,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Arrives(Id),
    /// The store carries out a call, and its reply arrives if the caller still waits.
    Delivered(Message),
    /// The same, and the call will arrive once more.
    DeliveredTwice(Message),
    /// Its deadline passes before it arrives, which it does later.
    Late(Message),
    /// Its deadline passes, and it never arrives.
    Lost(Message),
    /// An owner renews: carried out at once, or without a reply. A late reply would only make the owner believe that
    /// its lease is older than it is, which is safe.
    Renews(Id),
    /// A renewal whose deadline passes before it arrives, which it does later.
    RenewsLate(Id),
    /// The owner asks whether it may send.
    Clears(Id),
    Sends(Id),
    Ends(Id, End),
    /// A check for an abandoned claim.
    CleansUp(Id),
    /// The sidecar of these requests dies; a set of bits.
    Crashes(u8),
    StoreForgets,
    TimePasses,
    /// The backend runs the request.
    Runs(Id),
    /// A prober reads the record, and asks.
    Asks(usize),
    /// It gets this answer, and decides.
    Decides(usize, ProbeVerdict),
    /// The store makes its exchange, if the record is still the same.
    Exchanges(usize),
}

impl Model for Protocol {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let request = Request { stage: Stage::Ahead, attempt: 1, age: 0, unanswered: false, seen: None };
        vec![World {
            record: None,
            requests: vec![request; self.requests.into()],
            network: Vec::new(),
            upstream: Vec::new(),
            past: Past::default(),
            faults: self.faults,
            duplicates: self.duplicates,
            crashes: self.crashes,
            probers: vec![Prober::default(); self.probers.into()],
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        // Requests are interchangeable, so they arrive in order.
        let next = world.requests.iter().position(|request| request.stage == Stage::Ahead);
        events.extend(next.map(|next| Event::Arrives(next as Id)));
        for message in &world.network {
            events.push(Event::Delivered(*message));
            if world.duplicates > 0 {
                events.push(Event::DeliveredTwice(*message));
            }
            if world.faults > 0 && !message.ghost {
                events.extend([Event::Late(*message), Event::Lost(*message)]);
            }
        }
        for (id, request) in (0..).zip(&world.requests) {
            self.next_of(id, request, world, events);
        }
        if world.crashes > 0 {
            let alive = (0..).zip(&world.requests).filter(|(_, request)| request.is_at_work());
            let alive: u8 = alive.map(|(id, _): (Id, _)| 1 << id).sum();
            events.extend((1..=alive).filter(|some| some & !alive == 0).map(Event::Crashes));
        }
        if self.probers > 0 {
            let may_run = world.upstream.iter().filter(|sent| sent.may_run(self));
            events.extend(may_run.map(|sent| Event::Runs(sent.by)));
        }
        // Those that are in the same state are interchangeable.
        let first_of_its_kind = |(at, prober): &(usize, &Prober)| !world.probers[..*at].contains(prober);
        for (at, prober) in world.probers.iter().enumerate().filter(first_of_its_kind) {
            match prober.stage {
                ProberStage::Idle => events.extend(prober.looks_at(world.record, self).map(|_| Event::Asks(at))),
                ProberStage::Asking(_) => {
                    events.extend(world.verdicts().map(|verdict| Event::Decides(at, verdict)));
                }
                ProberStage::Completing(..) | ProberStage::Releasing(_) if prober.is_in_time() => {
                    events.push(Event::Exchanges(at));
                }
                ProberStage::Completing(..) | ProberStage::Releasing(_) => {}
            }
        }
        if self.flaw == Some(Flaw::Forgets) && world.record.is_some() && !world.past.freed {
            events.push(Event::StoreForgets);
        }
        events.push(Event::TimePasses);
    }

    fn next_state(&self, before: &World, event: Event) -> Option<World> {
        let mut world = before.clone();
        world.forget_moments();
        world.happens(self, event);
        world.network.sort_unstable();
        world.past.ended =
            world.past.ended.or(world.record.map(|record| record.ending).filter(|ending| ending.is_final()));
        if let (Some(was), Some(is)) = (before.record, world.record) {
            world.past.robbed |= was.owner != is.owner && was.silent < LEASE;
        }
        if before.record.is_some() && world.record.is_none() {
            world.past.freed = true;
            world.upstream.retain(|sent| !sent.failed);
            world.upstream.iter_mut().for_each(|sent| sent.attempt = None);
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::properties::of(self)
    }
}

impl Protocol {
    /// What the sidecar may do next for a request.
    fn next_of(&self, id: Id, request: &Request, world: &World, events: &mut Vec<Event>) {
        if request.is_renewed(id, self) {
            events.push(Event::Renews(id));
            if world.faults > 0 {
                events.push(Event::RenewsLate(id));
            }
        }
        match request.stage {
            Stage::Owner => {
                if request.may_send(self) {
                    events.push(if self.freezes { Event::Clears(id) } else { Event::Sends(id) });
                }
                events.push(Event::Ends(id, End::NotSent));
            }
            Stage::Cleared => events.push(Event::Sends(id)),
            Stage::Sent => {
                // With probers, what runs is an event of its own.
                let ran = world.upstream.iter().any(|sent| sent.by == id && sent.ran);
                let may_be = |end: &End| match end {
                    End::Created | End::Torn => self.probers == 0 || ran,
                    End::Failed => !ran,
                    End::NotSent | End::Silent => true,
                };
                let ends = [End::Created, End::Torn, End::Failed, End::Silent].into_iter().filter(may_be);
                events.extend(ends.map(|end| Event::Ends(id, end)));
            }
            Stage::Orphan => events.push(Event::CleansUp(id)),
            Stage::Ahead | Stage::Claiming { .. } | Stage::Recording(_) | Stage::Over => {}
        }
    }
}
