//! Who may see and change records, and how a change is asked for.

use super::*;

#[tokio::test]
async fn a_change_needs_json_and_the_right_method() {
    let scene = Scene::new(None);
    let (name, _) = scene.put(1, HOLD, unknown()).await;
    let release = format!("/records/{name}/release");
    for media in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        let request = Request::post(&release).header(CONTENT_TYPE, media);
        assert_eq!(code(&scene.ask(request, "{}").await), (415, "not-json"), "{media}");
    }
    assert_eq!(code(&scene.ask(Request::post(&release), "").await), (415, "not-json"));
    assert_eq!(code(&scene.get(&release).await), (405, "method-not-allowed"));
    assert_eq!(code(&scene.post("/records", &json!({})).await), (405, "method-not-allowed"));
    assert_eq!(code(&scene.post(&format!("/records/{name}"), &json!({})).await), (405, "method-not-allowed"));
    let large = json!({"status": 200, "body": "x".repeat(MAX_BODY)});
    assert_eq!(code(&scene.post(&format!("/records/{name}/complete"), &large).await), (413, "request-too-large"));
    // Nothing of it did anything; without a body, force is not meant.
    assert!(scene.left(&name).await.is_some());
    let request = Request::post(&release).header(CONTENT_TYPE, "Application/JSON; charset=utf-8");
    assert_eq!(scene.ask(request, "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn every_call_about_records_is_guarded_and_no_other() {
    let scene = Scene::new(Some("open-sesame"));
    let (name, _) = scene.put(1, HOLD, unknown()).await;
    let calls = [
        (Method::GET, "/records".to_owned()),
        (Method::GET, format!("/records/{name}")),
        (Method::POST, "/records/release".to_owned()),
        (Method::POST, format!("/records/{name}/release")),
        (Method::POST, format!("/records/{name}/complete")),
        (Method::GET, "/records/nothing/here".to_owned()),
        (Method::GET, "/unknown".to_owned()),
        (Method::GET, "/refusals".to_owned()),
        (Method::POST, "/look-up".to_owned()),
        (Method::GET, "/rules".to_owned()),
    ];
    for (method, target) in calls {
        let request = || Request::builder().method(&method).uri(&target).header(CONTENT_TYPE, "application/json");
        assert_eq!(code(&scene.ask(request(), "{}").await), (401, "unauthorized"), "{target}");
        let wrong = request().header(AUTHORIZATION, "Bearer sesame");
        assert_eq!(code(&scene.ask(wrong, "{}").await), (401, "unauthorized"), "{target}");
        let foreign = request().header(AUTHORIZATION, "Bearer open-sesame").header(ORIGIN, "http://evil.example");
        assert_eq!(code(&scene.ask(foreign, "{}").await), (403, "forbidden"), "{target}");
    }
    assert!(scene.left(&name).await.is_some());
    for target in ["/metrics", "/healthz", "/readyz", "/status", "/", "/page.js", "/page.css"] {
        let request = Request::get(target).body(Full::<Bytes>::default()).expect("a request");
        let response = scene.admin.handle(request, Some(([192, 0, 2, 1], 5).into())).await;
        assert_eq!(response.status(), StatusCode::OK, "{target}");
    }
    let request = Request::post(format!("/records/{name}/release"));
    let request = request.header(AUTHORIZATION, "Bearer open-sesame").header(CONTENT_TYPE, "application/json");
    assert_eq!(scene.ask(request, "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn without_a_token_others_are_refused() {
    let scene = Scene::new(None);
    let request = Request::get("/records").header(HOST, "localhost").body(Full::<Bytes>::default()).expect("a request");
    let response = scene.admin.handle(request, Some(([192, 0, 2, 1], 5).into())).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
}
