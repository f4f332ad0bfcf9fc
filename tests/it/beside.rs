//! Commands that ask a running sidecar: which keys a changed file would forget, and what a request would get.

use std::net::SocketAddr;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::process::onlyonce;
use crate::support::*;

/// The output of a command, joined into one line.
struct Said {
    status: Option<i32>,
    text: String,
    /// The output as it was printed.
    lines: String,
}

impl Said {
    #[track_caller]
    fn has(&self, words: &str) -> &Self {
        assert!(self.text.contains(words), "{words:?} is not in\n{}", self.lines);
        self
    }

    #[track_caller]
    fn has_not(&self, words: &str) -> &Self {
        assert!(!self.text.contains(words), "{words:?} is in\n{}", self.lines);
        self
    }
}

/// Runs the command with this configuration and this admin token, if any.
async fn with_token(setup: &Setup, token: Option<&str>, arguments: &[&str]) -> Said {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("onlyonce.toml"), setup.toml()).expect("a writable folder");
    let mut command = onlyonce(arguments);
    command.current_dir(folder.path()).env_remove("ONLYONCE_ADMIN_TOKEN");
    if let Some(token) = token {
        command.env("ONLYONCE_ADMIN_TOKEN", token);
    }
    let output: Output = within("the command", tokio::task::spawn_blocking(move || command.output()))
        .await
        .expect("no panic")
        .expect("the program");
    let lines = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let text = lines.split_whitespace().collect::<Vec<_>>().join(" ");
    Said { status: output.status.code(), text, lines }
}

async fn said(setup: &Setup, arguments: &[&str]) -> Said {
    with_token(setup, None, arguments).await
}

/// The configuration of a sidecar that listens there.
fn at(setup: &Setup, admin: SocketAddr) -> Setup {
    setup.clone().with("admin", &format!("listen = \"{admin}\""))
}

/// The rules that the sidecar reports.
async fn rules(admin: SocketAddr) -> String {
    let told =
        Wire::connect(admin).await.ask(&request("GET", "/rules").host("localhost").line("Onlyonce-Admin: 1")).await;
    assert_eq!(told.status, 200, "{told:?}");
    told.text().to_owned()
}

