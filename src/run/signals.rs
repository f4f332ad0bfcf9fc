//! The signals that end a command.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::telemetry;

/// The signals that stop a sidecar.
pub const STOP: &[SignalKind] = &[SignalKind::interrupt(), SignalKind::terminate()];

/// The same, and the end of the terminal: for commands that do not reload.
pub const STOP_OR_HANGUP: &[SignalKind] = &[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

/// Signals so soon after the first count as the same one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Handles these signals from now on. The returned future ends with the first; a second one ends the process at once.
pub fn signalled(kinds: &[SignalKind]) -> impl Future<Output = ()> + use<> {
    let signals = Signals::new(kinds);
    async move {
        let mut signals = match signals {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(error = &error as &dyn Error, "signals cannot be received; kill to stop");
                return std::future::pending().await;
            }
        };
        signals.next().await;
        let first = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "ends with the process, or ends it")]
        tokio::spawn(async move {
            // Wrappers such as timeout(1) signal their child and then its group. That is one signal.
            while first.elapsed() < SAME_SIGNAL {
                signals.next().await;
            }
            tracing::error!("a second signal: stopping at once");
            telemetry::flush();
            std::process::exit(1);
        });
    }
}

struct Signals(Vec<Signal>);

impl Signals {
    fn new(kinds: &[SignalKind]) -> io::Result<Self> {
        kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal.
    async fn next(&mut self) {
        poll_fn(|cx| {
            let received = self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if received { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
