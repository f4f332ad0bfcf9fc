//! Whoever meets a record that another sidecar has left.

use rustix::process::Signal;

use super::*;

/// A sidecar that is killed while the backend works on an order, and the one after it.
async fn killed(setup: &Setup, backend: &Backend) -> Process {
    replaced(setup, setup, &order("k"), backend).await
}

/// The same with another configuration after it, and for this request.
async fn replaced(before: &Setup, now: &Setup, request: &Request, backend: &Backend) -> Process {
    let mut lost = Process::start(before).await;
    let _first = lost.begin(request).await;
    backend.has_seen(1).await;
    lost.kill();
    let sidecar = Process::start(now).await;
    let list = crate::support::request("GET", "/records").host("localhost").line("Onlyonce-Admin: 1");
    until("its owner counts as lost", async || {
        let listed = Wire::connect(sidecar.admin).await.ask(&list).await.json();
        listed["records"][0]["owner"] == "lost"
    })
    .await;
    sidecar
}

on_every_lasting_store! {
    /// Whoever meets the record of a lost owner asks, with the credential of the service.
    async fn a_repeat_asks_about_a_lost_owner(store: &Store) {
        let backend = Backend::scripted([vec![Step::Hang], something()]).await;
        let setup = Setup::new(&backend.url()).store(store).with("store", KEYS);
        let setup = setup.route(&format!("lease = \"1s\"\n{}", search(OWN)));
        let sidecar = killed(&setup, &backend).await;
        let elsewhere = Request::to_host("/orders", "other.test").line("Idempotency-Key: k").by("alice");
        let refused = sidecar.ask(&elsewhere.json(r#"{"item":"book"}"#)).await;
        refused.refuses(409, "already-completed");
        assert_eq!(refused.value("location"), Some("/orders/7"));
        let asked = &backend.seen()[1];
        let sent = (asked.value("authorization"), asked.value("host"));
        assert_eq!(sent, (Some("Bearer probe"), Some("api.test")), "the host of the first request");
        assert_eq!(backend.count(), 2);
    }
}

/// Its host and how long its attempt may take are not kept: nobody guesses.
#[tokio::test]
async fn without_keys_nobody_else_asks_about_a_lost_owner() {
    let (store, backend) = (Store::embedded(), Backend::scripted([vec![Step::Hang]]).await);
    let keys = format!("lease = \"1s\"\n{}", search(OWN));
    let sidecar = killed(&Setup::new(&backend.url()).store(&store).route(&keys), &backend).await;
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    sidecar.logs("the attempt of a lost owner").await;
    assert_eq!(backend.count(), 1);
}

/// A backend may go by the host, and that of a repeat is a guess.
#[tokio::test]
async fn a_repeat_does_not_ask_for_a_host_of_its_own() {
    for (host, is_asked) in [("", false), ("host = \"api.test\"", true)] {
        let (store, backend) = (Store::embedded(), losing([something()]).await);
        let setup = Setup::new(&backend.url()).store(&store);
        let sidecar = setup.clone().route(host).start().await;
        lose(&sidecar).await;
        sidecar.stop().await;
        let sidecar = Process::start(&setup.route(&format!("{host}\n{}", search(OWN)))).await;
        let refused = sidecar.ask(&order("k")).await;
        if is_asked {
            refused.refuses(409, "already-completed");
            assert_eq!(backend.seen()[1].value("host"), Some("api.test"));
        } else {
            refused.refuses(409, "outcome-unknown");
            sidecar.logs("the Host of the first request is not kept with the record").await;
        }
        assert_eq!(questions(&backend).len(), usize::from(is_asked));
    }
}

/// The configuration of now says nothing of where a request went that came before it: the host is that of the first
/// request, with its port, as it was kept with the record.
#[tokio::test]
async fn a_repeat_asks_for_the_host_of_the_first_request_though_the_route_has_another_by_now() {
    let (a, b) = ("host = \"a.test\"", "host = \"b.test\"");
    let (kept, own) = ("preserve_host = true", "preserve_host = false");
    for ((before, upstream), (now, upstream_now)) in [
        ((a, kept), (b, kept)),
        (("", kept), (b, kept)),
        ((a, kept), ("", kept)),
        ((a, kept), (b, own)),
        ((a, own), (b, kept)),
    ] {
        let (store, backend) = (Store::embedded(), Backend::scripted([vec![Step::Hang], something()]).await);
        let setup = Setup::new(&backend.url()).store(&store).with("store", KEYS);
        let setup = setup.route(&format!("lease = \"1s\"\n{}", search(OWN)));
        let at = |host: &str| Request::to_host("/orders", host).line("Idempotency-Key: k").by("alice").json("{}");
        let after = setup.clone().route(now).with("upstream", upstream_now);
        let setup = setup.route(before).with("upstream", upstream);
        let sidecar = replaced(&setup, &after, &at("A.test:8443"), &backend).await;
        sidecar.ask(&at("b.test")).await.refuses(409, "already-completed");
        let asked = &backend.seen()[1];
        let sent = if upstream == own { backend.url().replace("http://", "") } else { "A.test:8443".to_owned() };
        assert_eq!(
            (asked.value("host"), backend.count()),
            (Some(&*sent), 2),
            "{before} {now} {upstream} {upstream_now}"
        );
    }
}

/// Without a credential of its own, only the owner may ask.
#[tokio::test]
async fn a_repeat_never_asks_with_the_credentials_of_its_client() {
    let (store, backend) = (Store::embedded(), Backend::scripted([vec![Step::Hang]]).await);
    let setup = Setup::new(&backend.url()).store(&store).route(&format!("lease = \"1s\"\n{}", search("")));
    let sidecar = killed(&setup, &backend).await;
    sidecar.ask(&order("k")).await.refuses(409, "outcome-unknown");
    assert_eq!(backend.count(), 1);
}

/// Values that a repeat may have otherwise are those of the first request: kept with the record, encrypted, or not at all.
#[tokio::test]
async fn values_of_the_first_request_are_kept_where_there_are_keys() {
    let probe =
        format!("[probe]\npath = \"/orders/{{json:/item}}?key={{key}}\"\n{FOUND}\n{ABSENT}\ntimeout = \"20s\"\n{OWN}");
    let route = format!("lease = \"1s\"\nfingerprint = \"none\"\n{probe}");
    for keys in [None, Some(KEYS)] {
        let (store, backend) = (Store::embedded(), Backend::scripted([vec![Step::Hang], something()]).await);
        let setup = Setup::new(&backend.url()).store(&store).route(&route).with("store", keys.unwrap_or_default());
        let sidecar = killed(&setup, &backend).await;
        let other = post("/orders").line("Idempotency-Key: k").by("alice").json(r#"{"item":"other"}"#);
        let refused = sidecar.ask(&other).await;
        match keys {
            None => {
                refused.refuses(409, "outcome-unknown");
                assert!(questions(&backend).is_empty());
                sidecar.logs("not kept with the record").await;
            }
            Some(_) => {
                refused.refuses(409, "already-completed");
                assert_eq!(questions(&backend), ["GET /orders/book?key=k HTTP/1.1"]);
            }
        }
        assert_eq!(orders(&backend), 1);
    }
}

/// An owner is frozen for longer than its lease, and comes back with its answers, of every kind. What was found meanwhile is
/// final: the clients of the attempts get it, as everybody does.
#[tokio::test]
async fn a_late_answer_of_the_attempt_meets_what_was_found() {
    for (answer_by, may_see) in [("answer = \"probe\"", true), ("", true), ("", false)] {
        let (store, gate) = (Store::redis(), Gate::new());
        let authorization = if may_see { vec![] } else { vec![vec![answer("403 Forbidden", "closed")]; 99] };
        let authorization = Backend::scripted(authorization).await;
        let lates = [
            vec![Step::Answer],
            vec![answer("422 Unprocessable Content", "{}")],
            vec![answer("500 Internal Server Error", "{}")],
            vec![answer("201 Created", "x".repeat(2000))],
            vec![say("HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{}"), Step::Close],
            vec![Step::Reset],
        ];
        let count = lates.len();
        let scripts = lates.into_iter().map(|late| [vec![Step::Wait(gate.clone())], late].concat());
        let backend = Backend::scripted(scripts.chain(vec![something(); 99])).await;
        let keys = format!("lease = \"1s\"\nmax_response_body = \"1KiB\"\nreplay_auth = \"{}\"", authorization.url());
        let keys = format!("{keys}\n{}", search(&format!("{answer_by}\n{OWN}")));
        let setup = Setup::new(&backend.url()).store(&store).with("store", KEYS).route(&keys);
        let (owner, other) = (Process::start(&setup).await, Process::start(&setup).await);
        let mut firsts = Vec::new();
        for key in 0..count {
            firsts.push(owner.begin(&order(&format!("k{key}"))).await);
            backend.has_seen(key + 1).await;
        }
        owner.signal(Signal::STOP);
        let is_final = |told: &Response| told.is_replay() || told.problem().1 == "already-completed";
        for key in 0..count {
            until("it is found", async || is_final(&other.ask(&order(&format!("k{key}"))).await)).await;
        }
        owner.signal(Signal::CONT);
        // A call that was on its way when it was stopped may have cost it the connection.
        until("it has its store again", async || owner.metric("onlyonce_store_up").await > 0.0).await;
        gate.open();
        for (key, mut first) in firsts.into_iter().enumerate() {
            let late = first.response().await;
            if answer_by.is_empty() {
                late.refuses(409, "already-completed");
                assert_eq!(late.value("location"), may_see.then_some("/orders/7"), "{key}: {late:?}");
            } else {
                assert!(late.is_replay(), "{key}: {late:?}");
                assert_eq!((late.status, late.text()), (200, r#"{"data":[{"id":7}]}"#), "{key}");
            }
            // The owner was away for long, and may have to connect to its store again.
            let repeat = order(&format!("k{key}"));
            until("the owner tells what is recorded", async || is_final(&owner.ask(&repeat).await)).await;
        }
        assert_eq!(orders(&backend), count);
    }
}
