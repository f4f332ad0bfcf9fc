//! Requests of the form guard's script, and what it is told of the backend's answers.

use http::StatusCode;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION, REFERER, SET_COOKIE, TRAILER,
    USER_AGENT,
};

use super::body::response::{ProxyResponse, ResponseBody};
use super::event::Event;
use super::head::{self, Head};
use super::refused_page::{KeepsPages, is_html};
use crate::form_guard::{FIELDS_OF_BYTES, KeyPlace};
use crate::problem::{self, ProblemFormat, SCRIPT_FETCH, SCRIPT_FORM};
use crate::rule::{FingerprintMode, Rule, Selector};

/// In an answer: it is for the script already.
#[derive(Clone)]
pub(super) struct ForScript;

/// A request of the script.
pub(super) struct ScriptRequest {
    key: HeaderValue,
    /// For a form, and not for a page that reads the answer itself.
    pub(super) is_form: bool,
    /// It was sent before with this key, and what became of that is not known to the script.
    pub(super) is_repeat: bool,
    /// Its path and query, for targets that are relative to them.
    path: String,
    /// The page with the form.
    page: Option<HeaderValue>,
    /// The host that the request is for, which is that of the page.
    host: Option<HeaderValue>,
    /// Whether a navigation with the same fields is the same operation.
    replays: Replays,
}

/// Whether a navigation of the browser, with the fields of the form, is a repeat of the script's request.
enum Replays {
    Never,
    /// Unless the answer sets one of these cookies.
    Unless(Vec<String>),
    /// Unless it sets any.
    UnlessAny,
}

const HTML: HeaderValue = HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8");

/// In the place of a key: the page has filled in the field itself.
const OWN: &str = "own";

/// Fields that describe a body, beside those of its bytes.
static FIELDS_OF_CONTENT: [HeaderName; 7] =
    [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE, CONTENT_DISPOSITION, ETAG, LAST_MODIFIED, TRAILER];

impl ScriptRequest {
    /// Takes the script's key out of the head. `None`: the request is not the script's. Boxed, so that other requests keep no
    /// room for it.
    pub(super) fn take(head: &mut Head) -> Option<Box<Self>> {
        let form = head.headers.remove(SCRIPT_FORM);
        let is_form = form.is_some();
        let sent = form.or_else(|| head.headers.remove(SCRIPT_FETCH))?;
        // A comma behind the key marks a repeat.
        let mut parts = sent.as_bytes().splitn(2, |byte| *byte == b',');
        let key = parts.next().and_then(|key| HeaderValue::from_bytes(key).ok())?;
        let is_repeat = parts.next().is_some();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let (page, host) = (head.headers.get(REFERER).cloned(), head::authority(&head.uri, &head.headers));
        Some(Box::new(Self { key, is_form, is_repeat, path, page, host, replays: Replays::Never }))
    }

    /// How it is told of a problem.
    pub(super) fn problem_format(&self) -> ProblemFormat {
        ProblemFormat::Script { has_own_key: self.key == OWN }
    }

    /// Puts the key where the route expects it, unless that is in the body, and asks for a page.
    pub(super) fn prepare(&mut self, rule: &Rule, head: &mut Head) {
        let name = rule.key.iter().find_map(|part| match part {
            Selector::Header(name) => Some(name),
            _ => None,
        });
        // Another header may be a part of the key: one that only the client's edge may set.
        if KeyPlace::of(rule) == Some(KeyPlace::Header)
            && let Some(name) = name
            && !head.headers.contains_key(name)
            && self.key != OWN
            && let Ok(key) = HeaderValue::from_bytes(&[b"\"", self.key.as_bytes(), b"\""].concat())
        {
            head.headers.insert(name, key);
        }
        if !self.is_form {
            return;
        }
        if head.headers.get(ACCEPT).is_none_or(|accept| accept == "*/*") {
            head.headers.insert(ACCEPT, HTML);
        }
        self.replays = Replays::of(rule, &head.headers);
        if !matches!(self.replays, Replays::Never) {
            head.extensions.insert(KeepsPages(self.key.clone()));
        }
    }

    /// What the script is told of the answer of a guarded route.
    pub(super) fn tell_of(&self, answer: ProxyResponse, event: &Event) -> ProxyResponse {
        if event.is_denied() { self.tell_denial(answer) } else { self.tell(answer, event.is_kept()) }
    }

