//! Redis, Valkey and what speaks like them: the store for more than one sidecar.
//!
//! One key holds each record, so that one command decides; the chunks of a large body lie under keys of their own, written
//! first and read last ([`body`]). Claims need no script where the server has `SET NX GET`; the moves that depend on
//! what is there are one script each.
//!
//! What a fault leaves open decides how it is reported. Out of reach ([`StoreError::Unavailable`]) is a server to which
//! there is no connection, where the last try to open one has failed; [`StoreError::Refused`] is what the server says no
//! to; whatever may have been carried out, or may be in a moment, is [`StoreError::Uncertain`].

mod acl;
mod bodies;
mod body;
mod body_connections;
mod commands;
mod connection;
mod core_connection;
mod handshake;
mod hot;
mod list;
mod multiplexed;
mod notify;
mod pipeline;
mod probe;
mod replication;
mod resp;
mod sentinel;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

pub use acl::acl_rule;
use bodies::Bodies;
use body::RedisChunks;
use commands::{CommandError, ExpectedRecord, ReplaceResult, ValueWithTtl};
use connection::{Connected, Link, Source, Supervisor};
use core_connection::CoreConnection;
use hot::RecordKey;
use notify::ChangeSubscriber;
use probe::Probe;
pub use probe::{ConnectError, ServerFinding};
use replication::Confirmation;
use sentinel::Sentinels;
use stream::Dialer;

use super::digest_key;
use super::format::RecordFormat;
use super::{
    Changes, Claimed, FOREVER, Health, ListQuery, Page, Released, Renewed, Settled, Store, StoreError, StoreFuture,
    StoredChunks, SwapResult,
};
use crate::config::{self, RedisAddress, RedisEndpoint, RedisServers};
use crate::key::DigestKey;
use crate::record::chunks::ApartBody;
use crate::record::codec::{self, Placement, Unreadable};
use crate::record::transitions::{self, ClaimTransition, CompareAndSwap, StoredRecord};
use crate::record::{Claim, Phase, Record, RecordName, ReplyBody, SettledRecord, State, Token};

/// Records in one Redis server.
#[derive(Clone)]
pub struct Redis {
    server: Arc<SharedState>,
    /// The hot connection of the core that this handle is for.
    local: Option<Arc<CoreConnection>>,
}

/// What all cores share.
struct SharedState {
    link: Arc<Link>,
    dialer: Arc<Dialer>,
    prefix: String,
    format: RecordFormat,
    timeout: Duration,
    connect_timeout: Duration,
    bodies: Bodies,
    /// For how long the chunks of a body outlive their record: whoever began to read it comes to its end.
    body_survives: Duration,
    listener: ChangeSubscriber,
    _supervisor: AbortOnDropHandle<()>,
}

/// What tests, and those who only look, do otherwise.
#[derive(Clone, Copy)]
struct ConnectionOptions {
    /// The digest key is confirmed as often; claims are made while the last time is no longer ago than three of these.
    ping_every: Duration,
    /// The server's memory and its policy of eviction are looked at as often.
    look_every: Duration,
    /// As if the server knew no `SET NX GET`.
    scripts_only: bool,
    /// Whether it puts its digest key into the store where there is none, or another one. Who only looks does not.
    puts_key: bool,
    /// For how long the chunks of a body outlive their record: whoever began to read it comes to its end.
    body_survives: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(1),
            look_every: Duration::from_secs(10),
            scripts_only: false,
            puts_key: true,
            body_survives: Duration::ZERO,
        }
    }
}

/// Larger bodies lie apart: they would hold up the records behind them.
const LARGE_BODY: u64 = 64 * 1024;
const REPLICAS_LATE: &str = "the replicas have not confirmed it in time (store.replica_acks)";
const NOT_A_RECORD: &str = "something else lies under its name";

impl Redis {
    /// Begins to connect. Must be called within a Tokio runtime. Large bodies outlive their records by `body_survives`.
    pub fn open(address: &RedisAddress, config: &config::StoreConfig, body_survives: Duration) -> Self {
        Self::open_with(address, config, ConnectionOptions { body_survives, ..ConnectionOptions::default() })
    }

    /// The same for whoever only looks: the store's digest key stays as it is.
    pub fn open_to_look(address: &RedisAddress, config: &config::StoreConfig) -> Self {
        Self::open_with(address, config, ConnectionOptions { puts_key: false, ..ConnectionOptions::default() })
    }

