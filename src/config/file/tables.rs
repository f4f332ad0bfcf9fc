//! The tables that a file has once: `[server]`, `[log]`, `[admin]`, `[upstream]` and `[store]`.

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use ipnet::IpNet;
use tracing::Level;

use super::super::{
    AdminToken, Durability, HeaderCase, Listen, LogFormat, PostgresAddress, RedisAddress, Secret, SecretKey,
    StoreLocation, StorePassword, Threads, UpstreamAddress,
};
use super::address;
use super::admin_token::{self, NamedTokens};
use super::declare::settings;
use super::fallback;
use super::item::Item;
use super::path;
use super::report::{ByteRange, FileReport};
use super::section::Section;
use super::setting::Setting;
use super::store_url::{self, StoreUrl};
use super::tls_keys::{ClientTls, identity};
use crate::rule::{LogKeys, OnStoreError, TrustedProxies};
use crate::tls;

/// With or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const MILLISECOND: Duration = Duration::from_millis(1);
/// More replicas than any deployment waits for.
const MOST_REPLICAS: u64 = 100;
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

settings! {
    /// `[server]`
    #[derive(Debug, Clone)]
    pub struct ServerConfig, "server", read as ServerTable {
        made {
            /// Where clients connect.
            listen: Vec<Listen> = Self::listeners, at_start;
            /// The certificate for TCP connections; Unix sockets have no TLS.
            tls: Option<tls::TlsIdentity> = Self::tls, at_once;
        }
        read {
            listen: Vec<(Listen, ByteRange)> = default(listen, vec![(Listen::Tcp(SocketAddr::from((LOOPBACK, 8080))), 0..0)]);
            trusted_proxies: Vec<(IpNet, ByteRange)> = default(|item| item.list(address::network), Vec::new());
            tls: tls::TlsIdentity = table(identity);
        }
        keys {
            /// From the first byte of a request's head to its last.
            header_timeout: Duration = default(above_zero, seconds(10)), at_start;
            /// A request body: as a whole on guarded routes, between two frames everywhere.
            body_timeout: Duration = default(above_zero, seconds(30)), at_once;
            /// A client connection without a request, or whose client reads nothing of its answer.
            idle_timeout: Duration = default(above_zero, seconds(75)), at_start;
            /// Client connections at once.
            max_connections: usize = default(|item| item.count(1..=1_000_000), 10_000), at_start;
            /// Guarded attempts at work at once.
            max_in_flight: usize = default(|item| item.count(1..=1_000_000), 4096), at_start;
            /// Bytes of all bodies held in memory at once, replays too.
            max_buffered: u64 = default(Item::size, 256 << 20), at_start;
            /// How long new requests are accepted after the signal to stop.
            drain_delay: Duration = default(from_zero, seconds(3)), at_start;
            /// How long requests in flight may take to finish after that.
            drain_timeout: Duration = default(from_zero, seconds(20)), at_start;
            /// Threads that answer requests.
            threads: Threads = default(threads, Threads::Auto), at_start;
            /// The case of field names sent to clients.
            header_case: HeaderCase = default(Item::word, HeaderCase::Lower), at_start;
            /// The path of the form guard's script.
            form_guard: String = optional(form_guard), at_once;
            /// The pages that the script is put into.
            form_guard_inject: Vec<String> = default(pages, Vec::new()), at_once;
        }
    }
}

impl ServerTable {
    pub(super) fn check(&self, report: &FileReport<'_>) {
        if let (Setting::Absent, Setting::Given(pages, span)) = (&self.form_guard, &self.form_guard_inject)
            && !pages.is_empty()
        {
            report.add(
                Some(span.clone()),
                "server.form_guard_inject puts a script into pages, and there is none",
                "say where it is served: form_guard = \"/.onlyonce/form.js\"",
            );
        }
    }

    pub(super) fn trusted_proxies(&self) -> Option<TrustedProxies> {
        let networks = self.trusted_proxies.get()?;
        Some(TrustedProxies::new(networks.iter().map(|(network, _)| *network).collect()))
    }

    /// The addresses among `listen`.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &ByteRange)> {
        self.listen.get().into_iter().flatten().filter_map(|(listen, span)| match listen {
            Listen::Tcp(address) => Some((*address, span)),
            Listen::Unix(_) => None,
        })
    }

    fn listeners(&self) -> Option<Vec<Listen>> {
        Some(self.listen.get()?.iter().map(|(listen, _)| listen.clone()).collect())
    }

    fn tls(&self) -> Option<Option<tls::TlsIdentity>> {
        self.tls.clone().optional()
    }
}

fn listen(item: &Item<'_>) -> Option<Vec<(Listen, ByteRange)>> {
    item.one_or_more(address::listen).and_then(|all| not_empty(item, all))
}

/// More than any machine needs.
const MOST_THREADS: u32 = 256;

/// `"auto"`, or a number.
fn threads(item: &Item<'_>) -> Option<Threads> {
    item.choice_or_count(("auto", Threads::Auto), 1..=MOST_THREADS, Threads::Count)
}

/// A path without parameters.
fn form_guard(item: &Item<'_>) -> Option<String> {
    let path = path::path(item)?;
    if path.contains('{') || path.ends_with('/') {
        return item.refuse(
            format!("\"{path}\" is not the path of one script"),
            "a path that no page of the backend has is right: \"/.onlyonce/form.js\"",
        );
    }
    Some(path)
}

fn pages(item: &Item<'_>) -> Option<Vec<String>> {
    item.list(path::path).map(|pages| pages.into_iter().map(|(page, _)| page).collect())
}

