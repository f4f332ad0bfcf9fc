//! Reading a key never panics, and a key that is read is the same key however it is written.

use std::sync::LazyLock;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use onlyonce::config::{Config, parse};
use onlyonce::key::{DigestKey, KeyError, KeyOutcome, Request, read};
use onlyonce::record::RecordName;
use onlyonce::rule::{RouteMatch, RouteTarget};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let route = |name: &str, keys: &str| format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\n{keys}\n");
    let text = format!(
        "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\ndefaults.scope = []\n\
         server.trusted_proxies = [\"0.0.0.0/0\"]\n{}{}{}{}{}",
        route("header", ""),
        route("cookie", "key = \"cookie:k\""),
        route("json", "key = \"json:/a/0/k\"\nscope = [\"json:/tenant\"]\nfingerprint_ignore = [\"/time\"]"),
        route("form", "key = \"form:k\""),
        route("head", "key = [\"query:k\", \"host\", \"ip\"]\nscope = [\"query:k\", \"query:t\"]"),
    );
    parse("fuzz", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"))
});

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub fn check(bytes: &[u8]) {
    let line = HeaderValue::from_bytes(bytes).ok();
    let query = str::from_utf8(bytes).ok();
    let _ = name("head", query, &[], b"");
    if let Some(line) = &line {
        for proxied in ["x-forwarded-for", "x-forwarded-host"] {
            let _ = name("head", Some("k=1"), &[(HeaderName::from_static(proxied), line)], b"");
        }
        let _ = name("cookie", None, &[(header::COOKIE, line)], b"");
        if let Ok(Some(name)) = header_key(line) {
            assert_eq!(header_key(&quoted(line)), Ok(Some(name)), "{line:?}");
        }
    }
    let _ = name("json", None, &[], bytes);
    for media in ["application/json", "application/vnd.api+json", "text/plain", "application/x-www-form-urlencoded"] {
        let _ = name("json", None, &[(header::CONTENT_TYPE, &HeaderValue::from_static(media))], bytes);
    }
    // The fingerprint reads the body too.
    let json = (header::CONTENT_TYPE, &HeaderValue::from_static("application/json"));
    let _ = name("header", None, &[json, (KEY, &HeaderValue::from_static("k"))], bytes);
    for media in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"] {
        let _ = name("form", None, &[(header::CONTENT_TYPE, &HeaderValue::from_static(media))], bytes);
    }
    if let Some(line) = &line {
        for body in [
            &b"{\"a\":[{\"k\":1}]}"[..],
            b"k=1",
            b"--b\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\n1\r\n--b--",
        ] {
            for route in ["json", "form"] {
                let _ = name(route, None, &[(header::CONTENT_TYPE, line)], body);
            }
        }
    }
}

fn header_key(line: &HeaderValue) -> Result<Option<RecordName>, KeyError> {
    name("header", None, &[(KEY, line)], b"")
}

/// A bare key in quotes; what is in quotes already, as it is.
fn quoted(line: &HeaderValue) -> HeaderValue {
    let value = line.to_str().expect("a key is ASCII").trim();
    let quoted = if value.starts_with('"') { value.to_owned() } else { format!("\"{}\"", value.replace('\\', "\\\\")) };
    HeaderValue::from_str(&quoted).expect("a value, as it was")
}

/// The record name of a request, on the route of this name.
fn name(
    route: &str,
    query: Option<&str>,
    lines: &[(HeaderName, &HeaderValue)],
    body: &[u8],
) -> Result<Option<RecordName>, KeyError> {
    let path = format!("/{route}");
    let target = RouteTarget { method: &Method::POST, overriding: &[], host: None, path: &path, normal: &path };
    let RouteMatch { rule, params, .. } = CONFIG.routes.find(&target).expect("a route");
    let headers: HeaderMap = lines.iter().map(|(name, value)| (name.clone(), (*value).clone())).collect();
    let request = Request {
        method: &Method::POST,
        headers: &headers,
        host: None,
        path: &path,
        params: &params,
        query,
        peer: None,
        trust: &CONFIG.trust,
        now: SystemTime::UNIX_EPOCH,
        log_keys: CONFIG.log.keys,
    };
    Ok(match read(rule, &DigestKey::from_bytes([0; 32]), request, body)? {
        KeyOutcome::Operation(operation) => Some(operation.name),
        KeyOutcome::Missing(_) => None,
    })
}
