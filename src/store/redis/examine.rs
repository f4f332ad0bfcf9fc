//! Examines a server at each connect, and reports problems.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult, Value};
use tokio::time::Instant;

use super::ConnectionOptions;
use super::acl::AclRule;
use super::canary::random_id;
use super::command_error::CommandError;
use super::commands;
use super::connect_error::ConnectError;
use super::connected::{AcquireMethod, Connected, ServerDuty};
use super::disk_wait::DiskWait;
use super::facts::{NO_EVICTION, ServerFacts};
use super::finding::ServerFinding;
use super::link::Link;
use super::stream::Dialer;
use super::write_acks::RequiredAcks;
use crate::config::{self, StoreEndpoint};
use crate::store::SHORT;
use crate::store::store_state::StoreState;

/// Examines a server, and remembers which warnings were logged for the last one.
pub(super) struct ServerExaminer {
    state: Arc<StoreState>,
    duty: ServerDuty,
    prefix: String,
    /// The start of the names on which the necessary commands are tried.
    rehearsal: String,
    accept_eviction: bool,
    acks: Option<RequiredAcks>,
    /// The time limit of a call.
    timeout: Duration,
    /// For messages about permissions.
    rule: AclRule,
    /// For tests: treats the server as if it had no `SET NX GET`.
    scripts_only: bool,
    said: LoggedWarnings,
    /// The run ID of the server that was examined last.
    run_id: Option<String>,
}

#[derive(Default)]
struct LoggedWarnings {
    eviction_unknown: bool,
    not_persisted: bool,
    late_on_disk: bool,
    no_info: bool,
    /// `CONFIG` is not permitted: it is not asked again and again.
    no_settings: bool,
    evicting: bool,
    short: bool,
    /// The number of keys that the server had evicted at the last look.
    evicted: Option<u64>,
}

/// In a cluster, the slot of the probe's name may be moving to another node. Then another name is tried.
const NAMES_TRIED: usize = 3;

impl ServerExaminer {
    pub(super) fn new(
        config: &config::StoreConfig,
        state: Arc<StoreState>,
        duty: ServerDuty,
        options: ConnectionOptions,
    ) -> Self {
        Self {
            state,
            duty,
            rehearsal: format!("{}:probe:{}", config.prefix, random_id()),
            prefix: config.prefix.clone(),
            accept_eviction: config.accept_eviction,
            acks: RequiredAcks::of(config),
            timeout: config.timeout,
            rule: AclRule { is_node: duty != ServerDuty::Alone, ..AclRule::of(config) },
            scripts_only: options.scripts_only,
            said: LoggedWarnings::default(),
            run_id: None,
        }
    }

    pub(super) fn duty(&self) -> ServerDuty {
        self.duty
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The run ID of the server that was examined last.
    pub(super) fn run_id(&self) -> Option<&str> {
        self.run_id.as_deref()
    }

    /// Finds out whether the server can be used, and how. It takes one round trip, because the server may be far away. In
    /// a cluster, it takes one more for each name whose slot is moving.
    pub(super) async fn examine(
        &mut self,
        connected: &mut Connected,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let mut skip = 0;
        let (tried, answers) = loop {
            let mut pipeline = ServerFacts::questions(true);
            for source in commands::SOURCES {
                pipeline.cmd("SCRIPT").arg("LOAD").arg(source);
            }
            let tried = match self.duty {
                ServerDuty::Alone | ServerDuty::Node => {
                    commands::rehearse(&mut pipeline, &link.names.name(&self.rehearsal, skip), self.duty)
                }
                // A node without slots refuses every name, unless that is in the slot that it gets.
                ServerDuty::Importing => Vec::new(),
            };
            let answers = connected.ask_all(&pipeline, deadline).await.map_err(|fault| self.of(fault))?;
            skip += 1;
            if self.duty == ServerDuty::Alone || skip >= NAMES_TRIED || redirect(&answers).is_none() {
                break (tried, answers);
            }
        };
        let (facts, rest) = answers.split_at(ServerFacts::QUESTIONS.min(answers.len()));
        let (loads, rehearsed) = rest.split_at(commands::SOURCES.len().min(rest.len()));
        self.said.no_info = facts.first().is_none_or(RedisResult::is_err);
        self.said.no_settings = facts.last().is_none_or(RedisResult::is_err);

        let facts = ServerFacts::of(facts);
        self.run_id.clone_from(&facts.run_id);
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
        let tried = std::iter::repeat_n("SCRIPT LOAD", loads.len()).chain(tried);
        if let Some(error) = redirect(rehearsed) {
            let server = connected.endpoint.to_string();
            return Err(match error.code() {
                _ if self.duty == ServerDuty::Alone => self.of(CommandError::of(error.clone())),
                // The slot still belongs to this node, which is a primary within reach.
                Some("ASK") => ConnectError::SlotsMoving { server },
                // The slot of the probe's name does not belong to this node any more.
                _ => ConnectError::NotPrimary { server },
            });
        }
        self.has_all(tried.zip(loads.iter().chain(rehearsed)))?;
        // A replica refuses all later writes too.
        if let Some(Err(error)) = rehearsed.iter().find(|answer| is_read_only(answer)) {
            return Err(ConnectError::Refused(error.clone()));
        }
        // What was not tried is not used.
        let knows_get = rehearsed.first().is_some_and(|first| !first.as_ref().is_err_and(is_syntax));
        connected.acquire =
            if knows_get && !self.scripts_only { AcquireMethod::Natively } else { AcquireMethod::ByScript };
        self.note_facts(&facts, link);
        link.set_findings(self.findings(&facts, connected));
        Ok(())
    }

    /// Findings for an operator about a server that can be used.
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
        let Some(acks) = self.acks else { return findings };
        match (acks.replicas, facts.replicas) {
            (0, _) => {}
            (acks, Some(there)) if there < acks => {
                let asked = count(acks);
                add("replicas", format!("too few: store.replica_acks asks for {asked}, so that claims get 503"));
            }
            (acks, _) => add("replicas", format!("store.replica_acks asks for {}", count(acks))),
        }
        if let Some(wait) = self.disk_wait(facts) {
            add("fsync", wait.to_string());
        }
        findings
    }

