//! The requests of known senders and their repeats: signatures, times and tokens change, the key does not.

use crate::support::*;

/// A route at `/in` with these settings only, and its backend.
async fn with_route(route: &str) -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).another_route(&format!("name = \"in\"\npath = \"/in\"\n{route}"));
    (backend, setup.start().await)
}

/// The lines of a head, and a body.
type Sent<'a> = (&'a [&'a str], &'a str);

fn sent((lines, body): &Sent<'_>) -> Request {
    lines.iter().fold(post("/in"), |request, line| request.line(line)).body(body)
}

/// The second request is a replay of the first; the third is a new operation, and runs.
async fn delivered_once(preset: &str, first: Sent<'_>, again: Sent<'_>, another: Sent<'_>) {
    let (backend, sidecar) = with_route(&format!("preset = \"{preset}\"")).await;
    let answer = sidecar.ask(&sent(&first)).await;
    assert_eq!((answer.status, answer.is_replay()), (201, false), "{preset}: {answer:?}");
    let repeat = sidecar.ask(&sent(&again)).await;
    assert!(repeat.is_replay(), "{preset}: {repeat:?}");
    assert_eq!((repeat.status, &repeat.body), (201, &answer.body));
    assert_eq!(backend.count(), 1);
    let seen = &backend.seen()[0];
    for line in first.0 {
        let (name, value) = line.split_once(": ").expect("a header line");
        assert_eq!(seen.value(name), Some(value), "{preset}: the backend gets what was sent");
    }
    assert_eq!(sidecar.ask(&sent(&another)).await.status, 201);
    assert_eq!(backend.count(), 2);
}

/// An event that the backend rejected is delivered again, and runs.
async fn failures_are_tried_again(preset: &str, event: Sent<'_>) {
    let backend = Backend::scripted([
        vec![answer("500 Internal Server Error", "")],
        vec![answer("422 Unprocessable Content", "")],
        vec![Step::Answer],
    ])
    .await;
    let route = format!("name = \"in\"\npath = \"/in\"\npreset = \"{preset}\"");
    let sidecar = Setup::new(&backend.url()).another_route(&route).start().await;
    for status in [500, 422, 201, 201] {
        assert_eq!(sidecar.ask(&sent(&event)).await.status, status, "{preset}");
    }
    assert_eq!(backend.count(), 3);
}

