//! Limits for one client, and their effect on others.

use std::process::Stdio;

use crate::support::*;

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let fields =
        |count| (0..count).fold(request("GET", "/"), |request, number| request.line(&format!("X-{number}: 1")));
    assert_eq!(sidecar.ask(&fields(90)).await.status, 201);
    assert_eq!(sidecar.ask(&fields(100)).await.status, 431);
    let long = |length| request("GET", "/").line(&format!("X-Long: {}", "x".repeat(length)));
    assert_eq!(sidecar.ask(&long(60 << 10)).await.status, 201);
    assert_eq!(sidecar.ask(&long(70 << 10)).await.status, 431);
    let far = |length| request("GET", &format!("/{}", "x".repeat(length)));
    assert_eq!(sidecar.ask(&far(16_000)).await.status, 201);
    sidecar.ask(&far(17_000)).await.refuses(414, "target-too-long");
    // A head that is too large is not read to its end.
    assert_eq!(sidecar.ask(&far(66 << 10)).await.status, 431);
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn a_half_sent_request_holds_no_key() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let whole = order("k").bytes();
    let mut slow = sidecar.connect().await;
    slow.send(&whole[..whole.len() - 1]).await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    slow.send(&whole[whole.len() - 1..]).await;
    assert!(slow.response().await.is_replay());
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn a_slow_body_is_refused_in_time() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("server", "body_timeout = \"200ms\"").start().await;
    let whole = order("k").bytes();
    let mut client = sidecar.connect().await;
    client.send(&whole[..whole.len() - 1]).await;
    let answer = client.response().await;
    answer.refuses(408, "request-timeout");
    client.ends().await;
    assert_eq!(backend.count(), 0);
}

/// With a fixed size, so that it can be repeated; the README has the memory figures.
#[tokio::test]
async fn idle_and_slow_clients_do_not_keep_others_from_being_served() {
    onlyonce::run::allow_open_files();
    let endless = || vec![answer("200 OK", "x".repeat(1 << 20))];
    let backend = Backend::scripted((0..100).map(|_| endless())).await;
    let times = "header_timeout = \"60s\"\nbody_timeout = \"60s\"\nidle_timeout = \"60s\"";
    let process = Process::start(&Setup::new(&backend.url()).with("server", times)).await;
    let mut held = Vec::new();
    for number in 0..100 {
        // Reads nothing of a large response.
        held.push(process.begin(&request("GET", &format!("/{number}"))).await);
    }
    backend.has_seen(100).await;
    let half = order("slow").bytes();
    for number in 0..200 {
        // Half of a head, and half of a body with a key that others use.
        let until = if number % 2 == 0 { 20 } else { half.len() - 1 };
        let mut client = process.connect().await;
        client.send(&half[..until]).await;
        held.push(client);
    }
    for _ in 0..500 {
        held.push(process.connect().await);
    }
    let connected = async || process.metric("onlyonce_connections").await;
    until("all are accepted", async || connected().await >= 800.0).await;
    for key in 0..50 {
        assert_eq!(process.ask(&order(&key.to_string())).await.status, 201);
    }
    assert_eq!(process.ask(&order("slow")).await.status, 201);
    assert!(process.peak_memory() < 256 << 20, "{} bytes", process.peak_memory());
    assert!(connected().await >= 800.0, "nobody was cut off");
    drop(held);
    until("all are gone", async || connected().await == 0.0).await;
}

#[tokio::test]
async fn clients_leave_files_for_everybody_else() {
    let gate = Gate::new();
    let waiting = || vec![Step::Wait(gate.clone()), Step::Answer];
    let backend = Backend::scripted((0..28).map(|_| waiting())).await;
    let store = Store::embedded();
    let setup = Setup::new(&backend.url()).store(&store).with("server", "header_timeout = \"60s\"");
    // Half of them are reserved, and half of the rest is for connections to the backend and a few idle ones.
    let process = Process::after(&setup, "ulimit -n 128;", Stdio::null(), Stdio::null()).await;
    process.logs("fewer clients than max_connections").await;
    let mut held = Vec::new();
    for _ in 0..28 {
        held.push(process.connect().await);
    }
    until("they have all places", async || process.metric("onlyonce_connections").await == 28.0).await;
    // More connections than file descriptors: they wait in the kernel.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(process.connect().await);
    }
    for (key, client) in held.iter_mut().enumerate() {
        client.send(order(&key.to_string()).bytes()).await;
    }
    // All of them are at the backend, each with its own connection.
    backend.has_seen(28).await;
    assert_eq!(process.admin("/healthz").await.status, 200);
    process.rewrite(&setup.clone().route("wait_timeout = \"9s\""));
    process.signal(rustix::process::Signal::HUP);
    until("a reload", async || process.metric("onlyonce_config_reloads_total{result=\"ok\"}").await == 1.0).await;
    gate.open();
    for client in &mut held {
        assert_eq!(client.response().await.status, 201);
    }
    drop(held);
    let mut next = waiting.swap_remove(0);
    assert_eq!(next.ask(&order("0")).await.status, 201);
    assert!(!process.log().contains("could not be accepted"), "{}", process.log());
    assert_eq!(process.metric("onlyonce_requests_total{route=\"orders\",outcome=\"upstream_error\"}").await, 0.0);
}

#[tokio::test]
async fn connections_to_the_backend_that_nobody_uses_leave_files_for_everybody_else() {
    let (backend, store) = (Backend::start().await, Store::embedded());
    // Each guarded request makes a connection, and none is used again.
    let never = "guarded_idle = \"0s\"\nidle_timeout = \"60s\"";
    let setup = Setup::new(&backend.url()).store(&store).with("upstream", never);
    let process = Process::after(&setup, "ulimit -n 128;", Stdio::null(), Stdio::null()).await;
    let mut clients = Vec::new();
    for _ in 0..28 {
        clients.push(process.connect().await);
    }
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(order(&format!("{round}-{number}")).bytes()).await;
        }
        for client in &mut clients {
            assert_eq!(client.response().await.status, 201, "{}", process.log());
        }
    }
    assert_eq!(backend.connections(), 5 * 28);
    assert_eq!(process.admin("/healthz").await.status, 200);
}
