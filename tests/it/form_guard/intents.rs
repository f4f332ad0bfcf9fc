//! What is another intent, and what is the same once more.

use serde_json::json;

use super::*;

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
async fn a_form_that_history_leads_back_to_goes_on_with_its_own_key() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    // Filled in as the browser does it, and loaded anew: such a page goes into no cache.
    let script = "document.querySelector('#name').value = 'Ada'; addEventListener('unload', () => {});\
                  navigator.locks.request('held', () => new Promise(() => {}));";
    shop.set(Page { script: script.into(), ..Page::default() });
    browser.open(&form(&sidecar)).await;
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 1).await;
    // The same address again, which sends nothing.
    browser.open(&form(&sidecar)).await;
    browser.back().await;
    browser.back().await;
    browser.until("performance.navigation.type === 2 && document.querySelector('#name').value === 'Ada'").await;
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));

    // A page that has gone on in itself, without being loaded.
    shop.set(Page::default());
    for (number, step) in [(2, "location.hash = 'more'"), (3, "history.pushState(null, '', '/form?step=2')")] {
        let gate = Gate::new();
        shop.then(Then::Wait(gate.clone()));
        filled(&mut browser, &sidecar, "Grace").await;
        browser.value(&format!("{step}; 0")).await;
        browser.press_mouse("#save", &[0]).await;
        shop.has_posts(number).await;
        browser.reload().await;
        browser.fill("#name", "Grace").await;
        browser.press_mouse("#save", &[0]).await;
        gate.open();
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number), "{step}");
    }
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
async fn a_form_that_leads_to_itself_is_loaded_again_and_is_another_intent() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    // Without and with a fragment: a browser only scrolls to an address that differs by that.
    for (number, target, loaded) in
        [(1, "/form", "/form"), (3, "/form#done", "/form?"), (5, "/form?x=1#done", "/form?x=1")]
    {
        filled(&mut browser, &sidecar, "Ada").await;
        for number in [number, number + 1] {
            browser.value("window.isOld = true").await;
            shop.then(Then::To(target));
            let gets = shop.gets(loaded);
            browser.press_mouse("#save", &[0, 30]).await;
            browser
                .until("!window.isOld && document.readyState === 'complete' && !!document.querySelector('#form')")
                .await;
            let hash = browser.value("location.hash").await;
            assert!(target.ends_with(hash.as_str().expect("text")), "{target}");
            assert_eq!((shop.rows(), shop.posts()), (number, number), "{target}");
            if number % 2 == 1 {
                assert_eq!(shop.gets(loaded), gets + 1, "{target} is loaded once");
            }
            // The same once more, on purpose.
            browser.fill("#name", "Ada").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_page_that_makes_its_own_key_is_asked_for_another_one() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    shop.set(Page { controls: "<input type=hidden name=order_key value=of-the-page>".into(), ..Page::default() });
    shop.then(Then::Reset);
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    browser.until("document.querySelector('output button')").await;
    // Nobody knows what became of it, and a click here makes no other key.
    browser.press_mouse("output button", &[0]).await;
    says(&mut browser, "We cannot tell whether this went through.").await;
    let words = browser.value("document.querySelector('output').textContent").await;
    assert!(words.as_str().expect("text").trim_end().ends_with("For a new one, load this page again."), "{words}");
    assert_eq!(browser.value("document.querySelector('output button')").await, serde_json::Value::Null);
    browser.fill("#name", "Grace").await;
    browser.press_mouse("#save", &[0]).await;
    says(&mut browser, "This was already sent, with other content.").await;
    assert_eq!(browser.value("document.querySelector('output button')").await, serde_json::Value::Null);
    assert_eq!(shop.rows(), 1);
    // The page's next key.
    shop.set(Page { controls: "<input type=hidden name=order_key value=another>".into(), ..Page::default() });
    browser.reload().await;
    browser.fill("#name", "Grace").await;
    browser.press_mouse("#save", &[0]).await;
    ordered(&mut browser, 2).await;
    assert!(shop.last_row().contains("order_key=another"), "{}", shop.last_row());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_refusal_without_a_page_that_is_corrected_is_a_new_intent_even_where_refusals_are_kept() {
    let shop = Shop::open().await;
    let header = "key = \"header:Idempotency-Key\"\npolicy = \"strict\"";
    let sidecar = shop.setup().route(header).start().await;
    let mut browser = Browser::start().await;
    shop.then(Then::Unprocessable);
    shop.then(Then::Created);
    filled(&mut browser, &sidecar, "bad").await;
    browser.press_mouse("#save", &[0]).await;
    says(&mut browser, "This was not accepted (422).").await;
    browser.press_mouse("#save", &[0]).await;
    says(&mut browser, "This was not accepted (422).").await;
    assert_eq!(shop.posts(), 1, "the same again gets the kept refusal");
    browser.fill("#name", "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_with_the_first_request_is_waited_for_and_not_shown() {
    let shop = Shop::open().await;
    let sidecar = shop.setup().route("on_concurrent = \"reject\"").start().await;
    let mut browser = Browser::start().await;
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    shop.has_posts(1).await;
    browser.reload().await;
    browser.fill("#name", "Ada").await;
    browser.press_mouse("#save", &[0]).await;
    let refused = "onlyonce_requests_total{outcome=\"in_flight\",route=\"orders\"}";
    until("a conflict", async || sidecar.metric(refused).await >= 1.0).await;
    let told =
        browser.value("document.querySelector('#save').textContent + document.querySelector('output').textContent");
    assert_eq!(told.await.as_str().map(str::trim), Some("Saving…"));
    assert_eq!(browser.value(IS_BUSY).await, true);
    gate.open();
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_the_tag_twice_goes_on_with_one_key() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let again = "<script src=\"/.onlyonce/form.js\" data-forms=form defer></script>";
    shop.set(Page { controls: again.into(), ..Page::default() });
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    shop.has_posts(1).await;
    browser.reload().await;
    browser.fill("#name", "Ada").await;
    browser.press_mouse("#save", &[0, 30]).await;
    gate.open();
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_forms_that_come_and_go_do_not_take_a_forms_key() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let tag = "<script src=\"/.onlyonce/form.js\" data-forms=form defer></script>";
    let search = "<form action=\"/search\"><button>Search</button></form>";
    let sign_out = "<form method=post action=\"/sign-out\"><button>Sign out</button></form>";
    let page = |before: String| Page { has_script: false, before, ..Page::default() };
    // More of them after the reload, and fewer.
    for (number, first, second) in
        [(1, tag.to_owned(), format!("{tag}{search}{sign_out}")), (2, format!("{tag}{search}"), tag.to_owned())]
    {
        shop.set(page(first));
        let gate = Gate::new();
        shop.then(Then::Wait(gate.clone()));
        filled(&mut browser, &sidecar, "Ada").await;
        browser.press_mouse("#save", &[0]).await;
        shop.has_posts(number).await;
        shop.set(page(second));
        browser.reload().await;
        browser.fill("#name", "Ada").await;
        browser.press_mouse("#save", &[0]).await;
        gate.open();
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number));
    }
    let twice = format!("{tag}{}", "<form method=post action=\"/orders\" class=other></form>".repeat(2));
    shop.set(page(twice));
    browser.open(&form(&sidecar)).await;
    let keys = "new Set(Object.values(sessionStorage)).size === Object.values(sessionStorage).length";
    assert_eq!(browser.value(keys).await, true, "each has its own");
}
