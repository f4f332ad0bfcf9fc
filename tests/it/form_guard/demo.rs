//! The page of `onlyonce demo`, whose button plays the impatient user.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn the_demo_shows_one_row_for_its_button_and_for_what_the_reader_does() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_onlyonce"));
    command.args(["demo", "--log-level", "error", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut demo = command.spawn().expect("the demo starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("its output")).lines();
    let mut page = None;
    while page.is_none() {
        let line = lines.next_line().await.expect("text").expect("an address");
        page = line.trim().strip_prefix("http://").map(|address| format!("http://{address}/"));
    }
    let mut browser = Browser::start().await;
    for (width, is_dark) in [(400, true), (1600, false)] {
        browser.look(Look { width, height: 900, is_dark }).await;
        browser.open(page.as_deref().expect("an address")).await;
        assert_eq!(browser.value(FITS).await, true, "{width}");
        // The forms are of other origins: each is looked at in a window of its frame's size.
        let frames = "[...document.querySelectorAll('iframe')].map((it) => [it.src, it.clientWidth, it.clientHeight])";
        let frames = browser.value(frames).await;
        for frame in frames.as_array().expect("three") {
            let of = |at: usize| frame[at].as_u64().and_then(|size| u32::try_from(size).ok()).expect("a size");
            browser.look(Look { width: of(1), height: of(2), is_dark }).await;
            browser.open(frame[0].as_str().expect("an address")).await;
            assert_eq!(browser.value(FITS).await, true, "{frame} at {width}");
        }
        assert_eq!(frames.as_array().map(Vec::len), Some(3));
    }
    browser.open(page.as_deref().expect("an address")).await;
    browser.press_mouse("#check", &[0, 60]).await;
    browser.until("document.querySelector('#told').textContent.startsWith('Sent three times')").await;
    let told = browser.value("document.querySelector('#told').textContent").await;
    assert!(told.as_str().expect("text").contains(" 1 with the form guard, "), "{told}");
    browser.until("document.querySelector('#guard-ledger').textContent.includes('1 invoice in all')").await;
    // Each click is one, as far as it has left the browser before the next.
    browser.until("/[23] invoices in all/.test(document.querySelector('#backend-ledger').textContent)").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // The form in a tab of its own: a double click, then Back and the same once more.
    let form = browser.value("document.querySelector('a[href$=\"/form/guard\"]').href").await;
    let form = form.as_str().expect("an address");
    browser.open(form).await;
    browser.press_mouse("form button", &[0, 120]).await;
    browser.until(IS_INVOICE).await;
    let invoice = browser.value(NUMBER).await;
    browser.back().await;
    browser.press_mouse("form button", &[0]).await;
    browser.until(IS_INVOICE).await;
    assert_eq!(browser.value(NUMBER).await, invoice);
    // Another one, offline and back.
    browser.open(form).await;
    browser.network(true, 0, 0).await;
    browser.press_mouse("form button", &[0, 60]).await;
    says(&mut browser, "No connection").await;
    browser.network(false, 0, -1).await;
    browser.until(IS_INVOICE).await;
    assert_ne!(browser.value(NUMBER).await, invoice);
    browser.open(page.as_deref().expect("an address")).await;
    browser.until("document.querySelector('#guard-ledger').textContent.includes('3 invoices in all')").await;
}

/// Nothing is cut, and nothing has to be scrolled sideways.
const FITS: &str = "document.documentElement.scrollWidth <= innerWidth";

const IS_INVOICE: &str = "document.body?.innerText.startsWith('Invoice INV-') && document.readyState === 'complete'";

const NUMBER: &str = "document.body.innerText.split(' ')[1]";
