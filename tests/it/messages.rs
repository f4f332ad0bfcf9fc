//! What the program says when something is wrong, read at 80 columns: no line is wider, and a cause is told once.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::onlyonce;
use crate::support::*;

/// A command, run in this folder: its exit status, and what it says, once, on whichever line.
struct Fault<'a> {
    arguments: &'a [&'a str],
    status: i32,
    says: &'a str,
}

fn fault<'a>(arguments: &'a [&'a str], status: i32, says: &'a str) -> Fault<'a> {
    Fault { arguments, status, says }
}

/// It ends by itself, or is ended after a while.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = onlyonce(arguments);
    command.current_dir(folder).env_remove("ONLYONCE_ADMIN_TOKEN");
    command.output().expect("the program")
}

/// Log lines are not for a terminal of 80 columns, and begin with their time.
fn is_logged(line: &str) -> bool {
    line.starts_with("20") && line.contains("Z ")
}

/// A path or a name cannot be broken.
fn is_one_word(line: &str) -> bool {
    line.trim_start().trim_start_matches("error: ").split(' ').count() == 1
}

#[track_caller]
fn check(folder: &Path, fault: &Fault<'_>) {
    let Fault { arguments, status, says } = fault;
    let output = run(folder, arguments);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("UTF-8");
    assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {said}");
    for line in said.lines().filter(|line| !is_logged(line) && !is_one_word(line)) {
        assert!(line.chars().count() <= 80, "{arguments:?} says more than 80 columns:\n{line}\n\n{said}");
    }
    let words: Vec<&str> = said.split_whitespace().collect();
    let words = words.join(" ");
    assert_eq!(words.matches(says).count(), 1, "{arguments:?} should say once: {says}\n{said}");
    assert!(!words.contains("Some(") && !words.contains("Os {") && !words.contains("Error("), "{said}");
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("onlyonce.toml"), config("url = \"memory:\"")).expect("a writable folder");
    folder
}

fn config(store: &str) -> String {
    let mut setup = Setup::new("http://127.0.0.1:3000").with("store", "timeout = \"500ms\"").with("store", store);
    setup = setup.route("accept = [\"authorization-as-caller\"]");
    setup.toml()
}

const RECORD: &str = "orders:0123456789abcdef0123456789abcdef";
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn bad_usage_is_told_in_80_columns() {
    let folder = folder();
    let long = format!("@/{}", "no-such-folder/".repeat(10));
    for fault in [
        fault(&["srve"], 2, "unrecognized subcommand 'srve'"),
        fault(&["serve", "--log-format", "xml"], 2, "invalid value 'xml' for '--log-format <FORMAT>'"),
        fault(&["serve", "--log-level", "loud"], 2, "invalid value 'loud' for '--log-level <LEVEL>'"),
        fault(&["explain", "POST"], 2, "required arguments were not provided"),
        fault(&["explain", "PO ST", "/"], 2, "invalid value 'PO ST' for '<METHOD>'"),
        fault(&["explain", "POST", "/orders", "-H", "a b: c"], 2, "the colon is no header name"),
        fault(&["explain", "POST", "/orders", "-d", &long], 2, "No such file or directory (os error 2)"),
        fault(&["explain", "POST", "/orders", "-d", "a", "--json", "b"], 2, "cannot be used with '--json <BODY>'"),
        fault(&["demo", "--listen", "nothing"], 2, "an IP address and a port are right, as 127.0.0.1:8080"),
        fault(&["completions", "nushell"], 2, "invalid value 'nushell' for '<SHELL>'"),
        fault(&["top", "extra"], 2, "unexpected argument 'extra' found"),
        fault(
            &["records", "list", "--state", "gone"],
            2,
            "possible values: in_flight, completed, unreplayable, unknown, unreadable",
        ),
        fault(&["records", "show", "bogus"], 2, "a record is named route:digest, and the digest is 32 hex digits"),
        fault(&["records", "release"], 2, "<RECORD>"),
        fault(&["records", "release", "--route", "orders"], 2, "--since <T>"),
        fault(
            &["records", "release", "--route", "orders", "--state", "unknown", "--since", "yesterday"],
            2,
            "write it as 2026-11-21T19:30:00Z, or as a duration ago, as 2h or 3d",
        ),
        fault(&["records", "complete", RECORD, "--status", "201", "-H", "broken"], 2, "write it as 'Name: value'"),
        fault(&["records", "list", "--admin", "https://127.0.0.1:9464"], 2, "the admin listener speaks plain HTTP"),
        fault(&["records", "list"], 2, "error: admin.listen in onlyonce.toml is any free port"),
        fault(&["records", "list", "-c", "gone.toml"], 2, "error: there is no file gone.toml"),
        fault(&["top", "-c", "gone.toml"], 2, "error: there is no file gone.toml"),
    ] {
        check(folder.path(), &fault);
    }
}

