//! What is found out about a server at each connect, and what is wrong with it.

use std::collections::HashMap;
use std::time::Duration;

use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Value};
use serde::Serialize;
use tokio::time::Instant;

use super::ConnectionOptions;
use super::acl::acl_rule;
use super::commands::{self, AcquireMethod, CommandError};
use super::connection::{Connected, Link};
use super::stream::{Dialer, tls_fault};
use crate::clock::since_boot;
use crate::config;
use crate::key::DigestKey;
use crate::record::Hex;
use crate::store::digest_key::{Agreement, DigestKeyNote, Wanted};
use crate::store::{FOREVER, SHORT};

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
    /// It takes connections, and says nothing.
    #[error(
        "Redis takes connections and did not answer within {0:?}: it hangs, or it speaks TLS on this port (write rediss:// in \
         store.url)"
    )]
    Mute(Duration),
    /// The same, where TLS is tried.
    #[error(
        "no TLS with Redis: it takes connections and did not answer within {0:?}: it hangs, or the port does not speak TLS \
         (write redis:// without the second s, or name the server's tls-port)"
    )]
    MuteInTls(Duration),
    /// It is reached, and TLS fails.
    #[error("no TLS with Redis: {0}")]
    Tls(String),
    /// It hangs up without a word.
    #[error("Redis hung up at once; if it speaks TLS on this port, write rediss:// in store.url")]
    HungUp(#[source] RedisError),
    /// Sentinels do not say where it is.
    #[error("no sentinel names a primary {master:?}")]
    NoPrimary {
        /// The name that they were asked for.
        master: String,
        /// What one of them said instead.
        #[source]
        source: RedisError,
    },
    /// The sentinels name a server that is none, or is none any more.
    #[error("{server} is not the primary, or not any more: sentinels are asked again")]
    NotPrimary {
        /// Host and port.
        server: String,
    },
    /// The server wants other credentials.
    #[error("Redis does not accept the user and password (store.url, store.password), or asks for some")]
    Credentials(#[source] RedisError),
    /// The server lacks what is needed, or does not let this user have it.
    #[error(
        "Redis lacks {missing}, or refuses it to this user; nothing guarded runs until that is mended. For an ACL user, this is \
         enough: {}",
        acl_rule(prefix)
    )]
    Permission {
        /// What is missing.
        missing: String,
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
    /// Another sidecar has gone over to a digest key that is not here.
    #[error(
        "another sidecar has replaced the digest key of this store ({name}) by that of its own store.digest_key: this one \
         claims nothing any more. Give all of them the same, and start this one again"
    )]
    DigestKeyReplaced {
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
            | Self::DigestKeyReplaced { .. }
            | Self::Silent(_)
            | Self::Unreachable(_)
            | Self::Mute(_)
            | Self::MuteInTls(_)
            | Self::Tls(_)
            | Self::HungUp(_)
            | Self::NoPrimary { .. }
            | Self::NotPrimary { .. }
            | Self::Credentials(_)
            | Self::Permission { .. }
            | Self::Refused(_)
            | Self::Randomness(_) => false,
        }
    }

    /// Whether it says that the last try to open a connection has failed. A server that speaks for another digest key is
    /// within reach, and there is none that was not tried yet.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::NotYet | Self::Lost => false,
            Self::DigestKeyWithheld { .. } | Self::DigestKeyReplaced { .. } | Self::NotOurs { .. } => false,
            Self::Evicting { .. } | Self::Permission { .. } | Self::Randomness(_) => false,
            Self::Silent(_) | Self::Mute(_) | Self::MuteInTls(_) => true,
            Self::Unreachable(_) | Self::Tls(_) | Self::HungUp(_) => true,
            Self::NoPrimary { .. } | Self::NotPrimary { .. } | Self::Credentials(_) | Self::Refused(_) => true,
        }
    }

    pub(super) fn of_opening(error: RedisError, dialer: &Dialer) -> Self {
        if let Some(advice) = tls_fault(&error).filter(|_| dialer.is_tls()) {
            return Self::Tls(advice);
        }
        match (error.kind(), error.code()) {
            (_, None) if error.is_connection_refusal() => Self::Unreachable(error),
            (ErrorKind::Io, None) if !dialer.is_tls() && error.is_connection_dropped() => Self::HungUp(error),
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => Self::Credentials(error),
            (_, Some(_)) => Self::Refused(error),
            (_, None) => Self::Unreachable(error),
        }
    }

    fn of(fault: CommandError, prefix: &str) -> Self {
        match fault {
            CommandError::Refused(code, source) if code == "NOPERM" => {
                Self::Permission { missing: "a permission".to_owned(), prefix: prefix.to_owned(), source }
            }
            CommandError::Refused(_, error) => Self::Refused(error),
            CommandError::Lost(error) => Self::Unreachable(error),
            CommandError::Late | CommandError::Full => Self::Silent(super::connection::CONNECT_TIMEOUT),
        }
    }
}

