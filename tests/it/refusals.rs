//! Requests that are refused before anything is claimed or sent, and their problems.

use crate::support::*;

async fn with(server: &str, route: &str) -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("server", server).route(route).start().await;
    (backend, sidecar)
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_anything_is_sent() {
    let (backend, sidecar) = with("", "max_request_body = \"1KiB\"").await;
    let too_large = order("k").body("x".repeat(1025));
    for request in [too_large.clone(), too_large.chunked()] {
        let mut client = sidecar.connect().await;
        let answer = client.ask(&request).await;
        answer.refuses(413, "request-too-large");
        assert_eq!(answer.value("connection"), Some("close"));
        client.ends().await;
    }
    assert_eq!(backend.count(), 0);
    let fits = order("k").body("x".repeat(1024));
    assert_eq!(sidecar.ask(&fits).await.status, 201);
    assert!(sidecar.ask(&fits.chunked()).await.is_replay());
}

#[tokio::test]
async fn a_body_that_announces_itself_as_too_large_is_never_asked_for() {
    let (backend, sidecar) = with("", "max_request_body = \"1KiB\"").await;
    let mut client = sidecar.connect().await;
    client
        .send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n")
        .await;
    // No interim response is sent first.
    client.response().await.refuses(413, "request-too-large");
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_body_that_may_be_sent_is_asked_for() {
    let (backend, sidecar) = with("", "").await;
    let mut client = sidecar.connect().await;
    client
        .send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await;
    assert_eq!(client.head().await.expect("an interim answer").first, "HTTP/1.1 100 Continue");
    assert_eq!(backend.count(), 0);
    client.send("abc").await;
    assert_eq!(client.response().await.status, 201);
    assert!(!backend.only().has("expect"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (backend, sidecar) = with("body_timeout = \"100ms\"", "").await;
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = sidecar.connect().await;
        client.send(format!("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\n{framing}")).await;
        client.response().await.refuses(408, "request-timeout");
        client.ends().await;
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn what_cannot_be_forwarded_safely_is_refused() {
    let (backend, sidecar) = with("", "scope = [\"header:X-Tenant\"]").await;
    for (lines, status, code) in [
        ("Host: a\r\nConnection: Idempotency-Key", 400, "bad-request"),
        ("Host: a\r\nConnection: close\r\nConnection: keep-alive, AUTHORIZATION", 400, "bad-request"),
        ("Host: a\r\nConnection: X-Tenant", 400, "bad-request"),
        ("Host: a\r\nConnection: Content-Length", 400, "bad-request"),
        ("Host: a\r\nHost: a", 400, "bad-request"),
        ("X-No: host", 400, "bad-request"),
        ("Host: a\r\nExpect: a-miracle", 417, "expectation-failed"),
    ] {
        let mut client = sidecar.connect().await;
        let request = format!(
            "POST /orders HTTP/1.1\r\nIdempotency-Key: k\r\nX-Tenant: t\r\nContent-Length: 2\r\n{lines}\r\n\r\n{{}}"
        );
        client.send(request).await;
        let answer = client.response().await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{lines}");
    }
    let mut client = sidecar.connect().await;
    client.send("POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n").await;
    client.response().await.refuses(501, "not-implemented");
    let mut client = sidecar.connect().await;
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response().await.refuses(501, "not-implemented");
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_sent() {
    let (backend, sidecar) = with("", "").await;
    let mut client = sidecar.connect().await;
    client.send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 10\r\n\r\nabc").await;
    client.finish().await;
    client.rest().await;
    let mut client = sidecar.connect().await;
    client
        .send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        .await;
    client.rest().await;
    assert_eq!(backend.count(), 0);
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
}

#[tokio::test]
async fn more_work_than_may_be_at_once_is_refused_before_the_claim() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).with("server", "max_in_flight = 1").start().await;
    let first = sidecar.asking(&order("one"));
    backend.has_seen(1).await;
    let refused = sidecar.ask(&order("two")).await;
    refused.refuses(503, "overloaded");
    assert!(refused.retry_after().is_some_and(|seconds| seconds >= 1));
    assert_eq!(sidecar.ask(&request("GET", "/orders")).await.status, 201, "the rest is not concerned");
    gate.open();
    first.await.expect("an answer");
    until("there is room again", async || sidecar.ask(&order("two")).await.status == 201).await;
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn a_repeat_of_what_is_at_work_is_answered_though_no_more_may_begin() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).with("server", "max_in_flight = 1").start().await;
    let first = sidecar.asking(&order("one"));
    backend.has_seen(1).await;
    let in_flight = sidecar.ask(&order("one")).await;
    in_flight.refuses(409, "in-flight");
    assert!(in_flight.retry_after().is_some_and(|seconds| seconds >= 1));
    let other = post("/orders").line("Idempotency-Key: one").by("alice").json(r#"{"item":"car"}"#);
    sidecar.ask(&other).await.refuses(422, "key-reused");
    // Another caller's key is another operation.
    let stranger = post("/orders").line("Idempotency-Key: one").by("bob").json(r#"{"item":"book"}"#);
    sidecar.ask(&stranger).await.refuses(503, "overloaded");
    let waiting = sidecar.asking(&order("one").line("Prefer: wait=60"));
    until("it waits", async || sidecar.metric("onlyonce_waiting{route=\"orders\"}").await == 1.0).await;
    gate.open();
    assert_eq!(first.await.expect("an answer").status, 201);
    assert!(waiting.await.expect("an answer").is_replay());
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn more_bytes_than_may_be_held_are_refused_before_the_claim() {
    let gate = Gate::new();
    let half = "y".repeat(30_000);
    let start = say("HTTP/1.1 201 Created\r\nContent-Length: 60000\r\n\r\n");
    let backend = Backend::scripted([vec![start, say(&half), Step::Wait(gate.clone()), say(&half)]]).await;
    let setup = Setup::new(&backend.url()).with("server", "max_buffered = \"64KiB\"");
    let sidecar = setup.route("max_request_body = \"64KiB\"\nmax_response_body = \"64KiB\"").start().await;
    let first = sidecar.asking(&order("one"));
    until("half of an answer is held", async || sidecar.metric("onlyonce_buffered_bytes").await > 15_000.0).await;
    let large = order("two").body("x".repeat(60_000));
    for request in [large.clone(), large.chunked()] {
        let refused = sidecar.ask(&request).await;
        refused.refuses(503, "overloaded");
        assert!(refused.retry_after().is_some_and(|seconds| seconds >= 1));
    }
    assert_eq!(backend.count(), 1);
    assert_eq!(sidecar.ask(&order("three")).await.status, 201);
    gate.open();
    assert_eq!(first.await.expect("an answer").body.len(), 60_000);
}

#[tokio::test]
async fn what_is_only_announced_takes_no_room() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("server", "max_buffered = \"64KiB\"");
    let sidecar = setup.route("max_request_body = \"64KiB\"\nmax_response_body = \"64KiB\"").start().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut client = sidecar.connect().await;
        client.send("POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 60000\r\n\r\n").await;
        silent.push(client);
    }
    assert_eq!(sidecar.ask(&order("honest")).await.status, 201);
}

#[tokio::test]
async fn answers_that_are_kept_take_no_room_from_those_at_work() {
    let big = || vec![answer("201 Created", "x".repeat(60_000))];
    let backend = Backend::scripted([big(), big(), big()]).await;
    let setup = Setup::new(&backend.url()).with("server", "max_buffered = \"64KiB\"");
    let sidecar = setup.route("max_request_body = \"64KiB\"\nmax_response_body = \"64KiB\"").start().await;
    // An answer is given back shortly after its last byte has left.
    let nothing_is_held = async || {
        until("nothing is held", async || sidecar.metric("onlyonce_buffered_bytes").await == 0.0).await;
    };
    for key in ["one", "two", "three"] {
        assert_eq!(sidecar.ask(&order(key)).await.status, 201);
        nothing_is_held().await;
        assert!(sidecar.ask(&order(key)).await.is_replay());
        nothing_is_held().await;
    }
}

#[tokio::test]
async fn a_problem_says_all_that_the_contract_names() {
    let (_backend, sidecar) = with("", "").await;
    sidecar.ask(&order("k")).await;
    let answer = sidecar.ask(&order("k").body("another")).await;
    answer.refuses(422, "key-reused");
    assert_eq!(answer.value("cache-control"), Some("no-store"));
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:onlyonce:problem:key-reused");
    assert_eq!((problem["status"].as_u64(), problem["route"].as_str()), (Some(422), Some("orders")));
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| text.len() > 10), "{member}");
    }
    let record = problem["record"].as_str().expect("the operation is known");
    let digest = record.strip_prefix("orders:").expect("the route's name and a digest");
    assert!(digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{record}");
    let before_the_key = sidecar.ask(&order("")).await.json();
    assert_eq!((before_the_key["route"].as_str(), before_the_key.get("record")), (Some("orders"), None));
}

/// draft-ietf-httpapi-idempotency-key-header-07, 2.7: a client that used its key wrongly is led to where that is explained.
#[tokio::test]
async fn our_own_answers_say_where_people_read_about_it() {
    let (backend, gate) = Backend::gated().await;
    let shop = "https://shop.example.com";
    let help = "https://docs.example.com/idempotency?a=1&b=2";
    let route = format!("help = \"{help}\"\non_missing_key = \"reject\"\ncors_origins = [\"{shop}\"]");
    let setup = Setup::new(&backend.url()).route(&route).route("max_request_body = \"1KiB\"");
    let sidecar = setup.another_route("name = \"other\"\npath = \"/other\"\nscope = []").start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let link = format!("<{help}>; rel=\"help\"");
    for (request, status, code) in [
        (order("k"), 409, "in-flight"),
        (order("k").body("x"), 422, "key-reused"),
        (order("a b"), 400, "invalid-key"),
        (post("/orders").by("alice"), 400, "missing-key"),
        (order("l").body("x".repeat(2000)), 413, "request-too-large"),
        (order("l").line("Expect: a-miracle"), 417, "expectation-failed"),
    ] {
        let refused = sidecar.ask(&request.line(&format!("Origin: {shop}"))).await;
        refused.refuses(status, code);
        assert_eq!(refused.value("link"), Some(&*link), "{code}");
        if code != "expectation-failed" {
            let exposed = refused.value("access-control-expose-headers").expect("fields");
            assert!(exposed.ends_with(", link"), "{exposed}");
        }
    }
    let page = sidecar.ask(&order("k").body("x").line(BROWSER)).await;
    assert_eq!(page.value("link"), Some(&*link));
    assert!(page.text().contains("<a href=\"https://docs.example.com/idempotency?a=1&amp;b=2\">"), "{}", page.text());
    gate.open();
    assert!(!first.await.expect("an answer").has("link"), "not with the backend's answers");
    let replay = sidecar.ask(&order("k")).await;
    assert!(replay.is_replay() && !replay.has("link"));
    let elsewhere = sidecar.ask(&post("/other").line("Idempotency-Key: a b")).await;
    elsewhere.refuses(400, "invalid-key");
    assert!(!elsewhere.has("link"));
}

/// What Chromium and Firefox send when a form is posted.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test]
async fn a_browser_gets_a_page() {
    let (_backend, sidecar) = with("", "message = \"Already <placed> & kept.\"").await;
    sidecar.ask(&order("k")).await;
    let page = sidecar.ask(&order("k").body("another").line(BROWSER)).await;
    assert_eq!((page.status, page.value("content-type")), (422, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("key-reused") && page.text().contains("Already &lt;placed&gt; &amp; kept."));
    let program = order("k").body("another").line("Accept: application/problem+json, text/html");
    sidecar.ask(&program).await.refuses(422, "key-reused");
}

#[tokio::test]
async fn only_navigations_get_a_page() {
    let (_backend, sidecar) = with("", "").await;
    sidecar.ask(&order("k")).await;
    let navigating = "Sec-Fetch-Mode: navigate";
    for (lines, is_page) in [
        (&["Accept: application/json, text/html;q=0.1", navigating][..], false),
        (&["Accept: text/html;q=0", navigating], false),
        (&["Accept: text/html;q=0.5, */*;q=0.6", navigating], false),
        // The default of java.net.HttpURLConnection.
        (&["Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], false),
        (&["Accept: text/html", "Sec-Fetch-Mode: cors"], false),
        (&["Accept: text/html"], false),
        (&["Accept: */*", navigating], false),
        (&[navigating], false),
        (&["Accept: text/html", navigating], true),
        (&["Accept: text/html;q=0.5, */*;q=0.4", navigating], true),
        (&[BROWSER], true),
    ] {
        let request = lines.iter().fold(order("k").body("another"), |request, line| request.line(line));
        let answer = sidecar.ask(&request).await;
        let expected = if is_page { "text/html; charset=utf-8" } else { "application/problem+json" };
        assert_eq!((answer.status, answer.value("content-type")), (422, Some(expected)), "{lines:?}");
    }
}

/// A person who clicked twice must get an understandable page.
#[tokio::test]
async fn a_page_says_in_plain_words_what_to_do() {
    let gate = Gate::new();
    let lost = vec![Step::Reset];
    let large = vec![answer("201 Created\r\nLocation: /orders/1?a=\"1\"", "x".repeat(2000))];
    let backend = Backend::scripted([vec![Step::Wait(gate.clone()), Step::Answer], lost, large]).await;
    let words = "We have your order.";
    let setup = Setup::new(&backend.url()).route("max_response_body = \"1KiB\"");
    let own = setup.clone().route(&format!("message = \"{words}\"")).start().await;
    let sidecar = setup.start().await;
    let click = |key: &str| order(key).line(BROWSER);
    let small_print = |page: &Response, code: &str| {
        let (above, below) = page.text().split_once("<footer>").expect("small print");
        assert!(!above.contains(code) && !above.contains("orders:"), "{above}");
        assert!(below.contains(&format!("<dd>{code}</dd>")) && below.contains("<dd>orders:"), "{below}");
    };

    let first = sidecar.asking(&click("a"));
    backend.has_seen(1).await;
    let page = sidecar.ask(&click("a")).await;
    assert_eq!((page.status, page.retry_after()), (409, Some(1)));
    assert!(page.text().contains("Your first click is being worked on. Reload this page in a few seconds."));
    small_print(&page, "in-flight");
    gate.open();
    first.await.expect("an answer");

    let page = sidecar.ask(&click("b")).await;
    assert!(page.text().contains("This may have gone through all the same."));
    small_print(&page, "upstream-failed");
    let page = sidecar.ask(&click("b")).await;
    assert!(page.text().contains("We cannot tell whether this went through") && page.text().contains("Do not send it"));
    small_print(&page, "outcome-unknown");

    sidecar.ask(&click("c")).await;
    let page = sidecar.ask(&click("c")).await;
    assert!(page.text().contains("<a href=\"/orders/1?a=&quot;1&quot;\">"), "{}", page.text());
    small_print(&page, "already-completed");

    // The route's message comes first.
    let gate = Gate::new();
    backend.then(vec![Step::Wait(gate.clone()), Step::Close]);
    let first = own.asking(&click("d"));
    backend.has_seen(4).await;
    let page = own.ask(&click("d")).await;
    assert!(page.text().contains(words) && page.text().contains("Reload this page in a few seconds."));
    assert_eq!(own.ask(&order("d")).await.json()["detail"], words);
    gate.open();
    assert_eq!(first.await.expect("an answer").status, 502);
    let unknown = own.ask(&order("d")).await;
    unknown.refuses(409, "outcome-unknown");
    assert_eq!(unknown.json()["detail"], words);
    assert!(own.ask(&click("d")).await.text().contains(words));
}

/// No Location of a backend becomes a link that runs a script.
#[tokio::test]
async fn a_page_links_to_the_web_only() {
    let addresses =
        ["javascript:alert(1)", "data:text/html,x", "//cdn.test/1", "https://shop.test/1", "mailto:a@b.test"];
    let large = |address: &&str| vec![answer(&format!("201 Created\r\nLocation: {address}"), "x".repeat(2000))];
    let backend = Backend::scripted(addresses.iter().map(large)).await;
    let sidecar = Setup::new(&backend.url()).route("max_response_body = \"1KiB\"").start().await;
    for (number, (address, is_linked)) in addresses.into_iter().zip([false, false, true, true, false]).enumerate() {
        let key = number.to_string();
        sidecar.ask(&order(&key)).await;
        let page = sidecar.ask(&order(&key).line(BROWSER)).await;
        assert!(page.text().contains("already-completed"), "{}", page.text());
        assert_eq!(page.text().contains(&format!("href=\"{address}\"")), is_linked, "{address}");
    }
}

#[tokio::test]
async fn no_answer_of_our_own_tells_a_key_a_body_or_a_credential() {
    let secret = "s3cr3t";
    let backend = Backend::scripted([vec![Step::Reset]]).await;
    let setup = Setup::new(&backend.url()).route("max_request_body = \"1KiB\"\nkey_max_length = 20");
    let sidecar = setup.another_route(
        "name = \"json\"\npath = \"/json\"\nkey = \"json:/id\"\nscope = [\"cookie:session\"]\non_missing_key = \"reject\"",
    );
    let sidecar = sidecar.start().await;
    let order = |key: &str, body: &str| {
        post("/orders").line(&format!("Idempotency-Key: {key}")).by(secret).body(format!("{body}{secret}"))
    };
    let json = |body: &str| post("/json").line(&format!("Cookie: session={secret}")).json(&body.replace('$', secret));
    let mut codes = Vec::new();
    for request in [
        order(secret, "lost"),
        order(secret, "lost"),
        order(secret, "another"),
        order(&format!("{secret} {secret}"), ""),
        order(&secret.repeat(10), ""),
        order(secret, &"x".repeat(2000)),
        json(r#"{"id":["$"]}"#),
        json(r#"{"other":"$"}"#),
        json(r#"{"id":"$""#),
        json(r#"{"id":"$","id":"$"}"#),
    ] {
        for form in [BROWSER, "Accept: application/json"] {
            let answer = sidecar.ask(&request.clone().line(form)).await;
            assert!(answer.status >= 400);
            let told = format!("{:?} {}", answer.head, answer.text());
            assert!(!told.contains(secret), "{told}");
            if form != BROWSER {
                codes.push(answer.problem().1);
            }
        }
    }
    codes.sort();
    codes.dedup();
    assert_eq!(
        codes,
        ["invalid-body", "invalid-key", "key-reused", "missing-key", "outcome-unknown", "request-too-large"]
    );
    assert_eq!(backend.count(), 1);
}
