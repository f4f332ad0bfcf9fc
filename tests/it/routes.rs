//! Which requests are guarded.

use crate::support::*;

/// Whether a request that starts like this runs once when it is sent twice.
async fn is_guarded(sidecar: &Sidecar, request: &str) -> bool {
    let mut client = sidecar.connect().await;
    let mut answers = Vec::new();
    // A key of its own for each.
    let key: String = request.bytes().map(|byte| format!("{byte:02x}")).collect();
    for _ in 0..2 {
        client.send(format!("{request}\r\nIdempotency-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}")).await;
        answers.push(client.response().await);
    }
    assert!(answers.iter().all(|answer| answer.status == 201), "{request}: {answers:?}");
    answers[1].is_replay()
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_its_route() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    for (target, expected) in [
        ("/orders", true),
        ("/orders?", true),
        ("/orders?a=b", true),
        ("/%6frders", true),
        ("/./orders", true),
        ("/a/../orders", true),
        ("/a/%2e%2E/orders", true),
        ("http://a/orders", true),
        ("/orders/", true),
        ("//orders", true),
        ("/ORDERS", true),
        ("/orders%2F", true),
        ("/a\\..%5corders", true),
        ("/x/..;/orders", true),
        ("/orders;jsessionid=1", true),
        ("/orders/7", false),
        ("/orders.json", false),
        ("/%256frders", false),
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: a");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{target}");
    }
}

#[tokio::test]
async fn another_spelling_is_the_same_request_and_reaches_the_backend_as_it_came() {
    let backend = Backend::start().await;
    let tenant = "name = \"tenant\"\npath = \"/tenants/{tenant}/orders\"\nscope = []";
    let shop = "name = \"shop\"\npath = \"/shops/{shop}/orders\"\nscope = [\"path:shop\"]";
    let sidecar = Setup::new(&backend.url()).another_route(tenant).another_route(shop).start().await;
    let first = post("/Tenants/Acme//orders/").line("Idempotency-Key: k").body("1");
    assert_eq!(sidecar.ask(&first).await.text(), r#"{"order":1}"#);
    let second = post("/tenants/Acme/orders").line("Idempotency-Key: k").body("1");
    assert!(sidecar.ask(&second).await.is_replay());
    // The case of a parameter counts: another tenant is another request.
    let other = post("/tenants/acme/orders").line("Idempotency-Key: k").body("1");
    sidecar.ask(&other).await.refuses(422, "key-reused");
    assert_eq!(backend.only().head.first, "POST /Tenants/Acme//orders/ HTTP/1.1");
    // A `path:` selector reads the same value from every spelling.
    let shop = |path: &str| post(path).line("Idempotency-Key: k").body("1");
    assert!(!sidecar.ask(&shop("/shops/Acme/orders")).await.is_replay());
    assert!(sidecar.ask(&shop("/Shops/Acme/Orders;v=1/")).await.is_replay());
    assert!(!sidecar.ask(&shop("/Shops/acme/orders/")).await.is_replay());
}

#[tokio::test]
async fn a_route_that_is_off_opts_its_own_spelling_out() {
    let backend = Backend::start().await;
    let off = "name = \"off\"\npath = \"/Orders\"\nscope = []\nmode = \"off\"";
    let sidecar = Setup::new(&backend.url()).another_route(off).start().await;
    for (target, expected) in [("/Orders", false), ("/ORDERS", true), ("/Orders/", true), ("/orders", true)] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: a");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{target}");
    }
}

