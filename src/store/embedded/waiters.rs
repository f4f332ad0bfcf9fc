//! Who waits for the end of a batch.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::core_writer::CoreWriter;
use super::queue::CommitQueue;
use crate::store::StoreError;

/// The batch that an operation waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitTicket(pub(super) u64);

/// Those on one core who wait for the end of a batch, in the order in which they came. Whoever writes wakes the first one,
/// and that one all others: from another thread each would be a system call.
#[derive(Default)]
pub(super) struct Waiters(Mutex<WaiterList>);

#[derive(Default)]
struct WaiterList {
    waiting: VecDeque<Waiter>,
    next: u64,
    /// None of them waits for an earlier batch than this.
    earliest: u64,
    /// One of them comes in its next turn, has what gathered until then written, and wakes all whose batch is finished.
    has_leader: bool,
}

struct Waiter {
    number: u64,
    batch: u64,
    waker: Waker,
}

impl Waiters {
    fn list(&self) -> MutexGuard<'_, WaiterList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one of those whose batch is finished, unless one comes by itself. It wakes the others, when it is polled or
    /// dropped.
    pub(super) fn wake_first(&self, finished: u64) {
        let mut list = self.list();
        if list.has_leader {
            return;
        }
        let first = list.take_first(finished);
        drop(list);
        // Whoever is woken may come here at once: the lock is free again.
        if let Some(waiter) = first {
            waiter.waker.wake();
        }
    }

    fn wake_all(&self, finished: u64) {
        loop {
            let first = self.list().take_first(finished);
            let Some(waiter) = first else { return };
            waiter.waker.wake();
        }
    }

    /// Whether the caller is to come in its next turn: nobody else on this core is going to.
    fn lead(&self) -> bool {
        !std::mem::replace(&mut self.list().has_leader, true)
    }

    /// From now on, whoever finishes a batch wakes somebody here again.
    fn end_lead(&self) {
        self.list().has_leader = false;
    }
}

impl WaiterList {
    fn add(&mut self, batch: u64, waker: Waker) -> u64 {
        let number = self.next;
        self.next += 1;
        self.earliest = self.earliest.min(batch);
        self.waiting.push_back(Waiter { number, batch, waker });
        number
    }

    /// Takes out the first whose batch is finished. Who found a record that is being written waits for that batch, and may
    /// stand behind those who wait for the next one.
    fn take_first(&mut self, finished: u64) -> Option<Waiter> {
        if self.earliest > finished {
            // Everyone who leaves comes here: a look at all of them each time would be too much.
            return None;
        }
        let first = self.waiting.iter().position(|waiter| waiter.batch <= finished);
        if first.is_none() {
            self.earliest = self.waiting.iter().map(|waiter| waiter.batch).min().unwrap_or(u64::MAX);
        }
        self.waiting.remove(first?)
    }

    fn find(&mut self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }
}

/// Ends when a batch is written.
#[must_use = "it waits only while it is polled"]
pub(super) struct Commit<'a> {
    queue: &'a CommitQueue,
    waiters: &'a Waiters,
    /// Where cores write.
    writer: Option<&'a CoreWriter>,
    ticket: CommitTicket,
    duty: Duty,
    /// Its number among those who wait.
    place: Option<u64>,
}

/// What it still has to do, so that the batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// It was not polled yet.
    Undecided,
    /// To write, or to have it written: after all who are ready on this core had their turn, for what they change is
    /// written with it. Where the core is busy, nobody could go on before that anyway, and one sync does for more.
    Due,
    /// Others see to it.
    None,
}

impl<'a> Commit<'a> {
    pub(super) fn new(
        queue: &'a CommitQueue,
        waiters: &'a Waiters,
        writer: Option<&'a CoreWriter>,
        ticket: CommitTicket,
    ) -> Self {
        Self { queue, waiters, writer, ticket, duty: Duty::Undecided, place: None }
    }
}

impl Future for Commit<'_> {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.duty {
            Duty::Undecided if self.waiters.lead() => {
                self.duty = Duty::Due;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Duty::Undecided => self.duty = Duty::None,
            Duty::Due => self.write(),
            Duty::None => {}
        }
        let (queue, waiters, ticket) = (self.queue, self.waiters, self.ticket);
        if let Some(result) = queue.result(ticket) {
            return self.end(result);
        }
        let mut list = waiters.list();
        // What ends from here on finds it in the list.
        if let Some(result) = queue.result(ticket) {
            drop(list);
            return self.end(result);
        }
        match self.place.and_then(|place| list.find(place)) {
            Some(at) => list.waiting[at].waker.clone_from(cx.waker()),
            None => self.place = Some(list.add(ticket.0, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Commit<'_> {
    fn write(&mut self) {
        self.duty = Duty::None;
        // Before it is written: who comes from now on may not be in what is.
        self.waiters.end_lead();
        if !self.writer.is_some_and(|writer| writer.write(self.queue)) {
            self.queue.make_due();
        }
        // Whoever finished a batch until now has woken nobody here.
        self.waiters.wake_all(self.queue.finished());
    }

    fn end(&mut self, result: Result<(), StoreError>) -> Poll<Result<(), StoreError>> {
        self.leave();
        Poll::Ready(result)
    }

    /// It may be the one that was woken for all.
    fn leave(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut list = self.waiters.list();
        if let Some(at) = list.find(place) {
            list.waiting.remove(at);
        }
        drop(list);
        self.waiters.wake_all(self.queue.finished());
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        match self.duty {
            Duty::Undecided => self.queue.make_due(),
            // Its client has left; others count on it.
            Duty::Due => self.write(),
            Duty::None => {}
        }
        self.leave();
    }
}
