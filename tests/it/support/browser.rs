//! A real Chromium, controlled by the DevTools protocol.

use std::collections::{HashMap, VecDeque};
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A browser is slow on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// One page of a browser of its own. Killed when dropped.
pub struct Browser {
    _process: Child,
    _profile: TempDir,
    wire: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    last: u64,
    /// Events that arrived while a reply was awaited.
    events: VecDeque<Value>,
    /// Answers to the next calls of `confirm()`.
    dialogs: VecDeque<bool>,
}

/// One of its tabs.
pub struct Tab(Option<String>);

/// What a screen reader is told of an element.
#[derive(Debug, Clone)]
pub struct Accessible {
    pub role: String,
    pub name: String,
    /// Of a heading.
    pub level: Option<u64>,
    /// Of a region whose changes are announced: `polite` or `assertive`.
    pub live: Option<String>,
}

/// Size and colour scheme of the window.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub is_dark: bool,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut process = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("chromium: {error}; tests/run installs it"));
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = line.strip_prefix("DevTools listening on ") {
                    return url.to_owned();
                }
            }
            panic!("chromium ended before it listened")
        };
        let url = tokio::time::timeout(PATIENCE, listening).await.expect("chromium listens in time");
        // Drains the pipe: a full one would stop the browser.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (wire, _) = connect_async(url).await.expect("to connect to chromium");
        let events = VecDeque::new();
        let mut browser = Self {
            _process: process,
            _profile: profile,
            wire,
            session: None,
            last: 0,
            events,
            dialogs: VecDeque::new(),
        };
        browser.another_tab().await;
        browser
    }

    /// Opens a tab, and turns to it.
    pub async fn another_tab(&mut self) -> Tab {
        self.session = None;
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", attach).await;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), json!({})).await;
        }
        self.tab()
    }

    /// The tab that is looked at.
    pub fn tab(&self) -> Tab {
        Tab(self.session.clone())
    }

    pub fn turn_to(&mut self, tab: Tab) {
        self.session = tab.0;
    }

    /// Calls a method, and returns its result.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        let reply = self.reply(method, parameters).await;
        assert!(reply["error"].is_null(), "{method}: {}", reply["error"]);
        reply["result"].clone()
    }

    /// The same, with its result or its error.
    async fn reply(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.wire.send(Message::text(message.to_string())).await.expect("chromium takes it");
        loop {
            let message = self.receive().await;
            if message["id"] == id {
                return message;
            }
            if message["method"] == "Page.javascriptDialogOpening" {
                let accept = self.dialogs.pop_front().unwrap_or(true);
                self.last += 1;
                let method = "Page.handleJavaScriptDialog";
                let answer = json!({ "id": self.last, "method": method, "params": { "accept": accept }, "sessionId": self.session });
                self.wire.send(Message::text(answer.to_string())).await.expect("chromium takes it");
            }
            self.events.push_back(message);
        }
    }

    /// Answers to the next calls of `confirm()`.
    pub fn answer_dialogs(&mut self, answers: &[bool]) {
        self.dialogs.extend(answers);
    }

    async fn receive(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.wire.next()).await.expect("chromium answers in time");
            if let Message::Text(text) = message.expect("chromium is there").expect("a message") {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    }

    pub async fn look(&mut self, look: Look) {
        let Look { width, height, is_dark } = look;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    pub async fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        self.until(&format!("location.href === {url:?} && document.readyState === 'complete'")).await;
    }

    /// The value of an expression. Promises are awaited.
    pub async fn value(&mut self, expression: &str) -> Value {
        self.value_here(expression).await.unwrap_or_else(|| panic!("{expression}: the page has gone"))
    }

    /// The same. `None`: the page has gone meanwhile.
    async fn value_here(&mut self, expression: &str) -> Option<Value> {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let reply = self.reply("Runtime.evaluate", ask).await;
        if reply["error"]["message"].as_str().is_some_and(|error| error.contains("navigated or closed")) {
            return None;
        }
        assert!(reply["error"].is_null(), "{expression}: {}", reply["error"]);
        let told = &reply["result"];
        assert!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        Some(told["result"]["value"].clone())
    }

    /// Waits until an expression is true, in whichever page is there.
    pub async fn until(&mut self, expression: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.value_here(&format!("!!({expression})")).await != Some(Value::Bool(true)) {
            if tokio::time::Instant::now() > deadline {
                let text = self.value("document.body.innerText").await;
                panic!("never so: {expression}\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Types like a person: focuses the element, and replaces its text key by key.
    pub async fn fill(&mut self, selector: &str, text: &str) {
        self.value(&format!("document.querySelector({selector:?}).focus()")).await;
        self.value(&format!("document.querySelector({selector:?}).select?.()")).await;
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// Presses a key in the focused element.
    pub async fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => "\r",
            " " => " ",
            _ => "",
        };
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            _ => 32,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    pub async fn click(&mut self, selector: &str) {
        self.value(&format!("document.querySelector({selector:?}).click()")).await;
    }

    /// Presses and releases the mouse in the middle of an element, once for each of these pauses (ms) before it.
    pub async fn press_mouse(&mut self, selector: &str, pauses: &[u64]) {
        let place = self.place(selector).await;
        self.press_mouse_at(place, pauses).await;
    }

    /// The middle of an element, for when the page cannot be asked: on the way to another page.
    pub async fn place(&mut self, selector: &str) -> (f64, f64) {
        let place = format!(
            "(() => {{ const it = document.querySelector({selector:?}); it.scrollIntoView({{ block: 'nearest' }}); \
             const at = it.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; }})()"
        );
        let place = self.value(&place).await;
        (place[0].as_f64().expect("a place"), place[1].as_f64().expect("a place"))
    }

    pub async fn press_mouse_at(&mut self, (x, y): (f64, f64), pauses: &[u64]) {
        let mut pressed: Option<tokio::time::Instant> = None;
        for (count, pause) in pauses.iter().enumerate() {
            if let Some(pressed) = pressed {
                tokio::time::sleep_until(pressed + Duration::from_millis(*pause)).await;
            }
            pressed = Some(tokio::time::Instant::now());
            for kind in ["mousePressed", "mouseReleased"] {
                let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": count + 1 });
                self.call("Input.dispatchMouseEvent", event).await;
            }
        }
    }

    pub async fn reload(&mut self) {
        self.value("window.isOld = true").await;
        self.call("Page.reload", json!({})).await;
        self.until("window.isOld === undefined && document.readyState === 'complete'").await;
    }

    /// One page back. Where it comes from the back-forward cache, `window.shown` is true afterwards.
    pub async fn back(&mut self) {
        let history = self.call("Page.getNavigationHistory", json!({})).await;
        let index = history["currentIndex"].as_u64().expect("an index");
        let entry = &history["entries"][usize::try_from(index).expect("an index") - 1];
        self.call("Page.navigateToHistoryEntry", json!({ "entryId": entry["id"] })).await;
        let url = entry["url"].as_str().expect("a URL");
        self.until(&format!("location.href === {url:?} && document.readyState === 'complete'")).await;
    }

    /// The network as it is: `bytes` a second, or -1 for any.
    pub async fn network(&mut self, offline: bool, latency: u32, bytes: i64) {
        let rate =
            json!({ "offline": offline, "latency": latency, "downloadThroughput": bytes, "uploadThroughput": bytes });
        self.call("Network.emulateNetworkConditions", rate).await;
    }

    /// Holds all requests of a kind, until they are released or answered: `{"resourceType": "Document"}`, say.
    pub async fn hold(&mut self, kind: Value) {
        self.call("Fetch.enable", json!({ "patterns": [kind] })).await;
    }

    pub async fn hold_nothing(&mut self) {
        self.call("Fetch.disable", json!({})).await;
    }

    /// The next request that is held.
    pub async fn held(&mut self) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let held = self.events.iter().position(|event| event["method"] == "Fetch.requestPaused");
            if let Some(event) = held.and_then(|at| self.events.remove(at)) {
                return event["params"]["requestId"].clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "no request is held");
            tokio::time::sleep(Duration::from_millis(20)).await;
            // All earlier events have arrived when this is answered. On the way to another page, no script is run.
            self.call("Page.getNavigationHistory", json!({})).await;
        }
    }

    pub async fn release(&mut self, held: Value) {
        self.call("Fetch.continueRequest", json!({ "requestId": held })).await;
    }

    /// Breaks its connection.
    pub async fn fail(&mut self, held: Value) {
        self.call("Fetch.failRequest", json!({ "requestId": held, "errorReason": "ConnectionReset" })).await;
    }

    /// Answers it in the place of a server.
    pub async fn answer(&mut self, held: Value, status: u16, media: &str, body: &str) {
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, body);
        let headers = [json!({ "name": "Content-Type", "value": media })];
        let answer = json!({ "requestId": held, "responseCode": status, "responseHeaders": headers, "body": body });
        self.call("Fetch.fulfillRequest", answer).await;
    }

    /// Runs a script before those of every page that is opened from now on.
    pub async fn run_first(&mut self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    }

    /// What a screen reader is told of an element: its role, its name, and whether it is disabled.
    pub async fn accessible(&mut self, selector: &str) -> (String, String, bool) {
        let document = self.call("DOM.getDocument", json!({})).await;
        let found = json!({ "nodeId": document["root"]["nodeId"], "selector": selector });
        let node = self.call("DOM.querySelector", found).await;
        let asked = json!({ "nodeId": node["nodeId"], "fetchRelatives": false });
        let tree = self.call("Accessibility.getPartialAXTree", asked).await;
        let told = &tree["nodes"][0];
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let properties = told["properties"].as_array().cloned().unwrap_or_default();
        let is_disabled = properties.iter().any(|one| one["name"] == "disabled" && one["value"]["value"] == true);
        (text(&told["role"]), text(&told["name"]), is_disabled)
    }

    /// What a screen reader is told of the page, in the order of reading.
    pub async fn accessible_page(&mut self) -> Vec<Accessible> {
        let told = self.call("Accessibility.getFullAXTree", json!({})).await;
        let nodes = told["nodes"].as_array().expect("a tree");
        let by_id: HashMap<&str, &Value> =
            nodes.iter().filter_map(|node| Some((node["nodeId"].as_str()?, node))).collect();
        let mut page = Vec::new();
        let mut left = vec![nodes.first().expect("a page")];
        while let Some(node) = left.pop() {
            let children = node["childIds"].as_array().into_iter().flatten();
            left.extend(children.rev().filter_map(|id| by_id.get(id.as_str()?)));
            if node["ignored"] != true {
                let text = |of: &str| node[of]["value"].as_str().unwrap_or_default().to_owned();
                let properties = node["properties"].as_array().into_iter().flatten();
                let property =
                    |name: &str| Some(&properties.clone().find(|one| one["name"] == name)?["value"]["value"]);
                let live = property("live").and_then(Value::as_str).filter(|live| *live != "off").map(str::to_owned);
                let level = property("level").and_then(Value::as_u64);
                page.push(Accessible { role: text("role"), name: text("name"), level, live });
            }
        }
        page
    }

    /// A picture of the whole page, as PNG in base64.
    pub async fn picture(&mut self) -> String {
        let size = self.value("document.documentElement.scrollHeight").await.as_u64().expect("a height");
        let width = self.value("innerWidth").await;
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": size, "scale": 1 });
        let shot = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        self.call("Page.captureScreenshot", shot).await["data"].as_str().expect("a picture").to_owned()
    }

    /// Errors of the console, the network and the page's policy.
    pub async fn complaints(&mut self) -> Vec<String> {
        // All earlier events have arrived when this is answered.
        self.value("0").await;
        let is_bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        self.events.iter().filter(is_bad).map(ToString::to_string).collect()
    }

    /// Every URL that was requested.
    pub async fn requests(&mut self) -> Vec<String> {
        self.value("0").await;
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }
}
