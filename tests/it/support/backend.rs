//! A scripted backend without support for idempotency.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::wire::{Seen, Wire, within};

/// What the backend does with one request after it has read it.
pub type Script = Vec<Step>;

#[derive(Clone)]
pub enum Step {
    /// Creates the next order: 201 with a unique number.
    Answer,
    /// Sends these bytes.
    Say(Vec<u8>),
    /// Does nothing until the gate is open.
    Wait(Gate),
    /// Closes the connection.
    Close,
    /// Closes it with a reset.
    Reset,
    /// Never answers. Waits until the other side gives up.
    Hang,
}

pub fn say(bytes: impl AsRef<[u8]>) -> Step {
    Step::Say(bytes.as_ref().to_vec())
}

/// A whole response with this head and body.
pub fn answer(head: &str, body: impl AsRef<[u8]>) -> Step {
    let body = body.as_ref();
    let framing = format!("\r\nContent-Length: {}\r\n\r\n", body.len());
    Step::Say([b"HTTP/1.1 ", head.as_bytes(), framing.as_bytes(), body].concat())
}

/// Holds steps of the backend until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.close();
    }

    pub async fn pass(&self) {
        let closed = self.0.acquire().await;
        assert!(closed.is_err(), "a gate gives no permits");
    }
}

/// Listens until it is dropped.
pub struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    connections: AtomicUsize,
    scripts: Mutex<VecDeque<Script>>,
    seen: watch::Sender<Vec<Seen>>,
}

impl Backend {
    /// Answers every request.
    pub async fn start() -> Self {
        Self::scripted([]).await
    }

    /// Follows one script for each request, in their order; later requests are answered.
    pub async fn scripted(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self::bind("127.0.0.1:0", scripts).await
    }

    /// Answers every request, at the URL of [`nobody`].
    pub async fn listening(url: &str) -> Self {
        Self::bind(url.trim_start_matches("http://"), []).await
    }

    async fn bind(address: &str, scripts: impl IntoIterator<Item = Script>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().expect("a bound listener has an address");
        let scripts = Mutex::new(scripts.into_iter().collect());
        let state = Arc::new(State { connections: AtomicUsize::new(0), scripts, seen: watch::Sender::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Answers the first request when the gate is opened, the others at once.
    pub async fn gated() -> (Self, Gate) {
        let gate = Gate::new();
        (Self::scripted([vec![Step::Wait(gate.clone()), Step::Answer]]).await, gate)
    }

    /// The script for the next request without one.
    pub fn then(&self, script: Script) {
        self.state.scripts.lock().expect("no panic").push_back(script);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that it read completely.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.borrow().clone()
    }

    pub fn count(&self) -> usize {
        self.state.seen.borrow().len()
    }

    /// The connections that were made to it.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The only request that came.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "requests at the backend");
        seen.remove(0)
    }

    /// Waits for this number of requests.
    pub async fn has_seen(&self, count: usize) {
        let mut seen = self.state.seen.subscribe();
        let enough = seen.wait_for(|seen| seen.len() >= count);
        within("requests at the backend", enough).await.expect("the backend is there");
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut wire = Wire::patient(stream);
    while let Some(request) = wire.request().await {
        let script = state.scripts.lock().expect("no panic").pop_front();
        let mut number = 0;
        state.seen.send_modify(|seen| {
            seen.push(request);
            number = seen.len();
        });
        for step in script.unwrap_or_else(|| vec![Step::Answer]) {
            match step {
                Step::Answer => {
                    let head = format!("201 Created\r\nContent-Type: application/json\r\nLocation: /orders/{number}");
                    let Step::Say(bytes) = answer(&head, format!("{{\"order\":{number}}}")) else { unreachable!() };
                    if wire.try_send(bytes).await.is_err() {
                        return;
                    }
                }
                Step::Say(bytes) => {
                    if wire.try_send(bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(gate) => gate.pass().await,
                Step::Close => return,
                Step::Reset => return wire.reset(),
                Step::Hang => {
                    wire.rest().await;
                    return;
                }
            }
        }
    }
}

/// A backend whose connections the test serves itself.
pub struct ByHand {
    listener: TcpListener,
}

impl ByHand {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback") }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().expect("a bound listener has an address"))
    }

    pub async fn accept(&self) -> Wire {
        within("a connection to the backend", self.accept_at_last()).await
    }

    /// The same, without a timeout.
    pub async fn accept_at_last(&self) -> Wire {
        let (stream, _) = self.listener.accept().await.expect("it comes");
        Wire::new(stream)
    }
}

/// An address without a listener.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    format!("http://{}", listener.local_addr().expect("a bound listener has an address"))
}
