use proptest::prelude::*;

use http::uri::{Authority, Scheme};
use http::{Method, Request};

use super::super::fields::tests::name;
use super::forwarded::append;
use super::hop_by_hop::is_protected;
use super::inspect::is_target;
use super::*;
use crate::key::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::problem::Code;

fn request(lines: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri("/orders?x=1");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

fn head(lines: &[(&str, &str)]) -> Head {
    let (parts, ()) = request(lines).into_parts();
    let fields = Fields::of(&parts.headers);
    Head::new(parts, fields)
}

fn crossed(lines: &[(&str, &str)]) -> HeaderMap {
    let mut head = head(lines);
    cross_request(&mut head, &client("192.0.2.1:5", false), &target(None), Framing::AsItCame);
    head.into_parts().headers
}

fn client(peer: &str, secure: bool) -> Client {
    Client { secure, ..Client::new(peer.parse().ok()) }
}

#[test]
fn the_standard_field_goes_on_where_it_was_begun() {
    for (peer, secure, expected) in [
        ("192.0.2.1:5", false, "for=a, for=192.0.2.1;host=\"h:1\";proto=http"),
        ("[2001:db8::1]:5", true, "for=a, for=\"[2001:db8::1]\";host=\"h:1\";proto=https"),
        ("[::ffff:192.0.2.1]:5", true, "for=a, for=192.0.2.1;host=\"h:1\";proto=https"),
        ("a Unix socket", false, "for=a, for=unknown;host=\"h:1\";proto=http"),
    ] {
        let mut head = head(&[("host", "h:1"), ("forwarded", "for=a")]);
        cross_request(&mut head, &client(peer, secure), &target(None), Framing::AsItCame);
        assert_eq!(head.headers["forwarded"], expected);
        assert_eq!(head.headers["x-forwarded-proto"], if secure { "https" } else { "http" });
    }
    assert!(!crossed(&[("host", "a")]).contains_key("forwarded"));
}

#[test]
fn trailers_say_nothing_that_belongs_into_a_head() {
    let mut trailers = HeaderMap::new();
    for name in ["content-length", "transfer-encoding", "authorization", "onlyonce-attempt", "host", "set-cookie"] {
        trailers.append(name, HeaderValue::from_static("1"));
    }
    trailers.append("grpc-status", HeaderValue::from_static("0"));
    cross_trailers(&mut trailers);
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["grpc-status"]);
}

#[test]
fn what_an_answer_says_of_itself_crosses_whatever_connection_says() {
    let mut headers = request(&[
        ("connection", "location, x-own, onlyonce-outcome"),
        ("location", "/1"),
        ("x-own", "1"),
        ("onlyonce-outcome", "hold"),
    ])
    .headers()
    .clone();
    let fields = Fields::of(&headers);
    assert_eq!(cross_response(&mut headers, fields), Some(Disposition::Hold));
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["location"]);
}

#[test]
fn targets_are_paths() {
    for (method, uri, fine) in [
        ("GET", "/a", true),
        ("GET", "//a", true),
        ("GET", "http://a/b", true),
        ("GET", "ftp://a/b", false),
        ("OPTIONS", "*", true),
        ("GET", "*", false),
        ("GET", "a:80", false),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        assert_eq!(is_target(&method, &uri.parse().expect("a URI")), fine, "{method} {uri}");
    }
}

fn target(http2: Option<Scheme>) -> UpstreamTarget {
    UpstreamTarget::new(Authority::from_static("backend:3000"), true, http2)
}

fn refusal(lines: &[(&str, &str)]) -> Option<Code> {
    let request = request(lines);
    let host = authority(request.uri(), request.headers());
    let is_host_right =
        host.as_ref().and_then(|host| host.to_str().ok()).and_then(crate::uri::normalise_host).is_some();
    inspect(&request, Fields::of(request.headers()), is_host_right).err().map(|problem| problem.code())
}

