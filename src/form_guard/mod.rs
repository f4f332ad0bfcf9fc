//! The form guard: a script for pages. It makes one key for each intent, and sends a form once.
//!
//! `form.js` is the script. `server.form_guard` sets its path.

mod inject;
mod script;

use std::collections::{HashMap, HashSet};
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use ring::digest;

use crate::config::ServerConfig;
use crate::list;
use crate::rule::Routes;
pub use inject::{FIELDS_OF_BYTES, Inserter, Untouched, varies};
pub use script::KeyPlace;

/// The script of one configuration.
pub struct FormGuard {
    /// The configured path, such as `/.onlyonce/form.js`.
    path: String,
    /// The start of every path that contains a hash, such as `/.onlyonce/form.`.
    stem: String,
    /// The extension, such as `.js`.
    extension: String,
    /// The script for all hosts that no route names.
    common: Script,
    /// The scripts for hosts that routes name.
    by_host: HashMap<String, Script>,
    /// The pages that get the tag. `None` if no page does.
    pages: Option<matchit::Router<()>>,
}

/// The script for pages of one host.
struct Script {
    /// The hash of the script's bytes, in hex.
    hash: String,
    /// The value for the attribute `integrity` (Subresource Integrity, 3.5).
    integrity: String,
    text: Bytes,
    packed: Bytes,
}

/// What a page needs to include the script.
#[derive(Debug, PartialEq, Eq)]
pub struct ScriptTag<'a> {
    /// The host of the page. `None`: any that no route names.
    pub host: Option<&'a str>,
    /// The path that contains the hash. Its response may be cached forever.
    pub path: String,
    /// The value for the attribute `integrity`.
    pub integrity: &'a str,
}

/// The number of hex digits of the hash in a path.
const HASH_DIGITS: usize = 16;

impl Script {
    fn new(routes: &Routes, host: Option<&str>) -> Self {
        let text = script::text(routes, host);
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let packed = packer.write_all(text.as_bytes()).and_then(|()| packer.finish());
        let packed = packed.expect("writing to memory does not fail");
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let integrity = STANDARD.encode(digest::digest(&digest::SHA384, text.as_bytes()));
        Self {
            hash: hash[..HASH_DIGITS].to_owned(),
            integrity: format!("sha384-{integrity}"),
            text: text.into(),
            packed: packed.into(),
        }
    }
}

impl FormGuard {
    /// `None` if the form guard is off.
    pub fn of(server: &ServerConfig, routes: &Routes) -> Option<Self> {
        let path = server.form_guard.clone()?;
        // A script is built once for each host, and not for each of its routes.
        let hosts: HashSet<&str> = routes.rules().iter().filter_map(|rule| rule.host.as_deref()).collect();
        let name = path.rfind('/').map_or(0, |at| at + 1);
        let dot = path[name..].rfind('.').map_or(path.len(), |at| name + at);
        Some(Self {
            stem: format!("{}.", &path[..dot]),
            extension: path[dot..].to_owned(),
            common: Script::new(routes, None),
            by_host: hosts.into_iter().map(|host| (host.to_owned(), Script::new(routes, Some(host)))).collect(),
            pages: pages(&server.form_guard_inject),
            path,
        })
    }

    /// The tags of all scripts: the common one, then those of hosts, by name.
    pub fn tags(&self) -> Vec<ScriptTag<'_>> {
        let tag = |host, script| ScriptTag { host, path: self.hashed_path(script), integrity: &script.integrity };
        let mut tags = vec![tag(None, &self.common)];
        tags.extend(self.by_host.iter().map(|(host, script)| tag(Some(host.as_str()), script)));
        tags.sort_by_key(|tag| tag.host);
        tags
    }

    fn script(&self, host: Option<&str>) -> &Script {
        host.and_then(|host| self.by_host.get(host)).unwrap_or(&self.common)
    }

    fn hashed_path(&self, script: &Script) -> String {
        format!("{}{}{}", self.stem, script.hash, self.extension)
    }

    /// The script, if the request asks for it.
    ///
    /// A page from another sidecar or an earlier configuration may ask for another hash. It gets this script too,
    /// because its form would be sent unguarded without a script.
    pub fn answer(
        &self,
        method: &Method,
        path: &str,
        host: Option<&str>,
        request: &HeaderMap,
    ) -> Option<Response<Bytes>> {
        if !path.starts_with(&self.stem[..self.stem.len() - 1]) || !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let hash = path.strip_prefix(&self.stem).and_then(|rest| rest.strip_suffix(&self.extension));
        let is_hash = |text: &str| text.len() == HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let script = self.script(host);
        let caching = match hash {
            _ if path == self.path => "no-cache",
            Some(hash) if hash == script.hash => "public, max-age=31536000, immutable",
            Some(hash) if is_hash(hash) => "no-store",
            Some(_) | None => return None,
        };
        // A weight of zero refuses (RFC 9110, 12.5.3).
        let accepts_gzip = |(name, weight): (&str, Option<u16>)| name.eq_ignore_ascii_case("gzip") && weight > Some(0);
        let is_packed = list::weighted(request, &ACCEPT_ENCODING).any(accepts_gzip);
        let tag = format!("\"{}{}\"", script.hash, if is_packed { "-gzip" } else { "" });
        let is_known = list::texts(request, &IF_NONE_MATCH).any(|known| known.trim_start_matches("W/") == tag);
        let body = match (is_known, is_packed) {
            (true, _) => Bytes::new(),
            (false, true) => script.packed.clone(),
            (false, false) => script.text.clone(),
        };
        let mut response = Response::new(body);
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, "text/javascript; charset=utf-8"),
            (CACHE_CONTROL, caching),
            (VARY, "accept-encoding"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if is_packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        Some(response)
    }
}

