//! The task that keeps a connection to a server.
//!
//! It connects, finds out what the server supports, and sends a command every second, which detects dead connections.
//! On a server that holds all records, this command confirms the digest key. In a cluster, another task does that for
//! all nodes.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use redis::{PushInfo, PushKind, RedisResult};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ConnectionOptions;
use super::body_connections::BodyConnections;
use super::canary::Canary;
use super::command_error::CommandError;
use super::connect_error::ConnectError;
use super::connected::{AcquireMethod, Connected};
use super::examine::ServerExaminer;
use super::facts::field;
use super::handshake;
use super::key_agreement::{KeyAgreement, note_name};
use super::link::Link;
use super::multiplexed::{self, Multiplexed};
use super::pipeline::Pipeline;
use super::sentinel::Sentinels;
use super::stream::Dialer;
use super::write_acks::{RequiredAcks, WriteAcks, try_acks};
use crate::config::StoreEndpoint;
use crate::store::causes;
use crate::store::timing::{FIRST_DELAY, LONGEST_DELAY, jittered};
use crate::store::usable_since::UsableSince;

/// The task.
pub(super) struct Supervisor {
    pub(super) link: Arc<Link>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) source: Arc<Source>,
    pub(super) options: ConnectionOptions,
    pub(super) connect_timeout: Duration,
    pub(super) examiner: ServerExaminer,
    /// The agreement on the digest key, and the canary. `None` for a node of a cluster, which holds only a part of the
    /// store.
    pub(super) agreement: Option<(KeyAgreement, Canary)>,
    /// The acknowledgements that a write needs, and the time limit for them.
    pub(super) acks: Option<(RequiredAcks, Duration)>,
}

/// The source of the server's address.
pub(super) enum Source {
    /// The configuration.
    Fixed(StoreEndpoint),
    /// Sentinels, which may name another server at any time.
    Sentinel(Sentinels),
}

/// A server that takes longer to answer a ping hangs, and owners may fail to renew.
const HANGS: Duration = Duration::from_secs(2);
/// The interval at which the break is noted while a server hangs. What it answers first must find it noted.
const HANGS_ON: Duration = Duration::from_millis(200);

