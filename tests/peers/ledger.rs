//! A backend with a ledger of the requests and executions for each key. The key selects its behaviour.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::support::wire::{Seen, Wire};
use super::support::{Gate, Step, answer};

/// Executed; the response is sent when the gate is opened. Also for keys with this prefix.
pub const SLOW: &str = "slow";
/// The same, for clients that wait for it.
pub const LATE: &str = "late";
/// Executed; the connection is reset instead of an answer.
pub const LOST: &str = "lost";
/// 500 at first, and nothing is executed.
pub const FAILS_500: &str = "fails-500";
/// 503 at first, and nothing is executed.
pub const FAILS_503: &str = "fails-503";
/// Executed; the answer is larger than 16 KiB.
pub const HUGE: &str = "huge";

/// The requests and executions of one key. Keys other than those above are executed and answered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub arrived: usize,
    pub executed: usize,
}

/// Listens until it is dropped.
pub struct Ledger {
    address: SocketAddr,
    /// The gate of all slow responses.
    pub gate: Gate,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Ledger {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (entries, gate) = (Arc::<Mutex<HashMap<_, _>>>::default(), Gate::new());
        let task = tokio::spawn({
            let (entries, gate) = (Arc::clone(&entries), gate.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&entries), gate.clone()));
                }
            }
        });
        Self { address, gate, entries, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn of(&self, key: &str) -> Entry {
        self.entries.lock().expect("no panic").get(key).copied().unwrap_or_default()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, entries: Arc<Mutex<HashMap<String, Entry>>>, gate: Gate) {
    let mut wire = Wire::patient(stream);
    while let Some(request) = wire.request().await {
        let script = match key(&request) {
            Some(key) => {
                let mut entries = entries.lock().expect("no panic");
                script(&key, entries.entry(key.clone()).or_default(), &gate)
            }
            // PayPal's clients ask for a token first.
            None => vec![answered("200 OK", &json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600}))],
        };
        for step in script {
            match step {
                Step::Say(bytes) if wire.try_send(&bytes).await.is_err() => return,
                Step::Wait(gate) => gate.pass().await,
                Step::Reset => return wire.reset(),
                _ => {}
            }
        }
    }
}

fn script(key: &str, entry: &mut Entry, gate: &Gate) -> Vec<Step> {
    entry.arrived += 1;
    match key {
        FAILS_500 if entry.arrived == 1 => return vec![answered("500 Internal Server Error", &error())],
        FAILS_503 if entry.arrived == 1 => return vec![answered("503 Service Unavailable", &error())],
        _ => entry.executed += 1,
    }
    let mut created = created(key, entry.executed);
    match key {
        _ if key.starts_with(SLOW) || key.starts_with(LATE) => {
            vec![Step::Wait(gate.clone()), answered("201 Created", &created)]
        }
        LOST => vec![Step::Reset],
        HUGE => {
            created["description"] = "x".repeat(16 << 10).into();
            vec![answered("201 Created", &created)]
        }
        _ => vec![answered("201 Created", &created)],
    }
}

/// The id of the object that this execution created.
pub fn id(key: &str, execution: usize) -> String {
    format!("{key}-{execution}")
}

/// An object with the fields that all clients need.
fn created(key: &str, execution: usize) -> Value {
    let id = id(key, execution);
    json!({
        "id": id, "object": "charge", "status": "CREATED", "eventType": "order.created", "payload": {},
        "timestamp": "2026-01-01T00:00:00Z", "payment": {"id": id}, "payments": {"id": id},
    })
}

/// A failure in the dialects of all clients.
fn error() -> Value {
    json!({
        "error": {"type": "gocardless", "code": "backend", "message": "failed", "errors": []},
        "errors": [{"category": "API_ERROR", "code": "backend", "detail": "failed"}],
        "name": "backend", "code": "backend", "message": "failed", "detail": "failed",
    })
}

fn answered(status: &str, body: &Value) -> Step {
    answer(&format!("{status}\r\nContent-Type: application/json"), body.to_string())
}

fn key(request: &Seen) -> Option<String> {
    let header = ["idempotency-key", "paypal-request-id"].iter().find_map(|name| request.value(name));
    if let Some(key) = header {
        return Some(key.trim_matches('"').to_owned());
    }
    let body: Value = serde_json::from_slice(&request.body).ok()?;
    body["idempotency_key"].as_str().map(ToOwned::to_owned)
}
