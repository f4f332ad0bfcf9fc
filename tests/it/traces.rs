//! What a collector is told of requests, and what the backend is told of the trace. The collector here reads the
//! messages of OTLP by their field numbers (opentelemetry-proto, trace/v1).

use std::collections::BTreeMap;
use std::process::Command;

use rustix::process::Signal;

use crate::support::process::onlyonce;
use crate::support::wire::Seen;
use crate::support::*;

/// A span, as a collector gets it.
#[derive(Debug, Clone, Default)]
struct Told {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    times: (u64, u64),
    attributes: BTreeMap<String, String>,
    links: Vec<(String, String)>,
}

const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// The fields of a message, in the wire format of Protocol Buffers.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = message.split_first().expect("a varint");
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, varint(&mut message).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(length);
        found.push((tag >> 3, value.to_vec()));
        message = rest;
    }
    found
}

fn of(message: &[u8], field: u64) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|(number, _)| *number == field).map(|(_, value)| value).collect()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("eight bytes"))
}

fn hex(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("UTF-8")
}

impl Told {
    fn read(message: &[u8]) -> Self {
        let mut span = Self::default();
        for (field, value) in fields(message) {
            match field {
                1 => span.trace = hex(&value),
                2 => span.id = hex(&value),
                4 => span.parent = hex(&value),
                5 => span.name = text(&value),
                6 => span.kind = number(&value),
                7 => span.times.0 = number(&value),
                8 => span.times.1 = number(&value),
                9 => {
                    let name = text(&of(&value, 1)[0]);
                    let value = match &fields(&of(&value, 2)[0])[0] {
                        (1, value) => text(value),
                        (_, value) => number(value).to_string(),
                    };
                    span.attributes.insert(name, value);
                }
                13 => span.links.push((hex(&of(&value, 1)[0]), hex(&of(&value, 2)[0]))),
                _ => {}
            }
        }
        span
    }
}

/// All spans that a collector has got so far.
fn told(collector: &Backend) -> Vec<Told> {
    let mut spans = Vec::new();
    for export in collector.seen() {
        assert_eq!(export.first, "POST /v1/traces HTTP/1.1");
        assert_eq!(export.value("content-type"), Some("application/x-protobuf"));
        for resource in of(&export.body, 1) {
            for scope in of(&resource, 2) {
                spans.extend(of(&scope, 2).iter().map(|span| Told::read(span)));
            }
        }
    }
    spans
}

async fn start(setup: &Setup, variables: &[(&str, &str)]) -> (Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("onlyonce.toml");
    std::fs::write(&file, setup.toml()).expect("a writable folder");
    let mut command: Command = onlyonce(&["serve", "--log-format", "json"]);
    command.arg("--config").arg(&file).envs(variables.iter().copied());
    (Process::of(command).await, folder)
}

/// The process has ended, and has sent what it knew.
async fn ended(mut process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(0));
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn a_request_its_claim_its_call_and_its_settling_are_spans_of_the_trace_that_it_came_in() {
    let (backend, collector) = (Backend::start().await, Backend::start().await);
    let (process, _folder) =
        start(&Setup::new(&backend.url()), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())]).await;
    assert!(process.log().contains(&format!("\"traces\":\"{}/v1/traces\"", collector.url())), "{}", process.log());
    let sent = order("k").line(&format!("traceparent: 00-{TRACE}-{PARENT}-01")).line("tracestate: a=1,b=2");
    assert_eq!(process.ask(&sent).await.status, 201);
    let seen = backend.only();
    ended(process).await;

    let spans = told(&collector);
    let one = |kind: u64, name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.kind == kind && span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {spans:?}");
        found[0].clone()
    };
    let server = one(SERVER, "POST /orders");
    assert_eq!((server.trace.as_str(), server.parent.as_str()), (TRACE, PARENT));
    let expected = [("http.request.method", "POST"), ("http.route", "/orders"), ("http.response.status_code", "201")];
    for (name, value) in expected.into_iter().chain([("onlyonce.outcome", "executed"), ("onlyonce.route", "orders")]) {
        assert_eq!(server.attributes.get(name).map(String::as_str), Some(value), "{server:?}");
    }
    assert!(server.attributes["onlyonce.record"].starts_with("orders:"), "{server:?}");
    let (claim, call, settle) = (one(INTERNAL, "claim"), one(CLIENT, "POST"), one(INTERNAL, "settle"));
    for span in [&claim, &call, &settle] {
        assert_eq!((&span.trace, &span.parent), (&server.trace, &server.id), "{span:?}");
        assert!(server.times.0 <= span.times.0 && span.times.0 <= span.times.1 && span.times.1 <= server.times.1);
    }
    assert!(claim.times.1 <= call.times.0 && call.times.1 <= settle.times.0, "{spans:?}");
    assert_eq!(spans.len(), 4, "{spans:?}");
    // The backend goes on under the call; what others keep in the trace is theirs.
    assert_eq!(seen.value("traceparent"), Some(format!("00-{TRACE}-{}-01", call.id).as_str()));
    assert_eq!(seen.value("tracestate"), Some("a=1,b=2"));
    // No span tells the key.
    assert!(!spans.iter().any(|span| span.attributes.values().any(|value| value == "k")));
}

