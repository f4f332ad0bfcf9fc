//! Problems in the dialects of known APIs: their clients must recognise the error, and whether to retry.

use serde_json::{Value, json};

use crate::support::*;

const PRESETS: [&str; 4] = ["stripe", "square", "paypal", "gocardless"];

/// A request of a preset's client with `key`; another `amount` is another request.
fn pay(preset: &str, key: &str, amount: u32) -> Request {
    let plain = post("/pay").by("secret");
    let body = format!(r#"{{"amount":{amount}}}"#);
    match preset {
        "stripe" | "gocardless" if key.is_empty() => plain.json(&body),
        "stripe" | "gocardless" => plain.line(&format!("Idempotency-Key: {key}")).json(&body),
        "paypal" if key.is_empty() => plain.json(&body),
        "paypal" => plain.line(&format!("PayPal-Request-Id: {key}")).json(&body),
        "square" if key.is_empty() => plain.json(&body),
        "square" => plain.json(&format!(r#"{{"idempotency_key":"{key}","amount":{amount}}}"#)),
        other => panic!("{other}"),
    }
}

fn in_front_of(url: &str, preset: &str, route: &str) -> Setup {
    Setup::new(url).another_route(&format!("name = \"pay\"\npath = \"/pay\"\npreset = \"{preset}\"\n{route}"))
}

/// The type, category or name of the error in the dialect.
#[derive(Clone, Copy)]
enum Blame {
    Key,
    Request,
    Server,
}

/// Fails unless the response is a problem in the dialect of `preset`.
#[track_caller]
fn is_told(preset: &str, answer: &Response, status: u16, code: &str, blame: Blame, retry: bool) {
    answer.refuses(status, code);
    let problem = answer.json();
    assert_eq!(problem["type"], format!("urn:onlyonce:problem:{code}"), "{preset}");
    assert_eq!(problem["status"], status);
    let detail = problem["detail"].clone();
    assert!(detail.as_str().is_some_and(|detail| detail.len() > 10));
    let should_retry = answer.value("stripe-should-retry");
    let said = |members: &[&str]| members.iter().map(|member| problem[member].clone()).collect::<Vec<Value>>();
    match preset {
        "stripe" => {
            let kind = match blame {
                Blame::Key => "idempotency_error",
                Blame::Request => "invalid_request_error",
                Blame::Server => "api_error",
            };
            assert_eq!(said(&["error"]), [json!({"type": kind, "code": code, "message": detail})], "{code}");
            assert_eq!(should_retry, Some(if retry { "true" } else { "false" }), "{code}");
            return;
        }
        "square" => {
            let category = match blame {
                Blame::Key | Blame::Request => "INVALID_REQUEST_ERROR",
                Blame::Server => "API_ERROR",
            };
            assert_eq!(said(&["errors"]), [json!([{"category": category, "code": code, "detail": detail}])], "{code}");
        }
        "paypal" => {
            let name = match status {
                409 => "RESOURCE_CONFLICT",
                422 => "UNPROCESSABLE_ENTITY",
                503 => "SERVICE_UNAVAILABLE",
                500.. => "INTERNAL_SERVER_ERROR",
                _ => "INVALID_REQUEST",
            };
            let details = json!([{"issue": code, "description": detail}]);
            assert_eq!(said(&["name", "message", "details"]), [json!(name), detail, details], "{code}");
        }
        "gocardless" => {
            let kind = match (blame, status) {
                (Blame::Server, _) => "gocardless",
                (Blame::Key, 409 | 422) => "invalid_state",
                (Blame::Key | Blame::Request, _) => "invalid_api_usage",
            };
            let reasons = json!([{"reason": code, "message": detail}]);
            let expected = json!({"type": kind, "code": code, "message": detail, "errors": reasons});
            assert_eq!(said(&["error"]), [expected], "{code}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(should_retry, None, "only Stripe's clients know of it");
}

#[tokio::test]
async fn what_the_key_was_used_for_is_told_in_the_clients_dialect() {
    for preset in PRESETS {
        let large = || answer("201 Created\r\nLocation: /pay/1", "x".repeat(2000));
        let gate = Gate::new();
        let working = vec![Step::Wait(gate.clone()), Step::Answer];
        let backend = Backend::scripted([working, vec![Step::Reset], vec![large()]]).await;
        let sidecar = in_front_of(&backend.url(), preset, "max_response_body = \"1KiB\"").start().await;

        let first = sidecar.asking(&pay(preset, "a", 1));
        backend.has_seen(1).await;
        let in_flight = sidecar.ask(&pay(preset, "a", 1)).await;
        is_told(preset, &in_flight, 409, "in-flight", Blame::Key, true);
        assert_eq!(in_flight.retry_after(), Some(1));
        let reused = sidecar.ask(&pay(preset, "a", 2)).await;
        is_told(preset, &reused, 422, "key-reused", Blame::Key, false);
        gate.open();
        assert_eq!(first.await.expect("an answer").status, 201);
        assert!(sidecar.ask(&pay(preset, "a", 1)).await.is_replay());

        let lost = sidecar.ask(&pay(preset, "b", 1)).await;
        is_told(preset, &lost, 502, "upstream-failed", Blame::Server, false);
        let unknown = sidecar.ask(&pay(preset, "b", 1)).await;
        is_told(preset, &unknown, 409, "outcome-unknown", Blame::Key, false);

        sidecar.ask(&pay(preset, "c", 1)).await;
        let completed = sidecar.ask(&pay(preset, "c", 1)).await;
        is_told(preset, &completed, 409, "already-completed", Blame::Key, false);
        assert_eq!(completed.value("location"), Some("/pay/1"));
        for final_answer in [reused, unknown, completed] {
            assert_eq!(final_answer.retry_after(), None, "nothing helps: {final_answer:?}");
        }
        assert_eq!(backend.count(), 3);
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_guarded_is_refused_in_the_clients_dialect() {
    for preset in PRESETS {
        let backend = Backend::start().await;
        let route =
            "on_missing_key = \"reject\"\nkey_max_length = 40\nmax_request_body = \"1KiB\"\nrefuse_expired_keys = true";
        let setup = in_front_of(&backend.url(), preset, route).with("server", "body_timeout = \"200ms\"");
        let sidecar = setup.start().await;
        let expect = pay(preset, "k", 1).line("Expect: a-miracle");
        let twice = pay(preset, "k", 1).line("Host: b");
        let coded = pay(preset, "k", 1).line("Transfer-Encoding: gzip, chunked");
        for (request, status, code, blame) in [
            (pay(preset, "", 1), 400, "missing-key", Blame::Key),
            (pay(preset, &"k".repeat(41), 1), 400, "invalid-key", Blame::Key),
            (pay(preset, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", 1), 410, "key-expired", Blame::Key),
            (pay(preset, "k", 1).body("x".repeat(2000)), 413, "request-too-large", Blame::Request),
            (pay(preset, "k", 1).line("Connection: Authorization"), 400, "bad-request", Blame::Request),
            // Refused before the route has a say.
            (expect, 417, "expectation-failed", Blame::Request),
            (twice, 400, "bad-request", Blame::Request),
            (coded, 501, "not-implemented", Blame::Server),
        ] {
            is_told(preset, &sidecar.ask(&request).await, status, code, blame, false);
        }
        let mut slow = sidecar.connect().await;
        let whole = pay(preset, "slow", 1).bytes();
        slow.send(&whole[..whole.len() - 1]).await;
        is_told(preset, &slow.response().await, 408, "request-timeout", Blame::Request, false);
        assert_eq!(backend.count(), 0);
    }
    let backend = Backend::start().await;
    let sidecar = in_front_of(&backend.url(), "square", "").start().await;
    let broken = post("/pay").by("secret").json(r#"{"idempotency_key":"k""#);
    is_told("square", &sidecar.ask(&broken).await, 400, "invalid-body", Blame::Request, false);
}

#[tokio::test]
async fn what_is_wrong_behind_the_proxy_is_told_in_the_clients_dialect() {
    for preset in PRESETS {
        let sidecar = in_front_of(&nobody(), preset, "").start().await;
        let unreachable = sidecar.ask(&pay(preset, "k", 1)).await;
        is_told(preset, &unreachable, 502, "upstream-unreachable", Blame::Server, true);

        let backend = Backend::scripted([vec![Step::Hang], vec![Step::Hang]]).await;
        let setup = in_front_of(&backend.url(), preset, "");
        let sidecar = setup.with("upstream", "response_timeout = \"200ms\"").start().await;
        let late = sidecar.ask(&pay(preset, "k", 1)).await;
        is_told(preset, &late, 504, "upstream-timeout", Blame::Server, true);
        // A request without a key may run twice.
        let unguarded = sidecar.ask(&pay(preset, "", 1)).await;
        is_told(preset, &unguarded, 504, "upstream-timeout", Blame::Server, false);

        let sidecar = in_front_of(&backend.url(), preset, "").with("server", "max_buffered = \"1KiB\"").start().await;
        let crowded = sidecar.ask(&pay(preset, "k", 1).body("x".repeat(2000))).await;
        is_told(preset, &crowded, 503, "overloaded", Blame::Server, true);

        let redis = nobody().replace("http:", "redis:");
        let store = format!("url = \"{redis}\"\ntimeout = \"300ms\"");
        let sidecar = in_front_of(&backend.url(), preset, "").with("store", &store).start().await;
        let no_store = sidecar.ask(&pay(preset, "k", 1)).await;
        is_told(preset, &no_store, 503, "store-unavailable", Blame::Server, true);
        assert_eq!(no_store.retry_after(), Some(1));
    }
}

/// A route that does not guard has the same clients.
#[tokio::test]
async fn a_route_that_only_observes_or_is_off_speaks_the_dialect_too() {
    for preset in PRESETS {
        for mode in ["observe", "off"] {
            let sidecar = in_front_of(&nobody(), preset, &format!("mode = \"{mode}\"")).start().await;
            let unreachable = sidecar.ask(&pay(preset, "k", 1)).await;
            is_told(preset, &unreachable, 502, "upstream-unreachable", Blame::Server, true);
        }
    }
}

#[tokio::test]
async fn other_routes_say_nothing_of_it() {
    let sidecar = Setup::new(&nobody()).another_route("name = \"in\"\npath = \"/in\"\npreset = \"github-webhook\"");
    let sidecar = sidecar.start().await;
    for request in [order("k"), post("/in").line("X-GitHub-Delivery: k"), post("/elsewhere")] {
        let refused = sidecar.ask(&request).await;
        refused.refuses(502, "upstream-unreachable");
        let problem = refused.json();
        for member in ["error", "errors", "name", "message", "details"] {
            assert_eq!(problem.get(member), None, "{request:?}");
        }
        assert!(!refused.has("stripe-should-retry"));
    }
}

/// A page that uses Stripe's client may read the fields that the client needs.
#[tokio::test]
async fn a_page_of_another_origin_may_read_whether_to_retry() {
    let shop = "https://shop.example.com";
    let backend = Backend::start().await;
    let sidecar = in_front_of(&backend.url(), "stripe", &format!("cors_origins = [\"{shop}\"]")).start().await;
    let pay = |amount| pay("stripe", "k", amount).line(&format!("Origin: {shop}"));
    sidecar.ask(&pay(1)).await;
    let refused = sidecar.ask(&pay(2)).await;
    is_told("stripe", &refused, 422, "key-reused", Blame::Key, false);
    let exposed = refused.value("access-control-expose-headers");
    assert_eq!(exposed, Some("retry-after, location, idempotent-replayed, stripe-should-retry"));
    let replay = sidecar.ask(&pay(1)).await;
    assert_eq!(replay.value("access-control-expose-headers"), Some("retry-after, location, idempotent-replayed"));
}