/// The same key with another body.
async fn reused(preset: &str, first: Sent<'_>, other: Sent<'_>) {
    let (backend, sidecar) = with_route(&format!("preset = \"{preset}\"")).await;
    sidecar.ask(&sent(&first)).await;
    sidecar.ask(&sent(&other)).await.refuses(422, "key-reused");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn clients_by_the_letter_of_the_draft() {
    let order = |key: &str| {
        let request = post("/in").by("alice").json(r#"{"item":"book"}"#);
        if key.is_empty() { request } else { request.line(&format!("Idempotency-Key: {key}")) }
    };
    let route = "preset = \"ietf\"\nscope = [\"header:Authorization\"]";
    let (backend, sidecar) = with_route(route).await;
    sidecar.ask(&order("")).await.refuses(400, "missing-key");
    let bare = sidecar.ask(&order("8e03978e-40d5-43dd-bc93-6894a57f9324")).await;
    bare.refuses(400, "invalid-key");
    assert!(bare.text().contains("quoted string"), "{}", bare.text());
    assert_eq!(backend.count(), 0);
    let quoted = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";
    assert_eq!(sidecar.ask(&order(quoted)).await.status, 201);
    assert!(sidecar.ask(&order(quoted)).await.is_replay());
    assert!(sidecar.ask(&order(&format!("{quoted};v=1"))).await.is_replay(), "parameters do not count");
    assert_eq!(backend.count(), 1);
    assert_eq!(backend.seen()[0].value("idempotency-key"), Some(quoted));
}

#[tokio::test]
async fn clients_as_those_of_stripe() {
    let key = "Idempotency-Key: 9b2f1c52-9c1a-4d43-8ad6-5a1f4d1f2b4e";
    let form = "amount=2000&currency=eur&payment_method_types[0]=card";
    let common = [
        "Authorization: Bearer sk_test_4eC39HqLyjWDarjtT1zdp7dc",
        "Content-Type: application/x-www-form-urlencoded",
        "Stripe-Version: 2026-10-29.clover",
        "User-Agent: Stripe/v1 NodeBindings/19.2.0",
    ];
    let with = |lines: &[&'static str]| [&common[..], lines].concat();
    let first = with(&[key, "X-Stripe-Client-Telemetry: {\"last_request_metrics\":{\"request_id\":\"req_a\"}}"]);
    let again = with(&[key, "X-Stripe-Client-Telemetry: {\"last_request_metrics\":{\"request_id\":\"req_b\"}}"]);
    let another = with(&["Idempotency-Key: 5f0e2d11-0d6b-4bb0-9d0c-7a1c9ad4c1aa"]);
    delivered_once("stripe", (&first, form), (&again, form), (&another, form)).await;
    reused("stripe", (&first, form), (&again, "amount=3000&currency=eur&payment_method_types[0]=card")).await;
}

/// `strict`: every response is kept, also a refused card; "not now" may be tried again.
#[tokio::test]
async fn a_refused_card_stays_refused() {
    let backend = Backend::scripted([
        vec![answer("429 Too Many Requests", "")],
        vec![answer("402 Payment Required", "{\"error\":{\"code\":\"card_declined\"}}")],
    ])
    .await;
    let route = "name = \"in\"\npath = \"/in\"\npreset = \"stripe\"";
    let sidecar = Setup::new(&backend.url()).another_route(route).start().await;
    let charge = post("/in").by("sk_test").line("Idempotency-Key: k").form("amount=2000");
    assert_eq!(sidecar.ask(&charge).await.status, 429);
    assert_eq!(sidecar.ask(&charge).await.status, 402);
    let again = sidecar.ask(&charge).await;
    assert_eq!((again.status, again.is_replay()), (402, true));
    assert_eq!(backend.count(), 2);
}

#[tokio::test]
async fn clients_as_those_of_square() {
    let lines = [
        "Authorization: Bearer EAAAEOuLQObrVwJvCvoio3H13b8Ssqz1ighmTBKZvIENW9qxirHGHkqsGcPBC1uN",
        "Content-Type: application/json",
        "Square-Version: 2026-10-16",
    ];
    let payment = |key: &str, amount: u32| {
        format!(
            r#"{{"idempotency_key":"{key}","source_id":"cnon:card-nonce-ok","amount_money":{{"amount":{amount},"currency":"USD"}}}}"#
        )
    };
    let (first, another) = (payment("7b0f3ec5-086a-4871-8f13-3c81b3875218", 1000), payment("other", 1000));
    // Another library writes the same value in another order.
    let again = r#"{ "amount_money": {"currency": "USD", "amount": 1000}, "source_id": "cnon:card-nonce-ok",
                     "idempotency_key": "7b0f3ec5-086a-4871-8f13-3c81b3875218" }"#;
    delivered_once("square", (&lines, &first), (&lines, again), (&lines, &another)).await;
    let dearer = payment("7b0f3ec5-086a-4871-8f13-3c81b3875218", 2000);
    reused("square", (&lines, &first), (&lines, &dearer)).await;
}

#[tokio::test]
async fn clients_as_those_of_paypal() {
    let order = r#"{"intent":"CAPTURE","purchase_units":[{"amount":{"currency_code":"USD","value":"100.00"}}]}"#;
    let common = [
        "Content-Type: application/json",
        "Authorization: Bearer A21AAFEpH4PsADK7qSS7pSRsgz",
        "Prefer: return=minimal",
    ];
    let with = |line: &'static str| [&common[..], &[line]].concat();
    let first = with("PayPal-Request-Id: 7b92603e-77ed-4896-8e78-5dea2050476a");
    let another = with("PayPal-Request-Id: 6a82603e-77ed-4896-8e78-5dea2050476b");
    delivered_once("paypal", (&first, order), (&first, order), (&another, order)).await;
    reused("paypal", (&first, order), (&first, &order.replace("100.00", "200.00"))).await;
}

/// `gocardless_pro` of PyPI.
#[tokio::test]
async fn clients_as_those_of_gocardless() {
    let payment = r#"{"payments": {"amount": 1000, "currency": "GBP", "links": {"mandate": "MD123"}}}"#;
    let common = [
        "Accept: application/json",
        "Authorization: Bearer sandbox_token",
        "Content-Type: application/json",
        "GoCardless-Version: 2015-07-06",
        "GoCardless-Client-Library: gocardless-pro-python",
    ];
    let with = |line: &'static str| [&common[..], &[line]].concat();
    let first = with("Idempotency-Key: 3f2d1f52-9c1a-4d43-8ad6-5a1f4d1f2b4e");
    let another = with("Idempotency-Key: 5f0e2d11-0d6b-4bb0-9d0c-7a1c9ad4c1aa");
    delivered_once("gocardless", (&first, payment), (&first, payment), (&another, payment)).await;
    reused("gocardless", (&first, payment), (&first, &payment.replace("1000", "2000"))).await;
}

#[tokio::test]
async fn standard_webhooks() {
    let body = r#"{"type":"contact.created","timestamp":"2026-11-03T20:26:10.344522Z","data":{"id":"1f81eb52"}}"#;
    let event = |id: &'static str, timestamp: &'static str, signature: &'static str| {
        vec!["Content-Type: application/json", id, timestamp, signature]
    };
    let id = "webhook-id: msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";
    let first = event(
        id,
        "webhook-timestamp: 1795379170",
        "webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    );
    let again = event(
        id,
        "webhook-timestamp: 1795379470",
        "webhook-signature: v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v1a,hnO3f9T8Ytu9",
    );
    let another =
        event("webhook-id: msg_other", "webhook-timestamp: 1795379470", "webhook-signature: v1,bm90IHRoZSBzYW1l");
    delivered_once("standard-webhooks", (&first, body), (&again, body), (&another, body)).await;
    failures_are_tried_again("standard-webhooks", (&first, body)).await;
}

#[tokio::test]
async fn webhooks_of_stripe() {
    let event = |id: &str, pending: u32| {
        format!(
            r#"{{"id":"{id}","object":"event","api_version":"2026-10-29.clover","created":1795379170,"data":{{"object":{{"id":"pi_1","object":"payment_intent","amount":2000}}}},"livemode":false,"pending_webhooks":{pending},"request":{{"id":"req_1","idempotency_key":"k"}},"type":"payment_intent.succeeded"}}"#
        )
    };
    let lines = |signature: &'static str| {
        vec![
            "Content-Type: application/json; charset=utf-8",
            "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            signature,
        ]
    };
    let first =
        lines("Stripe-Signature: t=1795379170,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd");
    let again =
        lines("Stripe-Signature: t=1795382770,v1=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39");
    // The number of pending endpoints in the event has changed by then.
    let bodies =
        [event("evt_1MqqbKLt4dXK03v5qaIbiNCC", 2), event("evt_1MqqbKLt4dXK03v5qaIbiNCC", 1), event("evt_2", 1)];
    delivered_once("stripe-webhook", (&first, &bodies[0]), (&again, &bodies[1]), (&again, &bodies[2])).await;
    failures_are_tried_again("stripe-webhook", (&first, &bodies[0])).await;
}

#[tokio::test]
async fn webhooks_of_github() {
    let lines = |delivery: &'static str, signature: &'static str| {
        vec![
            "Accept: */*",
            "Content-Type: application/json",
            "User-Agent: GitHub-Hookshot/044aadd",
            "X-GitHub-Event: issues",
            "X-GitHub-Hook-ID: 292430182",
            "X-GitHub-Hook-Installation-Target-ID: 79929171",
            "X-GitHub-Hook-Installation-Target-Type: repository",
            delivery,
            signature,
        ]
    };
    let body = r#"{"action":"opened","issue":{"number":1347},"repository":{"full_name":"octocat/Hello-World"}}"#;
    let delivery = "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958";
    let first =
        lines(delivery, "X-Hub-Signature-256: sha256=d57c68ca6f92289e6987922ff26938930f6e66a2d161ef06abdf1859230aa23c");
    // The secret was changed before somebody pressed "Redeliver".
    let again =
        lines(delivery, "X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    let another = lines("X-GitHub-Delivery: 8f1a6f0e-cc78-11e3-9d4a-4c9367dc0958", "X-Hub-Signature-256: sha256=00");
    delivered_once("github-webhook", (&first, body), (&again, body), (&another, body)).await;
    failures_are_tried_again("github-webhook", (&first, body)).await;
}

#[tokio::test]
async fn webhooks_of_shopify() {
    let lines = |id: &'static str, triggered: &'static str, hmac: &'static str| {
        vec![
            "Content-Type: application/json",
            "X-Shopify-Topic: orders/create",
            "X-Shopify-Shop-Domain: johns-apparel.myshopify.com",
            "X-Shopify-API-Version: 2026-10",
            "X-Shopify-Event-Id: 98880550-7158-44d4-b7cd-2c97c8a091b5",
            id,
            triggered,
            hmac,
        ]
    };
    let body = r#"{"id":820982911946154508,"email":"jon@example.com","total_price":"403.00"}"#;
    let id = "X-Shopify-Webhook-Id: b54557e4-bdd9-4b37-8a5f-bf7d70bcd043";
    let triggered = "X-Shopify-Triggered-At: 2026-11-21T18:00:27.877041743Z";
    let first = lines(id, triggered, "X-Shopify-Hmac-Sha256: XWmrwMey6OsLMeiZKwP4FppHH3cmAiiJJAweH5Jo4bM=");
    let again = lines(id, triggered, "X-Shopify-Hmac-Sha256: 0K3Q2mHnQGkTj5a8PZ3iXc1bT8d2Fz0aLr9v4yUeWqs=");
    let another = lines("X-Shopify-Webhook-Id: 7e5a0a0e", triggered, "X-Shopify-Hmac-Sha256: AA==");
    delivered_once("shopify-webhook", (&first, body), (&again, body), (&another, body)).await;
    failures_are_tried_again("shopify-webhook", (&first, body)).await;
}

#[tokio::test]
async fn cloudevents() {
    let lines = |source: &'static str, id: &'static str, trace: &'static str| {
        vec![
            "Content-Type: application/json",
            "ce-specversion: 1.0",
            "ce-type: com.example.order.placed",
            "ce-time: 2026-11-21T17:31:00Z",
            source,
            id,
            trace,
        ]
    };
    let body = r#"{"order":4711}"#;
    let (source, id) = ("ce-source: /shops/eu", "ce-id: A234-1234-1234");
    let first = lines(source, id, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let again = lines(source, id, "traceparent: 00-1bf7651916cd43dd8448eb211c80319c-c8ad6b7169203331-01");
    // Ids are unique for one source only: the same id of another source is another event.
    let another =
        lines("ce-source: /shops/us", id, "traceparent: 00-2cf7651916cd43dd8448eb211c80319c-d9ad6b7169203331-01");
    delivered_once("cloudevents", (&first, body), (&again, body), (&another, body)).await;
    failures_are_tried_again("cloudevents", (&first, body)).await;
}

/// An event without an id is forwarded unguarded.
#[tokio::test]
async fn an_event_without_an_id_arrives() {
    let (backend, sidecar) = with_route("preset = \"cloudevents\"").await;
    let event: Sent<'_> = (&["ce-source: /shops/eu", "Content-Type: application/json"], "{}");
    for count in 1..=2 {
        assert_eq!(sidecar.ask(&sent(&event)).await.status, 201);
        assert_eq!(backend.count(), count);
    }
}

#[tokio::test]
async fn a_route_overrides_its_preset_and_a_preset_the_defaults() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url())
        .with("defaults", "policy = \"standard\"\nfingerprint = \"raw\"\nscope = [\"header:X-Nobody\"]")
        .another_route("name = \"in\"\npath = \"/in\"\npreset = \"paypal\"\nkey = \"header:X-Request\"");
    let sidecar = setup.start().await;
    let order = |caller: &str| post("/in").by(caller).line("X-Request: k").json("{}");
    sidecar.ask(&order("alice")).await;
    assert!(sidecar.ask(&order("alice")).await.is_replay());
    assert!(!sidecar.ask(&order("bob")).await.is_replay(), "the preset's scope wins over that of the defaults");
    assert_eq!(backend.count(), 2);
}

