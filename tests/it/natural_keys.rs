//! Keys without help of the client: the shipped example for invoices.

use crate::support::*;

/// `config/invoices.toml`, in front of this backend.
async fn invoices(backend: &Backend) -> Sidecar {
    let shipped: toml::Table = include_str!("../../config/invoices.toml").parse().expect("TOML");
    let route = shipped["route"][0].to_string();
    let route: toml::Table = format!("route = {route}").parse().expect("an inline table");
    Setup::new(&backend.url()).another_route(&route["route"].as_table().expect("a table").to_string()).start().await
}

fn invoice(body: &str) -> Request {
    post("/invoices").json(body)
}

#[tokio::test]
async fn a_number_is_used_once_for_each_tenant() {
    let backend = Backend::start().await;
    let sidecar = invoices(&backend).await;
    let first = sidecar.ask(&invoice(r#"{"tenant":"acme","number":17,"total":"99.00","sent_at":1}"#)).await;
    assert_eq!((first.status, first.is_replay()), (201, false));

    // A double click and a later retry with another time: the same invoice.
    for again in [
        r#"{"tenant":"acme","number":17,"total":"99.00","sent_at":1}"#,
        r#"{"sent_at":2, "total":"99.00", "number":17.0, "tenant":"acme"}"#,
    ] {
        let repeat = sidecar.ask(&invoice(again).by("a colleague")).await;
        assert!(repeat.is_replay());
        assert_eq!(repeat.body, first.body);
    }
    assert_eq!(backend.count(), 1);

    for other in [
        r#"{"tenant":"umbrella","number":17,"total":"99.00"}"#,
        r#"{"tenant":"acme","number":18,"total":"99.00"}"#,
        r#"{"tenant":"acme","number":"17","total":"99.00"}"#,
    ] {
        assert!(!sidecar.ask(&invoice(other)).await.is_replay());
    }
    assert_eq!(backend.count(), 4);
}

#[tokio::test]
async fn another_invoice_with_the_same_number_is_refused_in_plain_words() {
    let backend = Backend::start().await;
    let sidecar = invoices(&backend).await;
    sidecar.ask(&invoice(r#"{"tenant":"acme","number":17,"total":"99.00"}"#)).await;
    let conflict = sidecar.ask(&invoice(r#"{"tenant":"acme","number":17,"total":"12.00"}"#)).await;
    conflict.refuses(409, "key-reused");
    let detail = "This invoice number was already used this year. We kept the first invoice and made no second one.";
    assert_eq!(conflict.json()["detail"], detail);
    let page = sidecar
        .ask(&invoice(r#"{"tenant":"acme","number":17}"#).line("Accept: text/html").line("Sec-Fetch-Mode: navigate"))
        .await;
    assert_eq!((page.status, page.value("content-type")), (409, Some("text/html; charset=utf-8")));
    assert!(page.text().contains(detail), "{}", page.text());
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn an_invoice_without_a_number_is_refused() {
    let backend = Backend::start().await;
    let sidecar = invoices(&backend).await;
    for body in [r#"{"tenant":"acme"}"#, r#"{"tenant":"acme","number":null}"#, r#"{"number":17}"#] {
        sidecar.ask(&invoice(body)).await.refuses(400, "missing-key");
    }
    sidecar.ask(&invoice(r#"{"tenant":"acme","number":[17]}"#)).await.refuses(400, "invalid-key");
    sidecar.ask(&invoice(r#"{"tenant":"acme","number":17,"number":18}"#)).await.refuses(400, "invalid-body");
    assert_eq!(backend.count(), 0);
}
