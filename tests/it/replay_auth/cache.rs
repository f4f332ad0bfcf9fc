//! How long an answer of the authorization server holds.

use super::*;

#[tokio::test]
async fn the_answer_to_the_same_question_is_kept_for_as_long_as_the_route_says() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &auth.url()).route("replay_auth_cache = \"5m\"\nscope = [\"header:X-Tenant\"]");
    let sidecar = setup.start().await;
    let request = |line: &str| order("k").line("X-Tenant: t").line(line);
    assert_eq!(sidecar.ask(&request("X-Other: 0")).await.status, 201);
    // What means no, or nothing, is not kept.
    for (answer, status) in [("403 Forbidden", 403), ("401 Unauthorized", 401), ("500 Oops", 503)] {
        auth.then(vec![crate::support::answer(answer, "")]);
        assert_eq!(sidecar.ask(&request("X-Other: 1")).await.status, status);
    }
    assert_eq!(auth.count(), 3);
    for number in 0..4 {
        assert!(sidecar.ask(&request(&format!("X-Other: {number}"))).await.is_replay());
    }
    assert_eq!((auth.count(), results(&sidecar).await), (4, [1.0, 3.0, 2.0, 1.0]));
    // Whatever is sent is another question.
    let mut asked = 4;
    for line in ["Cookie: s=1", "Cookie: s=2", "Cookie: s=1; t=2"] {
        for _ in 0..2 {
            assert!(sidecar.ask(&request(line)).await.is_replay());
        }
        asked += 1;
        assert_eq!(auth.count(), asked, "{line}");
    }
    assert!(sidecar.ask(&request("Cookie: s=1").host("other.test")).await.is_replay());
    assert_eq!(auth.count(), asked + 1);
}

#[tokio::test]
async fn a_permission_is_forgotten_when_its_time_is_over() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &auth.url()).route("replay_auth_cache = \"1s\"").start().await;
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    assert!(sidecar.ask(&order("k")).await.is_replay());
    assert_eq!(auth.count(), 1);
    until("it is asked again", async || {
        assert!(sidecar.ask(&order("k")).await.is_replay());
        auth.count() == 2
    })
    .await;
    let denial = vec![answer("403 Forbidden", "")];
    auth.then(denial);
    until("a right that was withdrawn is gone", async || sidecar.ask(&order("k")).await.status == 403).await;
    assert_eq!(auth.count(), 3);
}

#[tokio::test]
async fn without_a_cache_every_replay_is_asked_about() {
    let (backend, auth) = (Backend::start().await, Backend::start().await);
    let sidecar = asking(&backend, &auth.url()).with("upstream", "idle_timeout = \"5m\"").start().await;
    for _ in 0..4 {
        assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    }
    assert_eq!((backend.count(), auth.count(), auth.connections()), (1, 3, 1));
}

#[tokio::test]
async fn a_reload_keeps_connections_and_forgets_permissions() {
    let (backend, auth, other) = (Backend::start().await, Backend::start().await, Backend::start().await);
    let setup = asking(&backend, &auth.url()).with("upstream", "idle_timeout = \"5m\"");
    let setup = setup.route("replay_auth_cache = \"5m\"");
    let process = Process::start(&setup).await;
    let reloaded = async |times: f64| {
        let series = "onlyonce_config_reloads_total{result=\"ok\"}";
        until("reloaded", async || process.metric(series).await >= times).await;
    };
    for _ in 0..3 {
        assert_eq!(process.ask(&order("k")).await.status, 201);
    }
    assert_eq!((auth.count(), auth.connections()), (1, 1));
    process.rewrite(&setup.clone().route("retention = \"9d\""));
    reloaded(1.0).await;
    assert!(process.ask(&order("k")).await.is_replay());
    assert_eq!((auth.count(), auth.connections()), (2, 1));
    process.rewrite(&setup.route(&format!("replay_auth = \"{}/v2\"", other.url())));
    reloaded(2.0).await;
    assert!(process.ask(&order("k")).await.is_replay());
    assert_eq!((auth.count(), other.only().first.as_str()), (2, "GET /v2 HTTP/1.1"));
}
