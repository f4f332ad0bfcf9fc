//! A Redis that sentinels watch: the primary dies, is demoted, or hangs, and requests go on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onlyonce::store::AclRule;

use crate::support::load::{self, executions};
use crate::support::redis_topologies::{Sentinels, TlsFiles};
use crate::support::*;

async fn sidecar(backend: &Backend, redis: &Sentinels, store: &str) -> Sidecar {
    let timeout = if store.contains("timeout") { "" } else { "timeout = \"1s\"" };
    let store = format!("url = \"{}\"\n{timeout}\n{store}", redis.url());
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    sidecar
}

async fn is_ready(sidecar: &Sidecar) -> bool {
    sidecar.admin("/readyz?store=1").await.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_records_are_found_at_the_new_primary() {
    let mut redis = Sentinels::start();
    let backend = Backend::start().await;
    let sidecar = sidecar(&backend, &redis, "replica_acks = 1").await;
    let first = sidecar.ask(&order("before")).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let before = redis.primary();
    redis.servers[0].kill();
    let begun = Instant::now();
    until("another primary is used", async || redis.primary() != before && is_ready(&sidecar).await).await;
    println!("without a store for {:?}", begun.elapsed());
    let again = sidecar.ask(&order("before")).await;
    assert!(again.is_replay() && again.body == first.body, "{}", again.text());

    // Without a replica, nothing new is claimed, and recorded responses are replayed.
    let refused = sidecar.ask(&order("alone")).await;
    refused.refuses(503, "store-unavailable");
    assert!(sidecar.ask(&order("before")).await.is_replay());
    redis.servers[0].restart();
    until("the former primary follows", async || sidecar.ask(&order("alone")).await.status == 201).await;
    assert_eq!(executions(&backend), HashMap::from([("before".to_owned(), 1), ("alone".to_owned(), 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_demoted_is_left_without_being_lost() {
    let redis = Sentinels::start();
    let backend = Backend::start().await;
    let sidecar = sidecar(&backend, &redis, "").await;
    let first = sidecar.ask(&order("before")).await;
    let before = redis.primary();
    let () = redis.sentinels[1].ask(&["SENTINEL", "FAILOVER", Sentinels::MASTER]).expect("an answer");
    until("the other is the primary", async || redis.primary() != before).await;
    until("new keys are claimed there", async || sidecar.ask(&order("after")).await.status == 201).await;
    assert_eq!(sidecar.ask(&order("before")).await.body, first.body);
    assert_eq!(executions(&backend).values().max(), Some(&1));
}

/// It hangs, and still holds its connections: a sidecar that waited for its answer would wait for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_is_left_as_soon_as_another_is_named() {
    let redis = Sentinels::start();
    let backend = Backend::start().await;
    // A connection may take as long as 15 seconds to show that it is dead.
    let sidecar = sidecar(&backend, &redis, "timeout = \"4s\"").await;
    let first = sidecar.ask(&order("before")).await;
    let before = redis.primary();
    let begun = Instant::now();
    redis.servers[0].freeze();
    until("the other is the primary", async || redis.primary() != before).await;
    let named = begun.elapsed();
    until("it is used", async || is_ready(&sidecar).await && sidecar.ask(&order("before")).await.is_replay()).await;
    println!("named after {named:?}, used after {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < named + Duration::from_secs(10),
        "named after {named:?}, used after {:?}",
        begun.elapsed()
    );
    assert_eq!(sidecar.ask(&order("before")).await.body, first.body);
    assert_eq!(sidecar.ask(&order("after")).await.status, 201);
    assert_eq!(executions(&backend).values().max(), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_servers_that_speak_tls_and_ask_for_a_user_are_followed() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1");
    let files = TlsFiles {
        certificate: authority.write("server.pem", &issued.certificate),
        key: authority.write("server-key.pem", &issued.key),
        authority: authority.file(),
    };
    let rule = AclRule { prefix: "onlyonce".to_owned(), behind_sentinels: true, ..AclRule::default() }.to_string();
    let user: Vec<&str> = ["--user", "app", "on", ">secret"].into_iter().chain(rule.split(' ')).collect();
    let redis = Sentinels::start_over(&user, "", Some(&files));
    let backend = Backend::start().await;
    let store = format!(
        "url = \"rediss+sentinel://app:secret@{}\"\nca = \"{}\"\ntimeout = \"2s\"",
        redis.hosts(),
        files.authority.display()
    );
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || is_ready(&sidecar).await).await;
    let first = sidecar.ask(&order("before")).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let before = redis.primary();
    let () = redis.sentinels[1].ask(&["SENTINEL", "FAILOVER", Sentinels::MASTER]).expect("an answer");
    until("the other is the primary", async || redis.primary() != before).await;
    until("new keys are claimed there", async || sidecar.ask(&order("after")).await.status == 201).await;
    assert_eq!(sidecar.ask(&order("before")).await.body, first.body);
    assert_eq!(executions(&backend).values().max(), Some(&1));
}

async fn sidecars(backend: &Backend, redis: &Sentinels, store: &str) -> Vec<Sidecar> {
    let mut sidecars = Vec::new();
    for _ in 0..4 {
        sidecars.push(sidecar(backend, redis, store).await);
    }
    sidecars
}

/// The primary, as the sentinels have it, and the replica.
fn pair(redis: &Sentinels) -> (usize, usize) {
    if redis.servers[0].port() == redis.primary() { (0, 1) } else { (1, 0) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_minute_of_load_with_a_killed_primary_runs_each_key_once() {
    let mut redis = Sentinels::start();
    let backend = Backend::start().await;
    let sidecars = sidecars(&backend, &redis, "replica_acks = 1").await;
    let fail_over = async |_| {
        let (dead, before, begun) = (pair(&redis).0, redis.primary(), Instant::now());
        redis.servers[dead].kill();
        until("there is another primary", async || redis.primary() != before).await;
        let took = begun.elapsed();
        tokio::time::sleep(Duration::from_secs(2)).await;
        redis.servers[dead].restart();
        redis.wait_until_whole();
        took
    };
    load::a_minute_with_killed_primaries(&backend, &sidecars, fail_over).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn what_a_failover_loses_without_acks_is_counted_and_is_what_the_ledger_shows() {
    let mut redis = Sentinels::start();
    let backend = Backend::start().await;
    let sidecars = sidecars(&backend, &redis, "").await;
    let lose = async || {
        let ((dead, heir), before) = (pair(&redis), redis.primary());
        // The replica hears nothing more, so that the last writes are on the primary alone.
        redis.servers[heir].freeze();
        let cut_off = || redis.servers[dead].ask::<i64>(&["CLIENT", "KILL", "TYPE", "replica"]);
        until("the replica is cut off", async || cut_off().is_some()).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        redis.servers[dead].kill();
        redis.servers[heir].thaw();
        until("there is another primary", async || redis.primary() != before).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        redis.servers[dead].restart();
        redis.wait_until_whole();
    };
    load::a_minute_with_lost_writes(&backend, &sidecars, lose).await;
}