    /// `None` if nothing waits for the disk.
    fn disk_wait(&self, facts: &ServerFacts) -> Option<DiskWait> {
        let on_disk = self.acks.is_some_and(|acks| acks.on_disk);
        on_disk.then(|| DiskWait::of(facts.append_fsync.as_deref(), self.timeout))
    }

    /// Reads again the values that an operator or time may change.
    pub(super) async fn look(
        &mut self,
        connected: &Connected,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let answers = connected
            .ask_all(&ServerFacts::questions(!self.said.no_settings), deadline)
            .await
            .map_err(|fault| self.of(fault))?;
        let facts = ServerFacts::of(&answers);
        self.note_facts(&facts, link);
        link.set_findings(self.findings(&facts, connected));
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
        if !facts.persists && !self.said.not_persisted {
            tracing::warn!(
                "Redis persists nothing: when it restarts, all records are gone, and their operations run again"
            );
        }
        self.said.not_persisted = !facts.persists;
        let late = self.disk_wait(facts).filter(DiskWait::is_too_long);
        if let Some(wait) = &late
            && !self.said.late_on_disk
        {
            tracing::warn!(fsync = %wait, "Redis writes to its disk too late for store.fsync_acks");
        }
        self.said.late_on_disk = late.is_some();
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
            self.state.count_loss();
            tracing::error!(
                evicted = now - before,
                "Redis has evicted keys: where records are among them, their operations run again when they are repeated"
            );
        }
    }

    /// Refuses a server if a reply says that a command does not exist or is not permitted.
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
                rule: self.rule.to_string(),
                source: source.clone(),
            }),
        }
    }

    pub(super) fn of(&self, fault: CommandError) -> ConnectError {
        ConnectError::of(fault, || self.rule.to_string())
    }

    /// Why a server cannot give these acknowledgements.
    pub(super) fn without_acks(
        &self,
        acks: RequiredAcks,
        error: RedisError,
        endpoint: &StoreEndpoint,
        dialer: &Dialer,
    ) -> ConnectError {
        let says = |text: &str| error.detail().is_some_and(|detail| detail.contains(text));
        match error.code() {
            Some("ERR") if acks.on_disk && says("unknown command") => ConnectError::NoWaitAof(error),
            code if code == Some("NOPERM") || says("unknown command") => {
                let (missing, rule) = (acks.command_name().to_owned(), self.rule.to_string());
                ConnectError::Permission { missing, rule, source: error }
            }
            Some("ERR") if says("appendonly") => ConnectError::NoAppendOnlyFile(error),
            Some("ERR") if says("replica") => ConnectError::NotPrimary { server: endpoint.to_string() },
            _ => ConnectError::of_opening(error, dialer),
        }
    }
}

/// What is missing, if the error says that something is.
fn lacking(what: &'static str, error: &RedisError) -> Option<&'static str> {
    let says = error.to_string();
    let is_refused = |text: &str| says.contains(text);
    if ["access one of the keys", "access at least one of the keys", "access a key"].into_iter().any(is_refused) {
        return Some("access to its names");
    }
    if error.code() == Some("NOPERM") && is_refused("evalsha") || is_refused("unknown command") {
        return Some(what);
    }
    // For a script, Redis 7 sends the same error as for a command. Older versions wrap the command's error in the
    // script's error.
    let in_script = ["can't run this command", "Unknown Redis command", "from script"].into_iter().any(is_refused);
    match (error.code() == Some("NOPERM") || in_script, what) {
        (false, _) => None,
        (true, "EVALSHA") => Some("a command that its scripts call"),
        (true, what) => Some(what),
    }
}

/// The redirect among these replies, if there is one: `MOVED` before `ASK`.
fn redirect(answers: &[RedisResult<Value>]) -> Option<&RedisError> {
    let with =
        |code| answers.iter().filter_map(|answer| answer.as_ref().err()).find(|error| error.code() == Some(code));
    with("MOVED").or_else(|| with("ASK"))
}

fn is_read_only(answer: &RedisResult<Value>) -> bool {
    answer.as_ref().is_err_and(|error| error.code() == Some("READONLY"))
}

fn is_syntax(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("syntax error"))
}
