//! Selectors: `header:NAME`, `cookie:NAME`, `json:/pointer`, `form:FIELD`.

use http::HeaderName;

use super::super::{JsonPointer, Selector};
use super::section::{Item, nearest};

const ADVICE: &str = "selectors are \"header:NAME\", \"cookie:NAME\", \"json:/pointer\" and \"form:FIELD\"";
const BUILT: [&str; 4] = ["header", "cookie", "json", "form"];
const LATER: [&str; 6] = ["query", "path", "host", "jwt", "ip", "date"];

/// Fields that belong to one connection (RFC 9110, 7.6.1), to the message's framing, or to its destination: they say
/// nothing about the caller or the request, and a proxy on the way may change them.
const PER_HOP: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where one part of a key or scope is read.
pub(super) fn selector(item: &Item<'_>) -> Option<Selector> {
    let text = item.text()?;
    let (kind, rest) = match text.value.split_once(':') {
        Some((kind, rest)) => (kind, rest),
        None => (text.value.as_str(), ""),
    };
    match kind {
        "header" => header(item, rest),
        "cookie" => cookie(item, rest),
        "json" => pointer(item, rest).map(Selector::Json),
        "form" if rest.is_empty() => item.refuse("form: names no field", "name it: \"form:idempotency_key\""),
        "form" => Some(Selector::Form(rest.to_owned())),
        kind if LATER.contains(&kind) => item.not_built(&format!("the selector \"{kind}\" is"), ADVICE),
        kind => {
            let advice = match nearest(kind, BUILT.into_iter()) {
                Some(near) => format!("did you mean \"{near}:\"? {ADVICE}"),
                None => ADVICE.to_owned(),
            };
            item.refuse(format!("{text} does not say where to look"), advice)
        }
    }
}

/// An element of `fingerprint_ignore`.
pub(super) fn ignored(item: &Item<'_>) -> Option<JsonPointer> {
    let text = item.text()?;
    pointer(item, &text.value)
}

fn header(item: &Item<'_>, name: &str) -> Option<Selector> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return item.refuse(format!("{name:?} is not a header's name"), "for example \"header:Idempotency-Key\"");
    };
    if PER_HOP.contains(&header.as_str()) {
        let advice = "name a header that the caller sets and that reaches the backend";
        return item.refuse(format!("{header} belongs to the connection, not to the caller"), advice);
    }
    Some(Selector::Header(header))
}

fn cookie(item: &Item<'_>, name: &str) -> Option<Selector> {
    // A cookie's name and a header's are both tokens (RFC 6265, 4.1.1), but for case.
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return item.refuse(format!("{name:?} is not a cookie's name"), "for example \"cookie:session\"");
    }
    Some(Selector::Cookie(name.to_owned()))
}

fn pointer(item: &Item<'_>, text: &str) -> Option<JsonPointer> {
    match JsonPointer::parse(text) {
        Some(pointer) => Some(pointer),
        None if text.is_empty() => item.refuse(
            "an empty JSON pointer names the whole body",
            "name a member of it, as in \"/id\" (in a selector: \"json:/id\")",
        ),
        None if !text.starts_with('/') => item.refuse(
            format!("{text:?} is not a JSON pointer: it does not begin with a slash"),
            format!("write it as \"/{text}\" (in a selector: \"json:/{text}\")"),
        ),
        None => item.refuse(
            format!("{text:?} is not a JSON pointer: a ~ stands alone"),
            "in a member's name, ~ is written ~0 and / is written ~1",
        ),
    }
}
