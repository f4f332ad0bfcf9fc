//! APIs that treat keys in all kinds of ways, and clients that leave.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::wire::Seen;
use crate::support::*;

/// How an API treats keys.
#[derive(Clone, Copy, Default)]
pub struct Manners {
    /// Keeps the answer to a key, and refuses a repeat while the first runs.
    pub keeps: bool,
    /// Keys are kept for each caller.
    pub by_caller: bool,
    /// Creates another order for a repeat, and gives the first answer all the same.
    pub secretly: bool,
    /// The answers do not say what was created.
    pub nameless: bool,
    /// Each answer has what is new in it, replays too.
    pub stamped: bool,
    /// What was created is named after its key.
    pub of_key: bool,
    /// A key is another one with another body.
    pub by_body: bool,
    /// Of many at once, all but one are refused with this status, and the one runs until they are.
    pub one_at_once: Option<&'static str>,
    /// Others create an order, too, whenever the count is read, from this time on.
    pub busy_from: Option<usize>,
    /// Others create one order, just before the count is read for this time.
    pub busy_at: Option<usize>,
    /// From this time on, the count is not given.
    pub limited_from: Option<usize>,
    /// The count is that of the first page, which has room for so many.
    pub page: Option<usize>,
    /// The requests that a client leaves are at work until it has left: behind `Leavers`.
    pub waits_for_leavers: bool,
}

/// `POST /orders` creates, `GET /orders` counts. Stopped when dropped.
pub struct Api {
    pub address: SocketAddr,
    pub state: Arc<ApiState>,
    task: tokio::task::JoinHandle<()>,
}

