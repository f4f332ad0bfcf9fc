//! Puts the script's tag into pages of backends that nobody can change.
//!
//! A page gets the tag only if it is certainly meant for a browser window, and only if its own policy permits the
//! script. Everything else passes unchanged.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, RANGE, VARY,
};
use http::{Method, StatusCode};
use lol_html::html_content::ContentType;
use lol_html::{MemorySettings, element, send};

use super::FormGuard;
use crate::list;

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Fields that describe the bytes of a body (RFC 9530; RFC 3230; RFC 2616, 14.15), or parts of it.
pub static FIELDS_OF_BYTES: [HeaderName; 6] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    CONTENT_LENGTH,
    ACCEPT_RANGES,
];

/// Why a page stays unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untouched {
    /// The response is not HTML, or not a page: a redirect, an error or a part.
    NoPage,
    /// It does not declare UTF-8.
    Charset,
    /// It has a content coding, although none was requested.
    Encoded,
    /// `Cache-Control: no-transform`
    NoTransform,
    /// Its Content-Security-Policy does not permit the script.
    Policy,
}

impl FormGuard {
    /// Whether some requests for this path get the script's tag. Then all of its answers go through [`varies`].
    pub fn has_page(&self, method: &Method, path: &str) -> bool {
        *method == Method::GET && self.pages.as_ref().is_some_and(|pages| pages.at(path).is_ok())
    }

    /// Whether a request for such a path asks for the page with the tag.
    pub fn takes(request: &HeaderMap) -> bool {
        request.get(SEC_FETCH_DEST).is_some_and(|dest| dest == "document") && !request.contains_key(RANGE)
    }

    /// Requests the page without a content coding, and converts the browser's validators to those of the backend.
    pub fn ask_for_page(&self, host: Option<&str>, request: &mut HeaderMap) {
        request.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // The backend's page may be unchanged, while the browser's copy has no tag or another one.
        request.remove(IF_MODIFIED_SINCE);
        let mark = self.mark(host);
        let own = list::texts(request, &IF_NONE_MATCH).filter_map(|tag| own_tag(tag, &mark));
        let own: Vec<String> = own.map(|tag| format!("\"{tag}\", W/\"{tag}\"")).collect();
        request.remove(IF_NONE_MATCH);
        if let (false, Ok(tags)) = (own.is_empty(), HeaderValue::try_from(own.join(", "))) {
            request.insert(IF_NONE_MATCH, tags);
        }
    }

    /// The end of the validator of a page with this tag.
    fn mark(&self, host: Option<&str>) -> String {
        format!("-onlyonce-{}", self.script(host).hash)
    }

    /// Changes the head of a response to that of the page with the tag, and returns the inserter (none for a 304). If
    /// the response stays unchanged, returns the reason.
    pub fn put_into(
        &self,
        status: StatusCode,
        answer: &mut HeaderMap,
        host: Option<&str>,
    ) -> Result<Option<Inserter>, Untouched> {
        if status == StatusCode::NOT_MODIFIED {
            rename(answer, &self.mark(host));
            return Ok(None);
        }
        let nonce = fitness(status, answer, host)?;
        rename(answer, &self.mark(host));
        for name in &FIELDS_OF_BYTES {
            answer.remove(name);
        }
        let nonce = nonce.map(|nonce| format!(" nonce=\"{nonce}\"")).unwrap_or_default();
        let path = self.hashed_path(self.script(host));
        let tag = format!("<script src=\"{path}\" data-forms=\"form\" defer{nonce}></script>");
        Ok(Some(Inserter::new(tag)))
    }
}

/// Says that navigations may get another answer: a cache must not give them one without the tag.
pub fn varies(answer: &mut HeaderMap) {
    if !list::names(answer, &VARY, "sec-fetch-dest") && !list::names(answer, &VARY, "*") {
        answer.append(VARY, HeaderValue::from_static("sec-fetch-dest"));
    }
}

/// The backend's opaque tag in a validator of this proxy.
fn own_tag<'a>(tag: &'a str, mark: &str) -> Option<&'a str> {
    opaque(tag)?.strip_suffix(mark)
}

fn opaque(tag: &str) -> Option<&str> {
    tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')
}

