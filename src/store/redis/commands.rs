//! Commands to the server: one function for each round trip. The commands of requests are in [`super::hot`].

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult, Script, ToRedisArgs, Value};
use tokio::time::Instant;

use super::body_connections::KeyedValue;
use super::command_error::CommandError;
use super::connected::{Connected, ServerDuty};
use super::notify::sign_of;
use super::resp::CommandWriter;
use crate::record::codec::VERSION;
use crate::store::FOREVER;

/// A value with its remaining time to live.
#[derive(Debug)]
pub(super) struct ValueWithTtl {
    pub(super) bytes: Bytes,
    /// `None` if it does not expire.
    pub(super) left: Option<Duration>,
}

/// The first bytes of a value with its remaining time to live.
#[derive(Debug)]
pub(super) struct HeadWithTtl {
    /// `None` if the value under this name is not a string.
    pub(super) head: Option<Bytes>,
    /// `None` if it does not expire.
    pub(super) left: Option<Duration>,
}

/// The result of a takeover.
#[derive(Debug)]
pub(super) enum ReplaceResult {
    /// The new claim is written.
    Done,
    /// The value changed in the meantime. This is the new value.
    Changed(ValueWithTtl),
    /// There is no value any more.
    Gone,
}

/// The record that a compare-and-swap expects.
pub(super) struct ExpectedRecord {
    /// The state, and the token with the attempt: see [`codec::identity`](crate::record::codec::identity).
    pub(super) identity: (u8, [u8; 20]),
    /// The longest remaining time to live that is accepted.
    pub(super) at_most: Duration,
}

pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("acquire.lua")));
static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("look.lua")));
static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("replace.lua")));
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("renew.lua")));
pub(super) static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle.lua")));
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));
static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("exchange.lua")));

/// The scripts that each connection loads. An unknown script costs its first caller two more round trips.
pub(super) const SOURCES: [&str; 7] = [
    include_str!("acquire.lua"),
    include_str!("look.lua"),
    include_str!("replace.lua"),
    include_str!("renew.lua"),
    include_str!("settle.lua"),
    include_str!("release.lua"),
    include_str!("exchange.lua"),
];

/// Adds `EVALSHA` of every script on a probe name, and the same commands directly. The order makes each script execute
/// all of its commands. Nothing remains of them.
pub(super) fn rehearse(pipeline: &mut redis::Pipeline, name: &str, duty: ServerDuty) -> Vec<&'static str> {
    const LIVES: u64 = 60_000;
    // Version, state, flags, token and attempt: the part of a record that scripts read.
    let record = |state: u8, token: u8| [&[VERSION, state, 0, 0], &[token; 16][..], &[1, 0, 0, 0]].concat();
    let (first, second, settled) = (record(1, 1), record(1, 2), record(4, 2));
    let (body, waiting) = (format!("{{{name}}}:body"), sign_of(name));
    let mut told = Vec::new();
    let mut add = |what: &'static str, command: &mut redis::Cmd| {
        pipeline.add_command(command.clone());
        told.push(what);
    };
    add("SET", redis::cmd("SET").arg(name).arg(&first).arg("NX").arg("GET").arg("PX").arg(LIVES));
    add("SET", redis::cmd("SET").arg(&body).arg("").arg("PX").arg(LIVES));
    add("GET", redis::cmd("GET").arg(name));
    add("PTTL", redis::cmd("PTTL").arg(name));
    add("PEXPIRE", redis::cmd("PEXPIRE").arg(&body).arg(1));
    add("DEL", redis::cmd("DEL").arg(name));
    let mut run = |script: &Script, keys: &[&str], arguments: &[&[u8]]| {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys).arg(arguments);
        add("EVALSHA", &mut command);
    };
    let lives = LIVES.to_string();
    let (lives, keys, with_sign) = (lives.as_bytes(), [name], [name, &waiting]);
    // In a cluster, scripts derive the name of the sign themselves.
    let signs = if duty == ServerDuty::Alone { 2 } else { 1 };
    run(&ACQUIRE, &keys, &[&first, lives]);
    run(&LOOK, &keys, &[]);
    run(&RENEW, &keys, &[&first, lives]);
    run(&REPLACE, &keys, &[&first, lives, &second, lives]);
    run(&SETTLE, &with_sign[..signs], &[&settled, lives]);
    run(&EXCHANGE, &with_sign[..signs], &[b"4", &settled[4..], lives]);
    run(&ACQUIRE, &keys, &[&first, lives]);
    run(&RELEASE, &with_sign[..signs], &[&first[4..20]]);
    told
}

