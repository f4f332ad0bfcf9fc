//! Waiting for a batch, and batches that fail.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::store::embedded::batch::Batch;
use crate::store::embedded::frame::{FrameContent, RecordVersion};
use crate::store::embedded::log::LogWrite;
use crate::store::embedded::queue::WriterWork;
use crate::store::embedded::waiters::CommitTicket;

/// Many callers on two runtimes, as on two cores. Every third of them leaves: before the thread is woken, while it
/// writes, or after its batch has ended. If that caller had to write or to wake others, this must still happen. Two
/// segments become full meanwhile.
#[test]
fn whoever_stays_gets_an_answer_whoever_leaves() {
    for durability in [Durability::Disk, Durability::Process] {
        whoever_stays_gets_an_answer(durability);
    }
}

fn whoever_stays_gets_an_answer(durability: Durability) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(folder.path(), &config(durability), HOUR).expect("a store");
    let cores = [store.on_core(), store.on_core()].map(|store| {
        let work = async move {
            let mine = claim(1, RETRY);
            for round in 0..60 {
                let asked = (0..24).map(|number| {
                    let (store, mine) = (store.on_core_of(), mine.clone());
                    async move {
                        let name = name();
                        let claimed = pin!(store.claim(&name, &mine));
                        if number % 3 == round % 3 {
                            polled(claimed, (number + round) % 5).await;
                        } else {
                            claimed.await.expect("an answer");
                        }
                    }
                });
                let asked: Vec<_> = asked.map(|asks| tokio::task::spawn_local(asks)).collect();
                for asks in asked {
                    asks.await.expect("no panic");
                }
            }
        };
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, work);
        })
    });
    for core in cores {
        core.join().expect("no panic");
    }
}

/// Polls the future at most so many times, and then leaves it.
async fn polled<F: Future>(mut future: Pin<&mut F>, mut times: u32) {
    poll_fn(|cx| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        future.as_mut().poll(cx).map(drop)
    })
    .await;
}

impl Embedded {
    /// Another caller on the same core.
    fn on_core_of(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), waiters: Arc::clone(&self.waiters) }
    }
}

/// A queue without a thread. The test writes its batches.
fn queue(folder: &TempDir) -> (RecordLog, CommitQueue, Arc<CurrentCondition>) {
    let log = RecordLog::open(folder.path(), Durability::Process).expect("a store").log;
    let condition = Arc::new(CurrentCondition::new(Condition::Up));
    let queue = CommitQueue::new(log.view.clone(), Arc::default(), Arc::new(Clock::start(0)), condition.clone());
    (log, queue, condition)
}

fn ask(queue: &CommitQueue, name: &RecordName, token: u8) -> Result<(Claimed, Option<CommitTicket>), StoreError> {
    let asked = queue.carry_out(name, Purpose::Begin, None, |on| on.claim(&claim(token, RETRY), 0))?;
    Ok((asked.0.expect("readable"), asked.1))
}

fn begun(queue: &CommitQueue) -> Arc<Batch> {
    match queue.take() {
        WriterWork::Write(batch) => batch,
        _ => panic!("nothing has gathered"),
    }
}

#[tokio::test]
async fn what_gathers_behind_a_write_that_fails_was_certainly_never_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, queue, condition) = queue(&folder);
    let waiters = queue.waiters();
    let names = [name(), name(), name()];
    let tickets: Vec<_> = (0..3)
        .map(|at| {
            let (claimed, ticket) = ask(&queue, &names[at], 1).expect("it is up");
            assert!(matches!(claimed, Claimed::Granted(_)));
            if at == 0 {
                let batch = begun(&queue);
                batch.commit(&mut log, 1).expect("written");
                queue.finish(&batch, log.open_segment().0);
            } else if at == 1 {
                begun(&queue);
            }
            ticket.expect("it is not written yet")
        })
        .collect();
    // A caller that finds an unwritten record waits for it, too.
    let (refused, ticket) = ask(&queue, &names[1], 2).expect("it is up");
    assert!(matches!(refused, Claimed::Refused(_)));
    queue.fail(true, Condition::Broken);
    let results = [tickets[0], tickets[1], tickets[2], ticket.expect("it waits")];
    let mut told = Vec::new();
    for ticket in results {
        told.push(Commit::new(&queue, &waiters, None, ticket).await);
    }
    let fine = matches!(
        &told[..],
        [Ok(()), Err(StoreError::Uncertain(_)), Err(StoreError::Refused(_)), Err(StoreError::Uncertain(_))]
    );
    assert!(fine, "{told:?}");
    assert!(matches!(ask(&queue, &name(), 1), Err(StoreError::Refused(_))));
    // The queue goes on from what is written.
    condition.set(Condition::Up);
    for (at, is_there) in [(0, true), (1, false), (2, false)] {
        let (claimed, _) = ask(&queue, &names[at], 3).expect("it is up");
        assert_eq!(matches!(claimed, Claimed::Refused(_)), is_there, "{at}");
    }
}

