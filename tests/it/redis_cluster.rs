//! A Redis Cluster: a primary dies and comes back as a replica, slots move, and requests go on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::load::{self, Load, executions};
use crate::support::redis_rewriting::Rewriting;
use crate::support::redis_topologies::{Cluster, TlsFiles};
use crate::support::*;

async fn sidecar(backend: &Backend, redis: &Cluster, store: &str) -> Sidecar {
    let store = format!("url = \"{}\"\ntimeout = \"1s\"\n{store}", redis.url());
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    sidecar
}

async fn is_ready(sidecar: &Sidecar) -> bool {
    sidecar.admin("/readyz?store=1").await.status == 200
}

async fn sidecars(backend: &Backend, redis: &Cluster, store: &str) -> Vec<Sidecar> {
    let mut sidecars = Vec::new();
    for _ in 0..4 {
        sidecars.push(sidecar(backend, redis, store).await);
    }
    sidecars
}

/// The primary of a third of the slots, and its replica.
fn pair(redis: &Cluster, slot: u16) -> (usize, usize) {
    let primary = redis.owner(slot);
    (primary, (primary + 3) % 6)
}

/// Kills the primary of a slot, waits for another, and has it come back as a replica.
async fn fail_over(redis: &mut Cluster, slot: u16) -> Duration {
    let (primary, replica) = pair(redis, slot);
    let begun = Instant::now();
    redis.nodes[primary].kill();
    until("the replica has the slots", async || redis.owner_of(replica, slot) == Some(replica)).await;
    redis.wait_until_ok();
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.nodes[primary].restart();
    redis.wait_until_followed(replica);
    took
}

