//! Which forms the script takes, and which it leaves to the browser.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_not_sent_in_utf_8_or_as_fields_is_left_to_the_browser() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    let page = |charset, attributes: &str| Page { charset, attributes: attributes.into(), ..Page::default() };
    for (number, page, name) in [
        (1, page("iso-8859-1", ""), "name=%C4rger&"),
        (2, page("utf-8", "accept-charset=\"iso-8859-1\""), "name=%C4rger&"),
        // The navigation that shows the page of the answer would send it in this form once more, and without a key.
        (3, page("utf-8", "enctype=\"text/plain\""), "name=\u{c4}rger\r\n"),
    ] {
        shop.set(page);
        shop.then(Then::Page);
        filled(&mut browser, &sidecar, "\u{c4}rger").await;
        browser.press_mouse("#save", &[0]).await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number), "{name}");
        let row = shop.last_row();
        assert!(row.contains(name) && !row.contains("order_key"), "{row}");
    }
    // Rails says so in each form.
    for (number, page) in
        [(4, page("utf-8", "accept-charset=\"UTF-8\"")), (5, page("iso-8859-1", "accept-charset=utf-8"))]
    {
        shop.set(page);
        filled(&mut browser, &sidecar, "\u{c4}rger").await;
        browser.press_mouse("#save", &[0, 30]).await;
        ordered(&mut browser, number).await;
        assert_eq!((shop.rows(), shop.posts()), (number, number));
        let row = shop.last_row();
        assert!(row.contains("name=%C3%84rger&") && row.contains("&order_key="), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slash_at_the_end_of_the_address_makes_no_other_form() {
    let shop = Shop::open().await;
    let sidecar = shop.guarded().await;
    let mut browser = Browser::start().await;
    shop.set(Page {
        controls: "<button id=slash formaction=\"/Orders/?x=1\">Order</button>".into(),
        ..Page::default()
    });
    let gate = Gate::new();
    shop.then(Then::Wait(gate.clone()));
    filled(&mut browser, &sidecar, "Ada").await;
    browser.press_mouse("#slash", &[0, 30]).await;
    shop.has_posts(1).await;
    assert_eq!(browser.value(IS_BUSY).await, true);
    gate.open();
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));
    assert!(shop.last_row().contains("order_key="), "{}", shop.last_row());
}
