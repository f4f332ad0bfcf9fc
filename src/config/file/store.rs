//! `[store]`

use std::time::Duration;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};

use super::super::{Durability, PostgresAddress, RedisAddress, Secret, SecretKey, StoreLocation, StorePassword};
use super::declare::settings;
use super::duration::above_zero;
use super::item::Item;
use super::report::FileReport;
use super::section::Section;
use super::setting::Setting;
use super::store_url::{self, StoreUrl};
use super::tls_keys::ClientTls;
use crate::rule::OnStoreError;

/// With or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// More replicas than any deployment waits for.
const MOST_REPLICAS: u64 = 100;

settings! {
    /// `[store]`
    #[derive(Debug, Clone)]
    pub struct StoreConfig, "store", read as StoreTable {
        made {
            /// Which store, and where it is.
            location as "url": StoreLocation = Self::location, at_start;
        }
        read {
            url: StoreUrl = required(store_url::read, RECORDS);
            password: StorePassword = optional(store_url::password);
            tls: ClientTls = group(ClientTls::read);
        }
        keys {
            /// First part of every name in the store.
            prefix: String = default(prefix, "onlyonce".to_owned()), at_start;
            /// One call to the store.
            timeout: Duration = default(above_zero, Duration::from_millis(500)), at_start;
            /// What to do with guarded requests while the store is certainly unreachable.
            on_error: OnStoreError = default(Item::word, OnStoreError::Reject), at_once;
            /// Keys the digests of names and fingerprints. The store creates one when it is absent.
            digest_key: Secret = optional(digest_key), at_start;
            /// What an acknowledged write of the embedded store survives.
            durability: Durability = default(Item::word, Durability::Disk), at_start;
            /// Use a Redis that may evict records.
            accept_eviction: bool = default(Item::boolean, false), at_start;
            /// The number of Redis replicas that must acknowledge a claim, and an outcome before it is sent.
            replica_acks: u64 = default(|item| item.number(0..=MOST_REPLICAS), 0), at_start;
            /// A claim, and an outcome before it is sent, must be on the disks of Redis and of these replicas.
            fsync_acks: bool = default(Item::boolean, false), at_start;
            /// Larger bodies are compressed before they are stored.
            compress_above: u64 = optional(Item::size), at_start;
            /// What stored answers are encrypted with: the first key encrypts, all of them decrypt.
            encryption_keys: Vec<SecretKey> = default(encryption_keys, Vec::new()), at_start;
        }
    }
}

const RECORDS: &str = "say where records are kept:\n  [store]\n  url = \"redis://127.0.0.1:6379/0\"\n\
                       or url = \"postgres://onlyonce@127.0.0.1/onlyonce\"; or, for one sidecar, on its disk: \
                       url = \"embedded:/var/lib/onlyonce\"";

