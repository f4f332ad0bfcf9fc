//! Forwards a request without guarding it.

use std::error::Error;

use http::Request;
use hyper::body::Body;
use tokio::time::Instant;

use super::body::idle_timeout::IdleTimeoutBody;
use super::body::incoming::IncomingBody;
use super::body::progress::{BodyProgress, BodyStage};
use super::body::request::RequestBody;
use super::body::response::{ProxyResponse, ResponseBody};
use super::client::Client;
use super::head::{self, Head};
use super::refusal;
use super::state::Proxy;
use super::tunnel::UpgradeRequest;
use super::upstream::SendError;
use crate::metrics::RequestOutcome;
use crate::problem::Problem;

impl Proxy {
    /// Forwards the request as it is. With `again`, it may be sent twice if the connection breaks.
    pub(super) async fn pass(
        &self,
        route: &str,
        mut head: Head,
        body: RequestBody,
        client: &Client,
        again: bool,
    ) -> Result<ProxyResponse, Problem> {
        let wish = self.wish(&mut head, &body);
        self.cross(&mut head, &body, client);
        let mut span = head.trace.client(&head.method);
        span.inject(&mut head.headers);
        if let Some(wish) = &wish {
            wish.pass_on(&mut head.headers);
        }
        let again = again && wish.is_none();
        let progress = body.progress();
        let leaving = AbortedUpload { proxy: self, route, progress: &progress, begun: progress.since() };
        let mut request = Request::from_parts(head.into_parts(), body);
        // The time limit of the backend begins after the last byte of the request: a long upload does not count.
        let sent = tokio::select! {
            biased;
            sent = self.upstream.forward(&mut request, again) => Ok(sent),
            () = progress.stalled(self.upstream.settings().response_timeout) => Err(refusal::too_late()),
        };
        leaving.disarm();
        match sent {
            Ok(Ok(mut response)) => {
                span.status(response.status());
                if response.body_mut().is_broken().await {
                    tracing::warn!("the backend broke off where the body of its answer begins");
                    return Err(refusal::failed());
                }
                let answer = UpgradeRequest::response(wish, response).ok_or_else(refusal::failed)?;
                Ok(answer.map(ResponseBody::streaming))
            }
            Ok(Err(error)) => Err(unanswered(&error, progress.stage())),
            Err(too_late) => Err(too_late),
        }
    }

    /// An upgrade, if the backend connection supports it. An HTTP/1.1 upgrade cannot be forwarded over HTTP/2.
    fn wish(&self, head: &mut Head, body: &RequestBody) -> Option<UpgradeRequest> {
        UpgradeRequest::of(head).filter(|_| body.is_end_stream() && !self.upstream.settings().http2)
    }

    pub(super) fn passing(&self, body: IncomingBody) -> RequestBody {
        RequestBody::Streaming(IdleTimeoutBody::new(body, self.body_timeout))
    }

    pub(super) fn cross(&self, head: &mut Head, body: &RequestBody, client: &Client) {
        head::cross_request(head, client, self.upstream.target(), body.framing());
    }
}

/// Why a forwarded request has no response. It is the client's fault if its body did not arrive.
fn unanswered(error: &SendError, stage: BodyStage) -> Problem {
    match (error, stage) {
        (SendError::Unsent(error), _) => {
            tracing::warn!(error = error as &dyn Error, "the backend cannot be reached");
            refusal::unreachable()
        }
        (SendError::Broken(_), BodyStage::Broken) => refusal::broken_off(),
        (SendError::Broken(_), BodyStage::Paused) => refusal::too_slow(),
        (SendError::Broken(error), BodyStage::Coming | BodyStage::Whole) => {
            tracing::warn!(error = error as &dyn Error, "the backend broke off");
            refusal::failed()
        }
        (SendError::Unframed(error), _) => {
            tracing::warn!(error = error as &dyn Error, "the answer of the backend cannot be read");
            refusal::failed()
        }
    }
}

/// Counts a request whose client leaves before it has sent all of it. Over HTTP/2, the future is dropped at once.
struct AbortedUpload<'a> {
    proxy: &'a Proxy,
    route: &'a str,
    progress: &'a BodyProgress,
    begun: Instant,
}

impl AbortedUpload<'_> {
    /// The request has a result, which is counted elsewhere.
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortedUpload<'_> {
    fn drop(&mut self) {
        if self.progress.stage() != BodyStage::Whole {
            self.proxy.metrics.request(self.route, RequestOutcome::BadRequest, self.begun.elapsed());
        }
    }
}
