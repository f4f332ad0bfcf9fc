//! The tasks that keep the sessions: one looks for the primary and stays with it, one opens sessions for calls, one sweeps.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::PostgresOptions;
use super::agreement::DigestKeyAgreement;
use super::commit_check::{CommitCheck, CommitHealth};
use super::dial::PostgresDialer;
use super::error::PostgresError;
use super::examine::{self, CALLS, COMMITS};
use super::failover;
use super::link::{ConnectedPrimary, PostgresLink};
use super::pool::{self, COMMITTING, READING, SessionPool};
use super::session::{ServerProcess, Session};
use super::sweep;
use crate::store::timing::{FIRST_DELAY, LONGEST_DELAY, jittered};
use crate::store::usable_since::UsableSince;
use crate::store::{ServerFinding, causes};

/// The task that looks for the primary, and stays with it.
pub(super) struct PrimaryKeeper {
    pub(super) link: Arc<PostgresLink>,
    pub(super) dialer: Arc<PostgresDialer>,
    pub(super) options: PostgresOptions,
    /// For a connect with all that is examined, and for each question later.
    pub(super) connect_timeout: Duration,
    /// A commit that takes longer has failed for its caller.
    pub(super) timeout: Duration,
    pub(super) agreement: DigestKeyAgreement,
    pub(super) findings: Arc<RwLock<Vec<ServerFinding>>>,
    pub(super) usable_since: Arc<UsableSince>,
    /// The latest timeline that was seen.
    pub(super) timeline: u32,
    /// Processes that worked for earlier connections, for calls that commit and for those that read.
    pub(super) left_behind: [Vec<ServerProcess>; 2],
    /// What an attempt to connect has written with, until that has ended.
    pub(super) examining: Option<ServerProcess>,
}

/// A commit that takes longer hangs, however long calls wait.
const HANGS: Duration = Duration::from_secs(2);

/// A clock that goes wrong by more than this is told.
const CLOCK_STEP: Duration = Duration::from_secs(5);

