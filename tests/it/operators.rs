//! Operators with tokens of their own: what each may do, and what is told of whom.

use serde_json::{Value, json};

use crate::support::*;

const TOKENS: &str = "token = \"token-of-all-of-them\"\n[tokens]\nalice = { token = \"token-of-alice-only\" }\n\
                      bob = { token = \"token-of-bob-only\", may = \"change\" }\n";

async fn ask(admin: std::net::SocketAddr, request: &Request, token: &str) -> Response {
    Wire::connect(admin).await.ask(&request.clone().by(token)).await
}

fn get(target: &str) -> Request {
    request("GET", target)
}

/// An unknown record, by its name.
async fn lose(sidecar: &Process, backend: &Backend, key: &str) -> String {
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order(key)).await.refuses(502, "upstream-failed");
    let refused = sidecar.ask(&order(key)).await;
    refused.json()["record"].as_str().expect("a record").to_owned()
}

#[tokio::test]
async fn a_token_may_do_what_it_is_given_for_and_no_more() {
    let backend = Backend::start().await;
    let sidecar = Process::start(&Setup::new(&backend.url()).with("admin", TOKENS)).await;
    let admin = sidecar.admin;
    let record = lose(&sidecar, &backend, "k").await;
    let shown = get(&format!("/records/{record}"));
    let release = Request::to_host(&format!("/records/{record}/release"), "any").json("{}");
    let complete = Request::to_host(&format!("/records/{record}/complete"), "any").json("{\"status\":201}");
    let many = json!({"route": "orders", "state": "unknown", "since": "2h", "dry_run": true}).to_string();
    let many = Request::to_host("/records/release", "any").json(&many);
    let look_up = json!({"route": "orders", "key": ["k"], "scope": ["Bearer alice"]}).to_string();
    let look_up = Request::to_host("/look-up", "any").json(&look_up);
    for reads in [&shown, &get(&format!("/records/{record}?body=1")), &get("/records"), &get("/unknown"), &look_up] {
        for (token, status) in [
            ("token-of-all-of-them", 200),
            ("token-of-alice-only", 200),
            ("token-of-bob-only", 200),
            ("t-carol", 401),
            ("alice", 401),
        ] {
            assert_eq!(ask(admin, reads, token).await.status, status, "{token}: {reads:?}");
        }
    }
    for changes in [&release, &complete, &many] {
        ask(admin, changes, "token-of-alice-only").await.refuses(403, "read-only");
        ask(admin, changes, "t-carol").await.refuses(401, "unauthorized");
    }
    for (token, may_change) in [
        ("token-of-all-of-them", true),
        ("token-of-alice-only", false),
        ("token-of-bob-only", true),
        ("t-carol", false),
    ] {
        let status = ask(admin, &get("/status"), token).await.json();
        assert_eq!(status["may_change"], may_change, "{token}");
        // What requests are recognised by is for those who may see records.
        let is_known = token != "t-carol";
        assert_eq!(
            (status["records"].is_null(), !status["routes"][0]["key"].is_null()),
            (is_known, is_known),
            "{token}"
        );
        assert_eq!(status["routes"][0]["match"] == "POST /orders", is_known, "{token}");
        assert_eq!(status["routes"][0]["route"], "orders");
    }
    assert_eq!(ask(admin, &shown, "token-of-alice-only").await.json()["audit"], Value::Null, "nothing was done");

    assert_eq!(ask(admin, &many, "token-of-bob-only").await.json()["released"].as_array().map(Vec::len), Some(1));
    assert_eq!(ask(admin, &complete, "token-of-bob-only").await.status, 200);
    assert_eq!(ask(admin, &release, "token-of-all-of-them").await.status, 200);
    let audit = ask(admin, &shown, "token-of-alice-only").await.json()["audit"].clone();
    let told: Vec<_> = audit.as_array().expect("lines").iter().map(|line| (&line["did"], &line["by"])).collect();
    assert_eq!(told, [(&json!("complete"), &json!("bob")), (&json!("release"), &json!("admin.token"))]);
    sidecar.logs("record_released").await;
    let log = sidecar.log();
    let line = log.lines().find(|line| line.contains("record_completed")).expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert!(line["by"] == "bob" && line["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{line}");
    assert!(!sidecar.log().contains("token-of-bob-only") && !sidecar.log().contains("token-of-all-of-them"));
}

#[tokio::test]
async fn a_token_that_is_taken_out_of_the_file_is_refused_from_then_on() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url());
    let sidecar = Process::start(&setup.clone().with("admin", TOKENS)).await;
    let admin = sidecar.admin;
    assert_eq!(ask(admin, &get("/records"), "token-of-bob-only").await.status, 200);
    let fewer = TOKENS.split_once("bob").expect("a token").0.replace("token-of-all-of-them", "token-of-others-now");
    sidecar.rewrite(&setup.clone().with("admin", &fewer));
    let reloads = async |times: f64| {
        until("reloaded", async || sidecar.metric("onlyonce_config_reloads_total{result=\"ok\"}").await >= times).await;
    };
    reloads(1.0).await;
    for (token, status) in [
        ("token-of-bob-only", 401),
        ("token-of-all-of-them", 401),
        ("token-of-others-now", 200),
        ("token-of-alice-only", 200),
    ] {
        assert_eq!(ask(admin, &get("/records"), token).await.status, status, "{token}");
    }
    // A listener that the file turns off stays until the next start, and stays closed to those without a token.
    sidecar.rewrite(&setup.with("admin", "listen = \"off\""));
    reloads(2.0).await;
    let plain = get("/records").host("localhost").line("Onlyonce-Admin: 1");
    Wire::connect(admin).await.ask(&plain).await.refuses(401, "unauthorized");
    assert_eq!(ask(admin, &get("/records"), "token-of-alice-only").await.status, 200);
    sidecar.logs("admin.listen changed: takes effect at the next start").await;
}
