//! Pages that were loaded before the configuration changed: their script takes a route for guarded that is so no more.

use serde_json::json;

use super::*;

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

fn sent(field: &str, value: &str) -> Request {
    let form = "Content-Type: application/x-www-form-urlencoded";
    post("/orders").line(form).line(&format!("{field}: {value}")).body(format!("order_key={KEY}&name=Ada"))
}

#[tokio::test]
async fn a_repeat_of_the_script_is_forwarded_to_no_route_that_does_not_guard_it() {
    let mut keys = vec!["mode = \"observe\"", "mode = \"off\"", "path = \"/elsewhere\"", "methods = [\"PUT\"]"];
    // The key is missing: in the head, and in the body.
    keys.extend(["key = [\"header:A-Key\", \"header:B-Key\"]", "key = \"form:another\"\nscope = []"]);
    for keys in keys {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).route(keys).start().await;
        for repeat in [format!("{KEY},"), format!("{KEY},1,")] {
            let told = sidecar.ask(&sent("Onlyonce-Form", &repeat)).await;
            told.refuses(409, "outcome-unknown");
            assert_eq!(told.value("onlyonce-form"), Some("say"), "{keys}");
            let words = told.json();
            assert!(words["detail"].as_str().expect("text").starts_with("We cannot tell whether"), "{keys}: {words}");
            assert_eq!((words["offer"].as_str(), words["anew"].as_bool()), (Some("Send it as a new one"), Some(true)));
        }
        sidecar.ask(&sent("Onlyonce-Fetch", &format!("{KEY},"))).await.refuses(409, "outcome-unknown");
        // The first try of a form is left to the browser, however long it is.
        let long = sent("Onlyonce-Form", KEY).body("x".repeat(100_000));
        for first in [sent("Onlyonce-Form", KEY), long] {
            let told = sidecar.ask(&first).await;
            assert_eq!((told.status, told.value("onlyonce-form"), told.text()), (200, Some("send"), ""), "{keys}");
            assert_eq!(told.value("cache-control"), Some("no-store"));
        }
        assert_eq!(backend.count(), 0, "{keys}: nothing was forwarded");
        assert_eq!(sidecar.metric("onlyonce_form_guard_total{result=\"outdated\"}").await, 5.0, "{keys}");
        let (unmatched, route) = (
            sidecar.metric("onlyonce_requests_total{outcome=\"unguarded\",route=\"unmatched\"}").await,
            sidecar.metric("onlyonce_requests_total{outcome=\"unguarded\",route=\"orders\"}").await,
        );
        assert_eq!(unmatched + route, 2.0, "{keys}: both first tries are counted");
        // The navigation that follows, and the first try of a page that reads the answer itself.
        for (number, forwarded) in [(1, sent("Accept", "text/html")), (2, sent("Onlyonce-Fetch", KEY))] {
            assert_eq!(sidecar.ask(&forwarded).await.text(), format!("{{\"order\":{number}}}"), "{keys}");
        }
        assert!(!backend.seen()[1].has("onlyonce-fetch"));
    }
}

#[tokio::test]
async fn a_repeat_of_the_script_is_the_same_request_where_its_route_guards_it() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (repeat, is_replay) in [("", false), (",", true), (",1,", true)] {
        let told = sidecar.ask(&sent("Onlyonce-Form", &format!("{KEY}{repeat}"))).await;
        assert_eq!((told.value("onlyonce-form"), told.is_replay()), (Some("go /orders/1"), is_replay), "{told:?}");
    }
    assert_eq!(backend.count(), 1);
    assert_eq!(backend.seen()[0].value("idempotency-key"), Some(format!("\"{KEY}\"").as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_was_loaded_before_its_route_was_changed_runs_nothing_by_itself() {
    let shop = Shop::open().await;
    let mut browser = Browser::start().await;
    for (keys, rows) in [("mode = \"observe\"", 0), ("path = \"/elsewhere\"", 3), ("key = \"form:another\"", 6)] {
        let process = Process::start(&shop.setup()).await;
        let first = browser.tab();
        filled_at(&mut browser, process.address, "Ada").await;
        browser.another_tab().await;
        filled_at(&mut browser, process.address, "Grace").await;
        browser.hold(json!({ "urlPattern": "*/orders", "requestStage": "Response" })).await;
        browser.press_mouse("#save", &[0, 30]).await;
        let held = browser.held().await;
        process.rewrite(&shop.setup().route(keys));
        until("reloaded", async || process.metric("onlyonce_config_reloads_total{result=\"ok\"}").await >= 1.0).await;

        // The answer is lost, and the script repeats the request.
        browser.fail(held).await;
        browser.hold_nothing().await;
        says(&mut browser, "We cannot tell whether this went through.").await;
        assert_eq!((shop.rows(), shop.posts()), (rows + 1, rows + 1), "{keys}: nobody has clicked");
        assert_eq!(browser.value("document.querySelector('#name').value").await, "Grace");
        // Only the person's own click sends it again.
        browser.press_mouse("output button", &[0, 30]).await;
        ordered(&mut browser, rows + 2).await;

        // A page that has sent nothing yet.
        browser.turn_to(first);
        browser.press_mouse("#save", &[0, 30]).await;
        ordered(&mut browser, rows + 3).await;
        assert_eq!((shop.rows(), shop.posts()), (rows + 3, rows + 3), "{keys}");
        assert!(shop.last_row().contains("name=Ada"), "{}", shop.last_row());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_with_the_page_s_own_key_is_one_too() {
    let shop = Shop::open().await;
    shop.set(Page { controls: "<input type=hidden name=order_key value=of-the-page>".into(), ..Page::default() });
    let mut browser = Browser::start().await;
    let process = Process::start(&shop.setup()).await;
    filled_at(&mut browser, process.address, "Ada").await;
    shop.then(Then::Reset);
    browser.press_mouse("#save", &[0, 30]).await;
    browser.until("document.querySelector('output button')").await;
    assert_eq!(shop.rows(), 1);
    process.rewrite(&shop.setup().route("mode = \"observe\""));
    until("reloaded", async || process.metric("onlyonce_config_reloads_total{result=\"ok\"}").await >= 1.0).await;
    browser.press_mouse("output button", &[0, 30]).await;
    says(&mut browser, "We cannot tell whether this went through.").await;
    assert_eq!(shop.rows(), 1, "the repeat is not forwarded");
}
