use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use tokio::sync::oneshot;

use crate::guard::{BodyRemainder, LostReason, ReceivedResponse, SendOutcome};
use crate::record::Reply;
use crate::rule::Disposition;

/// Reports the outcome of an observed response when its body has ended.
pub struct EndNotifier {
    status: StatusCode,
    origin_directive: Option<Disposition>,
    taker: Option<oneshot::Sender<SendOutcome<()>>>,
}

impl EndNotifier {
    /// Reports to `taker`, for a response with this head.
    pub(in crate::proxy) fn new(
        status: StatusCode,
        origin_directive: Option<Disposition>,
        taker: oneshot::Sender<SendOutcome<()>>,
    ) -> Self {
        Self { status, origin_directive, taker: Some(taker) }
    }

    /// A frame was polled. `last`: none follows.
    pub(in crate::proxy) fn see<E>(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, E>>>, last: bool) {
        match polled {
            Poll::Ready(Some(Err(_))) => self.tell(BodyRemainder::Broken(LostReason::Broken)),
            Poll::Ready(None) => self.tell(BodyRemainder::Nothing),
            Poll::Ready(Some(Ok(_))) if last => self.tell(BodyRemainder::Nothing),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
    }

    fn tell(&mut self, rest: BodyRemainder<()>) {
        let Some(taker) = self.taker.take() else { return };
        let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
        let reply = Arc::new(Reply { status: self.status, headers, body: Vec::new().into(), trailers });
        // The observation may have been stopped.
        let _ = taker.send(SendOutcome::Answered(ReceivedResponse {
            reply,
            origin_directive: self.origin_directive,
            rest,
        }));
    }
}

impl Drop for EndNotifier {
    /// The client left. A guarded attempt would have read the rest.
    fn drop(&mut self) {
        self.tell(BodyRemainder::Nothing);
    }
}
