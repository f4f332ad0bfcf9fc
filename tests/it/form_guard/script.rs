//! What the script asks for, and what it is told.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_posts_by_script_keeps_one_key_and_hears_of_replays() {
    let shop = Shop::open().await;
    let another = "name = \"api\"\npath = \"/api/orders\"\nscope = []";
    let sidecar = shop.setup().another_route(another).start().await;
    let mut browser = Browser::start().await;
    browser.open(&form(&sidecar)).await;
    browser.value("addEventListener('onlyonce:replayed', ({ detail }) => { window.replayed = detail.status; })").await;
    // Status, headers and body are the shop's.
    let post = "onlyonce.fetch('/api/orders', { method: 'POST', body: 'a=1', headers: { 'Idempotency-Key': 'k' } })\
                .then(async (answer) => [answer.status, answer.headers.get('location'), await answer.text()].join(' '))";
    shop.then(Then::Created);
    for replayed in [json!(null), json!(201)] {
        assert_eq!(browser.value(post).await, "201 /orders/1 {\"id\":1}");
        assert_eq!((browser.value("window.replayed").await, shop.rows()), (replayed, 1));
    }
    shop.then(Then::Unprocessable);
    let refused = "onlyonce.fetch('/api/orders', { method: 'POST', body: 'name=bad' }).then((answer) => answer.status)";
    assert_eq!((browser.value(refused).await, shop.rows()), (json!(422), 1));
    // The answer is lost on the way: the same key once more.
    browser.hold(json!({ "urlPattern": "*/api/orders", "requestStage": "Response" })).await;
    shop.then(Then::Created);
    let lost = "window.lost = onlyonce.fetch('/api/orders', { method: 'POST', body: 'a=2' }).then((answer) => answer.status); 0";
    browser.value(lost).await;
    let held = browser.held().await;
    browser.fail(held).await;
    browser.hold_nothing().await;
    assert_eq!((browser.value("window.lost").await, shop.rows()), (json!(201), 2));
    // A redirection is followed, as fetch does.
    let followed = "onlyonce.fetch('/api/orders', { method: 'POST', body: 'a=1' })\
                    .then((answer) => [answer.status, answer.redirected, new URL(answer.url).pathname].join(' '))";
    assert_eq!((browser.value(followed).await, shop.gets("/orders/3")), (json!("200 true /orders/3"), 1));
    // A form of a route whose key is in a header: a page cannot be asked for again, and may say anything.
    browser.value("document.querySelector('#form').action = '/api/orders'").await;
    shop.then(Then::Page);
    browser.fill("#name", "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    says(&mut browser, "The answer is a page that cannot be shown here.").await;
    assert_eq!((shop.rows(), shop.posts()), (4, 5));
    // A route that nobody guards is refused, and not sent.
    let other = "onlyonce.fetch('/other', { method: 'POST', body: 'a=1' }).then(() => 'sent', () => 'refused')";
    assert_eq!((browser.value(other).await, shop.posts()), (json!("refused"), 5));
}

#[tokio::test]
async fn the_script_is_served_where_it_is_configured_and_nowhere_else() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    assert_eq!(sidecar.ask(&request("GET", "/.onlyonce/form.js")).await.status, 201, "off: it is the backend's");
    let sidecar = Setup::new(&backend.url()).with("server", "form_guard = \"/.onlyonce/form.js\"").start().await;
    let script = sidecar.ask(&request("GET", "/.onlyonce/form.js?v=1")).await;
    assert_eq!((script.status, script.value("content-type")), (200, Some("text/javascript; charset=utf-8")));
    assert_eq!(script.value("cache-control"), Some("no-cache"));
    assert!(script.text().contains("[/^POST\\/orders\\/?([?#]|$)/i,\"\",600e3]"), "{}", script.text());
    let tag = script.value("etag").expect("a tag").to_owned();
    let again = request("GET", "/.onlyonce/form.js").line(&format!("If-None-Match: {tag}"));
    assert_eq!(sidecar.ask(&again).await.status, 304);
    assert_eq!(backend.count(), 1);
    // The script's own fields reach no backend, and the key stands where the route expects it.
    let sent =
        post("/orders").line("Onlyonce-Form: 8e03978e-40d5-43dd-bc93-6894a57f9324").line("Accept: */*").body("x");
    let sent = sidecar.ask(&sent.line("Onlyonce-Fetch: another")).await;
    assert_eq!((sent.status, sent.value("onlyonce-form")), (200, Some("go /orders/2")));
    let seen = backend.seen().pop().expect("a request");
    assert!(!seen.has("onlyonce-form") && !seen.has("onlyonce-fetch"));
    assert_eq!(seen.value("idempotency-key"), Some("\"8e03978e-40d5-43dd-bc93-6894a57f9324\""));
}

