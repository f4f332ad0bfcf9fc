//! A real Firefox, controlled by WebDriver BiDi, which it speaks itself.

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
const PATIENCE: Duration = Duration::from_secs(120);

/// One page. Killed when dropped.
pub struct Firefox {
    _process: Child,
    _profile: TempDir,
    wire: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last: u64,
    context: String,
}

impl Firefox {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut process = Command::new("firefox-esr")
            .args(["--headless", "--no-remote", "--remote-debugging-port", "0", "--profile"])
            .arg(profile.path())
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("firefox-esr: {error}; tests/run --all installs it"));
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, url)) = line.split_once("WebDriver BiDi listening on ") {
                    return url.trim().to_owned();
                }
            }
            panic!("firefox ended before it listened")
        };
        let url = tokio::time::timeout(PATIENCE, listening).await.expect("firefox listens in time");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (wire, _) = connect_async(format!("{url}/session")).await.expect("to connect to firefox");
        let mut firefox = Self { _process: process, _profile: profile, wire, last: 0, context: String::new() };
        firefox.call("session.new", json!({ "capabilities": {} })).await;
        let tree = firefox.call("browsingContext.getTree", json!({})).await;
        firefox.context = tree["contexts"][0]["context"].as_str().expect("a context").to_owned();
        firefox
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let message = json!({ "id": id, "method": method, "params": params });
        self.wire.send(Message::text(message.to_string())).await.expect("firefox takes it");
        loop {
            let message = tokio::time::timeout(PATIENCE, self.wire.next()).await.expect("firefox answers in time");
            let Message::Text(text) = message.expect("firefox is there").expect("a message") else { continue };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    pub async fn open(&mut self, url: &str) {
        let page = json!({ "context": self.context, "url": url, "wait": "complete" });
        self.call("browsingContext.navigate", page).await;
    }

    pub async fn reload(&mut self) {
        self.call("browsingContext.reload", json!({ "context": self.context, "wait": "complete" })).await;
    }

    pub async fn back(&mut self) {
        self.call("browsingContext.traverseHistory", json!({ "context": self.context, "delta": -1 })).await;
    }

    /// A text, a number or a boolean. Between two pages there is none.
    pub async fn value(&mut self, expression: &str) -> Value {
        let target = json!({ "context": self.context });
        let ask = json!({ "expression": expression, "target": target, "awaitPromise": true });
        self.call("script.evaluate", ask).await["result"]["value"].clone()
    }

    pub async fn until(&mut self, expression: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.value(&format!("!!({expression})")).await != true {
            assert!(tokio::time::Instant::now() < deadline, "never so: {expression}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses and releases the mouse in the middle of an element, once for each of these pauses (ms) before it.
    pub async fn press_mouse(&mut self, selector: &str, pauses: &[u64]) {
        let at = |side: &str, size: &str| {
            format!(
                "(() => {{ const at = document.querySelector({selector:?}).getBoundingClientRect(); \
                 return Math.round(at.{side} + at.{size} / 2); }})()"
            )
        };
        let x = self.value(&at("x", "width")).await;
        let y = self.value(&at("y", "height")).await;
        let mut actions = vec![json!({ "type": "pointerMove", "x": x, "y": y })];
        for pause in pauses {
            actions.push(json!({ "type": "pause", "duration": pause }));
            actions.push(json!({ "type": "pointerDown", "button": 0 }));
            actions.push(json!({ "type": "pointerUp", "button": 0 }));
        }
        let mouse = json!({ "type": "pointer", "id": "mouse", "actions": actions });
        self.call("input.performActions", json!({ "context": self.context, "actions": [mouse] })).await;
    }

    /// Types into an element.
    pub async fn fill(&mut self, selector: &str, text: &str) {
        self.value(&format!("document.querySelector({selector:?}).focus()")).await;
        self.value(&format!("document.querySelector({selector:?}).select()")).await;
        let keys = text.chars().flat_map(|key| {
            let key = key.to_string();
            [json!({ "type": "keyDown", "value": key.clone() }), json!({ "type": "keyUp", "value": key })]
        });
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": keys.collect::<Vec<_>>() });
        self.call("input.performActions", json!({ "context": self.context, "actions": [keyboard] })).await;
    }
}
