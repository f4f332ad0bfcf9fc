//! The tasks that keep the sessions: one looks for the primary and stays with it, one opens sessions for calls, one sweeps.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::PostgresOptions;
use super::agreement::DigestKeyAgreement;
use super::dial::PostgresDialer;
use super::examine::{self, CALLS};
use super::pool::{LEAST, MOST, SessionPool};
use super::postgres_error::PostgresError;
use super::postgres_link::{ConnectedPrimary, PostgresLink};
use super::session::Session;
use super::sweep;
use crate::store::usable_since::UsableSince;
use crate::store::{ServerFinding, causes};

/// The task that looks for the primary, and stays with it.
pub(super) struct PrimaryKeeper {
    pub(super) link: Arc<PostgresLink>,
    pub(super) dialer: Arc<PostgresDialer>,
    pub(super) options: PostgresOptions,
    /// For a connect with all that is examined, and for each question later.
    pub(super) connect_timeout: Duration,
    pub(super) agreement: DigestKeyAgreement,
    pub(super) findings: Arc<RwLock<Vec<ServerFinding>>>,
    pub(super) usable_since: Arc<UsableSince>,
    pub(super) has_connected: bool,
    /// The latest timeline that was seen.
    pub(super) timeline: u32,
}

pub(super) const FIRST_DELAY: Duration = Duration::from_millis(20);
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A server that has run for so long was there for the owners of all leases that matter.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// A server that takes longer to answer hangs, and owners may fail to renew.
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
        examine::tables(&candidate.session, self.options.puts_key).await?;
        *self.findings.write().unwrap_or_else(PoisonError::into_inner) =
            examine::findings(&candidate.session, candidate.timeline).await?;
        self.agreement.agree(candidate.session.client()).await?;
        candidate.session.prepare().await?;
        let sessions = SessionPool::default();
        for _ in 0..LEAST {
            sessions.add(open_session(&self.dialer, &candidate.endpoint).await?);
        }
        self.timeline = self.timeline.max(candidate.timeline);
        // Owners could not renew before, or a standby may lack what they did last.
        if self.has_connected || candidate.timeline > 1 || candidate.has_run_for < LONG_ENOUGH {
            self.usable_since.note_break();
        }
        self.has_connected = true;
        let examine::Candidate { endpoint, session: control, timeline, clock, .. } = candidate;
        Ok(ConnectedPrimary { endpoint, control, sessions, timeline, clock })
    }

    /// Stays with a server until it is lost.
    async fn attend(&mut self, primary: &Arc<ConnectedPrimary>) -> PostgresError {
        let (dialer, is_sweeping) = (self.dialer.clone(), self.options.puts_key);
        tokio::select! {
            why = self.ask_again_and_again(primary) => why,
            () = primary.control.until_lost() => PostgresError::Lost,
            never = keep_sessions(&dialer, primary) => match never {},
            never = async {
                if is_sweeping { sweep::run(primary).await } else { std::future::pending().await }
            } => match never {},
        }
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
                if state.get::<_, i32>(1) != primary.control.process {
                    return Err(PostgresError::Pooler);
                }
                self.agreement.agree(primary.control.client()).await?;
                Ok(state.get::<_, SystemTime>(2))
            };
            let asked_at = Instant::now();
            let clock = match tokio::time::timeout(self.connect_timeout, asked).await {
                Ok(Ok(clock)) => clock,
                Ok(Err(why)) => return why,
                Err(_) => return PostgresError::Silent(self.connect_timeout),
            };
            if asked_at.elapsed() > HANGS {
                self.usable_since.note_break();
            }
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
///
/// A session that was dropped late may leave a process of the server behind, which waits for a standby and does not notice
/// that nobody is there. As long as such processes are there, they count: otherwise every late answer would cost the server
/// one more of its connections.
async fn keep_sessions(dialer: &PostgresDialer, primary: &ConnectedPrimary) -> std::convert::Infallible {
    let pool = &primary.sessions;
    loop {
        pool.until_wanted().await;
        let count = pool.count();
        if !pool.left_behind().is_empty() {
            let processes = pool.left_behind().clone();
            const STILL: &str =
                "SELECT pid FROM pg_stat_activity WHERE pid = ANY($1) AND application_name = 'onlyonce calls'";
            if let Ok(rows) = primary.control.client().query(STILL, &[&processes]).await {
                *pool.left_behind() = rows.iter().map(|row| row.get(0)).collect();
            }
        }
        let left_behind = pool.left_behind().len();
        if count >= MOST {
            continue;
        }
        if count + left_behind >= MOST {
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
        if pool.count() < LEAST {
            pool.want();
        }
    }
}

/// A random time between half of `delay` and all of it. So sidecars that lost the same server do not return at the same
/// time.
pub(super) fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random bytes, there is no jitter. That is the only effect.
    let _ = getrandom::fill(&mut random);
    delay / 2 + delay / 2 * u32::from(random[0]) / 255
}
