//! Runs an external client against a sidecar and a ledger: how often the backend executed each key, and what the caller
//! got.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use serde_json::Value;

use super::ledger::{self, FAILS_500, FAILS_503, HUGE, LATE, LOST, Ledger, SLOW};
use super::peer::run;
use super::support::{Process, RedisServer, Setup, nobody, post, until};
use super::table::{self, Table};

/// A client: its row in `docs/clients.md`, the route that it calls, and the program, which takes the URL of the sidecar
/// and keys.
pub struct Client {
    pub name: &'static str,
    /// Settings of `[[route]]` other than name and path.
    pub rule: &'static str,
    pub path: &'static str,
    pub command: fn() -> Command,
    /// Whether it raises an exception for every unsuccessful response.
    pub raises: bool,
}

/// The result of one call: a line that the program printed.
#[derive(Debug, Clone, Deserialize)]
struct Saw {
    key: String,
    /// The id of the created object.
    id: Option<String>,
    /// The exception.
    raised: Option<String>,
    status: Option<u16>,
    code: Option<String>,
    /// The duration, for people who read the output.
    #[allow(dead_code)]
    ms: u64,
}

impl Saw {
    fn is_created(&self, execution: usize) -> bool {
        self.id.as_deref() == Some(&ledger::id(&self.key, execution))
    }

    /// For a cell of the table.
    fn short(&self, execution: usize) -> String {
        if self.is_created(execution) {
            return "the object".into();
        }
        assert!(self.id.is_none(), "an object that nobody created: {self:?}");
        let status = self.status.map(|status| status.to_string());
        let code = self.code.as_ref().map(|code| format!("`{code}`"));
        let raised = self.raised.as_ref().filter(|_| self.code.is_none()).map(|raised| format!("`{raised}`"));
        let told: Vec<String> = [raised, status, code].into_iter().flatten().collect();
        told.join(" ")
    }
}

/// The log line of one request.
#[derive(Debug, Clone, Deserialize)]
struct Logged {
    key: Option<String>,
    outcome: String,
    /// Absent where the client had left.
    status: Option<u16>,
    trace_id: Option<String>,
}

/// The trace id of the test's own requests begins with this.
const FENCE: &str = "feedfeedfeedfeed";

struct Sidecar {
    process: Process,
    /// The test's own requests.
    fences: AtomicUsize,
}

impl Sidecar {
    async fn start(client: &Client, upstream: &str, also: impl FnOnce(Setup) -> Setup) -> Self {
        let route = format!("path = \"{}\"\nmax_response_body = \"8KiB\"\nmax_request_body = \"32KiB\"", client.path);
        let setup = Setup::new(upstream).route(&route).route(client.rule).with("log", "keys = \"plain\"");
        // Some clients wait without a limit.
        let setup = setup.with("upstream", "response_timeout = \"15s\"");
        Self { process: Process::start(&also(setup)).await, fences: AtomicUsize::new(0) }
    }

    /// Runs the program with these calls to its end.
    async fn calls(&self, client: &Client, calls: &[&str]) -> Vec<Saw> {
        let mut command = (client.command)();
        command.arg(format!("http://{}", self.process.address)).args(calls);
        let output = run(command).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {}\n{out}\n{err}\n{}", client.name, output.status, self.process.log());
        let saw: Vec<Saw> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{err}")))
            .collect();
        assert_eq!(saw.len(), calls.len(), "{out}\n{err}");
        saw
    }

    async fn call(&self, client: &Client, call: &str) -> Saw {
        self.calls(client, &[call]).await.remove(0)
    }

    /// Makes a call that is refused with one of these codes, which the caller must see. Returns the number of requests
    /// that the client sent.
    async fn refuses(&self, client: &Client, call: &str, codes: &[&str]) -> String {
        let before = self.answered(client).await;
        let saw = self.call(client, call).await;
        let tries = self.answered(client).await - before;
        println!("{}: {codes:?} after {tries} tries: {saw:?}", client.name);
        assert!(saw.id.is_none(), "{}: {codes:?} is a success: {saw:?}", client.name);
        let code = saw.code.as_deref().unwrap_or("none");
        assert!(codes.contains(&code), "{}: {codes:?}: {saw:?}\n{}", client.name, self.process.log());
        assert!(saw.raised.is_some() || !client.raises, "{}: {saw:?}", client.name);
        tries.to_string()
    }

    /// The number of the client's requests that were answered: those logged before a request of the test.
    async fn answered(&self, client: &Client) -> usize {
        let number = self.fences.fetch_add(1, Ordering::Relaxed);
        let trace = format!("{FENCE}{number:016x}");
        let path = client.path.replace(['{', '}'], "");
        let fence = post(&path).line("Idempotency-Key: fence").line("PayPal-Request-Id: fence");
        self.process.ask(&fence.line(&format!("traceparent: 00-{trace}-0000000000000001-01"))).await;
        self.process.logs(&trace).await;
        let is_fence = |request: &Logged| request.trace_id.as_ref().is_some_and(|id| id.starts_with(FENCE));
        self.requests().iter().filter(|request| request.status.is_some() && !is_fence(request)).count()
    }

    /// The guarded requests that it has logged.
    fn requests(&self) -> Vec<Logged> {
        let log = self.process.log();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let requests = events.filter(|event| event["message"] == "request");
        requests.map(|event| serde_json::from_value(event).expect("an outcome")).collect()
    }

