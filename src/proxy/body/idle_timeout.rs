use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::BodyError;
use super::incoming::IncomingBody;
use super::progress::{BodyProgress, BodyStage};
use super::sanitize_trailers;
use crate::tick::{self, Sleep};

/// A client's body that must not pause longer than the timeout.
pub(in crate::proxy) struct IdleTimeoutBody {
    body: IncomingBody,
    timeout: Duration,
    pub(in crate::proxy) progress: BodyProgress,
    /// Created when the body first pauses; most bodies never do.
    alarm: Option<Sleep>,
}

impl IdleTimeoutBody {
    /// `body` may pause for at most `timeout`.
    pub(in crate::proxy) fn new(body: IncomingBody, timeout: Duration) -> Self {
        let progress = BodyProgress::at(if body.is_end_stream() { BodyStage::Whole } else { BodyStage::Coming });
        Self { body, timeout, progress, alarm: None }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.alarm = None;
            self.progress.reached(match &frame {
                Some(Ok(_)) if !self.body.is_end_stream() => BodyStage::Coming,
                Some(Ok(_)) | None => BodyStage::Whole,
                Some(Err(_)) => BodyStage::Broken,
            });
            return Poll::Ready(frame.map(|frame| frame.map(sanitize_trailers)));
        }
        let timeout = self.timeout;
        ready!(Pin::new(self.alarm.get_or_insert_with(|| tick::sleep(timeout))).poll(cx));
        self.progress.reached(BodyStage::Paused);
        Poll::Ready(Some(Err(BodyError::Paused)))
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
