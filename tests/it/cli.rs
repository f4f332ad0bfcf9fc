//! The command line.

mod connect;
mod file;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::support::process::{onlyonce, run};
use crate::support::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs the program with this configuration in the current folder.
fn with_config(config: &str, arguments: &[&str]) -> Output {
    let folder = folder();
    fs::write(folder.path().join("onlyonce.toml"), config).expect("a writable folder");
    run(folder.path(), arguments)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn shipped() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).expect("the shipped files");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

#[test]
fn check_is_content_with_every_shipped_file() {
    assert!(shipped().len() >= 4);
    for file in shipped() {
        let output = run(folder().path(), &["check", "--config", file.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(0), "{}: {}", file.display(), text(&output.stderr));
        let table = text(&output.stdout);
        let config = fs::read_to_string(&file).expect("a file");
        let names = config.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        for name in names {
            assert!(table.contains(name), "{} does not name {name}:\n{table}", file.display());
        }
    }
}

#[test]
fn check_speaks_json() {
    for file in shipped() {
        let arguments = ["check", "--format", "json", "--config", file.to_str().expect("UTF-8")];
        let output = run(folder().path(), &arguments);
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_else(|error| panic!("{error}"));
    }
}

const LEAST: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n[[route]]\nname = \"orders\"\npath = \"/orders\"\n\
                     scope = []\n";

#[test]
fn explain_takes_a_path_or_a_url() {
    let memory = format!("{LEAST}\n[store]\nurl = \"memory:\"\n");
    for url in ["orders", "ftp://shop.example/orders", "*", "shop.example:80"] {
        let output = with_config(&memory, &["explain", "POST", url]);
        assert_eq!(output.status.code(), Some(2), "{url}: {}", text(&output.stdout));
    }
    for url in ["/orders", "http://shop.example/orders", "https://shop.example/orders?x"] {
        assert_eq!(with_config(&memory, &["explain", "POST", url]).status.code(), Some(0), "{url}");
    }
}

/// Behind the port of the proxy is the backend: it would get the token, and the request with its credentials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_an_admin_listener_is_sent_what_is_for_one() {
    let backend = Backend::start().await;
    let admin = backend.url();
    let memory = format!("{LEAST}\n[store]\nurl = \"memory:\"\n[admin]\ntoken = \"hunter2hunter2hunter2\"\n");
    let record = "orders:0123456789abcdef0123456789abcdef";
    let all: [&[&str]; 4] = [
        &["explain", "POST", "/orders", "-H", "Authorization: Bearer hunter2", "-d", "hunter2", "--lookup"],
        &["records", "list"],
        &["records", "release", record, "--yes"],
        &["top"],
    ];
    for arguments in all {
        let (memory, admin) = (memory.clone(), admin.clone());
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>();
        let output = tokio::task::spawn_blocking(move || {
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            arguments.extend(["--admin", &admin]);
            with_config(&memory, &arguments)
        });
        let output = output.await.expect("no panic");
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(told.contains("not") && !told.contains("hunter2"), "{told}");
    }
    let seen = backend.seen();
    assert!(!seen.is_empty() && seen.iter().all(|request| request.first == "GET /status HTTP/1.1"), "{seen:?}");
    assert!(!format!("{seen:?}").contains("hunter2"), "{seen:?}");
}

#[test]
fn check_strict_takes_warnings_for_errors() {
    let config = Setup::new("http://127.0.0.1:3000").toml();
    assert_eq!(with_config(&config, &["check"]).status.code(), Some(0));
    let strict = with_config(&config, &["check", "--strict"]);
    assert_eq!(strict.status.code(), Some(2));
    assert!(text(&strict.stdout).contains("memory store"), "{}", text(&strict.stdout));
}

