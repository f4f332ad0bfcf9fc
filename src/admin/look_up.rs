//! The record of a request of which only key and caller are known.
//!
//! A request is made up that has these values where the rule reads them, and is read as any other: so this finds what a
//! client's request finds, whatever the rule. Nothing is sent.

use std::net::IpAddr;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::{Map, Value};

use super::error::{AdminError, AdminErrorKind};
use super::rules::ActiveRules;
use super::shape::LookUpRequest;
use crate::clock;
use crate::key::{self, DescribedRequest, KeyOutcome};
use crate::record::RecordName;
use crate::rule::{JsonPointer, Mode, Rule, Selector};
use crate::store::Store;
use crate::uri::escape;

/// What is put into the request, piece by piece.
#[derive(Default)]
struct MadeUp {
    headers: HeaderMap,
    query: Vec<String>,
    params: Vec<(String, String)>,
    cookies: Vec<String>,
    json: Option<Value>,
    form: Vec<String>,
    peer: Option<IpAddr>,
    date: Option<SystemTime>,
}

/// The name of the record.
pub(super) fn name(in_force: &ActiveRules, store: &dyn Store, asked: &LookUpRequest) -> Result<RecordName, AdminError> {
    let rules = in_force.routes.rules();
    let rule = rules.iter().find(|rule| *rule.name == asked.route);
    let rule = rule.ok_or_else(|| bad(format!("No route is named '{}'.", asked.route)))?;
    if rule.mode == Mode::Off {
        return Err(bad(format!("The route {} is off: it has no records.", rule.name)));
    }
    let (keys, scopes) = (rule.key.len(), rule.scope.len());
    if asked.key.len() != keys || asked.scope.len() != scopes {
        return Err(bad(format!("The route {} has {keys} parts of the key and {scopes} of the caller.", rule.name)));
    }
    let mut made = MadeUp::default();
    for (selector, value) in rule.key.iter().zip(&asked.key) {
        if value.is_empty() && !matches!(selector, Selector::Date(_) | Selector::Host) {
            return Err(bad(format!("A part of the key is missing: {selector}.")));
        }
        made.put(selector, value)?;
    }
    for (selector, value) in rule.scope.iter().zip(&asked.scope) {
        made.put(selector, value)?;
    }
    let (url, body) = (made.url(rule, asked.url.as_deref())?, made.body());
    let method = rule.methods.first().ok_or_else(|| bad("The route has no method.".to_owned()))?;
    if let Some(host) = &rule.host {
        made.headers.entry(HOST).or_insert(value(host)?);
    }
    let digest_key = store.digest_key().map_err(|error| AdminError::of_look(&error))?;
    let request = DescribedRequest::new(method, &url, &made.headers);
    let found = in_force.routes.find(&request.target().route()).filter(|found| found.rule.name == rule.name);
    let found = found.ok_or_else(|| bad(format!("A request like this does not come to {}.", rule.name)))?;
    let mut facts = request.on(&found, &in_force.trust, made.date.unwrap_or_else(clock::wall));
    facts.peer = made.peer;
    match key::read(found.rule, &digest_key, facts, &body) {
        Ok(KeyOutcome::Operation(operation)) => Ok(match rule.mode {
            Mode::Observe => operation.name.observed(),
            Mode::Enforce | Mode::Off => operation.name,
        }),
        Ok(KeyOutcome::Missing(selector)) => Err(bad(format!("A part of the key is missing: {selector}."))),
        // It names the part, and does not repeat its value.
        Err(error) => Err(bad(error.to_string())),
    }
}

fn bad(what: String) -> AdminError {
    AdminError::new(AdminErrorKind::BadRequest, what)
}

fn value(text: &str) -> Result<HeaderValue, AdminError> {
    HeaderValue::from_str(text).map_err(|_| bad("A value has characters that no header may hold.".to_owned()))
}

impl MadeUp {
    /// An empty value of a scope is none: the request did not have it.
    fn put(&mut self, selector: &Selector, text: &str) -> Result<(), AdminError> {
        if text.is_empty() {
            return Ok(());
        }
        match selector {
            Selector::Header(name) => drop(self.headers.insert(name.clone(), value(text)?)),
            Selector::Cookie(name) => self.cookies.push(format!("{name}={text}")),
            Selector::Query(name) => self.query.push(format!("{}={}", escape(name), escape(text))),
            Selector::Json(pointer) => {
                let json = self.json.get_or_insert_with(|| Value::Object(Map::new()));
                // A scalar as it stands in the document; what is none is a string.
                let scalar = serde_json::from_str(text).ok().filter(|it: &Value| !it.is_object() && !it.is_array());
                let is_put = put(json, pointer, scalar.unwrap_or_else(|| Value::String(text.to_owned())));
                is_put.ok_or_else(|| bad(format!("{selector} lies within another part.")))?;
            }
            Selector::Form(field) => self.form.push(format!("{}={}", escape(field), escape(text))),
            Selector::Path(param) => self.params.push((param.clone(), text.to_owned())),
            Selector::Host => drop(self.headers.insert(HOST, value(text)?)),
            Selector::Jwt(_) => {
                let token = text.trim();
                let is_whole = token.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
                let line = if is_whole { token.to_owned() } else { format!("Bearer {token}") };
                self.headers.insert(AUTHORIZATION, value(&line)?);
            }
            Selector::Ip => {
                let address = text.trim().parse();
                self.peer = Some(address.map_err(|_| bad(format!("'{text}' is no IP address.")))?);
            }
            Selector::Date(_) => self.date = Some(date(text.trim()).ok_or_else(|| bad(no_date(text)))?),
        }
        Ok(())
    }