/// Sets the validator of a page with the tag. It is weak, because the bytes are not the backend's (RFC 9110, 8.8.1).
fn rename(answer: &mut HeaderMap, mark: &str) {
    let Some(tag) = answer.remove(ETAG) else { return };
    let Some(opaque) = tag.to_str().ok().and_then(opaque) else { return };
    if let Ok(tag) = HeaderValue::try_from(format!("W/\"{opaque}{mark}\"")) {
        answer.insert(ETAG, tag);
    }
}

/// Whether a response is a page that may have the tag. If so, returns the nonce that the tag needs.
fn fitness(status: StatusCode, answer: &HeaderMap, host: Option<&str>) -> Result<Option<String>, Untouched> {
    let media = answer.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let mut parts = media.split(';').map(str::trim);
    // A download is a file, and stays as it is.
    let is_download = list::texts(answer, &CONTENT_DISPOSITION)
        .any(|text| text.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("attachment")));
    let is_page = status == StatusCode::OK && parts.next() == Some("text/html") && !is_download;
    if !is_page || answer.contains_key(CONTENT_RANGE) {
        return Err(Untouched::NoPage);
    }
    let is_utf8 = |part: &str| {
        part.strip_prefix("charset=").is_some_and(|name| matches!(name.trim_matches('"'), "utf-8" | "utf8"))
    };
    if !parts.any(is_utf8) {
        return Err(Untouched::Charset);
    }
    if list::texts(answer, &CONTENT_ENCODING).any(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Untouched::Encoded);
    }
    if list::names(answer, &CACHE_CONTROL, "no-transform") {
        return Err(Untouched::NoTransform);
    }
    let mut nonces: Vec<String> = Vec::new();
    for policy in list::texts(answer, &CONTENT_SECURITY_POLICY) {
        match permission(policy, host) {
            Permission::Given => {}
            Permission::WithNonce(nonce) => nonces.push(nonce.to_owned()),
            Permission::Refused => return Err(Untouched::Policy),
        }
    }
    nonces.dedup();
    match nonces.len() {
        0 | 1 => Ok(nonces.pop()),
        _ => Err(Untouched::Policy),
    }
}

/// What one policy permits for the script.
#[derive(Debug, PartialEq, Eq)]
enum Permission<'a> {
    Given,
    WithNonce(&'a str),
    Refused,
}

/// Evaluates the directive for external scripts (Content Security Policy 3, 6.8.3). A permission that is not certain
/// counts as refused.
fn permission<'a>(policy: &'a str, host: Option<&str>) -> Permission<'a> {
    let directive = |wanted: &str| {
        let mut directives = policy.split(';').map(str::split_ascii_whitespace);
        // If a directive is repeated, the first one counts.
        directives
            .find_map(|mut words| words.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted)).then_some(words))
    };
    if directive("sandbox").is_some_and(|mut words| !words.any(|word| word == "allow-scripts")) {
        return Permission::Refused;
    }
    let Some(sources) = ["script-src-elem", "script-src", "default-src"].into_iter().find_map(directive) else {
        return Permission::Given;
    };
    let sources: Vec<&str> = sources.collect();
    let nonce = |source: &&'a str| source.strip_prefix("'nonce-")?.strip_suffix('\'');
    if let Some(nonce) = sources.iter().find_map(nonce) {
        let is_plain = nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte));
        return if is_plain { Permission::WithNonce(nonce) } else { Permission::Refused };
    }
    let is_there = |word: &str| sources.iter().any(|source| source.eq_ignore_ascii_case(word));
    let is_host = |source: &&str| {
        let source = source.strip_prefix("https://").unwrap_or(source);
        host.is_some_and(|host| source.trim_end_matches('/').eq_ignore_ascii_case(host))
    };
    let is_allowed = is_there("'self'") || is_there("*") || sources.iter().any(is_host);
    if is_allowed && !is_there("'strict-dynamic'") { Permission::Given } else { Permission::Refused }
}

/// Inserts the tag while a page passes.
pub struct Inserter {
    /// `None` after a page that could not be parsed: the rest passes unchanged.
    rewriter: Option<send::HtmlRewriter<'static, Output>>,
    output: Arc<Mutex<Vec<u8>>>,
}

struct Output(Arc<Mutex<Vec<u8>>>);

impl lol_html::OutputSink for Output {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(chunk);
    }
}

