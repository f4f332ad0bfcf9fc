//! The pure computation in a request's cost: finding its route, reading its key, digesting its body, and encoding and
//! decoding its record. Run it with `cargo bench --bench pure`; `-- NAME` runs only the benchmarks with `NAME` in their
//! name.

#![allow(missing_docs, reason = "what criterion generates has none")]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use onlyonce::config::{Config, parse};
use onlyonce::key::{DigestKey, Request, read, read_head};
use onlyonce::record::codec::{Placement, decode, encode};
use onlyonce::record::{Claim, Extensions, Fingerprint, Record, Reply, State, Terms, Token, UnknownPolicy};
use onlyonce::rule::LogKeys;
use onlyonce::rule::{RouteMatch, RouteTarget};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The lengths of bodies, in bytes.
const SIZES: [usize; 3] = [300, 64 * 1024, 1024 * 1024];

fn config(routes: &str) -> Config {
    let text = format!("upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\n{routes}");
    parse("benches", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"))
}

/// One route for each kind of fingerprint.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let routes = ["auto", "raw"].iter().fold(String::new(), |mut text, mode| {
        let route = format!(
            "[[route]]\nname = \"{mode}\"\npath = \"/{mode}\"\nscope = [\"header:Authorization\"]\nfingerprint = \"{mode}\"\n"
        );
        text.push_str(&route);
        text
    });
    config(&routes)
});

/// The header fields of a typical API client.
fn headers(key: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer sk_test_4eC39HqLyjWDarjtT1zdp7dc"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(KEY, HeaderValue::from_static(key));
    headers
}

/// An order of about `size` bytes.
fn order(size: usize) -> String {
    let mut text =
        String::from(r#"{"customer":"cus_9s6XKzkNRiz8i3","currency":"eur","note":"Bitte klingeln","items":["#);
    for number in 0.. {
        let _ =
            write!(text, r#"{{"sku":"SKU-{number:06}","quantity":{},"price":{}.50}},"#, number % 7 + 1, number % 90);
        if text.len() + 2 >= size {
            break;
        }
    }
    text.pop();
    text.push_str("]}");
    text
}

/// Runs `run` with a request on the route of this name.
fn with_request(route: &str, headers: &HeaderMap, run: impl FnOnce(&Arc<onlyonce::rule::Rule>, Request<'_>)) {
    let path = format!("/{route}");
    let target = RouteTarget { method: &Method::POST, overriding: &[], host: None, path: &path, normal: &path };
    let RouteMatch { rule, params, .. } = CONFIG.routes.find(&target).expect("a route");
    let request = Request {
        method: &Method::POST,
        headers,
        host: Some("api.example.com"),
        path: &path,
        params: &params,
        query: None,
        peer: None,
        trust: &CONFIG.trust,
        now: SystemTime::UNIX_EPOCH,
        log_keys: LogKeys::Hashed,
    };
    run(rule, request);
}

fn key_grammar(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key in head");
    for (name, key) in [
        ("bare", "9f8a6b1c-6f53-4a0e-9d5f-0c6d2f1b7a3e"),
        ("quoted", "\"9f8a6b1c-6f53-4a0e-9d5f-0c6d2f1b7a3e\""),
        ("escaped", r#""9f8a6b1c\\6f53\"4a0e""#),
    ] {
        let headers = headers(key);
        with_request("auto", &headers, |rule, request| {
            group.bench_function(name, |bencher| {
                bencher.iter(|| black_box(read_head(rule, black_box(request)).is_ok()));
            });
        });
    }
}

fn fingerprints(criterion: &mut Criterion) {
    let (headers, digest_key) = (headers("9f8a6b1c-6f53-4a0e-9d5f-0c6d2f1b7a3e"), DigestKey::from_bytes([7; 32]));
    let mut group = criterion.benchmark_group("operation");
    for route in ["auto", "raw"] {
        for size in SIZES {
            let body = order(size);
            group.throughput(Throughput::Bytes(body.len() as u64));
            with_request(route, &headers, |rule, request| {
                group.bench_with_input(BenchmarkId::new(route, size), &body, |bencher, body| {
                    bencher.iter(|| black_box(read(rule, &digest_key, request, black_box(body.as_bytes()))));
                });
            });
        }
    }
}

fn record(body: usize) -> Record {
    let fields = [
        (header::CONTENT_TYPE, "application/json"),
        (header::LOCATION, "/orders/4711"),
        (header::ETAG, "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-request-id"), "5f3c1d0e-8a8e-4f0c-a5c9-2d1f7e6b9a40"),
    ];
    let headers = fields.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    let (status, body) = (StatusCode::CREATED, vec![Bytes::from(vec![b'x'; body])]);
    let reply = Arc::new(Reply { status, headers, body: body.into(), trailers: HeaderMap::new() });
    let claim = Claim {
        token: Token([3; 16]),
        attempt: 1,
        terms: Terms {
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(86_400),
            on_unknown: UnknownPolicy::Hold(Duration::from_secs(86_400)),
        },
        fingerprint: Fingerprint { target: [1; 16], recipe: 7, body: [2; 16] },
        claimed_at: 1_763_700_000_000,
        extensions: Extensions::default(),
    };
    Record { claim, state: State::Completed { settled_at: 1_763_700_001_000, reply } }
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    let in_flight = Record { state: State::InFlight, ..record(0) };
    group.bench_function("encode a claim", |bencher| {
        bencher.iter(|| black_box(encode(black_box(&in_flight), Placement::Within)));
    });
    for size in SIZES {
        let record = record(size);
        let bytes = Bytes::from(encode(&record, Placement::Within));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("encode", size), &record, |bencher, record| {
            bencher.iter(|| black_box(encode(black_box(record), Placement::Within)));
        });
        group.bench_with_input(BenchmarkId::new("decode", size), &bytes, |bencher, bytes| {
            bencher.iter(|| black_box(decode(black_box(bytes)).is_ok()));
        });
    }
}

/// Half of the routes have a parameter, and one in ten has a host. The benchmarks look up the last routes, and a path
/// without a route.
fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10, 1_000, 10_000] {
        let text = (0..count).fold(String::from("defaults.scope = []\n"), |mut text, number| {
            let kind = if number % 2 == 0 { "orders" } else { "{id}/orders" };
            let host = if number % 10 == 9 { format!("host = \"h{number}.example.com\"\n") } else { String::new() };
            let _ = write!(text, "[[route]]\nname = \"r{number}\"\npath = \"/v1/service-{number}/{kind}\"\n{host}");
            text
        });
        // The configuration is parsed only if a benchmark needs it, because 10,000 routes take a second.
        let config = LazyLock::new(|| config(&text));
        let host = format!("h{}.example.com", count - 1);
        for (name, host, path) in [
            ("literal", None, format!("/v1/service-{}/orders", count - 2)),
            ("of a host", Some(&*host), format!("/v1/service-{}/4711/orders", count - 1)),
            ("unmatched", None, format!("/v2/service-{}/items/4711", count - 2)),
        ] {
            let target = RouteTarget { method: &Method::POST, overriding: &[], host, path: &path, normal: &path };
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| black_box(config.routes.find(black_box(&target)).is_some()));
            });
        }
    }
}

criterion_group!(benches, key_grammar, fingerprints, records, routes);
criterion_main!(benches);
