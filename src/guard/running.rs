//! Who polls an attempt: the request that began it, for as long as that waits, and a task of its own from then on.
//!
//! While its client waits, an attempt needs no task: the request's own is woken when there is something to do. It becomes
//! one when its client leaves, is told that it takes too long, or has the head of the answer: from then on, whoever reads
//! slowly, or not at all, must hold up neither the attempt nor its record. Whatever drops the request, the attempt goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::attempt::{AttemptResult, Finished};

/// An attempt at work. Dropped before its end, it goes on without its client.
#[must_use = "the attempt waits for this to be polled, or dropped"]
pub struct RunningAttempt<R: Send + 'static> {
    work: Option<AttemptFuture<R>>,
    /// Where it goes on: a drop knows of no runtime.
    runtime: Handle,
}

type AttemptFuture<R> = Pin<Box<dyn Future<Output = Finished<R>> + Send>>;

impl<R: Send + 'static> RunningAttempt<R> {
    pub(super) fn new(work: impl Future<Output = Finished<R>> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), runtime: Handle::current() }
    }

    /// Makes it a task of its own, and says where its client is told of its end: an error, if it panicked.
    pub fn detach(mut self) -> oneshot::Receiver<AttemptResult<R>> {
        let (client, answer) = oneshot::channel();
        if let Some(work) = self.work.take() {
            self.runtime.spawn(go_on(work, Some(client)));
        }
        answer
    }
}

/// What is left of an attempt.
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
        // A panic is the attempt's own: its client is told, and its connection answers other requests. What the attempt
        // held is dropped by the panic, and nobody polls it again.
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
