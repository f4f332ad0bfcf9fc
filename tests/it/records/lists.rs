//! Lists of records, who gets them, and what cannot be asked.

use std::time::Duration;

use onlyonce::config;
use onlyonce::record::{Claim, Fingerprint, RecordName, SettledRecord, Settlement, Terms, Token, UnknownPolicy};

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
        assert_eq!(list(sidecar.admin, &["--route", "others"]).await.len(), 0);
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
    let setup = Setup::new(&backend.url()).with("admin", "token = \"open-sesame\"");
    let sidecar = setup.start().await;
    sidecar.ask(&order("k")).await;
    let url = format!("http://{}", sidecar.admin);
    let ask = async |token: Option<&str>| records_with(token, &["list", "--admin", &url]).await;
    ask(None).await.failed(1, &["unauthorized", "put your token into $ONLYONCE_ADMIN_TOKEN"]);
    let wrong = ask(Some("sesame")).await;
    wrong.failed(1, &["unauthorized", "$ONLYONCE_ADMIN_TOKEN is not a token"]);
    assert!(!format!("{}{}", wrong.out, wrong.err).contains("sesame"));
    assert!(ask(Some("open-sesame")).await.well().ends_with("1 record\n"));

    // From the configuration, like the admin listener's address.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onlyonce.toml");
    let setup = Setup::new(&backend.url()).with("admin", &format!("listen = \"{}\"", sidecar.admin));
    std::fs::write(&file, setup.clone().with("admin", "token = \"open-sesame\"").toml()).expect("written");
    let config = file.to_str().expect("UTF-8");
    assert!(records_with(None, &["list", "--config", config]).await.well().ends_with("1 record\n"));
    std::fs::write(&file, setup.with("admin", "token = \"other\"").toml()).expect("written");
    records_with(None, &["list", "--config", config]).await.failed(1, &["admin.token of the configuration file"]);

    // As a web page would send it.
    let release = post("/records/release").json("{}").by("open-sesame");
    let mut wire = Wire::connect(sidecar.admin).await;
    wire.ask(&release.clone().line("Origin: http://evil.example")).await.refuses(403, "forbidden");
    wire.ask(&post("/records/release").form("a=b").by("open-sesame")).await.refuses(415, "not-json");
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
        records_with(None, &arguments).await.failed(2, &["there is no route 'order'; did you mean 'orders'?"]);
    }
    let far = ["-c", config, "list", "--route", "shipments"];
    records_with(None, &far).await.failed(2, &["the routes of the configuration are orders"]);
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
