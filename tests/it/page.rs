//! The status page: the data that it gets, and what a person sees and does in a real browser.

use serde_json::{Value, json};

use crate::support::*;

/// A request as the page sends it.
async fn ask(sidecar: &Sidecar, target: &str) -> Response {
    let asked = request("GET", target).host("localhost").line("Onlyonce-Admin: page");
    Wire::connect(sidecar.admin).await.ask(&asked).await
}

async fn look_up(sidecar: &Sidecar, content: &Value) -> Response {
    let asked = Request::to_host("/look-up", "localhost").line("Onlyonce-Admin: page").json(&content.to_string());
    Wire::connect(sidecar.admin).await.ask(&asked).await
}

/// A record with an unknown outcome.
async fn lose(sidecar: &Sidecar, backend: &Backend, key: &str) {
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order(key)).await.refuses(502, "upstream-failed");
}

#[tokio::test]
async fn the_status_tells_what_happened_to_whom() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let sidecar = setup.another_route("name = \"off\"\npath = \"/off\"\nscope = []\nmode = \"off\"").start().await;
    let before = ask(&sidecar, "/status").await.json();
    assert_eq!(
        (&before["store"]["up"], &before["records"], &before["may_change"]),
        (&json!(true), &Value::Null, &json!(true))
    );
    assert_eq!(before["routes"][0]["outcomes"], json!({}));
    sidecar.ask(&order("k")).await;
    sidecar.ask(&order("k")).await;
    sidecar.ask(&request("GET", "/")).await;
    let mut status = Value::Null;
    until("the figures move", async || {
        status = ask(&sidecar, "/status").await.json();
        status["routes"][0]["outcomes"]["replayed"].as_array().is_some_and(|counts| counts.last() == Some(&json!(1)))
    })
    .await;
    let routes = status["routes"].as_array().expect("a list");
    let named: Vec<_> = routes.iter().map(|route| route["route"].as_str().expect("a name")).collect();
    assert_eq!(named, ["orders", "off", "unmatched"]);
    assert_eq!(routes[0]["outcomes"]["executed"].as_array().map(Vec::len), Some(60));
    assert!(
        routes[0]["says"].as_str().expect("words").starts_with("One orders for each Idempotency-Key of each caller")
    );
    assert_eq!((&routes[0]["match"], &routes[1]["key"]), (&json!("POST /orders"), &Value::Null));
    assert!(status["store"]["calls"].as_array().expect("counts").iter().any(|calls| calls.as_u64() > Some(0)));
}

#[tokio::test]
async fn records_are_shown_to_whoever_says_that_it_is_meant_so() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for target in ["/unknown", "/refusals", "/records"] {
        let plain = request("GET", target).host("localhost");
        Wire::connect(sidecar.admin).await.ask(&plain).await.refuses(403, "forbidden");
        assert_eq!(ask(&sidecar, target).await.status, 200, "{target}");
    }
    let status = Wire::connect(sidecar.admin).await.ask(&request("GET", "/status").host("localhost")).await.json();
    assert_eq!((&status["records"]["code"], &status["may_change"]), (&json!("forbidden"), &json!(false)));
    let page = Wire::connect(sidecar.admin).await.ask(&request("GET", "/").host("localhost")).await;
    let policy = page.value("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
}

