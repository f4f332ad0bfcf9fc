//! The status page for those who do not see it, or have no mouse: Chromium's own accessibility tree, and its keyboard.

use crate::support::*;

/// A page with something in each of its parts.
async fn busy_page() -> (Backend, Sidecar, Browser) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&order("k")).await;
    sidecar.ask(&order("k")).await;
    sidecar.ask(&order("k").body("another")).await.refuses(422, "key-reused");
    sidecar.ask(&order("")).await.refuses(400, "invalid-key");
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order("lost")).await.refuses(502, "upstream-failed");
    let mut browser = Browser::start().await;
    browser.look(Look { width: 1600, height: 900, is_dark: false }).await;
    browser.open(&format!("http://{}/", sidecar.admin)).await;
    filled(&mut browser).await;
    (backend, sidecar, browser)
}

/// All of it is there.
async fn filled(browser: &mut Browser) {
    browser.until("document.querySelectorAll('#unknown li').length === 1").await;
    browser.until("document.querySelectorAll('#refusals tbody tr').length === 2").await;
    browser.until("document.querySelector('#routes').innerText.includes('replayed')").await;
}

fn named<'a>(page: &'a [Accessible], role: &str) -> Vec<&'a str> {
    page.iter().filter(|one| one.role == role).map(|one| one.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_reader_is_told_what_the_page_is_made_of_and_only_changes_that_matter() {
    let (_backend, sidecar, mut browser) = busy_page().await;
    browser.click("#unknown button").await;
    browser.until("document.activeElement.tagName === 'H3'").await;
    for width in [1600, 400] {
        browser.look(Look { width, height: 900, is_dark: false }).await;
        let page = browser.accessible_page().await;
        for (role, name) in [("banner", ""), ("main", ""), ("contentinfo", "")] {
            assert_eq!(named(&page, role), [name], "{page:#?}");
        }
        let parts = ["Now", "Needs a hand 1", "Look a request up", "What is guarded requests of the last hour"];
        let parts = parts.into_iter().chain(["Last refusals", "Store memory:"]);
        assert_eq!(named(&page, "region"), parts.clone().collect::<Vec<_>>(), "{page:#?}");
        let headings: Vec<_> = page.iter().filter(|one| one.role == "heading").collect();
        let levels: Vec<u64> = headings.iter().map(|one| one.level.expect("a level")).collect();
        assert!(levels[0] == 1 && levels.iter().filter(|level| **level == 1).count() == 1, "{headings:?}");
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{headings:?}");
        assert!(parts.clone().all(|part| headings.iter().any(|one| one.name == part)), "{headings:?}");

        assert_eq!(named(&page, "table"), ["Last refusals"], "at {width}");
        assert_eq!(named(&page, "columnheader"), ["When", "Route", "Answer", "Why", "Record"], "at {width}");
        let cells = named(&page, "cell");
        assert!(cells.contains(&"422 key-reused") && cells.contains(&"400 invalid-key"), "at {width}: {cells:?}");

        let charts = named(&page, "image");
        assert_eq!(charts.len(), 3, "{charts:?}");
        assert!(
            charts[0].starts_with("orders, last hour: 1 executed, 1 invalid key, 1 key reused, 1 replayed"),
            "{charts:?}"
        );
        assert!(
            charts[1].contains("calls to the store in the last hour, 0 failed; in a minute at most "),
            "{charts:?}"
        );
        assert!(
            charts[2].starts_with("Mean time of a call to the store in the last hour") && charts[2].ends_with("ms")
        );

        for role in ["button", "textbox", "combobox", "link", "DisclosureTriangle"] {
            let nameless = named(&page, role).into_iter().filter(|name| name.trim().is_empty()).count();
            assert_eq!(nameless, 0, "{role}: {page:#?}");
        }
        let live: Vec<_> = page.iter().filter(|one| one.live.is_some()).map(|one| one.role.as_str()).collect();
        assert_eq!(live, ["status", "status"], "{page:#?}");
    }

    // What moves by itself is not announced.
    let count =
        "window.said = []; const told = new MutationObserver((all) => said.push(...all.map((one) => one.target.id)));
        for (const one of document.querySelectorAll('[role=status], [role=alert], [aria-live]')) {
          told.observe(one, { childList: true, characterData: true, subtree: true });
        }";
    browser.value(&format!("(() => {{ {count} }})()")).await;
    for turn in 1..=2 {
        sidecar.ask(&order("k")).await;
        let replayed = format!("document.querySelector('#routes').innerText.includes('{} replayed')", turn + 1);
        browser.until(&replayed).await;
    }
    assert_eq!(browser.value("said.length").await, 0, "announced while nobody asked");
    // What was asked for is, once.
    browser.fill("#name", "nothing").await;
    browser.press("Enter").await;
    browser
        .until("document.querySelector('#found-said').textContent.startsWith('There is no record name in this')")
        .await;
    assert_eq!(browser.value("said.join()").await, "found-said");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_reached_with_the_keyboard_in_the_order_of_reading_and_the_focus_is_seen() {
    let (_backend, _sidecar, mut browser) = busy_page().await;
    // All that can be used, in the order of the document.
    let usable = "[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex=\"0\"]')]
        .filter((one) => one.checkVisibility() && !one.disabled)";
    let name = |one: &str| format!("(({one}).id || ({one}).getAttribute('aria-label') || ({one}).textContent.trim())");
    for width in [1600, 400] {
        browser.look(Look { width, height: 900, is_dark: false }).await;
        // The focus begins at the top of a page that was just loaded.
        browser.reload().await;
        filled(&mut browser).await;
        browser.click("summary").await;
        let expected = browser.value(&format!("{usable}.map((it) => {})", name("it"))).await;
        let names = expected.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name"));
        let expected: Vec<_> = names.collect();
        assert!(expected.len() > 12 && expected[0] == "To the figures", "{expected:?}");
        let mut reached = Vec::new();
        for _ in &expected {
            browser.press("Tab").await;
            let at = browser.value(&name("document.activeElement")).await;
            let style = "getComputedStyle(document.activeElement)";
            let seen = format!("{style}.outlineStyle !== 'none' && parseFloat({style}.outlineWidth) >= 2");
            assert_eq!(browser.value(&seen).await, true, "the focus is not seen on {at}");
            let inside = "(() => { const at = document.activeElement.getBoundingClientRect();
                return at.width > 0 && at.right > 0 && at.left < innerWidth && at.bottom > 0 && at.top < innerHeight; })()";
            assert_eq!(browser.value(inside).await, true, "the focus is out of sight on {at}");
            reached.push(at.as_str().expect("a name").to_owned());
        }
        assert_eq!(reached, expected, "at {width}");
    }

    // A dialog takes the focus, keeps it, and gives it back at Escape.
    browser.value("document.querySelector('#unknown li button:last-child').focus()").await;
    browser.press("Enter").await;
    browser.until("document.querySelector('#change').open && document.activeElement.id === 'reason'").await;
    let inside = "document.querySelector('#change').contains(document.activeElement)";
    for _ in 0..3 {
        // Past its last element comes the browser itself.
        browser.press("Tab").await;
        let is_here = format!("{inside} || document.activeElement === document.body");
        assert_eq!(browser.value(&is_here).await, true);
    }
    browser.press("Escape").await;
    browser.until("!document.querySelector('#change').open").await;
    assert_eq!(browser.value("document.activeElement.textContent").await, "Release");

    // What was done by the keyboard leaves it at the story.
    browser.press("Enter").await;
    browser.until("document.querySelector('#change').open").await;
    browser.press("Enter").await;
    browser
        .until("document.activeElement.tagName === 'H3' && document.querySelectorAll('#unknown li').length === 0")
        .await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
