//! The backend: a process without support for idempotency that keeps a ledger of its executions, and says what is in it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The argument that makes this program a backend. A port, a file, and a [`Manner`] follow.
pub const ARGUMENT: &str = "backend";

/// How it treats orders.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    Fair,
    /// By this seed, see [`Weather`].
    Storm(u64),
    /// The first one is executed, and the connection breaks.
    LosesAnswer,
    /// The first one is not executed, and the connection breaks.
    LosesOrder,
}

impl Manner {
    pub fn argument(self) -> String {
        match self {
            Self::Fair => "fair".to_owned(),
            Self::Storm(seed) => seed.to_string(),
            Self::LosesAnswer => "loses-answer".to_owned(),
            Self::LosesOrder => "loses-order".to_owned(),
        }
    }

    fn parse(argument: &str) -> Self {
        match argument {
            "fair" => Self::Fair,
            "loses-answer" => Self::LosesAnswer,
            "loses-order" => Self::LosesOrder,
            seed => Self::Storm(seed.parse().expect("a seed")),
        }
    }
}

/// One line of the ledger: on disk before the response is sent.
#[derive(Debug, Clone)]
pub struct Execution {
    pub key: String,
    /// The number of the attempt, as in the request.
    pub attempt: u32,
    /// Part of the response; no two executions have the same.
    pub id: String,
}

/// All executions.
pub fn read_ledger(path: &Path) -> Vec<Execution> {
    let ledger = std::fs::read_to_string(path).expect("the backend's ledger");
    let execution = |line: &str| {
        let [key, attempt, id] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("a line of three: {line}") };
        Execution { key: key.to_owned(), attempt: attempt.parse().expect("a number"), id: id.to_owned() }
    };
    ledger.lines().map(execution).collect()
}

struct Backend {
    path: PathBuf,
    ledger: Mutex<Ledger>,
    manner: Manner,
    /// Whether this process still has to stop at its fail point.
    stops: AtomicBool,
}

struct Ledger {
    file: File,
    executions: usize,
    /// The number of requests for each key.
    requests: HashMap<String, u32>,
}

/// What happens to one order.
enum Weather {
    Fair,
    /// It is executed, and the response is slow.
    Slow(Duration),
    /// It is executed, and the connection breaks.
    Reset,
    /// It is refused, and not executed.
    Refused,
    /// It is not executed, and the connection breaks.
    Lost,
}

pub fn main(arguments: &[String]) {
    let (port, path) = (arguments[0].parse::<u16>().expect("a port"), &arguments[1]);
    let manner = Manner::parse(&arguments[2]);
    let file = OpenOptions::new().create(true).append(true).open(path).expect("a writable folder");
    let ledger = Mutex::new(Ledger { file, executions: 0, requests: HashMap::new() });
    let backend = Arc::new(Backend { path: path.into(), ledger, manner, stops: AtomicBool::new(true) });

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is ours");
    println!("listening");
    // The test holds the other end: when it ends, the backend ends.
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        exit(0);
    });
    for stream in listener.incoming() {
        let (stream, backend) = (stream.expect("a connection"), Arc::clone(&backend));
        thread::spawn(move || backend.serve(&stream));
    }
}

impl Backend {
    fn serve(&self, mut stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader) {
            let (key, attempt) = match request {
                Request::Order { key, attempt } => (key, attempt),
                Request::Question { key } => {
                    if self.tell(stream, &key).is_err() {
                        return;
                    }
                    continue;
                }
            };
            let weather = self.weather(&key);
            match weather {
                Weather::Refused => {
                    let refusal = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
                    if stream.write_all(refusal).is_err() {
                        return;
                    }
                    continue;
                }
                Weather::Lost => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                Weather::Fair | Weather::Slow(_) | Weather::Reset => {}
            }
            let id = self.execute(&key, attempt);
            self.stop_at("after-send");
            match weather {
                Weather::Fair | Weather::Refused | Weather::Lost => {}
                Weather::Slow(pause) => thread::sleep(pause),
                Weather::Reset => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
            if self.answer(stream, &id).is_err() {
                return;
            }
        }
    }

