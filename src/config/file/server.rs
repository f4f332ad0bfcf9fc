//! `[server]`

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::super::{HeaderCase, Listen, Threads};
use super::address;
use super::declare::settings;
use super::duration::{above_zero, from_zero, seconds};
use super::item::Item;
use super::path;
use super::report::{ByteRange, FileReport};
use super::section::Section;
use super::setting::Setting;
use super::tls_keys::identity;
use crate::rule::TrustedProxies;
use crate::tls;

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
            listen: Vec<(Listen, ByteRange)> = default(listen, vec![(Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))), 0..0)]);
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
            max_buffered: u64 = default(|item| item.size_above_zero("no body would find room"), 256 << 20), at_start;
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

fn not_empty<T>(item: &Item<'_>, list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() {
        return item.refuse(format!("{} is an empty list", item.name()), "name at least one address");
    }
    Some(list)
}
