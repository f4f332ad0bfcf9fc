//! The tables that a file has once: `[server]`, `[log]`, `[admin]`, `[upstream]` and `[store]`.

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use tracing::Level;

use super::super::{
    AdminConfig, Durability, HeaderCase, Listen, LogConfig, LogFormat, LogKeys, OnStoreError, RedisAddress,
    RedisPassword, Secret, ServerConfig, StoreConfig, StoreLocation, Threads, TrustedProxies, UpstreamAddress,
    UpstreamConfig,
};
use super::address;
use super::fallback;
use super::item::Item;
use super::layer;
use super::order::Order;
use super::pem;
use super::report::{ByteRange, FileReport};
use super::section::Section;
use super::setting::Setting;
use super::store_url::{self, StoreUrl};
use crate::tls;

const MILLISECOND: Duration = Duration::from_millis(1);
/// More replicas than anybody waits for.
const MOST_REPLICAS: u64 = 100;
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

pub(super) struct ServerTable {
    listen: Setting<Vec<(Listen, ByteRange)>>,
    header_timeout: Setting<Duration>,
    body_timeout: Setting<Duration>,
    idle_timeout: Setting<Duration>,
    max_connections: Setting<usize>,
    max_in_flight: Setting<usize>,
    max_buffered: Setting<u64>,
    drain_delay: Setting<Duration>,
    drain_timeout: Setting<Duration>,
    threads: Setting<Threads>,
    trusted_proxies: Setting<Vec<(IpNet, ByteRange)>>,
    header_case: Setting<HeaderCase>,
    tls: Setting<tls::TlsIdentity>,
}

impl ServerTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let listen =
            section.read("listen", |item| item.one_or_more(address::listen).and_then(|all| not_empty(item, all)));
        let table = Self {
            listen: listen.or(vec![(Listen::Tcp(SocketAddr::from((LOOPBACK, 8080))), 0..0)]),
            header_timeout: section.read("header_timeout", above_zero).or(seconds(10)),
            body_timeout: section.read("body_timeout", above_zero).or(seconds(30)),
            idle_timeout: section.read("idle_timeout", above_zero).or(seconds(75)),
            max_connections: section.read("max_connections", |item| item.count(1..=1_000_000)).or(10_000),
            max_in_flight: section.read("max_in_flight", |item| item.count(1..=1_000_000)).or(4096),
            max_buffered: section.read("max_buffered", Item::size).or(256 << 20),
            drain_delay: section.read("drain_delay", from_zero).or(seconds(3)),
            drain_timeout: section.read("drain_timeout", from_zero).or(seconds(20)),
            threads: section.read("threads", threads).or(Threads::Auto),
            trusted_proxies: section.read("trusted_proxies", |item| item.list(address::network)).or(Vec::new()),
            header_case: section.read("header_case", header_case).or(HeaderCase::Lower),
            tls: identity(section.section("tls")),
        };
        section.finish();
        table
    }

    pub(super) fn trusted_proxies(&self) -> Option<TrustedProxies> {
        let networks = self.trusted_proxies.get()?;
        Some(TrustedProxies::new(networks.iter().map(|(network, _)| *network).collect()))
    }

    /// The addresses among `listen`.
    fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &ByteRange)> {
        self.listen.get().into_iter().flatten().filter_map(|(listen, span)| match listen {
            Listen::Tcp(address) => Some((*address, span)),
            Listen::Unix(_) => None,
        })
    }

    pub(super) fn build(self) -> Option<ServerConfig> {
        Some(ServerConfig {
            listen: self.listen.take()?.into_iter().map(|(listen, _)| listen).collect(),
            tls: self.tls.optional()?,
            header_timeout: self.header_timeout.take()?,
            body_timeout: self.body_timeout.take()?,
            idle_timeout: self.idle_timeout.take()?,
            max_connections: self.max_connections.take()?,
            max_in_flight: self.max_in_flight.take()?,
            max_buffered: self.max_buffered.take()?,
            drain_delay: self.drain_delay.take()?,
            drain_timeout: self.drain_timeout.take()?,
            header_case: self.header_case.take()?,
            threads: self.threads.take()?,
        })
    }
}

fn header_case(item: &Item<'_>) -> Option<HeaderCase> {
    item.choice(&[("lower", HeaderCase::Lower), ("title", HeaderCase::Title)], &[])
}

