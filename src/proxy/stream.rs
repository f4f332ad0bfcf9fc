//! `response = "stream"`: waits for the head of the response, or for the end of the attempt.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use http::Response;
use tokio::sync::oneshot;

use super::body::relay::{RelayReader, StreamedHead};
use super::body::relayed::RelayedBody;
use super::body::response::{ProxyResponse, ResponseBody};
use super::upstream::UpstreamBody;
use crate::guard::{AttemptResult, RunningAttempt};

/// What an attempt produced first.
pub(super) enum HeadOrResult {
    /// The head of its response. The body follows as it arrives.
    Head(Box<ProxyResponse>),
    /// Its result. `None`: it panicked.
    Result(Option<AttemptResult<UpstreamBody>>),
}

/// Waits for the head if the caller gets it early, otherwise for the end of the attempt.
pub(super) async fn head_or_result(
    reader: Option<RelayReader>,
    mut running: RunningAttempt<UpstreamBody>,
) -> HeadOrResult {
    let Some(reader) = reader else { return HeadOrResult::Result(running.await) };
    // The attempt writes the head to the relay while it is polled here.
    let begun = poll_fn(|cx| match Pin::new(&mut running).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending => match reader.head() {
            Some(head) => Poll::Ready(Ok(head)),
            None => Poll::Pending,
        },
    });
    match begun.await {
        // The attempt becomes a task: a slow caller must not delay it.
        Ok(head) => HeadOrResult::Head(Box::new(answer(*head, reader, running.detach()))),
        Err(ended) => HeadOrResult::Result(ended),
    }
}

/// The response with this head.
fn answer(
    head: StreamedHead,
    reader: RelayReader,
    ended: oneshot::Receiver<AttemptResult<UpstreamBody>>,
) -> ProxyResponse {
    let StreamedHead { status, headers, length } = head;
    let mut response = Response::new(ResponseBody::Relayed(Box::new(RelayedBody::new(reader, length, ended))));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
