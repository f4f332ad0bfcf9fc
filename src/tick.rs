//! Coarse timers: one tick for all waiters of a thread.
//!
//! A timer of tokio costs an entry in its wheel, and often a system call that wakes the driver, for each request.
//! Nearly all of them are dropped before they are due. Here a timer is an entry in a list of its thread. One tokio
//! timer looks at the list at its earliest deadline, but never more often than every [`TICK`]. So a deadline may be
//! noticed up to one tick late, and never early. Nothing ticks while nobody waits.
//!
//! These timers limit how long a client, a backend or a body may take. Decisions about records read the clock
//! ([`crate::clock`]) and do not depend on a tick.
//!
//! The one timer behind them is tokio's, so tests that pause tokio's clock pause these too.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::time::Instant;

/// How late a deadline may be noticed.
pub const TICK: Duration = Duration::from_millis(50);

/// A future that ends at its deadline.
#[must_use = "it waits only while it is polled"]
pub struct Sleep {
    deadline: Instant,
    place: Option<TimerEntry>,
    is_over: bool,
}

/// Waits for this time.
pub fn sleep(duration: Duration) -> Sleep {
    let now = Instant::now();
    // Practically for ever.
    const FAR: Duration = Duration::from_secs(86_400 * 365);
    sleep_until(now.checked_add(duration).unwrap_or(now + FAR))
}

/// Waits until this time.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, place: None, is_over: false }
}

/// A future with a deadline. The caller pins it: by value it would need its memory twice.
#[must_use = "it waits only while it is polled"]
pub struct Timeout<F> {
    future: F,
    sleep: Sleep,
}

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time is up")]
pub struct Elapsed;

/// Limits a future to this time.
pub fn timeout<F: Future + Unpin>(duration: Duration, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep(duration) }
}

/// Limits a future to this point in time.
pub fn timeout_at<F: Future + Unpin>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout { future, sleep: sleep_until(deadline) }
}