#[tokio::test]
async fn a_token_against_forged_requests_may_differ_in_a_repeat() {
    let backend = Backend::start().await;
    let setup = || Setup::new(&backend.url()).route("key = \"form:k\"\nscope = []");
    let sidecar = setup().with("server", "form_guard = \"/f.js\"").start().await;
    let form = |body: &str| post("/orders").line("Content-Type: application/x-www-form-urlencoded").body(body);
    let parts = |token: &str| {
        let part = |name: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = part("k", "2") + &part("_token", token) + "--b--\r\n";
        post("/orders").line("Content-Type: multipart/form-data; boundary=b").body(&body)
    };
    for (first, repeat) in
        [(form("k=1&csrfmiddlewaretoken=a&x=1"), form("k=1&csrfmiddlewaretoken=b&x=1")), (parts("a"), parts("b"))]
    {
        assert_eq!(sidecar.ask(&first).await.status, 201);
        assert!(sidecar.ask(&repeat).await.is_replay(), "{repeat:?}");
    }
    sidecar.ask(&form("k=1&csrfmiddlewaretoken=a&x=2")).await.refuses(422, "key-reused");
    // Without the script, and where the route says what is left out, they count.
    let plain = setup().start().await;
    let own = setup().with("server", "form_guard = \"/f.js\"").route("fingerprint_ignore = [\"/x\"]").start().await;
    for sidecar in [plain, own] {
        assert_eq!(sidecar.ask(&form("k=3&_csrf=a&x=1")).await.status, 201);
        sidecar.ask(&form("k=3&_csrf=b&x=1")).await.refuses(422, "key-reused");
    }
}

#[tokio::test]
async fn words_in_the_place_of_an_answer_have_none_of_its_validators() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("server", "form_guard = \"/f.js\"").start().await;
    let of = "ETag: \"v1\"\r\nLast-Modified: Sun, 29 Nov 2026 06:00:00 GMT\r\nContent-Digest: sha-256=:x:\r\n\
              Repr-Digest: sha-256=:x:\r\nContent-MD5: x\r\nContent-Language: de\r\nAccept-Ranges: bytes";
    for (number, (status, media, words)) in [
        ("200 OK", "application/json", "This was done."),
        ("200 OK", "text/html", "The answer is a page that cannot be shown here. Check whether it went through."),
        ("422 Unprocessable Entity", "text/html", "This was not accepted (422)."),
        ("500 Internal Server Error", "text/html", "Something went wrong (500)."),
        ("307 Temporary Redirect\r\nLocation: /elsewhere", "text/html", "Something went wrong (307)."),
    ]
    .into_iter()
    .enumerate()
    {
        backend.then(vec![answer(&format!("{status}\r\nContent-Type: {media}\r\n{of}"), "not for the script")]);
        let told = sidecar.ask(&post("/orders").line(&format!("Onlyonce-Form: key-{number}")).body("x")).await;
        assert_eq!(
            (told.value("onlyonce-form"), told.json()["detail"].as_str()),
            (Some("say"), Some(words)),
            "{told:?}"
        );
        for name in [
            "etag",
            "last-modified",
            "content-digest",
            "repr-digest",
            "content-md5",
            "content-language",
            "accept-ranges",
        ] {
            assert!(!told.has(name), "{name}: {told:?}");
        }
        assert!(told.value("content-length").is_none_or(|length| length == told.body.len().to_string()), "{told:?}");
        assert!(!told.has("location") && !(300..400).contains(&told.status), "fetch would follow: {told:?}");
    }
    // Nothing to read is something to say, too.
    backend.then(vec![say("HTTP/1.1 204 No Content\r\n\r\n")]);
    let told = sidecar.ask(&post("/orders").line("Onlyonce-Form: none").body("x")).await;
    assert_eq!((told.status, told.json()["detail"].as_str()), (200, Some("This was done.")));
}

#[tokio::test]
async fn pages_that_have_the_script_go_on_with_it_after_a_reload_without_it() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let process = Process::start(&setup.clone().with("server", "form_guard = \"/f.js\"")).await;
    assert_eq!(process.ask(&request("GET", "/f.js")).await.status, 200);
    process.rewrite(&setup);
    let reloaded = "onlyonce_config_reloads_total{result=\"ok\"}";
    until("reloaded", async || process.metric(reloaded).await >= 1.0).await;
    assert_eq!(process.ask(&request("GET", "/f.js")).await.status, 201, "it is the backend's");
    let form = post("/orders").line("Onlyonce-Form: 8e03978e-40d5-43dd-bc93-6894a57f9324").body("x");
    for is_replay in [false, true] {
        let told = process.ask(&form).await;
        assert_eq!((told.value("onlyonce-form"), told.is_replay()), (Some("go /orders/2"), is_replay), "{told:?}");
    }
    let posts: Vec<_> = backend.seen().into_iter().filter(|seen| seen.first.starts_with("POST ")).collect();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].value("idempotency-key"), Some("\"8e03978e-40d5-43dd-bc93-6894a57f9324\""));
}

#[tokio::test]
async fn the_script_tells_no_routes_of_other_hosts() {
    let backend = Backend::start().await;
    let other = "name = \"refunds\"\npath = \"/internal/refunds\"\nhost = \"office.test\"\nscope = []";
    let setup = Setup::new(&backend.url()).with("server", "form_guard = \"/f.js\"");
    let sidecar = setup.another_route(other).start().await;
    let script = async |host: &str| sidecar.ask(&request("GET", "/f.js").host(host)).await;
    for host in ["shop.test", "127.0.0.1"] {
        let text = script(host).await.text().to_owned();
        assert!(text.contains("POST\\/orders") && !text.contains("refunds") && !text.contains("office"), "{text}");
    }
    let office = script("Office.test:8080").await;
    assert!(office.text().contains("POST\\/orders") && office.text().contains("refunds"), "{}", office.text());
    assert_ne!(office.value("etag"), script("shop.test").await.value("etag"));
}