impl Connected {
    /// The value and its remaining time to live, read atomically.
    pub(super) async fn look(&self, key: &str, deadline: Instant) -> Result<Option<ValueWithTtl>, CommandError> {
        Ok(living(self.invoke(&LOOK, &evalsha(&LOOK, &[key]), deadline).await?))
    }

    /// Takes over a claim, if the record is unchanged since it was `seen`.
    pub(super) async fn replace(
        &self,
        key: &str,
        seen: &ValueWithTtl,
        claim: &[u8],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<ReplaceResult, CommandError> {
        let mut command = evalsha(&REPLACE, &[key]);
        command
            .arg(&seen.bytes[..])
            .arg(seen.left.map_or(0, nonzero_millis))
            .arg(claim)
            .arg(nonzero_millis(time_to_live));
        let reply: Option<(Option<Bytes>, i64)> = self.invoke(&REPLACE, &command, deadline).await?;
        Ok(match reply {
            None => ReplaceResult::Done,
            Some(there) => living(there).map_or(ReplaceResult::Gone, ReplaceResult::Changed),
        })
    }

    /// Replaces or deletes the record, if it is as expected. If it is not, returns what is there instead.
    pub(super) async fn compare_and_swap(
        &self,
        key: &str,
        expected: &ExpectedRecord,
        to: Option<(Vec<u8>, Duration)>,
        deadline: Instant,
    ) -> Result<Option<Option<ValueWithTtl>>, CommandError> {
        let ExpectedRecord { identity: (state, owner), at_most } = expected;
        let sign = sign_of(key);
        let mut command = match self.duty {
            ServerDuty::Alone => evalsha(&EXCHANGE, &[key, &sign]),
            ServerDuty::Node | ServerDuty::Importing => evalsha(&EXCHANGE, &[key]),
        };
        command.arg(*state).arg(&owner[..]).arg(nonzero_millis(*at_most));
        if let Some((record, time_to_live)) = to {
            command.arg(record).arg(nonzero_millis(time_to_live));
        }
        let reply: Option<(Option<Bytes>, i64)> = self.invoke(&EXCHANGE, &command, deadline).await?;
        Ok(reply.map(living))
    }

    /// Scans more of all names. Returns the next cursor (0 at the end) and the names that match.
    pub(super) async fn scan(
        &self,
        cursor: u64,
        pattern: &str,
        count: usize,
        deadline: Instant,
    ) -> Result<(u64, Vec<Vec<u8>>), CommandError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
        self.in_list(deadline, scan.query_async(&mut self.lists.handle())).await
    }

