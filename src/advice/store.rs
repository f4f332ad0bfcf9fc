//! What the choice of a store may bring.

use super::{Advice, Weight, warn};
use crate::config::{StoreConfig, StoreLocation};

pub(super) fn about_embedded(location: &StoreLocation) -> Option<Advice> {
    match location {
        StoreLocation::Redis(_) | StoreLocation::Postgres(_) | StoreLocation::Memory => None,
        StoreLocation::Embedded(_) => Some(Advice {
            weight: Weight::Note,
            text: "the embedded store is for one sidecar: another one does not see its records".to_owned(),
            advice: "more than one share a Redis or a PostgreSQL: store.url = \"redis://host:6379/0\" or \"postgres://onlyonce@host/db\"".to_owned(),
        }),
    }
}

pub(super) fn about_memory(location: &StoreLocation) -> Option<Advice> {
    match location {
        StoreLocation::Redis(_) | StoreLocation::Postgres(_) | StoreLocation::Embedded(_) => None,
        StoreLocation::Memory => warn(
            "the memory store forgets every record when onlyonce exits, and the next repeats run again",
            "to keep them, use store.url = \"embedded:/var/lib/onlyonce\", or a Redis or a PostgreSQL",
        ),
    }
}

pub(super) fn about_eviction(is_accepted: bool, location: &StoreLocation) -> Option<Advice> {
    if !is_accepted || !matches!(location, StoreLocation::Redis(_)) {
        return None;
    }
    warn(
        "store.accept_eviction lets Redis throw records away when its memory is full, and their requests run again when \
         they are repeated",
        "give Redis room, have it refuse writes instead (maxmemory-policy noeviction), and leave accept_eviction out",
    )
}

/// Digests of what can be guessed are no secret to whoever has their key.
pub(super) fn about_digests(store: &StoreConfig) -> Option<Advice> {
    if store.encryption_keys.is_empty() || store.digest_key.is_some() || store.location == StoreLocation::Memory {
        return None;
    }
    warn(
        "stored answers are encrypted (store.encryption_keys), but the key of the digests lies in the store: whoever \
         reads it there can try out keys, credentials and bodies until a digest matches",
        "keep that key outside, too: store.digest_key = \"env:ONLYONCE_DIGEST_KEY\". Earlier records are forgotten",
    )
}
