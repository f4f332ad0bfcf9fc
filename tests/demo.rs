//! `onlyonce demo` as a new user sees it: the addresses that it prints, and the commands that it suggests.

#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

/// A running demo and its output.
struct Demo {
    process: Child,
    printed: String,
    /// Its folder for temporary files.
    folder: tempfile::TempDir,
}

impl Demo {
    fn start() -> Self {
        Self::listening("127.0.0.1:0")
    }

    fn listening(address: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Command::new(env!("CARGO_BIN_EXE_onlyonce"))
            .args(["demo", "--log-level", "error", "--listen", address])
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output"));
        let mut printed = String::new();
        while !printed.contains("Ctrl-C") {
            let read = lines.read_line(&mut printed).expect("text");
            assert!(read > 0, "it ended when it had printed {printed:?}");
        }
        Self { process, printed, folder }
    }

    /// The addresses in the order in which they are printed: proxy, backend, admin listener.
    fn address(&self, index: usize) -> &str {
        let url = self.printed.split("http://").nth(index + 1).expect("an address");
        url.split(['/', ' ', '\n']).next().expect("an address")
    }

    fn proxy(&self) -> &str {
        self.address(0)
    }

    fn backend(&self) -> &str {
        self.address(1)
    }

    fn curl_lines(&self) -> Vec<String> {
        let whole = self.printed.replace("\\\n    ", "");
        whole.lines().map(str::trim).filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A test may have stopped it already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// One request on a connection of its own.
fn send(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("to connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).expect("to send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";

/// The page's form, sent twice at once.
fn double_click(address: &str) -> [Answer; 2] {
    let together = Arc::new(Barrier::new(2));
    let clicks = [(); 2].map(|()| {
        let (address, together) = (address.to_owned(), Arc::clone(&together));
        thread::spawn(move || {
            together.wait();
            let body = "idempotency_key=form-1&customer=Ada+Lovelace&amount=120.00";
            send(&address, "POST", "/invoices", &[FORM, BROWSER], body)
        })
    });
    clicks.map(|click| click.join().expect("an answer"))
}

fn created(demo: &Demo) -> usize {
    send(demo.backend(), "GET", "/invoices", &[], "").body.matches("INV-").count()
}

#[test]
fn a_double_click_through_the_proxy_makes_one_invoice_and_straight_at_the_backend_two() {
    let demo = Demo::start();

    let [one, other] = double_click(demo.proxy());
    assert_eq!((one.status, other.status), (201, 201));
    assert_eq!(one.body, other.body);
    assert!(one.body.contains("Invoice <b>INV-1001</b>"), "{}", one.body);
    assert_eq!(one.header("location"), Some("/invoices/INV-1001"));
    let replayed = [&one, &other].map(|answer| answer.header("idempotent-replayed"));
    assert!(replayed == [None, Some("true")] || replayed == [Some("true"), None], "{replayed:?}");
    assert_eq!(created(&demo), 1);

    let [one, other] = double_click(demo.backend());
    assert_eq!((one.status, other.status), (201, 201));
    assert_ne!(one.body, other.body);
    assert_eq!(created(&demo), 3);

    let page = send(demo.proxy(), "GET", "/", &[BROWSER], "");
    assert!(page.body.contains("1 invoice for one key"));
    assert!(page.body.contains("2 invoices for one key"));
    let invoice = send(demo.proxy(), "GET", "/invoices/INV-1001", &[BROWSER], "");
    assert_eq!(invoice.status, 200);
}

#[test]
fn the_page_is_served_at_both_addresses_with_three_forms() {
    let demo = Demo::start();
    for address in [demo.proxy(), demo.backend()] {
        let page = send(address, "GET", "/", &[BROWSER], "");
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        for (way, target) in [("guard", demo.proxy()), ("proxy", demo.proxy()), ("backend", demo.backend())] {
            assert!(page.body.contains(&format!(" src=\"http://{target}/form/{way}\"")), "{}", page.body);
            let form = send(target, "GET", &format!("/form/{way}"), &[BROWSER], "");
            assert_eq!(form.body == send(target, "GET", &format!("/form/{way}"), &[BROWSER], "").body, way == "guard");
        }
        for (file, media) in
            [("/style.css", "text/css"), ("/page.js", "text/javascript"), ("/form.js", "text/javascript")]
        {
            let media = format!("{media}; charset=utf-8");
            assert_eq!(send(address, "GET", file, &[], "").header("content-type"), Some(media.as_str()));
        }
    }
    let script = send(demo.proxy(), "GET", "/.onlyonce/form.js", &[], "");
    assert!(script.body.contains("POST\\/invoices") && script.body.len() < 4200, "{}", script.body);
    let status = send(demo.address(2), "GET", "/", &[BROWSER], "");
    assert!(status.status == 200 && status.body.contains("<title>"), "{}", status.body);
    let metrics = send(demo.address(2), "GET", "/metrics", &[], "");
    assert!(metrics.body.contains("onlyonce_build_info"), "{}", metrics.body);
}

#[test]
fn what_it_prints_for_curl_does_what_it_says() {
    let demo = Demo::start();
    let lines = demo.curl_lines();
    let [guarded, changed, straight, list] = &lines[..] else { panic!("four lines, not {lines:?}") };

    let first = as_curl(guarded);
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    let second = as_curl(guarded);
    assert_eq!((second.status, second.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(second.body, first.body);

    let refused = as_curl(changed);
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("\"code\":\"key-reused\""), "{}", refused.body);

    assert_ne!(as_curl(straight).body, as_curl(straight).body);
    let list = as_curl(list);
    assert_eq!((list.status, list.body.matches("INV-").count()), (200, 3));
}

/// Sends what curl would send for a command line. curl is not needed.
fn as_curl(line: &str) -> Answer {
    let mut words = words(line).into_iter().skip(1);
    let (mut url, mut headers, mut data) = (String::new(), Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "-i" => {}
            "-H" => headers.extend(words.next()),
            "-d" => data.extend(words.next()),
            _ => url = word,
        }
    }
    let (address, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect("an address");
    let mut headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let method = if data.is_empty() { "GET" } else { "POST" };
    if method == "POST" {
        headers.push(FORM);
    }
    send(address, method, &format!("/{path}"), &headers, &data.join("&"))
}

/// Words of a shell, where nothing but single quotes is special.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in line.split('\'').enumerate() {
        let quoted = index % 2 == 1;
        for (index, piece) in part.split(' ').enumerate() {
            match words.last_mut() {
                Some(word) if quoted && index > 0 => *word += &format!(" {piece}"),
                Some(word) if index == 0 => *word += piece,
                _ => words.push(piece.to_owned()),
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn json_orders_are_taken_too_and_empty_ones_refused() {
    let demo = Demo::start();
    let headers = ["Content-Type: application/json", "Idempotency-Key: \"json-1\""];
    let order = r#"{"customer":"Ada","amount":120}"#;
    let [one, other] = [(); 2].map(|()| send(demo.proxy(), "POST", "/api/invoices", &headers, order));
    assert_eq!(
        (one.status, one.body.as_str()),
        (201, "{\"number\":\"INV-1001\",\"customer\":\"Ada\",\"amount\":\"120\"}\n")
    );
    assert_eq!((other.body, other.head.contains("idempotent-replayed")), (one.body, true));
    // A refusal is not stored: the key is free for the corrected order.
    let headers = ["Content-Type: application/json", "Idempotency-Key: \"json-2\""];
    assert_eq!(send(demo.proxy(), "POST", "/api/invoices", &headers, "{}").status, 422);
    assert_eq!(send(demo.proxy(), "POST", "/api/invoices", &headers, order).status, 201);
}

/// With log and output in one stream, as in a terminal, and a low limit of open files, which causes a warning.
#[test]
fn it_begins_with_what_to_do_and_fits_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = "ulimit -n 512; exec \"$0\" demo --listen 127.0.0.1:0 2>&1";
    let mut command = Command::new("sh");
    command.args(["-c", line, env!("CARGO_BIN_EXE_onlyonce")]).env("TMPDIR", folder.path());
    let mut process = command.stdout(Stdio::piped()).spawn().expect("the demo starts");
    let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines().map(|line| line.expect("text"));
    let first = lines.next().expect("a line");
    assert!(first.starts_with("onlyonce demo: "), "{first}");
    let welcome = std::iter::once(first).chain(lines.by_ref().take_while(|line| !line.contains("Ctrl-C")));
    for line in welcome {
        assert!(line.chars().count() <= 80 && !line.contains("INFO") && !line.contains("WARN"), "{line}");
    }
    // The log continues after this.
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    assert!(lines.any(|line| line.contains("INFO stopped")), "no line of the log");
    assert!(process.wait().expect("its end").success());
}

#[test]
fn ports_that_are_taken_are_passed_over() {
    let one = Demo::start();
    let other = Demo::listening(one.proxy());
    let port = |address: &str| address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    assert!(port(other.proxy()) > port(one.proxy()));
    assert_eq!(send(other.proxy(), "GET", "/", &[BROWSER], "").status, 200);
}

#[test]
fn an_interrupt_lets_the_invoice_at_work_finish_and_leaves_nothing_behind() {
    let mut demo = Demo::start();
    let kept = fs_entries(&demo);
    assert_eq!(kept, 1, "the folder of the records");
    let proxy = demo.proxy().to_owned();
    let click = thread::spawn(move || {
        send(&proxy, "POST", "/api/invoices", &[FORM, "Idempotency-Key: k"], "customer=Ada&amount=1")
    });
    let at_work = "onlyonce_in_flight{route=\"invoice-api\"} 1\n";
    while !click.is_finished() && !send(demo.address(2), "GET", "/metrics", &[], "").body.contains(at_work) {
        thread::sleep(Duration::from_millis(20));
    }
    let pid = demo.process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let status = demo.process.wait().expect("its end");
    assert!(status.success(), "{status}");
    assert_eq!(click.join().expect("an answer").status, 201);
    assert_eq!(fs_entries(&demo), 0);
}

fn fs_entries(demo: &Demo) -> usize {
    std::fs::read_dir(demo.folder.path()).expect("the folder").count()
}

#[test]
fn an_address_that_is_not_ours_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_onlyonce"))
        .args(["demo", "--listen", "192.0.2.1:8080"])
        .output()
        .expect("the demo starts");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.starts_with("error: cannot listen on 192.0.2.1:8080 or a port after it: "), "{told}");
}

/// The lines of the README, with the addresses of this demo.
#[test]
#[ignore = "tests/run --all"]
fn verify_fails_at_the_backend_and_passes_through_the_proxy() {
    let demo = Demo::start();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("onlyonce verify ")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let mut failures = 0;
    for (line, (shown, address, status, summary)) in lines.into_iter().zip([
        ("127.0.0.1:8081", demo.backend(), 1, "2 pass, 0 warn, 4 FAIL, 14 not known; 19 requests\n"),
        ("127.0.0.1:8080", demo.proxy(), 0, "17 pass, 1 warn, 0 FAIL, 2 not known; 31 requests\n"),
    ]) {
        assert!(line.contains(shown), "{line}");
        let line = line.replace(shown, address);
        let arguments = line.strip_prefix("onlyonce").expect("it begins with it");
        let command = format!("{}{arguments} --yes", env!("CARGO_BIN_EXE_onlyonce"));
        let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
        let table = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(output.status.code(), Some(status), "{table}");
        assert!(table.contains(summary), "{table}");
        failures += table.matches("\nFAIL ").count();
        // What the page shows.
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify.md")).expect("the page");
        let shown = page.lines().filter(|line| line.starts_with("           came  "));
        assert!(shown.filter(|line| table.contains(line)).count() >= 2, "{table}");
        assert!(page.contains(summary.trim_end()), "{summary}");
    }
    assert_eq!(failures, 4);
}