#[tokio::test]
async fn what_is_written_stays_so_when_something_else_fails_before_its_owner_looks() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, queue, _) = queue(&folder);
    let waiters = queue.waiters();
    let (_, ticket) = ask(&queue, &name(), 1).expect("it is up");
    let batch = begun(&queue);
    batch.commit(&mut log, 1).expect("written");
    queue.finish(&batch, log.open_segment().0);
    // This failure does not belong to the batch: for example, room could not be given back.
    queue.fail(true, Condition::Broken);
    Commit::new(&queue, &waiters, None, ticket.expect("it was not written yet")).await.expect("written");
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_stands_behind_those_of_the_next_batch_is_woken_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, queue, _) = queue(&folder);
    let waiters = queue.waiters();
    let (first, second) = (name(), name());
    ask(&queue, &first, 1).expect("it is up");
    let batch = begun(&queue);
    // One caller waits for the next batch. A later one finds the batch that is being written, and waits for that.
    let tickets = [(&second, 1), (&first, 2)].map(|(name, token)| ask(&queue, name, token).expect("it is up").1);
    let mut waiting = tickets.map(|ticket| {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        (Box::pin(Commit::new(&queue, &waiters, None, ticket.expect("it is not written yet"))), woken)
    });
    for (commit, woken) in &mut waiting {
        let waker = Waker::from(Arc::clone(woken));
        // The first poll may only give other tasks their turn.
        for _ in 0..2 {
            assert!(commit.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        woken.0.store(false, Ordering::Relaxed);
    }
    batch.commit(&mut log, 1).expect("written");
    queue.finish(&batch, log.open_segment().0);
    assert_eq!(waiting.each_ref().map(|(_, woken)| woken.0.load(Ordering::Relaxed)), [false, true]);
}

/// A caller whose timeout is over leaves its chunks, and may try again.
#[test]
fn a_disk_that_hangs_gathers_the_chunks_of_one_try() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, queue, _) = queue(&folder);
    let chunk = || {
        let content = FrameContent::Chunk(vec![vec![7; 1000].into()]);
        let version = RecordVersion { expires_at: u64::MAX, kept_until: u64::MAX, content };
        vec![LogWrite { name: name(), version, replaces: None, record_sum: None }]
    };
    queue.add_chunks(chunk()).expect("taken");
    let batch = begun(&queue);
    // The write of the first chunk hangs, and another one gathers.
    queue.add_chunks(chunk()).expect("taken");
    for _ in 0..3 {
        assert!(matches!(queue.add_chunks(chunk()), Err(StoreError::Refused(_))));
    }
    batch.commit(&mut log, 1).expect("written");
    queue.finish(&batch, log.open_segment().0);
    let batch = begun(&queue);
    queue.add_chunks(chunk()).expect("taken");
    batch.commit(&mut log, 1).expect("written");
}

#[test]
fn a_write_that_panics_on_a_core_is_never_taken_for_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, queue, condition) = queue(&folder);
    log.panics = true;
    let core = CoreWriter::new(Arc::new(Mutex::new(log)), Arc::new(Clock::start(0)));
    let (lost, other) = (name(), name());
    let (_, ticket) = ask(&queue, &lost, 1).expect("it is up");
    catch_unwind(AssertUnwindSafe(|| core.write(&queue))).expect_err("it panics");
    assert_eq!(condition.get(), Condition::Broken);
    condition.set(Condition::Up);
    let (_, next) = ask(&queue, &other, 1).expect("it is up");
    assert!(core.write(&queue));
    assert!(matches!(queue.result(next.expect("it was not written yet")), Some(Ok(()))));
    let told = queue.result(ticket.expect("it was not written yet"));
    assert!(matches!(told, Some(Err(StoreError::Uncertain(_)))), "{told:?}");
    let (claimed, _) = ask(&queue, &lost, 2).expect("it is up");
    assert!(matches!(claimed, Claimed::Granted(_)));
}
