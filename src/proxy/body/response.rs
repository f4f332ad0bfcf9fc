use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};

use super::super::budget::Budget;
use super::super::upstream::UpstreamBody;
use super::end_notifier::EndNotifier;
use super::error::BodyError;
use super::injection::Injection;
use super::relayed::RelayedBody;
use super::replayed::ReplayBody;
use super::sanitize_trailers;

/// The answer to a request.
pub(in crate::proxy) type ProxyResponse = Response<ResponseBody>;

/// The body of a response to the client.
pub enum ResponseBody {
    /// Held in memory.
    Buffered(BufferedChunks),
    /// What was read already, then the rest as it arrives.
    Streaming(BufferedChunks, UpstreamBody),
    /// Forwarded while it is captured.
    Relayed(Box<RelayedBody>),
    /// Sent while it is read from the store.
    Replayed(Box<ReplayBody>),
    /// A page, while the form guard's tag is put into it.
    Injected(Box<ResponseBody>, Box<Injection>),
    /// Any of these, and who is notified of its end.
    Observed(Box<ResponseBody>, EndNotifier),
}

const COPIED: usize = 8 * 1024;

/// The pieces of a body in memory that are not sent yet.
#[derive(Default)]
pub struct BufferedChunks {
    left: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl ResponseBody {
    /// A short response of the proxy itself.
    pub fn from_bytes(bytes: Bytes) -> Self {
        let left = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([bytes]) };
        Self::Buffered(BufferedChunks { left, trailers: None })
    }

    /// A body without trailers, in pieces that have their reservation.
    pub(in crate::proxy) fn from_chunks(pieces: Vec<Bytes>) -> Self {
        Self::Buffered(BufferedChunks { left: pieces.into(), trailers: None })
    }

    /// A complete response in memory.
    pub(in crate::proxy) fn buffered(body: Vec<Bytes>, trailers: HeaderMap) -> Self {
        Self::Buffered(BufferedChunks::new(body, trailers))
    }

    /// The same, with a reservation for its bytes; `None` if the budget has no room. A short piece is copied: as a part of
    /// the 16 KiB that it was read into from the store, it would keep all of them for as long as the client takes to read it.
    /// So nothing keeps more than twice what is reserved for it.
    pub(in crate::proxy) fn counted(mut body: Vec<Bytes>, trailers: HeaderMap, budget: &Budget) -> Option<Self> {
        for piece in &mut body {
            let own = if piece.len() <= COPIED { Bytes::copy_from_slice(piece) } else { std::mem::take(piece) };
            *piece = budget.hold(own)?;
        }
        Some(Self::buffered(body, trailers))
    }

    /// The beginning of a response, then the rest as it arrives.
    pub(in crate::proxy) fn buffered_then(body: Vec<Bytes>, trailers: HeaderMap, rest: UpstreamBody) -> Self {
        Self::Streaming(BufferedChunks::new(body, trailers), rest)
    }

    /// A response as it arrives.
    pub fn streaming(body: UpstreamBody) -> Self {
        Self::Streaming(BufferedChunks::default(), body)
    }
}

impl BufferedChunks {
    fn new(body: Vec<Bytes>, trailers: HeaderMap) -> Self {
        Self { left: body.into(), trailers: Some(trailers).filter(|trailers| !trailers.is_empty()) }
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.left.pop_front().map(Frame::data);
        data.or_else(|| self.trailers.take().map(Frame::trailers))
    }

    fn length(&self) -> u64 {
        self.left.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Buffered(pieces) => Poll::Ready(pieces.next().map(Ok)),
            Self::Streaming(pieces, rest) => match pieces.next() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Pin::new(rest).poll_frame(cx).map_ok(sanitize_trailers),
            },
            Self::Relayed(streamed) => Pin::new(streamed.as_mut()).poll_frame(cx),
            Self::Replayed(replayed) => Pin::new(replayed.as_mut()).poll_frame(cx),
            Self::Injected(page, injection) => injection.poll(cx, |cx| Pin::new(&mut **page).poll_frame(cx)),
            Self::Observed(body, ending) => {
                let polled = Pin::new(&mut **body).poll_frame(cx);
                ending.see(&polled, body.is_end_stream());
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(pieces) => pieces.left.is_empty() && pieces.trailers.is_none(),
            Self::Streaming(pieces, rest) => pieces.left.is_empty() && rest.is_end_stream(),
            Self::Relayed(streamed) => streamed.is_end_stream(),
            Self::Replayed(replayed) => replayed.is_end_stream(),
            Self::Injected(_, injection) => injection.is_end(),
            Self::Observed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // An exact size means Content-Length, and that leaves no place for trailers (RFC 9112, 7.1.2).
            Self::Buffered(pieces) if pieces.trailers.is_some() => SizeHint::default(),
            Self::Buffered(pieces) => SizeHint::with_exact(pieces.length()),
            Self::Streaming(pieces, rest) => {
                let mut hint = rest.size_hint();
                let held = pieces.length();
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + held);
                }
                hint.set_lower(hint.lower() + held);
                hint
            }
            Self::Relayed(streamed) => streamed.size_hint(),
            Self::Replayed(replayed) => replayed.size_hint(),
            // How much is put in, and whether anything is, is known at its end.
            Self::Injected(..) => SizeHint::default(),
            Self::Observed(body, _) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;

    const ALL: usize = 1 << 20;

    fn budget() -> Budget {
        Budget::new(ALL as u64, Arc::new(Metrics::new().expect("metrics")))
    }

    fn left(budget: &Budget) -> usize {
        let (mut least, mut most) = (0, ALL);
        while least < most {
            let middle = (least + most).div_ceil(2);
            if budget.reserve().grow(middle) { least = middle } else { most = middle - 1 }
        }
        least
    }

    #[test]
    fn a_replayed_body_keeps_no_more_than_twice_its_length_of_what_it_was_read_into() {
        let budget = budget();
        for length in [1, 300, COPIED, COPIED + 1, 2 * COPIED] {
            let buffer = Bytes::from(vec![7; 2 * COPIED]);
            let read_into = buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len();
            let body = ResponseBody::counted(vec![buffer.slice(..length)], HeaderMap::new(), &budget);
            let Some(ResponseBody::Buffered(mut body)) = body else { panic!("there is room") };
            assert_eq!(ALL - left(&budget), length);
            let Some(Ok(piece)) = body.next().map(Frame::into_data) else { panic!("a piece") };
            assert_eq!(read_into.contains(&(piece.as_ptr() as usize)), length > COPIED, "{length}");
        }
        assert_eq!(left(&budget), ALL);
    }
}
