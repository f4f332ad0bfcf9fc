//! `replay_auth` and `replay_auth_cache`.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};

use super::address::{self, UpstreamUrl};
use super::item::{Item, Text};
use super::report::FileReport;
use super::setting::Setting;
use crate::rule::{AuthServer, ReplayAuth};
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
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => {
            return item.refuse(
                "replay_auth is asked over TLS only where the backend is the one who is asked",
                "name a path of a backend with https: \"/verify\"; or a server on this machine or in this network: \
                 \"http://127.0.0.1:4180/verify\"",
            );
        }
        _ => return item.refuse("replay_auth is neither a path nor an http:// URL", RIGHT),
    }
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
        Ok(authority) if is_right(&authority) => Some((AuthServer::Http(authority), target(item, &text, path)?)),
        _ => item.refuse("replay_auth has no valid host and port", RIGHT),
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

/// Both keys of one route. `own_cache` is the route's own `replay_auth_cache`, and `listening` where requests arrive. `None`:
/// wrong, and reported.
pub(super) fn of_route(
    location: Setting<(AuthServer, PathAndQuery)>,
    cache: Setting<Duration>,
    own_cache: &Setting<Duration>,
    listening: &[SocketAddr],
    report: &FileReport<'_>,
) -> Option<Option<ReplayAuth>> {
    if let (Setting::Absent, Setting::Given(_, span)) = (&location, own_cache) {
        report.add(
            Some(span.clone()),
            "replay_auth_cache keeps what replay_auth was told, and nobody is asked on this route",
            format!("leave it out, or say who is asked: {RIGHT}"),
        );
    }
    if let Setting::Given((AuthServer::Http(authority), _), span) = &location
        && let Some(asked) = address::local(&UpstreamUrl::Http(authority.clone()))
        && let Some(own) = listening.iter().find(|own| address::collide(**own, asked))
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
