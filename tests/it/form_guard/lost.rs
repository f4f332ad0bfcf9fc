//! Answers and connections that are lost, on the way and in the page.

use serde_json::json;

use super::clicks::NO_DELAY;
use super::*;

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
    // Whoever clicks meanwhile takes over from the script, and does not send it a second time.
    browser.press_mouse("#save", &[0]).await;
    says(&mut browser, "No connection").await;
    browser.network(false, 0, -1).await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts(), shop.gets("/orders/1")), (1, 1, 1));

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

/// The hash is all that the policy permits, and the tag has it, as `onlyonce check` prints it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_with_the_hash_of_the_script_runs_it_and_one_of_another_script_runs_nothing() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let script = sidecar.ask(&request("GET", "/.onlyonce/form.js")).await;
    let hash = |bytes: &[u8]| {
        let digest = ring::digest::digest(&ring::digest::SHA384, bytes);
        format!("sha384-{}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest))
    };
    for (number, integrity, is_guarded) in [(1, hash(&script.body), true), (2, hash(b"of another route"), false)] {
        let policy = format!("default-src 'none'; script-src '{integrity}'; connect-src 'self'; form-action 'self'");
        let lines = format!("\r\nContent-Security-Policy: {policy}");
        shop.set(Page { lines, integrity: Some(integrity), ..Page::default() });
        filled(&mut browser, &sidecar, "Ada").await;
        assert_eq!(browser.value("!!self.onlyonce").await, is_guarded);
        browser.press_mouse("#save", if is_guarded { &[0, 30] } else { &[0] }).await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number));
        assert_eq!(shop.last_row().contains("order_key="), is_guarded, "{}", shop.last_row());
    }
}

/// Nothing but the lock of the form guards it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_timer_frees_a_form_that_a_policy_leaves_to_the_browser() {
    let shop = Shop::open().await;
    let mut browser = Browser::start().await;
    let policy = "\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; form-action 'self'";
    shop.set(Page { lines: policy.into(), ..Page::default() });
    for (number, key) in [(1, "header:Idempotency-Key"), (2, "form:order_key")] {
        let sidecar = shop.setup().route(&format!("key = \"{key}\"")).start().await;
        filled(&mut browser, &sidecar, "Ada").await;
        browser.value(NO_DELAY).await;
        let save = browser.place("#save").await;
        browser.hold(json!({ "urlPattern": "*/orders" })).await;
        browser.press_mouse_at(save, &[0]).await;
        let held = browser.held().await;
        browser.press_mouse_at(save, &[0, 60]).await;
        browser.release(held).await;
        browser.hold_nothing().await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number), "{key}");
    }
}

