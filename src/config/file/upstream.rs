//! `[upstream]`

use std::mem;
use std::time::Duration;

use super::super::{HeaderCase, UpstreamAddress};
use super::address;
use super::declare::settings;
use super::duration::{above_zero, from_zero, seconds};
use super::fallback;
use super::item::Item;
use super::report::FileReport;
use super::section::Section;
use super::server::ServerTable;
use super::setting::Setting;
use super::tls_keys::ClientTls;
use crate::tls;

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

    /// The authorities that the file names for the backend.
    pub(super) fn authorities(&self) -> Option<&tls::Authorities> {
        self.tls.authorities()
    }

    fn address(&self) -> Option<UpstreamAddress> {
        Some(match self.url.get()?.clone() {
            address::UpstreamUrl::Http(authority) => UpstreamAddress::Http(authority),
            address::UpstreamUrl::Unix(path) => UpstreamAddress::Unix(path),
            address::UpstreamUrl::Https(authority) => UpstreamAddress::Https(authority, self.tls.client()?),
        })
    }
}