/// A signal, raised once, that ends all sleeps: whoever waits for a time is woken and looks at the flag.
///
/// A waiter pays one load, where a shared list of wakers would cost it a lock. To be reached, a waiter must wait with a
/// [`Sleep`] and look at the flag after each poll.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Raises it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
        let tickers: Vec<_> = TICKERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tickers.iter().filter_map(Weak::upgrade).for_each(|ticker| ticker.rouse());
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sleeps for this time, or until the flag is raised; then it returns `false`.
    pub async fn sleep(&self, duration: Duration) -> bool {
        let mut sleep = sleep(duration);
        poll_fn(|cx| match Pin::new(&mut sleep).poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if self.is_raised() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// All lists, for [`Flag::raise`].
static TICKERS: Mutex<Vec<Weak<Ticker>>> = Mutex::new(Vec::new());

thread_local! {
    /// The list of this thread, and the runtime that drives it.
    static HERE: RefCell<Option<(runtime::Id, Arc<Ticker>)>> = const { RefCell::new(None) };
}

/// The waiters, and when the driver looks next.
struct Ticker(Mutex<TimerList>);

struct TimerList {
    slots: Vec<TimerSlot>,
    /// The first free slot.
    free: Option<usize>,
    /// When the driver looked last.
    looked: Instant,
    /// When it looks next. `None`: nobody waits.
    next: Option<Instant>,
    driver: Option<Waker>,
    /// The runtime has ended, and nothing drives this list any more.
    is_over: bool,
}

enum TimerSlot {
    /// Free, with the next free one.
    Free(Option<usize>),
    Waiting(Instant, Waker),
    /// The deadline has passed.
    Due,
}

/// A slot. It is free again when this is dropped.
struct TimerEntry {
    ticker: Arc<Ticker>,
    slot: usize,
}

impl Ticker {
    /// The list of this thread, made at its first use.
    fn here() -> Arc<Self> {
        let runtime = Handle::current();
        HERE.with_borrow_mut(|here| match here {
            Some((id, ticker)) if *id == runtime.id() && !ticker.list().is_over => Arc::clone(ticker),
            here => {
                let ticker = Self::start(&runtime);
                *here = Some((runtime.id(), Arc::clone(&ticker)));
                ticker
            }
        })
    }

    fn start(runtime: &Handle) -> Arc<Self> {
        let ticker = Arc::new(Self(Mutex::new(TimerList {
            slots: Vec::new(),
            free: None,
            looked: Instant::now(),
            next: None,
            driver: None,
            is_over: false,
        })));
        let mut tickers = TICKERS.lock().unwrap_or_else(PoisonError::into_inner);
        tickers.retain(|ticker| ticker.strong_count() > 0);
        tickers.push(Arc::downgrade(&ticker));
        drop(tickers);
        // The task ends with its runtime.
        runtime.spawn(drive(TickDriver(Arc::clone(&ticker))));
        ticker
    }

    fn list(&self) -> MutexGuard<'_, TimerList> {
        // Every step leaves the list whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(self: Arc<Self>, deadline: Instant, waker: &Waker) -> TimerEntry {
        let mut list = self.list();
        let waiting = TimerSlot::Waiting(deadline, waker.clone());
        let slot = match list.free {
            Some(slot) => {
                if let TimerSlot::Free(next) = std::mem::replace(&mut list.slots[slot], waiting) {
                    list.free = next;
                }
                slot
            }
            None => {
                list.slots.push(waiting);
                list.slots.len() - 1
            }
        };
        let at = deadline.max(list.looked + TICK);
        if list.next.is_none_or(|next| at < next) {
            list.next = Some(at);
            let driver = list.driver.clone();
            drop(list);
            // Before its first poll, the driver has no waker. It looks then anyway.
            if let Some(driver) = driver {
                driver.wake();
            }
        } else {
            drop(list);
        }
        TimerEntry { ticker: self, slot }
    }

    /// Wakes the waiters whose deadline has passed, and returns when to look again.
    fn look(&self, now: Instant, driver: &Waker) -> Option<Instant> {
        // Wakers run outside of the lock: what they wake or drop may use this list.
        let mut due = Vec::new();
        let mut list = self.list();
        let is_due = now >= list.looked + TICK;
        if is_due {
            list.looked = now;
        }
        let mut earliest = None::<Instant>;
        for slot in &mut list.slots {
            let TimerSlot::Waiting(deadline, _) = slot else { continue };
            if is_due && *deadline <= now {
                if let TimerSlot::Waiting(_, waker) = std::mem::replace(slot, TimerSlot::Due) {
                    due.push(waker);
                }
            } else {
                earliest = Some(earliest.map_or(*deadline, |earliest| earliest.min(*deadline)));
            }
        }
        let next = earliest.map(|earliest| earliest.max(list.looked + TICK));
        list.next = next;
        let before = list.driver.replace(driver.clone());
        drop(list);
        drop(before);
        due.into_iter().for_each(Waker::wake);
        next
    }

    /// Wakes all waiters, due or not.
    fn rouse(&self) {
        let list = self.list();
        let wakers: Vec<_> = list.slots.iter().filter_map(TimerSlot::waker).cloned().collect();
        drop(list);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl TimerSlot {
    fn waker(&self) -> Option<&Waker> {
        match self {
            Self::Waiting(_, waker) => Some(waker),
            Self::Free(_) | Self::Due => None,
        }
    }
}

/// Drives a list for as long as its runtime lives.
struct TickDriver(Arc<Ticker>);

async fn drive(driver: TickDriver) {
    let ticker = &driver.0;
    loop {
        // Woken when an earlier deadline is registered.
        let next = poll_fn(|cx| Poll::Ready(ticker.look(Instant::now(), cx.waker()))).await;
        let mut sleep = pin!(tokio::time::sleep_until(next.unwrap_or_else(Instant::now)));
        poll_fn(|cx| {
            if ticker.list().next != next {
                return Poll::Ready(());
            }
            if next.is_some() { sleep.as_mut().poll(cx) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for TickDriver {
    fn drop(&mut self) {
        self.0.list().is_over = true;
        // Whoever still waits finds another list.
        self.0.rouse();
    }
}

impl TimerEntry {
    /// Whether the deadline has passed. `None`: nothing drives this list any more.
    fn poll(&self, cx: &Context<'_>) -> Option<Poll<()>> {
        let mut list = self.ticker.list();
        let is_over = list.is_over;
        let mut before = None;
        let polled = match &mut list.slots[self.slot] {
            TimerSlot::Waiting(_, waker) => {
                if !waker.will_wake(cx.waker()) {
                    before = Some(std::mem::replace(waker, cx.waker().clone()));
                }
                Poll::Pending
            }
            TimerSlot::Due | TimerSlot::Free(_) => Poll::Ready(()),
        };
        drop(list);
        drop(before);
        (polled.is_ready() || !is_over).then_some(polled)
    }
}

impl Drop for TimerEntry {
    fn drop(&mut self) {
        let mut list = self.ticker.list();
        let free = TimerSlot::Free(list.free);
        let waiting = std::mem::replace(&mut list.slots[self.slot], free);
        list.free = Some(self.slot);
        drop(list);
        drop(waiting);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        let polled = self.place.as_ref().and_then(|place| place.poll(cx));
        match polled {
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(())) => (self.is_over, self.place) = (true, None),
            None => {
                self.place = Some(Ticker::here().wait(self.deadline, cx.waker()));
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl<F: Future + Unpin> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

#[cfg(test)]
mod tests;