/// More than any machine has use for.
const MOST_THREADS: u32 = 256;

/// `"auto"`, or a number.
fn threads(item: &Item<'_>) -> Option<Threads> {
    item.choice_or_count(("auto", Threads::Auto), 1..=MOST_THREADS, Threads::Count)
}

/// `[server.tls]`
fn identity(section: Section<'_>) -> Setting<tls::TlsIdentity> {
    let report = section.report();
    let (cert, key) = (section.read("cert", pem::chain), section.read("key", pem::key));
    let identity = pem::identity(&cert, &key, ["server.tls.cert", "server.tls.key"], report);
    let span = section.span();
    section.finish();
    if let (Some(span), Setting::Absent, Setting::Absent) = (&span, &cert, &key) {
        let advice = "name the files:\n  cert = \"cert.pem\"\n  key = \"key.pem\"";
        report.add(Some(span.clone()), "server.tls names no certificate", advice);
    }
    match (span, identity) {
        (None, _) => Setting::Absent,
        (Some(span), Some(identity)) => Setting::Given(identity, span),
        (Some(span), None) => Setting::Wrong(span),
    }
}

pub(super) struct LogTable {
    format: Setting<LogFormat>,
    level: Setting<Level>,
    keys: Setting<LogKeys>,
}

impl LogTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let levels = [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ];
        let keys = [("hashed", LogKeys::Hashed), ("plain", LogKeys::Plain)];
        let table = Self {
            format: section.read("format", |item| item.choice(&formats, &[])).or(LogFormat::Text),
            level: section.read("level", |item| item.choice(&levels, &[])).or(Level::INFO),
            keys: section.read("keys", |item| item.choice(&keys, &[])).or(LogKeys::Hashed),
        };
        section.finish();
        table
    }

    pub(super) fn build(self) -> Option<LogConfig> {
        Some(LogConfig { format: self.format.take()?, level: self.level.take()?, keys: self.keys.take()? })
    }
}

pub(super) struct AdminTable {
    /// `None`: off.
    listen: Setting<Option<SocketAddr>>,
    token: Setting<Secret>,
}

impl AdminTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let table = Self {
            listen: section.read("listen", address::listen_or_off).or(Some(SocketAddr::from((LOOPBACK, 9464)))),
            token: section.read("token", token),
        };
        section.finish();
        table
    }

    pub(super) fn check(&self, server: &ServerTable, report: &FileReport<'_>) {
        let Some(Some(admin)) = self.listen.get() else { return };
        for (client, span) in server.addresses().filter(|(client, _)| collide(*client, *admin)) {
            let given = server.listen.span().map(|_| span.clone());
            report.add(
                self.listen.span().or(given),
                format!("admin.listen ({admin}) and server.listen ({client}) are the same port"),
                "give each its own, or turn the admin listener off: admin.listen = \"off\"",
            );
        }
    }

    pub(super) fn build(self) -> Option<Option<AdminConfig>> {
        let token = self.token.optional()?;
        Some(self.listen.take()?.map(|listen| AdminConfig { listen, token }))
    }
}

/// Whether the second of two listeners could not be bound.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (any || a.ip() == b.ip())
}

pub(super) struct UpstreamTable {
    url: Setting<address::UpstreamUrl>,
    connect_timeout: Setting<Duration>,
    response_timeout: Setting<Duration>,
    pub(super) attempt_timeout: Setting<Duration>,
    idle_timeout: Setting<Duration>,
    guarded_idle: Setting<Duration>,
    preserve_host: Setting<bool>,
    header_case: Setting<HeaderCase>,
    http2: Setting<bool>,
    tls: ClientTls,
}

