//! The keys of TLS: of our own listener, and of connections to the backend and to Redis.

use super::declare::keys;
use super::pem;
use super::report::{ByteRange, FileReport};
use super::section::Section;
use super::setting::Setting;
use crate::tls;

keys! {
    /// `[server.tls]`
    struct IdentityKeys {
        cert: tls::CertificateChain = pem::chain;
        key: tls::PrivateKey = pem::key;
    }
}

/// The certificate for clients.
pub(super) fn identity(section: Section<'_>) -> Setting<tls::TlsIdentity> {
    let (report, span) = (section.report(), section.span());
    let IdentityKeys { cert, key } = IdentityKeys::read(&section);
    section.finish();
    let Some(span) = span else { return Setting::Absent };
    if let (Setting::Absent, Setting::Absent) = (&cert, &key) {
        let advice = "name the files:\n  cert = \"cert.pem\"\n  key = \"key.pem\"";
        report.add(Some(span.clone()), "server.tls names no certificate", advice);
    }
    match pem::identity(&cert, &key, ["server.tls.cert", "server.tls.key"], report) {
        Some(identity) => Setting::Given(identity, span),
        None => Setting::Wrong(span),
    }
}

keys! {
    /// The keys of a table whose `url` may ask for TLS.
    struct ClientTlsKeys {
        ca: tls::Authorities = pem::authorities;
        client_cert: tls::CertificateChain = pem::chain;
        client_key: tls::PrivateKey = pem::key;
    }
}

/// Those keys, and what they come to.
pub(super) struct ClientTls {
    keys: ClientTlsKeys,
    /// Where the URL asks for TLS and they are valid.
    client: Option<tls::TlsClient>,
}

impl ClientTls {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { keys: ClientTlsKeys::read(section), client: None }
    }

    /// What a connection needs, where the URL asks for TLS and the keys are valid.
    pub(super) fn client(&self) -> Option<tls::TlsClient> {
        self.client.clone()
    }

    /// The authorities that the table names itself.
    pub(super) fn authorities(&self) -> Option<&tls::Authorities> {
        self.keys.ca.get()
    }

    /// `what` names the protocol, and `form` how its URLs begin.
    pub(super) fn check(
        &mut self,
        table: &str,
        server: &str,
        (what, form): (&str, &str),
        (is_tls, url): (Option<bool>, Option<ByteRange>),
        report: &FileReport<'_>,
    ) {
        let ClientTlsKeys { ca, client_cert, client_key } = &self.keys;
        match is_tls {
            Some(true) => {
                let names = ["client_cert", "client_key"].map(|key| format!("{table}.{key}"));
                let identity = pem::identity(client_cert, client_key, names.each_ref().map(String::as_str), report);
                let authorities = match ca {
                    Setting::Absent => tls::Authorities::of_system(),
                    _ => ca.get().cloned(),
                };
                if let (Setting::Absent, None) = (ca, &authorities) {
                    let own = format!(", or name {server}'s: ca = \"ca.pem\"");
                    no_authorities(server, &own, url, report);
                }
                self.client = authorities.map(|authorities| tls::TlsClient { authorities, identity });
            }
            Some(false) => {
                let given = [("ca", ca.span()), ("client_cert", client_cert.span()), ("client_key", client_key.span())];
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

/// The machine has no authorities. `or` is another way out.
pub(super) fn no_authorities(server: &str, or: &str, url: Option<ByteRange>, report: &FileReport<'_>) {
    report.add(
        url,
        format!("no certificate of {server} can be believed: this machine knows no authorities"),
        format!("install them (ca-certificates on Debian){or}"),
    );
}