impl PrimaryKeeper {
    /// Keeps a connection until the task is aborted.
    pub(super) async fn run(mut self) {
        let mut delay = FIRST_DELAY;
        let (mut complained, mut is_first) = (None, true);
        loop {
            let begun = Instant::now();
            let connected = tokio::time::timeout(self.connect_timeout, self.connect()).await;
            let connected = connected.unwrap_or(Err(PostgresError::Silent(self.connect_timeout)));
            // At the start, the opener of the store waits for the first attempt, and reports a final error itself.
            let is_awaited = std::mem::take(&mut is_first);
            match connected {
                Ok(primary) => {
                    let server = primary.endpoint.to_string();
                    tracing::info!(server, timeline = primary.timeline, "connected to PostgreSQL");
                    complained = None;
                    let (primary, since) = (Arc::new(primary), Instant::now());
                    self.link.set(Ok(primary.clone()));
                    let why = self.attend(&primary).await;
                    tracing::warn!(server, error = causes(&why), "the connection to PostgreSQL is lost");
                    primary.control.end();
                    // Only the next attempt shows whether the server is out of reach.
                    self.link.set(Err(Arc::new(if why.is_out_of_reach() { PostgresError::Lost } else { why })));
                    if since.elapsed() > LONGEST_DELAY {
                        delay = FIRST_DELAY;
                    }
                }
                Err(why) => {
                    // Each new reason is logged once, because an outage may be long.
                    let reason = why.to_string();
                    if complained.as_ref() != Some(&reason) && !(is_awaited && why.is_final()) {
                        tracing::error!(
                            server = self.dialer.server(),
                            error = causes(&why),
                            "no connection to PostgreSQL"
                        );
                        complained = Some(reason);
                    }
                    self.link.set(Err(Arc::new(why)));
                    // A server that hung may continue at any time. It is tried again soon after a long attempt.
                    if begun.elapsed() > LONGEST_DELAY {
                        delay = FIRST_DELAY;
                    }
                }
            }
            tokio::time::sleep(jittered(delay)).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    async fn connect(&mut self) -> Result<ConnectedPrimary, PostgresError> {
        let candidate = examine::primary(&self.dialer, self.timeline).await?;
        examine::refuse_pooler(&self.dialer, &candidate).await?;
        let client = candidate.session.client();
        // An earlier attempt may wait there for its commit. Another one would wait as well, and cost one more connection.
        if let Some(earlier) = &self.examining
            && !pool::still_at_work(client, std::slice::from_ref(earlier)).await?.is_empty()
        {
            return Err(PostgresError::Silent(self.connect_timeout));
        }
        self.examining = Some(candidate.session.process.clone());
        examine::tables(&candidate.session, !self.options.is_read_only).await?;
        *self.findings.write().unwrap_or_else(PoisonError::into_inner) =
            examine::findings(&candidate.session, candidate.timeline).await?;
        self.agreement.agree(client).await?;
        self.examining = None;
        candidate.session.prepare().await?;
        let [committing, reading] = self.left_behind.clone();
        let [committing, reading] = [SessionPool::new(COMMITTING, committing), SessionPool::new(READING, reading)];
        for pool in [&committing, &reading] {
            pool.forget_those_gone(client).await?;
            while pool.is_short() && pool.has_room() {
                pool.add(open_session(&self.dialer, &candidate.endpoint).await?);
            }
        }
        let commits = if self.options.is_read_only {
            CommitHealth::unchecked()
        } else if committing.is_jammed() {
            // Each process that waits costs the server a connection.
            CommitHealth::new(None)
        } else {
            CommitHealth::new(Some(Session::open(&self.dialer, &candidate.endpoint, COMMITS, None).await?))
        };
        self.timeline = self.timeline.max(candidate.timeline);
        // Owners may have been unable to renew until now, also where this process has just started; and a standby may lack what
        // they did last. Read-only use shows how long owners have been silent, and concludes nothing.
        if !self.options.is_read_only {
            self.usable_since.note_break();
        }
        let examine::Candidate { endpoint, session: control, timeline, clock, .. } = candidate;
        Ok(ConnectedPrimary { endpoint, control, committing, reading, commits, timeline, clock })
    }

    /// Stays with a server until it is lost.
    async fn attend(&mut self, primary: &Arc<ConnectedPrimary>) -> PostgresError {
        let (dialer, usable_since) = (self.dialer.clone(), self.usable_since.clone());
        let (writes, every) = (!self.options.is_read_only, self.options.ping_every);
        let commits =
            CommitCheck { dialer: &dialer, primary, usable_since: &usable_since, every, late: self.timeout.min(HANGS) };
        let tasks = async {
            tokio::select! {
                later = failover::until_taken_over(&dialer, primary, every) => later,
                never = sweep::run(primary) => match never {},
                never = commits.run() => match never {},
            }
        };
        let why = tokio::select! {
            why = self.ask_again_and_again(primary) => why,
            () = primary.control.until_lost() => PostgresError::Lost,
            never = keep_sessions(&dialer, primary, &primary.committing) => match never {},
            never = keep_sessions(&dialer, primary, &primary.reading) => match never {},
            later = async { if writes { tasks.await } else { std::future::pending().await } } => PostgresError::OldTimeline {
                server: primary.endpoint.to_string(),
                found: primary.timeline,
                seen: later,
            },
        };
        self.left_behind = primary.processes();
        match &why {
            PostgresError::OldTimeline { seen, .. } => {
                self.timeline = *seen;
                primary.end();
            }
            // What it commits is not replicated.
            PostgresError::NoPrimary(_) => primary.end(),
            _ => {}
        }
        why
    }

    /// Asks what shows that the server is there, is the primary, and has the same digest key.
    async fn ask_again_and_again(&mut self, primary: &ConnectedPrimary) -> PostgresError {
        let (first, begun) = (primary.clock, Instant::now());
        let mut told = false;
        loop {
            tokio::time::sleep(self.options.ping_every).await;
            let asked = async {
                const STATE: &str = "SELECT pg_is_in_recovery(), pg_backend_pid(), clock_timestamp()";
                let state = primary.control.client().query_one(STATE, &[]).await.map_err(PostgresError::of)?;
                if state.get(0) {
                    return Err(PostgresError::NoPrimary(primary.endpoint.to_string()));
                }
                if state.get::<_, i32>(1) != primary.control.process_id {
                    return Err(PostgresError::Pooler);
                }
                self.agreement.agree(primary.control.client()).await?;
                Ok(state.get::<_, SystemTime>(2))
            };
            let clock = match tokio::time::timeout(self.connect_timeout, asked).await {
                Ok(Ok(clock)) => clock,
                Ok(Err(why)) => return why,
                Err(_) => return PostgresError::Silent(self.connect_timeout),
            };
            let is_off = clock_step(first, clock, begun.elapsed()) > CLOCK_STEP;
            if is_off && !told {
                tracing::warn!(
                    server = %primary.endpoint,
                    "the clock of PostgreSQL was set: leases and retentions end by it, sooner or later than they should"
                );
            }
            told = is_off;
        }
    }
}

/// By how much a clock differs from what it should say after this time.
fn clock_step(first: SystemTime, now: SystemTime, elapsed: Duration) -> Duration {
    let should = first + elapsed;
    now.duration_since(should).unwrap_or_else(|error| error.duration())
}

async fn open_session(
    dialer: &PostgresDialer,
    endpoint: &crate::config::StoreEndpoint,
) -> Result<Session, PostgresError> {
    let session = Session::open(dialer, endpoint, CALLS, None).await?;
    session.prepare().await?;
    Ok(session)
}

/// Opens sessions where calls meet, and in place of those that were lost.
async fn keep_sessions(
    dialer: &PostgresDialer,
    primary: &ConnectedPrimary,
    pool: &SessionPool,
) -> std::convert::Infallible {
    loop {
        tokio::select! {
            () = pool.until_wanted() => {}
            () = tokio::time::sleep(LONGEST_DELAY), if pool.leaves_any_behind() => {}
        }
        if let Err(error) = pool.forget_those_gone(primary.control.client()).await {
            tracing::debug!(error = causes(&error), "which processes of PostgreSQL are still at work is not known");
        }
        if pool.is_full() {
            continue;
        }
        if !pool.has_room() {
            // The wait is for the processes.
            tokio::time::sleep(jittered(LONGEST_DELAY)).await;
            pool.want();
            continue;
        }
        let opened = tokio::time::timeout(LONGEST_DELAY * 5, open_session(dialer, &primary.endpoint)).await;
        match opened {
            Ok(Ok(session)) => pool.add(session),
            Ok(Err(error)) => {
                tracing::debug!(error = causes(&error), "no further connection to PostgreSQL");
                tokio::time::sleep(jittered(LONGEST_DELAY)).await;
            }
            Err(_) => {}
        }
        if pool.is_short() {
            pool.want();
        }
    }
}
