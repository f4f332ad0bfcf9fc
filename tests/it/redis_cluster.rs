//! A Redis Cluster: a primary dies and comes back as a replica, slots move, and requests go on.

use std::time::{Duration, Instant};

use crate::support::load::{Load, executions, losses};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_minute_of_load_with_killed_primaries_runs_each_key_once() {
    let mut redis = Cluster::start(3, true);
    let backend = Backend::start().await;
    let sidecars = sidecars(&backend, &redis, "replica_acks = 1").await;
    let load = Load::start(&sidecars, 8);
    for round in 0..3 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        let took = fail_over(&mut redis, round * 5461 + 5).await;
        println!("round {round}: all slots are served again after {took:?}");
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let told = load.stop().await;
    let counts = executions(&backend);
    println!("{} keys; without any answer for {:?}; others {:?}", counts.len(), told.longest_silence, told.others);
    let more: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(more.is_empty(), "executed more than once: {more:?}");
    assert!(told.changed.is_empty(), "two answers: {:?}", told.changed);
    assert!(told.answers.len() > 50, "{}", told.answers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn what_a_failover_loses_without_acks_is_counted_and_is_what_the_ledger_shows() {
    let mut redis = Cluster::start(3, true);
    let backend = Backend::start().await;
    let sidecars = sidecars(&backend, &redis, "").await;
    let load = Load::start(&sidecars, 8);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (primary, replica) = pair(&redis, 5);
    // The replica hears nothing more, so that the last writes are on the primary alone. Not for so long that the others hold
    // its data for too old.
    redis.nodes[replica].freeze();
    let _: i64 = redis.nodes[primary].ask(&["CLIENT", "KILL", "TYPE", "replica"]).expect("an answer");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let begun = Instant::now();
    redis.nodes[primary].kill();
    redis.nodes[replica].thaw();
    until("the replica has the slots", async || redis.owner_of(replica, 5) == Some(replica)).await;
    println!("the replica had taken over after {:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    redis.nodes[primary].restart();
    redis.wait_until_followed(replica);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut told = load.stop().await;
    let unknown = told.ask_again(&sidecars).await;
    let (twice, counted) = losses(&backend, &told, &sidecars).await;
    println!("{} keys, {twice} lost, {unknown} unknown; counted by sidecars: {counted:?}", told.answers.len());
    assert!(twice > 0, "the failover lost something");
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
    let more: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(more.is_empty(), "executed more than once: {more:?}");
    assert!(told.changed.is_empty(), "two answers: {:?}", told.changed);
    for sidecar in &sidecars {
        assert_eq!(sidecar.metric("onlyonce_store_losses_total").await, 0.0);
    }
}
