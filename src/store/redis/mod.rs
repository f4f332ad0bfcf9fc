//! Redis, Valkey and what speaks like them: the store for more than one sidecar.
//!
//! One key holds each record, so that one command decides; a large body lies under a second key, written
//! first and read last. Claims need no script where the server has `SET NX GET`; the moves that depend on
//! what is there are one script each.
//!
//! What a fault leaves open decides how it is reported: refused, or not even sent, is
//! [`StoreError::Unavailable`]; whatever may have been carried out is [`StoreError::Uncertain`].

mod commands;
mod connection;
mod list;
mod notify;
mod probe;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use commands::{Expected, Fault, Living, Replaced};
use connection::{Connected, Link, Supervisor};
use notify::Listener;
pub use probe::ConnectError;
use probe::Probe;

use super::digest_key;
use super::{
    Answer, Changes, Claimed, Exchanged, FOREVER, Health, Listing, Page, Released, Renewed, Settled, Store, StoreError,
};
use crate::config::{self, RedisAddress};
use crate::key::DigestKey;
use crate::record::codec::{self, Decoded, Placement, Unreadable};
use crate::record::moves::{self, ClaimMove, Exchange, Held};
use crate::record::{Claim, Record, RecordName, State, Token};

/// Records in one Redis server.
pub struct Redis {
    link: Arc<Link>,
    prefix: String,
    timeout: Duration,
    listener: Listener,
    _supervisor: AbortOnDropHandle<()>,
}

/// What tests do otherwise.
#[derive(Clone, Copy)]
struct Habits {
    ping_every: Duration,
    /// As if the server knew no `SET NX GET`.
    scripts_only: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self { ping_every: Duration::from_secs(3), scripts_only: false }
    }
}

/// Larger bodies lie apart: they would hold up the records behind them.
const LARGE_BODY: u64 = 64 * 1024;
const NOT_A_RECORD: &str = "something else lies under its name";
/// A body outlives its record, so that whoever reads the record finds it.
const BODY_SURVIVES: Duration = Duration::from_secs(60);

impl Redis {
    /// Begins to connect. Must be called within a Tokio runtime.
    pub fn open(address: &RedisAddress, config: &config::Store) -> Self {
        Self::open_with(address, config, Habits::default())
    }

    fn open_with(address: &RedisAddress, config: &config::Store, habits: Habits) -> Self {
        let digest_key = digest_key::configured(config);
        let link = Link::new(digest_key);
        let probe = Probe::new(config, digest_key, habits.scripts_only);
        let supervisor = Supervisor::new(link.clone(), address.clone(), probe, habits.ping_every);
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run()));
        Self {
            link,
            prefix: config.prefix.clone(),
            timeout: config.timeout,
            listener: Listener::start(address),
            _supervisor: supervisor,
        }
    }

    /// Waits for the first connection, for as long as a start may wait. Only an error that
    /// [is final](ConnectError::is_final) is a reason not to start.
    pub async fn ready(&self, patience: Duration) -> Result<(), Arc<ConnectError>> {
        self.link.ready(patience).await
    }

    fn call<'a>(&self, name: &'a RecordName, timeout: Duration) -> Result<Call<'a>, StoreError> {
        let connected = self.link.connected()?;
        Ok(Call { connected, name, key: self.key(name), deadline: Instant::now() + timeout })
    }

    fn key(&self, name: &RecordName) -> String {
        format!("{}:{name}", self.prefix)
    }
}

impl Store for Redis {
    fn claim<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> Answer<'a, Claimed> {
        Box::pin(async move {
            // It may be tried twice within the time of one call.
            self.call(name, self.timeout / 2)?.claim(claim).await
        })
    }

    fn renew<'a>(&'a self, name: &'a RecordName, claim: &'a Claim) -> Answer<'a, Renewed> {
        Box::pin(async move { self.call(name, self.timeout)?.renew(claim).await })
    }

    fn settle<'a>(&'a self, name: &'a RecordName, record: &'a Record) -> Answer<'a, Settled> {
        Box::pin(async move { self.call(name, self.timeout)?.settle(record).await })
    }

    fn release<'a>(&'a self, name: &'a RecordName, token: Token) -> Answer<'a, Released> {
        Box::pin(async move { self.call(name, self.timeout)?.release(token).await })
    }

    fn find<'a>(&'a self, name: &'a RecordName) -> Answer<'a, Option<Held>> {
        Box::pin(async move { self.call(name, self.timeout)?.find().await })
    }

    fn list<'a>(&'a self, listing: &'a Listing) -> Answer<'a, Page> {
        Box::pin(self.page(listing))
    }

    fn exchange<'a>(&'a self, name: &'a RecordName, exchange: &'a Exchange) -> Answer<'a, Exchanged> {
        Box::pin(async move { self.call(name, self.timeout)?.exchange(exchange).await })
    }

    fn subscribe(&self, name: &RecordName) -> Option<Changes> {
        Some(self.listener.subscribe(self.key(name)))
    }

    fn digest_key(&self) -> Answer<'_, DigestKey> {
        Box::pin(async move {
            match self.link.digest_key() {
                Some(key) => Ok(key),
                None => Err(self.link.connected().err().unwrap_or_else(|| {
                    // A connection is handed out only once the key is agreed on.
                    StoreError::Unavailable("there is no digest key yet".into())
                })),
            }
        })
    }

    fn losses(&self) -> u64 {
        self.link.losses()
    }

    fn health(&self) -> Health {
        if self.link.is_up() { Health::Up } else { Health::Down }
    }
}

