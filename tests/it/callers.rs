//! Scopes: whose key a key is.

use crate::keys::{keyless, refused, told_apart, with_route};
use crate::support::*;

#[tokio::test]
async fn a_caller_in_json_counts_whatever_the_body_was_declared_as() {
    let order = |tenant: &str| keyless().line("Idempotency-Key: k").form(&format!(r#"{{"tenant":"{tenant}"}}"#));
    told_apart(
        "scope = [\"json:/tenant\"]",
        &[(order("acme"), order("acme"), true), (order("acme"), order("umbrella"), false)],
    )
    .await;
}

#[tokio::test]
async fn a_piece_of_the_path_may_name_the_tenant() {
    let order = |tenant: &str| post(&format!("/tenants/{tenant}/orders")).line("Idempotency-Key: k");
    told_apart(
        "path = \"/tenants/{tenant}/orders\"\nscope = [\"path:tenant\"]",
        &[
            (order("a"), order("a"), true),
            (order("a"), order("%61"), true),
            (order("a"), order("b"), false),
            (order("a%2Fb"), order("a%252Fb"), false),
        ],
    )
    .await;
    let put = |id: &str| request("PUT", &format!("/orders/{id}")).by("alice").json("{}");
    // The same number in another spelling is no other number, and not the very same request either.
    for (first, second) in [("a:b", "a%3Ab"), ("caf%c3%a9", "caf\u{e9}")] {
        let (backend, sidecar) = with_route("path = \"/orders/{id}\"\nkey = \"path:id\"\nmethods = [\"PUT\"]").await;
        sidecar.ask(&put(first)).await;
        sidecar.ask(&put(second)).await.refuses(422, "key-reused");
        assert_eq!(backend.count(), 1, "{first} {second}");
    }
    told_apart(
        "path = \"/orders/{id}\"\nkey = \"path:id\"\nmethods = [\"PUT\"]",
        // A path that matches no route is looked up in its other spellings.
        &[(put("7"), put("7"), true), (put("7"), put("8"), false), (put("a:b"), put("a%3Ab/"), true)],
    )
    .await;
}

#[tokio::test]
async fn the_host_may_name_the_tenant() {
    let order = |host: &str| Request::to_host("/orders", host).line("Idempotency-Key: k");
    told_apart(
        "scope = [\"host\"]",
        &[
            (order("a.test"), order("A.test.:8080"), true),
            (order("a.test"), order("b.test"), false),
            // There are no trusted proxies, so the field is ignored.
            (order("a.test"), order("a.test").line("X-Forwarded-Host: b.test"), true),
        ],
    )
    .await;
}

#[tokio::test]
async fn behind_trusted_proxies_the_client_is_whom_they_name() {
    let order = |lines: &[&str]| {
        lines.iter().fold(post("/orders").line("Idempotency-Key: k"), |request, line| request.line(line))
    };
    let one = &["X-Forwarded-For: 198.51.100.1"][..];
    for (proxies, route, second, same) in [
        ("[]", "[\"ip\"]", &["X-Forwarded-For: 198.51.100.2"][..], true),
        ("[\"127.0.0.0/8\"]", "[\"ip\"]", one, true),
        ("[\"127.0.0.0/8\"]", "[\"ip\"]", &["X-Forwarded-For: 198.51.100.2"], false),
        // The part that the client wrote itself is ignored.
        ("[\"127.0.0.0/8\"]", "[\"ip\"]", &["X-Forwarded-For: 203.0.113.9, 198.51.100.1"], true),
        ("[\"127.0.0.0/8\", \"10.0.0.0/8\"]", "[\"ip\"]", &["X-Forwarded-For: 198.51.100.1, 10.0.0.7"], true),
        ("[\"127.0.0.0/8\"]", "[\"host\"]", &["X-Forwarded-Host: other.test"], false),
        ("[\"127.0.0.0/8\"]", "[\"host\"]", &["X-Forwarded-Host: forged.test, API.test:443"], true),
    ] {
        let backend = Backend::start().await;
        let setup = Setup::new(&backend.url()).with("server", &format!("trusted_proxies = {proxies}"));
        let sidecar = setup.route(&format!("scope = {route}")).start().await;
        sidecar.ask(&order(one)).await;
        assert_eq!(sidecar.ask(&order(second)).await.is_replay(), same, "{proxies} {route} {second:?}");
    }
}

on_every_store! {
    /// The same key and body from every kind of caller, all at once, then once more.
    async fn nobody_gets_the_answer_of_another_caller(store: &Store) {
        let gate = Gate::new();
        let backend = Backend::start().await;
        let callers: Vec<Request> = [
            &["Authorization: Bearer alice"][..],
            &["Authorization: Bearer bob"],
            &["Authorization: bearer alice"],
            &["Authorization: Bearer alice", "Authorization: Bearer bob"],
            &["Authorization: Bearer bob", "Authorization: Bearer alice"],
            &["Authorization: Bearer alice, Bearer bob"],
            &["Authorization: Basic YWxpY2U6"],
            &["Authorization:"],
            &["X-Authorization: Bearer alice"],
            &["Cookie: Authorization=Bearer alice", "Proxy-Authorization: Bearer alice", "Authorization: x"],
        ]
        .iter()
        .map(|lines| lines.iter().fold(post("/orders").line("Idempotency-Key: k").json("{}"), |request, line| {
            request.line(line)
        }))
        .collect();
        for _ in &callers {
            backend.then(vec![Step::Wait(gate.clone()), Step::Answer]);
        }
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        let asking: Vec<_> = callers.iter().map(|request| sidecar.asking(request)).collect();
        backend.has_seen(callers.len()).await;
        gate.open();
        let mut answers = Vec::new();
        for answer in asking {
            answers.push(answer.await.expect("an answer").text().to_owned());
        }
        for (request, first) in callers.iter().zip(&answers) {
            let again = sidecar.ask(request).await;
            assert!(again.is_replay());
            assert_eq!(again.text(), first, "{request:?}");
        }
        answers.sort();
        answers.dedup();
        assert_eq!(answers.len(), callers.len(), "two callers got the same answer");
        assert_eq!(backend.count(), callers.len());
    }
}

#[tokio::test]
async fn all_anonymous_callers_are_one() {
    let order = || post("/orders").line("Idempotency-Key: k").json("{}");
    told_apart("", &[(order(), order(), true), (order(), order().line("Authorization:"), false)]).await;
}

#[tokio::test]
async fn callers_may_be_told_apart_by_several_parts_or_not_at_all() {
    let order = |tenant: &str, user: &str| {
        post("/orders").line("Idempotency-Key: k").line(&format!("X-Tenant: {tenant}")).by(user).json("{}")
    };
    told_apart(
        "scope = [\"header:X-Tenant\", \"header:Authorization\"]",
        &[
            (order("a", "alice"), order("a", "alice"), true),
            (order("a", "alice"), order("b", "alice"), false),
            (order("a", "alice"), order("a", "bob"), false),
        ],
    )
    .await;
    told_apart("scope = []", &[(order("a", "alice"), order("b", "bob"), true)]).await;
}

#[tokio::test]
async fn the_caller_may_be_named_in_a_cookie_or_in_the_body() {
    let by_cookie = |cookie: &str| post("/orders").line("Idempotency-Key: k").line(&format!("Cookie: {cookie}"));
    told_apart(
        "scope = [\"cookie:session\"]",
        &[
            (by_cookie("session=a; theme=dark"), by_cookie("session=a; theme=light"), true),
            (by_cookie("session=a"), by_cookie("session=b"), false),
        ],
    )
    .await;
    let by_body = |body: &str| post("/orders").line("Idempotency-Key: k").json(body);
    told_apart(
        "scope = [\"json:/tenant\"]\nfingerprint = \"none\"",
        &[
            (by_body(r#"{"tenant":"a"}"#), by_body(r#"{"tenant":"a","x":1}"#), true),
            (by_body(r#"{"tenant":"a"}"#), by_body(r#"{"tenant":"b"}"#), false),
            (by_body(r#"{"tenant":null}"#), by_body("{}"), true),
        ],
    )
    .await;
    refused("scope = [\"json:/tenant\"]", "invalid-body", [by_body("{")]).await;
}