    /// Says what the script is to do with an answer of the backend. `is_kept`: it is in the record.
    fn tell(&self, answer: ProxyResponse, is_kept: bool) -> ProxyResponse {
        // The page reads it, as the backend has sent it.
        if !self.is_form || answer.extensions().get::<ForScript>().is_some() {
            return answer;
        }
        let (mut parts, mut body) = answer.into_parts();
        let is_empty = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT].contains(&parts.status);
        // Not kept. The navigation gets it again, and sends the form on, as without the script.
        let sends_on = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT].contains(&parts.status);
        let verb = if let Some(target) = self.target(parts.status, &parts.headers) {
            // A redirection that fetch follows would load the page twice, and eat what is shown once.
            parts.status = StatusCode::OK;
            target
        } else if (is_kept && !is_empty && !parts.status.is_server_error() || sends_on)
            && self.replays.after(&parts.headers)
        {
            HeaderValue::from_static(if sends_on { "send" } else { "go" })
        } else {
            body = ResponseBody::from_bytes(problem::backend_answered(parts.status, is_html(&parts.headers)));
            if is_empty {
                parts.status = StatusCode::OK;
            }
            for name in FIELDS_OF_CONTENT.iter().chain(&FIELDS_OF_BYTES) {
                parts.headers.remove(name);
            }
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            HeaderValue::from_static("say")
        };
        if parts.status.is_redirection() {
            // A redirection that fetch follows would send the form to where no route may guard it.
            parts.status = StatusCode::OK;
            parts.headers.remove(LOCATION);
        }
        parts.headers.insert(SCRIPT_FORM, verb);
        ProxyResponse::from_parts(parts, body)
    }

    /// The same for an answer of the authorization server to a form: the caller may not see what is recorded.
    fn tell_denial(&self, answer: ProxyResponse) -> ProxyResponse {
        if !self.is_form {
            return answer;
        }
        let (mut parts, _) = answer.into_parts();
        let body = ResponseBody::from_bytes(problem::replay_denied(parts.status));
        for name in FIELDS_OF_CONTENT.iter().chain(&FIELDS_OF_BYTES) {
            parts.headers.remove(name);
        }
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        parts.headers.insert(SCRIPT_FORM, HeaderValue::from_static("say"));
        ProxyResponse::from_parts(parts, body)
    }

    /// `go URL`, where an answer names the page that is to be shown.
    fn target(&self, status: StatusCode, headers: &HeaderMap) -> Option<HeaderValue> {
        let names_it = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => true,
            StatusCode::CREATED => !is_html(headers),
            _ => false,
        };
        let location = headers.get(LOCATION).filter(|_| names_it)?;
        let location = resolved(location.as_bytes(), &self.path)?;
        let page = self.page.as_ref().and_then(|page| page.to_str().ok());
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        HeaderValue::try_from(format!("go {}", loaded(location, page, host))).ok()
    }
}

impl Replays {
    fn of(rule: &Rule, request: &HeaderMap) -> Self {
        let is_field = |part: &&Selector| matches!(part, Selector::Form(_));
        let is_encoded = request.get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(FORM_MEDIA));
        let is_comparable = match rule.fingerprint {
            FingerprintMode::Auto { .. } | FingerprintMode::Form | FingerprintMode::None => true,
            // A navigation chooses another boundary.
            FingerprintMode::Raw | FingerprintMode::Json { .. } => is_encoded,
        };
        if !is_comparable || rule.key.iter().filter(is_field).count() != 1 {
            return Self::Never;
        }
        let mut cookies = Vec::new();
        for part in rule.key.iter().chain(&rule.scope) {
            match part {
                Selector::Cookie(name) => cookies.push(name.clone()),
                Selector::Header(name) if *name == COOKIE => return Self::UnlessAny,
                Selector::Header(name) if [AUTHORIZATION, HOST, USER_AGENT].contains(name) => {}
                // The script writes it, or a navigation may send another one.
                Selector::Header(_) | Selector::Json(_) => return Self::Never,
                Selector::Query(_) | Selector::Form(_) | Selector::Path(_) | Selector::Host => {}
                Selector::Jwt(_) | Selector::Ip | Selector::Date(_) => {}
            }
        }
        Self::Unless(cookies)
    }

    /// The same, after an answer that may have changed the caller's cookies.
    fn after(&self, answer: &HeaderMap) -> bool {
        let mut set = answer.get_all(SET_COOKIE).iter().map(|line| {
            let name = line.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
            name.trim_ascii()
        });
        match self {
            Self::Never => false,
            Self::Unless(cookies) => !set.any(|name| cookies.iter().any(|cookie| cookie.as_bytes() == name)),
            Self::UnlessAny => set.next().is_none(),
        }
    }
}

const FORM_MEDIA: &[u8] = b"application/x-www-form-urlencoded";

