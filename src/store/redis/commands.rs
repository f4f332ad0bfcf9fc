//! What is asked of the server: one function for each round trip. Those that every request needs are in [`super::hot`].

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use redis::{FromRedisValue, RedisError, RedisResult, Script, ScriptInvocation};
use tokio::time::Instant;

use super::body_connections::KeyedValue;
use super::connection::Connected;
use super::resp::CommandWriter;
use crate::record::codec::VERSION;
use crate::store::{FOREVER, StoreError};

/// Why a command has no result.
#[derive(Debug)]
pub(super) enum CommandError {
    /// The server says no, by this code: it was not carried out.
    Refused(String, RedisError),
    /// The connection broke: nobody knows.
    Lost(RedisError),
    /// The time is over: it may yet be carried out.
    Late,
    /// Too much waits to be written already: it was not sent.
    Full,
}

/// How a name is taken that nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcquireMethod {
    /// `SET NX GET`.
    Natively,
    /// By script: Redis before 7.0, and others like it.
    ByScript,
}

/// A value with what is left of its life.
#[derive(Debug)]
pub(super) struct ValueWithTtl {
    pub(super) bytes: Bytes,
    /// `None` if it does not end.
    pub(super) left: Option<Duration>,
}

/// The first bytes of a value with what is left of its life.
#[derive(Debug)]
pub(super) struct HeadWithTtl {
    /// `None` where something else lies.
    pub(super) head: Option<Bytes>,
    /// `None` if it does not end.
    pub(super) left: Option<Duration>,
}

/// What became of a takeover.
#[derive(Debug)]
pub(super) enum ReplaceResult {
    /// The new claim is written.
    Done,
    /// The owner, or somebody else, was there in the meantime: this is what they left.
    Changed(ValueWithTtl),
    /// There is nothing any more.
    Gone,
}

/// What must be there for an operator's change.
pub(super) struct ExpectedRecord {
    /// State, and token with attempt: see [`codec::identity`](crate::record::codec::identity).
    pub(super) identity: (u8, [u8; 20]),
    /// The most that may be left of its life.
    pub(super) at_most: Duration,
}

pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("acquire.lua")));
static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("look.lua")));
static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("replace.lua")));
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("renew.lua")));
pub(super) static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle.lua")));
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));
static PEEK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("peek.lua")));
static EXCHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("exchange.lua")));

/// The scripts that every connection makes sure of: an unknown one costs its first caller two more round trips.
pub(super) const SOURCES: [&str; 7] = [
    include_str!("acquire.lua"),
    include_str!("look.lua"),
    include_str!("replace.lua"),
    include_str!("renew.lua"),
    include_str!("settle.lua"),
    include_str!("release.lua"),
    include_str!("exchange.lua"),
];

/// `EVALSHA` of every one of them on a name of their own, in an order in which each comes to all of its commands; and of
/// the same commands by themselves. Nothing is left of it.
pub(super) fn rehearse(pipeline: &mut redis::Pipeline, name: &str) -> Vec<&'static str> {
    const LIVES: u64 = 60_000;
    // Version, state, flags, token and attempt: what scripts read of a record.
    let record = |state: u8, token: u8| [&[VERSION, state, 0, 0], &[token; 16][..], &[1, 0, 0, 0]].concat();
    let (first, second, settled) = (record(1, 1), record(1, 2), record(4, 2));
    let [body, waiting] = [":body", ":waiting"].map(|of_record| format!("{{{name}}}{of_record}"));
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
    let (lives, keys) = (lives.as_bytes(), [name]);
    run(&ACQUIRE, &keys, &[&first, lives]);
    run(&LOOK, &keys, &[]);
    run(&RENEW, &keys, &[&first, lives]);
    run(&REPLACE, &keys, &[&first, lives, &second, lives]);
    run(&SETTLE, &[name, &waiting], &[&settled, lives]);
    run(&EXCHANGE, &keys, &[b"4", &settled[4..], lives]);
    run(&ACQUIRE, &keys, &[&first, lives]);
    run(&RELEASE, &[name, &waiting], &[&first[4..20]]);
    told
}

impl Connected {
    /// Value and remaining life, read at one moment.
    pub(super) async fn look(&self, key: &str, deadline: Instant) -> Result<Option<ValueWithTtl>, CommandError> {
        Ok(living(self.invoke(&LOOK.key(key), deadline).await?))
    }

