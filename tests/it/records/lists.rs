//! Lists of records, who gets them, and what cannot be asked.

use std::time::Duration;

use onlyonce::config;
use onlyonce::record::{Claim, Fingerprint, RecordName, SettledRecord, Settlement, Terms, Token, UnknownPolicy};
use serde_json::json;

use super::*;

on_every_lasting_store! {
    async fn a_long_list_goes_over_many_pages(store: &Store) {
        let backend = Backend::start().await;
        let setup = Setup::new(&backend.url()).store(store);
        let config = config::parse("test.toml", &setup.toml(), &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let records_of = onlyonce::store::open(&config.store, Duration::ZERO).await.expect("a store");
        let terms = Terms {
            lease: Duration::from_secs(1),
            retention: Duration::from_secs(3600),
            on_unknown: UnknownPolicy::Hold(Duration::from_secs(3600)),
        };
        let fingerprint = Fingerprint { target: [0; 16], recipe: 0, body: [0; 16] };
        for number in 0..1300_u128 {
            let claim = Claim { token: Token([7; 16]), attempt: 1, terms, fingerprint, claimed_at: 0, extensions: Default::default() };
            let name = RecordName { route: "orders".into(), digest: number.to_be_bytes() };
            let record = SettledRecord::new(claim, &Settlement::Unknown, 1);
            records_of.settle(&name, &record).await.expect("settled");
        }
        drop(records_of);
        if let Store::Redis(server) = store {
            // Keys of other programs, some with similar names.
            let client = redis::Client::open(server.url()).expect("an address");
            let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
            let fill = "for i = 1, 5000 do redis.call('SET', ARGV[1] .. i, 'x') end";
            for prefix in ["session:", "onlyonce:orders:", "onlyoncely:orders:"] {
                let fill = redis::cmd("EVAL").arg(fill).arg(0).arg(prefix).query_async::<()>(&mut connection).await;
                fill.expect("filled");
            }
        }
        let sidecar = setup.start().await;
        sidecar.ask(&order("k")).await;
        assert_eq!(list(sidecar.admin, &[]).await.len(), 1301);
        assert_eq!(list(sidecar.admin, &["--route", "orders", "--state", "unknown"]).await.len(), 1300);
        records(sidecar.admin, &["list", "--route", "others"]).await.failed(2, &["no record of one"]);
        let said = records(sidecar.admin, &["list"]).await.well();
        assert!(said.ends_with("1301 records\n") && said.lines().count() == 2603);
        let release = ["release", "--route", "orders", "--state", "unknown", "--since", "1970-01-01T00:00:00Z", "--yes"];
        assert!(records(sidecar.admin, &release).await.well().contains("1300 records of orders"));
        assert_eq!(list(sidecar.admin, &[]).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_for_those_who_have_the_token() {
    let backend = Backend::start().await;
    let setup = Setup::new(&backend.url()).with("admin", "token = \"open-sesame-for-all\"");
    let sidecar = setup.start().await;
    sidecar.ask(&order("k")).await;
    let url = format!("http://{}", sidecar.admin);
    let ask = async |token: Option<&str>| records_with(token, &["list", "--admin", &url]).await;
    ask(None).await.failed(1, &["unauthorized", "put your token into $ONLYONCE_ADMIN_TOKEN"]);
    let wrong = ask(Some("sesame")).await;
    wrong.failed(1, &["unauthorized", "$ONLYONCE_ADMIN_TOKEN is not a token"]);
    assert!(!format!("{}{}", wrong.out, wrong.err).contains("sesame"));
    assert!(ask(Some("open-sesame-for-all")).await.well().ends_with("1 record\n"));

    // From the configuration, like the admin listener's address.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onlyonce.toml");
    let setup = Setup::new(&backend.url()).with("admin", &format!("listen = \"{}\"", sidecar.admin));
    std::fs::write(&file, setup.clone().with("admin", "token = \"open-sesame-for-all\"").toml()).expect("written");
    let config = file.to_str().expect("UTF-8");
    assert!(records_with(None, &["list", "--config", config]).await.well().ends_with("1 record\n"));
    std::fs::write(&file, setup.with("admin", "token = \"another-sesame-for-all\"").toml()).expect("written");
    records_with(None, &["list", "--config", config]).await.failed(1, &["admin.token of the configuration file"]);

    // As a web page would send it.
    let release = post("/records/release").json("{}").by("open-sesame-for-all");
    let mut wire = Wire::connect(sidecar.admin).await;
    wire.ask(&release.clone().line("Origin: http://evil.example")).await.refuses(403, "forbidden");
    wire.ask(&post("/records/release").form("a=b").by("open-sesame-for-all")).await.refuses(415, "not-json");
    wire.ask(&release).await.refuses(400, "bad-request");
}

#[tokio::test]
async fn what_cannot_be_asked_is_said_plainly() {
    let url = nobody();
    records_with(None, &["list", "--admin", &url]).await.failed(1, &["no sidecar answers at", &url, "onlyonce serve"]);
    let backend = Backend::start().await;
    let here = records_with(None, &["list", "--admin", &backend.url()]).await;
    here.failed(1, &["does not answer as the admin listener", "not the proxy"]);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onlyonce.toml");
    std::fs::write(&file, Setup::new(&url).with("admin", "listen = \"off\"").toml()).expect("written");
    let config = file.to_str().expect("UTF-8");
    records_with(None, &["list", "--config", config]).await.failed(2, &["the admin listener is off", "--admin URL"]);
    records_with(None, &["list"]).await.failed(2, &["onlyonce.toml"]);

    let digest = "0".repeat(32);
    let record = format!("orders:{digest}");
    for (arguments, word) in [
        (&["show", "orders"][..], "a record is named route:digest"),
        (&["list", "--state", "lost"], "in_flight, completed"),
        (&["list", "--route", "a&b"], "no route has the name"),
        (&["release"], "required"),
        (&["release", "--route", "orders", "--state", "unknown"], "--since"),
        (&["release", "--route", "orders", "--state", "unknown", "--since", "yesterday"], "2h or 3d"),
        (&["complete", &record], "--status"),
        (&["complete", &record, "--status", "200", "-H", "no colon"], "Name: value"),
        (&["complete", &record, "--status", "200", "-d", "@/nowhere"], "cannot read /nowhere"),
    ] {
        let arguments = [&["--admin", &url], arguments].concat();
        records_with(None, &arguments).await.failed(2, &[word]);
    }
}

#[tokio::test]
async fn a_route_that_there_is_not_is_an_error_with_the_nearest_name() {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&order("k")).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onlyonce.toml");
    let setup = Setup::new(&backend.url()).with("admin", &format!("listen = \"{}\"", sidecar.admin));
    std::fs::write(&file, setup.toml()).expect("a writable folder");
    let config = file.to_str().expect("UTF-8");
    records_with(None, &["-c", config, "list", "--route", "orders"]).await.well();
    let since = ["--state", "unknown", "--since", "1h"];
    for arguments in [&["list", "--route", "order"][..], &[&["release", "--route", "order"][..], &since].concat()] {
        let arguments = [&["-c", config], arguments].concat();
        let refused = &["there is no route 'order'", "did you mean 'orders'?"];
        records_with(None, &arguments).await.failed(2, refused);
    }
    let far = ["-c", config, "list", "--route", "shipments"];
    records_with(None, &far).await.failed(2, &["no route 'shipments'", "the sidecar has orders"]);
}

#[tokio::test]
async fn the_sidecar_tells_a_mistyped_route_from_one_that_was_removed() {
    let backend = Backend::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = format!("url = \"embedded:{}\"", folder.path().join("records").display());
    let setup = Setup::new(&backend.url()).with("store", &store);
    let sidecar = setup.clone().start().await;
    sidecar.ask(&order("k")).await;
    sidecar.stop().await;

    let sidecar = setup.route("name = \"invoices\"\npath = \"/invoices\"\nscope = []").start().await;
    let url = format!("http://{}", sidecar.admin);
    let admin = ["--admin", &url];
    // Of a removed route, the records are there, and it is said.
    let removed = records_with(None, &[&admin[..], &["list", "--route", "orders"]].concat()).await;
    assert!(removed.err.contains("the sidecar has no route 'orders' (any more)"), "{}", removed.err);
    assert_eq!((removed.status, removed.out.ends_with("\n1 record\n")), (Some(0), true), "{}", removed.out);
    // Of a mistyped one, none are, which is an error.
    for (name, help) in [("invoice", "did you mean 'invoices'?"), ("shipments", "the sidecar has invoices")] {
        let list = [&admin[..], &["list", "--route", name]].concat();
        let release = ["release", "--route", name, "--state", "completed", "--since", "1h", "--yes"];
        for arguments in [list, [&admin[..], &release].concat()] {
            let said = &[&*format!("there is no route '{name}', and no record of one"), help];
            records_with(None, &arguments).await.failed(2, said);
        }
    }
    // A route without records is none of these, and neither is one that is observed.
    for name in ["invoices", "invoices@observe"] {
        let none = records_with(None, &[&admin[..], &["list", "--route", name]].concat()).await;
        assert_eq!(none.well(), "0 records\n");
    }

    let page = async |route: &str| {
        let asked = request("GET", &format!("/records?route={route}")).host("localhost").line("Onlyonce-Admin: 1");
        Wire::connect(sidecar.admin).await.ask(&asked).await.json()
    };
    let missing = |route: &str, near: Value| json!({ "route": route, "near": near, "routes": ["invoices"] });
    assert_eq!(page("invoice").await["not_configured"], missing("invoice", json!("invoices")));
    assert_eq!(page("orders").await["not_configured"]["routes"], json!(["invoices"]));
    assert_eq!(page("orders").await["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(page("invoices").await.get("not_configured"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_late_for_a_moment_does_not_end_a_list() {
    let (backend, redis) = (Backend::start().await, RedisServer::start());
    let store = format!("url = \"{}\"\ntimeout = \"300ms\"", redis.url());
    let sidecar = Setup::new(&backend.url()).with("store", &store).start().await;
    until("the store is there", async || sidecar.admin("/readyz?store=1").await.status == 200).await;
    sidecar.ask(&order("k")).await;
    redis.freeze();
    let admin = sidecar.admin;
    let listing = tokio::spawn(async move { records(admin, &["list"]).await });
    until("it was late", async || sidecar.metric("onlyonce_store_errors_total{op=\"list\"}").await >= 1.0).await;
    redis.thaw();
    let listed = within("the list", listing).await.expect("no panic");
    assert!(listed.well().ends_with("1 record\n"));
    // One that stays away does, and the words are those of a look.
    redis.freeze();
    let refused = records(admin, &["list"]).await;
    refused.failed(1, &["It cannot be looked up, as", "(store-unavailable)"]);
    assert!(!refused.err.contains("may have been done"), "{}", refused.err);
    redis.thaw();
}
