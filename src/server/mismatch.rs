//! Clients that speak TLS to a port without it, or clear text to one with it: neither gets an answer that it can read, so
//! the log says it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_rustls::rustls::{self, InvalidMessage};

/// What a client takes the port for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProtocolMismatch {
    /// It speaks TLS, and the port is in clear text.
    Tls,
    /// It speaks clear text, and the port has TLS.
    ClearText,
}

/// Logs mismatches, each kind once a minute at most: a scanner of ports makes many of them.
#[derive(Debug, Default)]
pub(super) struct MismatchLog {
    tls: Mutex<Option<Instant>>,
    clear_text: Mutex<Option<Instant>>,
}

const SILENCE: Duration = Duration::from_secs(60);

impl ProtocolMismatch {
    /// Of the first bytes that came in on a port without TLS: the header of a handshake record (RFC 8446, 5.1).
    pub(super) fn of_first_bytes(bytes: &[u8]) -> Option<Self> {
        const HANDSHAKE: u8 = 22;
        const MAJOR_VERSION: u8 = 3;
        (bytes.first() == Some(&HANDSHAKE) && bytes.get(1).is_none_or(|byte| *byte == MAJOR_VERSION))
            .then_some(Self::Tls)
    }

    /// Of the failure of a handshake.
    pub(super) fn of_handshake(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(Self::ClearText),
            _ => None,
        }
    }
}

impl MismatchLog {
    /// `is_admin`: the port is the admin listener's.
    pub(super) fn say(&self, mismatch: ProtocolMismatch, is_admin: bool, peer: Option<SocketAddr>) {
        let last = match mismatch {
            ProtocolMismatch::Tls => &self.tls,
            ProtocolMismatch::ClearText => &self.clear_text,
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < SILENCE) {
            return;
        }
        *last = Some(Instant::now());
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        match (mismatch, is_admin) {
            (ProtocolMismatch::Tls, false) => {
                tracing::warn!(
                    peer,
                    "a client speaks TLS to a port without it: have it use http://, or set server.tls"
                );
            }
            (ProtocolMismatch::Tls, true) => {
                tracing::warn!(peer, "a client speaks TLS to the admin listener, which has none: have it use http://");
            }
            (ProtocolMismatch::ClearText, _) => {
                tracing::warn!(
                    peer,
                    "a client speaks clear text to a port with TLS (server.tls): have it use https://"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_told_from_a_request_by_its_first_bytes() {
        for begun in [&b"\x16"[..], b"\x16\x03", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
            assert_eq!(ProtocolMismatch::of_first_bytes(begun), Some(ProtocolMismatch::Tls), "{begun:?}");
        }
        for other in [&b""[..], b"POST / HTTP/1.1\r\n", b"\x16\x02", b"\x15\x03\x01", b"\r\n"] {
            assert_eq!(ProtocolMismatch::of_first_bytes(other), None, "{other:?}");
        }
    }
}
