//! `key_format`.

use crate::support::*;

const UUID: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";
const UUID7: &str = "017F22E2-79B0-7CC3-98C4-DC0C0C07398F";
const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

async fn with_route(route: &str) -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route(route).start().await;
    (backend, sidecar)
}

#[tokio::test]
async fn a_key_of_another_format_is_refused_before_anything_is_sent() {
    let quoted = |key: &str| format!("\"{key}\"");
    for (format, right, wrong, told) in [
        ("uuid", [UUID.to_owned(), quoted(UUID7)], ["order-17".to_owned(), ULID.to_owned()], "UUID"),
        ("ulid", [ULID.to_owned(), quoted(&ULID.to_lowercase())], ["17".to_owned(), UUID.to_owned()], "ULID"),
        ("quoted", [quoted("order-17"), quoted(UUID)], ["order-17".to_owned(), UUID.to_owned()], "quoted string"),
        ("any", [UUID.to_owned(), "order-17".to_owned()], ["a b".to_owned(), "\"a".to_owned()], "characters"),
    ] {
        let (backend, sidecar) = with_route(&format!("key_format = \"{format}\"")).await;
        for key in wrong {
            let refused = sidecar.ask(&order(&key)).await;
            assert_eq!(refused.problem(), (400, "invalid-key".to_owned()), "{format} {key}");
            assert!(refused.text().contains(told) && !refused.text().contains(&key), "{}", refused.text());
        }
        assert_eq!(backend.count(), 0);
        for (number, key) in (1..).zip(right) {
            assert_eq!(sidecar.ask(&order(&key)).await.status, 201, "{format} {key}");
            assert!(sidecar.ask(&order(&key)).await.is_replay());
            assert_eq!(backend.count(), number);
        }
    }
}

#[tokio::test]
async fn a_key_has_its_format_wherever_it_is_read() {
    let cases = [
        ("json:/id", post("/orders").json(&format!(r#"{{"id":"{UUID}"}}"#)), post("/orders").json(r#"{"id":"17"}"#)),
        ("json:/id", post("/orders").json(&format!(r#"{{"id":"{UUID7}"}}"#)), post("/orders").json(r#"{"id":17}"#)),
        (
            "json:/id",
            post("/orders").json(&format!(r#"{{"id":"{UUID}","a":1}}"#)),
            post("/orders").json(r#"{"id":true}"#),
        ),
        ("form:id", post("/orders").form(&format!("id={UUID}")), post("/orders").form("id=17")),
        ("query:id", post(&format!("/orders?id={UUID}")), post("/orders?id=17")),
        ("cookie:id", post("/orders").line(&format!("Cookie: id={UUID}")), post("/orders").line("Cookie: id=17")),
    ];
    for (key, right, wrong) in cases {
        let (backend, sidecar) = with_route(&format!("key = \"{key}\"\nkey_format = \"uuid\"")).await;
        sidecar.ask(&wrong).await.refuses(400, "invalid-key");
        assert_eq!(backend.count(), 0, "{key}");
        assert_eq!(sidecar.ask(&right).await.status, 201, "{key}");
        assert!(sidecar.ask(&right).await.is_replay(), "{key}");
    }
}

/// A `date:` part has no format, and neither has a missing part.
#[tokio::test]
async fn only_what_the_client_makes_up_has_a_format() {
    let (backend, sidecar) =
        with_route("key = [\"header:Idempotency-Key\", \"date:day\"]\nkey_format = \"uuid\"").await;
    assert_eq!(sidecar.ask(&order(UUID)).await.status, 201);
    sidecar.ask(&order("17")).await.refuses(400, "invalid-key");
    assert_eq!(sidecar.ask(&post("/orders").body("no key")).await.status, 201, "passed on");
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn a_route_may_take_bare_keys_in_spite_of_its_preset() {
    let route = "preset = \"ietf\"\nkey_format = \"any\"";
    let (_backend, sidecar) = with_route(route).await;
    assert_eq!(sidecar.ask(&order(UUID)).await.status, 201);
}
