//! The tag in pages that pass.

use super::*;

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
        assert_eq!(same.value("vary"), Some("sec-fetch-dest"), "{lines}");
        assert_eq!(same.value("content-length"), Some(page.len().to_string().as_str()));
        if !reason.is_empty() {
            let series = format!("onlyonce_form_guard_total{{result=\"{reason}\"}}");
            assert_eq!(sidecar.metric(&series).await, 1.0, "{series}");
        }
    }
    assert_eq!(sidecar.metric("onlyonce_form_guard_total{result=\"injected\"}").await, 1.0);

    // Nobody else's requests are touched.
    for (other, varies) in [
        (request("GET", "/shop/cart").line("Sec-Fetch-Dest: empty"), Some("sec-fetch-dest")),
        (request("GET", "/shop/cart"), Some("sec-fetch-dest")),
        (navigation("/shop/cart").line("Range: bytes=0-9"), Some("sec-fetch-dest")),
        (navigation("/other/cart"), None),
    ] {
        backend.then(vec![answer(html, page)]);
        let other = other.line("If-None-Match: \"a\"");
        let same = sidecar.ask(&other).await;
        assert_eq!(same.text(), page, "{other:?}");
        // A cache must not give their answer to a navigation.
        assert_eq!(same.value("vary"), varies, "{other:?}");
        let seen = backend.seen().pop().expect("a request");
        assert_eq!(seen.value("if-none-match"), Some("\"a\""));
    }

    // A nonce of the page's policy is the tag's too.
    let nonce = "Content-Security-Policy: default-src 'self'; script-src 'nonce-aGk=' 'strict-dynamic'";
    backend.then(vec![answer(&format!("{html}\r\n{nonce}"), page)]);
    assert!(sidecar.ask(&navigation("/shop/cart")).await.text().contains(" defer nonce=\"aGk=\"></script>"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_nobody_has_changed_sends_its_form_once() {
    let shop = Shop::open().await;
    let sidecar = shop.setup().with("server", "form_guard_inject = [\"/form\"]").start().await;
    shop.set(Page { has_script: false, ..Page::default() });
    let mut browser = Browser::start().await;
    filled(&mut browser, &sidecar, "Ada").await;
    assert_eq!(browser.value("document.querySelectorAll('script').length").await, 1);
    browser.press_mouse("#save", &[0, 30, 120]).await;
    ordered(&mut browser, 1).await;
    assert_eq!((shop.rows(), shop.posts()), (1, 1));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
