//! The form guard in a real browser, with real clicks: how often a form reaches the ledger of a shop that knows nothing.

mod clicks;
mod demo;
mod firefox;
mod injected;
mod intents;
mod left_alone;
mod lost;
mod outdated;
mod script;

use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use crate::support::*;

/// A shop with a form. Every order that it takes is a row, however often it comes.
struct Shop {
    address: std::net::SocketAddr,
    state: Arc<Mutex<ShopState>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct ShopState {
    rows: Vec<String>,
    posts: Vec<String>,
    gets: Vec<String>,
    /// How it answers the next orders; those after the last are redirected.
    then: std::collections::VecDeque<Then>,
    page: Page,
}

#[derive(Clone)]
enum Then {
    /// Waits for the gate, and redirects to the order.
    Wait(Gate),
    /// 200 with a page.
    Page,
    /// 422 with the form, instead of 200.
    Unprocessable,
    /// Takes it, and breaks off.
    Reset,
    /// Takes it, and redirects to this.
    To(&'static str),
    /// 307: takes nothing, and wants it sent to `/moved`.
    Moved,
    /// 201 with JSON.
    Created,
    /// 200 with a file.
    File,
}

#[derive(Clone)]
struct Page {
    has_script: bool,
    /// Of the tag. Without one it has none.
    integrity: Option<String>,
    charset: &'static str,
    lines: String,
    /// What stands before the form.
    before: String,
    script: String,
    attributes: String,
    /// More controls of the form.
    controls: String,
}

impl Default for Page {
    fn default() -> Self {
        let none = String::new;
        Self {
            has_script: true,
            integrity: None,
            charset: "utf-8",
            lines: none(),
            before: none(),
            script: none(),
            attributes: none(),
            controls: none(),
        }
    }
}

impl Shop {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("bound");
        let state: Arc<Mutex<ShopState>> = Arc::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut wire = Wire::patient(stream);
                    while let Some(request) = wire.request().await {
                        match Self::answer(&state, &request).await {
                            Some(bytes) => {
                                if wire.try_send(bytes).await.is_err() {
                                    return;
                                }
                            }
                            None => return wire.reset(),
                        }
                    }
                });
            }
        });
        Self { address, state, task }
    }

    async fn answer(state: &Mutex<ShopState>, request: &wire::Seen) -> Option<Vec<u8>> {
        let mut words = request.first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let charset = state.lock().expect("no panic").page.charset;
        let html = |status: &str, more: &str, body: &str| {
            let head = format!("{status}\r\nContent-Type: text/html; charset={charset}{more}");
            let Step::Say(bytes) = answer(&head, body) else { unreachable!() };
            Some(bytes)
        };
        if method == "GET" {
            let mut state = state.lock().expect("no panic");
            state.gets.push(target.to_owned());
            let lines = state.page.lines.clone();
            let path = target.split('?').next().unwrap_or_default();
            return match path.strip_prefix("/orders/") {
                Some(number) => {
                    html("200 OK", "", &format!("<!doctype html><title>Order</title><p id=order>{number}</p>"))
                }
                None if path == "/form" => html("200 OK", &lines, &Self::form(&state.page, state.gets.len(), "")),
                None if path == "/page.js" => {
                    let Step::Say(bytes) = answer("200 OK\r\nContent-Type: text/javascript", &state.page.script) else {
                        unreachable!()
                    };
                    Some(bytes)
                }
                None if path == "/favicon.ico" => html("204 No Content", "", ""),
                None if path == "/file" => html("200 OK", "\r\nContent-Disposition: attachment", "a file"),
                None => html("404 Not Found", "", "no"),
            };
        }
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let (then, page) = {
            let mut state = state.lock().expect("no panic");
            state.posts.push(body.clone());
            (state.then.pop_front(), state.page.clone())
        };
        if body.contains("name=bad") {
            let status = if matches!(then, Some(Then::Unprocessable)) { "422 Unprocessable Entity" } else { "200 OK" };
            return html(status, "", &Self::form(&page, 0, "<p id=error>No such name.</p>"));
        }
        if matches!(then, Some(Then::Moved)) {
            return html("307 Temporary Redirect", "\r\nLocation: /moved", "");
        }
        let number = {
            let mut state = state.lock().expect("no panic");
            state.rows.push(body);
            state.rows.len()
        };
        match then {
            Some(Then::Wait(gate)) => gate.pass().await,
            Some(Then::Page) => return html("200 OK", "", &format!("<!doctype html><p id=order>{number}</p>")),
            Some(Then::Reset) => return None,
            Some(Then::To(target)) => return html("303 See Other", &format!("\r\nLocation: {target}"), ""),
            Some(Then::Created) => {
                let head = format!("201 Created\r\nContent-Type: application/json\r\nLocation: /orders/{number}");
                let Step::Say(bytes) = answer(&head, "{\"id\":1}") else { unreachable!() };
                return Some(bytes);
            }
            Some(Then::File) => return html("200 OK", "\r\nContent-Disposition: attachment", "a file"),
            Some(Then::Unprocessable | Then::Moved) | None => {}
        }
        html("303 See Other", &format!("\r\nLocation: /orders/{number}"), "")
    }

    /// With a token that each page has anew, as Django's have.
    fn form(page: &Page, token: usize, error: &str) -> String {
        let integrity = page.integrity.as_ref().map(|hash| format!(" integrity=\"{hash}\"")).unwrap_or_default();
        let tag = format!("<script src=\"/.onlyonce/form.js\"{integrity} defer></script>");
        let script = if page.has_script { tag.as_str() } else { "" };
        let own = if page.script.is_empty() { "" } else { "<script src=\"/page.js\" defer></script>" };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"{}\"><title>Form</title>{script}{own}</head><body>{}{error}\
             <form id=\"form\" method=\"post\" action=\"/orders\" data-onlyonce {}>\
             <input type=\"hidden\" name=\"csrfmiddlewaretoken\" value=\"t{token}\">\
             <label>Name <input name=\"name\" id=\"name\" required></label>\
             <label>Note <textarea name=\"note\">a\nb</textarea></label> {}\
             <button id=\"save\" name=\"do\" value=\"save\">Place order</button> \
             <button id=\"draft\" name=\"do\" value=\"draft\">Keep a draft</button></form></body></html>",
            page.charset, page.before, page.attributes, page.controls
        )
    }

    fn set(&self, page: Page) {
        self.state.lock().expect("no panic").page = page;
    }

    fn then(&self, then: Then) {
        self.state.lock().expect("no panic").then.push_back(then);
    }

    fn rows(&self) -> usize {
        self.state.lock().expect("no panic").rows.len()
    }

    fn last_row(&self) -> String {
        self.state.lock().expect("no panic").rows.last().cloned().unwrap_or_default()
    }

    fn posts(&self) -> usize {
        self.state.lock().expect("no panic").posts.len()
    }

    fn last_post(&self) -> String {
        self.state.lock().expect("no panic").posts.last().cloned().unwrap_or_default()
    }

    fn gets(&self, target: &str) -> usize {
        self.state.lock().expect("no panic").gets.iter().filter(|got| *got == target).count()
    }

    async fn has_posts(&self, count: usize) {
        until("orders at the shop", async || self.posts() >= count).await;
    }

    async fn guarded(&self) -> Sidecar {
        self.setup().start().await
    }

    fn setup(&self) -> Setup {
        let setup = Setup::new(&format!("http://{}", self.address));
        setup.with("server", "form_guard = \"/.onlyonce/form.js\"").route("key = \"form:order_key\"\nscope = []")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn form(sidecar: &Sidecar) -> String {
    form_at(sidecar.address)
}

fn form_at(address: std::net::SocketAddr) -> String {
    format!("http://{address}/form")
}

/// The form, with a name in it.
async fn filled(browser: &mut Browser, sidecar: &Sidecar, name: &str) {
    filled_at(browser, sidecar.address, name).await;
}

async fn filled_at(browser: &mut Browser, address: std::net::SocketAddr, name: &str) {
    browser.open(&form_at(address)).await;
    browser.fill("#name", name).await;
}

const IS_BUSY: &str = "document.querySelector('#form').getAttribute('aria-busy') === 'true'";

/// Waits until the page says this near the button.
async fn says(browser: &mut Browser, words: &str) {
    browser.until(&format!("document.querySelector('output')?.textContent.startsWith({words:?})")).await;
}

async fn ordered(browser: &mut Browser, number: usize) {
    browser.until(&format!("document.querySelector('#order')?.textContent === '{number}'")).await;
}