#[test]
fn what_cannot_be_reached_or_read_is_told_in_80_columns() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("bytes.toml"), b"\xff\xfe").expect("a writable folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let taken = taken.local_addr().expect("a bound listener has an address");
    for (name, table, keys) in [
        ("taken.toml", "server", format!("listen = \"{taken}\"")),
        ("admin.toml", "admin", format!("listen = \"{taken}\"")),
        ("nowhere.toml", "server", "listen = \"192.0.2.1:80\"".to_owned()),
        ("socket.toml", "server", "listen = \"unix:/no-such-folder/in.sock\"".to_owned()),
    ] {
        fs::write(at(name), Setup::new("http://127.0.0.1:3000").with(table, &keys).toml()).expect("a writable folder");
    }
    let listed = ["records", "list", "--admin", NOBODY];
    let data = ["records", "complete", RECORD, "--status", "201", "-d", "@gone", "--admin", NOBODY];
    for fault in [
        fault(&listed, 1, "no sidecar answers at http://127.0.0.1:1: Connection refused (os error 111)"),
        fault(&["top", "--admin", NOBODY], 1, "Connection refused (os error 111)"),
        fault(&["check", "--admin", NOBODY], 0, "none answers at http://127.0.0.1:1"),
        fault(&["records", "show", RECORD, "--admin", "http://nowhere.invalid:1"], 1, "no sidecar answers at"),
        fault(&data, 2, "cannot read gone: No such file or directory (os error 2)"),
        fault(&["check", "gone.toml"], 2, "error: there is no file gone.toml"),
        fault(&["check", "bytes.toml"], 2, "bytes.toml is not UTF-8 text"),
        fault(&["check", "."], 2, "error: . is a folder"),
        fault(&["serve", "-c", "taken.toml"], 1, "another program listens there; stop it, or choose another port"),
        fault(&["serve", "-c", "admin.toml"], 1, "another program listens there; stop it, or choose another port"),
        fault(&["serve", "-c", "nowhere.toml"], 1, "this machine has no such address"),
        fault(&["serve", "-c", "socket.toml"], 1, "its folder is not there; make it, or choose another path"),
        fault(&["init", "onlyonce.toml"], 2, "onlyonce.toml is there already, and stays as it is"),
        fault(&["init", "no/such/folder.toml"], 1, "cannot be written: No such file or directory (os error 2)"),
        fault(&["demo", "--listen", "192.0.2.1:80"], 1, "cannot listen on 192.0.2.1:80 or a port after it"),
    ] {
        check(folder.path(), &fault);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_store_that_cannot_be_used_is_told_in_80_columns() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let store = |name: &str, url: &str| {
        fs::write(at(name), config(&format!("url = \"embedded:{url}\""))).expect("a writable folder");
    };
    fs::create_dir(at("other")).expect("a folder");
    fs::write(at("other/thing"), "").expect("a writable folder");
    fs::write(at("file"), "").expect("a writable folder");
    for (name, url) in
        [("other.toml", "other"), ("file.toml", "file"), ("proc.toml", "/proc/no-store-here"), ("used.toml", "used")]
    {
        store(name, url);
    }
    let used = Process::start_with(&at("used.toml")).await;
    for fault in [
        fault(&["serve", "-c", "other.toml"], 1, "is no store of onlyonce, and not empty: `thing` is in it"),
        fault(&["serve", "-c", "file.toml"], 1, "is not a folder"),
        fault(&["serve", "-c", "proc.toml"], 1, "No such file or directory (os error 2)"),
        fault(&["serve", "-c", "used.toml"], 1, "another onlyonce uses"),
    ] {
        check(folder.path(), &fault);
    }
    drop(used);
    // What is there is not whole, or not readable.
    let entries = || fs::read_dir(at("used")).expect("the store").map(|entry| entry.expect("an entry").path());
    let gone = entries().find(|path| path.to_string_lossy().contains("manifest")).or_else(|| entries().next());
    fs::remove_file(gone.expect("a file")).expect("a file of ours");
    let output = run(folder.path(), &["serve", "-c", "used.toml"]);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().all(|line| is_logged(line) || is_one_word(line) || line.chars().count() <= 80), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_be_used_is_told_in_80_columns() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let locked = RedisServer::start_with(&["--requirepass", "pw"]);
    let small = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let primary = RedisServer::start();
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]);
    until("the replica follows", async || {
        let mut wire = Wire::connect(([127, 0, 0, 1], replica.port()).into()).await;
        wire.send("INFO replication\r\nQUIT\r\n").await;
        String::from_utf8_lossy(&wire.rest().await).contains("master_link_status:up")
    })
    .await;
    let mut wire = Wire::connect(([127, 0, 0, 1], primary.port()).into()).await;
    wire.send("ACL SETUSER somebody on >pw +@all -evalsha ~*\r\nQUIT\r\n").await;
    wire.rest().await;
    let host = |server: &RedisServer| format!("127.0.0.1:{}", server.port());
    for (name, url) in [
        ("nobody.toml", "redis://127.0.0.1:1".to_owned()),
        ("nowhere.toml", "redis://nowhere.invalid:6379".to_owned()),
        ("sentinel.toml", "redis+sentinel://127.0.0.1:1/mymaster".to_owned()),
        ("open.toml", format!("redis://{}", host(&locked))),
        ("wrong.toml", format!("redis://:wrong@{}", host(&locked))),
        ("tls.toml", format!("rediss://{}", host(&primary))),
        ("evicting.toml", format!("redis://{}", host(&small))),
        ("replica.toml", format!("redis://{}", host(&replica))),
        ("rights.toml", format!("redis://somebody:pw@{}", host(&primary))),
    ] {
        fs::write(at(name), config(&format!("url = \"{url}\""))).expect("a writable folder");
    }
    for (name, says) in [
        ("nobody.toml", "Redis cannot be reached: Connection refused (os error 111)"),
        ("nowhere.toml", "failed to lookup address information"),
        ("sentinel.toml", "no sentinel names a primary \"mymaster\": Connection refused (os error 111)"),
        ("open.toml", "Redis does not accept the user and password"),
        ("wrong.toml", "Redis does not accept the user and password"),
        ("tls.toml", "no TLS with Redis"),
        ("evicting.toml", "Redis may evict records (maxmemory-policy allkeys-lru)"),
        ("replica.toml", "Redis refuses to work"),
        ("rights.toml", "Redis lacks EVALSHA, or refuses it to this user"),
    ] {
        check(folder.path(), &fault(&["check", "--connect", name], 1, says));
    }
    // A reason not to start is told once, in the log too.
    let evicting = "Redis may evict records (maxmemory-policy allkeys-lru)";
    check(folder.path(), &fault(&["serve", "-c", "evicting.toml"], 1, evicting));
    // The rule of the user is there to be copied, and nowhere else.
    let said = String::from_utf8(run(folder.path(), &["check", "--connect", "rights.toml"]).stdout).expect("UTF-8");
    assert_eq!(said.matches("+evalsha").count(), 1, "{said}");
}

