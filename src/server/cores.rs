//! The threads that answer requests. Each has its own runtime.
//!
//! The main thread accepts a connection and hands it to the core with the least load. There it stays, with all of its
//! requests and with the connections to the backend and to the store that these use. So nothing that a request waits
//! for wakes another thread.
//!
//! One socket listens, and not one for each core (SO_REUSEPORT). With that option the kernel would let a second process
//! listen on the same address, which must be refused; and it distributes connections by a hash of their addresses, so
//! that two clients may end on one core. Handing over wakes a thread once for each connection, not for each request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::Threads;

/// The cores of one sidecar. They end when this is dropped.
pub struct Cores {
    cores: Vec<Core>,
    /// Where the search for the least load begins, so that equal cores take turns.
    turn: AtomicUsize,
    /// Cancelled when a core has ended without being told to.
    broken: CancellationToken,
    threads: TaskTracker,
    /// Tells the cores to end.
    stop: CancellationToken,
    _stop: DropGuard,
}

/// One thread, and what runs on it.
pub(super) struct Core {
    pub(super) runtime: Handle,
    pub(super) load: Arc<CoreLoad>,
}

/// The load of one core: its connections, and its streams of HTTP/2.
#[derive(Default)]
pub(super) struct CoreLoad(AtomicUsize);

/// One connection or stream, counted until this is dropped.
pub(super) struct LoadGuard(Arc<CoreLoad>);

/// The most cores that `auto` uses: a sidecar shares its machine.
const AUTO_AT_MOST: usize = 4;

/// Threads for blocking work, in all: the default of Tokio for one runtime. They are started when they are needed.
const BLOCKING: usize = 512;

/// The least number of them for each core, so that a few that hang do not stop the others.
const BLOCKING_AT_LEAST: usize = 16;

/// The number of cores on this machine. The standard library knows the scheduler's mask and the quota of the control
/// group, in both versions (cpu.max, cpu.cfs_quota_us), rounded down.
fn number(threads: Threads) -> usize {
    match threads {
        Threads::Auto => thread::available_parallelism().map_or(1, |count| count.get().min(AUTO_AT_MOST)),
        Threads::Count(count) => count,
    }
}

impl Cores {
    /// Starts the threads, which are idle at first.
    pub fn start(threads: Threads) -> io::Result<Self> {
        Self::start_with(number(threads), |runtime, stop| runtime.block_on(stop.cancelled()))
    }

    fn start_with(count: usize, life: fn(&Runtime, &CancellationToken)) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (broken, threads) = (CancellationToken::new(), TaskTracker::new());
        let guard = stop.clone().drop_guard();
        let mut cores = Vec::with_capacity(count);
        for number in 0..count {
            let mut runtime = Builder::new_current_thread();
            runtime.enable_all().max_blocking_threads((BLOCKING / count).max(BLOCKING_AT_LEAST));
            let runtime = runtime.on_thread_unpark(clock::note_events_read).build()?;
            let load = Arc::<CoreLoad>::default();
            cores.push(Core { runtime: runtime.handle().clone(), load: Arc::clone(&load) });
            let (stop, alarm) = (stop.clone(), PanicAlarm { broken: broken.clone(), load, is_off: false });
            let counted = threads.token();
            thread::Builder::new().name(format!("onlyonce-core-{number}")).spawn(move || {
                let mut alarm = alarm;
                life(&runtime, &stop);
                alarm.is_off = true;
                // Blocking work that is still running is left to the end of the process.
                runtime.shutdown_background();
                drop(counted);
            })?;
        }
        threads.close();
        Ok(Self { cores, turn: AtomicUsize::new(0), broken, threads, stop, _stop: guard })
    }

    /// The number of cores; at least one.
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// Their runtimes, in order.
    pub fn runtimes(&self) -> Vec<Handle> {
        self.cores.iter().map(|core| core.runtime.clone()).collect()
    }

    /// The core with the least load, and its number.
    pub(super) fn least_loaded(&self) -> (usize, &Core) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.cores.len();
        let in_turn = (turn..self.cores.len()).chain(0..turn);
        let least = in_turn.min_by_key(|number| self.cores[*number].load.get()).unwrap_or(turn);
        (least, &self.cores[least])
    }

    /// Waits until a core has ended without being told to. That is a panic of the runtime itself: a panic of a task
    /// ends only the task.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Ends them, with everything that still runs there.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.threads.wait().await;
    }
}

impl CoreLoad {
    pub(super) fn count(self: &Arc<Self>) -> LoadGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        LoadGuard(Arc::clone(self))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Signals when its thread unwinds.
struct PanicAlarm {
    broken: CancellationToken,
    load: Arc<CoreLoad>,
    is_off: bool,
}

/// The load of a core that has ended: never the least.
const GONE: usize = usize::MAX / 2;

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if !self.is_off {
            self.load.0.fetch_add(GONE, Ordering::Relaxed);
            self.broken.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(cores: &Cores) -> Vec<usize> {
        cores.cores.iter().map(|core| core.load.get()).collect()
    }

    #[tokio::test]
    async fn connections_are_spread_evenly_however_few_they_are() {
        for count in [1, 2, 3, 4] {
            let cores = Cores::start(Threads::Count(count)).expect("threads");
            let mut connections = Vec::new();
            for number in 1..=12 {
                connections.push(cores.least_loaded().1.load.count());
                let (least, most) = (number / count, number.div_ceil(count));
                assert!(loads(&cores).iter().all(|load| (least..=most).contains(load)), "{:?}", loads(&cores));
            }
            cores.stop().await;
        }
    }

    #[tokio::test]
    async fn the_next_connections_go_where_others_have_ended() {
        let cores = Cores::start(Threads::Count(2)).expect("threads");
        // Streams of HTTP/2 count as well.
        let busy: Vec<LoadGuard> = (0..5).map(|_| cores.cores[1].load.count()).collect();
        let taken: Vec<LoadGuard> = (0..5)
            .map(|_| {
                let (number, core) = cores.least_loaded();
                assert_eq!(number, 0);
                core.load.count()
            })
            .collect();
        drop(busy);
        assert_eq!(cores.least_loaded().0, 1);
        drop(taken);
        assert_eq!(loads(&cores), [0, 0]);
    }

    #[tokio::test]
    async fn a_task_that_panics_takes_no_core_down() {
        let cores = Cores::start(Threads::Count(1)).expect("threads");
        let runtime = &cores.cores[0].runtime;
        assert!(runtime.spawn(async { panic!("of a task") }).await.is_err());
        assert_eq!(runtime.spawn(async { 7 }).await.expect("it runs"), 7);
        assert!(!cores.broken.is_cancelled());
    }

    #[tokio::test]
    async fn a_core_that_ends_by_itself_is_noticed_and_gets_nothing_more() {
        let cores = Cores::start_with(2, |runtime, stop| {
            if thread::current().name() == Some("onlyonce-core-1") {
                panic!("of a runtime");
            }
            runtime.block_on(stop.cancelled());
        });
        let cores = cores.expect("threads");
        cores.broken().await;
        for _ in 0..4 {
            assert_eq!(cores.least_loaded().0, 0);
        }
        cores.stop().await;
    }

    #[tokio::test]
    async fn what_runs_on_a_core_ends_with_it() {
        let cores = Cores::start(Threads::Count(1)).expect("threads");
        let forever = cores.cores[0].runtime.spawn(std::future::pending::<()>());
        cores.stop().await;
        assert!(forever.await.expect_err("it never ends").is_cancelled());
    }
}
