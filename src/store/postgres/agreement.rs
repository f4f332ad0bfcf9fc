//! The agreement between all sidecars on one digest key: a row in the database, which is read repeatedly.
//!
//! *Unique* makes the first sidecar that notes a key the only one. The rest is for data that is lost, by a failover to a
//! replica that did not have it or by a restore.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_postgres::Client;

use super::error::PostgresError;
use super::examine::CONTROL;
use crate::clock::since_boot;
use crate::key::DigestKey;
use crate::store::digest_key::{self, Agreement, DigestKeyNote, NoteRefusal, NoteSighting, SETTLING, Settling, Wanted};
use crate::store::store_state::StoreState;
use crate::store::timing::LONGEST_CONNECT;

/// Ensures that this process claims only while the store has the same digest key.
pub(super) struct DigestKeyAgreement {
    state: Arc<StoreState>,
    /// The name of the row.
    name: String,
    configured: Option<DigestKey>,
    /// When the note was written that this process last saw, if it ever did.
    seen: Option<SystemTime>,
    /// Whether looks after that have failed. They may have written the note, all the same.
    has_failed: bool,
    /// Whether no note is written, and nothing claimed.
    is_read_only: bool,
}

/// A note as it was read.
struct NoteRow {
    note: DigestKeyNote,
    noted_at: SystemTime,
    is_young: bool,
}

/// A note of this age is young: others may have seen it for less than [`SETTLING`], as it is written before its commit, and
/// that may have waited for a standby for as long as a connect may take.
const YOUNG: Duration = SETTLING.saturating_add(LONGEST_CONNECT);

const FIND: &str = "SELECT value, noted_at, noted_at > clock_timestamp() - $2::float8 * interval '1 second'
                    FROM onlyonce.notes WHERE name = $1";
const FOUND: &str = "INSERT INTO onlyonce.notes (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
const REPLACE: &str =
    "UPDATE onlyonce.notes SET value = $2, noted_at = clock_timestamp() WHERE name = $1 RETURNING noted_at";
/// Makes a note look old that nobody has replaced.
const MAKE_OLD: &str = "UPDATE onlyonce.notes SET noted_at = noted_at - $3::float8 * interval '1 second'
                        WHERE name = $1 AND value = $2";
/// Other sidecars have a session of this name each. Everybody may see the names.
const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()";

impl DigestKeyAgreement {
    pub(super) fn new(state: Arc<StoreState>, prefix: &str, configured: Option<DigestKey>, is_read_only: bool) -> Self {
        let name = format!("{prefix}:digest-key");
        Self { state, name, configured, seen: None, has_failed: false, is_read_only }
    }

    /// Agrees with the store, and confirms it.
    pub(super) async fn agree(&mut self, client: &Client) -> Result<(), PostgresError> {
        let wanted = Wanted::new(self.configured, self.state.digest_key()).map_err(PostgresError::Randomness)?;
        if self.is_read_only {
            return self.read_key(client, &wanted).await;
        }
        let of = PostgresError::of;
        let note = wanted.note().encode();
        let (asked, has_failed) = (since_boot(), std::mem::replace(&mut self.has_failed, true));
        let mut found = self.find(client).await?;
        let mut is_written = false;
        if found.is_none() {
            is_written = client.execute(FOUND, &[&self.name, &note]).await.map_err(of)? > 0;
            found = self.find(client).await?;
        }
        let seen = NoteSighting {
            was_noted: self.seen.is_some(),
            // What an earlier look has written may have waited for its commit, and be seen only now.
            is_young: found.as_ref().is_some_and(|found| found.is_young) || has_failed && self.seen.is_none(),
            is_rewritten: self.seen.is_some_and(|seen| found.as_ref().is_some_and(|found| found.noted_at > seen)),
        };
        let agreement = match wanted.compare(found.as_ref().filter(|_| !is_written).map(|found| found.note)) {
            Agreement::Agreed(key) if has_failed && seen.is_rewritten => Agreement::Founded(key),
            agreement => agreement,
        };
        let mut noted_at = found.map(|found| found.noted_at);
        let of_key = match agreement.settle(seen) {
            Ok(of_key) => of_key,
            Err(why) => {
                // Nothing is written by this look.
                self.has_failed = has_failed;
                return Err(self.refusal(why));
            }
        };
        if of_key.replaces {
            digest_key::report_replaced(&self.name);
            noted_at = Some(client.query_one(REPLACE, &[&self.name, &note]).await.map_err(of)?.get(0));
        }
        let must_settle = match of_key.settling {
            Settling::Done => false,
            Settling::Needed => true,
            Settling::UnlessAlone => !self.is_alone(client, &note).await?,
        };
        if must_settle {
            self.state.no_claims_for(SETTLING);
        }
        if of_key.is_loss {
            self.state.count_loss();
            digest_key::report_loss("PostgreSQL");
        }
        self.has_failed = false;
        self.seen = noted_at.or(self.seen);
        self.state.set_digest_key(of_key.key);
        self.state.confirm(asked);
        Ok(())
    }

    /// Reads the store's digest key without changing it.
    async fn read_key(&mut self, client: &Client, wanted: &Wanted) -> Result<(), PostgresError> {
        let Some(found) = self.find(client).await? else { return Ok(()) };
        let agreement = wanted.compare(Some(found.note));
        let was_noted = self.seen.replace(found.noted_at).is_some();
        if matches!(agreement, Agreement::Forgotten(_)) && !was_noted {
            digest_key::report_unused();
        }
        self.state.set_digest_key(agreement.read().map_err(|why| self.refusal(why))?);
        Ok(())
    }

    async fn find(&self, client: &Client) -> Result<Option<NoteRow>, PostgresError> {
        let found = client.query_opt(FIND, &[&self.name, &YOUNG.as_secs_f64()]).await.map_err(PostgresError::of)?;
        let Some(row) = found else { return Ok(None) };
        let note = DigestKeyNote::decode(row.get(0)).ok_or_else(|| PostgresError::NotOurs(self.name.clone()))?;
        Ok(Some(NoteRow { note, noted_at: row.get(1), is_young: row.get(2) }))
    }

    /// Whether no other sidecar is connected, just after this process wrote its key. Then nobody claims under another one, and
    /// the note is made to look old, so that later sidecars do not wait either.
    async fn is_alone(&self, client: &Client, note: &[u8]) -> Result<bool, PostgresError> {
        let of = PostgresError::of;
        let is_alone = client.query_one(OTHERS, &[&CONTROL]).await.map_err(of)?.get::<_, i64>(0) == 0;
        if is_alone {
            client.execute(MAKE_OLD, &[&self.name, &note, &YOUNG.as_secs_f64()]).await.map_err(of)?;
        }
        Ok(is_alone)
    }

    fn refusal(&self, why: NoteRefusal) -> PostgresError {
        let name = self.name.clone();
        match why {
            NoteRefusal::Withheld => PostgresError::DigestKeyWithheld(name),
            NoteRefusal::Replaced => PostgresError::DigestKeyReplaced(name),
        }
    }
}