    /// Waits until the first try to connect has ended.
    pub async fn tried(&self) -> Result<(), Arc<ConnectError>> {
        self.server.link.tried().await
    }

    /// What was found out about the server, once one was connected to.
    pub fn findings(&self) -> Vec<ServerFinding> {
        self.server.link.findings()
    }

    fn open_with(address: &RedisAddress, config: &config::StoreConfig, habits: ConnectionOptions) -> Self {
        let digest_key = digest_key::configured(config);
        let link = Link::new(digest_key, &habits);
        let probe = Probe::new(config, digest_key, habits);
        let connect_timeout = connection::connect_timeout(config.timeout);
        let dialer = Dialer::new(address);
        let source = match &address.servers {
            RedisServers::One(endpoint) => Source::Fixed(endpoint.clone()),
            RedisServers::Sentinel { sentinels, master } => {
                Source::Sentinel(Sentinels::start(&dialer, sentinels, master))
            }
            // Until nodes are told apart.
            RedisServers::Cluster(nodes) => {
                let (host, port) = nodes.first().cloned().unwrap_or_default();
                Source::Fixed(RedisEndpoint::Tcp(host, port))
            }
        };
        let listener = ChangeSubscriber::start(&link, &dialer);
        let acks = (config.replica_acks > 0).then_some((config.replica_acks, config.timeout / 2));
        let supervisor = Supervisor::new(link.clone(), dialer.clone(), source, probe, habits, connect_timeout, acks);
        #[expect(clippy::disallowed_methods, reason = "ends with the store")]
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run()));
        let server = SharedState {
            link,
            dialer,
            prefix: config.prefix.clone(),
            format: RecordFormat::of(config),
            timeout: config.timeout,
            connect_timeout,
            bodies: Bodies::default(),
            body_survives: habits.body_survives,
            listener,
            _supervisor: supervisor,
        };
        Self { server: Arc::new(server), local: None }
    }

    /// Waits for the first connection, for as long as a start may wait. Only an error that
    /// [is final](ConnectError::is_final) is a reason not to start.
    pub async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        self.server.link.ready(patience).await
    }

    /// The same store, with a hot connection that belongs to the runtime on which this is called.
    pub fn on_core(&self) -> Self {
        Self { server: self.server.clone(), local: Some(Arc::new(CoreConnection::start(&self.server))) }
    }

    pub(super) async fn claim(&self, name: &RecordName, claim: &Claim) -> Result<Claimed, StoreError> {
        // It may be tried twice within the time of one call.
        let call = self.call(name, self.server.timeout / 2)?;
        self.server.link.may_claim()?;
        call.claim(claim).await
    }

    pub(super) async fn settle(&self, name: &RecordName, record: &SettledRecord) -> Result<Settled, StoreError> {
        self.call(name, self.server.timeout)?.settle(record).await
    }

    fn connected(&self) -> Result<Arc<Connected>, StoreError> {
        match self.local.as_deref().and_then(CoreConnection::connected) {
            Some(connected) => Ok(connected),
            None => self.server.link.connected(),
        }
    }

    fn call<'a>(&'a self, name: &'a RecordName, timeout: Duration) -> Result<Call<'a>, StoreError> {
        let connected = self.connected()?;
        let key = RecordKey::new(&self.server.prefix, name);
        Ok(Call { server: &self.server, connected, name, key, timeout, deadline: Instant::now() + timeout })
    }
}

