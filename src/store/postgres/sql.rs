//! The statements. Each is a transaction of its own, so no caller ever holds a lock while it waits for anything else.
//!
//! What makes them safe is said once here, and named at each statement:
//!
//! - **unique**: `PRIMARY KEY (name)` on one table that is not partitioned. Two sessions that insert one name cannot both
//!   succeed; the second waits for the first to end, and meets its row.
//! - **locked**: `INSERT … ON CONFLICT DO UPDATE … WHERE` and `UPDATE … WHERE` lock the row, wait for whoever else has
//!   locked it, and judge the condition on the *latest* committed version of it, under READ COMMITTED (which every session
//!   sets). So of several that meet one version of a row, one changes it, and the condition of the others fails.
//! - **server time**: `clock_timestamp()` is read when the expression is evaluated, thus under the lock. The clock of no
//!   sidecar decides anything.
//!
//! An expired row counts as absent, whether it was deleted or not.
//!
//! State and owner are read from the record's own bytes, at the offsets of its layout ([`crate::record::codec`]): 1 and 2
//! are version and state, 5 to 20 the token, and four more the attempt. There is no second copy that could differ.

use tokio_postgres::{Client, Error, Statement};

/// The columns of a time to live: `$3` milliseconds from now, and the hour after which the row may be deleted. That hour is
/// what is indexed: it hardly ever changes in the life of a record, so that updates need not touch the indexes (HOT).
macro_rules! at {
    () => {
        "(SELECT clock_timestamp() + $3::float8 * interval '1 millisecond' AS at) AS t"
    };
}
macro_rules! hour {
    () => {
        "ceil(extract(epoch FROM t.at) / 3600)::integer"
    };
}

/// Claims a name, or returns the record that is there. One round trip either way.
///
/// Granted: by *unique*, or, for a row that is expired, by *locked*. Refused: there was a record when the statement began;
/// nothing was written, so that a replay writes nothing and waits for no disk. Neither, which is no row at all: somebody
/// else's claim was committed since; the caller reads it with [`READ`].
const CLAIM: &str = concat!(
    "WITH held AS MATERIALIZED (
       SELECT record, expires_at FROM onlyonce.records WHERE name = $1::text AND expires_at > clock_timestamp()
     ), granted AS (
       INSERT INTO onlyonce.records AS r (name, record, expires_at, sweep_hour)
       SELECT $1::text, $2::bytea, t.at, ",
    hour!(),
    " FROM ",
    at!(),
    " WHERE NOT EXISTS (SELECT FROM held)
       ON CONFLICT (name) DO UPDATE
         SET record = excluded.record, expires_at = excluded.expires_at, sweep_hour = excluded.sweep_hour, body_at = NULL
         WHERE r.expires_at <= clock_timestamp()
       RETURNING 1
     )
     SELECT NULL::bytea, NULL::timestamptz, clock_timestamp() FROM granted
     UNION ALL SELECT record, expires_at, clock_timestamp() FROM held"
);

/// The record, when it expires, and what time it is.
const READ: &str = "SELECT record, expires_at, clock_timestamp() FROM onlyonce.records
                    WHERE name = $1 AND expires_at > clock_timestamp()";

/// Takes over from a lost owner: *locked*, on exactly the bytes and the expiry that were read. A renewal changes the expiry,
/// a settling the bytes, another takeover both.
const TAKE_OVER: &str = concat!(
    "UPDATE onlyonce.records AS r SET record = $2, expires_at = t.at, sweep_hour = ",
    hour!(),
    ", body_at = NULL FROM ",
    at!(),
    " WHERE r.name = $1 AND r.record = $4 AND r.expires_at = $5 RETURNING 1"
);

/// Renews a lease: *locked*, on a record in flight of this token.
const RENEW: &str = concat!(
    "UPDATE onlyonce.records AS r SET expires_at = t.at, sweep_hour = ",
    hour!(),
    " FROM ",
    at!(),
    " WHERE r.name = $1 AND r.expires_at > clock_timestamp()
       AND substring(r.record FROM 1 FOR 2) = '\\x0201' AND substring(r.record FROM 5 FOR 16) = $2 RETURNING 1"
);

