//! The origins of browsers, as they send them (RFC 6454, 6.2; Fetch, 3.2).

use http::HeaderValue;

use super::item::Item;

const ADVICE: &str = "an origin is what browsers send in Origin: \"https://shop.example.com\", with the port where it is \
                      not the usual one";

/// One entry of `cors_origins`.
pub(super) fn origin(item: &Item<'_>) -> Option<HeaderValue> {
    let text = item.text()?;
    let refuse = |why: &str, advice: &str| item.refuse(format!("{text} {why}"), advice);
    match text.value.as_str() {
        "*" => {
            return refuse(
                "is not taken here: an answer that is one caller's own is for origins that you know",
                "name them: cors_origins = [\"https://shop.example.com\"]",
            );
        }
        "null" => {
            return refuse(
                "is what browsers send for pages of no origin, which anybody can make",
                "leave it out, and serve the page from an origin that you can name",
            );
        }
        _ => {}
    }
    let Some((scheme, authority)) = text.value.split_once("://") else {
        return refuse("has no scheme", ADVICE);
    };
    if authority.contains(['/', '?', '#']) {
        return refuse("has something behind the host: a path, or a slash", ADVICE);
    }
    if authority.contains('@') {
        // Not shown: it may contain a password.
        return item.refuse("an entry of cors_origins has a user or a password in it", ADVICE);
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    let is_authority = !authority.is_empty()
        && authority.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        && authority.parse::<http::uri::Authority>().is_ok();
    if !is_scheme || !is_authority {
        return refuse("is not an origin: browsers write scheme and host in small letters, in ASCII", ADVICE);
    }
    if authority.contains('*') {
        return refuse("has a wildcard, and origins are compared whole", ADVICE);
    }
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    if port.is_some_and(|port| port.starts_with('0') || port.parse::<u16>().is_err()) {
        return refuse("has a port that no browser writes", "a port is a number from 1 to 65535, or left out");
    }
    let usual = [("https", ":443"), ("http", ":80")];
    if usual.iter().any(|(usual, port)| scheme == *usual && authority.ends_with(port)) {
        return refuse("has the usual port of its scheme, which browsers leave out", "leave the port out");
    }
    HeaderValue::from_str(&text.value).ok()
}