/// The shop has taken it, and what stands before the sidecar has given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_an_edge_keeps_the_key() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    for (number, status, media, body) in [
        (1, 504, "text/html", "<h1>Gateway Timeout</h1>"),
        (2, 502, "application/json", "{\"message\":\"no\"}"),
        (3, 200, "text/html", "<h1>Please sign in</h1>"),
    ] {
        filled(&mut browser, &sidecar, "Ada").await;
        browser.hold(json!({ "urlPattern": "*/orders", "requestStage": "Response" })).await;
        browser.press_mouse("#save", &[0, 30]).await;
        let held = browser.held().await;
        browser.answer(held, status, media, body).await;
        browser.hold_nothing().await;
        says(&mut browser, "No answer. It may have arrived.").await;
        assert_eq!((shop.rows(), browser.value(IS_BUSY).await), (number, json!(false)), "{status}");
        assert_eq!(browser.accessible("output button").await, ("button".into(), "Try again".into(), false));
        browser.press_mouse("output button", &[0, 30]).await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn whoever_wakes_after_ten_minutes_is_asked_by_a_button() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    filled(&mut browser, &sidecar, "Ada").await;
    browser.network(true, 0, 0).await;
    browser.press_mouse("#save", &[0]).await;
    says(&mut browser, "No connection").await;
    // A computer that sleeps runs no timers, and its clock goes on. It wakes, and the network is there.
    browser.value("{ const now = Date.now; Date.now = () => now() + 601_000; }").await;
    browser.network(false, 0, -1).await;
    says(&mut browser, "No answer. It may have arrived.").await;
    assert_eq!((shop.posts(), browser.value(IS_BUSY).await), (0, json!(false)));
    browser.press_mouse("output button", &[0]).await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn what_a_policy_forbids_others_is_not_taken_for_ours() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let script = "addEventListener('securitypolicyviolation', () => { window.violations = (window.violations || 0) + 1; });\
                  fetch('http://127.0.0.1:1/').catch(() => {});";
    for (number, policy) in [
        (1, "Content-Security-Policy: connect-src 'self'"),
        // Only reported: it forbids nothing.
        (2, "Content-Security-Policy-Report-Only: connect-src 'none'"),
    ] {
        shop.set(Page { lines: format!("\r\n{policy}"), script: script.into(), ..Page::default() });
        filled(&mut browser, &sidecar, "Ada").await;
        browser.until("window.violations > 0").await;
        browser.network(true, 0, 0).await;
        browser.press_mouse("#save", &[0]).await;
        // A form that is sent by the browser itself would be lost, and what was typed with it.
        says(&mut browser, "No connection").await;
        browser.network(false, 0, -1).await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_sent_on_by_a_307_arrives_once_where_it_leads() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    shop.then(Then::Moved);
    shop.then(Then::Moved);
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    ordered(&mut browser, 1).await;
    // Twice to the old address, which took nothing, and once to the new one.
    assert_eq!((shop.rows(), shop.posts()), (1, 3));
    assert!(shop.last_row().contains("name=Ada") && shop.last_row().contains("&do=save"), "{}", shop.last_row());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_on_the_way_is_asked_for_again_where_that_is_safe() {
    let shop = Shop::open().await;
    let mut browser = Browser::start().await;
    let after = json!({ "urlPattern": "*/orders", "requestStage": "Response" });
    let browser_loses = async |browser: &mut Browser, sidecar: &Sidecar| {
        filled(browser, sidecar, "Ada").await;
        browser.hold(after.clone()).await;
        browser.press_mouse("#save", &[0, 30]).await;
        let held = browser.held().await;
        browser.fail(held).await;
        browser.hold_nothing().await;
    };

    // By itself.
    let sidecar = shop.guarded().await;
    browser_loses(&mut browser, &sidecar).await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));

    // A route that forwards unguarded when the store is away might run it again: the person decides.
    let sidecar = shop.setup().route("on_error = \"forward\"").start().await;
    browser_loses(&mut browser, &sidecar).await;
    says(&mut browser, "No answer. It may have arrived.").await;
    assert_eq!((shop.rows(), browser.value(IS_BUSY).await), (2, json!(false)));
    browser.press_mouse("output button", &[0]).await;
    ordered(&mut browser, 2).await;
    assert_eq!((shop.rows(), shop.posts()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_button_that_asks_is_clicked_twice_and_sends_once() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;

    // A repeat that gets no answer either: the button has its label again.
    filled(&mut browser, &sidecar, "Ada").await;
    for (button, clicks) in [("#save", &[0, 30][..]), ("output button", &[0, 30]), ("output button", &[0])] {
        browser.hold(json!({ "urlPattern": "*/orders", "requestStage": "Response" })).await;
        browser.press_mouse(button, clicks).await;
        let held = browser.held().await;
        if clicks.len() == 1 {
            // A second click is beside the button that is gone, and takes the focus away.
            assert_eq!(browser.value("document.activeElement.id").await, "save", "the focus is not lost");
        }
        browser.answer(held, 504, "text/html", "<h1>Gateway Timeout</h1>").await;
        browser.until(&format!("!({IS_BUSY})")).await;
        browser.hold_nothing().await;
        says(&mut browser, "No answer. It may have arrived.").await;
        assert_eq!(browser.value("document.querySelector('#save').textContent").await, "Place order", "{button}");
    }
    assert_eq!((shop.rows(), shop.posts()), (1, 1));

    // A new order on purpose is one.
    shop.then(Then::Reset);
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    browser.until("document.querySelector('output button')").await;
    browser.press_mouse("#save", &[0]).await;
    says(&mut browser, "We cannot tell").await;
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    browser.press_mouse("output button", &[0, 30]).await;
    shop.has_posts(3).await;
    gate.open();
    ordered(&mut browser, 3).await;
    assert_eq!((shop.rows(), shop.posts()), (3, 3));
}
