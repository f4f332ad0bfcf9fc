//! Why a command has no result, and what follows from that.

use std::fmt;

use redis::RedisError;

use crate::store::StoreError;

/// Why a command has no result.
#[derive(Debug)]
pub(super) enum CommandError {
    /// The server refused the command with this code. It was not executed.
    Refused(String, RedisError),
    /// The connection broke. The result is unknown.
    Lost(RedisError),
    /// The time is over. The command may still be executed.
    Late,
    /// Too many bytes wait to be written. The command was not sent.
    Full,
}

impl CommandError {
    pub(super) fn of(error: RedisError) -> Self {
        // An error with a code is from the server. Any other error is from the connection, or is an invalid reply.
        match error.code().map(str::to_owned) {
            Some(code) => Self::Refused(code, error),
            None => Self::Lost(error),
        }
    }

    /// Parses the whole line of a server's error.
    pub(super) fn of_line(line: &[u8]) -> Self {
        match redis::parse_redis_value(line) {
            Ok(redis::Value::ServerError(error)) => Self::of(error.into()),
            Ok(_) => Self::Lost(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "unexpected answer"))),
            Err(error) => Self::Lost(error),
        }
    }

    /// Whether the value under this name has a type that no record has.
    pub(super) fn is_wrong_type(&self) -> bool {
        self.says("WRONGTYPE")
    }

    /// Whether the user lacks a permission.
    pub(super) fn is_permission(&self) -> bool {
        self.says("NOPERM") || self.says("can't run this command")
    }

    /// Whether another server may be the right one, as after a failover.
    pub(super) fn is_elsewhere(&self) -> bool {
        ["READONLY", "LOADING", "MASTERDOWN"].iter().any(|code| self.says(code))
    }

    /// Whether another server may be the primary by now. It may lack what this one has.
    pub(super) fn may_be_of_former_primary(&self) -> bool {
        // A primary that has lost its replicas may be cut off.
        self.is_elsewhere() || self.says("NOREPLICAS")
    }

    /// Whether the server takes no write now, not even a renewal. A full server takes renewals.
    pub(super) fn refuses_renewals(&self) -> bool {
        self.may_be_of_former_primary() || ["MISCONF", "CLUSTERDOWN"].iter().any(|code| self.says(code))
    }

    /// Whether a cluster node has not executed the command. It names the right node if it knows it.
    pub(super) fn is_elsewhere_in_cluster(&self) -> bool {
        ["MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN"].iter().any(|code| self.says(code))
    }

    /// Whether the error has this code. Redis before 7.0 wraps a script's error in an error with another code.
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