const FORGOTTEN: &str = "keys that were used before are forgotten, and their requests run again when they are repeated";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_warns_of_what_the_running_sidecar_would_forget() {
    let setup = Setup::new("http://127.0.0.1:1")
        .another_route("name = \"bills\"\npath = \"/bills\"\nscope = []")
        .another_route("name = \"seen\"\npath = \"/seen\"\nscope = []\nmode = \"observe\"");
    let sidecar = setup.clone().start().await;
    let file = at(&setup, sidecar.admin);
    said(&file, &["check"]).await.has("ok: 3 routes").has_not("forgotten");
    said(&file, &["check", "--connect"]).await.has("names its records as this file does");
    let harmless = file.clone().route("retention = \"2h\"\npolicy = \"strict\"");
    said(&harmless, &["check"]).await.has_not("forgotten");

    let changed = file.clone().route("key = \"header:X-Key\"\nscope = [\"host\"]");
    let told = said(&changed, &["check"]).await;
    told.has("warning: orders: key was [header:idempotency-key], and is [header:x-key]; scope was [header:authorization], and is [host].");
    told.has(&format!("Once the sidecar at http://{} uses this file, {FORGOTTEN}", sidecar.admin));
    told.has("help: a sidecar uses a changed file within seconds").has_not("bills: key");
    assert_eq!(told.status, Some(0));
    let below = told.lines.split("\n\n").skip(1);
    let wide: Vec<&str> = below.flat_map(str::lines).filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:?}");
    assert_eq!(said(&changed, &["check", "--strict"]).await.status, Some(2));
    let json = said(&changed, &["check", "--format", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.lines).expect("JSON");
    let named = |warning: &&serde_json::Value| warning["name"] == "forgets-keys";
    let warning = json["warnings"].as_array().expect("a list").iter().find(named).expect("the warning");
    assert_eq!(warning["route"], "orders");

    // Another file, compared with this sidecar.
    let other = Setup::new("http://127.0.0.1:1")
        .route("name = \"charges\"")
        .another_route("name = \"seen\"\npath = \"/seen\"\nscope = [\"host\"]");
    let admin = format!("http://{}", sidecar.admin);
    let told = said(&other, &["check", "--admin", &admin]).await;
    told.has("orders: the route is named charges now.").has("bills: there is no such route any more.");
    told.has_not("seen:").has("see the warnings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_warns_of_another_store_and_of_another_digest_key() {
    let setup = Setup::new("http://127.0.0.1:1");
    for (runs, file, words) in [
        ("digest_key = \"0123456789abcdef\"", "digest_key = \"0123456789abcdef\"", None),
        (
            "digest_key = \"0123456789abcdef\"",
            "digest_key = \"fedcba9876543210\"",
            Some("store.digest_key was another"),
        ),
        ("", "digest_key = \"fedcba9876543210\"", Some("store.digest_key was not given, and is given.")),
        ("digest_key = \"0123456789abcdef\"", "", Some("store.digest_key was given, and is not given.")),
        ("prefix = \"a\"", "prefix = \"b\"", Some("store.prefix was a, and is b.")),
        ("", "url = \"redis://:secret@127.0.0.1:1/2\"", Some("store.url was memory:, and is redis://127.0.0.1:1/2.")),
    ] {
        let sidecar = setup.clone().with("store", runs).start().await;
        let told = said(&at(&setup, sidecar.admin).with("store", file), &["check"]).await;
        match words {
            Some(words) => drop(told.has(words).has(&format!("is started with this file, {FORGOTTEN}"))),
            None => drop(told.has_not("forgotten")),
        }
        told.has_not("0123456789abcdef").has_not("fedcba9876543210").has_not("secret");
        let asked = rules(sidecar.admin).await;
        assert!(!asked.contains("0123456789abcdef"), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_minds_neither_that_no_sidecar_is_there_nor_one_that_does_not_tell() {
    let setup = Setup::new("http://127.0.0.1:1");
    let nobody = at(&setup, nobody().trim_start_matches("http://").parse().expect("an address"));
    let begun = Instant::now();
    let told = said(&nobody, &["check"]).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(told.status, Some(0));
    told.has("ok: 1 route").has_not("sidecar ");
    said(&nobody, &["check", "--connect"]).await.has("sidecar none answers at http://127.0.0.1:");
    // A listener that never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = at(&setup, silent.local_addr().expect("an address"));
    let told = said(&silent, &["check"]).await;
    assert_eq!((told.status, told.text.contains("sidecar ")), (Some(0), false), "{}", told.lines);

    let sidecar = setup.clone().with("admin", "token = \"open-sesame-for-all\"").start().await;
    let changed = at(&setup, sidecar.admin).route("key = \"header:X-Key\"");
    let told = said(&changed, &["check"]).await;
    assert_eq!(told.status, Some(0));
    told.has_not("forgotten").has_not("admin.token").has_not("unauthorized");
    said(&changed, &["check", "--connect"]).await.has("sidecar cannot be compared with: ").has("unauthorized");
    with_token(&changed, Some("open-sesame-for-all"), &["check"]).await.has("orders: key was");
    let wrong = said(&changed, &["check", "--admin", "127.0.0.1:1"]).await;
    assert_eq!(wrong.status, Some(2));
    wrong.has("write it as http://127.0.0.1:1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_names_what_it_makes_the_sidecar_forget() {
    let setup = Setup::new("http://127.0.0.1:1").another_route("name = \"bills\"\npath = \"/bills\"\nscope = []");
    let process = Process::start(&setup).await;
    process.rewrite(&Setup::new("http://127.0.0.1:1").route("name = \"charges\""));
    process.logs("reloaded").await;
    let log = process.log();
    for words in ["the route is named charges now: keys that", "there is no such route any more: keys that"] {
        assert!(log.contains(words), "{log}");
    }
    // Files are compared with the rules that are in force now.
    let rules = rules(process.admin).await;
    assert!(rules.contains("charges") && !rules.contains("bills"), "{rules}");
}

const LINES: [&str; 4] = ["-H", "Idempotency-Key: 17", "-H", "Authorization: Bearer alice"];

fn explain<'a>(admin: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["explain", "--lookup", "--admin", admin, "-H", "Content-Type: application/json"][..], &LINES, more].concat()
}

on_every_store! {
    async fn explain_foretells_what_a_request_gets_by_what_the_sidecar_knows(store: &Store) {
        let backend = Backend::start().await;
        let setup = Setup::new(&backend.url()).store(store);
        let sidecar = setup.clone().start().await;
        let admin = format!("http://{}", sidecar.admin);
        let same = ["POST", "/orders", "-d", r#"{ "item": "book" }"#];
        let now = async |more: &[&str]| said(&setup, &explain(&admin, more)).await;
        now(&same).await.has(" now nothing: this request would run");
        let first = sidecar.ask(&order("17")).await;
        assert_eq!(first.status, 201);
        let told = now(&same).await;
        told.has(" now completed with 201, ").has(": this request gets that answer").has_not("cannot be told");
        let record = sidecar.ask(&order("17").body("{}")).await;
        assert_eq!(record.status, 422);
        // With the name in the problem.
        let name = serde_json::from_str::<serde_json::Value>(record.text()).expect("a problem")["record"].clone();
        told.has(&format!("record {}", name.as_str().expect("a name")));
        for other in [&["POST", "/orders", "-d", r#"{"item":"pen"}"#][..], &["POST", "/orders"]] {
            now(other).await.has("this request gets 422 key-reused, as the key was used with another body");
        }
        let elsewhere = ["POST", "/orders?a=b", "-d", r#"{ "item": "book" }"#];
        now(&elsewhere).await.has("422 key-reused, as the key was used with another method, path or query");
        assert_eq!(backend.count(), 1, "nothing is sent");
        // No digest of a credential with a public key.
        told.has_not("alice");
        if !matches!(store, Store::Redis(_)) {
            told.has("scope header:authorization: there").has_not("digest");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_finds_the_sidecar_that_has_the_embedded_store_by_the_file() {
    let backend = Backend::start().await;
    let store = Store::embedded();
    let setup = Setup::new(&backend.url()).store(&store).route("on_mismatch = \"conflict\"");
    let sidecar = setup.clone().start().await;
    let file = at(&setup, sidecar.admin);
    sidecar.ask(&order("17")).await;
    let arguments = [&["explain", "--lookup", "POST", "/orders", "-d", "[]"][..], &LINES].concat();
    let told = said(&file, &arguments).await;
    told.has("this request gets 409 key-reused, as the key was used with another body");
    // Without `--lookup`, it says how to look the record up.
    let arguments = [&["explain", "POST", "/orders"][..], &LINES].concat();
    said(&file, &arguments).await.has("its digest cannot be told: ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_where_the_sidecar_goes_by_other_rules_than_the_file() {
    let setup = Setup::new("http://127.0.0.1:1").with("store", "digest_key = \"0123456789abcdef\"");
    let sidecar = setup.clone().route("path = \"/elsewhere\"").start().await;
    let admin = format!("http://{}", sidecar.admin);
    let told = said(&setup, &explain(&admin, &["POST", "/orders"])).await;
    told.has("the sidecar does not guard this request");
    let sidecar = setup.clone().route("scope = []").start().await;
    let admin = format!("http://{}", sidecar.admin);
    let told = said(&setup, &explain(&admin, &["POST", "/orders"])).await;
    told.has("the sidecar calls the record orders:").has("is another than in this file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sidecar_knows_is_for_those_who_may_see_records() {
    let sidecar = Setup::new("http://127.0.0.1:1").with("admin", "token = \"open-sesame-for-all\"").start().await;
    sidecar.admin("/rules").await.refuses(401, "unauthorized");
    let asked = post("/explain").json(r#"{"method":"POST","url":"/orders"}"#);
    Wire::connect(sidecar.admin).await.ask(&asked).await.refuses(401, "unauthorized");
    let sidecar = Setup::new("http://127.0.0.1:1").start().await;
    for (body, words) in [
        (r#"{"method":"P OST","url":"/orders"}"#, "is no method"),
        (r#"{"method":"POST","url":" "}"#, "The URL cannot be read"),
        (r#"{"method":"POST","url":"/","headers":[["a b","c"]]}"#, "is no header name"),
        (r#"{"method":"POST","url":"/","headers":[["a","s3cret\n"]]}"#, "The value of a has characters"),
        (r#"{"method":"POST","url":"/","body_base64":"?"}"#, "body_base64"),
        ("[]", "The body is not right"),
    ] {
        let asked = Request::to_host("/explain", "localhost").line("Onlyonce-Admin: 1").json(body);
        let refused = Wire::connect(sidecar.admin).await.ask(&asked).await;
        refused.refuses(400, "bad-request");
        assert!(refused.text().contains(words) && !refused.text().contains("s3cret"), "{}", refused.text());
    }
    let asked = request("GET", "/explain").host("localhost").line("Onlyonce-Admin: 1");
    Wire::connect(sidecar.admin).await.ask(&asked).await.refuses(405, "method-not-allowed");
    let asked = Request::to_host("/rules", "localhost").line("Onlyonce-Admin: 1").json("{}");
    Wire::connect(sidecar.admin).await.ask(&asked).await.refuses(405, "method-not-allowed");
}