#[tokio::test]
async fn a_replay_links_to_the_trace_that_made_the_record_whichever_process_gives_it() {
    let (backend, collector, store) = (Backend::start().await, Backend::start().await, Store::redis());
    let endpoint = collector.url();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let setup = || Setup::new(&backend.url()).store(&store);
    let (first, _one) = start(&setup(), &variables).await;
    assert_eq!(first.ask(&order("k")).await.status, 201);
    assert!(first.ask(&order("k")).await.is_replay());
    ended(first).await;
    let (second, _two) = start(&setup(), &variables).await;
    assert!(second.ask(&order("k")).await.is_replay());
    ended(second).await;

    let spans = told(&collector);
    let servers: Vec<_> = spans.iter().filter(|span| span.kind == SERVER).collect();
    let outcome = |span: &Told| span.attributes["onlyonce.outcome"].clone();
    let maker = servers.iter().find(|span| outcome(span) == "executed").expect("it ran");
    assert!(maker.links.is_empty() && maker.parent.is_empty(), "it began a trace: {maker:?}");
    let replays: Vec<_> = servers.iter().filter(|span| outcome(span) == "replayed").collect();
    assert_eq!(replays.len(), 2, "{servers:?}");
    for replay in replays {
        assert_eq!(replay.links, [(maker.trace.clone(), maker.id.clone())]);
        assert_ne!(replay.trace, maker.trace);
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn the_question_who_may_see_a_replay_is_a_part_of_it() {
    let (backend, auth, collector) = (Backend::start().await, Backend::start().await, Backend::start().await);
    let endpoint = collector.url();
    let setup = Setup::new(&backend.url()).route(&format!("replay_auth = \"{}/verify?s3cret\"", auth.url()));
    let (process, _folder) = start(&setup, &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())]).await;
    let traced = order("k").line(&format!("traceparent: 00-{TRACE}-{PARENT}-01")).line("tracestate: a=1,b=2");
    assert_eq!(process.ask(&order("k")).await.status, 201);
    assert!(process.ask(&traced).await.is_replay());
    ended(process).await;

    let spans = told(&collector);
    let question = spans.iter().find(|span| span.kind == CLIENT && span.name == "GET").expect("a span");
    let replay = spans.iter().find(|span| span.kind == SERVER && span.parent == PARENT).expect("a span");
    assert_eq!((&*question.trace, &question.parent), (TRACE, &replay.id));
    assert_eq!(question.attributes.get("http.response.status_code").map(String::as_str), Some("201"));
    let seen = auth.only();
    assert_eq!(seen.value("traceparent"), Some(format!("00-{TRACE}-{}-01", question.id).as_str()));
    assert_eq!(seen.value("tracestate"), Some("a=1,b=2"));
    assert!(!format!("{spans:?}").contains("s3cret"));
}

#[tokio::test]
async fn what_is_not_guarded_is_two_spans_and_what_is_not_sampled_goes_on_unsampled() {
    let (backend, collector) = (Backend::start().await, Backend::start().await);
    let (process, _folder) = start(
        &Setup::new(&backend.url()),
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{}/v1/traces", collector.url()))],
    )
    .await;
    assert_eq!(process.ask(&request("GET", "/elsewhere?secret=s3cret")).await.status, 201);
    let unsampled = order("k").line(&format!("traceparent: 00-{TRACE}-{PARENT}-00"));
    assert_eq!(process.ask(&unsampled).await.status, 201);
    ended(process).await;

    let spans = told(&collector);
    let names: Vec<_> = spans.iter().map(|span| (span.kind, span.name.as_str())).collect();
    assert_eq!(names, [(CLIENT, "GET"), (SERVER, "GET")], "{spans:?}");
    assert_eq!(spans[0].parent, spans[1].id);
    assert!(!format!("{spans:?}").contains("s3cret"));
    let passed = backend.seen().pop().expect("it came");
    let passed = passed.value("traceparent").expect("a trace").to_owned();
    assert!(passed.starts_with(&format!("00-{TRACE}-")) && passed.ends_with("-00"), "{passed}");
    assert!(!passed.contains(PARENT), "{passed}");
}

/// The trace that the backend was told of.
fn trace_of(seen: &Seen) -> &str {
    seen.value("traceparent").and_then(|line| line.split('-').nth(1)).expect("a trace")
}

