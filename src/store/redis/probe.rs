//! What is found out about a server at each connect, and what is wrong with it.

use std::collections::HashMap;
use std::time::Duration;

use redis::{ErrorKind, FromRedisValue, RedisError};
use tokio::time::Instant;

use super::commands::{self, Acquire, Fault};
use super::connection::{Connected, Link};
use crate::config;
use crate::key::DigestKey;
use crate::store::digest_key::{Agreement, Note, Wanted};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The first attempt is under way.
    #[error("there is no connection to Redis yet")]
    NotYet,
    /// There was one.
    #[error("the connection to Redis is lost")]
    Lost,
    /// Nobody answers.
    #[error("Redis did not answer within {0:?}")]
    Silent(Duration),
    /// There is no way to the server.
    #[error("Redis cannot be reached")]
    Unreachable(#[source] RedisError),
    /// The server wants other credentials.
    #[error("Redis does not accept the user and password of store.url, or asks for some")]
    Credentials(#[source] RedisError),
    /// The user may not do what has to be done.
    #[error(
        "the Redis user lacks a permission: it needs GET, SET, DEL, PTTL, PEXPIRE, EVALSHA and SCRIPT LOAD, \
         and for `onlyonce records` SCAN and GETRANGE, on the keys {prefix}:* and {{{prefix}:*"
    )]
    Permission {
        /// `store.prefix`
        prefix: String,
        /// What the server said.
        #[source]
        source: RedisError,
    },
    /// The server answers, and cannot be used.
    #[error("Redis refuses to work")]
    Refused(#[source] RedisError),
    /// Records could be evicted.
    #[error(
        "Redis may evict records (maxmemory-policy {policy}), and an operation whose record is gone runs again: \
         set maxmemory-policy to noeviction, or store.accept_eviction to true"
    )]
    Evicting {
        /// The server's `maxmemory-policy`.
        policy: String,
    },
    /// The store was used with a digest key that is not here.
    #[error(
        "this store was used with another store.digest_key, and none is set: set it, or delete {name} from Redis to go on \
         without the records of before"
    )]
    DigestKeyWithheld {
        /// Where the store keeps its note about the key.
        name: String,
    },
    /// Something else uses the prefix.
    #[error("{name} in Redis was not written by onlyonce: choose another store.prefix")]
    NotOurs {
        /// Where the store keeps its note about the digest key.
        name: String,
    },
    /// No random bytes.
    #[error("there is no randomness to make a digest key of")]
    Randomness(#[source] getrandom::Error),
}

impl ConnectError {
    /// Whether starting is no use until somebody changes something.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Evicting { .. } | Self::DigestKeyWithheld { .. } | Self::NotOurs { .. } => true,
            Self::NotYet
            | Self::Lost
            | Self::Silent(_)
            | Self::Unreachable(_)
            | Self::Credentials(_)
            | Self::Permission { .. }
            | Self::Refused(_)
            | Self::Randomness(_) => false,
        }
    }

    pub(super) fn of_opening(error: RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => Self::Credentials(error),
            (_, Some(_)) => Self::Refused(error),
            (_, None) => Self::Unreachable(error),
        }
    }

    fn of(fault: Fault, prefix: &str) -> Self {
        match fault {
            Fault::Refused(code, source) if code == "NOPERM" => Self::Permission { prefix: prefix.to_owned(), source },
            Fault::Refused(_, error) => Self::Refused(error),
            Fault::Lost(error) => Self::Unreachable(error),
            Fault::Late => Self::Silent(super::connection::CONNECT_TIMEOUT),
        }
    }
}

/// A number that this process writes again and again, one more each time. A server that has an older one is not the one
/// that took the last: it was restored, or it was a replica that lagged behind.
struct Canary {
    name: String,
    next: u64,
    /// What was certainly taken, and when.
    taken: Option<(u64, Instant)>,
}

/// So long a canary lives; one that may have died proves nothing.
const CANARY_LIVES: Duration = Duration::from_secs(86_400);