    /// The outcomes of this key.
    fn outcomes(&self, key: &str) -> Vec<String> {
        let requests = self.requests().into_iter();
        requests.filter(|request| request.key.as_deref() == Some(key)).map(|request| request.outcome).collect()
    }
}

/// A repeat, a slow backend, a lost response, and two failures.
pub async fn executions(client: &Client) {
    let ledger = Ledger::start().await;
    let sidecar = Sidecar::start(client, &ledger.url(), |setup| setup).await;
    // The slow backend responds when a repeat was refused, or when the client has given up.
    let opener = async {
        until_long("a repeat of what is slow", async || sidecar.outcomes(SLOW).contains(&"in_flight".into())).await;
        ledger.gate.open();
        std::future::pending::<()>().await;
    };
    let calls = ["once", "once", SLOW, LOST, FAILS_500, FAILS_503];
    let saw = tokio::select! {
        saw = sidecar.calls(client, &calls) => saw,
        () = opener => unreachable!("it is pending"),
    };
    ledger.gate.open();
    let at_work = "onlyonce_in_flight{route=\"orders\"}";
    until("the slow answer is recorded", async || sidecar.process.metric(at_work).await == 0.0).await;
    // All responses to the client are logged now.
    sidecar.answered(client).await;
    println!("{}: {saw:#?}", client.name);

    for repeat in &saw[..2] {
        assert!(repeat.is_created(1), "{}: {repeat:?}", client.name);
    }
    assert_eq!(sidecar.outcomes("once"), ["executed", "replayed"], "{}", client.name);
    let mut cells = Vec::new();
    for saw in &saw[2..] {
        let (entry, outcomes) = (ledger.of(&saw.key), sidecar.outcomes(&saw.key));
        println!("{}: {}: {entry:?}, {outcomes:?}", client.name, saw.key);
        assert!(entry.executed <= 1, "{}: {entry:?}, {outcomes:?}", client.name);
        cells.push(format!("{}, {}", entry.executed, saw.short(1)));
    }
    assert_eq!((ledger.of(SLOW).executed, ledger.of(LOST).executed), (1, 1), "{}", client.name);
    table::holds(Table::Executions, client.name, &cells);
}

/// Each problem that a client may get, and how often it sends its request before it gives up.
pub async fn refusals(client: &Client) {
    let ledger = Ledger::start().await;
    let busy = async {
        let late = |setup: Setup| setup.with("upstream", "response_timeout = \"500ms\"");
        let sidecar =
            Sidecar::start(client, &ledger.url(), |setup| late(setup).with("server", "max_in_flight = 2")).await;
        // A repeat after it gets `in-flight`.
        let timeout = sidecar.refuses(client, LATE, &["upstream-timeout", "in-flight"]).await;
        let in_flight = sidecar.refuses(client, LATE, &["in-flight"]).await;
        sidecar.call(client, "late-2").await;
        [in_flight, timeout, sidecar.refuses(client, "another", &["overloaded"]).await]
    };
    let records = async {
        let sidecar = Sidecar::start(client, &ledger.url(), |setup| setup).await;
        sidecar.calls(client, &[LOST, "other=1", HUGE]).await;
        [
            sidecar.refuses(client, LOST, &["outcome-unknown"]).await,
            sidecar.refuses(client, "other=2", &["key-reused"]).await,
            sidecar.refuses(client, HUGE, &["already-completed"]).await,
        ]
    };
    let requests = async {
        let expire = |setup: Setup| setup.route("refuse_expired_keys = true");
        let sidecar = Sidecar::start(client, &ledger.url(), expire).await;
        [
            sidecar.refuses(client, &"k".repeat(300), &["invalid-key"]).await,
            // A UUIDv7 of 2023.
            sidecar.refuses(client, "018a0000-0000-7000-8000-000000000000", &["key-expired"]).await,
            sidecar.refuses(client, "large=40000", &["request-too-large"]).await,
        ]
    };
    let unreachable = async {
        let sidecar = Sidecar::start(client, &nobody(), |setup| setup).await;
        sidecar.refuses(client, "once", &["upstream-unreachable"]).await
    };
    let no_store = async {
        let mut redis = RedisServer::start();
        let on_redis = format!("url = \"{}\"\ntimeout = \"500ms\"", redis.url());
        let sidecar = Sidecar::start(client, &ledger.url(), |setup| setup.with("store", &on_redis)).await;
        redis.kill();
        let refused = sidecar.refuses(client, "never", &["store-unavailable"]).await;
        assert_eq!(ledger.of("never").arrived, 0);
        refused
    };
    let (busy, records, requests, unreachable, no_store) = tokio::join!(busy, records, requests, unreachable, no_store);
    ledger.gate.open();
    let cells = [&busy[..], &records, &requests, &[unreachable, no_store]].concat();
    table::holds(Table::Refusals, client.name, &cells);
}

/// Waits for an external client, which may start slowly.
async fn until_long(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within two minutes");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Both tests for each client, in a module with its name. `#[ignore]` is for those that only `tests/run --all` runs.
macro_rules! clients {
    ($($(#[$about:meta])* $name:ident = $client:expr;)+) => { $(
        mod $name {
            use super::*;

            $(#[$about])*
            #[tokio::test(flavor = "multi_thread")]
            async fn never_has_a_key_executed_twice() {
                $crate::trial::executions(&$client).await;
            }

            $(#[$about])*
            #[tokio::test(flavor = "multi_thread")]
            async fn hears_every_refusal() {
                $crate::trial::refusals(&$client).await;
            }
        }
    )+ };
}
pub(crate) use clients;
