//! The hot connection of one core. A request is answered on the core that accepted it, and so are its commands to
//! Redis.
//!
//! The hot connection ends with the connection that all cores share: after a loss, all of them are reopened. A server
//! may close the connection of a core that was idle for long. If no reply was awaited, only this connection is
//! reopened. While a core has no connection, as at the start, its calls use the shared one.

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
use crate::store::timing::{LONGEST_DELAY, jittered};

/// The connection of one core.
pub(super) struct CoreConnection {
    connected: Arc<ArcSwapOption<Connected>>,
    _task: AbortOnDropHandle<()>,
}

impl CoreConnection {
    /// Opens a connection and keeps it, on the current runtime.
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

    /// The current connection, if there is one.
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
            let run_id = shared.run_id.as_deref();
            let open = handshake::open_same(&self.dialer, &shared.endpoint, &self.prefix, run_id);
            match tokio::time::timeout(self.connect_timeout, open).await {
                Ok(Ok(stream)) => {
                    let (own, since) = (Arc::new(shared.on_core(stream)), Instant::now());
                    self.connected.store(Some(own.clone()));
                    own.until_lost().await;
                    self.connected.store(None);
                    // The pause protects a server that closes every connection at once.
                    if !shared.is_lost() && since.elapsed() < LONGEST_DELAY {
                        tokio::time::sleep(jittered(LONGEST_DELAY)).await;
                    }
                }
                // The shared connection serves meanwhile, and detects larger faults.
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
