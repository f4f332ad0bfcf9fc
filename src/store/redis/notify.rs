//! Notices of changes that other sidecars make to a record.
//!
//! A sidecar that settles or releases a record publishes on a channel with the record's name, if there are waiters. A
//! waiter subscribes, sets a sign in the record's slot for as long as it waits, and then reads the record again. It sees
//! earlier changes by that read, and gets notices of later ones.
//!
//! One connection to each server listens. It is opened for the first waiter, and serves all of them. Correctness does
//! not depend on it, because waiters also read the record periodically. Notices are only slower in these cases: a
//! server without RESP3, a server that refuses signs, a user without channels, a sidecar that sets no signs, a slot
//! that moves to another node.
//!
//! In a cluster, sharded channels in the record's slot are used if the server has them (Redis 7.0). A message on an
//! ordinary channel goes to every node.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::command_error::CommandError;
use super::commands::nonzero_millis;
use super::connected::ServerDuty;
use super::link::Link;
use super::multiplexed;
use super::stream::Dialer;
use super::timing::CONNECT_TIMEOUT;
use crate::store::Changes;
use crate::store::timing::{FIRST_DELAY, LONGEST_DELAY, jittered};

/// Reports changes of records that have waiters.
pub(super) struct ChangeSubscriber {
    subscriptions: Arc<Subscriptions>,
    _task: AbortOnDropHandle<()>,
}

/// The records that have waiters, by their key.
struct Subscriptions {
    /// The start of the time steps at which signs expire.
    origin: Instant,
    by_key: Mutex<HashMap<String, Subscription>>,
    /// There is a new subscription, or one was extended.
    added: Notify,
}

struct Subscription {
    tell: watch::Sender<()>,
    /// When the last waiter gives up.
    until: Instant,
}

/// Follows a record's key in braces in the name of the waiters' sign. The braces put both names into the same slot.
pub(super) const WAITING: &str = "}:waiting";

/// The name of the sign for the waiters of this record.
pub(super) fn sign_of(key: &str) -> String {
    format!("{{{key}{WAITING}")
}

/// The delay before an unused channel is left. A new waiter may come soon.
const SWEEP: Duration = Duration::from_secs(5);
/// The most by which a sign outlives its waiters.
const STEP: Duration = Duration::from_secs(10);
/// The pause before a server that refused subscriptions is asked again.
const REFUSED: Duration = Duration::from_secs(60);

impl ChangeSubscriber {
    /// Starts without subscriptions.
    pub(super) fn start(link: &Arc<Link>, dialer: &Arc<Dialer>) -> Self {
        let subscriptions =
            Arc::new(Subscriptions { origin: Instant::now(), by_key: Mutex::default(), added: Notify::new() });
        #[expect(clippy::disallowed_methods, reason = "ends with the listener")]
        let task = tokio::spawn(run(Arc::clone(&subscriptions), link.clone(), dialer.clone()));
        Self { subscriptions, _task: AbortOnDropHandle::new(task) }
    }

    /// Changes of one record. The start of listening counts as a change too, because earlier changes were missed.
    pub(super) fn subscribe(&self, key: String, patience: Duration) -> Changes {
        let until = self.subscriptions.rounded(Instant::now() + patience);
        let mut by_key = self.subscriptions.by_key();
        if let Some(subscription) = by_key.get_mut(&key) {
            if until > subscription.until {
                subscription.until = until;
                self.subscriptions.added.notify_one();
            }
            let mut changes = subscription.tell.subscribe();
            changes.mark_changed();
            return changes;
        }
        let (tell, changes) = watch::channel(());
        by_key.insert(key, Subscription { tell, until });
        self.subscriptions.added.notify_one();
        changes
    }
}

impl Subscriptions {
    /// Rounds up to the next time step. So most waiters that join within a step need no new sign.
    fn rounded(&self, until: Instant) -> Instant {
        let steps = until.saturating_duration_since(self.origin).as_millis() / STEP.as_millis() + 1;
        self.origin + STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
    }

    fn by_key(&self) -> MutexGuard<'_, HashMap<String, Subscription>> {
        // Every step leaves the map consistent.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, key: &str) {
        if let Some(subscription) = self.by_key().get(key) {
            subscription.tell.send_replace(());
        }
    }

    fn tell_all(&self) {
        for subscription in self.by_key().values() {
            subscription.tell.send_replace(());
        }
    }

    fn heard(&self, push: &PushInfo) {
        if let (PushKind::Message | PushKind::SMessage, Some(channel)) = (&push.kind, push.data.first())
            && let Ok(key) = String::from_redis_value_ref(channel)
        {
            self.tell(&key);
        }
    }

    /// Removes subscriptions without waiters. Returns the keys of the others, and when their last waiter gives up.
    fn sweep(&self) -> HashMap<String, Instant> {
        let mut by_key = self.by_key();
        by_key.retain(|_, subscription| subscription.tell.receiver_count() > 0);
        by_key.iter().map(|(key, subscription)| (key.clone(), subscription.until)).collect()
    }
}

