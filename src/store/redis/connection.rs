//! The connection to the server, and the task that keeps one.
//!
//! Callers take the connection that is there and never wait for another: with none, they know at once that
//! nothing was done. The task reconnects, finds out what the server can do, and asks it for the digest key
//! every second, which shows both dead connections and lost data. Claims are made only while the last answer to that is
//! young: of two sidecars that know of different keys, one knows it before the other may claim.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::{PushInfo, PushKind, RedisResult};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ConnectionOptions;
use super::body_connections::BodyConnections;
use super::commands::{AcquireMethod, CommandError};
use super::handshake;
use super::multiplexed::{self, Multiplexed};
use super::pipeline::Pipeline;
use super::probe::{ConnectError, Probe, ServerFinding};
use super::replication::Replication;
use super::sentinel::Sentinels;
use super::stream::{Dialer, RedisStream};
use crate::clock::since_boot;
use crate::config::RedisEndpoint;
use crate::key::DigestKey;
use crate::store::{StoreError, causes};

/// A connection that works, as far as is known.
#[derive(Clone)]
pub(super) struct Connected {
    /// Which server it is.
    pub(super) endpoint: RedisEndpoint,
    /// For what every request asks.
    pub(super) hot: Pipeline,
    /// For all else that concerns records.
    pub(super) control: Multiplexed,
    /// For lists of records, which would hold up the others.
    pub(super) lists: Multiplexed,
    /// For bodies that lie apart, which would do so too.
    pub(super) connections: Arc<BodyConnections>,
    pub(super) acquire: AcquireMethod,
    /// Where `store.replica_acks` asks for it.
    pub(super) replication: Option<Replication>,
    /// Cancelled when none of the connections to this server is to be used any more.
    lost: CancellationToken,
    /// The same, or else cancelled when it is too: when the hot connection of a core is closed, and that alone.
    closed: CancellationToken,
    /// Calls in a row that had no answer in time, on whatever connection.
    timeouts: Arc<AtomicU32>,
}

/// What callers and the task share.
pub(super) struct Link {
    current: watch::Sender<Result<Arc<Connected>, Arc<ConnectError>>>,
    digest_key: RwLock<Option<DigestKey>>,
    /// How often the server was found to have lost its data.
    losses: AtomicU64,
    /// When the server was last asked for the digest key, and confirmed it: milliseconds of [`since_boot`].
    confirmed: AtomicU64,
    /// When claims may begin, likewise.
    claims_from: AtomicU64,
    /// When the server was last found to be another than before, likewise; 0 if it never was.
    changed: AtomicU64,
    /// How old a confirmation may be.
    young: Duration,
    /// Thousandths of its memory that the server uses; [`UNLIMITED`] where it has no limit.
    used: AtomicU64,
    /// Whether records may be evicted.
    evicting: AtomicBool,
    /// What was found out about the server that was connected to last.
    findings: RwLock<Vec<ServerFinding>>,
}

const UNLIMITED: u64 = u64::MAX;
/// However often the digest key is confirmed.
const YOUNG: Duration = Duration::from_secs(3);

/// The task that keeps a connection.
pub(super) struct Supervisor {
    link: Arc<Link>,
    dialer: Arc<Dialer>,
    source: Source,
    habits: ConnectionOptions,
    connect_timeout: Duration,
    probe: Probe,
    /// How many replicas must have what is written, and how long that may take.
    acks: Option<(u64, Duration)>,
    /// The server of the last connection.
    last: Option<Identity>,
}

/// Who knows which server it is.
pub(super) enum Source {
    /// The configuration.
    Fixed(RedisEndpoint),
    /// Sentinels, which may name another at any time.
    Sentinel(Sentinels),
}

/// What tells one server, and one run of it, from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    endpoint: RedisEndpoint,
    /// A random number of each run, where the server tells it.
    run: Option<String>,
}

/// Opening the connection that listens, and each of its commands.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that is merely late must not count as out of reach: five round trips of a second each.
const LEAST_CONNECT: Duration = Duration::from_secs(5);
const LONGEST_CONNECT: Duration = Duration::from_secs(15);