/// Something that was found out about a server that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerFinding {
    /// In a word.
    pub what: &'static str,
    /// How it is, and what to change where it is not good.
    pub found: String,
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

/// How long whoever founds or replaces the digest key of a store makes no claims: by then, every other sidecar has either
/// seen the new one, or has had no answer for so long that it claims nothing itself.
const SETTLING: Duration = Duration::from_secs(3);

/// The connections that this process has to a server when it opens them. Those of its cores come later: beside them, it
/// counts as not alone, and waits.
const OWN_CONNECTIONS: u64 = 4;

/// Looks at a server, and remembers what it said about the last one.
pub(super) struct Probe {
    prefix: String,
    /// The name on which what is needed is tried out.
    rehearsal: String,
    accept_eviction: bool,
    replica_acks: u64,
    digest_key: Option<DigestKey>,
    /// Whether this process has seen the store's note about the digest key.
    noted: bool,
    canary: Canary,
    /// For tests: as if the server knew no `SET NX GET`.
    scripts_only: bool,
    puts_key: bool,
    said: LoggedWarnings,
    /// The run of the server that was last examined.
    run: Option<String>,
}

#[derive(Default)]
struct LoggedWarnings {
    eviction_unknown: bool,
    not_persisted: bool,
    no_info: bool,
    evicting: bool,
    short: bool,
    /// How many keys the server had evicted at the last look.
    evicted: Option<u64>,
}