/// The limit for one tag of the page, in bytes. After a longer tag, the page passes unchanged.
const LONGEST_TAG: usize = 1 << 20;

impl Inserter {
    /// Inserts `tag` at the start of the head. If the page has no tag for its head, inserts it before the first
    /// element.
    fn new(tag: String) -> Self {
        let mut is_in = false;
        let handler = element!("*", move |element: &mut send::Element<'_, '_>| {
            match element.tag_name().as_str() {
                _ if is_in => {}
                "html" => return Ok(()),
                "head" => element.prepend(&tag, ContentType::Html),
                _ => element.before(&tag, ContentType::Html),
            }
            is_in = true;
            Ok(())
        });
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(LONGEST_TAG)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let settings = send::Settings::new_send()
            .append_element_content_handler(handler)
            .with_memory_settings(memory)
            .with_strict(false);
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let rewriter = send::HtmlRewriter::new(settings, Output(Arc::clone(&output)));
        Self { rewriter: Some(rewriter), output }
    }

    /// Takes a piece of the page and returns the bytes to send now. This may be nothing, if a tag is incomplete.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        let Some(rewriter) = &mut self.rewriter else { return piece };
        if rewriter.write(&piece).is_err() {
            // The bytes that it held are in the output.
            self.rewriter = None;
        }
        self.taken()
    }

    /// Returns the last bytes of the page.
    pub fn finish(&mut self) -> Bytes {
        if let Some(rewriter) = self.rewriter.take() {
            // The bytes that it held are in the output, even after an error.
            let _ = rewriter.end();
        }
        self.taken()
    }

    fn taken(&self) -> Bytes {
        std::mem::take(&mut *self.output.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(page: &str, cut: usize) -> String {
        let mut inserter = Inserter::new("<script></script>".to_owned());
        let mut out = Vec::new();
        for piece in page.as_bytes().chunks(cut) {
            out.extend_from_slice(&inserter.push(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&inserter.finish());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_tag_stands_first_in_the_head_however_the_page_is_cut() {
        for (page, with) in [
            (
                "<!doctype html><html><head><title>a</title></head>",
                "<!doctype html><html><head>+<title>a</title></head>",
            ),
            ("<!doctype html><title>a</title><p>b", "<!doctype html>+<title>a</title><p>b"),
            ("<!-- <head> --><HTML lang=de><HEAD class='x'>ü", "<!-- <head> --><HTML lang=de><HEAD class='x'>+ü"),
            ("<script>'<head>'</script>", "+<script>'<head>'</script>"),
            ("no element at all & <", "no element at all & <"),
            ("", ""),
        ] {
            for cut in 1..=page.len().max(1) {
                assert_eq!(passed(page, cut), with.replace('+', "<script></script>"), "{page} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn a_tag_without_end_passes_as_it_is() {
        let page = format!("<html><p title='{}'><head>", "x".repeat(3 << 20));
        assert!(passed(&page, 1 << 16).contains(&"x".repeat(3 << 20)));
        assert_eq!(passed(&page, 1 << 16).replace("<script></script>", ""), page);
    }

    #[test]
    fn only_a_policy_that_lets_it_run_has_it() {
        use Permission::{Given, Refused, WithNonce};
        for (policy, said) in [
            ("img-src 'none'", Given),
            ("default-src 'self'", Given),
            ("default-src 'none'; script-src 'self'", Given),
            ("script-src 'self'; script-src-elem 'none'", Refused),
            ("script-src 'none'; script-src 'self'", Refused),
            ("default-src 'none'", Refused),
            ("script-src", Refused),
            ("SCRIPT-SRC *", Given),
            ("script-src https://shop.test", Given),
            ("script-src shop.test/js/", Refused),
            ("script-src https://cdn.test", Refused),
            ("script-src 'nonce-aGk=' 'strict-dynamic'", WithNonce("aGk=")),
            ("script-src 'nonce-a\"b'", Refused),
            ("script-src 'self' 'strict-dynamic'", Refused),
            ("script-src 'sha256-abc='", Refused),
            ("sandbox; script-src 'self'", Refused),
            ("sandbox allow-scripts; script-src 'self'", Given),
        ] {
            assert_eq!(permission(policy, Some("shop.test")), said, "{policy}");
        }
    }
}