    fn execute(&self, key: &str, attempt: u32) -> String {
        let mut ledger = self.ledger.lock().expect("no panic");
        ledger.executions += 1;
        let id = format!("{}-{}", std::process::id(), ledger.executions);
        ledger.file.write_all(format!("{key} {attempt} {id}\n").as_bytes()).expect("a disk with room");
        ledger.file.sync_data().expect("a disk that works");
        id
    }

    fn answer(&self, mut stream: &TcpStream, id: &str) -> std::io::Result<()> {
        let body = format!("{{\"order\":\"{id}\"}}");
        let response = format!(
            "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nLocation: /orders/{id}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (start, end) = response.split_at(response.len() - body.len() / 2);
        if self.is_to_stop_at("body-half-read") {
            stream.write_all(start.as_bytes())?;
            self.stop_at("body-half-read");
            stream.write_all(end.as_bytes())
        } else {
            stream.write_all(response.as_bytes())
        }
    }

    /// Answers whether there is an order with this key.
    fn tell(&self, mut stream: &TcpStream, key: &str) -> std::io::Result<()> {
        let order = {
            let _nobody_writes = self.ledger.lock().expect("no panic");
            read_ledger(&self.path).into_iter().find(|execution| execution.key == key)
        };
        let (location, body) = match order {
            Some(Execution { id, .. }) => {
                (format!("Location: /orders/{id}\r\n"), format!("{{\"data\":[{{\"id\":\"{id}\"}}]}}"))
            }
            None => (String::new(), "{\"data\":[]}".to_owned()),
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{location}Content-Length: {length}\r\n");
        stream.write_all(format!("{head}\r\n{body}").as_bytes())
    }

    /// The same for the same seed, key and number of the request.
    fn weather(&self, key: &str) -> Weather {
        let mut ledger = self.ledger.lock().expect("no panic");
        let number = ledger.requests.entry(key.to_owned()).or_default();
        *number += 1;
        let seed = match (self.manner, *number) {
            (Manner::LosesAnswer, 1) => return Weather::Reset,
            (Manner::LosesOrder, 1) => return Weather::Lost,
            (Manner::Fair | Manner::LosesAnswer | Manner::LosesOrder, _) => return Weather::Fair,
            (Manner::Storm(seed), _) => seed,
        };
        let mut hasher = DefaultHasher::new();
        (seed, key, *number).hash(&mut hasher);
        let chance = hasher.finish();
        match chance % 100 {
            0..50 => Weather::Fair,
            50..75 => Weather::Slow(Duration::from_millis(chance / 100 % 1500)),
            75..85 => Weather::Reset,
            _ => Weather::Refused,
        }
    }

    fn is_to_stop_at(&self, step: &str) -> bool {
        let asked = std::env::var("ONLYONCE_FAIL_POINT").is_ok_and(|asked| asked == step);
        asked && self.stops.load(Ordering::Relaxed)
    }

    /// Like a fail point of the sidecar: reports the step, and waits until it may continue.
    fn stop_at(&self, step: &str) {
        if !self.is_to_stop_at(step) || !self.stops.swap(false, Ordering::Relaxed) {
            return;
        }
        let address = std::env::var("ONLYONCE_FAIL_POINT_ADDR").expect("both or none are set");
        let mut test = TcpStream::connect(address).expect("the test listens");
        writeln!(test, "{step}").expect("the test reads");
        test.read_exact(&mut [0]).expect("the test says to go on, or kills");
    }
}

enum Request {
    Order {
        key: String,
        attempt: u32,
    },
    /// Is there an order with this key?
    Question {
        key: String,
    },
}

/// The next request, after all of it was read.
fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let (mut first, mut key, mut attempt, mut length) = (None, None, 1, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_none() {
            first = Some(line.to_owned());
        } else if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "idempotency-key" => key = Some(value.to_owned()),
                "onlyonce-attempt" => attempt = value.parse().expect("a number"),
                "content-length" => length = value.parse().expect("a length"),
                _ => {}
            }
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    let first = first.expect("a request line comes first");
    if let Some(question) = first.strip_prefix("GET /orders?key=") {
        let (key, rest) = question.split_once("&item=").expect("the path of the configuration");
        let item = rest.strip_suffix(" HTTP/1.1").expect("a request line");
        assert_eq!(key, item, "every order is for the item that is its key");
        return Some(Request::Question { key: key.to_owned() });
    }
    Some(Request::Order { key: key.expect("every order has a key"), attempt })
}
