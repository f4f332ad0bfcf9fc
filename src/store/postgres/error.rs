//! What can be wrong with a PostgreSQL, and with one statement.

use std::io;
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::StoreError;

/// Why there is no connection to PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The first attempt is in progress.
    #[error("there is no connection to PostgreSQL yet")]
    NotYet,
    /// The connection was lost.
    #[error("the connection to PostgreSQL is lost")]
    Lost,
    /// The server does not reply.
    #[error("PostgreSQL did not answer within {0:?}")]
    Silent(Duration),
    /// The server cannot be reached.
    #[error("PostgreSQL cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The file with the password cannot be read.
    #[error("{0}")]
    PasswordFile(String),
    /// TLS fails.
    #[error("no TLS with PostgreSQL: {0}")]
    Tls(String),
    /// The server does not let this role in.
    #[error("PostgreSQL does not let this user in: {0} (store.url, store.password; pg_hba.conf of the server)")]
    Credentials(String),
    /// The server answers, and refuses.
    #[error("PostgreSQL refuses to work: {0}")]
    Refused(String),
    /// The server has no connection left, or none for this role.
    #[error(
        "PostgreSQL has too few connections for this user: {0}. A sidecar needs {needed} to start, and up to {most}: raise the \
         CONNECTION LIMIT of the role, or max_connections",
        needed = super::examine::LEAST_CONNECTIONS,
        most = super::examine::MOST_CONNECTIONS
    )]
    TooManyConnections(String),
    /// The server is a standby.
    #[error("no primary among {0}: standbys decide about no claims, and the primary is looked for again")]
    NoPrimary(String),
    /// The server was replaced by another one.
    #[error(
        "{server} is a primary of an older timeline ({found}) than was seen ({seen}): another server has taken its place, and \
         its claims count"
    )]
    OldTimeline {
        /// Host and port.
        server: String,
        /// Its timeline.
        found: u32,
        /// That of the last primary.
        seen: u32,
    },
    /// Sessions share connections to the server.
    #[error(
        "there is a pooler before PostgreSQL that shares connections between sessions (pool_mode = transaction or statement): \
         what a session sets for its claims would hold for others, and not for it. Name the server itself in store.url, or a \
         pool with pool_mode = session"
    )]
    Pooler,
    /// The server is too old.
    #[error("PostgreSQL {0} is too old: 14 or later is needed")]
    Version(String),
    /// Commits do not wait for the disk.
    #[error(
        "commits of PostgreSQL do not wait for its disk (synchronous_commit is {0}, and cannot be set to on): a claim that a \
         crash forgets runs twice"
    )]
    Asynchronous(String),
    /// There are no tables.
    #[error(
        "the tables are not there, and this user may not make them: run `onlyonce store init --sql --role ROLE | psql -d DATABASE` as one \
         who may, with the name of this user for ROLE"
    )]
    NoTables,
    /// There are no tables, and nobody has asked for them.
    #[error("the tables are not there yet: a start makes them, and so does `onlyonce store init`")]
    TablesToBeMade,
    /// Another version of the tables is there.
    #[error("the tables in the schema onlyonce are of version {0}, and this program works with version 1")]
    OtherTables(String),
    /// The role lacks rights.
    #[error("this user lacks rights in PostgreSQL: {}. `onlyonce store init --sql --role ROLE` prints them all", .0.join(", "))]
    Rights(Vec<String>),
    /// The store was used with a digest key that this sidecar does not have.
    #[error(
        "this store was used with another store.digest_key, and none is set: set it, or delete the row {0} of onlyonce.notes \
         to go on without the earlier records"
    )]
    DigestKeyWithheld(String),
    /// Another sidecar has replaced the digest key.
    #[error(
        "another sidecar has replaced the digest key of this store ({0} in onlyonce.notes) by that of its own \
         store.digest_key: this one claims nothing any more. Give all of them the same, and start this one again"
    )]
    DigestKeyReplaced(String),
    /// Something else is noted there.
    #[error("the row {0} of onlyonce.notes was not written by onlyonce")]
    NotOurs(String),
    /// No random bytes are available.
    #[error("there is no randomness to make a digest key of")]
    Randomness(#[source] getrandom::Error),
}

