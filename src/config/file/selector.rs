//! Selectors: `header:NAME`, `cookie:NAME`, `query:NAME`, `json:/pointer`, `form:FIELD`, `path:PARAM`, `host`,
//! `jwt:CLAIM`, `ip` and `date:day|month|year`.

use std::path::Path;

use http::HeaderName;
use toml::de::DeTable;

use super::item::{Item, Text};
use super::report::{FileReport, nearest};
use crate::rule::{JsonPointer, Period, Selector, is_per_hop};

const ADVICE: &str = "selectors are \"header:NAME\", \"cookie:NAME\", \"query:NAME\", \"json:/pointer\", \
                      \"form:FIELD\", \"path:PARAM\", \"host\", \"jwt:CLAIM\", \"ip\" and \"date:day|month|year\"";
const KINDS: [&str; 10] = ["header", "cookie", "query", "json", "form", "path", "host", "jwt", "ip", "date"];

/// Where one part of a key or scope is read.
pub(super) fn selector(item: &Item<'_>) -> Option<Selector> {
    let text = item.text()?;
    let (kind, name) = match text.value.split_once(':') {
        Some((kind, name)) => (kind, Some(name)),
        None => (text.value.as_str(), None),
    };
    match (kind, name) {
        ("header", Some(name)) => header(item, &text, name),
        ("cookie", Some(name)) => cookie(item, &text, name),
        ("query", Some("")) => item.refuse("query: names no parameter", "name it: \"query:request_id\""),
        ("query", Some(name)) => Some(Selector::Query(name.to_owned())),
        ("json", Some(name)) => pointer(item, &text, name).map(Selector::Json),
        ("form", Some("")) => item.refuse("form: names no field", "name it: \"form:idempotency_key\""),
        ("form", Some(name)) => Some(Selector::Form(name.to_owned())),
        ("path", Some("")) => item.refuse("path: names no parameter", "name one of the route's path: \"path:tenant\""),
        ("path", Some(name)) => Some(Selector::Path(name.trim_matches(['{', '}', '*']).to_owned())),
        ("host", None) => Some(Selector::Host),
        ("jwt", Some(claim)) => claim_of(item, &text, claim).map(Selector::Jwt),
        ("ip", None) => Some(Selector::Ip),
        ("host" | "ip", Some(_)) => item.refuse(format!("{kind} takes no name"), format!("write \"{kind}\"")),
        ("date", name) => date(item, &text, name.unwrap_or_default()),
        (kind, _) => {
            let is_header = name.is_none() && HeaderName::from_bytes(kind.as_bytes()).is_ok();
            let advice = match nearest(kind, KINDS.into_iter()) {
                Some(near @ ("host" | "ip")) => format!("did you mean \"{near}\"? {ADVICE}"),
                Some(near) => format!("did you mean \"{near}:…\"? {ADVICE}"),
                None if SHARED.contains(&kind.to_ascii_lowercase().as_str()) => {
                    "where all callers share one space of keys: scope = []".to_owned()
                }
                None if is_header && text.is_literal() && kind.contains('-') => {
                    format!("for the header of that name: \"header:{kind}\"")
                }
                None if is_header && text.is_literal() => {
                    format!("say where it is: \"header:{kind}\", \"query:{kind}\", \"json:/{kind}\"; {ADVICE}")
                }
                None => ADVICE.to_owned(),
            };
            item.refuse(format!("{text} is not a selector"), advice)
        }
    }
}

/// A selector on the command line; else what is wrong, and what would be right.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let file = format!("key = {}", toml::Value::from(text));
    let table = DeTable::parse(&file).map_err(|error| error.message().to_owned())?;
    let report = FileReport::new(&file, Path::new(""), &|_| None);
    let read = table.get_ref().get("key").and_then(|value| selector(&Item::new("key".to_owned(), value, &report)));
    let (faults, ..) = report.finish();
    match (read, faults.into_iter().next()) {
        (Some(selector), None) => Ok(selector),
        (_, Some(fault)) => Err(format!("{}: {}", fault.message, fault.advice)),
        (None, None) => Err(format!("{text:?} is not a selector: {ADVICE}")),
    }
}

/// An element of `fingerprint_ignore`.
pub(super) fn ignored(item: &Item<'_>) -> Option<JsonPointer> {
    let text = item.text()?;
    pointer(item, &text, &text.value)
}