/// Moves some slots from one node to another, keys and all, as `redis-cli --cluster reshard` does.
async fn reshard(redis: &Cluster, slots: impl Iterator<Item = u16>, to: usize) {
    for slot in slots {
        let from = redis.owner(slot);
        if from == to {
            continue;
        }
        redis.begin_to_move(slot, from, to);
        tokio::time::sleep(Duration::from_millis(20)).await;
        redis.move_keys(slot, from, to);
        redis.end_to_move(slot, to);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_records_are_found_at_the_replica_that_took_over() {
    let mut redis = Cluster::start_with(3, true, &["--maxmemory", "512mb"]);
    let backend = Backend::start().await;
    let sidecar = sidecar(&backend, &redis, "replica_acks = 1").await;
    // So many that each node has some.
    let keys: Vec<String> = (0..24).map(|number| format!("before-{number}")).collect();
    let mut first = Vec::new();
    for key in &keys {
        let answer = sidecar.ask(&order(key)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        first.push(answer.body);
    }
    let took = fail_over(&mut redis, 5).await;
    println!("the replica had taken over after {took:?}");
    until("the store is there again", async || is_ready(&sidecar).await).await;
    for (key, first) in keys.iter().zip(&first) {
        let again = sidecar.ask(&order(key)).await;
        assert!(again.is_replay() && again.body == *first, "{key}: {}", again.text());
    }
    reshard(&redis, 0..20, 2).await;
    for key in &keys {
        assert!(sidecar.ask(&order(key)).await.is_replay(), "{key}");
    }
    until("new keys are claimed", async || sidecar.ask(&order("after")).await.status == 201).await;
    assert_eq!(executions(&backend).values().max(), Some(&1));
    // Each primary has memory of its own.
    for slot in [0, 6000, 16383] {
        let node = redis.nodes[redis.owner(slot)].port();
        let used = sidecar.metric(&format!("onlyonce_store_used_ratio{{node=\"127.0.0.1:{node}\"}}")).await;
        assert!(used > 0.0 && used < 0.8, "{node}: {used}");
    }
}

/// A node that says so has executed nothing, but it is not out of reach: whatever `on_error` says, nothing is forwarded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_node_says_tryagain_or_clusterdown_is_refused_and_not_sent() {
    let redis = Cluster::start(2, false);
    let backend = Backend::start().await;
    let says = Arc::<Mutex<Option<&'static str>>>::default();
    let told = says.clone();
    let proxy = Rewriting::before(redis.nodes[0].port(), move |words: &[Vec<u8>]| {
        let is_of_record = |word: &Vec<u8>| word.starts_with(b"onlyonce:orders:");
        let code = told.lock().expect("no panic").filter(|_| words.iter().any(is_of_record))?;
        Some(format!("EVAL|return redis.error_reply('{code} as it was told')|0"))
    })
    .await;
    let port = proxy.port.to_string();
    let () = redis.nodes[0].ask(&["CONFIG", "SET", "cluster-announce-port", &port]).expect("an answer");
    until("the other node names the proxy", async || {
        redis.nodes[1].ask::<String>(&["CLUSTER", "NODES"]).is_some_and(|told| told.contains(&port))
    })
    .await;
    let store = format!(
        "url = \"redis+cluster://127.0.0.1:{}\"\ntimeout = \"1s\"\non_error = \"forward\"",
        redis.nodes[1].port()
    );
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    for code in ["TRYAGAIN", "CLUSTERDOWN"] {
        let keys: Vec<String> = (0..24).map(|number| format!("{code}-{number}")).collect();
        assert_eq!(sidecar.ask(&order(&format!("{code}-done"))).await.status, 201);
        let before = backend.count();
        *says.lock().expect("no panic") = Some(code);
        let (mut refused, mut answered) = (Vec::new(), 0);
        for key in &keys {
            let answer = sidecar.ask(&order(key)).await;
            match answer.status {
                201 => answered += 1,
                _ => {
                    answer.refuses(503, "store-unavailable");
                    refused.push(key);
                }
            }
        }
        // Each node has some of them.
        assert!(!refused.is_empty() && answered > 0, "{refused:?}");
        assert_eq!(backend.count(), before + answered);
        *says.lock().expect("no panic") = None;
        for key in refused {
            assert_eq!(sidecar.ask(&order(key)).await.status, 201, "{key}");
        }
        assert!(sidecar.ask(&order(&format!("{code}-done"))).await.is_replay());
    }
    assert_eq!(executions(&backend).values().max(), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_spoken_to_in_tls() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1");
    let files = TlsFiles {
        certificate: authority.write("server.pem", &issued.certificate),
        key: authority.write("server-key.pem", &issued.key),
        authority: authority.file(),
    };
    let redis = Cluster::start_over(3, false, &[], Some(&files));
    let backend = Backend::start().await;
    let store = format!(
        "url = \"valkeys+cluster://{}\"\nca = \"{}\"\ntimeout = \"2s\"",
        redis.hosts(),
        files.authority.display()
    );
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    for number in 0..12 {
        let key = format!("key-{number}");
        assert_eq!(sidecar.ask(&order(&key)).await.status, 201);
        assert!(sidecar.ask(&order(&key)).await.is_replay());
    }
    for node in &redis.nodes {
        assert!(node.ask::<i64>(&["DBSIZE"]).expect("an answer") > 0, "each has some");
    }
}

/// What `check --connect` prints of a store: as text, or as JSON.
fn check(store: &str, format: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("onlyonce.toml");
    let route = "[[route]]\nname = \"a\"\npath = \"/\"\nscope = []\n";
    let text = format!("[upstream]\nurl = \"http://127.0.0.1:1\"\n[store]\n{store}\n{route}");
    std::fs::write(&file, text).expect("a writable folder");
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_onlyonce"))
        .args(["check", "--connect", "--format", format])
        .arg(&file)
        .output();
    String::from_utf8(program.expect("the program").stdout).expect("text")
}

#[test]
fn what_was_found_of_each_node_is_told_also_beside_one_that_cannot_be_used() {
    let redis = Cluster::start_with(3, false, &["--maxmemory", "512mb"]);
    let store = format!("url = \"{}\"\nreplica_acks = 1", redis.url());
    // Of each its own values.
    let () = redis.nodes[1].ask(&["CONFIG", "SET", "maxmemory", "0"]).expect("set");
    let told = check(&store, "text");
    assert!(told.contains("  cluster     3 primaries serve all slots\n"), "{told}");
    let nodes: Vec<&str> = told.split("\n  node ").skip(1).collect();
    assert_eq!(nodes.len(), 3, "{told}");
    for (index, node) in redis.nodes.iter().enumerate() {
        let address = format!("127.0.0.1:{}", node.port());
        let own = nodes.iter().find(|own| own.trim_start().starts_with(&address)).expect("its part");
        assert!(own.lines().next().expect("a line").ends_with(": can be used"), "{own}");
        let memory = if index == 1 { "without a limit" } else { "of maxmemory used, noeviction" };
        for (what, found) in [
            ("server", address.as_str()),
            ("claims", "SET NX GET"),
            ("memory", memory),
            ("on disk", "Set appendonly to yes"),
            ("replicas", "too few"),
        ] {
            let own = own.split_whitespace().collect::<Vec<_>>().join(" ");
            let (_, rest) = own.split_once(&format!(" {what} ")).expect(what);
            assert!(rest.contains(found), "{what}: {own}");
        }
    }
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");

    let () = redis.nodes[2].ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).expect("set");
    let told: serde_json::Value = serde_json::from_str(&check(&store, "json")).expect("JSON");
    let nodes = told["connection"]["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3, "{told}");
    for node in nodes {
        let is_evicting = node["node"] == format!("127.0.0.1:{}", redis.nodes[2].port());
        assert_eq!(node["error"].is_string(), is_evicting, "{node}");
        assert_eq!(node["findings"].as_array().expect("findings").is_empty(), is_evicting, "{node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_minute_of_load_with_killed_primaries_runs_each_key_once() {
    let mut redis = Cluster::start(3, true);
    let backend = Backend::start().await;
    let sidecars = sidecars(&backend, &redis, "replica_acks = 1").await;
    // Each time another third of the slots.
    let fail_over = async |round| fail_over(&mut redis, round * 5461 + 5).await;
    load::a_minute_with_killed_primaries(&backend, &sidecars, fail_over).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn what_a_failover_loses_without_acks_is_counted_and_is_what_the_ledger_shows() {
    let mut redis = Cluster::start(3, true);
    let backend = Backend::start().await;
    let sidecars = sidecars(&backend, &redis, "").await;
    let lose = async || {
        let (primary, replica) = pair(&redis, 5);
        // The replica hears nothing more, so that the last writes are on the primary alone. Not for so long that the
        // others hold its data for too old.
        redis.nodes[replica].freeze();
        let cut_off = || redis.nodes[primary].ask::<i64>(&["CLIENT", "KILL", "TYPE", "replica"]);
        until("the replica is cut off", async || cut_off().is_some()).await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        redis.nodes[primary].kill();
        redis.nodes[replica].thaw();
        until("the replica has the slots", async || redis.owner_of(replica, 5) == Some(replica)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        redis.nodes[primary].restart();
        redis.wait_until_followed(replica);
    };
    load::a_minute_with_lost_writes(&backend, &sidecars, lose).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_resharding_under_load_runs_each_key_once_and_refuses_nobody_for_long() {
    let redis = Cluster::start(3, false);
    let backend = Backend::start().await;
    let sidecars = sidecars(&backend, &redis, "").await;
    let load = Load::start(&sidecars, 8);
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < Duration::from_secs(60) {
        reshard(&redis, (0..16384).step_by(41), round % 3).await;
        round += 1;
    }
    let told = load.stop().await;
    let counts = executions(&backend);
    println!(
        "{round} rounds of 400 slots, {} keys; without any answer for {:?}; others {:?}",
        counts.len(),
        told.longest_silence,
        told.others
    );
    load::runs_each_once(&counts, &told);
    for sidecar in &sidecars {
        assert_eq!(sidecar.metric("onlyonce_store_losses_total").await, 0.0);
    }
}