impl Store for Redis {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        Box::pin(self.claim(name, claim))
    }

    fn open_body<'a>(&'a self, name: &'a RecordName, body: ApartBody) -> StoreFuture<'a, Box<dyn StoredChunks>> {
        let chunks = RedisChunks::new(self.clone(), name, &body);
        Box::pin(async move { Ok(Box::new(chunks) as Box<dyn StoredChunks>) })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> StoreFuture<'a, Renewed> {
        Box::pin(async move { self.call(name, self.server.timeout)?.renew(claim).await })
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a SettledRecord) -> StoreFuture<'a, Settled> {
        Box::pin(self.settle(name, record))
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> StoreFuture<'a, Released> {
        Box::pin(async move { self.call(name, self.server.timeout)?.release(token).await })
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> StoreFuture<'a, Option<StoredRecord>> {
        Box::pin(async move { self.call(name, self.server.timeout)?.find().await })
    }

    fn list<'a>(&'a self, listing: &'a ListQuery) -> StoreFuture<'a, Page> {
        Box::pin(self.page(listing))
    }

    fn compare_and_swap<'a>(&'a self, name: &'a RecordName, swap: &'a CompareAndSwap) -> StoreFuture<'a, SwapResult> {
        Box::pin(async move { self.call(name, self.server.timeout)?.compare_and_swap(swap).await })
    }

    fn subscribe(&self, name: &RecordName, patience: Duration) -> Option<Changes> {
        Some(self.server.listener.subscribe(RecordKey::new(&self.server.prefix, name).to_string(), patience))
    }

    fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.server.link.digest_key().ok_or_else(|| {
            self.server.link.connected().err().unwrap_or_else(|| {
                // A connection is handed out only once the key is agreed on.
                StoreError::Unavailable("there is no digest key yet".into())
            })
        })
    }

    fn used_ratio(&self) -> Option<f64> {
        self.server.link.used_ratio()
    }

    fn may_evict(&self) -> bool {
        self.server.link.may_evict()
    }

    fn losses(&self) -> u64 {
        self.server.link.losses()
    }

    fn health(&self) -> Health {
        if self.server.link.is_up() { Health::Up } else { Health::Down }
    }
}

/// One call: a record, a connection, and the time that is left for all its round trips. A large body has a time of its
/// own.
struct Call<'a> {
    server: &'a SharedState,
    connected: Arc<Connected>,
    name: &'a RecordName,
    key: RecordKey<'a>,
    /// How long the answer to one of its hot commands may take, from when that is written.
    timeout: Duration,
    /// When all the others are given up.
    deadline: Instant,
}

/// What one attempt to claim came to.
enum Acquired {
    Granted(Claim),
    Refused(Box<StoredRecord>),
    /// It was refused by a record that was gone at the next look.
    Gone(Box<StoredRecord>),
}

impl Acquired {
    fn into_claimed(self) -> Claimed {
        match self {
            Self::Granted(claim) => Claimed::Granted(claim),
            // Whoever meets a vanishing record twice was still refused by one that was there.
            Self::Refused(held) | Self::Gone(held) => Claimed::Refused(held),
        }
    }
}

