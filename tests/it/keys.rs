//! Where a key is read.

use crate::support::*;

pub(crate) async fn with_route(keys: &str) -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route(keys).start().await;
    (backend, sidecar)
}

/// Each pair is two requests: the second is a replay of the first, or runs.
pub(crate) async fn told_apart(keys: &str, pairs: &[(Request, Request, bool)]) {
    for (index, (first, second, same)) in pairs.iter().enumerate() {
        let (backend, sidecar) = with_route(keys).await;
        assert_eq!(sidecar.ask(first).await.text(), r#"{"order":1}"#, "{keys}, pair {index}");
        let answer = sidecar.ask(second).await;
        assert_eq!(answer.status, 201, "{keys}, pair {index}: {answer:?}");
        assert_eq!(answer.is_replay(), *same, "{keys}, pair {index}");
        assert_eq!(backend.count(), if *same { 1 } else { 2 });
    }
}

/// Each request is refused, and the backend never sees it.
pub(crate) async fn refused(keys: &str, code: &str, requests: impl IntoIterator<Item = Request>) {
    let (backend, sidecar) = with_route(keys).await;
    for (index, request) in requests.into_iter().enumerate() {
        let answer = sidecar.ask(&request).await;
        assert_eq!(answer.problem(), (400, code.to_owned()), "{keys}, request {index}");
    }
    assert_eq!(backend.count(), 0);
}

pub(crate) fn keyless() -> Request {
    post("/orders").by("alice")
}

#[tokio::test]
async fn a_key_in_any_header() {
    let order = |key: &str| keyless().line(&format!("x-request-id: {key}"));
    told_apart(
        "key = \"header:X-Request-Id\"",
        &[(order("a"), order("a"), true), (order("a"), order("b"), false), (order("a"), order("A"), false)],
    )
    .await;
}

#[tokio::test]
async fn a_key_in_a_cookie() {
    let order = |cookies: &str| keyless().line(&format!("Cookie: {cookies}"));
    told_apart(
        "key = \"cookie:order\"",
        &[(order("a=1; order=x"), order("order=\"x\"; b=2"), true), (order("order=x"), order("order=y"), false)],
    )
    .await;
    refused("key = \"cookie:order\"", "invalid-key", [order("order=x; order=y"), order("order=")]).await;
}

#[tokio::test]
async fn a_key_in_a_json_body() {
    let order = |body: &str| keyless().json(body);
    let route = "key = \"json:/order/id\"\nfingerprint = \"none\"";
    told_apart(
        route,
        &[
            (order(r#"{"order":{"id":"x"}}"#), order(r#"{"a":1,"order":{"id":"\u0078"}}"#), true),
            (order(r#"{"order":{"id":1}}"#), order(r#"{"order":{"id":1.0}}"#), true),
            (order(r#"{"order":{"id":1}}"#), order(r#"{"order":{"id":"1"}}"#), false),
            (order(r#"{"order":{"id":true}}"#), order(r#"{"order":{"id":"true"}}"#), false),
            // Beyond the precision of a float.
            (order(r#"{"order":{"id":9007199254740993}}"#), order(r#"{"order":{"id":9007199254740992}}"#), false),
            // No key, so both run.
            (order(r#"{"order":{"id":null}}"#), order(r#"{"order":{"id":null}}"#), false),
            (order(r#"{"order":{}}"#), order(r#"{"order":{}}"#), false),
        ],
    )
    .await;
    refused(
        route,
        "invalid-key",
        [order(r#"{"order":{"id":["x"]}}"#), order(r#"{"order":{"id":{}}}"#), order(r#"{"order":{"id":" "}}"#)],
    )
    .await;
    refused(
        route,
        "invalid-body",
        [
            order("{"),
            order(" "),
            order(r#"{"order":{"id":"x"}} more"#),
            order(r#"{"order":{"id":"x","id":"y"}}"#),
            keyless().line("Content-Type: application/cloudevents+json").body("not JSON"),
            keyless().line("Content-Encoding: gzip").json("not plain"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_key_in_json_counts_whatever_the_body_was_declared_as() {
    let route = "key = \"json:/id\"";
    let declared = |media: &str, body: &str| match media {
        "" => keyless().body(body),
        media => keyless().line(&format!("Content-Type: {media}")).body(body),
    };
    for media in [
        // curl -d
        "application/x-www-form-urlencoded",
        "text/json",
        "application/x-amz-json-1.1",
        "application/x-amz-json-1.0",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "application/csp-report",
        "nothing that anybody knows",
        "",
    ] {
        let order = |body: &str| declared(media, body);
        let (backend, sidecar) = with_route(route).await;
        assert!(!sidecar.ask(&order(r#"{"id":"x","item":1}"#)).await.is_replay(), "{media}");
        // Compared by value, because the key was read from it as JSON.
        for again in
            [r#"{"id":"x","item":1}"#, r#"{ "item" : 1.0, "id" : "\u0078" }"#, "\u{feff}{\"id\":\"x\",\"item\":1}"]
        {
            assert!(sidecar.ask(&order(again)).await.is_replay(), "{media} {again}");
        }
        sidecar.ask(&order(r#"{"id":"x","item":2}"#)).await.refuses(422, "key-reused");
        sidecar.ask(&order(r#"{"id":"x","id":"y"}"#)).await.refuses(400, "invalid-body");
        sidecar.ask(&order(r#"{"id":"x"}"#).line("Content-Encoding: gzip")).await.refuses(400, "invalid-body");
        assert_eq!(backend.count(), 1, "{media}");
        assert!(!sidecar.ask(&order(r#"{"id":"y"}"#)).await.is_replay(), "{media}");
        // A body that does not parse has no key; of a body declared as JSON, only an empty one.
        let is_json = media.contains("json");
        for (body, forwarded) in [("", true), ("{", !is_json), ("id=x", !is_json)] {
            for _ in 0..2 {
                let answer = sidecar.ask(&order(body)).await;
                assert_eq!(
                    (answer.status, answer.is_replay()),
                    (if forwarded { 201 } else { 400 }, false),
                    "{media} {body}"
                );
            }
        }
        assert_eq!(backend.count(), if is_json { 4 } else { 8 }, "{media}");
    }
    refused(
        &format!("{route}\non_missing_key = \"reject\""),
        "missing-key",
        [keyless().json(""), keyless().form("id=x")],
    )
    .await;
}

/// On a route with a JSON key, a body that cannot be JSON is streamed; any other is read, up to the cap.
#[tokio::test]
async fn files_stream_past_a_key_in_json() {
    let (backend, sidecar) = with_route("key = \"json:/id\"\nmax_request_body = \"1KiB\"").await;
    let large = "x".repeat(4096);
    for (count, media) in
        ["image/png", "AUDIO/ogg", "video/mp4", "multipart/form-data; boundary=b", "multipart/related"]
            .iter()
            .enumerate()
    {
        let upload = |body: &str| keyless().line(&format!("Content-Type: {media}")).body(body);
        assert_eq!(sidecar.ask(&upload(&large)).await.status, 201, "{media}");
        assert!(!sidecar.ask(&upload(r#"{"id":"x"}"#)).await.is_replay(), "{media}");
        sidecar.ask(&upload("x").line("Content-Encoding: gzip")).await.refuses(400, "invalid-body");
        assert_eq!(backend.count(), 2 * count + 2);
    }
    for media in ["application/octet-stream", "text/csv", "application/x-www-form-urlencoded"] {
        let upload = keyless().line(&format!("Content-Type: {media}")).body(&large);
        sidecar.ask(&upload).await.refuses(413, "request-too-large");
    }
    assert_eq!(backend.count(), 10);
}

#[tokio::test]
async fn a_key_in_a_form() {
    let order = |body: &str| keyless().form(body);
    let route = "key = \"form:order\"\nfingerprint = \"none\"";
    told_apart(
        route,
        &[
            (order("order=a+b&x=1"), order("x=2&%6frder=a%20b"), true),
            (order("order=a"), order("order=b"), false),
            (order("x=1"), order("x=1"), false),
        ],
    )
    .await;
    refused(route, "invalid-body", [order("order=%"), order("order=a&order=b")]).await;
    refused(route, "invalid-key", [order("order="), order("order=+")]).await;
}

/// As a browser sends it, with a boundary of its own for every submit.
pub(crate) fn parts(boundary: &str, parts: &[(&str, &str)]) -> Request {
    let parts = parts.iter().map(|(attributes, content)| {
        format!("--{boundary}\r\nContent-Disposition: form-data; {attributes}\r\n\r\n{content}\r\n")
    });
    let body = format!("{}--{boundary}--\r\n", parts.collect::<String>());
    keyless().line(&format!("Content-Type: multipart/form-data; boundary={boundary}")).body(body)
}

#[tokio::test]
async fn a_key_in_a_form_of_parts() {
    let order = |boundary: &str, key: &str| parts(boundary, &[("name=\"item\"", "book"), ("name=\"order\"", key)]);
    let route = "key = \"form:order\"";
    told_apart(
        route,
        &[
            (order("----WebKitFormBoundaryA", "x"), order("----WebKitFormBoundaryB", "x"), true),
            (order("a", "x"), order("a", "y"), false),
            (parts("a", &[("name=\"item\"", "book")]), parts("a", &[("name=\"item\"", "book")]), false),
        ],
    )
    .await;
    let twice = [("name=\"order\"", "x"), ("name=\"order\"", "x")];
    let cut_off = keyless().line("Content-Type: multipart/form-data; boundary=a").body("--a\r\nContent-Disp");
    let unbounded = keyless().line("Content-Type: multipart/form-data").body("--a--");
    refused(route, "invalid-body", [parts("a", &twice), cut_off, unbounded]).await;
    let file = parts("a", &[("name=\"order\"; filename=\"order.txt\"", "x")]);
    refused(route, "invalid-key", [order("a", " "), file]).await;
}

#[tokio::test]
async fn an_upload_that_is_sent_again_is_the_same() {
    let upload = |boundary: &str, name: &str, content: &str| {
        let file = format!("name=\"file\"; filename=\"{name}\"\r\nContent-Type: image/png");
        parts(boundary, &[("name=\"title\"", "Cat"), (&file, content)]).line("Idempotency-Key: k")
    };
    let (backend, sidecar) = with_route("").await;
    sidecar.ask(&upload("----WebKitFormBoundaryA", "cat.png", "\u{89}PNG")).await;
    assert!(sidecar.ask(&upload("----WebKitFormBoundaryB", "cat.png", "\u{89}PNG")).await.is_replay());
    sidecar.ask(&upload("----WebKitFormBoundaryA", "dog.png", "\u{89}PNG")).await.refuses(422, "key-reused");
    sidecar.ask(&upload("----WebKitFormBoundaryA", "cat.png", "\u{89}GIF")).await.refuses(422, "key-reused");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_key_that_is_older_than_the_retention_may_be_refused() {
    let (backend, sidecar) = with_route("refuse_expired_keys = true").await;
    let key = |key: &str| keyless().line(&format!("Idempotency-Key: {key}"));
    for old in ["017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "\"01ARZ3NDEKTSV4RRFFQ69G5FAV\""] {
        let answer = sidecar.ask(&key(old)).await;
        answer.refuses(410, "key-expired");
        assert!(answer.text().contains("older than the 1d"), "{}", answer.text());
    }
    assert_eq!(backend.count(), 0);
    assert_eq!(sidecar.metric("onlyonce_requests_total{outcome=\"key_expired\",route=\"orders\"}").await, 2.0);

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    let young = format!("{:08x}-{:04x}-7cc3-98c4-dc0c0c07398f", now >> 16, now & 0xFFFF);
    for (count, key) in [(1, key(&young)), (2, key("017f22e2-79b0-4cc3-98c4-dc0c0c07398f"))] {
        assert_eq!(sidecar.ask(&key).await.status, 201);
        assert!(sidecar.ask(&key).await.is_replay());
        assert_eq!(backend.count(), count);
    }
}

#[tokio::test]
async fn a_key_in_the_query() {
    // Another spelling of the same key is the same operation, but another target.
    let order = |query: &str| post(&format!("/orders?{query}")).by("alice");
    told_apart(
        "key = \"query:id\"",
        &[
            (order("id=a&x=1"), order("id=a&x=1"), true),
            (order("id=a"), order("id=b"), false),
            (order("x=1"), order("x=1"), false),
        ],
    )
    .await;
    refused("key = \"query:id\"", "invalid-key", [order("id=a&id=a"), order("id="), order("id=%zz")]).await;
    let (backend, sidecar) = with_route("key = \"query:id\"").await;
    sidecar.ask(&order("id=a+b")).await;
    sidecar.ask(&order("id=a%20b")).await.refuses(422, "key-reused");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_body_of_another_media_type_has_no_key() {
    for key in ["json:/id", "form:id"] {
        let (backend, sidecar) = with_route(&format!("key = \"{key}\"")).await;
        let request = keyless().line("Content-Type: text/plain").body("neither JSON nor a form %");
        for count in 1..=2 {
            let answer = sidecar.ask(&request).await;
            assert_eq!((answer.status, answer.is_replay(), backend.count()), (201, false, count));
        }
        assert_eq!(backend.seen()[0].body, b"neither JSON nor a form %");
    }
}

#[tokio::test]
async fn all_parts_together_are_the_key() {
    let order = |header: &str, body: &str| keyless().line(&format!("X-Tenant: {header}")).json(body);
    told_apart(
        "key = [\"header:X-Tenant\", \"json:/number\"]\nfingerprint = \"none\"",
        &[
            (order("a", r#"{"number":1}"#), order("a", r#"{"number":1}"#), true),
            (order("a", r#"{"number":1}"#), order("b", r#"{"number":1}"#), false),
            (order("a", r#"{"number":1}"#), order("a", r#"{"number":2}"#), false),
            // Parts are delimited: the same bytes in other parts are another key.
            (order("a1", r#"{"number":"2"}"#), order("a", r#"{"number":"12"}"#), false),
            // One part is missing, so there is no key.
            (order("a", "{}"), order("a", "{}"), false),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let key = |value: &str| keyless().line(&format!("Idempotency-Key: {value}"));
    refused(
        "",
        "invalid-key",
        [
            key(""),
            key("\"\""),
            key("\" \""),
            key("a b"),
            key("a,b"),
            key("\"a\", \"b\""),
            key("\"a"),
            key("a\tb"),
            key("schl\u{fc}ssel"),
            key(&"x".repeat(256)),
            key("a").line("Idempotency-Key: a"),
            key("a").line("Idempotency-Key: b"),
        ],
    )
    .await;
    let longest = key(&"x".repeat(255));
    told_apart("", &[(longest.clone(), longest, true)]).await;
    refused("key_max_length = 3", "invalid-key", [key("abcd"), key("\"abcd\"")]).await;
    told_apart("key_max_length = 3", &[(key("abc"), key("\"abc\""), true)]).await;
}

#[tokio::test]
async fn after_the_retention_a_key_is_free_again() {
    let (backend, sidecar) = with_route("retention = \"1s\"\nlease = \"1s\"\nhold_for = \"1s\"").await;
    sidecar.ask(&order("k")).await;
    until("the retention is over", async || !sidecar.ask(&order("k")).await.is_replay()).await;
    assert_eq!(backend.count(), 2);
}
