//! The same in another browser.

use super::*;

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