async fn run(subscriptions: Arc<Subscriptions>, link: Arc<Link>, dialer: Arc<Dialer>) {
    let mut delay = FIRST_DELAY;
    let mut complained = false;
    loop {
        if subscriptions.sweep().is_empty() {
            subscriptions.added.notified().await;
        }
        let error = match listen(&subscriptions, &link, &dialer).await {
            Ok(()) => {
                delay = FIRST_DELAY;
                continue;
            }
            Err(error) => error,
        };
        // Without notices, waiters must read the record themselves.
        subscriptions.tell_all();
        let refused = error.code().is_some() || error.kind() == ErrorKind::RESP3NotSupported;
        if refused && !complained {
            complained = true;
            tracing::warn!(%error, "Redis does not notify; repeats that wait look for themselves, now and then");
        }
        tokio::time::sleep(if refused { REFUSED } else { jittered(delay) }).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// Listens on one connection until it is lost, or until there are no waiters.
async fn listen(subscriptions: &Arc<Subscriptions>, link: &Link, dialer: &Dialer) -> RedisResult<()> {
    let lost = CancellationToken::new();
    let leaving = Arc::new(AtomicU64::new(0));
    let on_push = {
        let (subscriptions, lost, leaving) = (Arc::clone(subscriptions), lost.clone(), leaving.clone());
        move |push: PushInfo| match push.kind {
            PushKind::Disconnection => lost.cancel(),
            // The slot has moved. The `redis` crate takes this message for the reply to another command.
            PushKind::SUnsubscribe if leaving.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err() => {
                lost.cancel();
            }
            _ => subscriptions.heard(&push),
        }
    };
    // The server that holds the records now. It may have changed after a failover.
    let shared = link.next().await;
    let connection = in_time(multiplexed::open(dialer, &shared.endpoint, on_push)).await?;
    let channels = Channels { of_slots: shared.duty != ServerDuty::Alone, leaving };
    let mut listening = Listening { connection: connection.handle(), channels, subscribed: HashMap::new() };
    loop {
        let wanted = subscriptions.sweep();
        listening.follow(subscriptions, &wanted).await?;
        if wanted.is_empty() {
            return Ok(());
        }
        tokio::select! {
            () = lost.cancelled() => return Err(RedisError::from((ErrorKind::Io, "the connection is lost"))),
            () = shared.until_lost() => return Err(RedisError::from((ErrorKind::Io, "the server may be another"))),
            () = subscriptions.added.notified() => {}
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

/// The subscriptions of one connection.
struct Listening {
    connection: MultiplexedConnection,
    channels: Channels,
    /// When the sign of each record expires.
    subscribed: HashMap<String, Instant>,
}

/// The kind of channels that are used.
struct Channels {
    of_slots: bool,
    /// The number of channels that are being left.
    leaving: Arc<AtomicU64>,
}

impl Listening {
    async fn follow(&mut self, subscriptions: &Subscriptions, wanted: &HashMap<String, Instant>) -> RedisResult<()> {
        for (key, until) in wanted {
            let stood = self.subscribed.get(key).copied();
            if stood.is_some_and(|stood| stood >= *until) {
                continue;
            }
            let stands = match stood {
                Some(_) => sign(&mut self.connection, key, *until).await?,
                // The server executes both in this order, because they share one connection.
                None => {
                    let mut signing = self.connection.clone();
                    let subscribing = self.channels.subscribe(&mut self.connection, key);
                    tokio::try_join!(in_time(subscribing), sign(&mut signing, key, *until))?.1
                }
            };
            let now = Instant::now();
            // A sign that was refused is tried again at the next pass.
            self.subscribed.insert(key.clone(), if stands { *until } else { stood.unwrap_or(now) });
            // While the previous sign was valid, the waiters got all notices.
            let is_news = stands || stood.is_none();
            if is_news && stood.is_none_or(|stood| stood <= now) {
                subscriptions.tell(key);
            }
        }
        let left: Vec<String> = self.subscribed.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in left {
            in_time(self.channels.unsubscribe(&mut self.connection, &key)).await?;
            self.subscribed.remove(&key);
        }
        Ok(())
    }
}

impl Channels {
    async fn subscribe(&mut self, connection: &mut MultiplexedConnection, key: &str) -> RedisResult<()> {
        if self.of_slots {
            match redis::cmd("SSUBSCRIBE").arg(key).query_async::<Value>(connection).await.map_err(CommandError::of) {
                Ok(_) => return Ok(()),
                // The record is on another node now. Waiters read it themselves.
                Err(fault) if fault.is_elsewhere_in_cluster() => return Ok(()),
                Err(CommandError::Refused(_, error)) => {
                    tracing::debug!(%error, "channels of slots cannot be used");
                    self.of_slots = false;
                }
                Err(CommandError::Lost(error)) => return Err(error),
                Err(CommandError::Late | CommandError::Full) => return Err(late()),
            }
        }
        connection.subscribe(key).await
    }

    async fn unsubscribe(&self, connection: &mut MultiplexedConnection, key: &str) -> RedisResult<()> {
        if self.of_slots {
            self.leaving.fetch_add(1, SeqCst);
            let left = redis::cmd("SUNSUBSCRIBE").arg(key).query_async::<Value>(connection).await;
            return match left.map_err(CommandError::of) {
                Ok(_) => Ok(()),
                Err(fault) if fault.is_elsewhere_in_cluster() => {
                    self.leaving.fetch_sub(1, SeqCst);
                    Ok(())
                }
                Err(CommandError::Refused(_, error) | CommandError::Lost(error)) => Err(error),
                Err(CommandError::Late | CommandError::Full) => Err(late()),
            };
        }
        connection.unsubscribe(key).await
    }
}

/// Sets the sign of this record's waiters. Returns whether it is set. No one removes the sign early, because an extra
/// notice does no harm.
async fn sign(connection: &mut MultiplexedConnection, key: &str, until: Instant) -> RedisResult<bool> {
    let left = nonzero_millis(until.saturating_duration_since(Instant::now()));
    let mut set = redis::cmd("SET");
    set.arg(sign_of(key)).arg("").arg("PX").arg(left);
    match in_time(set.query_async(connection)).await {
        Ok(()) => Ok(true),
        // A full server refuses the sign. Waiters read the record themselves.
        Err(error) if error.code().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn in_time<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(CONNECT_TIMEOUT, answer).await.map_err(|_| late())?
}

fn late() -> RedisError {
    RedisError::from((ErrorKind::Io, "no answer in time"))
}