#[test]
fn a_fatal_error_is_a_line_of_json_where_the_log_is() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let taken = format!("listen = \"{}\"", taken.local_addr().expect("a bound listener has an address"));
    fs::write(at("taken.toml"), Setup::new("http://127.0.0.1:3000").with("server", &taken).toml()).expect("written");
    fs::write(at("file"), "").expect("a writable folder");
    fs::write(at("file.toml"), config("url = \"embedded:file\"")).expect("a writable folder");
    fs::write(at("wrong.toml"), config("url = \"nothing:\"")).expect("a writable folder");
    fs::write(at("broken.toml"), "[log]\nformat = \"json\"\n[server\n").expect("a writable folder");
    let json = ["--log-format", "json"];
    for (name, options, status, says) in [
        ("taken.toml", &json[..], 1, "another program listens there"),
        ("file.toml", &json, 1, "is not a folder"),
        ("wrong.toml", &json, 2, "store.url names no kind of store that there is"),
        ("gone.toml", &json, 2, "there is no file gone.toml"),
        ("broken.toml", &[], 2, "broken.toml:3:"),
    ] {
        let output = run(folder.path(), &[&["serve", "-c", name], options].concat());
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{name}: {said}");
        let lines =
            said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{name}: {line}")));
        let fatal: Vec<Value> = lines.filter(|line| line["level"] == "ERROR").collect();
        assert_eq!(fatal.len(), 1, "{name}: {said}");
        assert!(fatal[0]["message"].as_str().is_some_and(|message| message.contains(says)), "{name}: {}", fatal[0]);
        assert_eq!(said.matches(says).count(), 1, "{name}: {said}");
    }
}
