//! Which task polls an attempt.
//!
//! While its client waits, the task of the client's connection polls it. It becomes a task of its own in three cases:
//! its client leaves, the response takes too long, or the head of the response is passed on early. From then on, a slow
//! client can delay neither the attempt nor its record. Dropping the request does not stop the attempt.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::attempt::{AttemptResult, Finished};

/// A running attempt. If it is dropped before its end, it goes on as a task.
#[must_use = "the attempt waits for this to be polled, or dropped"]
pub struct RunningAttempt<R: Send + 'static> {
    work: Option<AttemptFuture<R>>,
    /// Where it goes on. `drop` may run outside of a runtime.
    runtime: Handle,
}

type AttemptFuture<R> = Pin<Box<dyn Future<Output = Finished<R>> + Send>>;

impl<R: Send + 'static> RunningAttempt<R> {
    pub(super) fn new(work: impl Future<Output = Finished<R>> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), runtime: Handle::current() }
    }

    /// Spawns it as a task, and returns where its result arrives. An error there: it panicked.
    pub fn detach(mut self) -> oneshot::Receiver<AttemptResult<R>> {
        let (client, answer) = oneshot::channel();
        if let Some(work) = self.work.take() {
            self.runtime.spawn(go_on(work, Some(client)));
        }
        answer
    }
}

/// The attempt as a task.
async fn go_on<R>(work: AttemptFuture<R>, client: Option<oneshot::Sender<AttemptResult<R>>>) {
    let Finished { ended, recorded } = work.await;
    if client.is_none_or(|client| client.send(ended).is_err()) {
        recorded.is_late();
    }
    recorded.finish().await;
}

impl<R: Send + 'static> Future for RunningAttempt<R> {
    /// `None`: it panicked.
    type Output = Option<AttemptResult<R>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        // A panic stays inside the attempt: its client gets an error, and the connection goes on. The panic has dropped
        // what the attempt held, and it is not polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        let finished = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(finished)) => Some(finished),
            Err(_) => None,
        };
        self.work = None;
        Poll::Ready(finished.map(|Finished { ended, recorded }| {
            if !recorded.is_done() {
                self.runtime.spawn(recorded.finish());
            }
            ended
        }))
    }
}

impl<R: Send + 'static> Drop for RunningAttempt<R> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(go_on(work, None));
        }
    }
}