#[tokio::test]
async fn the_log_line_names_the_trace_also_one_that_begins_here_or_is_not_sampled() {
    for sampler in ["always_on", "always_off"] {
        let (backend, collector) = (Backend::start().await, Backend::start().await);
        let setup = Setup::new(&backend.url());
        let setup = setup.another_route("name = \"seen\"\npath = \"/seen\"\nscope = []\nmode = \"observe\"");
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url()), ("OTEL_TRACES_SAMPLER", sampler)];
        let (mut process, _folder) = start(&setup, &variables).await;
        process.ask(&order("begun")).await;
        assert!(process.ask(&order("begun").line(&format!("traceparent: 00-{TRACE}-{PARENT}-01"))).await.is_replay());
        process.ask(&order("malformed").line(&format!("traceparent: 00-{TRACE}-{PARENT}-zz"))).await;
        process.ask(&post("/seen").line("Idempotency-Key: k")).await;
        process.logs("\"observed\"").await;
        process.signal(Signal::TERM);
        assert_eq!(process.exit().await, Some(0));

        let log = process.whole_log();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
        let told: Vec<_> = lines
            .filter(|line| line["message"] == "request" || line["message"] == "observed")
            .map(|line| line["trace_id"].as_str().expect("a trace").to_owned())
            .collect();
        let seen = backend.seen();
        assert_eq!(told, [trace_of(&seen[0]), TRACE, trace_of(&seen[1]), trace_of(&seen[2])], "{sampler}: {log}");
        assert!(seen.iter().all(|seen| trace_of(seen) != TRACE), "{seen:?}");
    }
}

#[tokio::test]
async fn a_new_trace_does_not_take_the_state_of_another_one() {
    let (backend, collector) = (Backend::start().await, Backend::start().await);
    let endpoint = collector.url();
    let (process, _folder) =
        start(&Setup::new(&backend.url()), &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())]).await;
    // W3C Trace Context, 3.2.2, 3.2.4, 4.2 and 4.3.
    let whole = format!("00-{TRACE}-{PARENT}-01");
    let malformed = [
        format!("ff-{TRACE}-{PARENT}-01"),
        format!("0g-{TRACE}-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{TRACE}-{PARENT}-+1"),
        format!("00-+{}-{PARENT}-01", &TRACE[1..]),
        format!("00-{}-{PARENT}-01", &TRACE[1..]),
        format!("00-0{TRACE}-{}-01", &PARENT[1..]),
        format!("00-{TRACE}-{PARENT}-1"),
        format!("{whole}-"),
        format!("{whole}-what"),
        format!("{whole}, {whole}"),
        format!("cc-{TRACE}-{PARENT}-01."),
    ];
    let valid = [
        whole.clone(),
        format!("00-{TRACE}-{PARENT}-ff"),
        format!("01-{TRACE}-{PARENT}-01"),
        format!("cc-{TRACE}-{PARENT}-00-what-comes-later"),
    ];
    let new = [vec![], vec![String::new()], vec![whole.clone(), whole]].into_iter();
    let new = new.chain(malformed.map(|line| vec![line])).map(|lines| (lines, true));
    for (lines, is_new) in new.chain(valid.map(|line| (vec![line], false))) {
        for path in ["/orders", "/elsewhere"] {
            let sent = post(path).line(&format!("Idempotency-Key: {}", backend.count()));
            let sent = sent.line("tracestate: a=1,b=2").line("tracestate: c=3");
            let sent = lines.iter().fold(sent, |sent, line| sent.line(&format!("traceparent: {line}")));
            assert_eq!(process.ask(&sent).await.status, 201);
            let seen = backend.seen().pop().expect("it came");
            assert_eq!(trace_of(&seen) != TRACE, is_new, "{lines:?}: {seen:?}");
            let state: &[&str] = if is_new { &[] } else { &["a=1,b=2", "c=3"] };
            assert_eq!(seen.values("tracestate"), state, "{lines:?}");
        }
    }
    ended(process).await;
}

#[tokio::test]
async fn without_a_collector_a_trace_passes_as_it_came() {
    let backend = Backend::start().await;
    let (process, _folder) = start(&Setup::new(&backend.url()), &[]).await;
    let came = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(process.ask(&order("k").line(&format!("traceparent: {came}"))).await.status, 201);
    assert_eq!(backend.only().value("traceparent"), Some(came.as_str()));
}

#[tokio::test]
async fn a_collector_that_is_not_there_stops_nothing() {
    let backend = Backend::start().await;
    let (process, _folder) = start(&Setup::new(&backend.url()), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody())]).await;
    assert_eq!(process.ask(&order("k")).await.status, 201);
    assert!(process.ask(&order("k")).await.is_replay());
    ended(process).await;
}

#[test]
fn a_collector_that_cannot_be_one_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("http://127.0.0.1:1");
    std::fs::write(folder.path().join("onlyonce.toml"), setup.toml()).expect("a writable folder");
    for endpoint in ["https://collector:4318", "collector:4318", "nonsense"] {
        let mut command = onlyonce(&["serve"]);
        let command = command.current_dir(&folder).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        let output = command.output().expect("the program");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT: ") && said.contains("http://127.0.0.1:4318"), "{said}");
    }
}
