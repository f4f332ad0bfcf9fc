//! PostgreSQL: the store whose claim is a unique constraint in a durable, replicated database.
//!
//! Each record is a row, and the server decides by one statement ([`sql`]). A call may be
//! [certainly not done](StoreError::Refused) (nothing was sent, or the transaction failed), or
//! [uncertain](StoreError::Uncertain): the connection ended, or was dropped because no answer came in time, or the server
//! warned while it committed.
//!
//! - [`dial`], [`session`]: a connection, and what every session sets; [`pool`]: those for calls
//! - [`examine`], [`keeper`]: which server is the primary, and whether it can be used; staying with it
//! - [`commit_check`], [`failover`]: whether commits end there; whether another one has taken over
//! - [`schema`]: the tables, and the rights of a role that uses them
//! - [`call`], [`bodies`], [`listen`], [`sweep`]: what is done with them

mod agreement;
mod bodies;
mod call;
mod commit_check;
mod dial;
mod error;
mod examine;
mod failover;
mod keeper;
mod link;
mod listen;
mod pool;
mod schema;
mod session;
mod sql;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use agreement::DigestKeyAgreement;
use bodies::{BodyTurns, PostgresChunks};
use call::PostgresCall;
use dial::PostgresDialer;
pub use error::PostgresError;
use error::StatementError;
use keeper::PrimaryKeeper;
use link::{ConnectedPrimary, PostgresLink};
use listen::NoticeListener;
pub use schema::{SCHEMA, grants};
use session::Session;

use super::digest_key;
use super::format::RecordFormat;
use super::store_state::StoreState;
use super::timing::connect_timeout;
use super::usable_since::UsableSince;
use super::{
    Changes, Claimed, Cursor, Health, ListError, ListQuery, ListedRecord, Page, Released, Renewed, ServerFinding,
    Settled, Store, StoreError, StoreFuture, StoredChunks, SwapResult,
};
use crate::config::{self, PostgresAddress};
use crate::key::DigestKey;
use crate::record::chunks::ApartBody;
use crate::record::codec;
use crate::record::encryption::EncryptionKey;
use crate::record::transitions::{CompareAndSwap, RecordSnapshot, StoredRecord};
use crate::record::{Claim, Hex, Record, RecordName, SettledRecord, Token};

/// Records in PostgreSQL.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<PostgresShared>,
}

struct PostgresShared {
    link: Arc<PostgresLink>,
    state: Arc<StoreState>,
    usable_since: Arc<UsableSince>,
    listener: NoticeListener,
    findings: Arc<RwLock<Vec<ServerFinding>>>,
    format: RecordFormat,
    turns: BodyTurns,
    prefix: String,
    timeout: Duration,
    /// How long the chunks of a body outlive their record. A reader that has begun can finish within this time.
    body_survives: Duration,
    _keeper: AbortOnDropHandle<()>,
}

/// What differs in tests and in read-only use.
#[derive(Debug, Clone, Copy)]
struct PostgresOptions {
    /// The interval at which the server and the digest key are asked for.
    ping_every: Duration,
    /// Whether no tables are made, no digest key is noted, and no expired rows are deleted.
    is_read_only: bool,
    body_survives: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { ping_every: Duration::from_secs(1), is_read_only: false, body_survives: Duration::ZERO }
    }
}

/// How long it takes at most to make the tables.
const INIT_TIMEOUT: Duration = Duration::from_secs(15);

/// `prefix:route:digest`, the name of a row.
fn record_key(prefix: &str, name: &RecordName) -> String {
    format!("{prefix}:{}:{}", name.route, Hex::of(&name.digest))
}

impl Postgres {
    /// Starts to connect. It must be called within a Tokio runtime. Large bodies outlive their records by
    /// `body_survives`.
    pub fn open(address: &PostgresAddress, config: &config::StoreConfig, body_survives: Duration) -> Self {
        Self::open_with(address, config, PostgresOptions { body_survives, ..PostgresOptions::default() })
    }

    /// The same for read-only use: nothing is made, and nothing is changed.
    pub fn open_to_look(address: &PostgresAddress, config: &config::StoreConfig) -> Self {
        Self::open_with(address, config, PostgresOptions { is_read_only: true, ..PostgresOptions::default() })
    }

