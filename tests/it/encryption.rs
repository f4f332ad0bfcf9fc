//! Stored answers are encrypted: nobody who reads the store reads them, and nobody without the key gets them.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onlyonce::config;

use crate::support::*;

/// A key, by its number.
fn key(number: u8) -> String {
    STANDARD.encode([number; 32])
}

fn with_keys(setup: Setup, numbers: &[u8]) -> Setup {
    let keys: Vec<String> = numbers.iter().map(|number| format!("\"{}\"", key(*number))).collect();
    setup.with("store", &format!("encryption_keys = [{}]", keys.join(", ")))
}

async fn start(backend: &Backend, store: &Store, numbers: &[u8]) -> Sidecar {
    let sidecar = with_keys(Setup::new(&backend.url()).store(store), numbers).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    sidecar
}

/// What stands in the answers, and must stand nowhere else.
const MARKS: [&str; 3] = ["card-4242", "orders-location-7", "field-value-9"];

/// An answer whose body has this length or more.
fn marked(length: usize) -> Vec<Step> {
    let body = MARKS[0].repeat(length / MARKS[0].len() + 1);
    vec![answer(&format!("201 Created\r\nLocation: /{}\r\nX-Field: {}", MARKS[1], MARKS[2]), body.into_bytes())]
}

const SMALL: usize = 10;
const LARGE: usize = 300_000;

/// Whether any of these words stands in the store.
async fn holds(store: &Store, words: &[&str]) -> bool {
    match store {
        Store::Memory => false,
        Store::Embedded(folder) => words.iter().any(|word| is_in(folder.path(), word.as_bytes())),
        Store::Redis(server) => {
            let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            let script = format!(
                "local found = 0 for _, key in ipairs(redis.call('KEYS', '*')) do \
                 if redis.call('TYPE', key).ok == 'string' then local value = redis.call('GET', key) \
                 for _, word in ipairs({{{}}}) do if string.find(value, word, 1, true) then found = found + 1 end end end end \
                 return found",
                words.join(",")
            );
            eval(server, &script).await != ":0\r\n+OK\r\n"
        }
    }
}

fn is_in(path: &Path, word: &[u8]) -> bool {
    if path.is_dir() {
        return fs::read_dir(path).expect("a folder").any(|entry| is_in(&entry.expect("an entry").path(), word));
    }
    // The store's thread may be putting its folder in order yet.
    let bytes = fs::read(path).unwrap_or_default();
    bytes.windows(word.len()).any(|window| window == word)
}

async fn eval(redis: &RedisServer, script: &str) -> String {
    let mut wire = Wire::connect(([127, 0, 0, 1], redis.port()).into()).await;
    wire.send(format!("EVAL \"{script}\" 0\r\nQUIT\r\n")).await;
    let told = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(!told.starts_with('-'), "{told}");
    told
}