impl UpstreamTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let advice = "name the backend:\n  [upstream]\n  url = \"http://127.0.0.1:3000\"";
        let table = Self {
            url: section.required("url", advice, address::upstream),
            connect_timeout: section.read("connect_timeout", above_zero).or(seconds(2)),
            response_timeout: section.read("response_timeout", above_zero),
            attempt_timeout: section.read("attempt_timeout", above_zero),
            idle_timeout: section.read("idle_timeout", from_zero).or(seconds(4)),
            guarded_idle: section.read("guarded_idle", from_zero).or(seconds(1)),
            preserve_host: section.read("preserve_host", Item::boolean).or(true),
            header_case: section.read("header_case", header_case).or(HeaderCase::Lower),
            http2: section.read("http2", Item::boolean).or(false),
            tls: ClientTls::read(&section),
        };
        section.finish();
        table
    }

    /// The defaults that depend on other keys; `longest_wait` is the longest that a route says.
    pub(super) fn fill_in(&mut self, longest_wait: Option<Duration>) {
        let (response, attempt) = (mem::take(&mut self.response_timeout), mem::take(&mut self.attempt_timeout));
        [self.response_timeout, self.attempt_timeout] = fallback::timeouts(response, attempt, longest_wait);
    }

    pub(super) fn check(&mut self, server: &ServerTable, report: &FileReport<'_>) {
        let why = "an attempt must last as long as its client may wait";
        let attempt = ("attempt_timeout", &self.attempt_timeout);
        Order { report }.durations(attempt, ("response_timeout", &self.response_timeout), why);
        let is_tls = self.url.get().map(|url| matches!(url, address::UpstreamUrl::Https(_)));
        self.tls.check("upstream", "the backend", ("https", "https://…"), (is_tls, self.url.span()), report);
        if let Some(url) = self.url.get()
            && let Some(upstream) = address::local(url)
            && let Some((own, _)) = server.addresses().find(|(own, _)| collide(*own, upstream))
        {
            report.add(
                self.url.span(),
                format!("upstream.url is onlyonce itself: it listens on {own}"),
                "name the backend's own address, or change server.listen",
            );
        }
    }

    pub(super) fn build(self) -> Option<UpstreamConfig> {
        let address = match self.url.take()? {
            address::UpstreamUrl::Http(authority) => UpstreamAddress::Http(authority),
            address::UpstreamUrl::Unix(path) => UpstreamAddress::Unix(path),
            address::UpstreamUrl::Https(authority) => UpstreamAddress::Https(authority, self.tls.client?),
        };
        Some(UpstreamConfig {
            address,
            connect_timeout: self.connect_timeout.take()?,
            response_timeout: self.response_timeout.take()?,
            attempt_timeout: self.attempt_timeout.take()?,
            idle_timeout: self.idle_timeout.take()?,
            guarded_idle: self.guarded_idle.take()?,
            preserve_host: self.preserve_host.take()?,
            header_case: self.header_case.take()?,
            http2: self.http2.take()?,
        })
    }
}

pub(super) struct StoreTable {
    url: Setting<StoreUrl>,
    password: Setting<RedisPassword>,
    tls: ClientTls,
    prefix: Setting<String>,
    timeout: Setting<Duration>,
    pub(super) on_error: Setting<OnStoreError>,
    digest_key: Setting<Secret>,
    durability: Setting<Durability>,
    accept_eviction: Setting<bool>,
    replica_acks: Setting<u64>,
}

impl StoreTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let advice = "say where records are kept:\n  [store]\n  url = \"redis://127.0.0.1:6379/0\"\n\
                      or, for one sidecar, on its disk: url = \"embedded:/var/lib/onlyonce\"";
        let durability = [("disk", Durability::Disk), ("process", Durability::Process)];
        let table = Self {
            url: section.required("url", advice, store_url::read),
            password: section.read("password", store_url::password),
            tls: ClientTls::read(&section),
            prefix: section.read("prefix", prefix).or("onlyonce".to_owned()),
            timeout: section.read("timeout", above_zero).or(Duration::from_millis(500)),
            on_error: section.read("on_error", layer::on_error).or(OnStoreError::Reject),
            digest_key: section.read("digest_key", digest_key),
            durability: section.read("durability", |item| item.choice(&durability, &[])).or(Durability::Disk),
            accept_eviction: section.read("accept_eviction", Item::boolean).or(false),
            replica_acks: section.read("replica_acks", |item| item.number(0..=MOST_REPLICAS)).or(0),
        };
        section.only("encryption_keys", &Vec::new(), "leave it out: records are kept as they are", texts);
        section.finish();
        table
    }

    pub(super) fn check(&mut self, report: &FileReport<'_>) {
        let is_tls = self.url.get().map(|url| matches!(url, StoreUrl::Redis(_, true)));
        if let (Setting::Given(1.., span), Some(StoreUrl::Other(_))) = (&self.replica_acks, self.url.get()) {
            report.add(
                Some(span.clone()),
                "store.replica_acks is for a Redis, and store.url is something else",
                "leave it out",
            );
        }
        self.tls.check("store", "Redis", ("TLS", "rediss://…"), (is_tls, self.url.span()), report);
        match self.url.get() {
            Some(StoreUrl::Redis(RedisAddress { password: Some(_), .. }, _)) if self.password.span().is_some() => {
                report.add(
                    self.password.span(),
                    "there are two passwords: store.url has one, too",
                    "take one of them out; a user without a password in store.url is right: redis://user@host",
                )
            }
            Some(StoreUrl::Other(_)) if self.password.span().is_some() => report.add(
                self.password.span(),
                "store.password is for a Redis, and store.url is something else",
                "leave it out",
            ),
            Some(StoreUrl::Redis(..) | StoreUrl::Other(_)) | None => {}
        }
    }

    pub(super) fn build(self) -> Option<StoreConfig> {
        let location = match self.url.take()? {
            StoreUrl::Redis(mut address, is_tls) => {
                address.password = address.password.or(self.password.optional()?);
                address.tls = if is_tls { Some(self.tls.client?) } else { None };
                StoreLocation::Redis(address)
            }
            StoreUrl::Other(location) => location,
        };
        Some(StoreConfig {
            location,
            prefix: self.prefix.take()?,
            timeout: self.timeout.take()?,
            on_error: self.on_error.take()?,
            digest_key: self.digest_key.optional()?,
            durability: self.durability.take()?,
            accept_eviction: self.accept_eviction.take()?,
            replica_acks: self.replica_acks.take()?,
        })
    }
}

