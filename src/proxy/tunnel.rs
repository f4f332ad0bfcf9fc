//! Upgraded connections: WebSocket (RFC 6455) and no other protocol.
//!
//! `Upgrade: h2c` in particular is never forwarded: the requests after it would bypass all rules.

use crate::list;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, StatusCode, Version, request};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use super::body::progress::{BodyProgress, BodyStage};
use super::head;
use super::upstream::UpstreamBody;

/// A client's request to upgrade its connection to WebSocket (RFC 9110, 7.8).
pub(super) struct UpgradeRequest(OnUpgrade);

/// Both ends of a WebSocket connection. It travels in the extensions of the 101 response to the task of the client's
/// connection.
#[derive(Clone)]
pub struct Tunnel {
    client: OnUpgrade,
    backend: OnUpgrade,
}

const WEBSOCKET: &str = "websocket";

/// A tunnel without traffic for this long is closed: one end is probably gone.
const SILENCE: Duration = Duration::from_secs(3600);

impl UpgradeRequest {
    /// The upgrade that the head asks for, if it is WebSocket. Others are ignored.
    pub(super) fn of(head: &mut request::Parts) -> Option<Self> {
        let upgrade = head.extensions.remove::<OnUpgrade>()?;
        (head.version == Version::HTTP_11 && names_websocket(&head.headers)).then_some(Self(upgrade))
    }

    /// Puts the upgrade fields into a head that is ready to go upstream.
    pub(super) fn pass_on(&self, headers: &mut HeaderMap) {
        insert(headers);
    }

    /// The backend's answer to an upgrade request, ready for the client. `None` if it switches to a protocol that was
    /// not requested.
    pub(super) fn response(
        upgrade: Option<Self>,
        mut answer: Response<UpstreamBody>,
    ) -> Option<Response<UpstreamBody>> {
        let fields = answer.body().fields();
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            if let Some(told) = head::cross_response(answer.headers_mut(), fields) {
                // For observe mode.
                answer.extensions_mut().insert(told);
            }
            return Some(answer);
        }
        let client = upgrade.filter(|_| names_websocket(answer.headers()))?.0;
        let backend = answer.extensions_mut().remove()?;
        head::cross_response(answer.headers_mut(), fields);
        insert(answer.headers_mut());
        answer.extensions_mut().insert(Tunnel { client, backend });
        Some(answer)
    }
}

/// Both fields must be there (RFC 9110, 7.8).
fn names_websocket(headers: &HeaderMap) -> bool {
    list::names(headers, &CONNECTION, "upgrade") && list::names(headers, &UPGRADE, WEBSOCKET)
}

fn insert(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

impl Tunnel {
    /// Copies bytes both ways until both sides have ended. To be called after the response was sent.
    pub async fn run(self) {
        let (client, backend) = match (self.client.await, self.backend.await) {
            (Ok(client), Ok(backend)) => (client, backend),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a tunnel did not come about");
                return;
            }
        };
        let moved = BodyProgress::at(BodyStage::Coming);
        let (client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        let mut client = ActivityIo { end: client, moved: moved.clone() };
        tokio::select! {
            ended = copy_bidirectional(&mut client, &mut backend) => if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "a tunnel broke off");
            },
            () = moved.stalled(SILENCE) => tracing::debug!("a tunnel was silent for too long"),
        }
    }
}

/// The client's end, which records activity in either direction.
struct ActivityIo {
    end: TokioIo<Upgraded>,
    moved: BodyProgress,
}

impl ActivityIo {
    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_ready() {
            self.moved.reached(BodyStage::Coming);
        }
        polled
    }
}

impl AsyncRead for ActivityIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.end).poll_read(cx, buf);
        self.note(polled)
    }
}

impl AsyncWrite for ActivityIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.end).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.end).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.end.is_write_vectored()
    }
}