impl StoreTable {
    pub(super) fn check(&mut self, report: &FileReport<'_>) {
        let is_tls = self.url.get().map(|url| matches!(url, StoreUrl::Redis(_, true) | StoreUrl::Postgres(_, true)));
        let is_postgres = matches!(self.url.get(), Some(StoreUrl::Postgres(..)));
        if let (Setting::Given(1.., span), Some(StoreUrl::Postgres(..) | StoreUrl::Other(_))) =
            (&self.replica_acks, self.url.get())
        {
            report.add(
                Some(span.clone()),
                "store.replica_acks is for a Redis, and store.url is something else",
                if is_postgres {
                    "leave it out; synchronous_standby_names of the server says which replicas have a claim before it counts"
                } else {
                    "leave it out"
                },
            );
        }
        if let (Setting::Given(true, span), Some(StoreUrl::Postgres(..) | StoreUrl::Other(_))) =
            (&self.fsync_acks, self.url.get())
        {
            report.add(
                Some(span.clone()),
                "store.fsync_acks is for a Redis, and store.url is something else",
                if is_postgres {
                    "leave it out; a claim in PostgreSQL is on its disk before it counts"
                } else {
                    "leave it out; store.durability says what a claim of the embedded store waits for"
                },
            );
        }
        if let (
            Setting::Given(Durability::Process, span),
            Some(StoreUrl::Redis(..) | StoreUrl::Postgres(..) | StoreUrl::Other(StoreLocation::Memory)),
        ) = (&self.durability, self.url.get())
        {
            report.add(
                Some(span.clone()),
                "store.durability is for the embedded store, and store.url is something else",
                "leave it out; what a write of another store survives is not said here",
            );
        }
        if let (Setting::Given(true, span), Some(StoreUrl::Postgres(..) | StoreUrl::Other(_))) =
            (&self.accept_eviction, self.url.get())
        {
            report.add(
                Some(span.clone()),
                "store.accept_eviction is for a Redis, and store.url is something else",
                "leave it out; no other store throws records away before their time",
            );
        }
        let (server, form) =
            if is_postgres { ("PostgreSQL", "postgres://…?sslmode=verify-full") } else { ("Redis", "rediss://…") };
        self.tls.check("store", server, ("TLS", form), (is_tls, self.url.span()), report);
        match self.url.get() {
            Some(
                StoreUrl::Redis(RedisAddress { password: Some(_), .. }, _)
                | StoreUrl::Postgres(PostgresAddress { password: Some(_), .. }, _),
            ) if self.password.span().is_some() => {
                let scheme = if is_postgres { "postgres" } else { "redis" };
                report.add(
                    self.password.span(),
                    "there are two passwords: store.url has one, too",
                    format!(
                        "take one of them out; a user without a password in store.url is right: {scheme}://user@host"
                    ),
                );
            }
            Some(StoreUrl::Other(_)) if self.password.span().is_some() => report.add(
                self.password.span(),
                "store.password is for a Redis or a PostgreSQL, and store.url is something else",
                "leave it out",
            ),
            Some(StoreUrl::Redis(..) | StoreUrl::Postgres(..) | StoreUrl::Other(_)) | None => {}
        }
    }

    fn location(&self) -> Option<StoreLocation> {
        Some(match self.url.get()?.clone() {
            StoreUrl::Redis(mut address, is_tls) => {
                address.password = address.password.or(self.password.clone().optional()?);
                address.tls = if is_tls { Some(self.tls.client()?) } else { None };
                StoreLocation::Redis(address)
            }
            StoreUrl::Postgres(mut address, is_tls) => {
                address.password = address.password.or(self.password.clone().optional()?);
                address.tls = if is_tls { Some(self.tls.client()?) } else { None };
                StoreLocation::Postgres(address)
            }
            StoreUrl::Other(location) => location,
        })
    }
}

/// No `:`, which separates the parts of names in the store, and no braces, which are hash tags in a Redis Cluster.
fn prefix(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if (1..=64).contains(&text.value.len()) && text.value.chars().all(plain) {
        return Some(text.value);
    }
    item.refuse(
        format!("store.prefix cannot be {text}"),
        "1 to 64 letters, digits and . _ - / are right: the prefix begins every name in the store",
    )
}

fn digest_key(item: &Item<'_>) -> Option<Secret> {
    let text = item.text()?;
    if text.value.len() >= 16 {
        return Some(Secret::new(text.value));
    }
    item.refuse(
        format!("store.digest_key has only {} bytes", text.value.len()),
        "it is at least 16 bytes that nobody can guess: openssl rand -base64 32",
    )
}

fn encryption_keys(item: &Item<'_>) -> Option<Vec<SecretKey>> {
    let keys = item.list(encryption_key)?;
    Some(keys.into_iter().map(|(key, _)| key).collect())
}

/// 32 bytes in base64, padded or not.
fn encryption_key(item: &Item<'_>) -> Option<SecretKey> {
    let text = item.text()?;
    let wrong = match BASE64.decode(text.value.trim()) {
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => return Some(SecretKey::new(key)),
            Err(bytes) => format!("has {} bytes", Vec::len(&bytes)),
        },
        Err(_) => "is not base64".to_owned(),
    };
    item.refuse(
        format!("a key of store.encryption_keys {wrong}"),
        "each key is 32 random bytes in base64, and `onlyonce keys generate` makes one",
    )
}
