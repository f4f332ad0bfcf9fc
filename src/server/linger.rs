//! The end of a connection whose client may still be sending (RFC 9112, 9.6).
//!
//! If a socket is closed while there are unread bytes, or if bytes arrive later, the kernel sends a reset. The client
//! then loses what it has not read yet: possibly the response that tells it to stop. So the sending side is closed
//! first, and incoming bytes are discarded until the client closes its side.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::stream::ClientStream;

/// Where a connection leaves its socket when HTTP has ended.
#[derive(Clone, Default)]
pub(super) struct Leftover(Arc<Mutex<Option<ClientStream>>>);

/// A client that sends nothing for this time has read its response, or never will.
const SILENCE: Duration = Duration::from_secs(5);
/// The time for all of it.
const AT_MOST: Duration = Duration::from_secs(30);
const BYTES: u64 = 64 << 20;
/// The size of one read.
const PIECE: usize = 64 << 10;

impl Leftover {
    pub(super) fn put(&self, stream: ClientStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    pub(super) fn take(&self) -> Option<ClientStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Closes the sending side, and waits for the client to close its own.
pub(super) async fn linger(mut stream: ClientStream) {
    let lingering = async {
        stream.shutdown().await?;
        match stream {
            ClientStream::Tcp(stream) => discard(stream).await,
            ClientStream::Unix(stream) => discard(stream).await,
            // Discarded bytes need not be decrypted.
            ClientStream::Tls(stream) => discard(stream.into_inner().0).await,
        }
    };
    match timeout(AT_MOST, lingering).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "a client left with its answer"),
        Err(_) => tracing::debug!("a client went on sending after its answer for too long"),
    }
}

async fn discard(stream: impl AsyncRead + Unpin) -> std::io::Result<()> {
    let mut stream = stream.take(BYTES);
    let mut piece = vec![0; PIECE];
    while let Ok(read) = timeout(SILENCE, stream.read(&mut piece)).await {
        if read? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_more_is_waited_for_in_vain() {
        let (_client, ours) = duplex(1);
        let begun = Instant::now();
        discard(ours).await.expect("a stream without errors");
        assert_eq!(begun.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_is_cut_off_in_time() {
        let (mut client, ours) = UnixStream::pair().expect("sockets");
        let dripping = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = Instant::now();
        linger(ClientStream::Unix(ours)).await;
        assert_eq!(begun.elapsed(), AT_MOST);
        dripping.await.expect("it finds the other side closed");
    }

    #[tokio::test]
    async fn a_client_that_sends_too_much_is_cut_off() {
        let (mut client, ours) = duplex(1 << 20);
        let flooding = tokio::spawn(async move {
            let mut sent = 0;
            while client.write_all(&[0; 1 << 20]).await.is_ok() {
                sent += 1 << 20;
            }
            sent
        });
        discard(ours).await.expect("a stream without errors");
        let sent = flooding.await.expect("it finds the other side closed");
        assert!((BYTES..=BYTES + (2 << 20)).contains(&sent), "{sent}");
    }
}