/// Writes an outcome: *unique* where there is no record, *locked* on one that is in flight or unknown and has this token.
/// No row: another record stays.
const SETTLE: &str = concat!(
    "INSERT INTO onlyonce.records AS r (name, record, expires_at, sweep_hour, body_at)
     SELECT $1::text, $2::bytea, t.at, ",
    hour!(),
    ", $4::timestamptz FROM ",
    at!(),
    " ON CONFLICT (name) DO UPDATE
       SET record = excluded.record, expires_at = excluded.expires_at, sweep_hour = excluded.sweep_hour,
           body_at = excluded.body_at
       WHERE r.expires_at <= clock_timestamp()
          OR (substring(r.record FROM 1 FOR 2) IN ('\\x0201', '\\x0204') AND substring(r.record FROM 5 FOR 16) = $5)
     RETURNING 1"
);

/// Changes nothing, and is committed like a change: when that is acknowledged, so is whatever was committed before, on the
/// disk and on the replicas that the server waits for. For what was found done, and not done by the statement itself: the
/// transaction that did it may have lost its wait for a replica.
const CONFIRM: &str = "UPDATE onlyonce.records SET expires_at = expires_at WHERE name = $1";

/// Frees a key: *locked*, on a record in flight of this token.
const RELEASE: &str = "DELETE FROM onlyonce.records WHERE name = $1 AND expires_at > clock_timestamp()
                         AND substring(record FROM 1 FOR 2) = '\\x0201' AND substring(record FROM 5 FOR 16) = $2
                       RETURNING 1";

/// An operator's change: *locked*, on this state (with the version before it), owner and attempt, and no longer to live than
/// was seen. `$8`: nor has it been renewed since that was read, while its body was written.
const EXCHANGE: &str = concat!(
    "UPDATE onlyonce.records AS r SET record = $2, expires_at = t.at, sweep_hour = ",
    hour!(),
    ", body_at = $7 FROM ",
    at!(),
    " WHERE r.name = $1 AND r.expires_at > clock_timestamp() AND r.expires_at = coalesce($8::timestamptz, r.expires_at)
       AND substring(r.record FROM 1 FOR 2) = $4 AND substring(r.record FROM 5 FOR 20) = $5
       AND r.expires_at <= clock_timestamp() + $6::float8 * interval '1 millisecond' RETURNING 1"
);

/// The same, where it frees the key.
const EXCHANGE_AWAY: &str = "DELETE FROM onlyonce.records WHERE name = $1 AND expires_at > clock_timestamp()
                               AND substring(record FROM 1 FOR 2) = $2 AND substring(record FROM 5 FOR 20) = $3
                               AND expires_at <= clock_timestamp() + $4::float8 * interval '1 millisecond' RETURNING 1";

/// Notifies waiters, if one has left a sign. It runs after the change is committed, so that it sees every sign of a waiter
/// that has not seen the change. A transaction with a NOTIFY commits while no other with one does: this one has nothing to
/// write, so that is short, and claims and outcomes are not part of it.
const TELL: &str =
    "SELECT pg_notify('onlyonce', name) FROM onlyonce.waiters WHERE name = $1 AND until > clock_timestamp()";

/// A waiter's sign. The table is not logged: nothing waits for a disk.
const SIGN: &str = "INSERT INTO onlyonce.waiters AS w (name, until)
                    VALUES ($1, clock_timestamp() + $2::float8 * interval '1 millisecond')
                    ON CONFLICT (name) DO UPDATE SET until = greatest(w.until, excluded.until)";

/// A page of names in order. The first bytes of each record are its summary.
const LIST: &str = "SELECT name, substring(record FROM 1 FOR 140), expires_at, clock_timestamp() FROM onlyonce.records
                    WHERE name > $1 AND name < $2 AND expires_at > clock_timestamp() ORDER BY name LIMIT $3";

