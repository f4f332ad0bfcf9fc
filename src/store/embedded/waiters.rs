//! The tasks that wait for the end of a batch.

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

/// The waiters of one core, in the order in which they came. The writer wakes only the first one, which wakes all
/// others: each wake-up from another thread is a system call.
#[derive(Default)]
pub(super) struct Waiters(Mutex<WaiterList>);

#[derive(Default)]
struct WaiterList {
    waiting: VecDeque<Waiter>,
    next: u64,
    /// No waiter waits for an earlier batch than this.
    earliest: u64,
    /// One waiter, the leader, has a turn ahead of it. In that turn it has the gathered changes written, and wakes all
    /// waiters whose batch is finished.
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

    /// Wakes the first waiter whose batch is finished. It wakes the others when it is polled or dropped. Wakes none
    /// while there is a leader, which wakes them all.
    pub(super) fn wake_first(&self, finished: u64) {
        let mut list = self.list();
        if list.has_leader {
            return;
        }
        let first = list.take_first(finished);
        drop(list);
        // The waker may call back into this list, so the lock is released first.
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

    /// Whether the caller becomes the leader: it does if this core has none.
    fn lead(&self) -> bool {
        !std::mem::replace(&mut self.list().has_leader, true)
    }

    /// Ends the leadership. From now on, the end of a batch wakes a waiter of this core again.
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

    /// Takes out the first waiter whose batch is finished. It may be behind waiters for a later batch: an operation
    /// that finds a record in the batch being written waits for that batch, even if others already wait for the next
    /// one.
    fn take_first(&mut self, finished: u64) -> Option<Waiter> {
        if self.earliest > finished {
            // Every waiter that leaves calls this. It cannot search the whole list each time.
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
    /// `Some` where cores write.
    writer: Option<&'a CoreWriter>,
    ticket: CommitTicket,
    duty: Duty,
    /// The number of its [`Waiter`].
    place: Option<u64>,
}

/// What this waiter still has to do, so that the batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// It has not been polled yet.
    Undecided,
    /// It is the leader: it writes the batch, or has the thread write it. All tasks that are ready on this core have
    /// their turn first, so that the same batch holds their changes. On a busy core no task could continue earlier
    /// anyway, and one sync covers more changes.
    Due,
    /// Another waiter has the batch written.
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
        // A batch that ends from here on finds this waiter in the list.
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
        // Before the write: a waiter that comes from now on may not be in this batch, and needs another leader.
        self.waiters.end_lead();
        if !self.writer.is_some_and(|writer| writer.write(self.queue)) {
            self.queue.make_due();
        }
        // Batches that ended under a leader woke no waiter of this core.
        self.waiters.wake_all(self.queue.finished());
    }

    fn end(&mut self, result: Result<(), StoreError>) -> Poll<Result<(), StoreError>> {
        self.leave();
        Poll::Ready(result)
    }

    /// Leaves the list, and wakes the others: this waiter may be the one that was woken for all.
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
            // Its client has left, but other waiters depend on the leader.
            Duty::Due => self.write(),
            Duty::None => {}
        }
        self.leave();
    }
}
