//! The backend: a process without support for idempotency that keeps a ledger of its executions.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The argument that makes this program a backend. A port, a file, and the seed of a storm, if any, follow.
pub const ARGUMENT: &str = "backend";

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
    ledger: Mutex<Ledger>,
    storm: Option<u64>,
    /// Whether this process still has to stop at its fail point.
    stops: AtomicBool,
}

struct Ledger {
    file: File,
    executions: usize,
    /// The number of requests for each key.
    requests: HashMap<String, u32>,
}

/// What happens to one request in a storm.
enum Weather {
    Fair,
    /// It is executed, and the response is slow.
    Slow(Duration),
    /// It is executed, and the connection breaks.
    Reset,
    /// It is refused, and not executed.
    Refused,
}

pub fn main(arguments: &[String]) {
    let (port, path) = (arguments[0].parse::<u16>().expect("a port"), &arguments[1]);
    let storm = arguments.get(2).map(|seed| seed.parse().expect("a seed"));
    let file = OpenOptions::new().create(true).append(true).open(path).expect("a writable folder");
    let ledger = Mutex::new(Ledger { file, executions: 0, requests: HashMap::new() });
    let backend = Arc::new(Backend { ledger, storm, stops: AtomicBool::new(true) });

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
        while let Some((key, attempt)) = read_request(&mut reader) {
            let weather = self.weather(&key);
            if let Weather::Refused = weather {
                let refusal = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
                if stream.write_all(refusal).is_err() {
                    return;
                }
                continue;
            }
            let id = self.execute(&key, attempt);
            self.stop_at("after-send");
            match weather {
                Weather::Fair | Weather::Refused => {}
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

    /// The same for the same seed, key and number of the request.
    fn weather(&self, key: &str) -> Weather {
        let Some(seed) = self.storm else { return Weather::Fair };
        let mut ledger = self.ledger.lock().expect("no panic");
        let number = ledger.requests.entry(key.to_owned()).or_default();
        *number += 1;
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

/// Key and attempt of the next request, after all of it was read.
fn read_request(reader: &mut impl BufRead) -> Option<(String, u32)> {
    let (mut key, mut attempt, mut length) = (None, 1, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "idempotency-key" => key = Some(value.to_owned()),
                "onlyonce-attempt" => attempt = value.parse().expect("a number"),
                "content-length" => length = value.parse().expect("a length"),
                _ => {}
            }
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some((key.expect("every order has a key"), attempt))
}
