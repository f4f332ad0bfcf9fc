//! The end of a connection whose client may still be sending (RFC 9112, 9.6).
//!
//! A socket that is closed with something unread in it, or to which something comes afterwards, is reset, and a reset
//! takes with it what the client has not read yet: the very answer that told it to stop. So our side is closed first, and
//! what still comes is read and thrown away until the client has closed its side.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::stream::ClientStream;

/// Where a connection leaves its socket when HTTP has ended on it.
#[derive(Clone, Default)]
pub(super) struct Leftover(Arc<Mutex<Option<ClientStream>>>);

/// A client that sends nothing for so long has read its answer, or never will.
const SILENCE: Duration = Duration::from_secs(5);
/// All of it.
const AT_MOST: Duration = Duration::from_secs(30);
const BYTES: u64 = 64 << 20;
/// Read at once.
const PIECE: usize = 64 << 10;

impl Leftover {
    pub(super) fn put(&self, stream: ClientStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    pub(super) fn take(&self) -> Option<ClientStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Closes our side, and waits for the client to close its own.
pub(super) async fn linger(mut stream: ClientStream) {
    let lingering = async {
        stream.shutdown().await?;
        match stream {
            ClientStream::Tcp(stream) => discard(stream).await,
            ClientStream::Unix(stream) => discard(stream).await,
            // What is thrown away need not be decrypted.
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
