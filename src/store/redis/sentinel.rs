//! Sentinels, and the server that they name as the primary.
//!
//! Every sentinel is asked once a second, on each `+switch-master` message, and after the loss of a connection to the
//! primary. Only what is named with the highest known configuration epoch is used: a sentinel that was cut off may name a
//! former primary, and what is written there is lost. The last reply of a sentinel that does not answer any more counts
//! until most of them answer: an outage of the sentinels is not an outage of Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::multiplexed::{self, Multiplexed};
use super::stream::Dialer;
use crate::config::StoreEndpoint;
use crate::store::timing::{FIRST_DELAY, LONGEST_DELAY, jittered};

/// The sentinels of one primary. Each has a task that asks it.
pub(super) struct Sentinels {
    master: String,
    heard: watch::Receiver<Vec<Heard>>,
    ask_now: watch::Sender<u64>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// The last reply of one sentinel.
#[derive(Debug, Clone, Default)]
struct Heard {
    primary: Option<Primary>,
    /// Whether the last request was answered.
    answers: bool,
    /// Why the last request failed.
    fault: Option<RedisError>,
    /// The number of the last immediate request that this reply covers.
    round: u64,
}

/// A server that a sentinel names as the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Primary {
    endpoint: StoreEndpoint,
    /// The configuration epoch. It increases with each failover.
    epoch: u64,
}

/// The interval between requests to each sentinel.
const EVERY: Duration = Duration::from_secs(1);
/// The limit for connecting to a sentinel, and for each of its replies.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connect waits for the replies of all sentinels before it tries a primary.
const PATIENCE: Duration = Duration::from_millis(300);
const SWITCHED: &str = "+switch-master";

impl Sentinels {
    /// Starts to ask.
    pub(super) fn start(dialer: &Arc<Dialer>, sentinels: &[(String, u16)], master: &str) -> Self {
        let (tell, heard) = watch::channel(vec![Heard::default(); sentinels.len()]);
        let (ask_now, asked) = watch::channel(0);
        let tasks = sentinels.iter().enumerate().map(|(index, (host, port))| {
            let watcher = Watcher {
                dialer: dialer.clone(),
                endpoint: StoreEndpoint::Tcp(host.clone(), *port),
                master: master.to_owned(),
                index,
                tell: tell.clone(),
                asked: asked.clone(),
            };
            #[expect(clippy::disallowed_methods, reason = "ends with the store")]
            AbortOnDropHandle::new(tokio::spawn(watcher.run()))
        });
        let tasks = tasks.collect();
        Self { master: master.to_owned(), heard, ask_now, _tasks: tasks }
    }

    /// Asks all sentinels. Returns the candidates for the primary, the most likely one first.
    pub(super) async fn candidates(&self) -> Result<Vec<StoreEndpoint>, RedisError> {
        let mut round = 0;
        self.ask_now.send_modify(|number| {
            *number += 1;
            round = *number;
        });
        let mut heard = self.heard.clone();
        let is_known = |heard: &Vec<Heard>| !named(heard).is_empty();
        // First waits for all sentinels, for a short time. Then waits for any of them.
        let all = heard.wait_for(|heard| heard.iter().all(|heard| heard.round >= round));
        let _ = tokio::time::timeout(PATIENCE, all).await;
        let any = heard.wait_for(|heard| is_known(heard) || heard.iter().all(|heard| heard.round >= round));
        let _ = tokio::time::timeout(TIMEOUT, any).await;
        let heard = heard.borrow();
        let candidates = named(&heard);
        match candidates.is_empty() {
            false => Ok(candidates),
            true => Err(heard.iter().find_map(|heard| heard.fault.clone()).unwrap_or_else(late)),
        }
    }

