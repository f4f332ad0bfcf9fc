//! Names and fingerprints of records that exist in users' stores. They must never change.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{DigestKey, KeyOutcome, Operation, Request, read};
use crate::config::parse;
use crate::record::Hex;
use crate::rule::LogKeys;
use crate::rule::{RouteMatch, RouteTarget};
use crate::uri::normalise_path;

/// Routes of all kinds of selectors and fingerprints.
const ROUTES: &str = r#"
upstream.url = "http://127.0.0.1:1"
store.url = "memory:"
defaults.scope = ["header:Authorization"]
jwt.verified_by_edge = true
server.trusted_proxies = ["192.0.2.0/24"]

[[route]]
name = "orders"
path = "/orders"
methods = ["POST", "PUT"]

[[route]]
name = "raw"
path = "/raw"
fingerprint = "raw"

[[route]]
name = "none"
path = "/none"
fingerprint = "none"

[[route]]
name = "form"
path = "/form"
key = "form:id"
fingerprint = "form"

[[route]]
name = "ignoring"
path = "/ignoring"
fingerprint_ignore = ["/client_time", "/meta/trace"]

[[route]]
name = "json"
path = "/tenants/{tenant}/json"
key = ["json:/id", "path:tenant", "query:n", "date:month", "host"]
scope = ["cookie:session", "ip", "jwt:sub"]
fingerprint = "json"
ignore_query = ["sig"]

[[route]]
name = "payload"
path = "/payload"
on_missing_key = "fingerprint"

[[route]]
name = "hook"
path = "/hooks/{kind}"
preset = "standard-webhooks"
"#;

/// A line of headers each, an empty line, and the body.
const REQUESTS: [(&str, &str, &str); 19] = [
    ("a bare key", "POST /orders", "idempotency-key: k1\n\n"),
    ("the same key in quotes", "POST /orders", "idempotency-key: \"k1\"\n\n"),
    ("with a credential", "POST /orders", "idempotency-key: k1\nauthorization: Bearer secret\n\n"),
    ("two lines of the credential", "POST /orders", "idempotency-key: k1\nauthorization: a\nauthorization: b\n\n"),
    (
        "JSON",
        "POST /orders",
        "idempotency-key: k1\ncontent-type: application/json\n\n{\"a\":[1,-2.50,1e400,\"ä\",true,false,null,{}],\"\":\"\"}",
    ),
    (
        "the same JSON",
        "POST /orders",
        "idempotency-key: k1\ncontent-type: application/json\n\n{ \"\":\"\", \"a\":[1.0,-25e-1,10e399,\"\\u00e4\",true,false,null,{}] }",
    ),
    ("no JSON", "POST /orders", "idempotency-key: k1\ncontent-type: application/json\n\n{\"a\":"),
    ("a form", "POST /orders", "idempotency-key: k1\ncontent-type: application/x-www-form-urlencoded\n\na=1&b=%20"),
    (
        "parts",
        "POST /orders",
        "idempotency-key: k1\ncontent-type: multipart/form-data; boundary=x\n\n--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--",
    ),
    ("another method and a query", "PUT /orders?a=1", "idempotency-key: k1\n\n"),
    ("a path that is spelled in another way", "POST /%6frders", "idempotency-key: k1\n\n"),
    ("bytes", "POST /raw", "idempotency-key: k1\ncontent-type: application/json\n\n{\"a\": 1}"),
    ("a body that does not count", "POST /none", "idempotency-key: k1\n\nx"),
    ("a key in a form", "POST /form", "content-type: application/x-www-form-urlencoded\n\nid=k%201&a=1"),
    (
        "members that do not count",
        "POST /ignoring",
        "idempotency-key: k1\ncontent-type: application/json\n\n{\"client_time\":1,\"meta\":{\"trace\":1,\"a\":2}}",
    ),
    (
        "a key of many parts",
        "POST /tenants/t%7e/json?n=%31&sig=2",
        "host: API.example.com\ncookie: session=s\nauthorization: Bearer e30.eyJzdWIiOiJ1MSJ9.e30\ncontent-type: application/json\n\n{\"id\":12.0}",
    ),
    ("its payload is its key", "POST /payload", "content-type: application/json\n\n{\"a\":1}"),
    ("a webhook", "POST /hooks/paid?x", "webhook-id: msg_1\n\n{}"),
    ("a body of many kilobytes", "POST /orders", "idempotency-key: k1\ncontent-type: application/json\n\n[...]"),
];

fn operation(line: &str, text: &str) -> Operation {
    let config = parse("golden", ROUTES, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    let (method, target) = line.split_once(' ').expect("a request line");
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let (head, body) = text.split_once("\n\n").expect("an empty line");
    let headers: HeaderMap = head
        .lines()
        .map(|line| line.split_once(": ").expect("a field"))
        .map(|(name, value)| {
            (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
        })
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        });
    let body = body.replace("[...]", &format!("[{}0]", "123456789,\"abcdefghij\",".repeat(4_000)));
    let normal = normalise_path(path);
    let host = headers.get("host").map(|_| "api.example.com");
    let target = RouteTarget { method: &method, overriding: &[], host, path, normal: &normal };
    let RouteMatch { rule, params, .. } = config.routes.find(&target).unwrap_or_else(|| panic!("no route for {line}"));
    let request = Request {
        method: &method,
        headers: &headers,
        host,
        path: &normal,
        params: &params,
        query,
        peer: Some(IpAddr::from([192, 0, 2, 1])),
        trust: &config.trust,
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400),
        log_keys: LogKeys::Hashed,
    };
    match read(rule, &DigestKey::from_secret("golden"), request, body.as_bytes()) {
        Ok(KeyOutcome::Operation(operation)) => operation,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn names_and_fingerprints_are_fixed() {
    let mut written = format!("check of the key: {}\n", Hex::of(&DigestKey::from_secret("golden").check()));
    for (what, line, text) in REQUESTS {
        let Operation { name, fingerprint, key, .. } = operation(line, text);
        let (target, body) = (Hex::of(&fingerprint.target), Hex::of(&fingerprint.body));
        let key = key.map_or_else(|| "-".to_owned(), |key| key.as_str().to_owned());
        let _ = writeln!(
            written,
            "{what}: {name} target {target} recipe {:016x} body {body} key {key}",
            fingerprint.recipe
        );
    }
    assert_eq!(written, include_str!("golden.txt"), "users have such records: a change forgets them");
}