/// `ca`, `client_cert` and `client_key` of a table whose `url` may ask for TLS.
struct ClientTls {
    ca: Setting<tls::Authorities>,
    client_cert: Setting<tls::CertificateChain>,
    client_key: Setting<tls::PrivateKey>,
    /// Made of them, where the URL asks for it and they are right.
    client: Option<tls::TlsClient>,
}

impl ClientTls {
    fn read(section: &Section<'_>) -> Self {
        Self {
            ca: section.read("ca", pem::authorities),
            client_cert: section.read("client_cert", pem::chain),
            client_key: section.read("client_key", pem::key),
            client: None,
        }
    }

    /// `what` names the protocol, and `form` how its URLs begin.
    fn check(
        &mut self,
        table: &str,
        server: &str,
        (what, form): (&str, &str),
        (is_tls, url): (Option<bool>, Option<ByteRange>),
        report: &FileReport<'_>,
    ) {
        match is_tls {
            Some(true) => {
                let names = ["client_cert", "client_key"].map(|key| format!("{table}.{key}"));
                let identity =
                    pem::identity(&self.client_cert, &self.client_key, [names[0].as_str(), names[1].as_str()], report);
                let authorities = match self.ca {
                    Setting::Absent => tls::Authorities::of_system(),
                    _ => self.ca.get().cloned(),
                };
                if let (Setting::Absent, None) = (&self.ca, &authorities) {
                    report.add(
                        url,
                        format!("no certificate of {server} can be believed: this machine knows no authorities"),
                        format!("install them (ca-certificates on Debian), or name {server}'s: ca = \"ca.pem\""),
                    );
                }
                self.client = authorities.map(|authorities| tls::TlsClient { authorities, identity });
            }
            Some(false) => {
                let given = [
                    ("ca", self.ca.span()),
                    ("client_cert", self.client_cert.span()),
                    ("client_key", self.client_key.span()),
                ];
                for (key, span) in given.into_iter().filter(|(_, span)| span.is_some()) {
                    report.add(
                        span,
                        format!("{table}.{key} is for {what}, and {table}.url is something else"),
                        format!("write url = \"{form}\", or leave {key} out"),
                    );
                }
            }
            None => {}
        }
    }
}

/// `:` parts the names in the store, and braces mean something to a Redis Cluster.
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

fn token(item: &Item<'_>) -> Option<Secret> {
    let text = item.text()?;
    if !text.value.is_empty() && text.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(Secret::new(text.value));
    }
    item.refuse(
        "admin.token is empty, or has characters that cannot stand in a header",
        "ASCII letters, digits and punctuation without spaces are right: openssl rand -hex 32",
    )
}

fn texts(item: &Item<'_>) -> Option<Vec<(String, ByteRange)>> {
    item.list(|item| item.text().map(|text| text.value))
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
