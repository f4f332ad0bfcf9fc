//! The command line.

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

#[test]
fn check_connects_to_the_store_where_it_is_told_to_and_prints_what_its_user_needs() {
    let mut redis = RedisServer::start();
    let config = |prefix: &str| format!("{}\n[store]\nurl = \"{}\"\nprefix = \"{prefix}\"\n", LEAST, redis.url());
    let (first, other) = (config("onlyonce"), config("shop"));
    let output = with_config(&first, &["check", "--connect"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    assert!(told.contains(&format!("Redis at 127.0.0.1:{}: can be used", redis.port())), "{told}");
    for found in [
        "server Redis ",
        &format!(" at 127.0.0.1:{}, 0 replicas", redis.port()),
        "claims by one command: SET NX GET",
        "memory without a limit: nothing is evicted",
        "on disk nothing: a restart forgets all records. Set appendonly to yes",
    ] {
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(found), "{found}: {told}");
    }
    // As the documentation has it, and as it is enough.
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("ACL SETUSER")).collect();
    assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
    assert!(include_str!("../../docs/redis.md").contains(&lines.join("\n")), "{lines:#?}");
    redis_cli(&redis, &lines.join("\n").replace("PASSWORD", "pw"));
    let user = first.replace("redis://", "redis://onlyonce:pw@");
    let told = text(&with_config(&user, &["check", "--connect"]).stdout);
    assert!(told.contains(&format!("Redis at 127.0.0.1:{}: can be used", redis.port())), "{told}");
    let output = with_config(&other, &["check", "--connect", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let acl = report["connection"]["acl"].as_str().expect("a line for the user");
    assert!(acl.contains("~shop:* ~{shop:*") && acl.contains("&shop:*") && !acl.contains("onlyonce:"), "{acl}");

    redis.kill();
    let output = with_config(&first, &["check", "--connect"]);
    let told = text(&output.stdout);
    assert_eq!(
        (output.status.code(), told.contains("cannot be used: Redis cannot be reached")),
        (Some(1), true),
        "{told}"
    );
    assert_eq!(told.matches(&format!("127.0.0.1:{}", redis.port())).count(), 1, "{told}");
    assert_eq!(told.matches("Connection refused").count(), 1, "{told}");
    let memory = format!("{LEAST}\n[store]\nurl = \"memory:\"\n");
    assert!(text(&with_config(&memory, &["check", "--connect"]).stdout).contains("memory: nothing to connect to"));
}

/// Has a Redis carry out these commands, one on each line.
fn redis_cli(redis: &RedisServer, commands: &str) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", redis.port())).expect("a connection");
    stream
        .write_all(format!("{}\r\nQUIT\r\n", commands.replace('\n', "\r\n")).as_bytes())
        .expect("a server that reads");
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("its answers");
    assert!(!told.contains('-'), "{told}");
}

const LEAST: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n[[route]]\nname = \"orders\"\npath = \"/orders\"\n\
                     scope = []\n";

#[test]
fn check_looks_at_the_folder_of_an_embedded_store_and_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("data");
    let check = || {
        let config = format!("{LEAST}\n[store]\nurl = \"embedded:{}\"\n", path.display());
        let output = with_config(&config, &["check", "--connect"]);
        let told = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        (output.status.code(), told)
    };
    let (code, told) = check();
    assert!(code == Some(0) && told.contains("is not there yet: a start makes it"), "{told}");
    assert!(!path.exists());
    fs::write(&path, "a file").expect("a file");
    let (code, told) = check();
    assert!(code == Some(1) && told.contains("cannot be used: ") && told.contains("is not a folder"), "{told}");
    // The verdict is the last line.
    assert!(told.contains("failed (the store cannot be used): 1 route") && !told.contains("ok: "), "{told}");
    fs::remove_file(&path).expect("it is there");
    fs::create_dir(&path).expect("a folder");
    fs::write(path.join("photo.jpg"), "").expect("a file");
    let (code, told) = check();
    assert!(code == Some(1) && told.contains("is no store of onlyonce") && told.contains("photo.jpg"), "{told}");
    assert_eq!(fs::read_dir(&path).expect("a folder").count(), 1, "nothing is written");
}

#[test]
fn what_is_no_redis_is_called_so() {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let config = format!("{LEAST}\n[store]\nurl = \"redis://127.0.0.1:{port}/0\"\n");
    let output = with_config(&config, &["check", "--connect"]);
    let told = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains(&format!("Redis at 127.0.0.1:{port}: cannot be used: what answers there is no Redis")),
        "{told}"
    );
    assert!(!told.contains("Unexpected") && !told.contains("Parse error"), "{told}");
}

