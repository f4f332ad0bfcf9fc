//! Versions after each other and beside each other: what a released version has written, and what a later one may write.
//!
//! `released/` holds what each release fixed: the bytes of its records as they lay in a Redis, its metrics, and its
//! configuration. `ONLYONCE_BLESS=1` writes the files of a new one where they are missing; those that are there never change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::support::*;

/// The releases whose stores and files this version goes on with.
const RELEASES: [&str; 1] = ["0.1"];

fn file(release: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/released").join(release).join(name)
}

/// The text of a release's file; where it is missing, and is to be written, what `now` makes.
async fn released(release: &str, name: &str, now: impl AsyncFnOnce() -> String) -> String {
    let path = file(release, name);
    if !path.exists() && std::env::var_os("ONLYONCE_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        fs::write(&path, now().await).expect("a writable folder");
    }
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const ROUTE: &str = "max_response_body = \"200KiB\"";
const DIGEST_KEY: &str = "digest_key = \"0123456789abcdef0123456789abcdef\"";
/// More than what lies within a record.
const LARGE: usize = 70_000;
const CHUNK: usize = 64 * 1024;

fn large() -> Vec<u8> {
    (0..LARGE as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn created() -> Step {
    answer(
        "201 Created\r\nContent-Type: application/json\r\nLocation: /orders/17\r\nLink: </a>; rel=a\r\nLink: </b>; rel=b",
        "{\"order\":17}",
    )
}

async fn beside(redis: &RedisServer, backend: &Backend) -> Sidecar {
    let store = format!("url = \"{}\"\n{DIGEST_KEY}", redis.url());
    let sidecar = Setup::new(&backend.url()).with("store", &store).route(ROUTE).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    sidecar
}

async fn connection(redis: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("an address");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

/// Everything in this Redis that belongs to a record, by its name.
async fn stored(redis: &RedisServer) -> BTreeMap<String, Vec<u8>> {
    let mut connection = connection(redis).await;
    let mut stored = BTreeMap::new();
    for pattern in ["onlyonce:orders*", "{onlyonce:orders*"] {
        let names: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("names");
        for name in names {
            let value = redis::cmd("GET").arg(&name).query_async(&mut connection).await.expect("a value");
            stored.insert(name, value);
        }
    }
    stored
}

async fn put(redis: &RedisServer, name: &str, value: &[u8], live: Duration) {
    let mut connection = connection(redis).await;
    let live = u64::try_from(live.as_millis()).expect("a day");
    let mut set = redis::cmd("SET");
    let _: () = set.arg(name).arg(value).arg("PX").arg(live).query_async(&mut connection).await.expect("it is set");
}

/// One record of each kind, by the key of its request, with the chunks of a large body.
type Kinds = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// What this version writes.
async fn written() -> Kinds {
    let redis = RedisServer::start();
    let (backend, gate) = Backend::gated().await;
    let sidecar = beside(&redis, &backend).await;
    let mut kinds = Kinds::new();
    let mut known = BTreeMap::new();
    let mut take = async |key: &str| {
        let now = stored(&redis).await;
        let new = now.iter().filter(|(name, value)| known.get(*name) != Some(*value));
        kinds.insert(key.to_owned(), new.map(|(name, value)| (name.clone(), value.clone())).collect());
        known = now;
    };
    let running = sidecar.asking(&order("in-flight"));
    backend.has_seen(1).await;
    take("in-flight").await;
    backend.then(vec![created()]);
    assert_eq!(sidecar.ask(&order("completed")).await.status, 201);
    take("completed").await;
    backend.then(vec![answer("200 OK\r\nContent-Type: application/pdf", large())]);
    assert_eq!(sidecar.ask(&order("large")).await.body.len(), LARGE);
    take("large").await;
    backend.then(vec![answer("201 Created\r\nLocation: /orders/18", vec![b'x'; 300_000])]);
    assert_eq!(sidecar.ask(&order("unreplayable")).await.status, 201);
    take("unreplayable").await;
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order("unknown")).await.refuses(502, "upstream-failed");
    take("unknown").await;
    gate.open();
    assert_eq!(within("the first", running).await.expect("no panic").status, 201);
    kinds
}

/// `KEY NAME HEX`; of the chunks of the large body, which is known, only what stands behind each.
fn lines(kinds: &Kinds) -> String {
    let mut lines = String::new();
    for (key, values) in kinds {
        for (name, value) in values {
            let value = if name.starts_with('{') { &value[value.len() - 8..] } else { value };
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(lines, "{key} {name} {hex}").expect("a String");
        }
    }
    lines
}

fn read(text: &str) -> Kinds {
    let mut kinds = Kinds::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split(' ').collect();
        let [key, name, hex] = parts[..] else { panic!("{line}") };
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let mut value: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        if let Some((_, index)) = name.strip_prefix('{').and_then(|name| name.rsplit_once(':')) {
            let from = index.parse::<usize>().expect("a number") * CHUNK;
            value = [&large()[from..(from + CHUNK).min(LARGE)], &value].concat();
        }
        kinds.entry(key.to_owned()).or_default().insert(name.to_owned(), value);
    }
    kinds
}

async fn kinds(release: &str) -> Kinds {
    read(&released(release, "records.txt", async || lines(&written().await)).await)
}

const DAY: Duration = Duration::from_secs(86_400);

/// Puts records of a released version into a Redis, as if it had just written them.
async fn inherit(redis: &RedisServer, kinds: &Kinds) {
    for (name, value) in kinds.values().flatten() {
        put(redis, name, value, DAY).await;
    }
}

/// The record itself, without its chunks.
fn record(kinds: &Kinds, key: &str) -> (String, Vec<u8>) {
    let found = kinds[key].iter().find(|(name, _)| !name.starts_with('{'));
    found.map(|(name, value)| (name.clone(), value.clone())).expect("a record")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_released_version_recorded_is_replayed_and_never_runs_again() {
    for release in RELEASES {
        let (redis, backend) = (RedisServer::start(), Backend::start().await);
        inherit(&redis, &kinds(release).await).await;
        let sidecar = beside(&redis, &backend).await;
        let replay = sidecar.ask(&order("completed")).await;
        assert!(replay.is_replay(), "{release}: {replay:?}");
        assert_eq!(
            (replay.status, replay.text(), replay.value("location")),
            (201, "{\"order\":17}", Some("/orders/17"))
        );
        assert_eq!(replay.values("link"), ["</a>; rel=a", "</b>; rel=b"], "{release}");
        let replay = sidecar.ask(&order("large")).await;
        assert!(replay.is_replay() && replay.body == large(), "{release}");
        sidecar.ask(&order("unknown")).await.refuses(409, "outcome-unknown");
        sidecar.ask(&order("in-flight")).await.refuses(409, "in-flight");
        let done = sidecar.ask(&order("unreplayable")).await;
        assert_eq!((done.value("location"), &done.json()["original_status"]), (Some("/orders/18"), &201.into()));
        done.refuses(409, "already-completed");
        // The fingerprints are those of the release, too.
        for key in ["completed", "large", "unknown", "in-flight", "unreplayable"] {
            sidecar.ask(&order(key).body("another")).await.refuses(422, "key-reused");
        }
        assert_eq!(backend.count(), 0, "{release}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_version_writes_a_released_one_reads() {
    // What differs by nature: the token, the times, and the checksum over them.
    let comparable = |value: &[u8]| {
        let mut value = value.to_vec();
        let end = value.len() - 8;
        for hidden in [4..20, 52..68, end..end + 8] {
            value[hidden].fill(0);
        }
        value
    };
    let now = written().await;
    for release in RELEASES {
        let then = kinds(release).await;
        assert_eq!(now.keys().collect::<Vec<_>>(), then.keys().collect::<Vec<_>>(), "{release}");
        for key in now.keys() {
            let ((name, value), (old_name, old_value)) = (record(&now, key), record(&then, key));
            assert_eq!(name, old_name, "{release}: {key}");
            assert_eq!(comparable(&value), comparable(&old_value), "{release}: {key}");
            // Chunks have the token in their names.
            let chunks = |kinds: &Kinds| kinds[key].keys().filter(|name| name.starts_with('{')).count();
            assert_eq!(chunks(&now), chunks(&then), "{release}: {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_rolling_upgrade_each_version_respects_what_the_other_does() {
    for release in RELEASES {
        let (redis, backend) = (RedisServer::start(), Backend::start().await);
        let old = kinds(release).await;
        let sidecar = beside(&redis, &backend).await;
        // The released version has the claim, and this one does not run beside it.
        let (name, claim) = record(&old, "completed");
        let in_flight = with(&claim, |head, rest| {
            head[1] = 1;
            head[2..4].fill(0);
            head[24..26].fill(0);
            head[60..68].fill(0);
            rest.clear();
        });
        put(&redis, &name, &in_flight, DAY).await;
        sidecar.ask(&order("completed")).await.refuses(409, "in-flight");
        sidecar.ask(&order("completed").body("another")).await.refuses(422, "key-reused");
        // It settles, and this one replays what it has written.
        put(&redis, &name, &claim, DAY).await;
        assert!(sidecar.ask(&order("completed")).await.is_replay());
        assert_eq!(backend.count(), 0);
        // It dies in flight: the evidence stays, for this version too.
        let lease = Duration::from_secs(30);
        let (name, claim) = record(&old, "in-flight");
        put(&redis, &name, &claim, DAY - lease - Duration::from_secs(1)).await;
        sidecar.ask(&order("in-flight")).await.refuses(409, "outcome-unknown");
        assert_eq!(backend.count(), 0);
    }
}

/// The same record changed in its first 108 bytes and what follows them, with its checksum.
fn with(record: &[u8], change: impl FnOnce(&mut [u8], &mut Vec<u8>)) -> Vec<u8> {
    let (head, rest) = record[..record.len() - 8].split_at(108);
    let (mut head, mut rest) = (head.to_vec(), rest.to_vec());
    change(&mut head, &mut rest);
    let mut record = [head, rest].concat();
    record.extend_from_slice(&xxh3_64(&record).to_le_bytes());
    record
}

/// With an extension of this code.
fn extended(record: &[u8], code: u8) -> Vec<u8> {
    with(record, |head, rest| {
        let extension = [&[code, 3, 0][..], b"new"].concat();
        head[26..28].copy_from_slice(&u16::try_from(extension.len()).expect("short").to_le_bytes());
        rest.splice(..0, extension);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_wrote_is_refused_by_name_where_it_cannot_be_read_and_all_else_goes_on() {
    let (redis, backend) = (RedisServer::start(), Backend::start().await);
    let old = kinds(RELEASES[RELEASES.len() - 1]).await;
    inherit(&redis, &old).await;
    let sidecar = beside(&redis, &backend).await;
    let (name, completed) = record(&old, "completed");
    let short = name.strip_prefix("onlyonce:").expect("the prefix");
    let newer_layout = with(&completed, |head, _| head[0] = 3);
    for (unreadable, why) in [
        (newer_layout, "layout 3"),
        (extended(&completed, 0x80), "extension 128"),
        (extended(&completed, 0xff), "extension 255"),
    ] {
        put(&redis, &name, &unreadable, DAY).await;
        let refused = sidecar.ask(&order("completed")).await;
        assert_eq!(refused.json()["record"], short);
        refused.refuses(503, "record-unreadable");
        // An operator is told which it is, and cannot free it by mistake.
        let shown = request("GET", &format!("/records/{short}")).host("localhost").line("Onlyonce-Admin: 1");
        let shown = Wire::connect(sidecar.admin).await.ask(&shown).await.json();
        assert!(shown["state"] == "unreadable" && shown["detail"].to_string().contains("newer version"), "{shown}");
        assert!(shown["detail"].to_string().contains(why), "{shown}");
        let release = Request::to_host(&format!("/records/{short}/release"), "localhost").line("Onlyonce-Admin: 1");
        Wire::connect(sidecar.admin).await.ask(&release.json("{}")).await.refuses(503, "record-unreadable");
        // It is what it was, and the others are replayed.
        assert_eq!(stored(&redis).await[&name], unreadable);
        assert!(sidecar.ask(&order("large")).await.is_replay());
        sidecar.ask(&order("unknown")).await.refuses(409, "outcome-unknown");
    }
    assert_eq!(backend.count(), 0);
    assert_eq!(sidecar.ask(&order("new")).await.status, 201);

    // What may be skipped is skipped, and kept by whoever writes the record anew.
    put(&redis, &name, &extended(&completed, 0x7f), DAY).await;
    assert!(sidecar.ask(&order("completed")).await.is_replay());
    let (name, unknown) = record(&old, "unknown");
    put(&redis, &name, &extended(&unknown, 0x7f), DAY).await;
    let short = name.strip_prefix("onlyonce:").expect("the prefix");
    let complete = Request::to_host(&format!("/records/{short}/complete"), "localhost").line("Onlyonce-Admin: 1");
    let complete = complete.json("{\"status\":201,\"body\":\"by hand\"}");
    assert_eq!(Wire::connect(sidecar.admin).await.ask(&complete).await.status, 200);
    assert_eq!(sidecar.ask(&order("unknown")).await.text(), "by hand");
    assert_eq!(stored(&redis).await[&name][108..114], *b"\x7f\x03\x00new");
}

/// Each series without its values: `name type label,label`.
async fn metrics() -> String {
    let backend = Backend::start().await;
    let observed = "name = \"observed\"\npath = \"/observed\"\nscope = []\nmode = \"observe\"";
    let sidecar = Setup::new(&backend.url()).another_route(observed).start().await;
    sidecar.ask(&order("k")).await;
    let text = sidecar.admin("/metrics").await.text().to_owned();
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = base.filter(|base| types.contains_key(base)).unwrap_or(name);
        let names = rest.split("\",").filter_map(|pair| pair.split_once('=')).map(|(label, _)| label);
        labels.entry(name).or_default().extend(names.filter(|label| *label != "le"));
    }
    let line = |(name, labels): (&&str, &BTreeSet<&str>)| {
        let labels: Vec<&str> = labels.iter().copied().collect();
        let line = format!("{name} {} {}", types.get(*name).unwrap_or(&"untyped"), labels.join(","));
        format!("{}\n", line.trim_end())
    };
    labels.iter().filter(|(name, _)| name.starts_with("onlyonce_")).map(line).collect()
}

#[tokio::test]
async fn every_metric_of_a_released_version_is_there_as_it_was() {
    let now = metrics().await;
    for release in RELEASES {
        for metric in released(release, "metrics.txt", metrics).await.lines() {
            assert!(now.lines().any(|line| line == metric), "of {release}: {metric}");
        }
    }
}

/// Each key of the configuration, with its default: `table.key = default`.
fn keys(schema: &Value, table: &str, out: &mut BTreeSet<String>) {
    for inner in [&schema["items"], &schema["additionalProperties"]] {
        if inner.is_object() {
            keys(inner, table, out);
        }
    }
    for (key, described) in schema["properties"].as_object().into_iter().flatten() {
        let path = if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
        match described.get("default") {
            Some(default) => out.insert(format!("{path} = {default}")),
            None => out.insert(path.clone()),
        };
        keys(described, &path, out);
    }
}

#[tokio::test]
async fn every_key_of_a_released_configuration_is_taken_with_the_default_that_it_had() {
    let mut now = BTreeSet::new();
    keys(&onlyonce::schema::configuration(), "", &mut now);
    for release in RELEASES {
        let text = now.iter().map(|key| format!("{key}\n")).collect::<String>();
        for key in released(release, "configuration.txt", async || text).await.lines() {
            assert!(now.contains(key), "of {release}: {key}");
        }
        let reference = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/onlyonce.toml"));
        let file = released(release, "onlyonce.toml", async || reference.expect("the reference")).await;
        if let Err(error) = onlyonce::config::parse("onlyonce.toml", &file, &|_| None) {
            panic!("of {release}: {error}");
        }
    }
}
