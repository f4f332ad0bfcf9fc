//! The page of `onlyonce demo`, whose button plays the impatient user.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn the_button_of_the_demo_clicks_for_the_reader_and_shows_one_row() {
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
        assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth").await, true, "{width}");
    }
    browser.press_mouse("#check", &[0, 60]).await;
    browser.until("document.querySelector('#told').textContent.startsWith('Sent three times')").await;
    let told = browser.value("document.querySelector('#told').textContent").await;
    assert!(told.as_str().expect("text").contains(" 1 with the form guard, "), "{told}");
    browser.until("document.querySelector('#guard-ledger').textContent.includes('1 invoice in all')").await;
    // Each click is one, as far as it has left the browser before the next.
    browser.until("/[23] invoices in all/.test(document.querySelector('#backend-ledger').textContent)").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