#[tokio::test]
async fn who_may_not_see_records_is_told_nothing_of_the_configuration() {
    let backend = Backend::start().await;
    let store = Store::redis();
    let open = Setup::new(&backend.url())
        .store(&store)
        .another_route("name = \"hook\"\npath = \"/hooks/{id}\"\npreset = \"standard-webhooks\"")
        .another_route("name = \"unused\"\npath = \"/unused\"\nscope = []\nmode = \"off\"");
    let closed = open.clone().with("admin", "token = \"open-sesame-for-all\"");
    for (setup, line) in [(open, "Onlyonce-Admin: page"), (closed, "Authorization: Bearer open-sesame-for-all")] {
        let sidecar = setup.start().await;
        let status = request("GET", "/status").host("localhost");
        let known = Wire::connect(sidecar.admin).await.ask(&status.clone().line(line)).await.json();
        let location = known["store"]["location"].as_str().expect("a store").to_owned();
        assert!(location.starts_with("redis://127.0.0.1:"), "{location}");
        assert_eq!((&known["routes"][1]["needs_url"], &known["routes"][2]["mode"]), (&json!(true), &json!("off")));
        let told = Wire::connect(sidecar.admin).await.ask(&status).await;
        for secret in [&*location, "redis:", "/orders", "/hooks", "dempotency", "webhook-id", "header:", "enforce"] {
            assert!(!told.text().contains(secret), "{secret}: {}", told.text());
        }
        // What `/metrics` tells is open.
        let told = told.json();
        let routes = told["routes"].as_array().expect("a list").iter().map(|route| route["route"].as_str());
        assert_eq!(routes.collect::<Vec<_>>(), ["orders", "hook", "unused"].map(Some));
        assert_eq!(told["store"]["up"], true);
        for route in told["routes"].as_array().expect("a list") {
            let open = ["route", "in_flight", "waiting", "unknown", "lease_lost", "outcomes"];
            let members = route.as_object().expect("an object").iter();
            let more: Vec<_> = members.filter(|(name, _)| !open.contains(&&***name)).map(|(_, value)| value).collect();
            assert!(more.iter().all(|value| [json!(null), json!(false), json!("")].contains(value)), "{more:?}");
        }
    }
}

#[tokio::test]
async fn the_last_refusals_are_told_with_their_reasons() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("on_missing_key = \"reject\"").start().await;
    sidecar.ask(&order("k")).await;
    sidecar.ask(&order("k").body("other")).await.refuses(422, "key-reused");
    sidecar.ask(&post("/orders")).await.refuses(400, "missing-key");
    sidecar.ask(&order("")).await.refuses(400, "invalid-key");
    let told = ask(&sidecar, "/refusals").await.json();
    let told = told["refusals"].as_array().expect("a list");
    let codes: Vec<_> = told.iter().map(|one| one["code"].as_str().expect("a code")).collect();
    assert_eq!(codes, ["invalid-key", "missing-key", "key-reused"]);
    assert!(told[1]["detail"].as_str().expect("words").contains("header:idempotency-key is missing"));
    assert!(told[2]["record"].as_str().expect("a record").starts_with("orders:"));
    assert_eq!((&told[0]["status"], &told[0]["record"]), (&json!(400), &Value::Null));
}

#[tokio::test]
async fn what_needs_a_hand_is_told_oldest_first() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for key in ["a", "b", "c"] {
        lose(&sidecar, &backend, key).await;
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    let told = ask(&sidecar, "/unknown").await.json();
    assert_eq!(told["count"], 3);
    let settled = told["records"].as_array().expect("a list").iter().map(|entry| entry["settled_at"].to_string());
    assert!(settled.is_sorted());
    let record = told["records"][0]["record"].as_str().expect("a name").to_owned();
    let release = Request::to_host(&format!("/records/{record}/release"), "localhost");
    let release = release.line("Onlyonce-Admin: page").json("{}");
    assert_eq!(Wire::connect(sidecar.admin).await.ask(&release).await.status, 200);
    let told = ask(&sidecar, "/unknown").await.json();
    assert_eq!((&told["count"], told["records"].as_array().map(Vec::len)), (&json!(2), Some(2)));
}

