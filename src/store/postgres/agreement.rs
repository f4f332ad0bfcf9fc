//! The agreement between all sidecars on one digest key: a row in the database, which is read repeatedly.
//!
//! *Unique* makes the first sidecar that notes a key the only one. The rest is for data that is lost, by a failover to a
//! replica that did not have it or by a restore.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::postgres_error::PostgresError;
use crate::clock::since_boot;
use crate::key::DigestKey;
use crate::store::digest_key::{Agreement, DigestKeyNote, Wanted};
use crate::store::store_state::StoreState;

/// Ensures that this process claims only while the store has the same digest key.
pub(super) struct DigestKeyAgreement {
    pub(super) state: Arc<StoreState>,
    /// The name of the row.
    pub(super) name: String,
    pub(super) configured: Option<DigestKey>,
    /// Whether this process has seen the note before.
    pub(super) was_noted: bool,
    /// Whether a note is written where there is none. Read-only use writes none.
    pub(super) puts_key: bool,
}

/// The time without claims after this process founds or replaces the digest key, if others are connected: after it, each of
/// them has seen the new key, or has had no confirmation for so long that it does not claim either.
const SETTLING: Duration = Duration::from_secs(3);

const FIND: &str = "SELECT value FROM onlyonce.notes WHERE name = $1";
const FOUND: &str = "INSERT INTO onlyonce.notes (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
const REPLACE: &str = "UPDATE onlyonce.notes SET value = $2, noted_at = clock_timestamp() WHERE name = $1";
/// Other sidecars have a session of this name each. Everybody may see the names.
const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'onlyonce' AND pid <> pg_backend_pid()";

impl DigestKeyAgreement {
    /// Agrees with the store, and confirms it.
    pub(super) async fn agree(&mut self, client: &Client) -> Result<(), PostgresError> {
        let of = PostgresError::of;
        let wanted = Wanted::new(self.configured, self.state.digest_key()).map_err(PostgresError::Randomness)?;
        let note = wanted.note().encode();
        let asked = since_boot();
        let find = async || -> Result<Option<Vec<u8>>, PostgresError> {
            Ok(client.query_opt(FIND, &[&self.name]).await.map_err(of)?.map(|row| row.get(0)))
        };
        let mut found = find().await?;
        let mut is_written = false;
        if found.is_none() && self.puts_key {
            is_written = client.execute(FOUND, &[&self.name, &note]).await.map_err(of)? > 0;
            found = find().await?;
        }
        let decoded = match found.filter(|_| !is_written) {
            None => None,
            Some(bytes) => {
                Some(DigestKeyNote::decode(&bytes).ok_or_else(|| PostgresError::NotOurs(self.name.clone()))?)
            }
        };
        if decoded.is_none() && !self.puts_key {
            return Ok(());
        }
        let agreement = wanted.compare(decoded);
        let (key, is_new) = match agreement {
            Agreement::Agreed(key) => (key, false),
            // Another sidecar has noted a new one, because the store has lost the old one.
            Agreement::Adopted(key) => (key, self.was_noted),
            Agreement::Founded(key) => (key, true),
            Agreement::Forgotten(key) if !self.puts_key => {
                tracing::warn!(
                    "store.digest_key is not the key that this store is used with: no record of it is found"
                );
                (key, false)
            }
            Agreement::Forgotten(_) if self.was_noted => {
                return Err(PostgresError::DigestKeyReplaced(self.name.clone()));
            }
            Agreement::Forgotten(key) => {
                tracing::warn!(
                    name = self.name,
                    "store.digest_key is not the key that this store was used with, and takes its place: the records kept \
                     under that are forgotten, and sidecars that go by it claim nothing any more"
                );
                client.execute(REPLACE, &[&self.name, &note]).await.map_err(of)?;
                (key, true)
            }
            Agreement::Withheld => return Err(PostgresError::DigestKeyWithheld(self.name.clone())),
        };
        if is_new && client.query_one(OTHERS, &[]).await.map_err(of)?.get::<_, i64>(0) > 0 {
            self.state.no_claims_for(SETTLING);
        }
        if self.was_noted && matches!(agreement, Agreement::Founded(_) | Agreement::Adopted(_)) {
            self.state.count_loss();
            tracing::error!(
                "PostgreSQL lost its data: records of before are gone, and their operations run again when they are repeated"
            );
        }
        self.was_noted = true;
        self.state.set_digest_key(key);
        self.state.confirm(asked);
        Ok(())
    }
}