impl Probe {
    pub(super) fn new(config: &config::StoreConfig, digest_key: Option<DigestKey>, habits: ConnectionOptions) -> Self {
        Self {
            rehearsal: format!("{}:probe:{}", config.prefix, random_id()),
            prefix: config.prefix.clone(),
            accept_eviction: config.accept_eviction,
            replica_acks: config.replica_acks,
            digest_key,
            noted: false,
            canary: Canary { name: canary_name(&config.prefix), next: 1, taken: None },
            scripts_only: habits.scripts_only,
            puts_key: habits.puts_key,
            said: LoggedWarnings::default(),
            run: None,
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the server that was last examined has as the number of its run.
    pub(super) fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// Finds out whether the server can be used, and how: in two round trips, since it may be far away.
    pub(super) async fn examine(
        &mut self,
        connected: &mut Connected,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let mut pipeline = ServerFacts::questions(true);
        for source in commands::SOURCES {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(source);
        }
        let tried = commands::rehearse(&mut pipeline, &self.rehearsal);
        let answers = connected.ask_all(&pipeline, deadline).await.map_err(|fault| self.of(fault))?;
        let (facts, rest) = answers.split_at(ServerFacts::QUESTIONS.min(answers.len()));
        let (loads, rehearsed) = rest.split_at(commands::SOURCES.len().min(rest.len()));
        self.said.no_info = facts.first().is_none_or(RedisResult::is_err);

        let facts = ServerFacts::of(facts);
        self.run.clone_from(&facts.run);
        match &facts.eviction {
            Some(policy) if policy != NO_EVICTION && !self.accept_eviction => {
                return Err(ConnectError::Evicting { policy: policy.clone() });
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
        if !self.said.not_persisted && !facts.persists {
            self.said.not_persisted = true;
            tracing::warn!(
                "Redis persists nothing: when it restarts, all records are gone, and their operations run again"
            );
        }
        let tried = std::iter::repeat_n("SCRIPT LOAD", loads.len()).chain(tried);
        self.has_all(tried.zip(loads.iter().chain(rehearsed)))?;
        let knows_get = !rehearsed.first().is_some_and(|first| first.as_ref().is_err_and(is_syntax));
        connected.acquire =
            if knows_get && !self.scripts_only { AcquireMethod::Natively } else { AcquireMethod::ByScript };
        self.note_facts(&facts, link);
        link.set_findings(self.findings(&facts, connected));
        self.agree(connected, link, deadline).await
    }

    /// What an operator may want to know of a server that can be used.
    fn findings(&self, facts: &ServerFacts, connected: &Connected) -> Vec<ServerFinding> {
        const HIDDEN: &str = "not told to this user (it needs INFO)";
        let count = |count: u64| if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") };
        let mut findings = Vec::new();
        let mut add = |what, found: String| findings.push(ServerFinding { what, found });
        let version = facts.version.clone().unwrap_or_else(|| "a server that does not tell its version".to_owned());
        let replicas = facts.replicas.map(|replicas| format!(", {}", count(replicas))).unwrap_or_default();
        add("server", format!("{version} at {}{replicas}", connected.endpoint));
        add(
            "claims",
            match connected.acquire {
                AcquireMethod::Natively => "by one command: SET NX GET".to_owned(),
                AcquireMethod::ByScript => "by a script, as the server has no SET NX GET (Redis 7.0 has it)".to_owned(),
            },
        );
        let memory = match (facts.used, &facts.eviction) {
            (Some(used), Some(policy)) => format!("{:.0} % of maxmemory used, {policy}", used * 100.0),
            (None, Some(policy)) if policy == NO_EVICTION => "without a limit: nothing is evicted".to_owned(),
            (None, Some(policy)) => policy.clone(),
            (_, None) => format!("{HIDDEN}; make sure that maxmemory-policy is noeviction"),
        };
        add("memory", memory);
        let on_disk = match facts.persists {
            true if self.said.no_info => HIDDEN.to_owned(),
            true => "an append-only file, or snapshots".to_owned(),
            false => "nothing: a restart forgets all records. Set appendonly to yes".to_owned(),
        };
        add("on disk", on_disk);
        match (self.replica_acks, facts.replicas) {
            (0, _) => {}
            (acks, Some(there)) if there < acks => {
                let asked = count(acks);
                add("replicas", format!("too few: store.replica_acks asks for {asked}, so that claims get 503"));
            }
            (acks, _) => add("replicas", format!("store.replica_acks asks for {}", count(acks))),
        }
        findings
    }

    /// Looks again at what an operator may change, and time does.
    pub(super) async fn look(
        &mut self,
        connected: &Connected,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let answers = connected
            .ask_all(&ServerFacts::questions(self.said.no_info), deadline)
            .await
            .map_err(|fault| self.of(fault))?;
        self.note_facts(&ServerFacts::of(&answers), link);
        Ok(())
    }

    fn note_facts(&mut self, facts: &ServerFacts, link: &Link) {
        let evicting = facts.eviction.as_ref().is_some_and(|policy| policy != NO_EVICTION);
        link.set_memory(facts.used, evicting);
        if evicting && !self.said.evicting && !self.accept_eviction {
            tracing::error!(
                policy = facts.eviction,
                "Redis may evict records by now (maxmemory-policy), and an operation whose record is gone runs again: set it \
                 back to noeviction. At the next connect, this server is refused"
            );
        }
        self.said.evicting = evicting;
        let is_short = facts.used.is_some_and(|used| used > SHORT);
        if is_short && !self.said.short {
            tracing::warn!(
                used = facts.used,
                "Redis is almost full: larger answers are not kept any more (their repeats get 409 already-completed), so that \
                 keys can still be claimed. Give it more maxmemory, or records less retention"
            );
        }
        self.said.short = is_short;
        let before = self.said.evicted;
        self.said.evicted = facts.evicted.or(before);
        if let (Some(before), Some(now)) = (before, facts.evicted)
            && now > before
        {
            link.count_loss();
            tracing::error!(
                evicted = now - before,
                "Redis has evicted keys: where records are among them, their operations run again when they are repeated"
            );
        }
    }

    /// Refuses a server of which one answer says that a command is not there, or not for this user.
    fn has_all<'a>(
        &self,
        tried: impl Iterator<Item = (&'static str, &'a RedisResult<Value>)>,
    ) -> Result<(), ConnectError> {
        let mut missing: Vec<&str> = Vec::new();
        let mut source = None;
        for (what, answer) in tried {
            let Err(error) = answer else { continue };
            let Some(what) = lacking(what, error) else { continue };
            if !missing.contains(&what) {
                missing.push(what);
            }
            source.get_or_insert(error);
        }
        match source {
            None => Ok(()),
            Some(source) => Err(ConnectError::Permission {
                missing: missing.join(", "),
                prefix: self.prefix.clone(),
                source: source.clone(),
            }),
        }
    }

    /// Agrees with the server on the digest key, and confirms it. Finds out in passing whether data was lost.
    pub(super) async fn agree(
        &mut self,
        connected: &Connected,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let name = format!("{}:digest-key", self.prefix);
        let wanted = Wanted::new(self.digest_key, link.digest_key()).map_err(ConnectError::Randomness)?;
        let note = wanted.note().encode();
        if !self.puts_key {
            return self.read_key(connected, link, &wanted, &name, deadline).await;
        }
        let asked = since_boot();
        let (found, left, is_outdated) = tokio::join!(
            take_note(connected, &name, &note, deadline),
            connected.left(&name, deadline),
            self.canary.is_outdated(connected, deadline),
        );
        let of = |fault| ConnectError::of(fault, &self.prefix);
        let (found, left, is_outdated) = (found.map_err(of)?, left.map_err(of)?, is_outdated.map_err(of)?);
        let found = match found {
            None => None,
            Some(bytes) => Some(DigestKeyNote::decode(&bytes).ok_or(ConnectError::NotOurs { name: name.clone() })?),
        };
        let agreement = wanted.compare(found);
        let (key, is_new) = match agreement {
            // Whoever comes just now may meet others who have not seen it yet.
            Agreement::Agreed(key) if !self.noted => (key, is_young(left)),
            Agreement::Agreed(key) => (key, false),
            Agreement::Founded(key) => (key, !self.is_alone(connected, &name, deadline).await?),
            Agreement::Adopted(key) if !self.noted => (key, is_young(left)),
            Agreement::Adopted(key) => (key, true),
            Agreement::Forgotten(_) if self.noted => return Err(ConnectError::DigestKeyReplaced { name }),
            Agreement::Forgotten(key) => {
                tracing::warn!(
                    name,
                    "store.digest_key is not the key that this store was used with, and takes its place: the records kept \
                     under that are forgotten, and sidecars that go by it claim nothing any more"
                );
                let put = connected.put(&name, &note, FOREVER, deadline).await;
                put.map_err(|fault| ConnectError::of(fault, &self.prefix))?;
                (key, !self.is_alone(connected, &name, deadline).await?)
            }
            Agreement::Withheld => return Err(ConnectError::DigestKeyWithheld { name }),
        };
        if is_new {
            link.no_claims_for(SETTLING);
        }
        let was_lost = matches!(agreement, Agreement::Founded(_) | Agreement::Adopted(_));
        if was_lost {
            self.canary.taken = None;
        }
        if was_lost && self.noted {
            link.count_loss();
            tracing::error!(
                "Redis lost its data: records of before are gone, and their operations run again when they are repeated"
            );
        } else if is_outdated && !was_lost {
            link.count_loss();
            tracing::error!(
                "Redis has an older state than it had: what was recorded last is gone, and those operations run again when \
                 they are repeated"
            );
        }
        self.noted = true;
        link.set_digest_key(key);
        link.confirm(asked);
        Ok(())
    }

    /// Takes the store's digest key for what it is.
    async fn read_key(
        &self,
        connected: &Connected,
        link: &Link,
        wanted: &Wanted,
        name: &str,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let Some(found) = connected.look(name, deadline).await.map_err(|fault| self.of(fault))? else { return Ok(()) };
        let note =
            DigestKeyNote::decode(&found.bytes).ok_or_else(|| ConnectError::NotOurs { name: name.to_owned() })?;
        match wanted.compare(Some(note)) {
            Agreement::Founded(key) | Agreement::Agreed(key) | Agreement::Adopted(key) => link.set_digest_key(key),
            Agreement::Forgotten(_) => {
                tracing::warn!(
                    "store.digest_key is not the key that this store is used with: no record of it is found"
                );
            }
            Agreement::Withheld => return Err(ConnectError::DigestKeyWithheld { name: name.to_owned() }),
        }
        Ok(())
    }

    /// Whether nobody else is connected to the server at which this process has just put its key: nobody can go by
    /// another one then, and nobody has to wait for it. Says so to those who come next, by making the note look old.
    async fn is_alone(&self, connected: &Connected, name: &str, deadline: Instant) -> Result<bool, ConnectError> {
        let of = |fault| ConnectError::of(fault, &self.prefix);
        let info = ask::<String>(connected, &["INFO", "clients"], deadline).await.map_err(of)?;
        let clients = info.and_then(|info| field(&info, "connected_clients")?.parse::<u64>().ok());
        // The one that waits for replicas is open already, too.
        let own = OWN_CONNECTIONS + u64::from(self.replica_acks > 0);
        let is_alone = clients.is_some_and(|clients| clients <= own);
        if is_alone {
            connected.expire(name, FOREVER - SETTLING, deadline).await.map_err(of)?;
        }
        Ok(is_alone)
    }

    fn of(&self, fault: CommandError) -> ConnectError {
        ConnectError::of(fault, &self.prefix)
    }
}

/// Whether a note was made just now, by what is left of its life.
fn is_young(left: Option<Duration>) -> bool {
    left.is_some_and(|left| FOREVER.saturating_sub(left) < SETTLING)
}

const NO_EVICTION: &str = "noeviction";

/// What a server tells of itself, if it does: managed servers hide such things.
struct ServerFacts {
    /// The policy of eviction, where anything is ever evicted under it; `None` if it cannot be found out.
    eviction: Option<String>,
    /// The share of its memory that is used; `None` without a limit.
    used: Option<f64>,
    /// The keys that it has evicted.
    evicted: Option<u64>,
    /// Whether anything is written to disk; `true` if it cannot be found out.
    persists: bool,
    /// A random number of this run of the server.
    run: Option<String>,
    /// Product and version. For people: nothing is guessed from it.
    version: Option<String>,
    /// Replicas that are connected.
    replicas: Option<u64>,
}

impl ServerFacts {
    const QUESTIONS: usize = 8;

    /// Settings say less than `INFO`, where that is allowed.
    fn questions(settings_too: bool) -> Pipeline {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for section in ["memory", "stats", "persistence", "server", "replication"] {
            pipeline.cmd("INFO").arg(section);
        }
        for setting in ["maxmemory", "maxmemory-policy", "save"].into_iter().filter(|_| settings_too) {
            pipeline.cmd("CONFIG").arg("GET").arg(setting);
        }
        pipeline
    }

    fn of(answers: &[RedisResult<Value>]) -> Self {
        let told = |index: usize| answers.get(index).and_then(|answer| answer.as_ref().ok());
        let info = |index, name| field(&String::from_redis_value_ref(told(index)?).ok()?, name);
        let setting = |index, name| {
            let mut settings: HashMap<String, String> = FromRedisValue::from_redis_value_ref(told(index)?).ok()?;
            settings.remove(name)
        };
        let maxmemory = info(0, "maxmemory").or_else(|| setting(5, "maxmemory"));
        let policy = info(0, "maxmemory_policy").or_else(|| setting(6, "maxmemory-policy"));
        let eviction = match (maxmemory.as_deref(), policy) {
            (None, _) | (_, None) => None,
            (Some("0"), Some(_)) => Some(NO_EVICTION.to_owned()),
            (Some(_), policy) => policy,
        };
        let limit = maxmemory.and_then(|maxmemory| maxmemory.parse::<f64>().ok()).filter(|limit| *limit > 0.0);
        let used = info(0, "used_memory").and_then(|used| used.parse::<f64>().ok());
        let appends = info(2, "aof_enabled").is_none_or(|enabled| enabled != "0");
        Self {
            eviction,
            used: limit.and_then(|limit| Some(used? / limit)),
            evicted: info(1, "evicted_keys").and_then(|evicted| evicted.parse().ok()),
            run: info(3, "run_id"),
            version: match (info(3, "valkey_version"), info(3, "redis_version")) {
                (Some(version), _) => Some(format!("Valkey {version}")),
                (None, Some(version)) => Some(format!("Redis {version}")),
                (None, None) => None,
            },
            replicas: info(4, "connected_slaves").and_then(|replicas| replicas.parse().ok()),
            persists: appends || setting(7, "save").is_none_or(|points| !points.is_empty()),
        }
    }
}

/// What an error says is missing, if that is what it says.
fn lacking(what: &'static str, error: &RedisError) -> Option<&'static str> {
    let says = error.to_string();
    let is_refused = |text: &str| says.contains(text);
    if ["access one of the keys", "access at least one of the keys", "access a key"].into_iter().any(is_refused) {
        return Some("access to its names");
    }
    if error.code() == Some("NOPERM") && is_refused("evalsha") || is_refused("unknown command") {
        return Some(what);
    }
    // Redis 7 says of a script what it says of a command; before, a script's error wraps that of the command.
    let in_script = ["can't run this command", "Unknown Redis command", "from script"].into_iter().any(is_refused);
    match (error.code() == Some("NOPERM") || in_script, what) {
        (false, _) => None,
        (true, "EVALSHA") => Some("a command that its scripts call"),
        (true, what) => Some(what),
    }
}

fn is_syntax(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("syntax error"))
}

impl Canary {
    /// Writes the next number, and says whether the server has forgotten the last.
    async fn is_outdated(&mut self, connected: &Connected, deadline: Instant) -> Result<bool, CommandError> {
        let number = self.next;
        self.next += 1;
        let before = match connected.set_and_get(&self.name, number, CANARY_LIVES, deadline).await {
            Ok(before) => before,
            // It takes no writes now, or is too old to tell what was there: nothing is proved.
            Err(CommandError::Refused(..)) => return Ok(false),
            Err(fault) => return Err(fault),
        };
        let taken = self.taken.replace((number, Instant::now()));
        // Numbers without an answer may have been taken too, so a later one is fine.
        Ok(taken
            .is_some_and(|(taken, at)| at.elapsed() < CANARY_LIVES / 2 && before.is_none_or(|before| before < taken)))
    }
}

fn canary_name(prefix: &str) -> String {
    format!("{prefix}:canary:{}", random_id())
}

/// Without randomness it is shared with others, and a server that lost data may go unnoticed.
fn random_id() -> String {
    let mut id = [0; 8];
    let _ = getrandom::fill(&mut id);
    Hex::of(&id).to_string()
}

/// Writes the note if there is none, else reads it. What is left of its life tells how old it is.
async fn take_note(
    connected: &Connected,
    name: &str,
    note: &[u8],
    deadline: Instant,
) -> Result<Option<Vec<u8>>, CommandError> {
    let timeout = deadline.saturating_duration_since(Instant::now());
    match connected.acquire(&[name.as_bytes()], note, FOREVER, timeout).await {
        Ok(found) => Ok(found.map(Into::into)),
        Err(fault) if fault.is_elsewhere() => Err(fault),
        // It takes no writes (its memory is full, its disk is, its replicas are away) and may still serve replays.
        Err(CommandError::Refused(code, error)) => match connected.look(name, deadline).await? {
            Some(found) => Ok(Some(found.bytes.into())),
            None => Err(CommandError::Refused(code, error)),
        },
        Err(fault) => Err(fault),
    }
}

/// Asks what may be refused: managed servers hide such things.
async fn ask<T: FromRedisValue>(
    connected: &Connected,
    words: &[&str],
    deadline: Instant,
) -> Result<Option<T>, CommandError> {
    let mut question = redis::Cmd::new();
    question.arg(words);
    match connected.in_time(deadline, question.query_async(&mut connected.control.handle())).await {
        Ok(answer) => Ok(Some(answer)),
        Err(CommandError::Refused(..)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// One line of `INFO`.
fn field(info: &str, name: &str) -> Option<String> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
}