/// Looks at a server, and remembers what it said about the last one.
pub(super) struct Probe {
    prefix: String,
    accept_eviction: bool,
    digest_key: Option<DigestKey>,
    /// Whether this process has seen the store's note about the digest key.
    noted: bool,
    canary: Canary,
    /// For tests: as if the server knew no `SET NX GET`.
    scripts_only: bool,
    said: Said,
}

#[derive(Default)]
struct Said {
    eviction_unknown: bool,
    not_persisted: bool,
    forgotten: bool,
}

impl Probe {
    pub(super) fn new(config: &config::Store, digest_key: Option<DigestKey>, scripts_only: bool) -> Self {
        Self {
            prefix: config.prefix.clone(),
            accept_eviction: config.accept_eviction,
            digest_key,
            noted: false,
            canary: Canary { name: canary_name(&config.prefix), next: 1, taken: None },
            scripts_only,
            said: Said::default(),
        }
    }

    /// Finds out whether the server can be used, and how.
    pub(super) async fn examine(
        &mut self,
        connected: &mut Connected,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let of = |fault| ConnectError::of(fault, &self.prefix);
        match eviction(connected, deadline).await.map_err(of)? {
            Some(policy) if policy != "noeviction" && !self.accept_eviction => {
                return Err(ConnectError::Evicting { policy });
            }
            None if !self.said.eviction_unknown => {
                self.said.eviction_unknown = true;
                tracing::warn!(
                    "Redis does not tell its maxmemory-policy: unless it is noeviction, records may be evicted, and their \
                     operations run again"
                );
            }
            Some(_) | None => {}
        }
        if !self.said.not_persisted && !persists(connected, deadline).await.map_err(of)? {
            self.said.not_persisted = true;
            tracing::warn!(
                "Redis persists nothing: when it restarts, all records are gone, and their operations run again"
            );
        }
        for script in commands::scripts() {
            let mut control = connected.control.clone();
            connected
                .in_time(deadline, script.load_async(&mut control))
                .await
                .map_err(|fault| ConnectError::of(fault, &self.prefix))?;
        }
        self.agree(connected, link, deadline).await
    }

    /// Agrees with the server on the digest key. Finds out in passing how names are taken, and whether data was lost.
    pub(super) async fn agree(
        &mut self,
        connected: &mut Connected,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let name = format!("{}:digest-key", self.prefix);
        let wanted = Wanted::new(self.digest_key, link.digest_key()).map_err(ConnectError::Randomness)?;
        let found = take_note(connected, &name, &wanted.note().encode(), self.scripts_only, deadline)
            .await
            .map_err(|fault| ConnectError::of(fault, &self.prefix))?;
        let found = match found {
            None => None,
            Some(bytes) => Some(Note::decode(&bytes).ok_or(ConnectError::NotOurs { name: name.clone() })?),
        };
        let key = match wanted.compare(found) {
            Agreement::Agreed(key) => key,
            Agreement::Founded(key) | Agreement::Adopted(key) => {
                self.canary.taken = None;
                if self.noted {
                    link.count_loss();
                    tracing::error!(
                        "Redis lost its data: records of before are gone, and their operations run again when they are repeated"
                    );
                }
                key
            }
            Agreement::Forgotten(key) => {
                if !self.said.forgotten {
                    self.said.forgotten = true;
                    tracing::warn!(
                        name,
                        "store.digest_key is not the key that this store was used with: the records kept under that are \
                         forgotten. Delete the name from Redis when no sidecar uses the former key any more"
                    );
                }
                key
            }
            Agreement::Withheld => return Err(ConnectError::DigestKeyWithheld { name }),
        };
        if self.canary.is_outdated(connected, deadline).await.map_err(|fault| ConnectError::of(fault, &self.prefix))? {
            link.count_loss();
            tracing::error!(
                "Redis has an older state than it had: what was recorded last is gone, and those operations run again when \
                 they are repeated"
            );
        }
        self.noted = true;
        link.set_digest_key(key);
        Ok(())
    }
}