/// One event that is sent to several addresses is several deliveries, and each must arrive.
#[tokio::test]
async fn an_event_arrives_at_every_address_that_it_is_sent_to() {
    for (preset, line) in [
        ("standard-webhooks", "webhook-id: msg_1"),
        ("github-webhook", "X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("shopify-webhook", "X-Shopify-Webhook-Id: b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
        ("cloudevents", "ce-source: /shops/eu\r\nce-id: A234"),
        ("stripe-webhook", "Content-Type: application/json"),
    ] {
        let backend = Backend::start().await;
        let route = format!(
            "name = \"in\"\npath = \"/hooks/{{tenant}}/{{*rest}}\"\npreset = \"{preset}\"\nmethods = [\"POST\", \"PUT\"]\n\
             ignore_query = [\"token\"]"
        );
        let sidecar = Setup::new(&backend.url()).another_route(&route).start().await;
        let event = |method: &str, target: &str| request(method, target).line(line).body(r#"{"id":"evt_1"}"#);
        let addresses = [
            "/hooks/a/x",
            "/hooks/b/x",
            "/hooks/a/x/y",
            "/hooks/a/x?",
            "/hooks/a/x?shop=1",
            "/hooks/a/x?shop=2",
            "/hooks/a%2Fx/x",
        ];
        for (number, address) in (1..).zip(addresses) {
            let first = sidecar.ask(&event("POST", address)).await;
            assert_eq!((first.status, first.is_replay()), (201, false), "{preset} {address} {first:?}");
            let again = sidecar.ask(&event("POST", address)).await;
            assert!(again.is_replay(), "{preset} {address} {again:?}");
            assert_eq!(backend.count(), number, "{preset} {address}");
        }
        // An ignored parameter or another spelling does not make another address.
        for address in ["/hooks/a/x?token=1", "/hooks/./%61/x", "/hooks/a/x?token=2&shop=1"] {
            assert!(sidecar.ask(&event("POST", address)).await.is_replay(), "{preset} {address}");
        }
        // Another method is a mistake here too.
        sidecar.ask(&event("PUT", "/hooks/a/x")).await.refuses(422, "key-reused");
        assert_eq!(backend.count(), addresses.len());
    }
}

#[tokio::test]
async fn elsewhere_another_path_of_the_route_is_a_mistake() {
    for preset in ["stripe", "ietf", "gocardless"] {
        let backend = Backend::start().await;
        let route = format!(
            "name = \"in\"\npath = \"/hooks/{{tenant}}\"\npreset = \"{preset}\"\nscope = [\"header:Authorization\"]"
        );
        let sidecar = Setup::new(&backend.url()).another_route(&route).start().await;
        let order = |target: &str| post(target).by("alice").line("Idempotency-Key: \"k\"").body("{}");
        assert_eq!(sidecar.ask(&order("/hooks/a")).await.status, 201);
        for target in ["/hooks/b", "/hooks/a?x=1"] {
            sidecar.ask(&order(target)).await.refuses(422, "key-reused");
        }
        assert_eq!(backend.count(), 1);
    }
}