    fn open_with(address: &PostgresAddress, config: &config::StoreConfig, options: PostgresOptions) -> Self {
        let (link, dialer) = (PostgresLink::new(), PostgresDialer::new(address));
        let configured = digest_key::configured(config);
        let state = StoreState::new(configured, options.ping_every);
        let findings = Arc::<RwLock<Vec<ServerFinding>>>::default();
        let agreement = DigestKeyAgreement::new(state.clone(), &config.prefix, configured, options.is_read_only);
        let usable_since =
            Arc::new(if options.is_read_only { UsableSince::default() } else { UsableSince::confirmed_repeatedly() });
        let keeper = PrimaryKeeper {
            usable_since: usable_since.clone(),
            link: link.clone(),
            dialer: dialer.clone(),
            options,
            connect_timeout: connect_timeout(config.timeout),
            timeout: config.timeout,
            agreement,
            findings: findings.clone(),
            timeline: 0,
            left_behind: Default::default(),
            examining: None,
        };
        let listener = NoticeListener::start(&link, &dialer);
        #[expect(clippy::disallowed_methods, reason = "ends with the store")]
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        let shared = PostgresShared {
            link,
            state,
            usable_since,
            listener,
            findings,
            format: RecordFormat::of(config),
            turns: BodyTurns::default(),
            prefix: config.prefix.clone(),
            timeout: config.timeout,
            body_survives: options.body_survives,
            _keeper: keeper,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes the tables where they are missing, and gives this role the rights to use them. Returns whether they were missing.
    pub async fn init(address: &PostgresAddress, role: Option<&str>) -> Result<bool, PostgresError> {
        let making = async {
            let candidate = examine::primary(&PostgresDialer::new(address), 0).await?;
            let client = candidate.session.client();
            let is_made = match schema::look(client).await? {
                schema::Tables::There => false,
                schema::Tables::Missing => return Err(PostgresError::NoTables),
                schema::Tables::ToBeMade => {
                    schema::make(client).await?;
                    true
                }
            };
            if let Some(role) = role {
                client.batch_execute(&grants(role)).await.map_err(PostgresError::of)?;
            }
            Ok(is_made)
        };
        tokio::time::timeout(INIT_TIMEOUT, making).await.unwrap_or(Err(PostgresError::Silent(INIT_TIMEOUT)))
    }

    /// Waits for the first connection, for at most `patience`. Only an error that [is final](PostgresError::is_final) is a
    /// reason not to start.
    pub async fn ready(&self, patience: Duration) -> Result<(), Arc<PostgresError>> {
        self.shared.link.ready(patience).await
    }

    /// Waits until the first attempt to connect has ended.
    pub async fn tried(&self) -> Result<(), Arc<PostgresError>> {
        self.shared.link.tried().await
    }

    /// What the last connect has shown about the server.
    pub fn findings(&self) -> Vec<ServerFinding> {
        self.shared.findings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call that commits.
    fn call<'a>(&'a self, name: &'a RecordName, timeout: Duration) -> Result<PostgresCall<'a>, StoreError> {
        let primary = self.shared.link.primary()?;
        let session = primary.to_commit()?;
        Ok(self.call_on(primary, session, name, timeout))
    }

    fn call_on<'a>(
        &'a self,
        primary: Arc<ConnectedPrimary>,
        session: Arc<Session>,
        name: &'a RecordName,
        timeout: Duration,
    ) -> PostgresCall<'a> {
        let key = record_key(&self.shared.prefix, name);
        PostgresCall { shared: &self.shared, primary, session, name, key, deadline: Instant::now() + timeout }
    }

    async fn page(&self, listing: &ListQuery) -> Result<Page, ListError> {
        let shared = &*self.shared;
        let prefix = match &listing.route {
            Some(route) => format!("{}:{route}", shared.prefix),
            None => shared.prefix.clone(),
        };
        // All names between `prefix:` and `prefix;`, which is the next character.
        let (mut after, end) = (format!("{prefix}:"), format!("{prefix};"));
        if let Some(Cursor(cursor)) = &listing.after {
            if *cursor < after || *cursor >= end {
                return Err(ListError::BadCursor);
            }
            after.clone_from(cursor);
        }
        let limit = i64::try_from(listing.limit).unwrap_or(i64::MAX).max(1);
        let session = shared.link.primary()?.to_read()?;
        let deadline = Instant::now() + shared.timeout;
        let rows = session.ask(|all| &all.list, &[&after, &end, &limit], deadline).await.map_err(StoreError::from)?;
        let strange = |error: tokio_postgres::Error| StoreError::from(StatementError::Strange(error.to_string()));
        let mut records = Vec::with_capacity(rows.len());
        let mut last = None;
        for row in &rows {
            let key: &str = row.try_get(0).map_err(strange)?;
            let (expires_at, now): (SystemTime, SystemTime) =
                (row.try_get(2).map_err(strange)?, row.try_get(3).map_err(strange)?);
            last = Some(Cursor(key.to_owned()));
            let name = key.strip_prefix(&shared.prefix).and_then(|name| name.strip_prefix(':'));
            let Some(name) = name.and_then(|name| name.parse::<RecordName>().ok()) else { continue };
            if listing.route.as_ref().is_some_and(|route| *route != name.route) {
                continue;
            }
            let head = bytes::Bytes::copy_from_slice(row.try_get(1).map_err(strange)?);
            let seen = codec::summarise(&head).map(|summary| {
                let left = expires_at.duration_since(now).unwrap_or(Duration::ZERO);
                let terms = &summary.claim.terms;
                let silent_for = shared.usable_since.confirmed_silence(summary.phase, terms, left);
                RecordSnapshot { summary, silent_for }
            });
            records.push(ListedRecord { name, seen });
        }
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
        Ok(Page { records, next: last.filter(|_| is_full) })
    }
}

impl Store for Postgres {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(async move {
            let primary = self.shared.link.primary()?;
            self.shared.state.may_claim()?;
            // A claim may be tried twice within the time of one call.
            let timeout = self.shared.timeout / 2;
            match primary.to_claim() {
                Some(session) => self.call_on(primary, session, name, timeout).claim(claim).await,
                None => {
                    let session = primary.to_read()?;
                    self.call_on(primary, session, name, timeout).claim_without_commit(claim).await
                }
            }
        })
    }