impl PostgresError {
    /// Whether a start is useless until somebody changes the configuration or the server.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pooler | Self::Version(_) | Self::Asynchronous(_) | Self::OtherTables(_) => true,
            Self::DigestKeyWithheld(_) | Self::NotOurs(_) => true,
            Self::NotYet
            | Self::Lost
            | Self::Silent(_)
            | Self::Unreachable(_)
            | Self::PasswordFile(_)
            | Self::Tls(_)
            | Self::Credentials(_)
            | Self::Refused(_)
            | Self::TooManyConnections(_)
            | Self::NoPrimary(_)
            | Self::OldTimeline { .. }
            | Self::NoTables
            | Self::TablesToBeMade
            | Self::Rights(_)
            | Self::DigestKeyReplaced(_)
            | Self::Randomness(_) => false,
        }
    }

    /// Whether the last attempt to open a connection has failed. A server that answers, and lacks something, is within
    /// reach. The same holds before the first attempt has ended.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Silent(_) | Self::Unreachable(_) | Self::PasswordFile(_) | Self::Tls(_) => true,
            Self::Credentials(_) | Self::Refused(_) | Self::TooManyConnections(_) => true,
            Self::NoPrimary(_) | Self::OldTimeline { .. } => true,
            Self::NotYet | Self::Lost | Self::Pooler | Self::Version(_) | Self::Asynchronous(_) => false,
            Self::NoTables | Self::TablesToBeMade | Self::OtherTables(_) => false,
            Self::Rights(_) | Self::Randomness(_) => false,
            Self::DigestKeyWithheld(_) | Self::DigestKeyReplaced(_) | Self::NotOurs(_) => false,
        }
    }

    /// Of an error while a session is opened or examined.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn of(error: Error) -> Self {
        let Some(fault) = error.as_db_error() else {
            if error.is_closed() {
                return Self::Lost;
            }
            let told = crate::store::causes(&error);
            // The library's own errors have no other mark than their text.
            return match told.as_str() {
                text if text.contains("does not support TLS") => Self::Tls(
                    "the server does not speak it: set ssl to on there, or write sslmode=disable in store.url"
                        .to_owned(),
                ),
                text if text.contains("authentication") || text.contains("password") => Self::Credentials(told),
                _ => Self::Unreachable(io::Error::other(told)),
            };
        };
        let told = text_of(fault);
        if *fault.code() == SqlState::INVALID_PASSWORD || *fault.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        {
            return Self::Credentials(told);
        }
        if *fault.code() == SqlState::TOO_MANY_CONNECTIONS {
            return Self::TooManyConnections(told);
        }
        Self::Refused(told)
    }
}

/// Without details: they may quote values.
fn text_of(fault: &DbError) -> String {
    format!("{} ({})", fault.message(), fault.code().code())
}

/// What became of a statement that has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatementError {
    /// The session was closed before; nothing was sent.
    #[error("the connection to PostgreSQL is lost")]
    NotSent,
    /// The server has rolled it back.
    #[error("{0}")]
    Refused(String, SqlState),
    /// The connection ended, and the statement may have been committed, or still be.
    #[error("the connection to PostgreSQL is lost: {0}")]
    Lost(String),
    /// The same; the connection was dropped because no answer came in time.
    #[error("PostgreSQL did not answer in time")]
    Late,
    /// The server's answer is none that the statement has.
    #[error("PostgreSQL answered something else: {0}")]
    Strange(String),
}

impl StatementError {
    /// A server ends a transaction that fails with an error, and never commits it. It ends a session with a fatal one, which
    /// can come after a commit.
    pub(super) fn of(error: &Error) -> Self {
        match error.as_db_error() {
            Some(fault) if fault.parsed_severity() == Some(Severity::Error) => {
                Self::Refused(text_of(fault), fault.code().clone())
            }
            Some(fault) => Self::Lost(text_of(fault)),
            None => Self::Lost(crate::store::causes(error)),
        }
    }

    /// Of a value that is of another type than the statement's.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn strange(error: Error) -> Self {
        Self::Strange(error.to_string())
    }

    /// Whether the server is not, or not any more, one that works as this session expects.
    pub(super) fn is_about_session(&self) -> bool {
        let Self::Refused(_, code) = self else { return false };
        [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SCHEMA_NAME,
        ]
        .contains(code)
    }

    /// Whether the server takes no write now, not even a renewal: it may be a standby, or have no room.
    pub(super) fn refuses_renewals(&self) -> bool {
        // The classes of insufficient resources and of errors of the system.
        matches!(self, Self::Refused(_, code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION
            || ["53", "58"].iter().any(|class| code.code().starts_with(class)))
    }

    /// Whether no partition is there for a row.
    pub(super) fn is_no_partition(&self) -> bool {
        matches!(self, Self::Refused(_, code) if *code == SqlState::CHECK_VIOLATION)
    }
}

impl From<StatementError> for StoreError {
    fn from(fault: StatementError) -> Self {
        match fault {
            StatementError::NotSent | StatementError::Refused(..) => Self::Refused(fault.into()),
            StatementError::Lost(_) | StatementError::Late | StatementError::Strange(_) => {
                Self::Uncertain(fault.into())
            }
        }
    }
}