fn pages(patterns: &[String]) -> Option<matchit::Router<()>> {
    if patterns.is_empty() {
        return None;
    }
    let mut pages = matchit::Router::new();
    for pattern in patterns {
        // If two patterns match the same pages, one is enough.
        let _ = pages.insert(pattern, ());
    }
    Some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn guard(path: &str) -> FormGuard {
        let text = format!(
            "[server]\nform_guard = \"{path}\"\n[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n\
             [[route]]\nname = \"a\"\npath = \"/a\"\nscope = []\n"
        );
        let config = parse("t.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        FormGuard::of(&config.server, &config.routes).expect("it is on")
    }

    #[test]
    fn it_is_found_by_its_path_and_by_any_hash() {
        let guard = guard("/.onlyonce/form.js");
        let hashed = guard.tags().remove(0).path;
        assert!(hashed.starts_with("/.onlyonce/form.") && hashed.ends_with(".js"), "{hashed}");
        let caching = |path: &str| {
            let response = guard.answer(&Method::GET, path, None, &HeaderMap::new())?;
            Some(response.headers()[CACHE_CONTROL].to_str().expect("text").to_owned())
        };
        assert_eq!(caching("/.onlyonce/form.js").as_deref(), Some("no-cache"));
        assert_eq!(caching(&hashed).as_deref(), Some("public, max-age=31536000, immutable"));
        assert_eq!(caching("/.onlyonce/form.0123456789abcdef.js").as_deref(), Some("no-store"));
        for other in ["/.onlyonce/form.x.js", "/.onlyonce/form", "/.onlyonce/form.jsx", "/", "/.onlyonce/form.js/x"] {
            assert_eq!(caching(other), None, "{other}");
        }
        assert!(guard.answer(&Method::POST, "/.onlyonce/form.js", None, &HeaderMap::new()).is_none());
    }

    #[test]
    fn a_browser_that_has_it_is_told_so_and_one_that_knows_gzip_gets_less() {
        let guard = guard("/f");
        let accept = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip"))]);
        let packed = guard.answer(&Method::GET, "/f", None, &accept).expect("a script");
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        assert!(packed.body().len() < 2048);
        let mut again = accept.clone();
        again.insert(IF_NONE_MATCH, packed.headers()[ETAG].clone());
        assert_eq!(guard.answer(&Method::GET, "/f", None, &again).expect("an answer").status(), 304);
        for refused in ["gzip;q=0", "br, GZIP ; Q=0.000", "gzip;q=none", "*"] {
            again.insert(ACCEPT_ENCODING, HeaderValue::from_static(refused));
            let plain = guard.answer(&Method::GET, "/f", None, &again).expect("a script");
            let is_packed = plain.headers().contains_key(CONTENT_ENCODING);
            assert_eq!((plain.status(), is_packed), (StatusCode::OK, false), "{refused}");
        }
    }

    #[test]
    fn thousands_of_routes_of_one_host_are_ready_at_once() {
        let routes: String = (0..3_000)
            .map(|number| {
                format!(
                    "[[route]]\nname = \"r{number}\"\npath = \"/r{number}/orders\"\nhost = \"shop.test\"\n\
                     key = \"form:k\"\nscope = []\n"
                )
            })
            .collect();
        let text = format!(
            "[server]\nform_guard = \"/f.js\"\n[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n{routes}"
        );
        let config = parse("t.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let begun = std::time::Instant::now();
        let guard = FormGuard::of(&config.server, &config.routes).expect("it is on");
        // One script takes far less than a second, and one for each route takes minutes.
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
        assert_eq!(guard.tags().len(), 2);
    }
}