    /// Waits until `current` must not be used any more, or until the sentinels prefer a server other than `current` and
    /// `first`. `first` was their preference when `current` was chosen.
    pub(super) async fn until_moved(&self, current: &StoreEndpoint, first: &StoreEndpoint) {
        let mut heard = self.heard.clone();
        if heard.wait_for(|heard| is_moved(&named(heard), current, first)).await.is_err() {
            // The tasks end only with the store.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the candidates change.
    pub(super) async fn until_heard(&self) {
        let mut heard = self.heard.clone();
        let before = named(&heard.borrow_and_update());
        if heard.wait_for(|heard| named(heard) != before).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn master(&self) -> &str {
        &self.master
    }
}

/// The servers that are named with the highest epoch. They are several only if the sentinels do not tell epochs, or do not
/// agree on a name for one server. They are sorted by the number of sentinels that name them.
fn named(heard: &[Heard]) -> Vec<StoreEndpoint> {
    // A failover needs most of the sentinels. If most of them answer, one that does not answer knows nothing later, and may
    // be gone for good.
    let most_answer = heard.iter().filter(|heard| heard.answers).count() * 2 > heard.len();
    let counts = |heard: &&Heard| heard.answers || !most_answer;
    let primaries = || heard.iter().filter(counts).filter_map(|heard| heard.primary.as_ref());
    let highest = primaries().map(|primary| primary.epoch).max();
    let mut named: Vec<(usize, &StoreEndpoint)> = Vec::new();
    for Primary { endpoint, .. } in primaries().filter(|primary| Some(primary.epoch) == highest) {
        match named.iter_mut().find(|(_, other)| *other == endpoint) {
            Some((count, _)) => *count += 1,
            None => named.push((1, endpoint)),
        }
    }
    named.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    named.into_iter().map(|(_, endpoint)| endpoint.clone()).collect()
}

/// Whether `current` must be left, also for a server that cannot be used.
fn is_moved(named: &[StoreEndpoint], current: &StoreEndpoint, first: &StoreEndpoint) -> bool {
    named.first().is_some_and(|now| !named.contains(current) || now != current && now != first)
}

/// Asks one sentinel.
struct Watcher {
    dialer: Arc<Dialer>,
    endpoint: StoreEndpoint,
    master: String,
    index: usize,
    tell: watch::Sender<Vec<Heard>>,
    asked: watch::Receiver<u64>,
}

impl Watcher {
    async fn run(mut self) {
        let mut delay = FIRST_DELAY;
        loop {
            let round = *self.asked.borrow_and_update();
            let error = match self.watch(&mut delay).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::debug!(sentinel = %self.endpoint, %error, "a sentinel does not answer");
            self.tell.send_modify(|heard| {
                let heard = &mut heard[self.index];
                (heard.answers, heard.fault, heard.round) = (false, Some(error), heard.round.max(round));
            });
            tokio::select! {
                () = tokio::time::sleep(jittered(delay)) => {}
                _ = self.asked.changed() => tokio::time::sleep(FIRST_DELAY).await,
            }
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    async fn watch(&mut self, delay: &mut Duration) -> RedisResult<std::convert::Infallible> {
        let (lost, switched) = (CancellationToken::new(), Arc::new(Notify::new()));
        let connection = in_time(self.open(&lost, &switched)).await?;
        // Without RESP3 there are no messages. The sentinel is asked periodically anyway.
        let _ = in_time(connection.handle().subscribe(SWITCHED)).await;
        loop {
            let round = *self.asked.borrow_and_update();
            let primary = in_time(primary(&connection, &self.master)).await?;
            *delay = FIRST_DELAY;
            self.tell.send_modify(|heard| {
                let fault = primary.is_none().then(|| unknown(&self.master));
                heard[self.index] = Heard { primary, answers: true, fault, round };
            });
            tokio::select! {
                () = lost.cancelled() => return Err(RedisError::from((ErrorKind::Io, "the connection is lost"))),
                () = switched.notified() => {}
                _ = self.asked.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Opens a connection. It logs in only if the sentinel requires it.
    async fn open(&self, lost: &CancellationToken, switched: &Arc<Notify>) -> RedisResult<Multiplexed> {
        let on_push = || {
            let (lost, switched) = (lost.clone(), switched.clone());
            move |push: PushInfo| match push.kind {
                PushKind::Disconnection => lost.cancel(),
                PushKind::Message => switched.notify_one(),
                _ => {}
            }
        };
        match multiplexed::open(&self.dialer.without_credentials(), &self.endpoint, on_push()).await {
            Err(error) if matches!(error.code(), Some("NOAUTH" | "NOPERM")) && self.dialer.has_credentials() => {
                multiplexed::open(&self.dialer.without_database(), &self.endpoint, on_push()).await
            }
            other => other,
        }
    }
}

async fn primary(connection: &Multiplexed, master: &str) -> RedisResult<Option<Primary>> {
    let mut pipeline = redis::Pipeline::new();
    pipeline.ignore_errors();
    pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    pipeline.cmd("SENTINEL").arg("MASTER").arg(master);
    let answers: Vec<RedisResult<Value>> = pipeline.query_async(&mut connection.handle()).await?;
    let mut answers = answers.into_iter();
    let address: Option<(String, u16)> = match answers.next() {
        Some(answer) => redis::from_redis_value(answer?)?,
        None => return Err(late()),
    };
    let details = answers.next().and_then(Result::ok);
    let details: Option<HashMap<String, String>> = details.and_then(|value| redis::from_redis_value(value).ok());
    let epoch = details.and_then(|details| details.get("config-epoch")?.parse().ok()).unwrap_or(0);
    Ok(address.map(|(host, port)| Primary { endpoint: StoreEndpoint::Tcp(host, port), epoch }))
}

fn unknown(master: &str) -> RedisError {
    RedisError::from((
        ErrorKind::MasterNameNotFoundBySentinel,
        "a sentinel knows no primary of this name (store.url: redis+sentinel://host/NAME)",
        master.to_owned(),
    ))
}

fn late() -> RedisError {
    RedisError::from((ErrorKind::Io, "no sentinel answers"))
}

async fn in_time<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| late())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(named: &[(u64, u16)]) -> Vec<Heard> {
        let heard = |&(epoch, port): &(u64, u16)| {
            let primary = (port != 0).then(|| Primary { endpoint: at(port), epoch });
            Heard { primary, answers: true, ..Heard::default() }
        };
        named.iter().map(heard).collect()
    }

    fn at(port: u16) -> StoreEndpoint {
        StoreEndpoint::Tcp("10.0.0.1".to_owned(), port)
    }

    #[test]
    fn only_the_highest_epoch_names_the_primary_and_the_majority_comes_first_where_epochs_are_equal() {
        let best = |told: &[(u64, u16)]| named(&heard(told));
        assert_eq!(best(&[(1, 1), (1, 1), (2, 2)]), [at(2)]);
        assert_eq!(best(&[(1, 1), (1, 2), (1, 2)]), [at(2), at(1)]);
        assert_eq!(best(&[(0, 0), (0, 3)]), [at(3)]);
        assert_eq!(best(&[(0, 0)]), []);
    }

    #[test]
    fn what_a_silent_sentinel_said_last_counts_until_most_of_them_answer() {
        let with_silent = |told: &[(u64, u16)], silent: &[usize]| {
            let mut heard = heard(told);
            silent.iter().for_each(|&index| heard[index].answers = false);
            named(&heard)
        };
        let failed_over = [(1, 1), (2, 2), (2, 2)];
        for silent in [&[0][..], &[1, 2], &[0, 1], &[0, 1, 2]] {
            assert_eq!(with_silent(&failed_over, silent), [at(2)], "{silent:?}");
        }
        // The sentinels were set up anew, and begin to count again.
        assert_eq!(with_silent(&[(7, 1), (0, 2), (0, 2)], &[0]), [at(2)]);
        assert_eq!(with_silent(&[(7, 1), (0, 2), (0, 2)], &[0, 1]), [at(1)]);
    }

    #[test]
    fn a_server_is_left_once_a_higher_epoch_names_another_or_most_sentinels_do() {
        let (one, two) = (at(1), at(2));
        assert!(!is_moved(&[], &one, &one), "no sentinel is heard");
        assert!(!is_moved(std::slice::from_ref(&one), &one, &one));
        assert!(is_moved(std::slice::from_ref(&two), &one, &one));
        // The preferred server could not be used, and the other one is named as well.
        let both = [one.clone(), two.clone()];
        assert!(!is_moved(&both, &two, &one));
        assert!(is_moved(&both, &two, &two));
        // The preferred server could not be used, and the other one is not named any more.
        assert!(is_moved(std::slice::from_ref(&one), &two, &one));
    }
}