#[test]
fn bad_usage_is_refused() {
    for arguments in [
        &["serve", "--no-such-flag"][..],
        &["no-such-command"],
        &[],
        &["check", "--format", "xml"],
        &["serve", "--log-level", "loud"],
        &["explain"],
    ] {
        let output = run(folder().path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = taken.local_addr().expect("a bound listener has an address").to_string();
    for (table, key) in [("server", "server.listen"), ("admin", "admin.listen")] {
        let setup = Setup::new("http://127.0.0.1:3000").with(table, &format!("listen = \"{address}\""));
        let output = with_config(&setup.toml(), &["serve"]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said.contains(&address) && said.contains(key) && said.contains("another program listens there"),
            "{said}"
        );
    }
}

#[test]
fn an_embedded_store_that_cannot_be_opened_is_named() {
    let folder = folder();
    let file = folder.path().join("a-file");
    fs::write(&file, "not a folder").expect("a writable folder");
    let below = file.join("records");
    for path in [&file, &below, &PathBuf::from("/proc/no-such-folder")] {
        let setup =
            Setup::new("http://127.0.0.1:3000").with("store", &format!("url = \"embedded:{}\"", path.display()));
        let output = with_config(&setup.toml(), &["serve"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(path.to_str().expect("UTF-8")), "{said}");
    }
}

#[tokio::test]
async fn an_embedded_store_belongs_to_one_sidecar() {
    let store = Store::embedded();
    let setup = Setup::new("http://127.0.0.1:3000").store(&store);
    let _first = Process::start(&setup).await;
    let output = with_config(&setup.toml(), &["serve"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("records"), "{said}");
}

#[test]
fn help_fits_into_a_hundred_columns() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["serve", "--help"],
        &["check", "--help"],
        &["explain", "--help"],
        &["demo", "--help"],
    ] {
        let output = run(folder().path(), arguments);
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        assert!(help.contains("Usage:"), "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{arguments:?}: {line}");
        }
    }
    let version = text(&run(folder().path(), &["--version"]).stdout);
    assert_eq!(version.trim(), concat!("onlyonce ", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn explain_looks_up_what_the_store_holds_now() {
    let backend = Backend::start().await;
    for store in [Store::redis(), Store::embedded(), Store::memory()] {
        let setup = Setup::new(&backend.url()).store(&store).with("store", "digest_key = \"0123456789abcdef\"");
        let process = Process::start(&setup).await;
        let admin = format!("http://{}", process.admin);
        // Redis is asked directly; records of other stores are read through the sidecar.
        let through = if matches!(store, Store::Redis(..)) { vec![] } else { vec!["--admin", &admin] };
        let lines = ["-H", "Idempotency-Key: 17", "-H", "Authorization: Bearer alice"];
        let request = ["POST", "/orders", "-H", "Content-Type: application/json", "-d", r#"{"item":"book"}"#];
        let arguments = [&["explain", "--lookup"][..], &through, &request, &lines].concat();
        let now = || {
            let output = with_config(&setup.toml(), &arguments);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let said = text(&output.stdout);
            said.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(now().contains(" now nothing: this request would run"), "{}", now());
        process.ask(&order("17")).await;
        assert!(now().contains(" now completed with 201, "), "{}", now());
        assert!(now().contains(": this request gets that answer"), "{}", now());
    }
}

#[tokio::test]
async fn explain_looks_up_what_was_observed_where_a_route_observes() {
    let backend = Backend::start().await;
    let store = Store::redis();
    let setup = Setup::new(&backend.url()).store(&store).with("store", "digest_key = \"0123456789abcdef\"");
    let setup = setup.route("mode = \"observe\"");
    let process = Process::start(&setup).await;
    process.ask(&order("17")).await;
    let lines = ["-H", "Idempotency-Key: 17", "-H", "Authorization: Bearer alice", "-d", r#"{"item":"book"}"#];
    let arguments = [&["explain", "--lookup", "POST", "/orders"][..], &lines].concat();
    let now = || text(&with_config(&setup.toml(), &arguments).stdout);
    until("it is settled", async || now().contains("now           completed with 201, ")).await;
}

#[tokio::test]
async fn each_guarded_request_is_one_log_line_without_its_secrets() {
    let backend = Backend::start().await;
    let mut process = Process::start(&Setup::new(&backend.url())).await;
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    process.ask(&order("s3cr3t-key").by("s3cr3t-token").body("s3cr3t-body").line(trace)).await;
    process.ask(&order("s3cr3t-key").by("s3cr3t-token").body("s3cr3t-body")).await;
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.exit().await, Some(0));
    let log = process.whole_log();
    assert!(!log.contains("s3cr3t"), "{log}");
    let events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
    let requests: Vec<_> = events.filter(|event| event["message"] == "request").collect();
    let outcomes: Vec<_> = requests.iter().map(|event| event["outcome"].as_str()).collect();
    assert_eq!(outcomes, [Some("executed"), Some("replayed")], "{log}");
    let first = &requests[0];
    assert_eq!(
        (first["route"].as_str(), first["status"].as_u64(), first["attempt"].as_u64()),
        (Some("orders"), Some(201), Some(1))
    );
    assert_eq!(first["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    for field in ["record", "key", "fingerprint", "upstream_ms", "total_ms"] {
        assert!(!first[field].is_null(), "{field}: {first}");
    }
    assert_eq!(first["record"], requests[1]["record"]);
    assert_eq!(backend.only().value("traceparent"), Some(&trace["traceparent: ".len()..]));
}

#[tokio::test]
async fn keys_are_logged_as_they_came_where_that_is_wanted() {
    let backend = Backend::start().await;
    let mut process = Process::start(&Setup::new(&backend.url()).with("log", "keys = \"plain\"")).await;
    process.ask(&order("plain-key")).await;
    process.signal(rustix::process::Signal::TERM);
    process.exit().await;
    assert!(process.whole_log().contains("plain-key"));
}

#[test]
fn every_shipped_file_passes_strict() {
    for file in shipped() {
        let output = run(folder().path(), &["check", "--strict", file.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(0), "{}: {}", file.display(), text(&output.stdout));
    }
}

#[test]
fn completions_and_the_manual_come_from_the_command_line_itself() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(folder().path(), &["completions", shell]).stdout);
        assert!(script.contains("onlyonce") && script.contains("records") && script.contains("strict"), "{shell}");
    }
    let page = text(&run(folder().path(), &["man"]).stdout);
    assert!(page.contains(".TH onlyonce 1"), "{page}");
    let all = [".SH \"ONLYONCE CHECK\"", ".SH \"ONLYONCE RECORDS RELEASE\"", ".SH \"EXIT STATUS\"", ".SH ENVIRONMENT"];
    for section in all {
        assert!(page.contains(section), "{section}");
    }
    assert!(!page.contains("onlyonce\\-serve(1)"), "it is one page");
    let script = text(&run(folder().path(), &["completions", "bash"]).stdout);
    assert!(script.contains("in_flight completed unreplayable") && script.contains("error warn info"), "closed sets");
}