/// How long opening a connection and finding out about the server may take, and each ping, where a call may take
/// `timeout`: a few round trips, one after the other.
pub(super) fn connect_timeout(timeout: Duration) -> Duration {
    (timeout * 10).clamp(LEAST_CONNECT, LONGEST_CONNECT)
}
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(20);
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// One late answer may be the network's fault; this many are the connection's.
pub(super) const TIMEOUTS: u32 = 3;

impl Link {
    pub(super) fn new(digest_key: Option<DigestKey>, habits: &ConnectionOptions) -> Arc<Self> {
        let (current, _) = watch::channel(Err(Arc::new(ConnectError::NotYet)));
        let [losses, confirmed, claims_from, changed] = [(); 4].map(|()| AtomicU64::new(0));
        Arc::new(Self {
            current,
            digest_key: RwLock::new(digest_key),
            losses,
            confirmed,
            claims_from,
            changed,
            young: (habits.ping_every * 3).max(YOUNG),
            used: AtomicU64::new(UNLIMITED),
            evicting: AtomicBool::new(false),
            findings: RwLock::default(),
        })
    }

    /// The connection, if there is one now. Out of reach is the server only if the last try to open one has failed: one
    /// that was just lost, or dropped for lateness, says little.
    pub(super) fn connected(&self) -> Result<Arc<Connected>, StoreError> {
        let why = match &*self.current.borrow() {
            Ok(connected) if connected.is_lost() => Arc::new(ConnectError::Lost),
            Ok(connected) => return Ok(connected.clone()),
            Err(why) => why.clone(),
        };
        let is_out_of_reach = why.is_out_of_reach();
        let why = Box::new(why);
        Err(if is_out_of_reach { StoreError::Unavailable(why) } else { StoreError::Refused(why) })
    }

    /// Whether claims may be made over the connection. It costs no command.
    pub(super) fn may_claim(&self) -> Result<(), StoreError> {
        let now = millis(since_boot());
        if now < self.claims_from.load(Ordering::Relaxed) {
            return Err(StoreError::Refused("the digest key is new: others may not know of it yet".into()));
        }
        if now.saturating_sub(self.confirmed.load(Ordering::Relaxed)) > millis(self.young) {
            return Err(StoreError::Refused("Redis has not confirmed the digest key for a while".into()));
        }
        Ok(())
    }

    /// Whether an owner that has been silent for this lease may be taken for lost. Not within a lease of a change of the
    /// server: it may have missed renewals, and the clock of a replica that was promoted may be ahead.
    pub(super) fn may_take_over(&self, lease: Duration) -> bool {
        match self.changed.load(Ordering::Relaxed) {
            0 => true,
            changed => millis(since_boot()).saturating_sub(changed) >= millis(lease),
        }
    }

    fn note_change(&self) {
        self.changed.store(millis(since_boot()).max(1), Ordering::Relaxed);
    }

    /// Waits for a connection that is not lost.
    pub(super) async fn next(&self) -> Arc<Connected> {
        let works = |current: &Result<Arc<Connected>, _>| current.as_ref().is_ok_and(|connected| !connected.is_lost());
        let mut current = self.current.subscribe();
        let next = current.wait_for(works).await.ok().and_then(|current| current.as_ref().ok().cloned());
        match next {
            Some(connected) => connected,
            // The sender is this very link.
            None => std::future::pending().await,
        }
    }

    /// The server has the digest key that this process uses; it was asked at `asked`.
    pub(super) fn confirm(&self, asked: Duration) {
        self.confirmed.fetch_max(millis(asked), Ordering::Relaxed);
    }

    /// No claims for so long: others may go by another digest key until then.
    pub(super) fn no_claims_for(&self, wait: Duration) {
        self.claims_from.fetch_max(millis(since_boot() + wait), Ordering::Relaxed);
    }

    /// What is known of the server's memory.
    pub(super) fn set_memory(&self, used: Option<f64>, evicting: bool) {
        let thousandths = used.map_or(UNLIMITED, |used| (used * 1000.0).clamp(0.0, 1e6) as u64);
        self.used.store(thousandths, Ordering::Relaxed);
        self.evicting.store(evicting, Ordering::Relaxed);
    }