impl Supervisor {
    /// Keeps a connection until the task is aborted.
    pub(super) async fn run(mut self) {
        let mut delay = FIRST_DELAY;
        let (mut complained, mut is_first) = (None, true);
        loop {
            let begun = Instant::now();
            let connected = self.connect().await;
            // At the start, the opener of the store waits for the first attempt, and reports a final error itself.
            let is_awaited = std::mem::take(&mut is_first);
            match connected {
                Ok((connected, preferred)) => {
                    let server = connected.endpoint.to_string();
                    tracing::info!(server, "connected to Redis");
                    complained = None;
                    // A fixed server that answers at the first attempt was probably there before. Sentinels may name one
                    // that has become the primary a moment ago.
                    if !(is_awaited && matches!(*self.source, Source::Fixed(_))) {
                        self.note_break();
                    }
                    let since = Instant::now();
                    self.link.set(Ok(Arc::new(connected.clone())));
                    let why = self.attend(connected, &preferred).await;
                    tracing::warn!(server, error = causes(&why), "the connection to Redis is lost");
                    // Only the next attempt shows whether the server is out of reach.
                    self.link.set(Err(Arc::new(if why.is_out_of_reach() { ConnectError::Lost } else { why })));
                    // The pause protects a server that closes every connection at once.
                    if since.elapsed() > LONGEST_DELAY {
                        delay = FIRST_DELAY;
                    }
                }
                Err(why) => {
                    // Each new reason is logged once, because an outage may be long.
                    let reason = why.to_string();
                    if complained.as_ref() != Some(&reason) && !(is_awaited && why.is_final()) {
                        tracing::error!(server = %self.source, error = why.with_advice(), "no connection to Redis");
                        complained = Some(reason);
                    }
                    self.link.set(Err(Arc::new(why)));
                    // A server that hung may continue at any time. It is tried again soon after a long attempt.
                    if begun.elapsed() > LONGEST_DELAY {
                        delay = FIRST_DELAY;
                    }
                }
            }
            let pause = tokio::time::sleep(jittered(delay));
            match &*self.source {
                Source::Fixed(_) => pause.await,
                // The sentinels may now name a server that works.
                Source::Sentinel(sentinels) => tokio::select! {
                    () = pause => {}
                    () = sentinels.until_heard() => delay = FIRST_DELAY,
                },
            }
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// Connects to the server, or to the first candidate that works (one, where the sentinels tell epochs). Also returns the
    /// candidate that the sentinels preferred.
    async fn connect(&mut self) -> Result<(Connected, StoreEndpoint), ConnectError> {
        let candidates = match &*self.source {
            Source::Fixed(endpoint) => vec![endpoint.clone()],
            Source::Sentinel(sentinels) => sentinels.candidates().await.map_err(|source| {
                let master = sentinels.master().to_owned();
                ConnectError::NoPrimary { master, source }
            })?,
        };
        let mut failed = None;
        let source = self.source.clone();
        for endpoint in &candidates {
            let connected = tokio::select! {
                connected = self.connect_to(endpoint) => connected,
                // A host that is down does not even refuse. Meanwhile, another may become the primary.
                () = source.until_moved(endpoint, &candidates[0]) => {
                    Err(ConnectError::NotPrimary { server: endpoint.to_string() })
                }
            };
            let why = match connected {
                Ok(connected) => return Ok((connected, candidates[0].clone())),
                Err(why) => why,
            };
            // The error of the preferred candidate says most.
            failed = failed.or(Some(why));
        }
        Err(failed.unwrap_or(ConnectError::NotYet))
    }

    async fn connect_to(&mut self, endpoint: &StoreEndpoint) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + self.connect_timeout;
        let lost = CancellationToken::new();
        let silent = |_| ConnectError::Silent(self.connect_timeout);
        self.dialer.take_reached();
        let mute = |_| match (self.dialer.take_reached(), self.dialer.is_tls()) {
            (false, _) => ConnectError::Silent(self.connect_timeout),
            (true, true) => ConnectError::MuteInTls(self.connect_timeout),
            (true, false) => ConnectError::Mute(self.connect_timeout),
        };
        let (dialer, prefix) = (&self.dialer, self.examiner.prefix());
        let ours = || handshake::open(dialer, endpoint, prefix);
        let crates = || self.open(endpoint, &lost);
        let open = async { tokio::try_join!(crates(), crates(), ours(), ours()) };
        let opened = tokio::time::timeout_at(deadline, open).await.map_err(mute)?;
        let (control, lists, hot, carrier) = opened.map_err(|error| ConnectError::of_opening(error, dialer))?;
        if matches!(*self.source, Source::Sentinel(_)) {
            let is_primary = tokio::time::timeout_at(deadline, is_primary(&control)).await.map_err(silent)?;
            if !is_primary.map_err(|error| ConnectError::of_opening(error, dialer))? {
                return Err(ConnectError::NotPrimary { server: endpoint.to_string() });
            }
        }
        let mut run_ids = vec![hot.run_id, carrier.run_id, run_id_of(&lists, deadline).await];
        let (dialer, prefix) = (dialer.clone(), prefix.to_owned());
        let connections = BodyConnections::new(dialer.clone(), endpoint.clone(), prefix.clone(), Some(carrier.stream));
        let write_acks = match self.acks {
            None => None,
            Some((acks, timeout)) => {
                let opened = tokio::time::timeout_at(deadline, self.open(endpoint, &lost)).await.map_err(silent)?;
                let connection = opened.map_err(|error| ConnectError::of_opening(error, &dialer))?;
                run_ids.push(run_id_of(&connection, deadline).await);
                let tried = tokio::time::timeout_at(deadline, try_acks(&connection, acks)).await.map_err(silent)?;
                tried.map_err(|error| self.examiner.without_acks(acks, error, endpoint, &dialer))?;
                let marks = (self.link.names.clone(), format!("{prefix}:replicated"));
                Some(WriteAcks::start(connection, marks, acks, timeout, lost.clone()))
            }
        };
        let (endpoint, connections) = (endpoint.clone(), Arc::new(connections));
        let (acquire, timeouts) = (AcquireMethod::Natively, Arc::<AtomicU32>::default());
        let hot = Pipeline::start(hot.stream, lost.clone(), timeouts.clone());
        let (closed, usable_since) = (lost.clone(), self.link.usable_since.clone());
        let duty = self.examiner.duty();
        let mut connected = Connected {
            endpoint,
            run_id: None,
            duty,
            hot,
            control,
            lists,
            connections,
            acquire,
            write_acks,
            usable_since,
            lost,
            closed,
            timeouts,
        };
        self.examiner.examine(&mut connected, &self.link, deadline).await?;
        if let Some(run_id) = self.examiner.run_id() {
            // A wait for replicas must be on the same server as the claims. Otherwise it proves nothing.
            if run_ids.iter().flatten().any(|other| other != run_id) {
                return Err(ConnectError::SeveralServers { server: connected.endpoint.to_string() });
            }
            connected.connections.set_run_id(run_id);
            connected.run_id = Some(run_id.into());
        }
        self.ask(&connected, deadline).await?;
        Ok(connected)
    }

    /// Checks that the connection works and that the store has not lost data.
    async fn ask(&mut self, connected: &Connected, deadline: Instant) -> Result<(), ConnectError> {
        if let Some((agreement, canary)) = &mut self.agreement {
            return agreement.agree(connected, Some(canary), deadline).await;
        }
        match connected.left(&note_name(self.examiner.prefix()), deadline).await {
            // The name most likely belongs to another node. This node has replied, which is enough.
            Ok(_) | Err(CommandError::Refused(..)) => Ok(()),
            Err(fault) => Err(self.examiner.of(fault)),
        }
    }

    /// Opens a connection that reports its loss.
    async fn open(&self, endpoint: &StoreEndpoint, lost: &CancellationToken) -> RedisResult<Multiplexed> {
        let closed = lost.clone();
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                closed.cancel();
            }
        };
        multiplexed::open(&self.dialer, endpoint, on_push).await
    }

    /// The server could not be used until now. Read-only use shows how long owners have been silent, and concludes nothing.
    fn note_break(&self) {
        if !self.options.is_read_only {
            self.link.usable_since.note_break();
        }
    }

    /// Monitors a connection until it is lost.
    async fn attend(&mut self, connected: Connected, preferred: &StoreEndpoint) -> ConnectError {
        let (lost, source) = (connected.lost.clone(), self.source.clone());
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                () = lost.cancelled() => return ConnectError::Lost,
                // This does not wait for a server that hangs.
                () = source.until_moved(&connected.endpoint, preferred) => {
                    tracing::warn!(server = %connected.endpoint, "the sentinels name another primary");
                    lost.cancel();
                    return ConnectError::Lost;
                }
                asked = self.ask_later(&connected, &mut looked) => {
                    if let Err(why) = asked {
                        lost.cancel();
                        return why;
                    }
                }
            }
        }
    }

    /// After the interval, checks that the connection works. At longer intervals, it also reads the server's state.
    async fn ask_later(&mut self, connected: &Connected, looked: &mut Instant) -> Result<(), ConnectError> {
        tokio::time::sleep(self.options.ping_every).await;
        let deadline = Instant::now() + self.connect_timeout;
        let noted = (!self.options.is_read_only).then(|| self.link.usable_since.clone());
        noting_breaks(noted.as_deref(), self.ask(connected, deadline)).await?;
        if looked.elapsed() >= self.options.look_every {
            *looked = Instant::now();
            let looked = noting_breaks(noted.as_deref(), self.examiner.look(connected, &self.link, deadline)).await;
            connected.keep_alive(&note_name(self.examiner.prefix())).await;
            looked?;
        }
        Ok(())
    }
}

