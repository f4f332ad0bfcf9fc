//! The form guard in a real browser, with real clicks: how often a form reaches the ledger of a shop that knows nothing.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::net::TcpListener;

use crate::support::*;

/// A shop with a form. Every order that it takes is a row, however often it comes.
struct Shop {
    address: std::net::SocketAddr,
    state: Arc<Mutex<ShopState>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct ShopState {
    rows: Vec<String>,
    posts: Vec<String>,
    gets: Vec<String>,
    /// How it answers the next orders; those after the last are redirected.
    then: std::collections::VecDeque<Then>,
    page: Page,
}

#[derive(Clone)]
enum Then {
    /// Waits for the gate, and redirects to the order.
    Wait(Gate),
    /// 200 with a page.
    Page,
    /// 422 with the form, instead of 200.
    Unprocessable,
    /// Takes it, and breaks off.
    Reset,
}

#[derive(Clone)]
struct Page {
    has_script: bool,
    lines: String,
    script: String,
    attributes: String,
}

impl Default for Page {
    fn default() -> Self {
        Self { has_script: true, lines: String::new(), script: String::new(), attributes: String::new() }
    }
}

impl Shop {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("bound");
        let state: Arc<Mutex<ShopState>> = Arc::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut wire = Wire::patient(stream);
                    while let Some(request) = wire.request().await {
                        match Self::answer(&state, &request).await {
                            Some(bytes) => {
                                if wire.try_send(bytes).await.is_err() {
                                    return;
                                }
                            }
                            None => return wire.reset(),
                        }
                    }
                });
            }
        });
        Self { address, state, task }
    }

    async fn answer(state: &Mutex<ShopState>, request: &wire::Seen) -> Option<Vec<u8>> {
        let mut words = request.first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let html = |status: &str, more: &str, body: &str| {
            let head = format!("{status}\r\nContent-Type: text/html; charset=utf-8{more}");
            let Step::Say(bytes) = answer(&head, body) else { unreachable!() };
            Some(bytes)
        };
        if method == "GET" {
            let mut state = state.lock().expect("no panic");
            state.gets.push(target.to_owned());
            let lines = state.page.lines.clone();
            return match target.strip_prefix("/orders/") {
                Some(number) => {
                    html("200 OK", "", &format!("<!doctype html><title>Order</title><p id=order>{number}</p>"))
                }
                None if target == "/form" => html("200 OK", &lines, &Self::form(&state.page, state.gets.len(), "")),
                None if target == "/page.js" => {
                    let Step::Say(bytes) = answer("200 OK\r\nContent-Type: text/javascript", &state.page.script) else {
                        unreachable!()
                    };
                    Some(bytes)
                }
                None if target == "/favicon.ico" => html("204 No Content", "", ""),
                None => html("404 Not Found", "", "no"),
            };
        }
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let (then, page) = {
            let mut state = state.lock().expect("no panic");
            state.posts.push(body.clone());
            (state.then.pop_front(), state.page.clone())
        };
        if body.contains("name=bad") {
            let status = if matches!(then, Some(Then::Unprocessable)) { "422 Unprocessable Entity" } else { "200 OK" };
            return html(status, "", &Self::form(&page, 0, "<p id=error>No such name.</p>"));
        }
        let number = {
            let mut state = state.lock().expect("no panic");
            state.rows.push(body);
            state.rows.len()
        };
        match then {
            Some(Then::Wait(gate)) => gate.pass().await,
            Some(Then::Page) => return html("200 OK", "", &format!("<!doctype html><p id=order>{number}</p>")),
            Some(Then::Reset) => return None,
            Some(Then::Unprocessable) | None => {}
        }
        let Step::Say(bytes) = answer(&format!("303 See Other\r\nLocation: /orders/{number}"), "") else {
            unreachable!()
        };
        Some(bytes)
    }

    /// With a token that each page has anew, as Django's have.
    fn form(page: &Page, token: usize, error: &str) -> String {
        let script = if page.has_script { "<script src=\"/.onlyonce/form.js\" defer></script>" } else { "" };
        let own = if page.script.is_empty() { "" } else { "<script src=\"/page.js\" defer></script>" };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Form</title>{script}{own}</head><body>{error}\
             <form id=\"form\" method=\"post\" action=\"/orders\" data-onlyonce {}>\
             <input type=\"hidden\" name=\"csrfmiddlewaretoken\" value=\"t{token}\">\
             <label>Name <input name=\"name\" id=\"name\" required></label>\
             <label>Note <textarea name=\"note\">a\nb</textarea></label>\
             <button id=\"save\" name=\"do\" value=\"save\">Place order</button> \
             <button id=\"draft\" name=\"do\" value=\"draft\">Keep a draft</button></form></body></html>",
            page.attributes
        )
    }

    fn set(&self, page: Page) {
        self.state.lock().expect("no panic").page = page;
    }

    fn then(&self, then: Then) {
        self.state.lock().expect("no panic").then.push_back(then);
    }

    fn rows(&self) -> usize {
        self.state.lock().expect("no panic").rows.len()
    }

    fn last_row(&self) -> String {
        self.state.lock().expect("no panic").rows.last().cloned().unwrap_or_default()
    }

    fn posts(&self) -> usize {
        self.state.lock().expect("no panic").posts.len()
    }

    fn gets(&self, target: &str) -> usize {
        self.state.lock().expect("no panic").gets.iter().filter(|got| *got == target).count()
    }

    async fn has_posts(&self, count: usize) {
        until("orders at the shop", async || self.posts() >= count).await;
    }

    async fn guarded(&self) -> Sidecar {
        self.setup().start().await
    }

    fn setup(&self) -> Setup {
        let setup = Setup::new(&format!("http://{}", self.address));
        setup.with("server", "form_guard = \"/.onlyonce/form.js\"").route("key = \"form:order_key\"\nscope = []")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn form(sidecar: &Sidecar) -> String {
    format!("http://{}/form", sidecar.address)
}

/// The form, with a name in it.
async fn filled(browser: &mut Browser, sidecar: &Sidecar, name: &str) {
    browser.open(&form(sidecar)).await;
    browser.fill("#name", name).await;
}

async fn ordered(browser: &mut Browser, number: usize) {
    browser.until(&format!("document.querySelector('#order')?.textContent === '{number}'")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_a_form_is_clicked_it_is_sent_once() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    for (number, gaps) in [&[30][..], &[120], &[5, 40, 90], &[400]].into_iter().enumerate() {
        let gate = Gate::new();
        shop.then(Then::Wait(gate.clone()));
        filled(&mut browser, &sidecar, "Ada").await;
        let clicks: Vec<_> = [0].into_iter().chain(gaps.iter().copied()).collect();
        browser.press_mouse("#save", &clicks).await;
        browser.press_mouse("#draft", &[0]).await;
        shop.has_posts(number + 1).await;
        gate.open();
        ordered(&mut browser, number + 1).await;
        assert_eq!((shop.rows(), shop.posts()), (number + 1, number + 1), "{gaps:?}");
        assert_eq!(shop.gets(&format!("/orders/{}", number + 1)), 1, "its page is loaded once");
        // The pressed button, and lines as a browser sends them.
        assert!(
            shop.last_row().contains("&do=save") && shop.last_row().contains("note=a%0D%0Ab"),
            "{}",
            shop.last_row()
        );
    }

    // Enter, then a click.
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press("Enter").await;
    browser.press_mouse("#save", &[0]).await;
    shop.has_posts(5).await;
    gate.open();
    ordered(&mut browser, 5).await;
    assert_eq!((shop.rows(), shop.posts()), (5, 5));

    // The other button's name.
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#draft", &[0, 30]).await;
    ordered(&mut browser, 6).await;
    assert!(shop.last_row().contains("&do=draft"), "{}", shop.last_row());
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// What all of the others count on: nothing but the script keeps the second row away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_script_a_double_click_makes_two_rows() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    shop.set(Page { has_script: false, ..Page::default() });
    let mut browser = Browser::start().await;
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    filled(&mut browser, &sidecar, "Ada").await;
    // The first request has left by then. Between the clicks the page is asked nothing: it would answer when it has gone.
    browser.press_mouse("#save", &[0, 1500]).await;
    shop.has_posts(2).await;
    gate.open();
    assert_eq!(shop.rows(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_sent_the_form_says_so_and_nothing_moves() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    for (attributes, lang, text) in
        [("", "en", "Saving…"), ("", "de", "Sendet…"), ("data-progress=\"Ordering…\"", "de", "Ordering…")]
    {
        let gate = Gate::new();
        shop.then(Then::Wait(gate.clone()));
        shop.set(Page { attributes: attributes.into(), ..Page::default() });
        filled(&mut browser, &sidecar, "Ada").await;
        browser.value(&format!("document.documentElement.lang = '{lang}'")).await;
        let places = "JSON.stringify([...document.querySelectorAll('form, form *')].filter((it) => it.localName !== 'output')\
                      .map((it) => it.getBoundingClientRect()))";
        let before = browser.value(places).await;
        let posts = shop.posts();
        browser.press_mouse("#save", &[0]).await;
        shop.has_posts(posts + 1).await;
        assert_eq!(browser.value("document.querySelector('#save').textContent").await, text);
        assert_eq!(browser.value(places).await, before, "nothing moves");
        let told = browser.accessible("#save").await;
        assert_eq!((told.0.as_str(), told.1.as_str(), told.2), ("button", text, true));
        assert!(browser.accessible("#draft").await.2);
        assert_eq!(browser.value("document.querySelector('#form').getAttribute('aria-busy')").await, "true");
        assert_eq!(browser.value("document.activeElement.id").await, "save", "the focus stays");
        gate.open();
        ordered(&mut browser, posts + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_loaded_again_goes_on_with_its_key_and_a_new_one_begins_anew() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;

    // A refresh in the middle of submitting, and the same once more. The token of the page is another one.
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    shop.has_posts(1).await;
    browser.reload().await;
    browser.fill("#name", "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    gate.open();
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));

    // Stop, and the same once more.
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    filled(&mut browser, &sidecar, "Ada").await;
    browser.value("addEventListener('pageshow', (event) => { window.shown = event.persisted; })").await;
    browser.press_mouse("#save", &[0]).await;
    shop.has_posts(2).await;
    browser.call("Page.stopLoading", json!({})).await;
    browser.until("document.querySelector('#form').getAttribute('aria-busy') !== 'true'").await;
    browser.press_mouse("#save", &[0]).await;
    gate.open();
    ordered(&mut browser, 2).await;
    assert_eq!((shop.rows(), shop.posts()), (2, 2));

    // Back, and the same once more. The page comes from the back-forward cache.
    browser.back().await;
    browser.until("document.querySelector('#form') && window.shown === true").await;
    assert_eq!(browser.value("document.querySelector('#name').value").await, "Ada");
    assert_ne!(browser.value("document.querySelector('#form').getAttribute('aria-busy')").await, "true");
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 2).await;
    assert_eq!((shop.rows(), shop.posts()), (2, 2));

    // Back, and something else: that is another order.
    browser.back().await;
    browser.until("!!document.querySelector('#form')").await;
    browser.fill("#name", "Grace").await;
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 3).await;

    // The same order twice on purpose.
    for number in [4, 5] {
        filled(&mut browser, &sidecar, "Ada").await;
        browser.press_mouse("#save", &[0, 60]).await;
        ordered(&mut browser, number).await;
    }
    assert_eq!((shop.rows(), shop.posts()), (5, 5));

    // Two tabs are two intents, and each of them is one.
    let first = browser.tab();
    filled(&mut browser, &sidecar, "Ada").await;
    let second = browser.another_tab().await;
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    ordered(&mut browser, 6).await;
    browser.turn_to(first);
    browser.press_mouse("#save", &[0, 30]).await;
    ordered(&mut browser, 7).await;
    assert_eq!((shop.rows(), shop.posts()), (7, 7));
    browser.turn_to(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_not_sent_is_not_locked_and_a_corrected_one_is_a_new_intent() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let script = "addEventListener('submit', (event) => { window.handled = (window.handled || 0) + 1; });\
                  document.querySelector('#form').addEventListener('submit', (event) => {\
                  if (!confirm('Sure?')) event.preventDefault(); });";
    shop.set(Page { script: script.into(), ..Page::default() });

    // An empty required field.
    browser.open(&form(&sidecar)).await;
    browser.press_mouse("#save", &[0]).await;
    assert_eq!(browser.value("document.activeElement.id").await, "name", "the browser asks for it");
    assert_ne!(browser.value("document.querySelector('#form').getAttribute('aria-busy')").await, "true");

    // A refused confirm(), then one that is accepted.
    browser.fill("#name", "Ada").await;
    browser.answer_dialogs(&[false, true]);
    browser.press_mouse("#save", &[0]).await;
    browser.until("window.handled === 1").await;
    assert_ne!(browser.value("document.querySelector('#form').getAttribute('aria-busy')").await, "true");
    assert_eq!(shop.posts(), 0);
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 1).await;

    // Invalid, and then corrected: one row, whichever status the page has.
    for (number, then) in [(2, None), (3, Some(Then::Unprocessable))] {
        shop.set(Page::default());
        if let Some(then) = then {
            shop.then(then);
        }
        let posts = shop.posts();
        filled(&mut browser, &sidecar, "bad").await;
        browser.press_mouse("#save", &[0]).await;
        browser.until("document.querySelector('#error') && document.readyState === 'complete'").await;
        assert_eq!((shop.rows(), shop.posts()), (number - 1, posts + 1), "it is shown without asking the shop again");
        browser.fill("#name", "Ada").await;
        browser.press_mouse("#save", &[0, 30]).await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, posts + 2));
    }

    // An answer that is a page is shown at its own address.
    shop.then(Then::Page);
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 4).await;
    assert!(browser.value("location.pathname").await == "/orders");
    assert_eq!(shop.rows(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_loses_nothing_and_runs_nothing_twice() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;

    // Offline, and back.
    filled(&mut browser, &sidecar, "Ada").await;
    browser.network(true, 0, 0).await;
    browser.press_mouse("#save", &[0, 30]).await;
    browser.until("document.querySelector('output').textContent.startsWith('No connection')").await;
    assert_eq!(browser.accessible("output").await.0, "status");
    assert_ne!(browser.value("document.querySelector('#form').getAttribute('aria-busy')").await, "true");
    assert_eq!(browser.value("document.querySelector('#name').value").await, "Ada");
    browser.network(false, 0, -1).await;
    ordered(&mut browser, 1).await;
    assert_eq!(shop.rows(), 1);

    // Slow 3G.
    browser.open(&form(&sidecar)).await;
    browser.fill("#name", "Ada").await;
    browser.network(false, 2000, 50_000).await;
    browser.press_mouse("#save", &[0, 120, 300, 900]).await;
    ordered(&mut browser, 2).await;
    browser.network(false, 0, -1).await;
    assert_eq!(shop.rows(), 2);

    // The answer is lost behind the sidecar: nobody knows, until the person says that it is another one.
    shop.then(Then::Reset);
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    browser.until("document.querySelector('output button')").await;
    browser.fill("#name", "Ada again").await;
    browser.press_mouse("#save", &[0]).await;
    browser.until("document.querySelector('output').textContent.startsWith('This was already sent, with other')").await;
    browser.fill("#name", "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    browser.until("document.querySelector('output').textContent.startsWith('We cannot tell')").await;
    assert_eq!((shop.rows(), browser.value("document.querySelector('#name').value").await), (3, json!("Ada")));
    browser.press_mouse("output button", &[0]).await;
    ordered(&mut browser, 4).await;
    assert_eq!(shop.rows(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_policy_and_an_integrity_hash_are_met() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let script = sidecar.ask(&request("GET", "/.onlyonce/form.js")).await;
    let digest = ring::digest::digest(&ring::digest::SHA384, &script.body);
    let integrity = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
    for (number, policy) in [
        "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'".to_owned(),
        format!("default-src 'none'; script-src 'sha384-{integrity}' 'self'; connect-src 'self'; form-action 'self'"),
        // The script may not ask: the form is sent as a form, with its key.
        "default-src 'none'; script-src 'self'; form-action 'self'".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        shop.set(Page { lines: format!("\r\nContent-Security-Policy: {policy}"), ..Page::default() });
        filled(&mut browser, &sidecar, "Ada").await;
        browser.press_mouse("#save", &[0, 30]).await;
        ordered(&mut browser, number + 1).await;
        assert_eq!(shop.rows(), number + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_posts_by_script_keeps_one_key_and_hears_of_replays() {
    let shop = Shop::open().await;
    let another = "name = \"api\"\npath = \"/api/orders\"\nscope = []";
    let sidecar = shop.setup().another_route(another).start().await;
    let mut browser = Browser::start().await;
    browser.open(&form(&sidecar)).await;
    browser.value("addEventListener('onlyonce:replayed', ({ detail }) => { window.replayed = detail.status; })").await;
    let post = "onlyonce.fetch('/api/orders', { method: 'POST', body: 'a=1', headers: { 'Idempotency-Key': 'k' } })\
                .then((answer) => answer.verb + ' ' + answer.to)";
    for _ in 0..2 {
        assert_eq!(browser.value(post).await, "go /orders/1");
    }
    assert_eq!((browser.value("window.replayed").await, shop.rows()), (json!(200), 1));
    // What is no redirection is the page's to read, as the shop sent it.
    shop.then(Then::Page);
    let read = "onlyonce.fetch('/api/orders', { method: 'POST', body: 'a=1' }).then((answer) => answer.text())";
    assert_eq!(browser.value(read).await, "<!doctype html><p id=order>2</p>");
    let own = "onlyonce.fetch('/api/orders', { method: 'POST', body: 'a=1' }).then((answer) => answer.to)";
    assert_eq!(browser.value(own).await, "/orders/3");
    // A form of a route whose key is in a header: a page cannot be asked for again, and it is said that it was done.
    browser.value("document.querySelector('#form').action = '/api/orders'").await;
    shop.then(Then::Page);
    browser.fill("#name", "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    browser.until("document.querySelector('output')?.textContent.startsWith('This was done')").await;
    assert_eq!(shop.posts(), 4);
    // A route that nobody guards is refused, and not sent.
    let other = "onlyonce.fetch('/other', { method: 'POST', body: 'a=1' }).then(() => 'sent', () => 'refused')";
    assert_eq!((browser.value(other).await, shop.posts()), (json!("refused"), 4));
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
    assert!(script.text().contains("[/^POST\\/orders([?#]|$)/i,\"\",1]"), "{}", script.text());
    let tag = script.value("etag").expect("a tag").to_owned();
    let again = request("GET", "/.onlyonce/form.js").line(&format!("If-None-Match: {tag}"));
    assert_eq!(sidecar.ask(&again).await.status, 304);
    assert_eq!(backend.count(), 1);
    // The script's own field reaches no backend, and the key stands where the route expects it.
    let sent =
        post("/orders").line("Onlyonce-Form: 8e03978e-40d5-43dd-bc93-6894a57f9324").line("Accept: */*").body("x");
    let sent = sidecar.ask(&sent).await;
    assert_eq!((sent.status, sent.value("onlyonce-form")), (200, Some("go /orders/2")));
    let seen = backend.seen().pop().expect("a request");
    assert!(!seen.has("onlyonce-form"));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn firefox_sends_it_once_too() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut firefox = Firefox::start().await;
    let form = form(&sidecar);
    let is_ordered = |number: usize| format!("document.querySelector('#order')?.textContent === '{number}'");

    // A double click.
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    firefox.open(&form).await;
    firefox.fill("#name", "Ada").await;
    firefox.press_mouse("#save", &[0, 120]).await;
    shop.has_posts(1).await;
    assert_eq!(firefox.value("document.querySelector('#save').textContent").await, "Saving…");
    assert_eq!(firefox.value("document.querySelector('#save').getAttribute('aria-disabled')").await, "true");
    gate.open();
    firefox.until(&is_ordered(1)).await;

    // Back, from the back-forward cache or not, and the same once more.
    firefox.back().await;
    firefox.until("!!document.querySelector('#form')").await;
    firefox.fill("#name", "Ada").await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));

    // A refresh in the middle of submitting.
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    firefox.open(&form).await;
    firefox.fill("#name", "Ada").await;
    firefox.press_mouse("#save", &[0]).await;
    shop.has_posts(2).await;
    firefox.reload().await;
    firefox.fill("#name", "Ada").await;
    firefox.press_mouse("#save", &[0]).await;
    gate.open();
    firefox.until(&is_ordered(2)).await;

    // Invalid, and then corrected: the page is shown by a navigation that repeats the form.
    firefox.open(&form).await;
    firefox.fill("#name", "bad").await;
    firefox.press_mouse("#save", &[0]).await;
    firefox.until("!!document.querySelector('#error')").await;
    firefox.fill("#name", "Ada").await;
    firefox.press_mouse("#save", &[0, 30]).await;
    firefox.until(&is_ordered(3)).await;
    assert_eq!((shop.rows(), shop.posts()), (3, 4));
}

/// A page as a navigation asks for it.
fn navigation(target: &str) -> Request {
    request("GET", target).line("Sec-Fetch-Dest: document").line("Accept-Encoding: gzip, br")
}

#[tokio::test]
async fn a_page_that_passes_gets_the_tag_where_it_may() {
    let backend = Backend::start().await;
    let server = "form_guard = \"/.onlyonce/form.js\"\nform_guard_inject = [\"/shop/{*rest}\"]";
    let sidecar = Setup::new(&backend.url()).with("server", server).start().await;
    let html = "200 OK\r\nContent-Type: text/html; charset=utf-8";
    let page = "<!doctype html><html><head><title>Shop</title></head><body>ü</body></html>";

    backend.then(vec![answer(
        &format!(
            "{html}\r\nETag: \"v1\"\r\nContent-Digest: sha-256=:x:\r\nLast-Modified: Sun, 29 Nov 2026 06:00:00 GMT"
        ),
        page,
    )]);
    let first = sidecar.ask(&navigation("/shop/cart?x=1")).await;
    let tag = first.text().split("<head>").nth(1).and_then(|rest| rest.split("<title>").next()).expect("a tag");
    assert!(
        tag.starts_with("<script src=\"/.onlyonce/form.") && tag.ends_with(" data-forms=\"form\" defer></script>"),
        "{tag}"
    );
    assert_eq!(first.text().replace(tag, ""), page);
    assert_eq!(first.text().matches("<script").count(), 1);
    assert!(!first.has("content-digest") && !first.has("content-length"), "{first:?}");
    let etag = first.value("etag").expect("a tag").to_owned();
    assert!(etag.starts_with("W/\"v1-onlyonce-"), "{etag}");
    assert_eq!(backend.seen()[0].value("accept-encoding"), Some("identity"));
    let script = tag.split('"').nth(1).expect("a path").to_owned();
    let served = sidecar.ask(&request("GET", &script)).await;
    assert_eq!(served.value("cache-control"), Some("public, max-age=31536000, immutable"));

    // The browser's validator is the backend's, mapped back; another one is none.
    backend.then(vec![say("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n")]);
    let again = navigation("/shop/cart").line(&format!("If-None-Match: \"other\", {etag}"));
    let again = sidecar.ask(&again.line("If-Modified-Since: Sun, 29 Nov 2026 06:00:00 GMT")).await;
    assert_eq!((again.status, again.value("etag")), (304, Some(etag.as_str())));
    let seen = backend.seen();
    assert_eq!((seen[1].value("if-none-match"), seen[1].value("if-modified-since")), (Some("\"v1\", W/\"v1\""), None));

    // What stays as it is, and is counted by its reason.
    for (lines, reason) in [
        ("200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Security-Policy: script-src 'none'", "policy"),
        ("200 OK\r\nContent-Type: text/html; charset=iso-8859-1", "charset"),
        ("200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Encoding: br", "encoded"),
        ("200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-transform", "no_transform"),
        ("404 Not Found\r\nContent-Type: text/html; charset=utf-8", ""),
        ("200 OK\r\nContent-Type: text/plain; charset=utf-8", ""),
    ] {
        backend.then(vec![answer(&format!("{lines}\r\nETag: \"v2\""), page)]);
        let same = sidecar.ask(&navigation("/shop/cart")).await;
        assert_eq!((same.text(), same.value("etag")), (page, Some("\"v2\"")), "{lines}");
        assert_eq!(same.value("content-length"), Some(page.len().to_string().as_str()));
        if !reason.is_empty() {
            let series = format!("onlyonce_form_guard_total{{result=\"{reason}\"}}");
            assert_eq!(sidecar.metric(&series).await, 1.0, "{series}");
        }
    }
    assert_eq!(sidecar.metric("onlyonce_form_guard_total{result=\"injected\"}").await, 1.0);

    // Nobody else's requests are touched.
    for other in [
        request("GET", "/shop/cart").line("Sec-Fetch-Dest: empty"),
        request("GET", "/shop/cart"),
        navigation("/shop/cart").line("Range: bytes=0-9"),
        navigation("/other/cart"),
    ] {
        backend.then(vec![answer(html, page)]);
        let other = other.line("If-None-Match: \"a\"");
        let same = sidecar.ask(&other).await;
        assert_eq!(same.text(), page, "{other:?}");
        let seen = backend.seen().pop().expect("a request");
        assert_eq!(seen.value("if-none-match"), Some("\"a\""));
    }

    // A nonce of the page's policy is the tag's too.
    let nonce = "Content-Security-Policy: default-src 'self'; script-src 'nonce-aGk=' 'strict-dynamic'";
    backend.then(vec![answer(&format!("{html}\r\n{nonce}"), page)]);
    assert!(sidecar.ask(&navigation("/shop/cart")).await.text().contains(" defer nonce=\"aGk=\"></script>"));
}