/// One call: a record, a connection, and the time that is left for all its round trips.
struct Call<'a> {
    connected: Arc<Connected>,
    name: &'a RecordName,
    key: String,
    deadline: Instant,
}

/// What one attempt to claim came to.
enum Acquired {
    Granted(Claim),
    Refused(Box<Held>),
    /// It was refused by a record that was gone at the next look.
    Vanished(Box<Held>),
}

impl Call<'_> {
    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let acquired = match self.acquire(claim).await? {
            Acquired::Vanished(_) => self.acquire(claim).await?,
            acquired => acquired,
        };
        Ok(match acquired {
            Acquired::Granted(claim) => Claimed::Granted(claim),
            // Whoever meets a vanishing record twice was still refused by one that was there.
            Acquired::Refused(held) | Acquired::Vanished(held) => Claimed::Refused(held),
        })
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquired, StoreError> {
        let bytes = encode_claim(claim);
        let there = match self.connected.acquire(&self.key, &bytes, Some(claim.terms.retention), self.deadline).await {
            Ok(None) => return Ok(Acquired::Granted(claim.clone())),
            Ok(Some(there)) => there,
            Err(Fault::Refused(code, error)) => return self.look_instead(claim, Fault::Refused(code, error)).await,
            Err(fault) => return Err(self.error(fault)),
        };
        // The answer does not tell for how long the owner has been silent. What is refused to one who supposes that
        // it always was, is refused; anything else takes a closer look.
        let held = Held { record: self.read(there).await?, silent_for: Duration::MAX };
        match moves::claim(Some(held.clone()), claim) {
            ClaimMove::AlreadyMine(claim) => Ok(Acquired::Granted(claim)),
            ClaimMove::Refuse(held) => Ok(Acquired::Refused(Box::new(Held { silent_for: Duration::ZERO, ..*held }))),
            ClaimMove::Write(_) => self.contend(claim, held).await.map_err(certainly_not_free),
        }
    }

    /// Claims what somebody holds in flight.
    async fn contend(&self, claim: &Claim, seen: Held) -> Result<Acquired, StoreError> {
        let Some(there) = self.look().await? else {
            return Ok(Acquired::Vanished(Box::new(Held { silent_for: Duration::ZERO, ..seen })));
        };
        let takeover = match moves::claim(Some(self.held(&there).await?), claim) {
            ClaimMove::AlreadyMine(claim) => return Ok(Acquired::Granted(claim)),
            ClaimMove::Refuse(held) => return Ok(Acquired::Refused(held)),
            ClaimMove::Write(takeover) => takeover,
        };
        let bytes = encode_claim(&takeover);
        let retention = takeover.terms.retention;
        let replaced = self.connected.replace(&self.key, &there, &bytes, retention, self.deadline).await;
        let there = match replaced.map_err(|fault| self.error(fault))? {
            Replaced::Done => return Ok(Acquired::Granted(takeover)),
            Replaced::Vanished => return Ok(Acquired::Vanished(Box::new(self.held(&there).await?))),
            Replaced::Stirred(there) => there,
        };
        let held = self.held(&there).await?;
        Ok(match moves::claim(Some(held.clone()), claim) {
            ClaimMove::AlreadyMine(claim) => Acquired::Granted(claim),
            ClaimMove::Refuse(_) | ClaimMove::Write(_) => Acquired::Refused(Box::new(held)),
        })
    }

    /// The server took no claim. A full one, or one whose replicas are away, still knows what was done before.
    async fn look_instead(&self, claim: &Claim, refusal: Fault) -> Result<Acquired, StoreError> {
        if refusal.is_wrong_type() {
            return Err(self.error(refusal));
        }
        let there = match self.connected.look(&self.key, self.deadline).await {
            Ok(Some(there)) => there,
            Ok(None) | Err(Fault::Refused(..)) => return Err(self.error(refusal)),
            Err(fault) => return Err(self.error(fault)),
        };
        let held = self.held(&there).await?;
        Ok(match moves::claim(Some(held.clone()), claim) {
            ClaimMove::AlreadyMine(claim) => Acquired::Granted(claim),
            ClaimMove::Refuse(_) | ClaimMove::Write(_) => Acquired::Refused(Box::new(held)),
        })
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewed, StoreError> {
        let renewed = self.connected.renew(&self.key, &encode_claim(claim), claim.terms.retention, self.deadline).await;
        renewed.map_err(|fault| self.error(fault))
    }

    async fn settle(&self, record: &Record) -> Result<Settled, StoreError> {
        let time_to_live = moves::time_to_live(record);
        let mut placement = Placement::Within;
        if let State::Completed { reply, .. } = &record.state
            && reply.body_len() > LARGE_BODY
        {
            placement = Placement::Apart;
            let (key, body) = (self.body_key(record.claim.token), reply.body.concat());
            let put = self.connected.put_body(&key, &body, time_to_live + BODY_SURVIVES, self.deadline).await;
            put.map_err(|fault| self.error(fault))?;
        }
        let bytes = codec::encode(record, placement);
        let kept = self.connected.settle(&self.key, &bytes, time_to_live, self.deadline).await;
        match kept.map_err(|fault| self.error(fault))? {
            None => Ok(Settled::Written),
            Some(kept) => Ok(Settled::Kept(Box::new(self.read(kept).await?))),
        }
    }

    async fn release(&self, token: Token) -> Result<Released, StoreError> {
        self.connected.release(&self.key, token, self.deadline).await.map_err(|fault| self.error(fault))
    }

    async fn exchange(&self, exchange: &Exchange) -> Result<Exchanged, StoreError> {
        let seen = &exchange.seen.summary;
        // A body of any size lies within: under the name for one apart, the owner may be writing another just now.
        let to = exchange.to.as_ref().map(|record| {
            let time_to_live = moves::time_to_live(record);
            (codec::encode(record, Placement::Within), time_to_live)
        });
        let at_most = match exchange.least_silence() {
            Duration::ZERO => FOREVER,
            silence => seen.claim.terms.retention.min(FOREVER).saturating_sub(silence),
        };
        let expected = Expected { identity: codec::identity(seen), at_most, body: self.body_key(seen.claim.token) };
        let there = self.connected.exchange(&self.key, &expected, to, self.deadline).await;
        match there.map_err(|fault| self.error(fault))? {
            None => Ok(Exchanged::Done),
            Some(None) => Ok(Exchanged::Changed(None)),
            Some(Some(there)) => Ok(Exchanged::Changed(Some(Box::new(self.held(&there).await?)))),
        }
    }

    async fn find(&self) -> Result<Option<Held>, StoreError> {
        match self.look().await? {
            Some(there) => Ok(Some(self.held(&there).await?)),
            None => Ok(None),
        }
    }

    async fn look(&self) -> Result<Option<Living>, StoreError> {
        self.connected.look(&self.key, self.deadline).await.map_err(|fault| self.error(fault))
    }

    async fn held(&self, there: &Living) -> Result<Held, StoreError> {
        let record = self.read(there.bytes.clone()).await?;
        let silent_for = silence(record.claim.terms.retention, there.left);
        Ok(Held { record, silent_for })
    }

    /// The record in these bytes, with its body.
    async fn read(&self, bytes: Bytes) -> Result<Record, StoreError> {
        let bodiless = match codec::decode(&bytes).map_err(|source| self.unreadable(source))? {
            Decoded::Whole(record) => return Ok(record),
            Decoded::Bodiless(bodiless) => bodiless,
        };
        let key = self.body_key(bodiless.record().claim.token);
        let body = self.connected.body(&key, self.deadline).await.map_err(|fault| self.error(fault));
        let body = body.map_err(certainly_not_free)?;
        let body = body.ok_or_else(|| self.unreadable(Unreadable::Damaged("its body is gone")))?;
        bodiless.with_body(body).map_err(|source| self.unreadable(source))
    }

    /// The braces make it share the record's slot, and the token keeps attempts apart.
    fn body_key(&self, token: Token) -> String {
        format!("{{{}}}:body:{token}", self.key)
    }

    fn error(&self, fault: Fault) -> StoreError {
        if fault.is_wrong_type() {
            return self.unreadable(Unreadable::Damaged(NOT_A_RECORD));
        }
        fault.into()
    }

    fn unreadable(&self, source: Unreadable) -> StoreError {
        StoreError::Unreadable { name: self.name.to_string(), source }
    }
}

/// Where a record was seen, no failure may pass for "nobody owns this".
fn certainly_not_free(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(cause) => StoreError::Uncertain(cause),
        other => other,
    }
}

/// For how long the owner has been silent, by what is left of the record's life.
fn silence(retention: Duration, left: Option<Duration>) -> Duration {
    left.map_or(Duration::ZERO, |left| retention.min(FOREVER).saturating_sub(left))
}

fn encode_claim(claim: &Claim) -> Vec<u8> {
    codec::encode(&Record { claim: claim.clone(), state: State::InFlight }, Placement::Within)
}