#[test]
fn fields_named_on_any_connection_line_do_not_cross() {
    let headers = crossed(&[
        ("host", "a"),
        ("connection", "x-one"),
        ("connection", "close, X-Two"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAM"),
    ]);
    for gone in ["connection", "x-one", "x-two", "keep-alive", "upgrade", "http2-settings"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["x-three"], "3");
}

#[test]
fn our_own_fields_are_taken_out_and_forwarded_ones_put_in() {
    let headers = crossed(&[
        ("host", "api.example.com"),
        ("onlyonce-attempt", "7"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-for", "198.51.100.2"),
        ("expect", "100-continue"),
        ("te", "trailers, deflate"),
    ]);
    assert!(!headers.contains_key("onlyonce-attempt"));
    assert!(!headers.contains_key("expect"));
    assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 198.51.100.2, 192.0.2.1");
    assert_eq!(headers["x-forwarded-host"], "api.example.com");
    assert_eq!(headers["host"], "api.example.com");
    assert_eq!(headers["te"], "trailers");
    assert_eq!(crossed(&[])["host"], "backend:3000");
}

#[test]
fn a_body_that_is_held_says_its_length_once_and_plainly() {
    for lines in [&["5"][..], &["05"], &["+5"], &["5", "5"], &["5, 5"], &["6"], &["55"], &[""], &[]] {
        let lines: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
        let mut head = head(&lines);
        cross_request(&mut head, &client("192.0.2.1:5", false), &target(None), Framing::Length(5));
        assert_eq!(head.headers.get_all("content-length").iter().collect::<Vec<_>>(), ["5"], "{lines:?}");
    }
}

#[test]
fn in_http2_the_host_is_a_part_of_the_address_and_of_nothing_else() {
    for (host, authority) in [("api.example.com", "api.example.com"), ("", "backend:3000")] {
        let mut head = head(&[("host", host), ("transfer-encoding", "chunked")]);
        cross_request(&mut head, &client("192.0.2.1:5", false), &target(Some(Scheme::HTTPS)), Framing::Chunks);
        assert_eq!(head.uri.to_string(), format!("https://{authority}/orders?x=1"));
        assert_eq!(head.version, Version::HTTP_2);
        assert!(!head.headers.contains_key("host") && !head.headers.contains_key("transfer-encoding"));
    }
}

#[test]
fn what_cannot_be_forwarded_safely_is_refused() {
    assert_eq!(refusal(&[("host", "a")]), None);
    assert_eq!(refusal(&[]), Some(Code::BadRequest));
    assert_eq!(refusal(&[("host", "a"), ("host", "b")]), Some(Code::BadRequest));
    for host in ["", "a b", "user@a", "a/b", "a:b", "[::1"] {
        assert_eq!(refusal(&[("host", host)]), Some(Code::BadRequest), "{host}");
    }
    assert_eq!(refusal(&[("host", "[::1]:80")]), None);
    assert_eq!(refusal(&[("host", "a"), ("connection", "x"), ("connection", "Authorization")]), Some(Code::BadRequest));
    assert_eq!(refusal(&[("host", "a"), ("transfer-encoding", "gzip, chunked")]), Some(Code::NotImplemented));
    assert_eq!(refusal(&[("host", "a"), ("transfer-encoding", "chunked")]), None);
    assert_eq!(refusal(&[("host", "a"), ("expect", "a-miracle")]), Some(Code::ExpectationFailed));
}

/// What a head was made into before its names were scanned: by look-ups for every field.
mod plainly {
    use super::*;

    fn remove_hop_by_hop(headers: &mut HeaderMap, kept: &[HeaderName]) {
        let nominated: Vec<HeaderName> = nominated(headers).filter(|name| !kept.contains(name)).collect();
        for name in nominated.iter().chain(HOP_BY_HOP.iter().map(|(_, name)| name)) {
            headers.remove(name);
        }
    }

    pub(super) fn request(head: &mut request::Parts, address: &str, target: &UpstreamTarget) {
        let original_host = authority(&head.uri, &head.headers);
        let wants_trailers = accepts_trailers(&head.headers);
        let headers = &mut head.headers;
        remove_hop_by_hop(headers, &[]);
        headers.remove(header::EXPECT);
        let ours: Vec<HeaderName> = headers.keys().filter(|name| may_begin_with(name, OURS)).cloned().collect();
        ours.iter().for_each(|name| drop(headers.remove(name)));
        if wants_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        append(headers, FORWARDED_FOR, &[address.as_bytes()]);
        let host = original_host.as_ref().and_then(|host| host.to_str().ok());
        if headers.contains_key(header::FORWARDED) {
            let host = host.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
            append(headers, header::FORWARDED, &[format!("for={address}{host};proto=http").as_bytes()]);
        }
        if let Some(host) = &original_host {
            headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
        }
        headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
        headers.append(header::VIA, via(head.version));
        let host = original_host.filter(|_| target.preserve_host);
        headers.insert(header::HOST, host.unwrap_or_else(|| target.own_host.clone()));
        head.uri = Uri::from(head.uri.path_and_query().cloned().expect("a path"));
    }

    pub(super) fn response(headers: &mut HeaderMap) {
        remove_hop_by_hop(headers, &OF_ANSWERS);
        headers.remove(OUTCOME);
    }
}

fn any_head() -> impl Strategy<Value = HeaderMap> {
    const VALUES: [&str; 8] =
        ["1", "keep-alive", "close, x-a", "te, Keep-Alive", "trailers", "x_forwarded_for", "store", "via"];
    let line = (name(), proptest::sample::select(&VALUES[..]));
    proptest::collection::vec(line, 0..12).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_scanned_head_crosses_as_one_that_is_looked_through(
        headers in any_head(),
        uri in proptest::sample::select(&["/orders?x=1", "http://h:2/orders", "https://h"][..]),
        preserve in any::<bool>(),
    ) {
        let target = UpstreamTarget::new(Authority::from_static("backend:3000"), preserve, None);
        let (mut parts, ()) = Request::builder().uri(uri).body(()).expect("a request").into_parts();
        parts.headers = headers.clone();
        let mut plain = parts.clone();
        plainly::request(&mut plain, "192.0.2.1", &target);
        // Such a request goes no further (`inspect`).
        let is_refused = nominated(&headers).any(|name| is_protected(&name))
            || headers.get_all(header::HOST).iter().count() > 1;
        let fields = Fields::of(&headers);
        let mut scanned = Head::new(parts, fields);
        if !is_refused {
            cross_request(&mut scanned, &client("192.0.2.1:5", false), &target, Framing::AsItCame);
            prop_assert_eq!(&scanned.headers, &plain.headers);
            prop_assert_eq!(&scanned.uri, &plain.uri);
        }

        let (mut scanned, mut plain) = (headers.clone(), headers);
        let fields = Fields::of(&scanned);
        cross_response(&mut scanned, fields);
        plainly::response(&mut plain);
        prop_assert_eq!(scanned, plain);
    }
}
