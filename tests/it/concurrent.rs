//! Many requests with one key at once: one effect.

use tokio::task::JoinHandle;

use crate::support::*;

async fn all(answers: Vec<JoinHandle<Response>>) -> Vec<Response> {
    let mut all = Vec::new();
    for answer in answers {
        all.push(answer.await.expect("an answer"));
    }
    all
}

/// The backend answers its one request when the others have been refused.
async fn a_hundred_duplicates(backend: &Backend, gate: &Gate, sidecars: &[&Sidecar]) {
    let mut asking: Vec<_> = (0..100).map(|n| sidecars[n % sidecars.len()].asking(&order("k"))).collect();
    until("all but one are answered", async || asking.iter().filter(|asking| asking.is_finished()).count() == 99).await;
    let (early, first): (Vec<_>, Vec<_>) = asking.drain(..).partition(JoinHandle::is_finished);
    gate.open();
    for answer in all(early).await {
        answer.refuses(409, "in-flight");
        assert!(answer.retry_after().is_some_and(|seconds| seconds >= 1));
    }
    let first = all(first).await.remove(0);
    assert_eq!((first.status, first.text(), first.is_replay()), (201, r#"{"order":1}"#, false));
    for sidecar in sidecars {
        let retry = sidecar.ask(&order("k")).await;
        assert_eq!((retry.status, retry.text(), retry.is_replay()), (201, r#"{"order":1}"#, true));
    }
    assert_eq!(backend.count(), 1);
}

on_every_store! {
    async fn of_a_hundred_duplicates_one_runs(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let sidecar = Setup::new(&backend.url()).store(store).start().await;
        a_hundred_duplicates(&backend, &gate, &[&sidecar]).await;
    }

    async fn a_hundred_duplicates_that_wait_all_get_the_one_result(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store);
        let sidecar = setup.route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"").start().await;
        let asking = (0..100).map(|_| sidecar.asking(&order("k"))).collect();
        until("all but one wait", async || sidecar.metric(WAITING).await == 99.0).await;
        gate.open();
        let answers = all(asking).await;
        assert!(answers.iter().all(|answer| (answer.status, answer.text()) == (201, r#"{"order":1}"#)));
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
        assert_eq!(backend.count(), 1);
        assert_eq!(sidecar.metric(WAITING).await, 0.0);
    }

    async fn different_keys_do_not_wait_for_one_another(store: &Store) {
        let (backend, gate) = Backend::gated().await;
        let setup = Setup::new(&backend.url()).store(store).route("on_concurrent = \"wait\"");
        let sidecar = setup.start().await;
        let first = sidecar.asking(&order("one"));
        backend.has_seen(1).await;
        assert_eq!(sidecar.ask(&order("two")).await.text(), r#"{"order":2}"#);
        gate.open();
        assert_eq!(first.await.expect("an answer").text(), r#"{"order":1}"#);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_duplicates_at_two_sidecars_one_runs() {
    let redis = Store::redis();
    let (backend, gate) = Backend::gated().await;
    let one = Setup::new(&backend.url()).store(&redis).start().await;
    let other = Setup::new(&backend.url()).store(&redis).start().await;
    a_hundred_duplicates(&backend, &gate, &[&one, &other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_that_wait_at_another_sidecar_get_the_one_result() {
    let redis = Store::redis();
    let (backend, gate) = Backend::gated().await;
    let setup = Setup::new(&backend.url()).store(&redis).route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"");
    let (one, other) = (setup.clone().start().await, setup.start().await);
    let asking = (0..100).map(|n| [&one, &other][n % 2].asking(&order("k"))).collect();
    until("all but one wait", async || one.metric(WAITING).await + other.metric(WAITING).await == 99.0).await;
    gate.open();
    let answers = all(asking).await;
    assert!(answers.iter().all(|answer| (answer.status, answer.text()) == (201, r#"{"order":1}"#)));
    assert_eq!(backend.count(), 1);
}

const WAITING: &str = "onlyonce_waiting{route=\"orders\"}";

#[tokio::test]
async fn a_hundred_rounds_of_ten_at_once_make_a_hundred_orders() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"").start().await;
    for round in 1..=100 {
        let asking = (0..10).map(|_| sidecar.asking(&order(&format!("round-{round}")))).collect();
        let expected = format!("{{\"order\":{round}}}");
        assert!(all(asking).await.iter().all(|answer| answer.status == 201 && answer.text() == expected));
    }
    assert_eq!(backend.count(), 100);
}

#[tokio::test]
async fn a_repeat_that_comes_too_early_is_told_when_to_come_back() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let early = sidecar.ask(&order("k")).await;
    early.refuses(409, "in-flight");
    assert!(early.retry_after().is_some_and(|seconds| seconds >= 1));
    gate.open();
    first.await.expect("an answer");
    assert!(sidecar.ask(&order("k")).await.is_replay());
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let (backend, gate) = Backend::gated().await;
    let route = "on_concurrent = \"wait\"\nmax_waiters = 2\nwait_timeout = \"60s\"";
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let waiting = vec![sidecar.asking(&order("k")), sidecar.asking(&order("k"))];
    until("two wait", async || sidecar.metric(WAITING).await == 2.0).await;
    sidecar.ask(&order("k")).await.refuses(409, "in-flight");
    gate.open();
    first.await.expect("an answer");
    assert!(all(waiting).await.iter().all(Response::is_replay));
}

#[tokio::test]
async fn whoever_leaves_gives_up_its_place() {
    let (backend, gate) = Backend::gated().await;
    let route = "on_concurrent = \"wait\"\nmax_waiters = 1\nwait_timeout = \"60s\"";
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let client = sidecar.begin(&order("k")).await;
    until("it waits", async || sidecar.metric(WAITING).await == 1.0).await;
    client.reset();
    until("nobody waits", async || sidecar.metric(WAITING).await == 0.0).await;
    let waiting = sidecar.asking(&order("k"));
    until("the next one waits", async || sidecar.metric(WAITING).await == 1.0).await;
    gate.open();
    first.await.expect("an answer");
    assert!(waiting.await.expect("an answer").is_replay());
}

#[tokio::test]
async fn a_place_that_may_have_been_left_is_kept_for_no_longer_than_the_route_lets_it() {
    let (backend, gate) = Backend::gated().await;
    let route = "on_concurrent = \"wait\"\nmax_waiters = 1\nwait_timeout = \"2s\"";
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    // A client that has left looks like one that has only closed its sending side.
    let client = sidecar.begin(&order("k")).await;
    until("it waits", async || sidecar.metric(WAITING).await == 1.0).await;
    drop(client);
    until("nobody waits", async || sidecar.metric(WAITING).await == 0.0).await;
    let waiting = sidecar.asking(&order("k"));
    until("the next one waits", async || sidecar.metric(WAITING).await == 1.0).await;
    gate.open();
    first.await.expect("an answer");
    assert!(waiting.await.expect("an answer").is_replay());
}

#[tokio::test]
async fn nobody_waits_for_longer_than_the_route_lets_them() {
    let (backend, gate) = Backend::gated().await;
    let route = "on_concurrent = \"wait\"\nwait_timeout = \"50ms\"";
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    for request in [order("k"), order("k").line("Prefer: wait=3600")] {
        sidecar.ask(&request).await.refuses(409, "in-flight");
    }
    gate.open();
    first.await.expect("an answer");
}

#[tokio::test]
async fn a_client_may_ask_to_wait() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).route("wait_timeout = \"60s\"").start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let waiting = sidecar.asking(&order("k").line("Prefer: respond-async, wait=60"));
    until("it waits", async || sidecar.metric(WAITING).await == 1.0).await;
    sidecar.ask(&order("k")).await.refuses(409, "in-flight");
    gate.open();
    first.await.expect("an answer");
    let waited = waiting.await.expect("an answer");
    assert_eq!((waited.is_replay(), waited.value("preference-applied")), (true, Some("wait")));
}

/// `Preference-Applied` (RFC 7240, 3).
#[tokio::test]
async fn that_a_client_was_made_to_wait_as_it_asked_is_told() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).route("wait_timeout = \"50ms\"\nmax_waiters = 1").start().await;
    let first = sidecar.asking(&order("k").line("Prefer: wait=1"));
    backend.has_seen(1).await;
    let applied = async |request: Request| {
        let refused = sidecar.ask(&request).await;
        refused.refuses(409, "in-flight");
        refused.value("preference-applied").map(ToOwned::to_owned)
    };
    for prefer in ["Prefer: wait=1", "Prefer: return=minimal, WAIT=\"5\"; x=1", "Prefer: wait=0"] {
        assert_eq!(applied(order("k").line(prefer)).await.as_deref(), Some("wait"), "{prefer}");
    }
    for other in [order("k"), order("k").line("Prefer: respond-async"), order("k").line("Prefer: wait=soon")] {
        assert_eq!(applied(other).await, None);
    }
    gate.open();
    assert!(!first.await.expect("an answer").has("preference-applied"), "it did not wait for another");
    let replay = sidecar.ask(&order("k").line("Prefer: wait=1")).await;
    assert!(replay.is_replay() && !replay.has("preference-applied"));
}

#[tokio::test]
async fn a_preference_to_wait_for_which_there_is_no_room_is_not_said_to_be_met() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).route("wait_timeout = \"60s\"\nmax_waiters = 1").start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let waiting = sidecar.asking(&order("k").line("Prefer: wait=60"));
    until("it waits", async || sidecar.metric(WAITING).await == 1.0).await;
    let refused = sidecar.ask(&order("k").line("Prefer: wait=60")).await;
    refused.refuses(409, "in-flight");
    assert!(!refused.has("preference-applied"));
    gate.open();
    first.await.expect("an answer");
    assert_eq!(waiting.await.expect("an answer").value("preference-applied"), Some("wait"));
}

#[tokio::test]
async fn who_waits_for_a_failure_gets_that_failure_and_the_next_request_runs() {
    let gate = Gate::new();
    let failure = answer("500 Internal Server Error", "out of paper");
    let backend = Backend::scripted([vec![Step::Wait(gate.clone()), failure]]).await;
    let sidecar = Setup::new(&backend.url()).route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"").start().await;
    let asking = (0..5).map(|_| sidecar.asking(&order("k"))).collect();
    until("all but one wait", async || sidecar.metric(WAITING).await == 4.0).await;
    gate.open();
    assert!(all(asking).await.iter().all(|answer| (answer.status, answer.text()) == (500, "out of paper")));
    assert_eq!(backend.count(), 1, "a waiter never becomes an owner");
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
}

#[tokio::test]
async fn who_waits_for_an_attempt_that_breaks_is_told_that_nobody_knows() {
    let gate = Gate::new();
    let backend = Backend::scripted([vec![Step::Wait(gate.clone()), Step::Reset]]).await;
    let sidecar = Setup::new(&backend.url()).route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"").start().await;
    let first = sidecar.asking(&order("k"));
    backend.has_seen(1).await;
    let waiting = sidecar.asking(&order("k"));
    until("it waits", async || sidecar.metric(WAITING).await == 1.0).await;
    gate.open();
    first.await.expect("an answer").refuses(502, "upstream-failed");
    waiting.await.expect("an answer").refuses(409, "outcome-unknown");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn who_waits_keeps_no_body_meanwhile() {
    let (backend, gate) = Backend::gated().await;
    let sidecar = Setup::new(&backend.url()).route("on_concurrent = \"wait\"\nwait_timeout = \"60s\"").start().await;
    let request = order("k").body("x".repeat(10_000));
    let first = sidecar.asking(&request);
    backend.has_seen(1).await;
    let waiting = sidecar.asking(&request);
    until("it waits", async || sidecar.metric(WAITING).await == 1.0).await;
    until("nothing is held", async || sidecar.metric("onlyonce_buffered_bytes").await == 0.0).await;
    gate.open();
    first.await.expect("an answer");
    assert!(waiting.await.expect("an answer").is_replay());
}

const PARTS: &str = "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--x--\r\n";

/// The browser shows the response to the second click, which must be that of the first.
#[tokio::test]
async fn a_second_click_on_a_form_waits_for_the_first() {
    let urlencoded = post("/in").by("alice").form("key=k&item=book");
    let parts = post("/in").by("alice").line("Content-Type: multipart/form-data; boundary=x").body(PARTS);
    for (key, click) in [
        ("key = \"form:key\"", urlencoded.clone()),
        ("key = \"form:key\"", parts),
        ("key = [\"host\", \"form:key\"]", urlencoded),
    ] {
        let (backend, gate) = Backend::gated().await;
        let route = format!("name = \"in\"\npath = \"/in\"\nscope = [\"header:Authorization\"]\n{key}");
        let sidecar = Setup::new(&backend.url()).another_route(&route).start().await;
        let first = sidecar.asking(&click);
        backend.has_seen(1).await;
        let second = sidecar.asking(&click);
        let waiting = "onlyonce_waiting{route=\"in\"}";
        until("the second click waits", async || sidecar.metric(waiting).await == 1.0).await;
        gate.open();
        assert_eq!(first.await.expect("an answer").status, 201, "{key}");
        let second = second.await.expect("an answer");
        assert_eq!((second.status, second.is_replay()), (201, true), "{key}");
        assert_eq!(backend.count(), 1);
    }
}

#[tokio::test]
async fn a_form_waits_only_where_its_key_is_in_it_and_the_route_lets_it() {
    for route in [
        "key = \"form:key\"\non_concurrent = \"reject\"",
        "key = \"form:key\"\nwait_timeout = \"0s\"",
        "key = \"form:key\"\nmax_waiters = 0",
        "key = \"query:key\"\nscope = [\"form:item\"]",
        "preset = \"square\"\nkey = \"header:Idempotency-Key\"",
    ] {
        let (backend, gate) = Backend::gated().await;
        let route = format!("name = \"in\"\npath = \"/in\"\n{route}");
        let route =
            if route.contains("scope") { route } else { format!("{route}\nscope = [\"header:Authorization\"]") };
        let sidecar = Setup::new(&backend.url()).another_route(&route).start().await;
        let click = post("/in?key=k").by("alice").line("Idempotency-Key: k").form("key=k&item=book");
        let first = sidecar.asking(&click);
        backend.has_seen(1).await;
        sidecar.ask(&click).await.refuses(409, "in-flight");
        gate.open();
        assert_eq!(first.await.expect("an answer").status, 201, "{route}");
    }
}