#[tokio::test]
async fn a_look_up_by_key_and_caller_finds_what_a_request_finds() {
    let backend = Backend::start().await;
    let route = |name: &str, rest: &str| format!("name = \"{name}\"\npath = \"/{name}/{{id}}\"\n{rest}");
    let sidecar = Setup::new(&backend.url())
        .another_route(&route(
            "json",
            "key = [\"json:/order/id\", \"date:year\"]\nscope = [\"cookie:who\"]\nretention = \"400d\"",
        ))
        .another_route(&route("query", "key = \"query:ref\"\nscope = [\"ip\", \"path:id\", \"host\"]"))
        .another_route(&route("form", "key = \"form:ref\"\nscope = [\"header:X-Tenant\", \"query:t\"]"))
        .another_route(&route("hook", "preset = \"standard-webhooks\""))
        .start()
        .await;
    let year = &sidecar.admin("/status").await.json()["now"].as_str().expect("a time")[..4].to_owned();
    let urlencoded = "Content-Type: application/x-www-form-urlencoded";
    let cases = [
        (order("k-1"), json!({"route": "orders", "key": ["k-1"], "scope": [ada(&order("k"))]})),
        (order("\"k 2\""), json!({"route": "orders", "key": ["\"k 2\""], "scope": [ada(&order("k"))]})),
        (
            post("/json/1").line("Cookie: a=b; who=ada").json("{\"order\":{\"id\":17},\"x\":1}"),
            json!({"route": "json", "key": ["17", ""], "scope": ["ada"]}),
        ),
        (
            post("/json/1").json("{\"order\":{\"id\":\"a b\"}}"),
            json!({"route": "json", "key": ["a b", year], "scope": [""]}),
        ),
        (
            post("/json/1").json("{\"order\":{\"id\":\"17\"}}"),
            json!({"route": "json", "key": ["\"17\"", ""], "scope": [""]}),
        ),
        (
            post("/query/t%20e/?ref=a%2Fb").host("api.test"),
            json!({"route": "query", "key": ["a/b"], "scope": ["127.0.0.1", "t e", "api.test"]}),
        ),
        (
            post("/query/te?ref=a%2Fb").host("api.test"),
            json!({"route": "query", "key": ["a/b"], "scope": ["127.0.0.1", "te", "api.test"]}),
        ),
        (
            post("/form/1?t=5").line(urlencoded).line("X-Tenant: acme").body("ref=a%26b&z=1"),
            json!({"route": "form", "key": ["a&b"], "scope": ["acme", "5"]}),
        ),
        (
            post("/hook/7?z=1").line("webhook-id: msg_1").body("x"),
            json!({"route": "hook", "key": ["msg_1"], "scope": [], "url": "/hook/7?z=1"}),
        ),
    ];
    for (sent, asked) in cases {
        let answer = sidecar.ask(&sent).await;
        assert_eq!(answer.status, 201, "{sent:?}: {answer:?}");
        let found = look_up(&sidecar, &asked).await;
        let found = found.json();
        assert_eq!(found["records"].as_array().map(Vec::len), Some(1), "{asked}: {found}");
    }
    let nothing = look_up(&sidecar, &json!({"route": "orders", "key": ["other"], "scope": [""]})).await.json();
    assert_eq!((&nothing["records"], nothing["looked_for"].as_array().map(Vec::len)), (&json!([]), Some(1)));
    for (wrong, words) in [
        (json!({"route": "none", "key": ["a"], "scope": []}), "No route is named"),
        (json!({"route": "orders", "key": ["a"], "scope": []}), "has 1 parts of the key and 1 of the caller"),
        (
            json!({"route": "orders", "key": [""], "scope": [""]}),
            "A part of the key is missing: header:idempotency-key",
        ),
        (json!({"route": "query", "key": ["a"], "scope": ["here", "", ""]}), "is no IP address"),
        (json!({"route": "json", "key": ["a", "soon"], "scope": [""]}), "is no date"),
    ] {
        let refused = look_up(&sidecar, &wrong).await;
        refused.refuses(400, "bad-request");
        assert!(refused.text().contains(words), "{}", refused.text());
    }
}

/// The header line that names the caller in test requests.
fn ada(order: &Request) -> String {
    let bytes = String::from_utf8(order.bytes()).expect("text");
    let line = bytes.lines().find_map(|line| line.strip_prefix("Authorization: "));
    line.unwrap_or_default().to_owned()
}

/// Orders with every outcome; two of them need an operator.
async fn busy(backend: &Backend, sidecar: &Sidecar) {
    for key in 0..12 {
        for _ in 0..=key % 3 {
            sidecar.ask(&order(&format!("key-{key}"))).await;
        }
    }
    sidecar.ask(&order("key-1").body("another")).await;
    sidecar.ask(&order("")).await;
    sidecar.ask(&request("GET", "/")).await;
    lose(sidecar, backend, "lost-1").await;
    lose(sidecar, backend, "lost-2").await;
}