/// A URL that the browser loads. One that differs from that of the page by its fragment only would be scrolled to: it gets
/// an empty part of the query. A page that sends no `Referer`, or only its origin, may be any of its `host`. A URL of
/// another host stays as it is: it may be signed.
fn loaded(location: String, page: Option<&str>, host: Option<&str>) -> String {
    let Some((url, fragment)) = location.split_once('#') else { return location };
    if let (Some(other), Some(own)) = (authority_of(url), page.and_then(authority_of).or(host))
        && !other.eq_ignore_ascii_case(own)
    {
        return location;
    }
    let (origin, path) = match page.and_then(|page| page.split_once("://")) {
        Some((scheme, rest)) => rest
            .split_once('/')
            .map_or(("", ""), |(host, _)| page.unwrap_or_default().split_at(scheme.len() + "://".len() + host.len())),
        None => ("", ""),
    };
    let is_same = path.len() <= 1 || url == path || url.strip_prefix(origin) == Some(path);
    match is_same {
        true if url.contains('?') => format!("{url}&#{fragment}"),
        true => format!("{url}?#{fragment}"),
        false => location,
    }
}

/// Host and port of a URL that begins with them, or with a scheme and them.
fn authority_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("//")?;
    let begins = scheme.is_empty() || scheme.ends_with(':') && !scheme.contains(['/', '?']);
    rest.split(['/', '?', '#']).next().filter(|_| begins)
}

/// A location as a URL that a script may open. `None`: a URL that would run in the page, or none at all.
fn resolved(location: &[u8], path: &str) -> Option<String> {
    let text = location.trim_ascii();
    // Browsers leave these out where they read a URL: what follows could be the rest of "javascript:".
    if text.is_empty() || text.iter().any(u8::is_ascii_control) {
        return None;
    }
    let begins = |start: &[u8]| text.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start));
    let is_whole = begins(b"/") || begins(b"http://") || begins(b"https://");
    let scheme = text.iter().position(|byte| *byte == b':');
    let is_relative = scheme.is_none_or(|at| text[..at].iter().any(|byte| matches!(byte, b'/' | b'?' | b'#')));
    if !is_whole && !is_relative {
        return None;
    }
    // RFC 3986, 5.2.2: a query keeps the path, a fragment the query too, and anything else the folder.
    let without_query = path.split('?').next().unwrap_or_default();
    let base = match text.first() {
        Some(b'#') => path,
        Some(b'?') => without_query,
        _ => &without_query[..without_query.rfind('/').map_or(0, |at| at + 1)],
    };
    let mut out = String::from(if is_whole { "" } else { base });
    for byte in text {
        if byte.is_ascii_graphic() { out.push(char::from(*byte)) } else { out.push_str(&format!("%{byte:02X}")) }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_are_opened() {
        for (location, opened) in [
            ("/orders/1", Some("/orders/1")),
            ("1?a=b", Some("/shop/1?a=b")),
            ("https://other.test/x", Some("https://other.test/x")),
            ("HTTP://other.test/", Some("HTTP://other.test/")),
            ("//other.test/x", Some("//other.test/x")),
            ("a/b:c", Some("/shop/a/b:c")),
            ("?saved=1", Some("/shop/new.php?saved=1")),
            ("#done", Some("/shop/new.php?x=1#done")),
            ("/a b", Some("/a%20b")),
            ("/\u{e4}", Some("/%C3%A4")),
            ("javascript:alert(1)", None),
            ("java\tscript:alert(1)", None),
            ("data:text/html,x", None),
            ("\u{1}javascript:alert(1)", None),
            ("", None),
        ] {
            assert_eq!(resolved(location.as_bytes(), "/shop/new.php?x=1").as_deref(), opened, "{location:?}");
        }
    }

    #[test]
    fn a_page_is_loaded_and_not_only_scrolled() {
        let page = Some("https://shop.test/form?x=1");
        for (location, page, opened) in [
            ("/form?x=1#done", page, "/form?x=1&#done"),
            ("https://shop.test/form?x=1#done", page, "https://shop.test/form?x=1&#done"),
            ("/form#done", Some("https://shop.test/form"), "/form?#done"),
            ("/form#done", None, "/form?#done"),
            // The page sends its origin only.
            ("/form#done", Some("https://shop.test/"), "/form?#done"),
            ("/form#done", Some("about:blank"), "/form?#done"),
            ("/form#done", page, "/form#done"),
            ("/form?x=1", page, "/form?x=1"),
            ("https://other.test/form?x=1#done", page, "https://other.test/form?x=1#done"),
            ("//shop.test/form?x=2#done", page, "//shop.test/form?x=2#done"),
            // The URL of another host may be signed.
            ("https://pay.test/go?sig=1#x", None, "https://pay.test/go?sig=1#x"),
            ("//pay.test/go#x", Some("https://shop.test/"), "//pay.test/go#x"),
            ("HTTPS://SHOP.test/form#x", None, "HTTPS://SHOP.test/form?#x"),
            ("/go?to=https://pay.test/#x", None, "/go?to=https://pay.test/&#x"),
        ] {
            assert_eq!(loaded(location.to_owned(), page, Some("shop.test")), opened, "{location} from {page:?}");
        }
    }
}
