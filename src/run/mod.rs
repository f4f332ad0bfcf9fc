//! From a configuration to a running sidecar, and to its end.

mod files;
mod fixed;
pub mod reload;
mod rules;
mod signals;
mod store_access;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;

pub use files::allow_open_files;
pub use rules::Rules;
pub use signals::{STOP, STOP_OR_HANGUP, signalled};
pub use store_access::{NodeTrial, Trial, digest_key, init_store, look_up, store_sql, try_folder, try_store};

use crate::admin::{Admin, AskBackend};
use crate::config::{Config, Listen};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::proxy::IncomingBody;
pub use crate::server::InheritedSockets;
use crate::server::{Cores, Listener, Server};
pub(crate) use crate::store::causes;
use crate::store::{self, Metered};
pub use crate::store::{ExaminedFolder, ServerFinding};

/// A sidecar whose listeners are bound, and whose store is open.
pub struct Sidecar {
    rules: Arc<Rules>,
    admin: Arc<Admin>,
    server: Server,
    cores: Arc<Cores>,
    listeners: Vec<Listener>,
    admin_listener: Option<Listener>,
    drain: Drain,
}

/// How long a stop may take.
#[derive(Debug, Clone, Copy)]
struct Drain {
    delay: Duration,
    timeout: Duration,
    /// Time for the last writes to the store.
    last_words: Duration,
}

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address or a Unix socket cannot be used to listen on.
    #[error("cannot listen on {address} ({key}): {}", advice(address, source))]
    Listen {
        /// The address.
        address: Listen,
        /// Where it is configured.
        key: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The environment names a collector of traces that cannot be used.
    #[error("{0}")]
    Traces(String),
    /// A socket that a service manager passed is not a listening one.
    #[error("a socket that was passed cannot be listened on: {0}; in its unit, give it ListenStream alone")]
    InheritedSockets(#[source] io::Error),
    /// The store cannot be used as it is.
    #[error("the store cannot be used")]
    Store(#[from] store::OpenError),
    /// A thread cannot be started.
    #[error("the threads that answer requests cannot be started")]
    Threads(#[source] io::Error),
    /// Two metrics have the same name. This is a bug.
    #[error("the metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
}

fn advice(address: &Listen, error: &io::Error) -> String {
    let advice = match (address, error.kind()) {
        (Listen::Tcp(_), io::ErrorKind::AddrInUse) => "another program listens there; stop it, or choose another port",
        (Listen::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "ports below 1024 need a privilege; choose a higher one, or have systemd pass the socket"
        }
        (Listen::Tcp(_), io::ErrorKind::AddrNotAvailable) => "this machine has no such address",
        (Listen::Unix(_), io::ErrorKind::AddrInUse) => "another program listens there; stop it, or choose another path",
        (Listen::Unix(_), io::ErrorKind::AlreadyExists) => {
            "a file that is no socket is there; remove it, or choose another path"
        }
        (Listen::Unix(_), io::ErrorKind::NotFound) => "its folder is not there; make it, or choose another path",
        (Listen::Unix(_), io::ErrorKind::PermissionDenied) => {
            "the user that onlyonce runs as may not write in its folder"
        }
        (Listen::Tcp(_) | Listen::Unix(_), _) => return error.to_string(),
    };
    advice.into()
}

/// How a sidecar ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All requests in flight are finished and recorded.
    Clean,
    /// Some were not when the time was over.
    Unfinished,
}

impl Sidecar {
    /// Opens the store and binds the listeners.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(InheritedSockets::default(), config).await
    }

    /// The same with sockets that are bound already. If there are any, they replace those of `server.listen`.
    pub async fn start_on(passed: InheritedSockets, config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        let records = store::open(&config.store, config.upstream.attempt_timeout).await?;
        let records = Arc::new(Metered::new(records, Arc::clone(&metrics)));

        let (server, admin) = (config.server.clone(), config.admin.clone());
        let mut listeners = Vec::new();
        if passed.is_empty() {
            for listen in &server.listen {
                listeners.push(bind(listen, "server.listen").await?);
            }
        } else {
            tracing::info!("sockets were passed by the service manager: they take the place of server.listen");
            listeners = passed.listeners().map_err(StartError::InheritedSockets)?;
        }
        let admin_listener = match admin.listen {
            Some(listen) => Some(bind(&Listen::Tcp(listen), "admin.listen").await?),
            None => None,
        };
        let last_words = config.store.timeout * 2;
        let drain = Drain { delay: server.drain_delay, timeout: server.drain_timeout, last_words };
        let cores = Arc::new(Cores::start(server.threads).map_err(StartError::Threads)?);
        let shares = files::shares(server.max_connections, cores.count());
        let server = Server::new(&server, shares.places, Arc::clone(&metrics));
        let rules = Rules::new(config, &records, &metrics, server.clone(), shares.idle, cores.runtimes());
        let guard = rules.guard();
        let rules = Arc::new(rules);
        let (reported, asking) = (Arc::clone(&rules), Arc::clone(&rules));
        let ask_backend: AskBackend = Arc::new(move |record| Box::pin(asking.probe(record)));
        Ok(Self {
            admin: Arc::new(Admin::new(metrics, records, guard, move || reported.active_rules(), ask_backend)),
            rules,
            server,
            cores,
            listeners,
            admin_listener,
            drain,
        })
    }

    /// The rules in force, which a reload replaces.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// The number of cores.
    pub fn threads(&self) -> usize {
        self.cores.count()
    }

    /// Where clients connect.
    pub fn listening(&self) -> Vec<Listen> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        match self.admin_listener.as_ref()?.address()? {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        }
    }

    /// Serves until `stop`, then finishes the requests in flight.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Stopped {
        let Self { rules, admin, server, cores, listeners, admin_listener, drain } = self;
        let admin_server = server.admin_server();
        let _operators = admin_listener.map(|listener| {
            let admin = Arc::clone(&admin);
            admin_server.serve(vec![listener], move |request: Request<Incoming>, client| {
                let admin = Arc::clone(&admin);
                async move {
                    let version = request.version();
                    let request = request.map(|body| IncomingBody::request(body, version, &client));
                    admin.handle(request, client.peer).await
                }
            })
        });
        let guard = rules.guard();
        let accepting = server.serve_on(Arc::clone(&cores), listeners, move |core| {
            let in_force = Arc::clone(&rules);
            move |request, client| {
                let proxy = in_force.on(core);
                async move { proxy.handle(request, &client).await }
            }
        });

        let is_whole = tokio::select! {
            () = stop => true,
            () = cores.broken() => {
                tracing::error!("a thread that answers requests has ended, and its requests with it: stopping");
                false
            }
            never = guard.survey() => match never {},
            never = admin.keep_figures() => match never {},
        };
        tracing::info!(at_work = guard.at_work(), "stopping: not ready any more, still serving");
        admin.drain();
        tokio::time::sleep(drain.delay).await;
        server.stop();
        let finished = finish(&server, &guard, drain).await;
        admin_server.stop();
        drop(accepting);
        // Ends here what was given up, and not at some later time.
        if tokio::time::timeout(drain.last_words, cores.stop()).await.is_err() {
            tracing::warn!("a thread that answers requests does not end");
        }
        if is_whole { finished } else { Stopped::Unfinished }
    }
}

