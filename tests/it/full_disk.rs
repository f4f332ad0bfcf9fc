//! The disk of the embedded store becomes full, and has room again.

use rustix::process::Signal;

use crate::support::*;

fn disk() -> Option<SmallDisk> {
    SmallDisk::mount(4, "a full disk")
}

fn setup(disk: &SmallDisk, upstream: &str) -> Setup {
    let url = format!("url = \"embedded:{}\"", disk.path().join("records").display());
    // A drain that waits for the disk would never end.
    Setup::new(upstream).with("store", &url).with("server", "drain_timeout = \"1h\"")
}

async fn is_ready(process: &Process) -> bool {
    process.admin("/readyz?store=1").await.status == 200
}

/// Sends new keys until one is refused. Returns those that ran.
async fn until_refused(process: &Process, name: &str) -> Vec<String> {
    let mut ran = Vec::new();
    loop {
        let key = format!("{name}-{}", ran.len());
        let answer = process.ask(&order(&key)).await;
        if answer.status == 503 {
            answer.refuses(503, "store-unavailable");
            return ran;
        }
        assert_eq!(answer.status, 201);
        ran.push(key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_by_itself_and_loses_nothing() {
    let Some(disk) = disk() else { return };
    let gate = Gate::new();
    let backend = Backend::scripted((0..20).map(|_| vec![Step::Wait(gate.clone()), Step::Answer])).await;
    let mut process = Process::start(&setup(&disk, &backend.url())).await;
    // In flight when the disk fills up.
    let in_flight: Vec<String> = (0..20).map(|number| format!("in-flight-{number}")).collect();
    let mut clients = Vec::new();
    for key in &in_flight {
        clients.push(process.begin(&order(key)).await);
    }
    backend.has_seen(in_flight.len()).await;
    disk.fill();
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().await.status, 201);
    }
    let mut ran = until_refused(&process, "full").await;
    assert!(!is_ready(&process).await);
    assert_eq!(process.admin("/readyz").await.status, 200);
    assert!(process.admin("/readyz").await.text().contains("store: down"));
    assert_eq!(process.metric("onlyonce_store_up").await, 0.0);
    ran.extend(in_flight);
    // Their outcomes are written to the reserve: they are replayed while the disk is full.
    for key in &ran {
        until("its answer is replayed", async || process.ask(&order(key)).await.is_replay()).await;
    }

    for round in 0..2 {
        disk.make_room();
        until("there is room again", async || is_ready(&process).await).await;
        let key = format!("room-{round}");
        assert_eq!(process.ask(&order(&key)).await.status, 201);
        ran.push(key);
        disk.fill();
        ran.extend(until_refused(&process, &format!("again-{round}")).await);
    }
    assert_eq!(backend.count(), ran.len());
    assert_eq!(process.metric("onlyonce_store_losses_total").await, 0.0);

    // The disk is full and nothing is left to be written, so the stop does not wait.
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await, Some(0), "{}", process.log());

    // It also starts with a full disk, and replays.
    let process = Process::start(&setup(&disk, &backend.url())).await;
    for key in &ran {
        assert!(process.ask(&order(key)).await.is_replay(), "{key}");
    }
    process.ask(&order("new")).await.refuses(503, "store-unavailable");
    disk.make_room();
    until("there is room again", async || is_ready(&process).await).await;
    assert_eq!(process.ask(&order("new")).await.status, 201);
    assert_eq!(backend.count(), ran.len() + 1);
}

/// The response is larger than the reserve: the outcome waits in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_recorded_when_there_is_room_again() {
    let Some(disk) = disk() else { return };
    let gate = Gate::new();
    let large = answer("201 Created", "x".repeat(900_000));
    let backend = Backend::scripted([vec![Step::Wait(gate.clone()), large]]).await;
    let process = Process::start(&setup(&disk, &backend.url())).await;
    let mut client = process.begin(&order("large")).await;
    backend.has_seen(1).await;
    disk.fill();
    // The store knows it, and that its share of the room is large.
    let others = until_refused(&process, "full").await;
    until("no room is left", async || process.metric("onlyonce_store_used_ratio").await > 0.8).await;
    gate.open();
    assert_eq!(client.response().await.status, 201);
    // Meanwhile a repeat gets `in-flight`, from memory, or `outcome-unknown`.
    assert!(!process.ask(&order("large")).await.is_replay());
    disk.make_room();
    until("it is replayed", async || process.ask(&order("large")).await.is_replay()).await;
    assert_eq!(backend.count(), others.len() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_almost_full_disk_keeps_small_answers_and_lets_keys_be_claimed() {
    let Some(disk) = SmallDisk::mount(8, "an almost full disk") else { return };
    let large = || answer("201 Created\r\nLocation: /orders/7", vec![b'x'; 500_000]);
    let backend = Backend::scripted((0..14).map(|_| vec![large()])).await;
    let process = Process::start(&setup(&disk, &backend.url())).await;
    let mut kept = 0;
    let mut used = process.metric("onlyonce_store_used_ratio").await;
    while used <= 0.8 {
        assert_eq!(process.ask(&order(&format!("kept-{kept}"))).await.status, 201);
        kept += 1;
        assert!(kept < 14, "the disk has 8 MiB");
        // The store looks at its disk each second.
        let before = used;
        until("it has looked", async || process.metric("onlyonce_store_used_ratio").await != before).await;
        used = process.metric("onlyonce_store_used_ratio").await;
    }
    let first = process.ask(&order("large")).await;
    assert_eq!((first.status, first.body.len()), (201, 500_000));
    let repeat = process.ask(&order("large")).await;
    repeat.refuses(409, "already-completed");
    assert_eq!(repeat.value("location"), Some("/orders/7"));
    assert!(process.ask(&order("kept-0")).await.is_replay());
    let warnings = process.log().lines().filter(|line| line.contains("almost full")).count();
    assert_eq!(warnings, 1);
    assert_eq!(backend.count(), kept + 1);
}

/// To forward on a full disk would run duplicates for as long as it is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_not_out_of_reach() {
    let Some(disk) = disk() else { return };
    let backend = Backend::start().await;
    let url = format!("url = \"embedded:{}\"\non_error = \"forward\"", disk.path().join("records").display());
    let process = Process::start(&Setup::new(&backend.url()).with("store", &url)).await;
    disk.fill();
    let ran = until_refused(&process, "full").await;
    for _ in 0..2 {
        process.ask(&order("new")).await.refuses(503, "store-unavailable");
    }
    assert_eq!(backend.count(), ran.len());
}