pub struct ApiState {
    pub manners: Manners,
    pub orders: Mutex<Vec<Order>>,
    /// How often the count was read.
    pub reads: AtomicUsize,
    /// The keys, in the order in which they came.
    pub keys: Mutex<Vec<String>>,
    /// One for each client that has left without an answer.
    pub left: Semaphore,
    /// One for each request that was refused while another ran.
    pub turned_away: Semaphore,
    is_at_work: AtomicBool,
    /// The answers that were given.
    answers: AtomicUsize,
    /// Requests whose size was not told.
    pub chunked: AtomicUsize,
    /// `None` while the first runs.
    pub kept: Mutex<HashMap<String, Option<String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Order {
    pub caller: String,
    pub key: Option<String>,
    pub body: Vec<u8>,
}

impl Api {
    pub async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(ApiState {
            manners,
            orders: Mutex::default(),
            reads: AtomicUsize::new(0),
            keys: Mutex::default(),
            left: Semaphore::new(0),
            turned_away: Semaphore::new(0),
            is_at_work: AtomicBool::new(false),
            answers: AtomicUsize::new(0),
            chunked: AtomicUsize::new(0),
            kept: Mutex::default(),
        });
        let task = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&state)));
                }
            }
        });
        Self { address, state, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn orders(&self) -> Vec<Order> {
        self.state.orders.lock().expect("no panic").clone()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<ApiState>) {
    let mut wire = Wire::patient(stream);
    while let Some(request) = wire.request().await {
        let answered = tokio::spawn({
            let state = Arc::clone(&state);
            // An order is created also if its client leaves.
            async move { state.answer(&request).await }
        });
        let text = answered.await.expect("no panic");
        if wire.try_send(text).await.is_err() {
            return;
        }
    }
}

fn reply(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl ApiState {
    async fn answer(&self, request: &Seen) -> String {
        let Manners { keeps, by_caller, secretly, by_body, one_at_once, waits_for_leavers, .. } = self.manners;
        if request.first.starts_with("GET ") {
            return self.count();
        }
        if let Some(status) = one_at_once
            && self.is_at_work.swap(true, Ordering::SeqCst)
        {
            self.turned_away.add_permits(1);
            return reply(status, "Retry-After: 0\r\n", "{\"error\":\"too much\"}");
        }
        let key = request.values("idempotency-key").first().map(|key| (*key).to_owned());
        self.chunked.fetch_add(usize::from(request.has("transfer-encoding")), Ordering::SeqCst);
        let is_left = waits_for_leavers && self.is_first_of(key.as_deref(), LEFT);
        let caller = request.value("authorization").unwrap_or_default().to_owned();
        let whose = if by_caller { caller.as_str() } else { "" };
        let content = if by_body { String::from_utf8_lossy(&request.body).into_owned() } else { String::new() };
        let name = key.as_ref().filter(|_| keeps).map(|key| format!("{whose} {key} {content}"));
        let is_third = one_at_once.is_some() && self.is_first_of(key.as_deref(), [AT_ONCE; 2]);
        let order = Order { caller: caller.clone(), key: key.clone(), body: request.body.clone() };
        if let Some(name) = &name {
            let mut kept = self.kept.lock().expect("no panic");
            match kept.get(name) {
                Some(Some(answer)) => {
                    if secretly {
                        self.orders.lock().expect("no panic").push(order);
                    }
                    self.is_at_work.store(false, Ordering::SeqCst);
                    return self.stamp(answer);
                }
                Some(None) => return reply("409 Conflict", "Retry-After: 1\r\n", "{}"),
                None => kept.insert(name.clone(), None),
            };
        }
        let number = {
            let mut orders = self.orders.lock().expect("no panic");
            orders.push(order);
            orders.len()
        };
        if is_left {
            within("a client leaves", self.left.acquire()).await.expect("it is open").forget();
        }
        if is_third {
            within("nine are refused", self.turned_away.acquire_many(9)).await.expect("it is open").forget();
        }
        let answer = self.created(number, key.as_deref());
        if let Some(name) = name {
            self.kept.lock().expect("no panic").insert(name, Some(answer.clone()));
        }
        self.is_at_work.store(false, Ordering::SeqCst);
        self.stamp(&answer)
    }

    fn count(&self) -> String {
        let Manners { busy_from, busy_at, limited_from, page, .. } = self.manners;
        let read = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        if limited_from.is_some_and(|from| read >= from) {
            return reply("429 Too Many Requests", "", "{}");
        }
        let mut orders = self.orders.lock().expect("no panic");
        if busy_from.is_some_and(|from| read >= from) || busy_at == Some(read) {
            orders.push(Order { caller: String::new(), key: None, body: Vec::new() });
        }
        reply("200 OK", "", &json!({ "total": orders.len().min(page.unwrap_or(usize::MAX)) }).to_string())
    }

    fn created(&self, number: usize, key: Option<&str>) -> String {
        let Manners { nameless, of_key, .. } = self.manners;
        if nameless {
            return reply("201 Created", "", "{\"state\":\"created\"}");
        }
        if of_key {
            let id: String = key.unwrap_or_default().chars().rev().collect();
            return reply("201 Created", "", &json!({ "id": id, "created": number }).to_string());
        }
        let body = json!({ "id": format!("order-{number}"), "request_id": number * 1000 }).to_string();
        reply("201 Created", &format!("Location: /orders/{number}\r\n"), &body)
    }

    /// The answer as it is given this time.
    fn stamp(&self, answer: &str) -> String {
        if !self.manners.stamped {
            return answer.to_owned();
        }
        let moment = self.answers.fetch_add(1, Ordering::SeqCst);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let mut body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        body["served_at"] = moment.into();
        let location = head.lines().find(|line| line.starts_with("Location: "));
        reply("201 Created", &location.map(|line| format!("{line}\r\n")).unwrap_or_default(), &body.to_string())
    }
}

impl ApiState {
    /// Whether this request is the first with its key, and that is one of these in the order of keys.
    fn is_first_of(&self, key: Option<&str>, places: [usize; 2]) -> bool {
        let Some(key) = key else { return false };
        let mut keys = self.keys.lock().expect("no panic");
        if keys.iter().any(|known| known == key) {
            return false;
        }
        keys.push(key.to_owned());
        places.contains(&keys.len())
    }
}

/// Two keys of the control, one of ten at once; then that of an answer that is lost, and that of a client that gives up.
const LEFT: [usize; 2] = [4, 5];
const AT_ONCE: usize = 3;

/// A relay that tells the API of clients that leave without an answer.
pub struct Leavers {
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Leavers {
    pub async fn start(to: SocketAddr, api: &Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::clone(&api.state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, to, Arc::clone(&state)));
            }
        });
        Self { address, task }
    }
}

impl Drop for Leavers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut client: TcpStream, to: SocketAddr, state: Arc<ApiState>) {
    let mut server = TcpStream::connect(to).await.expect("a server");
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    let mut is_answered = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count @ 1..) => server.write_all(&up[..count]).await.expect("a server"),
                Ok(0) | Err(_) => {
                    state.left.add_permits(usize::from(!is_answered));
                    return;
                }
            },
            read = server.read(&mut down) => match read {
                Ok(count @ 1..) => {
                    is_answered = true;
                    if client.write_all(&down[..count]).await.is_err() {
                        return;
                    }
                }
                Ok(0) | Err(_) => return,
            },
        }
    }
}