fn header(item: &Item<'_>, text: &Text, name: &str) -> Option<Selector> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return item.refuse(format!("{text} names no header"), "for example \"header:Idempotency-Key\"");
    };
    if header == http::header::HOST {
        return item
            .refuse(format!("{text} says the host as it was sent"), "to compare it without port and case: \"host\"");
    }
    if is_per_hop(&header) {
        let advice = "name a header that the caller sets and that reaches the backend";
        return item.refuse(format!("{text} belongs to the connection, not to the caller"), advice);
    }
    Some(Selector::Header(header))
}

fn cookie(item: &Item<'_>, text: &Text, name: &str) -> Option<Selector> {
    // The name of a cookie is a token, like that of a header (RFC 6265, 4.1.1), but case-sensitive.
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return item.refuse(format!("{text} names no cookie"), "for example \"cookie:session\"");
    }
    Some(Selector::Cookie(name.to_owned()))
}

/// `sub`, `realm.tenant`; a name with a dot in it needs a pointer: `/https:~1~1example.com~1tenant`.
fn claim_of(item: &Item<'_>, text: &Text, claim: &str) -> Option<JsonPointer> {
    if claim.starts_with('/') {
        return pointer(item, text, claim);
    }
    let advice = "for example \"jwt:sub\", or \"jwt:realm.tenant\" for the member of a claim";
    JsonPointer::parse_dotted(claim).or_else(|| item.refuse(format!("{text} names no claim"), advice))
}

fn date(item: &Item<'_>, text: &Text, period: &str) -> Option<Selector> {
    match period {
        "day" => Some(Selector::Date(Period::Day)),
        "month" => Some(Selector::Date(Period::Month)),
        "year" => Some(Selector::Date(Period::Year)),
        _ => {
            let advice =
                "write \"date:day\", \"date:month\" or \"date:year\": the one, in UTC, in which a request comes";
            item.refuse(format!("{text} names no period"), advice)
        }
    }
}

fn pointer(item: &Item<'_>, text: &Text, pointer: &str) -> Option<JsonPointer> {
    if let Some(pointer) = JsonPointer::parse(pointer) {
        return Some(pointer);
    }
    let quoted = text.quote(pointer);
    if pointer.is_empty() {
        return item.refuse("an empty JSON pointer names the whole body", "name a member of it, as \"/id\" does");
    }
    if pointer.starts_with('/') {
        let advice = "in a member's name, ~ is written ~0 and / is written ~1";
        return item.refuse(format!("{quoted} is not a JSON pointer: a ~ stands alone"), advice);
    }
    let advice = match dotted(pointer).filter(|_| text.is_literal()) {
        Some(right) if right[1..].contains('/') => format!("write \"{right}\" for a member of a member"),
        Some(right) => format!("write \"{right}\" for the member of that name"),
        None => "\"/id\" is the member of that name, \"/order/id\" one of a member".to_owned(),
    };
    item.refuse(format!("{quoted} is not a JSON pointer: it does not begin with a slash"), advice)
}

/// The pointer for a JSONPath-like expression: `$.order.items[0].id`.
fn dotted(text: &str) -> Option<String> {
    let text = text.strip_prefix('$').unwrap_or(text);
    let path = text.replace('[', ".").replace(['"', '\'', ']'], "");
    let names: Vec<&str> = path.strip_prefix('.').unwrap_or(&path).split('.').collect();
    let is_plain = |name: &&str| !name.is_empty() && !name.contains(['~', '/', '*', '?', '@']);
    names.iter().all(is_plain).then(|| format!("/{}", names.join("/")))
}

/// Words that people write for a scope of all callers.
const SHARED: [&str; 6] = ["none", "all", "any", "global", "shared", "*"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_dots_becomes_a_pointer() {
        for (text, pointer) in [
            ("order.id", Some("/order/id")),
            ("$.order.id", Some("/order/id")),
            ("$.items[0].id", Some("/items/0/id")),
            ("$['order']['id']", Some("/order/id")),
            ("id", Some("/id")),
            (".id", Some("/id")),
            ("$", None),
            ("$..id", None),
            ("items[*].id", None),
            ("a..b", None),
            ("a~b", None),
        ] {
            let shown = dotted(text);
            assert_eq!(shown.as_deref(), pointer, "{text}");
            assert!(shown.is_none_or(|shown| JsonPointer::parse(&shown).is_some()), "{text}");
        }
    }
}