impl Canary {
    /// Writes the next number, and says whether the server has forgotten the last.
    async fn is_outdated(&mut self, connected: &Connected, deadline: Instant) -> Result<bool, Fault> {
        let number = self.next;
        self.next += 1;
        let before = match connected.succeed(&self.name, number, CANARY_LIVES, deadline).await {
            Ok(before) => before,
            // It takes no writes now, or is too old to tell what was there: nothing is proved.
            Err(Fault::Refused(..)) => return Ok(false),
            Err(fault) => return Err(fault),
        };
        let taken = self.taken.replace((number, Instant::now()));
        // Numbers without an answer may have been taken too, so a later one is fine.
        Ok(taken
            .is_some_and(|(taken, at)| at.elapsed() < CANARY_LIVES / 2 && before.is_none_or(|before| before < taken)))
    }
}

fn canary_name(prefix: &str) -> String {
    let mut id = [0; 8];
    // Without randomness it is shared with others, and a server that lost data may go unnoticed.
    let _ = getrandom::fill(&mut id);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}:canary:{id}")
}

/// Writes the note if there is none, else reads it.
async fn take_note(
    connected: &mut Connected,
    name: &str,
    note: &[u8],
    scripts_only: bool,
    deadline: Instant,
) -> Result<Option<Vec<u8>>, Fault> {
    if scripts_only {
        connected.acquire = Acquire::ByScript;
    }
    let mut taken = connected.acquire(name, note, None, deadline).await;
    if taken.as_ref().is_err_and(Fault::is_syntax) {
        connected.acquire = Acquire::ByScript;
        taken = connected.acquire(name, note, None, deadline).await;
    }
    match taken {
        Ok(found) => Ok(found.map(Into::into)),
        Err(fault) if fault.is_elsewhere() => Err(fault),
        // It takes no writes (its memory is full, its disk is, its replicas are away) and may still serve replays.
        Err(Fault::Refused(code, error)) => match connected.look(name, deadline).await? {
            Some(found) => Ok(Some(found.bytes.into())),
            None => Err(Fault::Refused(code, error)),
        },
        Err(fault) => Err(fault),
    }
}

/// The policy of eviction, if anything is ever evicted under it; `None` if it cannot be found out.
async fn eviction(connected: &Connected, deadline: Instant) -> Result<Option<String>, Fault> {
    let told = |maxmemory: Option<String>, policy: Option<String>| match (maxmemory?.as_str(), policy?) {
        ("0", _) => Some("noeviction".to_owned()),
        (_, policy) => Some(policy),
    };
    if let Some(info) = ask::<String>(connected, &["INFO", "memory"], deadline).await? {
        let policy = told(field(&info, "maxmemory"), field(&info, "maxmemory_policy"));
        if policy.is_some() {
            return Ok(policy);
        }
    }
    let maxmemory = setting(connected, "maxmemory", deadline).await?;
    Ok(told(maxmemory, setting(connected, "maxmemory-policy", deadline).await?))
}

/// Whether anything is written to disk; `true` if it cannot be found out.
async fn persists(connected: &Connected, deadline: Instant) -> Result<bool, Fault> {
    let info = ask::<String>(connected, &["INFO", "persistence"], deadline).await?;
    let appends = info.and_then(|info| field(&info, "aof_enabled")).is_none_or(|enabled| enabled != "0");
    let saves = setting(connected, "save", deadline).await?.is_none_or(|points| !points.is_empty());
    Ok(appends || saves)
}

/// One setting, if the server tells.
async fn setting(connected: &Connected, name: &str, deadline: Instant) -> Result<Option<String>, Fault> {
    let settings = ask::<HashMap<String, String>>(connected, &["CONFIG", "GET", name], deadline).await?;
    Ok(settings.and_then(|mut settings| settings.remove(name)))
}

/// Asks what may be refused: managed servers hide such things.
async fn ask<T: FromRedisValue>(connected: &Connected, words: &[&str], deadline: Instant) -> Result<Option<T>, Fault> {
    let mut question = redis::Cmd::new();
    question.arg(words);
    match connected.in_time(deadline, question.query_async(&mut connected.control.clone())).await {
        Ok(answer) => Ok(Some(answer)),
        Err(Fault::Refused(..)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// One line of `INFO`.
fn field(info: &str, name: &str) -> Option<String> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
}