    fn open_body<'a>(&'a self, name: &'a RecordName, body: ApartBody) -> StoreFuture<'a, Box<dyn StoredChunks>> {
        let chunks = PostgresChunks::new(self.clone(), name, &body);
        Box::pin(async move { Ok(Box::new(chunks) as Box<dyn StoredChunks>) })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        Box::pin(async move { self.call(name, self.shared.timeout)?.renew(claim).await })
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(async move {
            // The time of the call starts after the compression.
            let compressed = self.shared.format.compressed(record).await;
            let stored: &Record = compressed.as_ref().unwrap_or(record);
            self.call(name, self.shared.timeout)?.settle(stored, record).await
        })
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        Box::pin(async move { self.call(name, self.shared.timeout)?.release(token).await })
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        Box::pin(async move {
            let primary = self.shared.link.primary()?;
            let session = primary.to_read()?;
            self.call_on(primary, session, name, self.shared.timeout).find().await
        })
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page, ListError> {
        Box::pin(self.page(listing))
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        Box::pin(async move { self.call(name, self.shared.timeout)?.compare_and_swap(swap).await })
    }

    fn subscribe(&self, name: &RecordName, patience: Duration) -> Option<Changes> {
        Some(self.shared.listener.subscribe(record_key(&self.shared.prefix, name), patience))
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.shared.state.digest_key().ok_or_else(|| {
            // A connection has a digest key, except in read-only use.
            let why = self.shared.link.primary().err();
            why.unwrap_or_else(|| StoreError::Unavailable("there is no digest key yet".into()))
        })
    }

    fn encryption_keys(&self) -> &[Arc<EncryptionKey>] {
        self.shared.format.keys()
    }

    fn losses(&self) -> u64 {
        self.shared.state.losses()
    }

    fn left_behind(&self) -> Option<u64> {
        let primary = self.shared.link.state().ok()?;
        u64::try_from(primary.count_left_behind()).ok()
    }

    fn health(&self) -> Health {
        if self.shared.link.state().is_ok() { Health::Up } else { Health::Down }
    }
}
