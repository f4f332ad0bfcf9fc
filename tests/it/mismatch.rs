//! A key that is used again for another request.

use crate::support::*;

fn with_body(key: &str, body: &str) -> Request {
    post("/orders").line(&format!("Idempotency-Key: {key}")).by("alice").json(body)
}

on_every_store! {
    async fn another_body_is_refused(store: &Store) {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        sidecar.ask(&with_body("k", r#"{"item":"book"}"#)).await;
        sidecar.ask(&with_body("k", r#"{"item":"car"}"#)).await.refuses(422, "key-reused");
        assert_eq!(backend.count(), 1);
        assert!(sidecar.ask(&with_body("k", r#"{"item":"book"}"#)).await.is_replay());
    }

    async fn another_body_is_refused_as_such_even_while_the_first_is_at_work(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let first = sidecar.asking(&with_body("k", "1"));
        backend.has_seen(1).await;
        sidecar.ask(&with_body("k", "2")).await.refuses(422, "key-reused");
        sidecar.ask(&with_body("k", "1")).await.refuses(409, "in-flight");
        gate.open();
        assert_eq!(first.await.expect("an answer").status, 201);
        assert_eq!(backend.count(), 1);
    }

    async fn another_body_is_refused_when_the_outcome_of_the_first_is_unknown(store: &Store) {
        let backend = Backend::scripted([vec![Step::Reset]]).await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        sidecar.ask(&with_body("k", "1")).await.refuses(502, "upstream-failed");
        sidecar.ask(&with_body("k", "2")).await.refuses(422, "key-reused");
        sidecar.ask(&with_body("k", "1")).await.refuses(409, "outcome-unknown");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_waiting_route_does_not_let_another_body_wait() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).route("on_concurrent = \"wait\"").start().await;
    let first = sidecar.asking(&with_body("k", "1"));
    backend.has_seen(1).await;
    sidecar.ask(&with_body("k", "2")).await.refuses(422, "key-reused");
    gate.open();
    first.await.expect("an answer");
}

#[tokio::test]
async fn another_path_query_or_method_is_refused_in_every_setting() {
    for keys in [
        "fingerprint = \"auto\"",
        "fingerprint = \"none\"",
        "on_mismatch = \"replay\"\nfingerprint = \"none\"",
        "on_mismatch = \"conflict\"",
        "on_mismatch = \"conflict\"\nfingerprint = \"none\"",
        "on_mismatch = \"reject\"",
    ] {
        let backend = Backend::start().await;
        let route = format!("path = \"/tenants/{{tenant}}/orders\"\nmethods = [\"POST\", \"PUT\"]\n{keys}");
        let sidecar = Setup::new(&backend.url()).route(&route).start().await;
        let order =
            |method: &str, target: &str| request(method, target).line("Idempotency-Key: k").by("alice").body("{}");
        sidecar.ask(&order("POST", "/tenants/a/orders?x=1")).await;
        for (method, target) in [
            ("POST", "/tenants/b/orders?x=1"),
            ("POST", "/tenants/a/orders?x=2"),
            ("POST", "/tenants/a/orders"),
            ("PUT", "/tenants/a/orders?x=1"),
        ] {
            let refused = sidecar.ask(&order(method, target)).await;
            assert_eq!(refused.problem(), (422, "key-reused".to_owned()), "{keys} {method} {target}");
            assert!(refused.text().contains("another method, path or query"), "{}", refused.text());
            // With another body too.
            let refused = sidecar.ask(&order(method, target).body("[]")).await;
            assert_eq!(refused.problem(), (422, "key-reused".to_owned()), "{keys} {method} {target}");
        }
        // Another spelling of the same path is no other path.
        assert!(sidecar.ask(&order("POST", "/tenants/./%61/orders?x=1")).await.is_replay(), "{keys}");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_route_may_answer_409_instead() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("on_mismatch = \"conflict\"").start().await;
    sidecar.ask(&with_body("k", "1")).await;
    sidecar.ask(&with_body("k", "2")).await.refuses(409, "key-reused");
}

/// Signatures and times in the query change with each delivery.
#[tokio::test]
async fn parameters_of_the_query_that_do_not_count_may_differ() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("ignore_query = [\"sig\", \"sent at\"]").start().await;
    let order = |key: &str, query: &str| {
        post(&format!("/orders{query}")).line(&format!("Idempotency-Key: {key}")).by("alice").body("{}")
    };
    sidecar.ask(&order("k", "?a=1&sig=x&b=2&sent+at=1")).await;
    for query in ["?a=1&sig=y&b=2&sent+at=2", "?sig=z&a=1&b=2", "?a=1&b=2", "?a=1&%73ig=%00&b=2&sent%20at=&sig"] {
        let again = sidecar.ask(&order("k", query)).await;
        assert!(again.is_replay(), "{query} {again:?}");
    }
    for query in ["?a=1&b=3&sig=x", "?b=2&a=1&sig=x", "?a=1&b=2&Sig=x", "", "?sig=x", "?a=1&b=2&sign=1"] {
        sidecar.ask(&order("k", query)).await.refuses(422, "key-reused");
    }
    // A query of ignored parameters only is an empty query.
    sidecar.ask(&order("l", "?sig=x")).await;
    assert!(sidecar.ask(&order("l", "")).await.is_replay());
    assert_eq!(backend.count(), 2);
    assert!(backend.seen()[0].first.contains("?a=1&sig=x&b=2&sent+at=1 "), "the backend gets all of it");
}

#[tokio::test]
async fn a_route_may_let_the_record_win() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("on_mismatch = \"replay\"").start().await;
    sidecar.ask(&with_body("k", "1")).await;
    assert!(sidecar.ask(&with_body("k", "2")).await.is_replay());
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn the_route_s_own_words_stand_in_for_the_explanation() {
    let backend = Backend::start().await;
    let words = "This order was already placed. We kept the original and made no second one.";
    let sidecar = Setup::new(&backend.url()).route(&format!("message = \"{words}\"")).start().await;
    sidecar.ask(&with_body("k", "1")).await;
    assert_eq!(sidecar.ask(&with_body("k", "2")).await.json()["detail"], words);
}

/// Which of two bodies count as the same, for each way of comparing them.
#[tokio::test]
async fn bodies_compare_as_the_route_says() {
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    for (fingerprint, media, first, second, same) in [
        ("auto", json, r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#, true),
        ("auto", json, r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#, false),
        ("auto", json, r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
        ("auto", "application/vnd.order+json; charset=utf-8", r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, true),
        ("auto", form, "a=x+y&b=1", "a=x%20y&b=1", true),
        ("auto", form, "a=1&b=1", "a=1&b=2", false),
        ("auto", "text/plain", r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, false),
        ("auto", json, r#"{"a":1"#, r#"{"a": 1"#, false),
        ("raw", json, r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, false),
        ("json", "text/plain", r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, true),
        ("none", json, r#"{"a":1}"#, r#"{"b":2}"#, true),
    ] {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).route(&format!("fingerprint = \"{fingerprint}\"")).start().await;
        let order = |body| {
            post("/orders").line("Idempotency-Key: k").by("alice").line(&format!("Content-Type: {media}")).body(body)
        };
        sidecar.ask(&order(first)).await;
        let second_answer = sidecar.ask(&order(second)).await;
        let expected = if same { 201 } else { 422 };
        assert_eq!(second_answer.status, expected, "{fingerprint} {media}: {first} and {second}");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn members_that_do_not_count_may_differ() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("fingerprint_ignore = [\"/client/time\"]").start().await;
    sidecar.ask(&with_body("k", r#"{"item":"book","client":{"time":1,"app":"a"}}"#)).await;
    assert!(sidecar.ask(&with_body("k", r#"{"item":"book","client":{"app":"a","time":2}}"#)).await.is_replay());
    let other = sidecar.ask(&with_body("k", r#"{"item":"book","client":{"time":1,"app":"b"}}"#)).await;
    other.refuses(422, "key-reused");
}

#[tokio::test]
async fn header_lines_that_retries_change_do_not_count() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&order("k").line("X-Retry-Count: 0").line("Date: Thu, 01 Jan 1970 00:00:00 GMT")).await;
    assert!(sidecar.ask(&order("k").line("X-Retry-Count: 1").line("traceparent: 00-1-1-01")).await.is_replay());
}