    fn url(&self, rule: &Rule, given: Option<&str>) -> Result<Uri, AdminError> {
        let given = given.map(str::trim).filter(|url| !url.is_empty());
        let mut url = given.map_or_else(|| self.path(rule), str::to_owned);
        if !self.query.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&self.query.join("&"));
        }
        url.parse().map_err(|_| bad("The path cannot be read.".to_owned()))
    }

    /// The route's path, its parameters filled in; one that does not count stands for itself.
    fn path(&self, rule: &Rule) -> String {
        let filled = |segment: &str| {
            let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
                return segment.to_owned();
            };
            let (name, is_rest) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
            let known = self.params.iter().find(|(param, _)| param == name).map(|(_, text)| text.as_str());
            let text = known.unwrap_or("x");
            if is_rest { text.split('/').map(escape).collect::<Vec<_>>().join("/") } else { escape(text) }
        };
        rule.path.split('/').map(filled).collect::<Vec<_>>().join("/")
    }

    fn body(&mut self) -> Vec<u8> {
        if !self.cookies.is_empty() {
            // A value that no header may hold belongs to no cookie.
            if let Ok(line) = HeaderValue::from_str(&self.cookies.join("; ")) {
                self.headers.insert(COOKIE, line);
            }
        }
        match &self.json {
            Some(json) => {
                self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                json.to_string().into_bytes()
            }
            None if !self.form.is_empty() => {
                let media = HeaderValue::from_static("application/x-www-form-urlencoded");
                self.headers.insert(CONTENT_TYPE, media);
                self.form.join("&").into_bytes()
            }
            None => Vec::new(),
        }
    }
}

/// Puts a value where the pointer leads, if nothing else is there.
fn put(root: &mut Value, pointer: &JsonPointer, scalar: Value) -> Option<()> {
    let (last, way) = pointer.tokens().split_last()?;
    let mut at = root;
    for token in way {
        let members = at.as_object_mut()?;
        at = members.entry(token.clone()).or_insert_with(|| Value::Object(Map::new()));
    }
    let members = at.as_object_mut()?;
    members.insert(last.clone(), scalar).is_none().then_some(())
}

/// A day, a month or a year: `2026-11-29`, `2026-11`, `2026`.
fn date(text: &str) -> Option<SystemTime> {
    let whole = match text.len() {
        4 => format!("{text}-01-01T00:00:00Z"),
        7 => format!("{text}-01T00:00:00Z"),
        10 => format!("{text}T00:00:00Z"),
        _ => return None,
    };
    humantime::parse_rfc3339(&whole).ok()
}

fn no_date(text: &str) -> String {
    format!("'{text}' is no date: write it as 2026-11-29, 2026-11 or 2026.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_makes_the_members_on_its_way() {
        let mut root = Value::Object(Map::new());
        for (pointer, number) in [("/a/b", 1), ("/a/c/d", 2), ("/e", 3)] {
            let pointer = JsonPointer::parse(pointer).expect("a pointer");
            assert_eq!(put(&mut root, &pointer, number.into()), Some(()));
        }
        assert_eq!(root, serde_json::json!({"a": {"b": 1, "c": {"d": 2}}, "e": 3}));
        for pointer in ["/e/f", "/e", "/a/b/x"] {
            assert_eq!(put(&mut root, &JsonPointer::parse(pointer).expect("a pointer"), 4.into()), None, "{pointer}");
        }
    }

    #[test]
    fn dates_are_read_as_far_as_they_are_given() {
        let at = |text| date(text).map(|at| humantime::format_rfc3339_seconds(at).to_string());
        assert_eq!(at("2026-11-29").as_deref(), Some("2026-11-29T00:00:00Z"));
        assert_eq!(at("2026-11").as_deref(), Some("2026-11-01T00:00:00Z"));
        assert_eq!(at("2026").as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!((at("yesterday"), at("2026-13")), (None, None));
    }
}
