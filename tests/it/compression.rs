//! Stored bodies are compressed where that is asked for, and replays are the same bytes all the same.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::*;

/// Text in which much is said again.
fn text(length: usize) -> Vec<u8> {
    let line = |line: u32| format!("{{\"line\": {line}, \"product\": \"a thing\"}}\n").into_bytes();
    (0..).flat_map(line).take(length).collect()
}

/// What no coding makes shorter.
fn noise(length: usize) -> Vec<u8> {
    let number =
        |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (0..).flat_map(|at: u64| (number(at) ^ (number(at) >> 29)).to_le_bytes()).take(length).collect()
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("to memory");
    encoder.finish().expect("to memory")
}

const PLAIN: &str = "201 Created\r\nContent-Type: application/json";
const GZIP: &str = "201 Created\r\nContent-Encoding: gzip";

async fn start(backend: &Backend, store: &Store, keys: &str) -> Sidecar {
    let sidecar = Setup::new(&backend.url()).store(store).with("store", keys).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    sidecar
}

/// What the one record of this store takes, its body included.
async fn stored(redis: &RedisServer) -> u64 {
    let script = "local sum = 0 for _, key in ipairs(redis.call('KEYS', '*:orders:*')) do \
                  if redis.call('TYPE', key).ok == 'string' then sum = sum + redis.call('STRLEN', key) end end return sum";
    let mut wire = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
    wire.send(format!("EVAL \"{script}\" 0\r\nQUIT\r\n")).await;
    let told = String::from_utf8_lossy(&wire.rest().await).into_owned();
    let number =
        told.strip_prefix(':').and_then(|rest| rest.split("\r\n").next()).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{told}"))
}

on_every_store! {
    async fn a_replay_is_the_same_bytes_whether_they_are_compressed_or_not(store: &Store) {
        let bodies = [text(200), text(5_000), text(70_000), text(1_000_000), noise(5_000), noise(200_000)];
        let key = STANDARD.encode([1; 32]);
        for keys in ["compress_above = \"1KiB\"", &format!("compress_above = \"1KiB\"\nencryption_keys = [\"{key}\"]")] {
            let backend = Backend::scripted(bodies.iter().map(|body| vec![answer(PLAIN, body)])).await;
            let sidecar = start(&backend, store, keys).await;
            for (number, body) in bodies.iter().enumerate() {
                let order = order(&format!("{number}-{}", keys.len()));
                assert!(sidecar.ask(&order).await.body == *body, "{number}");
                for _ in 0..2 {
                    let replay = sidecar.ask(&order).await;
                    assert!(replay.is_replay() && replay.body == *body, "{number}");
                    assert_eq!(replay.value("content-length"), Some(body.len().to_string().as_str()));
                    assert_eq!(replay.value("content-encoding"), None);
                }
                sidecar.ask(&order.body("another")).await.refuses(422, "key-reused");
            }
            assert_eq!(backend.count(), bodies.len());
            sidecar.stop().await;
        }
    }
}

on_every_lasting_store! {
    async fn what_was_compressed_is_read_without_the_setting_and_what_was_not_with_it(store: &Store) {
        let bodies = [text(300_000), text(300_000)];
        let backend = Backend::scripted(bodies.iter().map(|body| vec![answer(PLAIN, body)])).await;
        let (with, without) = ("compress_above = \"1KiB\"", "");
        for (order, keys) in [(order("with"), with), (order("without"), without)] {
            let sidecar = start(&backend, store, keys).await;
            assert_eq!(sidecar.ask(&order).await.status, 201);
            sidecar.stop().await;
        }
        for (order, keys) in [(order("with"), without), (order("without"), with)] {
            let sidecar = start(&backend, store, keys).await;
            let replay = sidecar.ask(&order).await;
            assert!(replay.is_replay() && replay.body == bodies[0]);
            let name = sidecar.ask(&order.body("another")).await.json()["record"].as_str().expect("a name").to_owned();
            let show = request("GET", &format!("/records/{name}")).host("localhost").line("Onlyonce-Admin: 1");
            let shown = Wire::connect(sidecar.admin).await.ask(&show).await;
            assert_eq!(shown.json()["answer"]["body_bytes"], 300_000, "{}", &shown.text()[..200]);
            sidecar.stop().await;
        }
        assert_eq!(backend.count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_large_and_becomes_shorter_and_has_no_coding_is_compressed() {
    let zipped = gzipped(&text(2_000_000));
    assert!(zipped.len() > 20_000);
    for (what, head, body, is_shorter) in [
        ("text", PLAIN, text(1_000_000), true),
        ("text within the record", PLAIN, text(20_000), true),
        ("text below the size", PLAIN, text(10_000), false),
        ("noise", PLAIN, noise(200_000), false),
        ("a coding", GZIP, zipped, false),
        // Whatever the coding is, and what it is worth.
        ("a coding that is none", GZIP, text(100_000), false),
    ] {
        let store = Store::redis();
        let Store::Redis(redis) = &store else { panic!("a Redis") };
        let backend = Backend::scripted([vec![answer(head, &body)]]).await;
        let sidecar = start(&backend, &store, "compress_above = \"16KiB\"").await;
        let order = order("k").line("Accept-Encoding: gzip");
        assert!(sidecar.ask(&order).await.body == body, "{what}");
        let taken = stored(redis).await;
        if is_shorter {
            assert!(taken < body.len() as u64 / 3, "{what}: {taken} bytes");
        } else {
            assert!(taken > body.len() as u64, "{what}: {taken} bytes");
        }
        let replay = sidecar.ask(&order).await;
        assert!(replay.is_replay() && replay.body == body, "{what}");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_that_lost_a_part_is_never_ended() {
    let store = Store::redis();
    let Store::Redis(redis) = &store else { panic!("a Redis") };
    // Noise every now and then, so that there are several chunks of it.
    let noise = noise(400_000);
    let body: Vec<u8> = noise.chunks(10_000).flat_map(|noise| [&text(10_000), noise].concat()).collect();
    let backend = Backend::scripted([vec![answer(PLAIN, &body)]]).await;
    let sidecar = start(&backend, &store, "compress_above = \"1KiB\"").await;
    assert!(sidecar.ask(&order("k")).await.body == body);
    let mut wire = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
    let script = "local keys = redis.call('KEYS', '*:body:*:1') redis.call('DEL', keys[1]) return #keys";
    wire.send(format!("EVAL \"{script}\" 0\r\nQUIT\r\n")).await;
    assert_eq!(wire.rest().await, b":1\r\n+OK\r\n");
    let mut wire = sidecar.begin(&order("k")).await;
    let head = wire.head().await.expect("a head");
    assert_eq!(head.value("content-length"), Some(body.len().to_string().as_str()));
    let rest = wire.rest().await;
    assert!(rest.len() < body.len() && body.starts_with(&rest), "{} bytes", rest.len());
    assert_eq!(backend.count(), 1);
}