on_every_lasting_store! {
    async fn whoever_reads_the_store_reads_no_answer(store: &Store) {
        for (numbers, is_readable) in [(&[1][..], false), (&[], true)] {
            let backend = Backend::scripted([marked(SMALL), marked(LARGE)]).await;
            let sidecar = start(&backend, store, numbers).await;
            for name in ["small", "large"] {
                let order = order(&format!("{name}-{is_readable}"));
                let first = sidecar.ask(&order).await;
                assert_eq!(first.status, 201);
                let again = sidecar.ask(&order).await;
                assert!(again.is_replay() && again.body == first.body, "{name}");
                assert_eq!(again.value("location"), first.value("location"));
            }
            assert_eq!(backend.count(), 2);
            sidecar.stop().await;
            assert_eq!(holds(store, &MARKS).await, is_readable, "that it is found where it is in clear shows that it would be");
        }
    }

    async fn an_answer_given_by_hand_and_its_reason_are_encrypted_too(store: &Store) {
        let backend = Backend::scripted([vec![Step::Reset]]).await;
        let sidecar = start(&backend, store, &[1]).await;
        sidecar.ask(&order("k")).await.refuses(502, "upstream-failed");
        let refused = sidecar.ask(&order("k")).await;
        refused.refuses(409, "outcome-unknown");
        let record = refused.json()["record"].as_str().expect("its name").to_owned();
        let admin = format!("http://{}", sidecar.admin);
        let words = ["--status", "201", "-d", MARKS[0], "--reason", MARKS[1]];
        let mut command = process::onlyonce(&[&["records", "--admin", &admin, "complete", &record][..], &words].concat());
        let output = tokio::task::spawn_blocking(move || command.output().expect("the program")).await.expect("no panic");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let replayed = sidecar.ask(&order("k")).await;
        assert!(replayed.is_replay() && replayed.text() == "card-4242", "{}", replayed.text());
        let show = request("GET", &format!("/records/{record}")).host("localhost").line("Onlyonce-Admin: 1");
        let shown = Wire::connect(sidecar.admin).await.ask(&show).await;
        assert!(shown.text().contains("orders-location-7"), "{}", shown.text());
        sidecar.stop().await;
        assert!(!holds(store, &MARKS).await);
    }

    async fn keys_are_changed_while_answers_stay_and_a_record_without_its_key_is_never_run_over(store: &Store) {
        let backend = Backend::scripted([marked(SMALL), marked(LARGE), marked(SMALL)]).await;
        let sidecar = start(&backend, store, &[1]).await;
        let (small, large) = (sidecar.ask(&order("small")).await, sidecar.ask(&order("large")).await);
        assert_eq!((small.status, large.status), (201, 201));
        sidecar.stop().await;

        let sidecar = start(&backend, store, &[2, 1]).await;
        for (name, first) in [("small", &small), ("large", &large)] {
            let again = sidecar.ask(&order(name)).await;
            assert!(again.is_replay() && again.body == first.body, "{name}");
        }
        let new = sidecar.ask(&order("new")).await;
        assert_eq!(new.status, 201);
        sidecar.stop().await;

        // The old key is gone too early, then another one is there by mistake, then none.
        for numbers in [&[2][..], &[3], &[]] {
            let sidecar = start(&backend, store, numbers).await;
            for name in ["small", "large"] {
                sidecar.ask(&order(name)).await.refuses(503, "record-unreadable");
            }
            if numbers == [2] {
                assert!(sidecar.ask(&order("new")).await.is_replay());
            } else {
                sidecar.ask(&order("new")).await.refuses(503, "record-unreadable");
            }
            sidecar.stop().await;
        }

        let sidecar = start(&backend, store, &[3, 2, 1]).await;
        for (name, first) in [("small", &small), ("large", &large), ("new", &new)] {
            let again = sidecar.ask(&order(name)).await;
            assert!(again.is_replay() && again.body == first.body, "{name}");
        }
        assert_eq!(backend.count(), 3);
        sidecar.stop().await;
    }

    async fn what_was_stored_in_clear_stays_readable(store: &Store) {
        let backend = Backend::scripted([marked(SMALL), marked(LARGE)]).await;
        let sidecar = start(&backend, store, &[]).await;
        let (small, large) = (sidecar.ask(&order("small")).await, sidecar.ask(&order("large")).await);
        sidecar.stop().await;
        let sidecar = start(&backend, store, &[1]).await;
        for (name, first) in [("small", &small), ("large", &large)] {
            let again = sidecar.ask(&order(name)).await;
            assert!(again.is_replay() && again.body == first.body, "{name}");
        }
        assert_eq!(backend.count(), 2);
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_under_the_name_of_another_record_is_not_replayed() {
    for (numbers, is_replayed) in [(&[1][..], false), (&[], true)] {
        let store = Store::redis();
        let Store::Redis(redis) = &store else { panic!("a Redis") };
        let backend = Backend::scripted([marked(SMALL), marked(SMALL)]).await;
        let sidecar = start(&backend, &store, numbers).await;
        let mut names = Vec::new();
        for name in ["alice", "bob"] {
            assert_eq!(sidecar.ask(&order(name)).await.status, 201);
            let reused = sidecar.ask(&order(name).body("another")).await.json();
            names.push(format!("'onlyonce:{}'", reused["record"].as_str().expect("its record")));
        }
        let copy = format!("return redis.call('SET', {}, redis.call('GET', {}))", names[0], names[1]);
        eval(redis, &copy).await;
        let answer = sidecar.ask(&order("alice")).await;
        if is_replayed {
            assert!(answer.is_replay(), "without keys, the store is believed");
        } else {
            answer.refuses(503, "record-unreadable");
        }
        assert!(sidecar.ask(&order("bob")).await.is_replay());
        assert_eq!(backend.count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_was_changed_moved_or_cut_is_never_sent() {
    let damage = [
        ("a bit is another", "redis.call('SETBIT', own, 77, 1 - redis.call('GETBIT', own, 77))"),
        ("it is cut short", "redis.call('SET', own, redis.call('GETRANGE', own, 0, -2))"),
        ("it is the next one", "redis.call('SET', own, redis.call('GET', chunk(1, AT + 1)))"),
        ("it is another record's", "redis.call('SET', own, redis.call('GET', chunk(2, AT)))"),
    ];
    for (what, damage) in damage {
        for at in [0, 2] {
            let store = Store::redis();
            let Store::Redis(redis) = &store else { panic!("a Redis") };
            let backend = Backend::scripted([marked(LARGE), marked(LARGE)]).await;
            let sidecar = start(&backend, &store, &[1]).await;
            let mut patterns = Vec::new();
            let mut first = None;
            for name in ["one", "other"] {
                first.get_or_insert(sidecar.ask(&order(name)).await.body);
                let reused = sidecar.ask(&order(name).body("another")).await.json();
                patterns.push(format!("'{{onlyonce:{}}}:body:*:'", reused["record"].as_str().expect("its record")));
            }
            let script = format!(
                "local patterns = {{{}}} \
                 local function chunk(r, i) return redis.call('KEYS', patterns[r] .. i)[1] end \
                 local own = chunk(1, AT) {damage}",
                patterns.join(",")
            );
            eval(redis, &script.replace("AT", &at.to_string())).await;
            if at == 0 {
                sidecar.ask(&order("one")).await.refuses(503, "record-unreadable");
            } else {
                let mut wire = sidecar.begin(&order("one")).await;
                assert!(wire.head().await.expect("a head").first.contains(" 201 "));
                let (rest, first) = (wire.rest().await, first.expect("an answer"));
                assert!(rest == first[..at * 64 * 1024], "{what} at {at}: {} bytes", rest.len());
            }
            assert!(sidecar.ask(&order("other")).await.is_replay(), "{what}");
            assert_eq!(backend.count(), 2, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_made_is_taken_and_never_shown() {
    let made = || {
        let output = process::onlyonce(&["keys", "generate"]).output().expect("the program");
        assert_eq!(output.status.code(), Some(0));
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (text(output.stdout), text(output.stderr))
    };
    let ((key, hint), (other, _)) = (made(), made());
    assert_ne!(key, other);
    let key = key.strip_suffix('\n').expect("one line");
    assert!(!hint.contains(key) && hint.contains("encryption_keys = [\"env:ONLYONCE_KEY_1\"]"), "{hint}");
    assert!(hint.lines().all(|line| line.chars().count() <= 80), "{hint}");

    let setup = Setup::new("http://127.0.0.1:1").with("store", "encryption_keys = [\"env:ONLYONCE_KEY_1\"]");
    let environment = |name: &str| (name == "ONLYONCE_KEY_1").then(|| key.to_owned());
    let read = config::parse("t", &setup.toml(), &environment).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(STANDARD.encode(read.store.encryption_keys[0].expose()), key);
    assert!(!format!("{read:?}").contains(&key[..8]));
    let bytes = format!("{:?}", STANDARD.decode(key).expect("base64"));
    assert!(!format!("{read:?}").contains(bytes.trim_matches(['[', ']'])));
}
