//! A scripted backend with HTTP/2.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response, request};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::backend::Gate;
use super::wire::within;

/// What the backend does with one request.
#[derive(Clone)]
pub enum Turn {
    /// Reads the request, and creates the next order: 201, with a number that no other request gets.
    Answer,
    /// The same, when the gate is open.
    AnswerAfter(Gate),
    /// Reads the request, and answers with this.
    Say(Answer),
    /// Answers with this while the request is still coming, and reads on.
    SayEarly(Answer),
    /// Resets the stream before it looks at the request.
    Reset(Reason),
    /// Begins to answer, then resets the stream.
    Half(Reason),
    /// Ends the connection with GOAWAY once the request is there.
    GoAway(Reason),
    /// Closes the connection once the request is there.
    Close,
    /// Sends a few bytes from time to time, until the client gives up.
    Drip,
    /// Waits until the client gives up.
    Hang,
}

/// Head, body and trailers; without the last two the head ends the stream.
#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub lines: Vec<(&'static str, &'static str)>,
    pub body: Vec<&'static [u8]>,
    pub trailers: Vec<(&'static str, &'static str)>,
}

/// A request as the backend saw it.
#[derive(Debug)]
pub struct Seen {
    pub head: request::Parts,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Deref for Seen {
    type Target = request::Parts;
    fn deref(&self) -> &request::Parts {
        &self.head
    }
}

impl Seen {
    pub fn value(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// Listens until it is dropped.
pub struct Http2Backend {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    connections: AtomicUsize,
    /// Requests at once on one connection.
    streams: u32,
    turns: Mutex<VecDeque<Turn>>,
    seen: watch::Sender<Vec<Arc<Seen>>>,
    resets: watch::Sender<Vec<Reason>>,
    closing: Notify,
}

impl Http2Backend {
    pub async fn start(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self::with_streams(100, turns).await
    }

    pub async fn with_streams(streams: u32, turns: impl IntoIterator<Item = Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State {
            connections: AtomicUsize::new(0),
            streams,
            turns: Mutex::new(turns.into_iter().collect()),
            seen: watch::Sender::default(),
            resets: watch::Sender::default(),
            closing: Notify::new(),
        });
        let accepting = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&accepting)));
            }
        });
        Self { address, state, task }
    }

    /// The script for the next request without one.
    pub fn then(&self, turn: Turn) {
        self.state.turns.lock().expect("no panic").push_back(turn);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Arc<Seen>> {
        self.state.seen.borrow().clone()
    }

    pub fn count(&self) -> usize {
        self.state.seen.borrow().len()
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Shuts all open connections down gracefully.
    pub fn go_away(&self) {
        self.state.closing.notify_waiters();
    }

    /// Waits for this number of requests.
    pub async fn has_seen(&self, count: usize) {
        let mut seen = self.state.seen.subscribe();
        let enough = seen.wait_for(|seen| seen.len() >= count);
        within("requests at the backend", enough).await.expect("the backend is there");
    }

    /// Waits until the client has reset a stream.
    pub async fn was_reset(&self) -> Reason {
        let mut resets = self.state.resets.subscribe();
        let reset =
            within("a reset", resets.wait_for(|resets| !resets.is_empty())).await.expect("the backend is there");
        reset[0]
    }
}

impl Drop for Http2Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    stream.set_nodelay(true).expect("a TCP socket");
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(state.streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = state.closing.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let turn = state.turns.lock().expect("no panic").pop_front().unwrap_or(Turn::Answer);
        match turn {
            Turn::GoAway(reason) => {
                see(&state, request.map(|_| ()), Vec::new(), HeaderMap::new());
                connection.abrupt_shutdown(reason);
            }
            Turn::Close => {
                see(&state, request.map(|_| ()), Vec::new(), HeaderMap::new());
                return;
            }
            turn => {
                tokio::spawn(play(turn, request, respond, Arc::clone(&state)));
            }
        }
    }
}

async fn play(turn: Turn, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, state: Arc<State>) {
    if let Turn::Reset(reason) = turn {
        return respond.send_reset(reason);
    }
    let (head, body) = request.into_parts();
    let head = Request::from_parts(head, ());
    if let Turn::SayEarly(answer) = &turn {
        say(answer, &mut respond);
        let (body, trailers) = read(body).await;
        see(&state, head, body, trailers);
        return;
    }
    let (body, trailers) = read(body).await;
    let number = see(&state, head, body, trailers);
    match turn {
        Turn::Answer => created(number, &mut respond),
        Turn::AnswerAfter(gate) => {
            gate.pass().await;
            created(number, &mut respond);
        }
        Turn::Say(answer) => say(&answer, &mut respond),
        Turn::Half(reason) => {
            let head = Response::builder().status(201).header("location", "/orders/7").body(()).expect("a head");
            let mut stream = respond.send_response(head, false).expect("an open stream");
            stream.send_data(Bytes::from_static(b"abc"), false).expect("an open stream");
            // Lets the data leave before the reset, which would overtake it.
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.send_reset(reason);
        }
        Turn::Drip => {
            let mut stream = respond.send_response(Response::new(()), false).expect("an open stream");
            let reason = loop {
                let _ = stream.send_data(Bytes::from_static(b"drop"), false);
                let reset = std::future::poll_fn(|cx| stream.poll_reset(cx));
                if let Ok(reason) = tokio::time::timeout(Duration::from_millis(10), reset).await {
                    break reason;
                }
            };
            state.resets.send_modify(|resets| resets.push(reason.expect("a reset")));
        }
        Turn::Hang => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            state.resets.send_modify(|resets| resets.push(reason.expect("a reset")));
        }
        Turn::SayEarly(_) | Turn::Reset(_) | Turn::GoAway(_) | Turn::Close => unreachable!("played before"),
    }
}

fn see(state: &State, request: Request<()>, body: Vec<u8>, trailers: HeaderMap) -> usize {
    let (head, ()) = request.into_parts();
    let mut number = 0;
    state.seen.send_modify(|seen| {
        seen.push(Arc::new(Seen { head, body, trailers }));
        number = seen.len();
    });
    number
}

/// All data until the end or a reset.
async fn read(mut body: h2::RecvStream) -> (Vec<u8>, HeaderMap) {
    let mut read = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        // The connection may be gone.
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.ok().flatten();
    (read, trailers.unwrap_or_default())
}

fn created(number: usize, respond: &mut SendResponse<Bytes>) {
    let head = Response::builder().status(201).header("location", format!("/orders/{number}"));
    // The client may be gone.
    if let Ok(mut stream) = respond.send_response(head.body(()).expect("a head"), false) {
        let _ = stream.send_data(format!("{{\"order\":{number}}}").into(), true);
    }
}

fn say(answer: &Answer, respond: &mut SendResponse<Bytes>) {
    let mut head = Response::builder().status(answer.status);
    for (name, value) in &answer.lines {
        head = head.header(*name, *value);
    }
    let head = head.body(()).expect("a head");
    let alone = answer.body.is_empty() && answer.trailers.is_empty();
    let Ok(mut stream) = respond.send_response(head, alone) else { return };
    for (index, piece) in answer.body.iter().enumerate() {
        let last = answer.trailers.is_empty() && index + 1 == answer.body.len();
        let _ = stream.send_data(Bytes::from_static(piece), last);
    }
    if !answer.trailers.is_empty() {
        let mut trailers = HeaderMap::new();
        for (name, value) in &answer.trailers {
            trailers.insert(*name, value.parse().expect("a value"));
        }
        let _ = stream.send_trailers(trailers);
    }
}