#[tokio::test]
async fn a_method_that_is_overridden_gets_around_no_route() {
    let backend = Backend::start().await;
    let edit = "name = \"edit\"\npath = \"/edit\"\nmethods = [\"PUT\"]\nscope = []";
    let off = "name = \"off\"\npath = \"/orders\"\nmethods = [\"DELETE\"]\nscope = []\nmode = \"off\"";
    let sidecar = Setup::new(&backend.url()).another_route(edit).another_route(off).start().await;
    for (request, expected) in [
        ("POST /edit HTTP/1.1\r\nHost: a", false),
        ("POST /edit HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: PUT", true),
        ("POST /edit HTTP/1.1\r\nHost: a\r\nX-HTTP-Method: put", true),
        ("POST /Edit/ HTTP/1.1\r\nHost: a\r\nX-HTTP-Method: GET\r\nX-Method-Override: PUT", true),
        ("POST /orders HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: GET", true),
        ("POST /orders HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: DELETE", true),
    ] {
        assert_eq!(is_guarded(&sidecar, request).await, expected, "{request}");
    }
    let order = |line: &str| order("k").line(line);
    assert_eq!(sidecar.ask(&order("X-A: b")).await.status, 201);
    // It is not the same request as the one without a host.
    sidecar.ask(&order("X-HTTP-Method-Override: DELETE")).await.refuses(422, "key-reused");
}

/// Sends a request that may get another status than 201.
async fn refusal(sidecar: &Sidecar, request: &str) -> Response {
    let mut client = sidecar.connect().await;
    client.send(format!("{request}\r\nContent-Length: 2\r\n\r\n{{}}")).await;
    client.response().await
}

#[tokio::test]
async fn a_method_in_lower_case_gets_around_no_route() {
    let backend = Backend::start().await;
    let edit = "name = \"edit\"\npath = \"/edit\"\nmethods = [\"PUT\", \"DELETE\"]\nscope = []";
    let sidecar = Setup::new(&backend.url()).another_route(edit).start().await;
    for (request, expected) in [
        ("post /orders HTTP/1.1\r\nHost: a", true),
        ("Post /orders HTTP/1.1\r\nHost: a", true),
        ("pUT /edit HTTP/1.1\r\nHost: a", true),
        ("delete /edit HTTP/1.1\r\nHost: a", true),
        ("post /edit HTTP/1.1\r\nHost: a", false),
    ] {
        assert_eq!(is_guarded(&sidecar, request).await, expected, "{request}");
        // The backend gets it as it came.
        let method = request.split(' ').next().expect("a method");
        assert!(backend.seen().last().expect("a request").head.first.starts_with(&format!("{method} ")));
    }
    // It is the same request in any case.
    assert_eq!(sidecar.ask(&order("k")).await.status, 201);
    let mut lower = sidecar.connect().await;
    lower.send(String::from_utf8(order("k").bytes()).expect("text").replacen("POST", "post", 1)).await;
    assert!(lower.response().await.is_replay());
}

#[tokio::test]
async fn a_path_that_begins_like_a_host_gets_around_no_route() {
    let backend = Backend::start().await;
    let tenant = "name = \"tenant\"\npath = \"/tenants/{tenant}/orders\"\nscope = [\"path:tenant\"]";
    let sidecar = Setup::new(&backend.url()).another_route(tenant).start().await;
    for (target, expected) in [
        ("//x/orders", true),
        ("//x:80/orders", true),
        ("//x:80/orders?a=b", true),
        ("//user@x:80//Orders/", true),
        ("///x/orders", true),
        ("/\\x/orders", true),
        ("http://a//x/orders", true),
        ("//x/tenants/Acme/orders", true),
        ("//x/y/orders", false),
        ("/x/orders", false),
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: a");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{target}");
    }
    let order = |target: &str| post(target).line("Idempotency-Key: k").body("1");
    assert!(!sidecar.ask(&order("/tenants/Acme/orders")).await.is_replay());
    assert!(sidecar.ask(&order("//x:80/tenants/Acme/orders")).await.is_replay());
    assert_eq!(backend.seen().last().expect("a request").head.first, "POST /tenants/Acme/orders HTTP/1.1");
}

