//! `replay_auth` and `replay_auth_cache`.

use std::cell::OnceCell;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};

use super::address::{self, UpstreamUrl};
use super::item::{Item, Text};
use super::report::FileReport;
use super::route::Bounds;
use super::setting::Setting;
use super::tls_keys;
use crate::rule::{AuthServer, ReplayAuth};
use crate::tls::{self, Authorities, TlsClient};
use crate::units::HumanDuration;

const RIGHT: &str = "name a path of the backend: \"/verify\", or another server: \"http://127.0.0.1:4180/verify\"";

/// A right that is withdrawn is honoured for so long at most.
const LONGEST: Duration = Duration::from_secs(300);

/// Who is asked, and what for. `cache` is another key.
pub(super) fn location(item: &Item<'_>) -> Option<(AuthServer, PathAndQuery)> {
    let text = item.text()?;
    if text.value.starts_with('/') {
        return Some((AuthServer::Backend, target(item, &text, &text.value)?));
    }
    let Some((scheme, rest)) = text.value.split_once("://") else {
        return item.refuse("replay_auth is neither a path nor a URL", RIGHT);
    };
    let server = match scheme.to_ascii_lowercase().as_str() {
        "http" => AuthServer::Http,
        "https" => AuthServer::Https,
        _ => return item.refuse("replay_auth is neither a path nor an http:// or https:// URL", RIGHT),
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    // It is not quoted: it may hold a password.
    if authority.contains('@') {
        return item.refuse("replay_auth holds a user or a password", RIGHT);
    }
    let names_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let is_right = |authority: &Authority| {
        let port = authority.port_u16();
        !authority.host().is_empty() && port != Some(0) && port.is_some() == names_port
    };
    match authority.parse::<Authority>() {
        Ok(authority) if is_right(&authority) => with_target(item, server(authority), target(item, &text, path)?),
        _ => item.refuse("replay_auth has no valid host and port", RIGHT),
    }
}

fn with_target(item: &Item<'_>, server: AuthServer, target: PathAndQuery) -> Option<(AuthServer, PathAndQuery)> {
    match &server {
        AuthServer::Https(name) if tls::server_name(name.host()).is_none() => item.refuse(
            "replay_auth has a host that no certificate can be made for",
            "with https, the host is a domain name or an IP address: \"https://auth.example.com/verify\"",
        ),
        AuthServer::Backend | AuthServer::Http(_) | AuthServer::Https(_) => Some((server, target)),
    }
}

/// A path, with a query or without.
fn target(item: &Item<'_>, text: &Text, target: &str) -> Option<PathAndQuery> {
    let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let parsed = target.parse::<PathAndQuery>().ok();
    let right = parsed.filter(|_| is_plain && target.starts_with('/') && !target.starts_with("//"));
    match right {
        Some(target) => Some(target),
        None => item.refuse(format!("{text} does not name a path"), RIGHT),
    }
}

pub(super) fn cache(item: &Item<'_>) -> Option<Duration> {
    let time = item.duration(Duration::ZERO)?;
    if time <= LONGEST {
        return Some(time);
    }
    let message = format!("replay_auth_cache cannot be {}", HumanDuration(time));
    let most = HumanDuration(LONGEST);
    item.refuse(message, format!("it is at most {most}: for so long, a right that was withdrawn is still honoured"))
}

/// What is needed to ask servers over TLS. The authorities of the operating system are read when a route needs them.
pub(super) struct AuthTls<'a> {
    /// Those that the file names for the backend. They may vouch for these servers as well.
    named: Option<&'a Authorities>,
    /// `None`: this machine has none, and the file names none.
    found: OnceCell<Option<Authorities>>,
}

impl<'a> AuthTls<'a> {
    pub(super) fn new(named: Option<&'a Authorities>) -> Self {
        Self { named, found: OnceCell::new() }
    }

    fn authorities(&self) -> Option<&Authorities> {
        let read = || match (Authorities::of_system(), self.named) {
            (Some(own), Some(named)) => Some(own.and(named)),
            (Some(only), None) => Some(only),
            (None, named) => named.cloned(),
        };
        self.found.get_or_init(read).as_ref()
    }

    /// `None`: no route needs it. The certificate for the backend is shown to the backend alone.
    pub(super) fn client(self) -> Option<TlsClient> {
        let authorities = self.found.into_inner()??;
        Some(TlsClient { authorities, identity: None })
    }
}

/// Both keys of one route. `own_cache` is the route's own `replay_auth_cache`. `None`: wrong, and reported.
pub(super) fn of_route(
    location: Setting<(AuthServer, PathAndQuery)>,
    cache: Setting<Duration>,
    own_cache: &Setting<Duration>,
    bounds: &Bounds<'_>,
    report: &FileReport<'_>,
) -> Option<Option<ReplayAuth>> {
    if let (Setting::Absent, Setting::Given(_, span)) = (&location, own_cache) {
        report.add(
            Some(span.clone()),
            "replay_auth_cache keeps what replay_auth was told, and nobody is asked on this route",
            format!("leave it out, or say who is asked: {RIGHT}"),
        );
    }
    let other = location.get().and_then(|(server, _)| match server {
        AuthServer::Backend => None,
        AuthServer::Http(authority) => Some(UpstreamUrl::Http(authority.clone())),
        AuthServer::Https(authority) => Some(UpstreamUrl::Https(authority.clone())),
    });
    if let (Setting::Given(_, span), Some(UpstreamUrl::Https(_))) = (&location, &other)
        && bounds.auth_tls.authorities().is_none()
    {
        tls_keys::no_authorities("the authorization server", "", Some(span.clone()), report);
    }
    if let (Setting::Given(_, span), Some(other)) = (&location, other)
        && let Some(asked) = address::local(&other)
        && let Some(own) = bounds.listening.iter().find(|own| address::collide(**own, asked))
    {
        report.add(
            Some(span.clone()),
            format!("replay_auth is onlyonce itself: it listens on {own}"),
            "for a path of the backend, write the path alone: replay_auth = \"/verify\"",
        );
    }
    let cache = cache.or(Duration::ZERO).take();
    Some(location.optional()?.zip(Some(cache?)).map(|((server, target), cache)| ReplayAuth { server, target, cache }))
}