    /// Takes a claim over from an owner that has not stirred since it was `seen`.
    pub(super) async fn replace(
        &self,
        key: &str,
        seen: &ValueWithTtl,
        claim: &[u8],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<ReplaceResult, CommandError> {
        let mut script = REPLACE.key(key);
        script.arg(&seen.bytes[..]).arg(seen.left.map_or(0, millis)).arg(claim).arg(millis(time_to_live));
        let reply: Option<(Option<Bytes>, i64)> = self.invoke(&script, deadline).await?;
        Ok(match reply {
            None => ReplaceResult::Done,
            Some(there) => living(there).map_or(ReplaceResult::Gone, ReplaceResult::Changed),
        })
    }

    /// Makes an operator's change, or returns what is there instead.
    pub(super) async fn compare_and_swap(
        &self,
        key: &str,
        expected: &ExpectedRecord,
        to: Option<(Vec<u8>, Duration)>,
        deadline: Instant,
    ) -> Result<Option<Option<ValueWithTtl>>, CommandError> {
        let ExpectedRecord { identity: (state, owner), at_most } = expected;
        let mut script = EXCHANGE.key(key);
        script.arg(*state).arg(&owner[..]).arg(millis(*at_most));
        if let Some((record, time_to_live)) = to {
            script.arg(record).arg(millis(time_to_live));
        }
        let reply: Option<(Option<Bytes>, i64)> = self.invoke(&script, deadline).await?;
        Ok(reply.map(living))
    }

    /// Looks at some more of all the names there are: where to go on (0 at the end), and those that fit.
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

    /// The first bytes of these; nothing for those that are gone.
    pub(super) async fn peek(
        &self,
        keys: &[String],
        length: usize,
        deadline: Instant,
    ) -> Result<Vec<Option<HeadWithTtl>>, CommandError> {
        let mut script = PEEK.prepare_invoke();
        keys.iter().for_each(|key| {
            script.key(key);
        });
        script.arg(length);
        let told: Vec<(Option<Bytes>, i64)> =
            self.in_list(deadline, script.invoke_async(&mut self.lists.handle())).await?;
        let peeked = |(head, left): (Option<Bytes>, i64)| {
            let left = u64::try_from(left).ok().map(Duration::from_millis);
            HeadWithTtl { head, left }
        };
        Ok(told.into_iter().map(|told| (told.1 != GONE).then(|| peeked(told))).collect())
    }

    /// Writes a number, and returns the one that was there.
    pub(super) async fn set_and_get(
        &self,
        key: &str,
        number: u64,
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<Option<u64>, CommandError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(number).arg("GET").arg("PX").arg(millis(time_to_live));
        self.in_time(deadline, set.query_async(&mut self.control.handle())).await
    }

    /// Writes what stays, over whatever is there.
    pub(super) async fn put(
        &self,
        key: &str,
        value: &[u8],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(value).arg("PX").arg(millis(time_to_live));
        self.in_time(deadline, set.query_async(&mut self.control.handle())).await
    }

    /// What is left of the life of what lies there; `None` if it does not end, or is gone.
    pub(super) async fn left(&self, key: &str, deadline: Instant) -> Result<Option<Duration>, CommandError> {
        let mut pttl = redis::cmd("PTTL");
        pttl.arg(key);
        let left: i64 = self.in_time(deadline, pttl.query_async(&mut self.control.handle())).await?;
        Ok(u64::try_from(left).ok().map(Duration::from_millis))
    }

    /// Asks something over the connections that may be idle for long: a server with a `timeout` closes such a one. What
    /// becomes of it does not matter, and it is not waited for long: a list may be ahead of it.
    pub(super) async fn keep_alive(&self, prefix: &str) {
        const WAIT: Duration = Duration::from_millis(500);
        let (name, deadline) = (format!("{prefix}:digest-key"), Instant::now() + WAIT);
        let hot = self.hot.send(WAIT * 10, |out| drop(CommandWriter::begin(out, 2).word(b"GET").word(name.as_bytes())));
        let mut lists = self.lists.handle();
        let mut pttl = redis::cmd("PTTL");
        pttl.arg(&name);
        let lists = self.in_list(deadline, pttl.query_async::<i64>(&mut lists));
        // Opens one where there is none: all cores fall back to it where the server takes no more.
        let carrier = self.connections.get(&name, 0, deadline);
        let _ = tokio::join!(tokio::time::timeout_at(deadline, hot), lists, carrier);
    }

    /// Has what lies there live for so long.
    pub(super) async fn expire(
        &self,
        key: &str,
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        let mut pexpire = redis::cmd("PEXPIRE");
        pexpire.arg(key).arg(millis(time_to_live));
        self.in_time(deadline, pexpire.query_async(&mut self.control.handle())).await
    }

    /// Asks all of this at once. Each answer may be an error of its own.
    pub(super) async fn ask_all(
        &self,
        pipeline: &redis::Pipeline,
        deadline: Instant,
    ) -> Result<Vec<RedisResult<redis::Value>>, CommandError> {
        self.in_time(deadline, pipeline.query_async(&mut self.control.handle())).await
    }

    /// Writes chunks of a body.
    pub(super) async fn put_chunks(
        &self,
        chunks: &[KeyedValue],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        self.record_body_result(self.connections.set(chunks, millis(time_to_live), deadline).await)
    }

    /// Reads a chunk of about this length.
    pub(super) async fn chunk(&self, key: &str, length: u64, deadline: Instant) -> Result<Option<Bytes>, CommandError> {
        self.record_body_result(self.connections.get(key, length, deadline).await)
    }

    /// Has what lies there live for so long.
    pub(super) async fn expire_all(
        &self,
        keys: &[String],
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<(), CommandError> {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.cmd("PEXPIRE").arg(key).arg(millis(time_to_live)).ignore();
        }
        self.in_list(deadline, pipeline.query_async(&mut self.lists.handle())).await
    }

    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        deadline: Instant,
    ) -> Result<T, CommandError> {
        // One round trip; two more if the server lost its scripts since the connection was made.
        self.in_time(deadline, script.invoke_async(&mut self.control.handle())).await
    }

