//! Why a command has no result, and what may be concluded from it.

use std::fmt;

use redis::RedisError;

use crate::store::StoreError;

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

    /// Whether the node of a cluster has done nothing, and says which other is to be asked, if it knows one.
    pub(super) fn is_elsewhere_in_cluster(&self) -> bool {
        ["MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN"].iter().any(|code| self.says(code))
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
