//! The hot connection of one core: a request is answered on the core that took it, and so is what it asks of Redis.
//!
//! It dies with the connection that all cores share: whatever is lost, all of it is opened anew. One that the server closes
//! while nothing is awaited on it, as it may where a core has nothing to do for long, is opened anew by itself. Where a
//! core has none for the moment, as at the start, its calls go over the shared one.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connected::Connected;
use super::handshake;
use super::link::Link;
use super::server::ServerSettings;
use super::stream::Dialer;
use super::timing::{LONGEST_DELAY, jittered};

/// What one core has of its own.
pub(super) struct CoreConnection {
    connected: Arc<ArcSwapOption<Connected>>,
    _task: AbortOnDropHandle<()>,
}

impl CoreConnection {
    /// Opens and keeps a connection on the runtime on which this is called.
    pub(super) fn start(settings: &ServerSettings, link: &Arc<Link>) -> Self {
        let ServerSettings { dialer, config, connect_timeout, .. } = settings;
        let connected = Arc::<ArcSwapOption<Connected>>::default();
        let keeper = CoreConnectionTask {
            link: link.clone(),
            dialer: dialer.clone(),
            prefix: config.prefix.clone(),
            connect_timeout: *connect_timeout,
            connected: connected.clone(),
        };
        #[expect(clippy::disallowed_methods, reason = "ends with the core's store")]
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        Self { connected, _task: task }
    }

    /// The connection, if there is one now.
    pub(super) fn connected(&self) -> Option<Arc<Connected>> {
        self.connected.load_full().filter(|connected| !connected.is_lost())
    }
}

struct CoreConnectionTask {
    link: Arc<Link>,
    dialer: Arc<Dialer>,
    prefix: String,
    connect_timeout: Duration,
    connected: Arc<ArcSwapOption<Connected>>,
}

impl CoreConnectionTask {
    async fn run(self) {
        loop {
            let shared = self.link.next().await;
            let run = shared.run.as_deref();
            let open = handshake::open_same(&self.dialer, &shared.endpoint, &self.prefix, run);
            match tokio::time::timeout(self.connect_timeout, open).await {
                Ok(Ok(stream)) => {
                    let (own, since) = (Arc::new(shared.on_core(stream)), Instant::now());
                    self.connected.store(Some(own.clone()));
                    own.until_lost().await;
                    self.connected.store(None);
                    // A server that hangs up on every caller is not to be called without a pause.
                    if !shared.is_lost() && since.elapsed() < LONGEST_DELAY {
                        tokio::time::sleep(jittered(LONGEST_DELAY)).await;
                    }
                }
                // The shared one serves, and shows what is wrong if more is.
                Ok(Err(_)) | Err(_) => tokio::time::sleep(jittered(LONGEST_DELAY)).await,
            }
        }
    }
}

impl Drop for CoreConnectionTask {
    /// The runtime may end before its store does.
    fn drop(&mut self) {
        self.connected.store(None);
    }
}
