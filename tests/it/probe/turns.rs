//! Several sidecars on one store: one at a time asks about a record.

use super::*;

/// Two sidecars on one Redis, which may both ask about what the first of them loses.
async fn two(backend: &Backend) -> (Store, [Sidecar; 2]) {
    let store = Store::redis();
    let setup = Setup::new(&backend.url()).store(&store).with("store", KEYS).route(&search(OWN));
    let sidecars = [setup.clone().start().await, setup.start().await];
    lose(&sidecars[0]).await;
    (store, sidecars)
}

/// The backend takes its time, and repeats come to both: it has one question, and the others are not kept waiting.
#[tokio::test]
async fn repeats_at_two_sidecars_are_one_question() {
    let gate = Gate::new();
    let backend = losing([[vec![Step::Wait(gate.clone())], something()].concat()]).await;
    let (_store, [one, other]) = two(&backend).await;
    backend.has_seen(2).await;
    let waiting: Vec<_> = (0..10).map(|_| one.asking(&order("k"))).collect();
    let elsewhere: Vec<_> = (0..10).map(|_| other.asking(&order("k"))).collect();
    for refused in elsewhere {
        refused.await.expect("no panic").refuses(409, "outcome-unknown");
    }
    assert_eq!(questions(&backend).len(), 1, "the other one does not ask");
    // The lock is nothing that anybody is shown, counts or changes.
    let ask = async |target: &str| {
        let call = request("GET", target).host("localhost").line("Onlyonce-Admin: 1");
        Wire::connect(other.admin).await.ask(&call).await
    };
    let listed = ask("/records").await.json();
    let [record] = &listed["records"].as_array().expect("records")[..] else { panic!("one record: {listed}") };
    let lock = record["record"].as_str().expect("a name").replace("orders:", "orders@probe:");
    ask(&format!("/records/{lock}")).await.refuses(400, "bad-request");
    assert_eq!(one.metric("onlyonce_records_unknown{route=\"orders\"}").await, 1.0);
    gate.open();
    for found in waiting {
        found.await.expect("no panic").refuses(409, "already-completed");
    }
    other.ask(&order("k")).await.refuses(409, "already-completed");
    assert_eq!((orders(&backend), questions(&backend).len()), (1, 1));
}

/// An operator is told why the backend is not asked. A sidecar that learns nothing keeps the other from nothing.
#[tokio::test]
async fn an_operator_hears_that_another_sidecar_is_asking() {
    let gate = Gate::new();
    let nothing = says("503 Service Unavailable", "{}");
    let backend = losing([[vec![Step::Wait(gate.clone())], nothing].concat(), something()]).await;
    let (_store, [one, other]) = two(&backend).await;
    backend.has_seen(2).await;
    let call = request("GET", "/records").host("localhost").line("Onlyonce-Admin: 1");
    let listed = Wire::connect(other.admin).await.ask(&call).await.json();
    let record = listed["records"][0]["record"].as_str().expect("a name").to_owned();
    let call = Request::to_host(&format!("/records/{record}/probe"), "localhost").line("Onlyonce-Admin: 1");
    let told = Wire::connect(other.admin).await.ask(&call.json("{}")).await.json();
    assert_eq!(told["probe"], "not_asked", "{told}");
    let why = "another sidecar is asking about this record";
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{told}");
    assert_eq!(other.metric(&results("not_asked")).await, 0.0);
    gate.open();
    had(&one, "inconclusive", 1.0).await;
    until("the other one has asked", async || other.ask(&order("k")).await.problem().1 == "already-completed").await;
    assert_eq!((orders(&backend), questions(&backend).len()), (1, 2));
}

/// Who asks is killed, and holds the lock: the next one asks a moment later.
#[tokio::test]
async fn who_is_killed_while_it_asks_is_not_long_in_the_way() {
    let (store, backend) = (Store::redis(), losing([vec![Step::Hang]]).await);
    let setup = Setup::new(&backend.url()).store(&store).with("store", KEYS);
    let setup = setup.route(&search(&format!("timeout = \"1s\"\n{OWN}")));
    let (mut asks, other) = (Process::start(&setup).await, setup.start().await);
    asks.ask(&order("k")).await.refuses(502, "upstream-failed");
    backend.has_seen(2).await;
    asks.kill();
    for _ in 0..40 {
        backend.then(something());
    }
    until("the other one has asked", async || other.ask(&order("k")).await.problem().1 == "already-completed").await;
    assert_eq!(orders(&backend), 1);
}
