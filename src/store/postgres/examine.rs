//! Finds the primary among the servers, and finds out whether it can be used.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::dial::PostgresDialer;
use super::error::PostgresError;
use super::pool::{COMMITTING, MOST, READING};
use super::schema::{self, Tables};
use super::session::Session;
use crate::config::StoreEndpoint;
use crate::store::ServerFinding;

/// A server that has let a session in, and says that it is a primary.
pub(super) struct Candidate {
    pub(super) endpoint: StoreEndpoint,
    pub(super) session: Session,
    /// A server that is promoted begins a new timeline. One that was a primary before, and comes back, has an older one.
    pub(super) timeline: u32,
    pub(super) clock: SystemTime,
}

/// How long the other servers are waited for when one has answered that it is the primary: one of a later timeline counts.
const OTHERS: Duration = Duration::from_millis(500);

/// The oldest version whose statements are the ones that are used here.
const LEAST_VERSION: i32 = 140_000;

/// The primary. Of several that take themselves for it, the one of the latest timeline, which is not older than `seen`.
pub(super) async fn primary(dialer: &Arc<PostgresDialer>, seen: u32) -> Result<Candidate, PostgresError> {
    let mut looks = JoinSet::new();
    for endpoint in dialer.servers() {
        let (dialer, endpoint) = (dialer.clone(), endpoint.clone());
        looks.spawn(async move { candidate(&dialer, endpoint).await });
    }
    let mut best: Option<Candidate> = None;
    let (mut failed, mut standbys) = (None, 0);
    let mut until = None;
    loop {
        let next = match until {
            None => looks.join_next().await,
            Some(until) => tokio::time::timeout_at(until, looks.join_next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some(Ok(Ok(Some(found)))) => {
                until = until.or(Some(Instant::now() + OTHERS));
                if best.as_ref().is_none_or(|best| best.timeline < found.timeline) {
                    best = Some(found);
                }
            }
            Some(Ok(Ok(None))) => standbys += 1,
            Some(Ok(Err(why))) => failed = failed.or(Some(why)),
            // The runtime ends.
            Some(Err(_)) => {}
        }
    }
    match (best, failed) {
        (Some(Candidate { endpoint, timeline, .. }), _) if timeline < seen => {
            Err(PostgresError::OldTimeline { server: endpoint.to_string(), found: timeline, seen })
        }
        (Some(best), _) => Ok(best),
        (None, Some(why)) if standbys == 0 => Err(why),
        (None, _) => Err(PostgresError::NoPrimary(dialer.server())),
    }
}

/// `None`: a standby.
async fn candidate(dialer: &PostgresDialer, endpoint: StoreEndpoint) -> Result<Option<Candidate>, PostgresError> {
    let session = Session::open(dialer, &endpoint, CONTROL, None).await?;
    // The functions about the log exist on a primary only.
    const WHAT: &str = "SELECT pg_is_in_recovery(), current_setting('server_version_num')::integer,
                               current_setting('server_version'), clock_timestamp(),
                               CASE WHEN pg_is_in_recovery() THEN ''
                                    ELSE substring(pg_walfile_name(pg_current_wal_lsn()) FROM 1 FOR 8) END";
    let row = session.client().query_one(WHAT, &[]).await.map_err(PostgresError::of)?;
    if row.get::<_, i32>(1) < LEAST_VERSION {
        return Err(PostgresError::Version(row.get(2)));
    }
    if row.get(0) {
        return Ok(None);
    }
    let (clock, timeline): (SystemTime, u32) = (row.get(3), u32::from_str_radix(row.get(4), 16).unwrap_or_default());
    Ok(Some(Candidate { endpoint, session, timeline, clock }))
}

/// The timeline of a server, if it is a primary.
pub(super) async fn primary_timeline(session: &Session) -> Result<Option<u32>, PostgresError> {
    const TIMELINE: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN NULL
                                        ELSE substring(pg_walfile_name(pg_current_wal_lsn()) FROM 1 FOR 8) END";
    let row = session.client().query_one(TIMELINE, &[]).await.map_err(PostgresError::of)?;
    Ok(row.get::<_, Option<&str>>(0).and_then(|timeline| u32::from_str_radix(timeline, 16).ok()))
}

/// The names of sessions at the server.
pub(super) const CONTROL: &str = "onlyonce";
pub(super) const CALLS: &str = "onlyonce calls";
pub(super) const COMMITS: &str = "onlyonce commits";
pub(super) const LISTENER: &str = "onlyonce listens";
pub(super) const LOOKS: &str = "onlyonce looks";

/// The most connections of one sidecar to the primary: those for calls, to ask, to commit, to listen, and to look.
pub(super) const MOST_CONNECTIONS: usize = MOST + 4;
/// Those that a connect opens at once: the ones for calls, and those to ask and to commit. The one to look is closed again.
pub(super) const LEAST_CONNECTIONS: usize = COMMITTING.least + READING.least + 2;

/// Refuses a pooler that gives one process of the server to several sessions in turn. While another session is within a
/// transaction, it has its process to itself: either that is the one that the first had, or the first gets another now.
pub(super) async fn refuse_pooler(dialer: &PostgresDialer, candidate: &Candidate) -> Result<(), PostgresError> {
    let process = async |session: &Session| -> Result<i32, PostgresError> {
        let told = session.client().simple_query("SELECT pg_backend_pid()").await.map_err(PostgresError::of)?;
        let row = told.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok(row.and_then(|process| process.parse().ok()).unwrap_or_default())
    };
    let first = process(&candidate.session).await?;
    let other = Session::open(dialer, &candidate.endpoint, LOOKS, None).await?;
    other.client().batch_execute("BEGIN").await.map_err(|error| match error.as_db_error() {
        // One that gives a process to a statement refuses whatever needs it for longer.
        Some(fault) if *fault.code() == SqlState::PROTOCOL_VIOLATION => PostgresError::Pooler,
        _ => PostgresError::of(error),
    })?;
    // Where it has one process, the first would wait for the other.
    let second = process(&other).await?;
    if first == second || first != candidate.session.process_id {
        return Err(PostgresError::Pooler);
    }
    if first != process(&candidate.session).await? {
        return Err(PostgresError::Pooler);
    }
    Ok(())
}

/// Sees to it that the tables are there, and that this role may use them. `may_make`: whether they are made where they are
/// missing.
pub(super) async fn tables(session: &Session, may_make: bool) -> Result<(), PostgresError> {
    match schema::look(session.client()).await? {
        Tables::There => {}
        Tables::ToBeMade if may_make => {
            schema::make(session.client()).await?;
            tracing::info!("the tables are made, in the schema onlyonce");
        }
        Tables::ToBeMade => return Err(PostgresError::TablesToBeMade),
        Tables::Missing => return Err(PostgresError::NoTables),
    }
    match schema::missing_rights(session.client()).await? {
        lacking if lacking.is_empty() => Ok(()),
        lacking => Err(PostgresError::Rights(lacking)),
    }
}

/// What is worth knowing about a server that can be used.
pub(super) async fn findings(session: &Session, timeline: u32) -> Result<Vec<ServerFinding>, PostgresError> {
    const FACTS: &str = "SELECT current_setting('server_version'), current_setting('fsync'),
                                current_setting('full_page_writes'), current_setting('synchronous_standby_names'),
                                (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'),
                                current_setting('synchronous_commit'), current_setting('max_connections')";
    let row = session.client().query_one(FACTS, &[]).await.map_err(PostgresError::of)?;
    let text = |index| row.get::<_, String>(index);
    let mut findings =
        vec![ServerFinding { what: "server", found: format!("PostgreSQL {}, timeline {timeline}", text(0)) }];
    let mut add = |what, found: String| findings.push(ServerFinding { what, found });
    if text(1) != "on" || text(2) != "on" {
        let found =
            "fsync or full_page_writes is off: a crash of the machine may lose claims, or all of it. Set both to on";
        add("durability", found.to_owned());
    }
    let (servers, own) = (text(4), text(5));
    add(
        "synchronous_commit",
        if servers == own {
            own
        } else {
            format!("{own} in the sessions of onlyonce, whatever else is set ({servers})")
        },
    );
    match text(3) {
        names if names.is_empty() => add(
            "replicas",
            "no commit waits for one (synchronous_standby_names is empty): a failover may forget the latest claims"
                .to_owned(),
        ),
        names => add("replicas", format!("commits wait for {names} (synchronous_standby_names)")),
    }
    add("connections", format!("up to {} for each sidecar, of {}", MOST_CONNECTIONS, text(6)));
    Ok(findings)
}