    /// The first bytes of these values; `None` for a name that is gone.
    pub(super) async fn peek(
        &self,
        keys: &[String],
        length: usize,
        deadline: Instant,
    ) -> Result<Vec<Option<HeadWithTtl>>, CommandError> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for key in keys {
            pipeline.cmd("GETRANGE").arg(key).arg(0).arg(length.saturating_sub(1));
            pipeline.cmd("PTTL").arg(key);
        }
        let told: Vec<RedisResult<Value>> =
            self.in_list(deadline, pipeline.query_async(&mut self.lists.handle())).await?;
        let mut told = told.into_iter();
        let mut peeked = Vec::with_capacity(keys.len());
        while let (Some(head), Some(left)) = (told.next(), told.next()) {
            peeked.push(head_with_ttl(head, left)?);
        }
        Ok(peeked)
    }

    /// Writes a number, and returns the previous one.
    pub(super) async fn set_and_get(
        &self,
        key: &str,
        number: u64,
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<Option<u64>, CommandError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(number).arg("GET").arg("PX").arg(nonzero_millis(time_to_live));
        self.query(&set, deadline).await
    }

    /// Writes a value, whatever was there.
    pub(super) async fn put(
        &self,
        key: &str,
        value: &[u8],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(value).arg("PX").arg(nonzero_millis(time_to_live));
        self.query(&set, deadline).await
    }

    /// The remaining time to live of a name. `None` if it does not expire, or does not exist.
    pub(super) async fn left(&self, key: &str, deadline: Instant) -> Result<Option<Duration>, CommandError> {
        let mut pttl = redis::cmd("PTTL");
        pttl.arg(key);
        let left: i64 = self.query(&pttl, deadline).await?;
        Ok(u64::try_from(left).ok().map(Duration::from_millis))
    }

    /// Sends a command on each connection that may be idle for long, because a server with a `timeout` closes idle
    /// connections. The results are ignored. The wait is short, because a list may be ahead of the command.
    pub(super) async fn keep_alive(&self, name: &str) {
        const WAIT: Duration = Duration::from_millis(500);
        let deadline = Instant::now() + WAIT;
        let get = |out: &mut Vec<u8>| drop(CommandWriter::begin(out, 2).word(b"GET").word(name.as_bytes()));
        let hot = self.hot.send(WAIT * 10, false, get);
        let mut lists = self.lists.handle();
        let mut pttl = redis::cmd("PTTL");
        pttl.arg(name);
        let lists = self.in_list(deadline, pttl.query_async::<i64>(&mut lists));
        let acks = async {
            if let Some(write_acks) = &self.write_acks {
                let _ = self.in_list(deadline, pttl.query_async::<i64>(&mut write_acks.handle())).await;
            }
        };
        // This opens a connection if there is none. All cores fall back to it if the server accepts no more.
        let carrier = self.connections.get(name, 0, false, deadline);
        let _ = tokio::join!(tokio::time::timeout_at(deadline, hot), lists, acks, carrier);
    }

    /// Sets the time to live of a name.
    pub(super) async fn expire(
        &self,
        key: &str,
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        let mut pexpire = redis::cmd("PEXPIRE");
        pexpire.arg(key).arg(nonzero_millis(time_to_live));
        self.query(&pexpire, deadline).await
    }

    /// Sends all of these commands at once. Each reply may be its own error.
    pub(super) async fn ask_all(
        &self,
        pipeline: &redis::Pipeline,
        deadline: Instant,
    ) -> Result<Vec<RedisResult<redis::Value>>, CommandError> {
        self.in_time(deadline, pipeline.query_async(&mut self.control.handle())).await
    }

    /// Writes chunks of a body. Returns the chunks that the server refuses, with the reason.
    pub(super) async fn put_chunks(
        &self,
        chunks: &[KeyedValue],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<Vec<(usize, CommandError)>, CommandError> {
        let refused = self.connections.set(chunks, nonzero_millis(time_to_live), self.is_importing(), deadline).await?;
        if refused.iter().any(|(_, fault)| fault.is_elsewhere()) {
            self.drop_it();
        }
        Ok(refused)
    }

    /// Reads a chunk of about this length.
    pub(super) async fn chunk(&self, key: &str, length: u64, deadline: Instant) -> Result<Option<Bytes>, CommandError> {
        self.record_body_result(self.connections.get(key, length, self.is_importing(), deadline).await)
    }

    /// Sets the time to live of these names.
    pub(super) async fn expire_all(
        &self,
        keys: &[String],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.cmd("PEXPIRE").arg(key).arg(nonzero_millis(time_to_live)).ignore();
        }
        self.in_list(deadline, pipeline.query_async(&mut self.lists.handle())).await
    }

    /// Whether the command is for a slot that is being moved to this node.
    pub(super) fn is_importing(&self) -> bool {
        self.duty == ServerDuty::Importing
    }

    /// Runs the script that `command` names, in one round trip. It takes two more if the server lost its scripts since
    /// the connection was opened.
    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        script: &Script,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, CommandError> {
        let asking = async {
            let answer = self.ask(command).await;
            if !answer.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
                return answer;
            }
            let _: String = script.load_async(&mut self.control.handle()).await?;
            self.ask(command).await
        };
        let answer = self.in_time(deadline, asking).await?;
        redis::from_redis_value(answer).map_err(|error| CommandError::Lost(error.into()))
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd, deadline: Instant) -> Result<T, CommandError> {
        let answer = self.in_time(deadline, self.ask(command)).await?;
        redis::from_redis_value(answer).map_err(|error| CommandError::Lost(error.into()))
    }

    async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        let mut control = self.control.handle();
        if !self.is_importing() {
            return command.query_async(&mut control).await;
        }
        // Both commands are sent in one pipeline, so no other command can come between them.
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors().cmd("ASKING").add_command(command.clone());
        let answers: Vec<RedisResult<Value>> = pipeline.query_async(&mut control).await?;
        answers.into_iter().next_back().unwrap_or_else(|| Err(no_answer()))
    }

    /// Waits for one reply, and updates the state of the connection.
    pub(super) async fn in_time<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, CommandError> {
        let result = within(deadline, answer).await;
        self.record_result(result.as_ref().err());
        result
    }

    /// Returns a result about a body. It does not affect the connections for records, unless another server must be
    /// asked.
    fn record_body_result<T>(&self, answer: Result<T, CommandError>) -> Result<T, CommandError> {
        if answer.as_ref().is_err_and(CommandError::is_elsewhere) {
            self.drop_it();
        }
        answer
    }

    /// The same for replies that may be large. If such a reply is late, this says nothing about the connection for
    /// records.
    async fn in_list<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, CommandError> {
        let result = within(deadline, answer).await;
        if let Err(fault) = &result
            && !matches!(fault, CommandError::Late)
        {
            self.record_result(Some(fault));
        }
        result
    }
}