settings! {
    /// `[log]`
    #[derive(Debug, Clone)]
    pub struct LogConfig, "log", read as LogTable {
        made {}
        read {}
        keys {
            /// One line of text or one JSON object for each event.
            format: LogFormat = default(Item::word, LogFormat::Text), at_start;
            /// The least severe level that is written.
            level: Level = default(|item| item.choice(&LEVELS), Level::INFO), at_once;
            /// How idempotency keys appear.
            keys: LogKeys = default(Item::word, LogKeys::Hashed), at_once;
        }
    }
}

const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

settings! {
    /// `[admin]`
    #[derive(Debug, Clone)]
    pub struct AdminConfig, "admin", read as AdminTable {
        made {
            /// The tokens of those who may see and change records. Without any, the sidecar's own machine may.
            tokens: Vec<AdminToken> = Self::tokens, at_once;
        }
        read {
            token: Secret = optional(admin_token::secret);
            named: NamedTokens = group(NamedTokens::read);
        }
        keys {
            /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` when it is `"off"`.
            listen: Option<SocketAddr> = default(address::listen_or_off, Some(SocketAddr::from((LOOPBACK, 9464)))), at_start;
        }
    }
}

impl AdminTable {
    pub(super) fn check(&self, server: &ServerTable, report: &FileReport<'_>) {
        self.named.check(self.token.given(), report);
        let Some(Some(admin)) = self.listen.get() else { return };
        for (client, span) in server.addresses().filter(|(client, _)| address::collide(*client, *admin)) {
            let given = server.listen.span().map(|_| span.clone());
            report.add(
                self.listen.span().or(given),
                format!("admin.listen ({admin}) and server.listen ({client}) are the same port"),
                "give each its own, or turn the admin listener off: admin.listen = \"off\"",
            );
        }
    }

    fn tokens(&self) -> Option<Vec<AdminToken>> {
        self.named.with(self.token.clone().optional()?)
    }
}

settings! {
    /// `[upstream]`
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct UpstreamConfig, "upstream", read as UpstreamTable {
        made {
            /// Where the backend is.
            address: UpstreamAddress = Self::address, at_once;
        }
        read {
            url: address::UpstreamUrl = required(address::upstream, BACKEND);
            tls: ClientTls = group(ClientTls::read);
        }
        keys {
            /// One connection attempt, name look-up and TLS included.
            connect_timeout: Duration = default(above_zero, seconds(2)), at_once;
            /// How long a client waits for the response head (on guarded routes: for the answer).
            response_timeout: Duration = dependent(above_zero), at_once;
            /// One guarded attempt, head and body. After it, the outcome is unknown.
            attempt_timeout: Duration = dependent(above_zero), at_once;
            /// A pooled connection that is idle for longer is not reused.
            idle_timeout: Duration = default(from_zero, seconds(4)), at_once;
            /// The same for guarded requests. Zero: always a new connection, as with `http2`.
            guarded_idle: Duration = default(from_zero, seconds(1)), at_once;
            /// The backend sees the client's `Host`, not its own.
            preserve_host: bool = default(Item::boolean, true), at_once;
            /// The case of field names sent to the backend.
            header_case: HeaderCase = default(Item::word, HeaderCase::Lower), at_once;
            /// Use HTTP/2 to the backend.
            http2: bool = default(Item::boolean, false), at_once;
        }
    }
}

const BACKEND: &str = "name the backend:\n  [upstream]\n  url = \"http://127.0.0.1:3000\"";

impl UpstreamTable {
    /// The defaults that depend on other keys; `longest_wait` is the longest that a route says.
    pub(super) fn fill_in(&mut self, longest_wait: Option<Duration>) {
        let (response, attempt) = (mem::take(&mut self.response_timeout), mem::take(&mut self.attempt_timeout));
        [self.response_timeout, self.attempt_timeout] = fallback::timeouts(response, attempt, longest_wait);
    }

    pub(super) fn check(&mut self, server: &ServerTable, report: &FileReport<'_>) {
        let why = "an attempt must last as long as its client may wait";
        let attempt = ("attempt_timeout", &self.attempt_timeout);
        report.ordered(attempt, ("response_timeout", &self.response_timeout), why);
        let is_tls = self.url.get().map(|url| matches!(url, address::UpstreamUrl::Https(_)));
        self.tls.check("upstream", "the backend", ("https", "https://…"), (is_tls, self.url.span()), report);
        if let Some(url) = self.url.get()
            && let Some(upstream) = address::local(url)
            && let Some((own, _)) = server.addresses().find(|(own, _)| address::collide(*own, upstream))
        {
            report.add(
                self.url.span(),
                format!("upstream.url is onlyonce itself: it listens on {own}"),
                "name the backend's own address, or change server.listen",
            );
        }
    }

    fn address(&self) -> Option<UpstreamAddress> {
        Some(match self.url.get()?.clone() {
            address::UpstreamUrl::Http(authority) => UpstreamAddress::Http(authority),
            address::UpstreamUrl::Unix(path) => UpstreamAddress::Unix(path),
            address::UpstreamUrl::Https(authority) => UpstreamAddress::Https(authority, self.tls.client()?),
        })
    }
}

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
                       or, for one sidecar, on its disk: url = \"embedded:/var/lib/onlyonce\"";

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

fn not_empty<T>(item: &Item<'_>, list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() {
        return item.refuse(format!("{} is an empty list", item.name()), "name at least one address");
    }
    Some(list)
}

fn above_zero(item: &Item<'_>) -> Option<Duration> {
    item.duration(MILLISECOND)
}

fn from_zero(item: &Item<'_>) -> Option<Duration> {
    item.duration(Duration::ZERO)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