async fn finish(server: &Server, guard: &Guard, drain: Drain) -> Stopped {
    // The order matters: until the last connection has ended, it may begin another attempt; until the last attempt has
    // ended, it may give up a claim.
    let all = async {
        server.stopped().await;
        guard.recorded().await;
        guard.cleaned_up().await;
    };
    let stopped = match tokio::time::timeout(drain.timeout, all).await {
        Ok(()) => Stopped::Clean,
        Err(_) => {
            give_up(guard, drain).await;
            Stopped::Unfinished
        }
    };
    // No client waits for it.
    if tokio::time::timeout(drain.last_words, guard.observed()).await.is_err() {
        tracing::info!("some requests that were observed are not noted");
    }
    if stopped == Stopped::Clean {
        tracing::info!("stopped: everything in flight is finished");
    }
    stopped
}

async fn give_up(guard: &Guard, drain: Drain) {
    tracing::warn!(at_work = guard.at_work(), "drain_timeout is over: what is left is recorded as it stands");
    guard.abandon();
    if tokio::time::timeout(drain.last_words, guard.recorded()).await.is_err() {
        tracing::error!(at_work = guard.at_work(), "some outcomes were never recorded; their keys stay claimed");
    }
    if guard.given_up() > 0 {
        tracing::error!(
            claims = guard.given_up(),
            "some claims were given up and may have arrived; their keys stay claimed"
        );
    }
}

async fn bind(listen: &Listen, key: &'static str) -> Result<Listener, StartError> {
    Listener::bind(listen).await.map_err(|source| StartError::Listen { address: listen.clone(), key, source })
}