    pub(super) fn used_ratio(&self) -> Option<f64> {
        let used = self.used.load(Ordering::Relaxed);
        (used != UNLIMITED).then(|| used as f64 / 1000.0)
    }

    pub(super) fn may_evict(&self) -> bool {
        self.evicting.load(Ordering::Relaxed)
    }

    fn set(&self, current: Result<Arc<Connected>, Arc<ConnectError>>) {
        drop(self.current.send_replace(current));
    }

    pub(super) fn is_up(&self) -> bool {
        self.connected().and_then(|_| self.may_claim()).is_ok()
    }

    /// Waits for a connection, or for an error that no waiting cures; after `patience`, for nothing more.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        let mut current = self.current.subscribe();
        let settled = |current: &Result<_, Arc<ConnectError>>| match current {
            Ok(_) => true,
            Err(why) => why.is_final(),
        };
        match tokio::time::timeout(patience, current.wait_for(settled)).await {
            Ok(Ok(current)) => current.as_ref().map(drop).map_err(Arc::clone),
            // The last one tells why not.
            Ok(Err(_)) | Err(_) => self.current.borrow().as_ref().map(drop).map_err(Arc::clone),
        }
    }

    /// Waits until the first try to connect has ended: it has a deadline.
    pub(super) async fn tried(&self) -> Result<(), Arc<ConnectError>> {
        let mut current = self.current.subscribe();
        let tried = |current: &Result<_, Arc<ConnectError>>| match current {
            Ok(_) => true,
            Err(why) => !matches!(**why, ConnectError::NotYet),
        };
        // The sender is this very link.
        let _ = current.wait_for(tried).await;
        self.current.borrow().as_ref().map(drop).map_err(Arc::clone)
    }

    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    pub(super) fn count_loss(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn findings(&self) -> Vec<ServerFinding> {
        self.findings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_findings(&self, findings: Vec<ServerFinding>) {
        *self.findings.write().unwrap_or_else(PoisonError::into_inner) = findings;
    }

    pub(super) fn digest_key(&self) -> Option<DigestKey> {
        *self.digest_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_digest_key(&self, key: DigestKey) {
        *self.digest_key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

impl Connected {
    /// Draws the conclusions for the connection from how a command went.
    pub(super) fn record_result(&self, fault: Option<&CommandError>) {
        match fault {
            Some(CommandError::Late) => {
                if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
                    self.drop_it();
                }
            }
            Some(CommandError::Lost(_)) => self.drop_it(),
            Some(fault) if fault.is_elsewhere() => self.drop_it(),
            Some(CommandError::Refused(..) | CommandError::Full) | None => self.timeouts.store(0, Ordering::Relaxed),
        }
    }

    /// The same, with connections of a core's own for what requests ask.
    pub(super) fn on_core(&self, hot: RedisStream) -> Self {
        let (lost, closed) = (self.lost.clone(), self.lost.child_token());
        let hot = Pipeline::start_beside(self.hot.clone(), hot, closed.clone(), lost, self.timeouts.clone());
        let connections = Arc::new(BodyConnections::on_core(&self.connections));
        Self { hot, connections, closed, ..self.clone() }
    }

    pub(super) fn drop_it(&self) {
        self.lost.cancel();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until it is.
    pub(super) async fn until_lost(&self) {
        self.closed.cancelled().await;
    }
}

impl Supervisor {
    pub(super) fn new(
        link: Arc<Link>,
        dialer: Arc<Dialer>,
        source: Source,
        probe: Probe,
        habits: ConnectionOptions,
        connect_timeout: Duration,
        acks: Option<(u64, Duration)>,
    ) -> Self {
        Self { link, dialer, source, habits, connect_timeout, probe, acks, last: None }
    }

    /// Keeps a connection until the task is aborted.
    pub(super) async fn run(mut self) {
        let mut delay = FIRST_DELAY;
        let mut complained = None;
        loop {
            match self.connect().await {
                Ok((connected, preferred)) => {
                    let server = connected.endpoint.to_string();
                    tracing::info!(server, "connected to Redis");
                    complained = None;
                    self.note_server(&connected.endpoint);
                    let since = Instant::now();
                    self.link.set(Ok(Arc::new(connected.clone())));
                    let why = self.attend(connected, &preferred).await;
                    tracing::warn!(server, error = causes(&why), "the connection to Redis is lost");
                    // Whether the server is out of reach, the next try will tell.
                    self.link.set(Err(Arc::new(if why.is_out_of_reach() { ConnectError::Lost } else { why })));
                    // A server that hangs up on every caller is not to be called without a pause.
                    if since.elapsed() > LONGEST_DELAY {
                        delay = FIRST_DELAY;
                    }
                }
                Err(why) => {
                    // Once for each new reason: an outage may last.
                    let reason = why.to_string();
                    if complained.as_ref() != Some(&reason) {
                        tracing::error!(server = %self.source, error = causes(&why), "no connection to Redis");
                        complained = Some(reason);
                    }
                    self.link.set(Err(Arc::new(why)));
                }
            }
            let pause = tokio::time::sleep(jittered(delay));
            match &self.source {
                Source::Fixed(_) => pause.await,
                // News may be that of a server that works.
                Source::Sentinel(sentinels) => tokio::select! {
                    () = pause => {}
                    () = sentinels.until_heard() => delay = FIRST_DELAY,
                },
            }
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// Connects to the server, or to the first of those that may be it. Which one the sentinels preferred, too.
    async fn connect(&mut self) -> Result<(Connected, RedisEndpoint), ConnectError> {
        let candidates = match &self.source {
            Source::Fixed(endpoint) => vec![endpoint.clone()],
            Source::Sentinel(sentinels) => sentinels.candidates().await.map_err(|source| {
                let master = sentinels.master().to_owned();
                ConnectError::NoPrimary { master, source }
            })?,
        };
        let mut failed = None;
        for endpoint in &candidates {
            let why = match self.connect_to(endpoint, &candidates[0]).await {
                Ok(connected) => return Ok((connected, candidates[0].clone())),
                Err(why) => why,
            };
            // Why the one that is preferred does not do says most.
            failed = failed.or(Some(why));
        }
        Err(failed.unwrap_or(ConnectError::NotYet))
    }

    async fn connect_to(
        &mut self,
        endpoint: &RedisEndpoint,
        preferred: &RedisEndpoint,
    ) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + self.connect_timeout;
        let lost = CancellationToken::new();
        let silent = |_| ConnectError::Silent(self.connect_timeout);
        self.dialer.take_reached();
        let mute = |_| match (self.dialer.take_reached(), self.dialer.is_tls()) {
            (false, _) => ConnectError::Silent(self.connect_timeout),
            (true, true) => ConnectError::MuteInTls(self.connect_timeout),
            (true, false) => ConnectError::Mute(self.connect_timeout),
        };
        let (dialer, prefix) = (&self.dialer, self.probe.prefix());
        let ours = || handshake::open(dialer, endpoint, prefix);
        let crates = || self.open(endpoint, &lost);
        let open = async { tokio::try_join!(crates(), crates(), ours(), ours()) };
        let opened = match &self.source {
            Source::Fixed(_) => tokio::time::timeout_at(deadline, open).await.map_err(mute)?,
            // A host that is down does not even refuse, and meanwhile another may be the primary.
            Source::Sentinel(sentinels) => tokio::select! {
                opened = tokio::time::timeout_at(deadline, open) => opened.map_err(mute)?,
                () = sentinels.until_moved(endpoint, preferred) => {
                    return Err(ConnectError::NotPrimary { server: endpoint.to_string() });
                }
            },
        };
        let (control, lists, hot, carrier) = opened.map_err(|error| ConnectError::of_opening(error, dialer))?;
        if matches!(self.source, Source::Sentinel(_)) {
            let is_primary = tokio::time::timeout_at(deadline, is_primary(&control)).await.map_err(silent)?;
            if !is_primary.map_err(|error| ConnectError::of_opening(error, dialer))? {
                return Err(ConnectError::NotPrimary { server: endpoint.to_string() });
            }
        }
        let connections = BodyConnections::new(dialer.clone(), endpoint.clone(), prefix.to_owned(), Some(carrier));
        let replication = match self.acks {
            None => None,
            Some((acks, timeout)) => {
                let opened = tokio::time::timeout_at(deadline, self.open(endpoint, &lost)).await.map_err(silent)?;
                let connection = opened.map_err(|error| ConnectError::of_opening(error, dialer))?;
                Some(Replication::start(connection, format!("{prefix}:replicated"), acks, timeout, lost.clone()))
            }
        };
        let (endpoint, connections) = (endpoint.clone(), Arc::new(connections));
        let (acquire, timeouts) = (AcquireMethod::Natively, Arc::<AtomicU32>::default());
        let hot = Pipeline::start(hot, lost.clone(), timeouts.clone());
        let closed = lost.clone();
        let mut connected =
            Connected { endpoint, hot, control, lists, connections, acquire, replication, lost, closed, timeouts };
        self.probe.examine(&mut connected, &self.link, deadline).await?;
        Ok(connected)
    }

    /// Opens a connection that says when it is lost.
    async fn open(&self, endpoint: &RedisEndpoint, lost: &CancellationToken) -> RedisResult<Multiplexed> {
        let closed = lost.clone();
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                closed.cancel();
            }
        };
        multiplexed::open(&self.dialer, endpoint, on_push).await
    }

    /// Remembers which server it is, and whether it is another than before. Where sentinels name it, the first may have
    /// become the primary a moment ago.
    fn note_server(&mut self, endpoint: &RedisEndpoint) {
        let now = Identity { endpoint: endpoint.clone(), run: self.probe.run().map(str::to_owned) };
        let is_changed = match &self.last {
            // Without the number of a run, nothing tells that it is still the same one.
            Some(last) => *last != now || now.run.is_none(),
            None => matches!(self.source, Source::Sentinel(_)),
        };
        if is_changed {
            self.link.note_change();
        }
        self.last = Some(now);
    }

    /// Watches over a connection until it is lost.
    async fn attend(&mut self, connected: Connected, preferred: &RedisEndpoint) -> ConnectError {
        let lost = connected.lost.clone();
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                () = lost.cancelled() => return ConnectError::Lost,
                () = self.source.until_moved(&connected.endpoint, preferred) => {
                    tracing::warn!(server = %connected.endpoint, "the sentinels name another primary");
                    lost.cancel();
                    return ConnectError::Lost;
                }
                () = tokio::time::sleep(self.habits.ping_every) => {}
            }
            let deadline = Instant::now() + self.connect_timeout;
            let mut asked = self.probe.agree(&connected, &self.link, deadline).await;
            if asked.is_ok() && looked.elapsed() >= self.habits.look_every {
                looked = Instant::now();
                asked = self.probe.look(&connected, &self.link, deadline).await;
                connected.keep_alive(self.probe.prefix()).await;
            }
            if let Err(why) = asked {
                lost.cancel();
                return why;
            }
        }
    }
}

impl Source {
    /// Waits until another server is to be used.
    async fn until_moved(&self, current: &RedisEndpoint, preferred: &RedisEndpoint) {
        match self {
            Self::Fixed(_) => std::future::pending().await,
            Self::Sentinel(sentinels) => sentinels.until_moved(current, preferred).await,
        }
    }
}

/// For messages.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(endpoint) => endpoint.fmt(f),
            Self::Sentinel(sentinels) => f.write_str(sentinels.master()),
        }
    }
}

/// Whether the server holds itself for a primary. One that does not let this user ask says so when it is written to.
async fn is_primary(control: &Multiplexed) -> RedisResult<bool> {
    match redis::cmd("ROLE").query_async::<Vec<redis::Value>>(&mut control.handle()).await {
        Ok(role) => {
            Ok(role.first().is_some_and(|role| matches!(role, redis::Value::BulkString(role) if role == b"master")))
        }
        Err(error) if error.code().is_some() => Ok(true),
        Err(error) => Err(error),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Between half and all of it, so that sidecars which lost the same server do not come back in step.
pub(super) fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness there is no jitter, and nothing worse.
    let _ = getrandom::fill(&mut random);
    delay / 2 + delay / 2 * u32::from(random[0]) / 255
}