impl Call<'_> {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let acquired = match self.acquire(claim, self.timeout).await? {
            Acquired::Gone(_) => {
                let left = self.deadline.saturating_duration_since(Instant::now());
                Box::pin(self.acquire(claim, left)).await?
            }
            acquired => acquired,
        };
        // Handed over as a whole: a claim that was kept here meanwhile would make every request's future larger.
        if self.connected.replication.is_some() {
            return Box::pin(self.replicate(acquired)).await;
        }
        Ok(acquired.into_claimed())
    }

    /// The same, once enough replicas have a claim that was granted.
    async fn replicate(&self, acquired: Acquired) -> Result<Claimed, StoreError> {
        match acquired {
            Acquired::Granted(claim) => self.replicate_claim(claim).await,
            refused @ (Acquired::Refused(_) | Acquired::Gone(_)) => Ok(refused.into_claimed()),
        }
    }

    /// Waits until enough replicas have the claim. One that they do not have stays: the caller tries again with the same
    /// token, which gives the replicas another chance, and deletes it when it has given up. A release from here could still
    /// be on its way when the second try finds the claim, and would free the key of a request that is being sent.
    async fn replicate_claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        self.replicated().await?;
        Ok(Claimed::Granted(claim))
    }

    /// Waits until enough replicas have all that was written until now, for as long as the call may take. What they do not
    /// have is written all the same.
    async fn replicated(&self) -> Result<(), StoreError> {
        let Some(replication) = &self.connected.replication else { return Ok(()) };
        let uncertain = |why: String| Err(StoreError::Uncertain(why.into()));
        match replication.confirm(self.deadline).await {
            Ok(Confirmation::Enough) => Ok(()),
            Ok(Confirmation::Short(count)) => uncertain(format!("only {count} replicas have it (store.replica_acks)")),
            Ok(Confirmation::Failed(error)) => match CommandError::of(error) {
                CommandError::Refused(_, error) => uncertain(error.to_string()),
                fault => Err(self.error(fault)),
            },
            Err(CommandError::Late) => uncertain(REPLICAS_LATE.to_owned()),
            Err(fault) => Err(self.error(fault)),
        }
    }

    /// The steps that not every claim takes are boxed, so that all the others are small.
    async fn acquire(&self, claim: &Claim, timeout: Duration) -> Result<Acquired, StoreError> {
        let bytes = encode_claim(claim);
        let there = match self.connected.acquire(&self.key.parts(), &bytes, claim.terms.retention, timeout).await {
            Ok(None) => return Ok(Acquired::Granted(claim.clone())),
            Ok(Some(there)) => there,
            Err(CommandError::Refused(code, error)) => {
                return Box::pin(self.look_instead(claim, CommandError::Refused(code, error))).await;
            }
            Err(fault) => return Err(self.error(fault)),
        };
        // The answer does not tell for how long the owner has been silent. What is refused to one who supposes that
        // it always was, is refused; anything else takes a closer look.
        let held = StoredRecord { record: self.decode(&there)?, silent_for: Duration::MAX };
        match transitions::claim(Some(held.clone()), claim) {
            ClaimTransition::AlreadyMine(claim) => Ok(Acquired::Granted(claim)),
            ClaimTransition::Refuse(held) => {
                Ok(Acquired::Refused(Box::new(StoredRecord { silent_for: Duration::ZERO, ..*held })))
            }
            ClaimTransition::Write(_) => {
                Box::pin(self.try_takeover(claim, held)).await.map_err(StoreError::there_may_be_a_record)
            }
        }
    }

    /// Claims what somebody holds in flight.
    async fn try_takeover(&self, claim: &Claim, seen: StoredRecord) -> Result<Acquired, StoreError> {
        let Some(there) = self.look().await? else {
            return Ok(Acquired::Gone(Box::new(StoredRecord { silent_for: Duration::ZERO, ..seen })));
        };
        let held = self.held(&there)?;
        // Of what is there now: another may have taken it over since the first look, with another lease.
        let lease = held.record.claim.terms.lease;
        let takeover = match transitions::claim(Some(held), claim) {
            ClaimTransition::AlreadyMine(claim) => return Ok(Acquired::Granted(claim)),
            ClaimTransition::Refuse(held) => return Ok(Acquired::Refused(held)),
            ClaimTransition::Write(takeover) => takeover,
        };
        if !self.server.link.may_take_over(lease) {
            return Ok(Acquired::Refused(Box::new(StoredRecord { silent_for: Duration::ZERO, ..seen })));
        }
        let bytes = encode_claim(&takeover);
        let retention = takeover.terms.retention;
        let replaced = self.connected.replace(&self.key(), &there, &bytes, retention, self.deadline).await;
        let there = match replaced.map_err(|fault| self.error(fault))? {
            ReplaceResult::Done => return Ok(Acquired::Granted(takeover)),
            ReplaceResult::Gone => {
                return Ok(Acquired::Gone(Box::new(StoredRecord { silent_for: Duration::ZERO, ..seen })));
            }
            ReplaceResult::Changed(there) => there,
        };
        self.refused(&there, claim)
    }

    /// What is there refuses the claim, unless it is that very claim.
    fn refused(&self, there: &ValueWithTtl, claim: &Claim) -> Result<Acquired, StoreError> {
        let held = self.held(there)?;
        Ok(match transitions::claim(Some(held.clone()), claim) {
            ClaimTransition::AlreadyMine(claim) => Acquired::Granted(claim),
            ClaimTransition::Refuse(_) | ClaimTransition::Write(_) => Acquired::Refused(Box::new(held)),
        })
    }

    /// The server took no claim. A full one, or one whose replicas are away, still knows what was done before.
    async fn look_instead(&self, claim: &Claim, refusal: CommandError) -> Result<Acquired, StoreError> {
        if refusal.is_wrong_type() {
            return Err(self.error(refusal));
        }
        let there = match self.connected.look(&self.key(), self.deadline).await {
            Ok(Some(there)) => there,
            Ok(None) | Err(CommandError::Refused(..)) => return Err(self.error(refusal)),
            Err(fault) => return Err(self.error(fault)),
        };
        self.refused(&there, claim)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewed, StoreError> {
        let renewed = self.connected.renew(self.key, &encode_claim(claim), claim.terms.retention, self.timeout).await;
        let renewed = renewed.map_err(|fault| self.error(fault))?;
        if renewed == Renewed::ClaimedAgain && self.connected.replication.is_some() {
            // It is a claim like the first: a failover must not forget it either.
            Box::pin(self.replicated()).await?;
        }
        Ok(renewed)
    }

    async fn settle(&self, record: &SettledRecord) -> Result<Settled, StoreError> {
        let time_to_live = transitions::time_to_live(record);
        let mut placement = Placement::Within;
        if let State::Completed { reply, .. } = &record.state
            && let ReplyBody::Held(pieces) = &reply.body
            && reply.body_len() > LARGE_BODY
        {
            let cut = Box::pin(self.write_body(record.claim.token, pieces, time_to_live)).await?;
            placement = Placement::Apart(cut);
        }
        let bytes = self.server.format.encode(self.name, record, placement);
        let kept = self.connected.settle(self.key, &bytes, time_to_live, self.timeout).await;
        let kept = kept.map_err(|fault| self.error(fault))?;
        if self.connected.replication.is_some() {
            // An outcome that a failover forgets would be an attempt that may be taken over. Whoever settles tries again.
            Box::pin(self.replicated()).await?;
        }
        let Some(kept) = kept else { return Ok(Settled::Written) };
        // Of an earlier try of the same, the body is at hand.
        let kept = if kept == bytes { Record::clone(record) } else { self.decode(&kept)? };
        // Encrypted twice, it is not the same bytes. Nobody else writes a body apart under this token.
        let is_own = kept.apart_body().is_some_and(|body| body.token == record.claim.token);
        Ok(Settled::Kept(Box::new(if is_own { Record::clone(record) } else { kept })))
    }

    async fn release(&self, token: Token) -> Result<Released, StoreError> {
        self.connected.release(self.key, token, self.timeout).await.map_err(|fault| self.error(fault))
    }

    async fn compare_and_swap(&self, swap: &CompareAndSwap) -> Result<SwapResult, StoreError> {
        let seen = &swap.seen.summary;
        // A body of any size lies within: under the name for one apart, the owner may be writing another just now.
        let to = swap.to.as_ref().map(|record| {
            let time_to_live = transitions::time_to_live(record);
            (self.server.format.encode(self.name, record, Placement::Within), time_to_live)
        });
        let at_most = match swap.least_silence() {
            Duration::ZERO => FOREVER,
            silence => seen.claim.terms.retention.min(FOREVER).saturating_sub(silence),
        };
        let expected = ExpectedRecord { identity: codec::identity(seen), at_most };
        // How many chunks the body has, the record says.
        let body = match seen.phase {
            Phase::Completed => self.find().await?.and_then(|held| held.record.apart_body().cloned()),
            Phase::InFlight | Phase::Unreplayable | Phase::Unknown => None,
        };
        let there = self.connected.compare_and_swap(&self.key(), &expected, to, self.deadline).await;
        match there.map_err(|fault| self.error(fault))? {
            None => {
                if let Some(body) = body.filter(|body| body.token == seen.claim.token) {
                    self.outlived(body).await;
                }
                Ok(SwapResult::Done)
            }
            Some(None) => Ok(SwapResult::Changed(None)),
            Some(Some(there)) => Ok(SwapResult::Changed(Some(Box::new(self.held(&there)?)))),
        }
    }

    async fn find(&self) -> Result<Option<StoredRecord>, StoreError> {
        match self.look().await? {
            Some(there) => Ok(Some(self.held(&there)?)),
            None => Ok(None),
        }
    }

    async fn look(&self) -> Result<Option<ValueWithTtl>, StoreError> {
        self.connected.look(&self.key(), self.deadline).await.map_err(|fault| self.error(fault))
    }

    fn held(&self, there: &ValueWithTtl) -> Result<StoredRecord, StoreError> {
        let record = self.decode(&there.bytes)?;
        let silent_for = silence(record.claim.terms.retention, there.left);
        Ok(StoredRecord { record, silent_for })
    }

    fn decode(&self, bytes: &Bytes) -> Result<Record, StoreError> {
        self.server.format.read(self.name, bytes)
    }

    fn key(&self) -> String {
        self.key.to_string()
    }

    fn error(&self, fault: CommandError) -> StoreError {
        if fault.is_wrong_type() {
            return self.unreadable(Unreadable::Damaged(NOT_A_RECORD));
        }
        fault.into()
    }

    fn unreadable(&self, source: Unreadable) -> StoreError {
        StoreError::Unreadable { name: self.name.to_string(), source }
    }
}

/// For how long the owner has been silent, by what is left of the record's life.
fn silence(retention: Duration, left: Option<Duration>) -> Duration {
    left.map_or(Duration::ZERO, |left| retention.min(FOREVER).saturating_sub(left))
}

fn encode_claim(claim: &Claim) -> Vec<u8> {
    codec::encode_claim(claim)
}