/// Writes chunks, and returns the place in time where they lie: where those before them do (`$4`), or where this time to
/// live ends.
const PUT_CHUNKS: &str = concat!(
    "INSERT INTO onlyonce.bodies (expires_at, owner, piece, chunk)
     SELECT coalesce($4::timestamptz, t.at), $1, c.piece, c.chunk
     FROM unnest($2::integer[], $5::bytea[]) AS c (piece, chunk), ",
    at!(),
    " RETURNING expires_at"
);

/// Makes the partitions that chunks of this time to live go to.
const MAKE_PARTITIONS: &str =
    "SELECT onlyonce.make_partition(clock_timestamp() + $1::float8 * interval '1 millisecond'),
                                      onlyonce.make_partition(clock_timestamp() + $1::float8 * interval '1 millisecond'
                                                              + interval '6 hours')";

/// A chunk, where the record says that it lies. The subquery is run first, and leaves one partition to look into.
const FIRST_CHUNK: &str = "SELECT chunk, expires_at, owner FROM onlyonce.bodies
                           WHERE expires_at = (SELECT body_at FROM onlyonce.records WHERE name = $1)
                             AND owner = ANY ($2::bytea[]) AND piece = $3 LIMIT 1";

/// A chunk of a record that is gone, wherever it lies. If there are bodies of two writers, nobody knows any more which was its own.
const LOST_CHUNK: &str = "SELECT chunk, expires_at, owner FROM onlyonce.bodies
                          WHERE owner = ANY ($1::bytea[]) AND piece = $2
                            AND 2 > (SELECT count(DISTINCT owner) FROM onlyonce.bodies WHERE owner = ANY ($1::bytea[]) AND piece = $2)
                          LIMIT 1";

/// A chunk that lies there.
const CHUNK: &str = "SELECT chunk, expires_at, owner FROM onlyonce.bodies
                     WHERE expires_at = $1 AND owner = $2 AND piece = $3 LIMIT 1";

/// Deletes records that expired more than an hour ago, so that a clock that is set back (by a failover) finds them as it
/// should. A batch has at most `$1`, and passes over what others have locked.
const SWEEP: &str = "DELETE FROM onlyonce.records WHERE ctid = ANY (ARRAY(
                       SELECT ctid FROM onlyonce.records
                       WHERE sweep_hour < (SELECT floor(extract(epoch FROM clock_timestamp()) / 3600)::integer)
                         AND expires_at < clock_timestamp() - interval '1 hour'
                       LIMIT $1 FOR UPDATE SKIP LOCKED))";

/// Signs of waiters that are gone.
const SWEEP_SIGNS: &str = "DELETE FROM onlyonce.waiters WHERE until < clock_timestamp() - interval '1 minute'";

/// Drops a partition of bodies that nobody can need any more, if there is one.
const DROP_PARTITION: &str = "SELECT onlyonce.drop_partition()";

macro_rules! statements {
    ($($name:ident = $sql:ident,)*) => {
        /// The statements, prepared for one session.
        pub(super) struct Statements {
            $(pub(super) $name: Statement,)*
        }

        impl Statements {
            /// All at once: one round trip.
            pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
                let ($($name,)*) = tokio::try_join!($(client.prepare($sql),)*)?;
                Ok(Self { $($name,)* })
            }
        }
    };
}

statements! {
    claim = CLAIM,
    read = READ,
    take_over = TAKE_OVER,
    renew = RENEW,
    settle = SETTLE,
    confirm = CONFIRM,
    release = RELEASE,
    exchange = EXCHANGE,
    exchange_away = EXCHANGE_AWAY,
    tell = TELL,
    sign = SIGN,
    list = LIST,
    put_chunks = PUT_CHUNKS,
    make_partitions = MAKE_PARTITIONS,
    first_chunk = FIRST_CHUNK,
    lost_chunk = LOST_CHUNK,
    chunk = CHUNK,
    sweep = SWEEP,
    sweep_signs = SWEEP_SIGNS,
    drop_partition = DROP_PARTITION,
}