#[tokio::test]
async fn a_method_is_overridden_in_any_spelling_of_the_field() {
    let backend = Backend::start().await;
    let edit = "name = \"edit\"\npath = \"/edit\"\nmethods = [\"PUT\"]\nscope = []";
    let sidecar = Setup::new(&backend.url()).another_route(edit).start().await;
    for field in [
        "X_HTTP_Method_Override",
        "X.HTTP.Method.Override",
        "x_http-method.override",
        "X_HTTP_Method",
        "X.Method_Override",
    ] {
        let request = format!("POST /edit HTTP/1.1\r\nHost: a\r\n{field}: put");
        assert!(is_guarded(&sidecar, &request).await, "{field}");
        assert!(backend.seen().last().expect("a request").head.has(field), "{field}");
        // If it were removed, it would override the method for the proxy only.
        for nominated in [field.to_owned(), field.replace(['_', '.'], "-")] {
            let request = format!("{request}\r\nConnection: {nominated}\r\nIdempotency-Key: {field}");
            refusal(&sidecar, &request).await.refuses(400, "bad-request");
        }
    }
    assert_eq!(backend.count(), 5);
}

#[tokio::test]
async fn methods_that_lead_to_different_guarded_routes_are_refused() {
    let backend = Backend::start().await;
    let route =
        |name: &str, methods: &str| format!("name = \"{name}\"\npath = \"/orders\"\nmethods = {methods}\nscope = []");
    let sidecar = Setup::new(&backend.url())
        .another_route(&route("put", "[\"PUT\", \"PATCH\"]"))
        .another_route(&format!("{}\nmode = \"observe\"", route("delete", "[\"DELETE\"]")))
        .start()
        .await;
    let request = |method: &str, fields: &str| format!("{method} /orders HTTP/1.1\r\nHost: a{fields}");
    for (method, fields) in [
        ("POST", "\r\nX-HTTP-Method-Override: PUT"),
        ("post", "\r\nX_HTTP_METHOD_OVERRIDE: put"),
        ("PUT", "\r\nX-HTTP-Method: POST"),
        ("GET", "\r\nX-HTTP-Method: POST\r\nX-Method-Override: PUT"),
        ("GET", "\r\nX-HTTP-Method: POST, PATCH"),
    ] {
        let request = format!("{}\r\nIdempotency-Key: k", request(method, fields));
        refusal(&sidecar, &request).await.refuses(400, "bad-request");
        // Also without a key: it is unknown which route's rule applies.
        refusal(&sidecar, &request.replace("Idempotency-Key", "X-Key")).await.refuses(400, "bad-request");
    }
    assert_eq!(backend.count(), 0);
    for (method, fields, expected) in [
        ("PATCH", "\r\nX-HTTP-Method-Override: PUT", true),
        ("POST", "\r\nX-HTTP-Method-Override: POST", true),
        ("POST", "\r\nX-HTTP-Method-Override: GET", true),
        // An observed route refuses nothing.
        ("POST", "\r\nX-HTTP-Method-Override: DELETE", true),
        ("DELETE", "\r\nX-HTTP-Method-Override: GET", false),
    ] {
        assert_eq!(is_guarded(&sidecar, &request(method, fields)).await, expected, "{method} {fields}");
    }
}