#[test]
fn a_configuration_is_named_once() {
    let memory = format!("{LEAST}\n[store]\nurl = \"memory:\"\n");
    for command in ["check", "serve"] {
        let output = with_config(&memory, &[command, "onlyonce.toml", "--config", "other.toml"]);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains("named twice"), "{command}: {told}");
    }
    assert_eq!(with_config(&memory, &["check", "onlyonce.toml"]).status.code(), Some(0));
    // It starts, and finds its folder of the store to be a file.
    let broken = format!("{LEAST}\n[store]\nurl = \"embedded:onlyonce.toml\"\n[admin]\nlisten = \"off\"\n");
    let output = with_config(&broken, &["serve", "onlyonce.toml"]);
    assert!(text(&output.stderr).contains("is not a folder"), "{}", text(&output.stderr));
}

#[test]
fn a_refused_file_is_json_for_programs() {
    let output = with_config("[server]\nlisten = 8080\n", &["check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let first = &report["problems"][0];
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(2), Some(10)), "{report:#}");
    assert_eq!(first["text"], "server.listen must be a string, and this is an integer");
    assert_eq!(first["help"], "an address and a port, in quotes: \"127.0.0.1:8080\"");
    let of_table = report["problems"].as_array().expect("a list").last().expect("one");
    assert_eq!(
        (&of_table["line"], of_table["text"].as_str()),
        (&serde_json::Value::Null, Some("there is no [[route]]"))
    );
}

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
fn a_broken_configuration_is_refused_with_all_its_problems() {
    let broken = "[server]\nlistn = \"127.0.0.1:1\"\n[upstream]\nurl = \"ftp://a\"\n[store]\nurl = \"memory:\"\n\
                  [[route]]\nname = \"a\"\npath = \"/a\"\nlease = \"soon\"\n";
    for arguments in [&["check"][..], &["serve"], &["explain", "POST", "/a"]] {
        let output = with_config(broken, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        for problem in ["listn", "did you mean", "ftp://a", "lease", "scope is missing", "onlyonce.toml:2:"] {
            assert!(said.contains(problem), "{problem:?} is not in:\n{said}");
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    for arguments in [&["serve"][..], &["check", "--config", "elsewhere.toml"]] {
        let output = run(folder().path(), arguments);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains("onlyonce.toml") || said.contains("elsewhere.toml"), "{said}");
        assert!(said.starts_with("error: "), "{said}");
    }
}

#[test]
fn the_environment_names_the_configuration() {
    let folder = folder();
    fs::write(folder.path().join("other.toml"), Setup::new("http://127.0.0.1:3000").toml()).expect("a writable folder");
    let mut command = process::onlyonce(&["check"]);
    command.env("ONLYONCE_CONFIG", "other.toml").current_dir(folder.path());
    assert_eq!(command.output().expect("the program").status.code(), Some(0));
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
fn init_writes_a_file_that_is_right_and_never_over_another() {
    let folder = folder();
    let first = run(folder.path(), &["init"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert!(text(&first.stdout).starts_with("wrote onlyonce.toml: "), "{}", text(&first.stdout));
    let file = folder.path().join("onlyonce.toml");
    let written = fs::read_to_string(&file).expect("it is there");
    assert_eq!(run(folder.path(), &["check"]).status.code(), Some(0));
    fs::write(&file, "mine").expect("to write");
    let again = run(folder.path(), &["init"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).starts_with("error: onlyonce.toml is there already, and stays as it is\n"));
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "mine");
    assert_eq!(run(folder.path(), &["init", "other.toml"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(folder.path().join("other.toml")).expect("it is there"), written);
    assert_eq!(run(folder.path(), &["init", "no/such/folder.toml"]).status.code(), Some(1));
}

#[test]
fn the_configuration_file_is_named_in_several_ways() {
    let folder = folder();
    let config = Setup::new("http://127.0.0.1:9").toml();
    fs::write(folder.path().join("mine.toml"), &config).expect("a writable folder");
    let status = |arguments: &[&str], variable: Option<&str>| {
        let mut command = onlyonce(arguments);
        command.current_dir(folder.path()).envs(variable.map(|value| ("ONLYONCE_CONFIG", value)));
        command.output().expect("the program").status.code()
    };
    for arguments in [&["check", "mine.toml"][..], &["check", "-c", "mine.toml"], &["check", "--config", "mine.toml"]] {
        assert_eq!(status(arguments, None), Some(0), "{arguments:?}");
        // An option overrides the environment.
        assert_eq!(status(arguments, Some("missing.toml")), Some(0), "{arguments:?}");
    }
    assert_eq!(status(&["check"], Some("mine.toml")), Some(0));
    assert_eq!(status(&["check"], None), Some(2));
    // Empty, it is not set.
    assert_eq!(status(&["check"], Some("")), Some(2));
    fs::write(folder.path().join("onlyonce.toml"), &config).expect("a writable folder");
    assert_eq!(status(&["check"], Some("")), Some(0));
    assert_eq!(status(&["explain", "-c", "mine.toml", "POST", "/orders"], Some("")), Some(0));
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
