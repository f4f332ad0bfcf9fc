//! One server, and the tasks that keep connections to it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::ConnectionOptions;
use super::canary::{Canary, canary_base};
use super::connected::ServerDuty;
use super::examine::ServerExaminer;
use super::key_agreement::KeyAgreement;
use super::link::Link;
use super::notify::ChangeSubscriber;
use super::stream::Dialer;
use super::supervisor::{Source, Supervisor};
use super::write_acks::RequiredAcks;
use crate::config;
use crate::store::store_state::StoreState;

/// A server. Its connections are closed when it is dropped.
pub(super) struct WatchedServer {
    pub(super) link: Arc<Link>,
    pub(super) listener: ChangeSubscriber,
    _supervisor: AbortOnDropHandle<()>,
}

/// The settings for connections to any server.
#[derive(Clone)]
pub(super) struct ServerSettings {
    pub(super) config: config::StoreConfig,
    pub(super) dialer: Arc<Dialer>,
    pub(super) options: ConnectionOptions,
    pub(super) connect_timeout: Duration,
    pub(super) state: Arc<StoreState>,
}

impl WatchedServer {
    /// Starts to connect.
    pub(super) fn start(settings: &ServerSettings, source: Source, duty: ServerDuty) -> Self {
        let ServerSettings { config, dialer, options, connect_timeout, state } = settings;
        let link = Link::new();
        let agreement = || {
            let canary = Canary::new(canary_base(&config.prefix));
            (KeyAgreement::new(config, state.clone(), duty, *options), canary)
        };
        let supervisor = Supervisor {
            link: link.clone(),
            dialer: dialer.clone(),
            source: Arc::new(source),
            options: *options,
            connect_timeout: *connect_timeout,
            examiner: ServerExaminer::new(config, state.clone(), duty, *options),
            agreement: (duty == ServerDuty::Alone).then(agreement),
            acks: RequiredAcks::of(config).map(|acks| (acks, config.timeout / 4)),
        };
        let listener = ChangeSubscriber::start(&link, dialer);
        #[expect(clippy::disallowed_methods, reason = "ends with the server")]
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run()));
        Self { link, listener, _supervisor: supervisor }
    }
}
