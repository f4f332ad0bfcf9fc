//! The digest key of the store.

use std::path::Path;

use super::error::EmbeddedError;
use super::log::RecordLog;
use crate::config;
use crate::key::DigestKey;
use crate::store::digest_key::{self, Agreement, Wanted};

/// Finds the digest key, or makes it.
pub(super) fn agree(
    log: &mut RecordLog,
    path: &Path,
    config: &config::StoreConfig,
    now: u64,
) -> Result<DigestKey, EmbeddedError> {
    let wanted = Wanted::new(digest_key::configured(config), None)?;
    let found = log.digest_key();
    if found.is_none() && !log.is_empty() {
        return Err(EmbeddedError::not_whole(path, "its records are there, and the digest key of their names is gone"));
    }
    let mut keep = || {
        let kept = log.keep_digest_key(wanted.note(), now);
        kept.map_err(|error| EmbeddedError::inaccessible(path, error))
    };
    match wanted.compare(found) {
        Agreement::Founded(key) => keep().map(|()| key),
        Agreement::Agreed(key) | Agreement::Adopted(key) => Ok(key),
        Agreement::Forgotten(key) => {
            tracing::warn!(
                "store.digest_key is not the key that this store was used with: the records kept under that are forgotten"
            );
            // No other process uses this store, so the warning appears once.
            keep().map(|()| key)
        }
        Agreement::Withheld => Err(EmbeddedError::DigestKeyWithheld(path.to_owned())),
    }
}