    /// Waits for one answer, and keeps an eye on the connection's health.
    pub(super) async fn in_time<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, CommandError> {
        let result = within(deadline, answer).await;
        self.record_result(result.as_ref().err());
        result
    }

    /// What became of a body says nothing of the connections that records go through, unless another server is to be asked.
    fn record_body_result<T>(&self, answer: Result<T, CommandError>) -> Result<T, CommandError> {
        if answer.as_ref().is_err_and(CommandError::is_elsewhere) {
            self.drop_it();
        }
        answer
    }

    /// The same for what may be large: that it is late says nothing of the connection that records go through.
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

impl CommandError {
    pub(super) fn of(error: RedisError) -> Self {
        // What has a code came from the server; all else is the connection, or an answer that makes no sense.
        match error.code().map(str::to_owned) {
            Some(code) => Self::Refused(code, error),
            None => Self::Lost(error),
        }
    }

    /// What an error of the server says: its whole line.
    pub(super) fn of_line(line: &[u8]) -> Self {
        match redis::parse_redis_value(line) {
            Ok(redis::Value::ServerError(error)) => Self::of(error.into()),
            Ok(_) => Self::Lost(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "unexpected answer"))),
            Err(error) => Self::Lost(error),
        }
    }

    /// Whether the name holds what no record is.
    pub(super) fn is_wrong_type(&self) -> bool {
        self.says("WRONGTYPE")
    }

    /// Whether the user may not do it.
    pub(super) fn is_permission(&self) -> bool {
        self.says("NOPERM") || self.says("can't run this command")
    }

    /// Whether another server may be the one to ask, as after a fail-over.
    pub(super) fn is_elsewhere(&self) -> bool {
        ["READONLY", "LOADING", "MASTERDOWN"].iter().any(|code| self.says(code))
    }

    /// Redis before 7.0 wraps what goes wrong in a script into an error of another code.
    pub(super) fn says(&self, word: &str) -> bool {
        matches!(self, Self::Refused(code, error)
            if code == word || code == "ERR" && error.detail().is_some_and(|detail| detail.contains(word)))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_, error) | Self::Lost(error) => error.fmt(f),
            Self::Late => f.write_str(LATE),
            Self::Full => f.write_str(FULL),
        }
    }
}

const LATE: &str = "Redis did not answer in time";
const FULL: &str = "Redis takes commands too slowly: too much waits to be written";

impl From<CommandError> for StoreError {
    fn from(fault: CommandError) -> Self {
        match fault {
            CommandError::Refused(_, error) => Self::Refused(Box::new(error)),
            CommandError::Lost(error) => Self::Uncertain(Box::new(error)),
            CommandError::Late => Self::Uncertain(LATE.into()),
            CommandError::Full => Self::Refused(FULL.into()),
        }
    }
}

/// What PTTL answers for a name under which nothing lies.
const GONE: i64 = -2;

fn living((bytes, left): (Option<Bytes>, i64)) -> Option<ValueWithTtl> {
    // PTTL answers -1 for what does not expire.
    let left = u64::try_from(left).ok().map(Duration::from_millis);
    bytes.map(|bytes| ValueWithTtl { bytes, left })
}

pub(super) fn strange() -> CommandError {
    CommandError::Lost(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "unexpected answer")))
}

pub(super) fn millis(duration: Duration) -> u64 {
    // `PX 0` is an error, and less than a millisecond is nothing to a record.
    duration.min(FOREVER).as_millis().max(1) as u64
}