/// CGI, PHP, WSGI and Rack make one variable of both.
#[tokio::test]
async fn another_spelling_of_a_field_that_matters_is_refused() {
    let backend = Backend::start().await;
    let odd = "name = \"odd\"\npath = \"/odd\"\nkey = \"header:Request_Id\"\nscope = [\"header:X-Forwarded_User\"]";
    let form = "name = \"form\"\npath = \"/form\"\nkey = \"form:k\"\nscope = []";
    let observed = "name = \"observed\"\npath = \"/observed\"\nscope = []\nmode = \"observe\"";
    let sidecar = Setup::new(&backend.url())
        .route("scope = [\"header:X-Tenant\"]")
        .another_route(odd)
        .another_route(form)
        .another_route(observed)
        .start()
        .await;
    let line = |line: &str| order("k").line("X-Tenant: a").line(line);
    for field in [
        "Idempotency_Key",
        "Idempotency.Key",
        "idempotency~key",
        "X_Tenant",
        "X.Tenant",
        "X_Forwarded_For",
        "X-Forwarded_Proto",
        "X.Forwarded.Anything",
        "Onlyonce_Attempt",
        "ONLYONCE.Attempt",
        "Content_Length",
        "Transfer_Encoding",
    ] {
        let refused = sidecar.ask(&line(&format!("{field}: 1"))).await;
        refused.refuses(400, "bad-request");
        assert!(refused.text().contains(&field.to_lowercase()), "{}", refused.text());
        // Also alone: the proxy reads no key, and the backend may read one.
        let alone = post("/orders").line(&format!("{field}: 1"));
        sidecar.ask(&alone).await.refuses(400, "bad-request");
    }
    let odd = |lines: &[&str]| lines.iter().fold(post("/odd"), |request, line| request.line(line)).body("1");
    for lines in [
        &["Request-Id: k"][..],
        &["Request_Id: k", "Request.Id: k"],
        &["X-Forwarded-User: a"],
        &["X_Forwarded_User: a"],
    ] {
        sidecar.ask(&odd(lines)).await.refuses(400, "bad-request");
    }
    let typed = post("/form").form("k=1").line("Content_Type: multipart/form-data; boundary=k");
    sidecar.ask(&typed).await.refuses(400, "bad-request");

    let count = backend.count();
    // The spelling of the configuration, and fields that do not matter.
    let right = odd(&["Request_Id: k", "X-Forwarded_User: a"]);
    assert_eq!(sidecar.ask(&right).await.status, 201);
    assert!(sidecar.ask(&right).await.is_replay());
    for other in ["X_Custom: 1", "Content_Type: 1", "X-Forwarded-Port: 1", "My_Key: 1", "Idempotency_Keys: 1"] {
        let key = format!("Idempotency-Key: {}", other.trim_end_matches(": 1"));
        let order = post("/orders").line("X-Tenant: a").line(&key).line(other).body("1");
        assert_eq!(sidecar.ask(&order).await.status, 201, "{other}");
    }
    // An unguarded request keeps all of them but the proxy's own.
    for path in ["/elsewhere", "/observed"] {
        let elsewhere = post(path)
            .line("Idempotency-Key: k")
            .line("Idempotency_Key: 1")
            .line("X_Forwarded_For: 1")
            .line("Onlyonce_Attempt: 2")
            .line("ONLYONCE.Attempt: 2")
            .line("Onlyonce-Attempt: 2");
        assert_eq!(sidecar.ask(&elsewhere).await.status, 201);
        let seen = backend.seen().last().expect("a request").clone();
        assert!(seen.head.has("idempotency_key") && seen.head.has("x_forwarded_for"), "{seen:?}");
        assert!(!seen.head.lines.iter().any(|(name, _)| name.to_lowercase().starts_with("onlyonce")), "{seen:?}");
    }
    assert_eq!(backend.count(), count + 8);
}

#[tokio::test]
async fn a_route_may_be_for_one_host() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).route("host = \"api.example.com\"").start().await;
    for (line, host, expected) in [
        ("/orders", "api.example.com", true),
        ("/orders", "API.example.COM:8080", true),
        ("http://api.example.com/orders", "other.example.com", true),
        ("/orders", "example.com", false),
        ("http://other.example.com/orders", "api.example.com", false),
    ] {
        let request = format!("POST {line} HTTP/1.1\r\nHost: {host}");
        assert_eq!(is_guarded(&sidecar, &request).await, expected, "{line} at {host}");
    }
}

#[tokio::test]
async fn the_most_specific_route_wins() {
    let backend = Backend::start().await;
    let route = |name: &str, path: &str| format!("name = \"{name}\"\npath = \"{path}\"\nscope = []");
    let sidecar = Setup::new(&backend.url())
        .another_route(&route("rest", "/{*rest}"))
        .another_route(&route("one", "/orders/{order}"))
        .another_route(&route("drafts", "/orders/drafts"))
        .start()
        .await;
    for (path, expected) in [
        ("/orders", "orders"),
        ("/orders/7", "one"),
        ("/orders/drafts", "drafts"),
        ("/orders/7/x", "rest"),
        ("/x", "rest"),
    ] {
        let order = |body: &str| post(path).line(&format!("Idempotency-Key: {path}")).body(body);
        sidecar.ask(&order("1")).await;
        assert_eq!(sidecar.ask(&order("2")).await.json()["route"], expected, "{path}");
    }
}