/// An operator records a response.
async fn settle(sidecar: &Sidecar, record: &str) {
    let complete = Request::to_host(&format!("/records/{record}/complete"), "localhost").line("Onlyonce-Admin: 1");
    let settled = Wire::connect(sidecar.admin).await.ask(&complete.json("{\"status\":201}")).await;
    assert_eq!(settled.status, 200, "{}", settled.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_figures_move_finds_a_request_and_settles_it_in_a_browser() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    busy(&backend, &sidecar).await;
    let mut browser = Browser::start().await;
    browser.look(Look { width: 1600, height: 900, is_dark: false }).await;
    browser.open(&format!("http://{}/", sidecar.admin)).await;
    browser.until("document.querySelectorAll('#unknown li').length === 2").await;
    browser.until("document.querySelector('#routes .says').textContent.startsWith('One orders for each')").await;
    browser.until("document.querySelector('#routes').innerText.includes('replayed')").await;
    browser.until("document.querySelectorAll('#refusals tbody tr').length >= 2").await;

    // The figures update without a reload.
    let replayed =
        "[...document.querySelectorAll('#now div')].find((it) => it.innerText.includes('replayed')).innerText";
    let before = browser.value(replayed).await;
    sidecar.ask(&order("key-1")).await;
    browser.until(&format!("{replayed} !== {before}")).await;

    // A user sends the body of an error.
    let refused = sidecar.ask(&order("lost-1")).await;
    refused.refuses(409, "outcome-unknown");
    browser.fill("#name", &format!("HTTP 409 {}", refused.text().replace('\n', " "))).await;
    browser.press("Enter").await;
    browser.until("document.querySelector('#found')?.innerText.includes('Look into the backend')").await;
    let record = refused.json()["record"].as_str().expect("a name").to_owned();
    assert_eq!(browser.value("document.querySelector('#found h3').textContent").await, record);

    // The operation took effect.
    browser.click("#found .records button").await;
    browser.until("document.querySelector('#change').open").await;
    browser.fill("#status", "201").await;
    browser.fill("#headers", "Location: /orders/77").await;
    browser.fill("#body", "{\"order\":77}").await;
    browser.fill("#reason", "found in the backend").await;
    browser.press("Enter").await;
    browser.until("!document.querySelector('#change').open").await;
    browser.until("document.querySelector('#found').innerText.includes('completed with 201')").await;
    let told =
        "document.querySelector('#found').innerText.includes('by this machine from 127.0.0.1: “found in the backend”')";
    browser.until(told).await;
    browser.until("document.querySelectorAll('#unknown li').length === 1").await;
    let replay = sidecar.ask(&order("lost-1")).await;
    assert_eq!(
        (replay.is_replay(), replay.text(), replay.value("location")),
        (true, "{\"order\":77}", Some("/orders/77"))
    );

    // The other operation had no effect. It is found by key and caller, too.
    let caller = ada(&order("k"));
    browser.click("summary").await;
    browser.fill("#key-0", "lost-2").await;
    browser.fill("#scope-0", &caller).await;
    browser.click("#by-key button").await;
    browser.until("document.querySelector('#found').innerText.includes('unknown')").await;
    // The dialog does not keep the input for the previous record.
    browser.click("#found .records button").await;
    browser.until("document.querySelector('#change').open").await;
    let written = "['status', 'headers', 'body', 'reason'].map((id) => document.getElementById(id).value).join('')";
    assert_eq!(browser.value(written).await, "201");
    browser.click("#cancel").await;
    browser.until("!document.querySelector('#change').open").await;
    browser.click("#found .records button:last-child").await;
    browser.until("document.querySelector('#change').open").await;
    // Somebody else is faster: what is freed is what was shown, or nothing.
    let record = browser.value("document.querySelector('#found h3').textContent").await;
    let record = record.as_str().expect("a name").to_owned();
    settle(&sidecar, &record).await;
    browser.click("#change-do").await;
    browser.until("document.querySelector('#change-said').innerText.includes('is completed now')").await;
    assert!(sidecar.ask(&order("lost-2")).await.is_replay());
    browser.click("#cancel").await;
    browser.click("#by-key button").await;
    browser.until("document.querySelector('#found').innerText.includes('completed with 201')").await;
    browser.click("#found .records button:last-child").await;
    browser.until("document.querySelector('#change').open").await;
    browser.click("#change-do").await;
    browser.until("document.querySelectorAll('#unknown li').length === 0").await;
    browser.until("document.querySelector('#found').innerText.includes('released by this machine')").await;
    browser.until("document.querySelector('#hand').innerText.includes('every outcome is known')").await;
    assert_eq!(sidecar.ask(&order("lost-2")).await.status, 201);

    // The console has no errors, and no other host was requested.
    // The browser itself complains of the one change that was refused.
    let complaints = browser.complaints().await;
    let others: Vec<_> =
        complaints.iter().filter(|it| !it.contains("status of 409") || !it.contains("/release")).collect();
    assert_eq!((complaints.len(), others), (1, Vec::new()));
    let own = format!("http://{}/", sidecar.admin);
    let others: Vec<_> = browser
        .requests()
        .await
        .into_iter()
        .filter(|url| !url.starts_with(&own) && !url.starts_with("data:"))
        .collect();
    assert_eq!(others, Vec::<String>::new());

    // Everything is visible at every width and in both colour schemes, and reachable with the keyboard.
    for (width, is_dark) in [(400, false), (400, true), (1600, true), (1600, false)] {
        browser.look(Look { width, height: 900, is_dark }).await;
        let too_wide = "document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.value(too_wide).await, false, "{width}");
        if let Some(folder) = std::env::var_os("ONLYONCE_PICTURES") {
            lose(&sidecar, &backend, &format!("shown-{width}-{is_dark}")).await;
            browser.until("document.querySelectorAll('#unknown li').length > 0").await;
            browser.click("#unknown button").await;
            browser.until("document.querySelector('#found').innerText.includes('Look into')").await;
            let name = format!("{width}-{}.png", if is_dark { "dark" } else { "light" });
            let picture = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, browser.picture().await);
            std::fs::write(std::path::Path::new(&folder).join(name), picture.expect("base64")).expect("a folder");
        }
    }
    for selector in ["input:not([type=hidden])", "select", "button"] {
        let nameless = format!(
            "[...document.querySelectorAll('{selector}')].filter((it) => !it.labels?.length && !it.textContent.trim() && \
             !it.getAttribute('aria-label')).length"
        );
        assert_eq!(browser.value(&nameless).await, 0, "{selector}");
    }
    let first = "document.querySelector('a, button, input, select, [tabindex]').className";
    assert_eq!(browser.value(first).await, "skip");
    // Scrolling areas are reachable with the keyboard.
    browser.press("Tab").await;
    assert_eq!(browser.value("document.activeElement !== document.body").await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_token_is_set_records_are_shown_once_it_is_given() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("admin", "token = \"open-sesame-for-all\"").start().await;
    busy(&backend, &sidecar).await;
    let mut browser = Browser::start().await;
    browser.look(Look { width: 400, height: 800, is_dark: true }).await;
    browser.open(&format!("http://{}/", sidecar.admin)).await;
    browser.until("!document.querySelector('#sign-in').hidden").await;
    browser.until("document.querySelector('#routes').innerText.includes('replayed')").await;
    assert_eq!(browser.value("document.querySelector('#hand').hidden").await, true);
    browser.fill("#token", "wrong").await;
    browser.press("Enter").await;
    browser.until("document.querySelector('#sign-in-said').textContent.includes('not a token')").await;
    browser.fill("#token", "open-sesame-for-all").await;
    browser.press("Enter").await;
    browser.until("document.querySelectorAll('#unknown li').length === 2").await;
    assert_eq!(browser.value("document.querySelector('#sign-in').hidden").await, true);
    // The token is in no URL and in no storage.
    assert!(browser.requests().await.iter().all(|url| !url.contains("sesame")));
    assert_eq!(browser.value("localStorage.length + sessionStorage.length + document.cookie.length").await, 0);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