impl Source {
    /// Waits until another server must be used.
    async fn until_moved(&self, current: &StoreEndpoint, preferred: &StoreEndpoint) {
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

/// Waits for an answer. Once it is late, a break is noted again and again.
async fn noting_breaks<T>(usable_since: Option<&UsableSince>, answer: impl Future<Output = T>) -> T {
    tokio::select! {
        answer = answer => answer,
        never = note_breaks(usable_since) => match never {},
    }
}

async fn note_breaks(usable_since: Option<&UsableSince>) -> Infallible {
    tokio::time::sleep(HANGS).await;
    loop {
        if let Some(usable_since) = usable_since {
            usable_since.note_break();
        }
        tokio::time::sleep(HANGS_ON).await;
    }
}

/// Whether the server reports that it is a primary. If this user may not ask, a later write shows it.
async fn is_primary(control: &Multiplexed) -> RedisResult<bool> {
    match redis::cmd("ROLE").query_async::<Vec<redis::Value>>(&mut control.handle()).await {
        Ok(role) => {
            Ok(role.first().is_some_and(|role| matches!(role, redis::Value::BulkString(role) if role == b"master")))
        }
        Err(error) if error.code().is_some() => Ok(true),
        Err(error) => Err(error),
    }
}

/// The run ID of the server on this connection, if the server reports it.
async fn run_id_of(connection: &Multiplexed, deadline: Instant) -> Option<String> {
    let mut handle = connection.handle();
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let told = tokio::time::timeout_at(deadline, info.query_async::<String>(&mut handle)).await;
    field(&told.ok()?.ok()?, "run_id")
}