async fn within<T>(deadline: Instant, answer: impl Future<Output = RedisResult<T>>) -> Result<T, CommandError> {
    match tokio::time::timeout_at(deadline, answer).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(CommandError::of(error)),
        Err(_) => Err(CommandError::Late),
    }
}

/// `EVALSHA` of a script on these keys. The arguments follow.
pub(super) fn evalsha(script: &Script, keys: &[impl ToRedisArgs]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(keys.len()).arg(keys);
    command
}

/// The reply of `PTTL` for a name that does not exist.
const GONE: i64 = -2;

fn head_with_ttl(head: RedisResult<Value>, left: RedisResult<Value>) -> Result<Option<HeadWithTtl>, CommandError> {
    let left = match left.map_err(CommandError::of) {
        Ok(left) => redis::from_redis_value::<i64>(left).map_err(|_| strange())?,
        // A list of all nodes reaches the record on its new node later.
        Err(fault) if fault.is_elsewhere_in_cluster() => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let head = match head.map_err(CommandError::of) {
        Ok(head) => Some(redis::from_redis_value::<Bytes>(head).map_err(|_| strange())?),
        Err(fault) if fault.is_wrong_type() => None,
        Err(fault) if fault.is_elsewhere_in_cluster() => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let left_of_life = u64::try_from(left).ok().map(Duration::from_millis);
    // The value may have been read just before it expired.
    Ok((left != GONE).then_some(HeadWithTtl { head, left: left_of_life }))
}

fn no_answer() -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no answer"))
}

fn living((bytes, left): (Option<Bytes>, i64)) -> Option<ValueWithTtl> {
    // `PTTL` replies -1 for a value that does not expire.
    let left = u64::try_from(left).ok().map(Duration::from_millis);
    bytes.map(|bytes| ValueWithTtl { bytes, left })
}

pub(super) fn strange() -> CommandError {
    CommandError::Lost(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "unexpected answer")))
}

pub(super) fn nonzero_millis(duration: Duration) -> u64 {
    // `PX 0` is an error. Rounding up to a millisecond does not matter for a record.
    duration.min(FOREVER).as_millis().max(1) as u64
}
