//! How a form is clicked, and what it says meanwhile.

use serde_json::json;

use super::*;

/// No timer of the page runs from now on.
const NO_TIMER: &str = "window.setTimeout = () => 0";

/// All timers of the page run at once from now on.
pub(super) const NO_DELAY: &str = "{ const later = window.setTimeout; window.setTimeout = (act) => later(act, 0); }";

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
    // Between the clicks the page is asked nothing: it would answer when it has gone.
    let save = browser.place("#save").await;
    browser.press_mouse_at(save, &[0]).await;
    shop.has_posts(1).await;
    browser.press_mouse_at(save, &[0]).await;
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
async fn a_click_after_the_answer_waits_for_the_page_that_it_names() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    // The page of an order, and that of a refusal.
    shop.then(Then::To("/orders/1"));
    shop.then(Then::Unprocessable);
    for (name, shown) in [("Ada", "#order"), ("bad", "#error")] {
        let posts = shop.posts();
        filled(&mut browser, &sidecar, name).await;
        browser.value(NO_TIMER).await;
        let (save, draft) = (browser.place("#save").await, browser.place("#draft").await);
        browser.hold(json!({ "resourceType": "Document" })).await;
        browser.press_mouse_at(save, &[0]).await;
        let held = browser.held().await;
        // The answer is there, and the page is not.
        browser.press_mouse_at(save, &[0, 60]).await;
        browser.press_mouse_at(draft, &[0]).await;
        browser.release(held).await;
        browser.hold_nothing().await;
        browser.until(&format!("document.querySelector('{shown}') && document.readyState === 'complete'")).await;
        assert_eq!((shop.rows(), shop.posts()), (1, posts + 1), "{name}");
    }
    assert_eq!(shop.gets("/orders/1"), 1, "its page is loaded once");

    // Stopped on the way there: the form is free, and the same once more is the same order.
    filled(&mut browser, &sidecar, "Grace").await;
    browser.value(NO_TIMER).await;
    let save = browser.place("#save").await;
    browser.hold(json!({ "resourceType": "Document" })).await;
    browser.press_mouse_at(save, &[0]).await;
    browser.held().await;
    browser.call("Page.stopLoading", json!({})).await;
    browser.until(&format!("!({IS_BUSY})")).await;
    browser.hold_nothing().await;
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 2).await;
    assert_eq!((shop.rows(), shop.posts()), (2, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_form_whose_answer_is_a_file_is_free_again() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    // The redirection leads to one, and the answer is one.
    for (number, then) in [(1, Then::To("/file")), (2, Then::File)] {
        shop.then(then);
        filled(&mut browser, &sidecar, "Ada").await;
        browser.press_mouse("#save", &[0, 30]).await;
        shop.has_posts(number).await;
        browser.until(&format!("!({IS_BUSY})")).await;
        assert_eq!((shop.rows(), browser.value("document.querySelector('#name').value").await), (number, json!("Ada")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_button_without_a_label_keeps_the_one_of_the_browser() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    shop.set(Page {
        controls: "<input type=submit id=plain><input type=submit id=named value=Buy>".into(),
        ..Page::default()
    });
    for (number, button, label, busy) in [(1, "#plain", "Submit", "Submit"), (2, "#named", "Buy", "Saving…")] {
        let gate = Gate::new();
        shop.then(Then::Wait(gate.clone()));
        filled(&mut browser, &sidecar, "Ada").await;
        let told = browser.accessible(button).await;
        assert_eq!((told.1.as_str(), told.2), (label, false));
        browser.network(true, 0, 0).await;
        browser.press_mouse(button, &[0]).await;
        says(&mut browser, "No connection").await;
        let told = browser.accessible(button).await;
        assert_eq!((told.1.as_str(), told.2), (label, false), "it is free, and says so");
        browser.network(false, 0, -1).await;
        browser.press_mouse(button, &[0]).await;
        shop.has_posts(number).await;
        let told = browser.accessible(button).await;
        assert_eq!((told.0.as_str(), told.1.as_str(), told.2), ("button", busy, true));
        gate.open();
        ordered(&mut browser, number).await;
    }
    assert_eq!((shop.rows(), shop.posts()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_may_store_nothing_and_makes_no_uuids_sends_it_once_too() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let refused =
        "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('', 'SecurityError'); } });";
    browser.run_first(refused).await;
    // Pages over plain HTTP have none.
    browser.run_first("delete Crypto.prototype.randomUUID;").await;
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0, 30, 120]).await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));
    filled(&mut browser, &sidecar, "Ada").await;
    assert_eq!(browser.value("typeof onlyonce.fetch").await, "function");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_timer_frees_a_form_that_is_sent_on_by_a_307() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    shop.then(Then::Moved);
    shop.then(Then::Moved);
    filled(&mut browser, &sidecar, "Ada").await;
    browser.value(NO_DELAY).await;
    let save = browser.place("#save").await;
    browser.hold(json!({ "urlPattern": "*/moved" })).await;
    browser.press_mouse_at(save, &[0]).await;
    let held = browser.held().await;
    browser.press_mouse_at(save, &[0, 60]).await;
    browser.release(held).await;
    browser.hold_nothing().await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_replaces_the_page_is_like_none() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    for (number, target) in [(1, "_self"), (2, "_top")] {
        shop.set(Page { attributes: format!("target={target}"), ..Page::default() });
        filled(&mut browser, &sidecar, "Ada").await;
        browser.value(NO_TIMER).await;
        let save = browser.place("#save").await;
        browser.hold(json!({ "resourceType": "Document" })).await;
        browser.press_mouse_at(save, &[0]).await;
        let held = browser.held().await;
        browser.press_mouse_at(save, &[0, 60]).await;
        browser.release(held).await;
        browser.hold_nothing().await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number), "{target}");
        let again = sidecar.metric("onlyonce_requests_total{outcome=\"replayed\",route=\"orders\"}").await;
        assert_eq!(again, 0.0, "{target}: the form was free before the page was there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_a_policy_leaves_to_the_browser_is_free_when_its_answer_opens_elsewhere() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let policy = "\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; form-action 'self'";
    shop.set(Page { lines: policy.into(), attributes: "target=_blank".into(), ..Page::default() });
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    shop.has_posts(1).await;
    browser.until(&format!("!({IS_BUSY})")).await;
    assert_eq!(browser.value("document.querySelector('#save').textContent").await, "Place order");
    assert_eq!((shop.rows(), shop.posts()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_sent_without_a_button_is_left_alone() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    filled(&mut browser, &sidecar, "Ada").await;
    browser.value("setTimeout(() => document.querySelector('#form').requestSubmit()); 0").await;
    shop.has_posts(1).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    assert!(!shop.last_post().contains("order_key"), "{}", shop.last_post());
}
