//! HTTP libraries without support for idempotency: with their own retries, or in a typical retry loop.

use std::process::Command;

use super::node;
use super::peer::{beside, built, python};
use super::trial::{Client, clients};

const PATH: &str = "/orders";
const RULE: &str = "";

fn with(program: &str, arguments: &[&str], script: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(beside("clients").join(script));
    command
}

fn curl(protocol: &str) -> Command {
    let mut command = with("bash", &[], "curl_retry.sh");
    command.env("CURL_PROTOCOL", protocol);
    command
}

fn go() -> Command {
    let mut command = with("go", &["run"], "net_http.go");
    // It has no dependencies, and builds into the folder of the other builds.
    command.env("GO111MODULE", "off").env("GOCACHE", built("peers-go"));
    command
}

clients! {
    fetch = Client {
        name: "fetch of Node, in a loop", path: PATH, rule: RULE, raises: false,
        command: || node::client("fetch.mjs"),
    };
    requests = Client {
        name: "requests (Python), urllib3's `Retry`", path: PATH, rule: RULE, raises: false,
        command: || python("clients/requests_retry.py"),
    };
    #[ignore = "tests/run --all"]
    curl_http_1 = Client {
        name: "curl `--retry --retry-all-errors`", path: PATH, rule: RULE, raises: false,
        command: || curl("--http1.1"),
    };
    #[ignore = "tests/run --all"]
    curl_http_2 = Client {
        name: "the same with `--http2`", path: PATH, rule: RULE, raises: false,
        command: || curl("--http2"),
    };
    #[ignore = "tests/run --all"]
    http_of_node = Client {
        name: "`http` of Node, in a loop", path: PATH, rule: RULE, raises: false,
        command: || node::client("node_http.mjs"),
    };
    #[ignore = "tests/run --all"]
    undici = Client {
        name: "undici (Node), `RetryAgent`", path: PATH, rule: RULE, raises: false,
        command: || node::client("undici.mjs"),
    };
    #[ignore = "tests/run --all"]
    got = Client {
        name: "got (Node), `retry`", path: PATH, rule: RULE, raises: true,
        command: || node::client("got.mjs"),
    };
    #[ignore = "tests/run --all"]
    axios = Client {
        name: "axios (Node), axios-retry", path: PATH, rule: RULE, raises: true,
        command: || node::client("axios.mjs"),
    };
    #[ignore = "tests/run --all"]
    http_client_of_python = Client {
        name: "`http.client` of Python, in a loop", path: PATH, rule: RULE, raises: false,
        command: || python("clients/http_client.py"),
    };
    #[ignore = "tests/run --all"]
    httpx = Client {
        name: "httpx (Python), tenacity", path: PATH, rule: RULE, raises: true,
        command: || python("clients/httpx_tenacity.py"),
    };
    #[ignore = "tests/run --all"]
    java = Client {
        name: "`HttpClient` of Java, in a loop", path: PATH, rule: RULE, raises: false,
        command: || with("java", &[], "HttpClientInALoop.java"),
    };
    #[ignore = "tests/run --all"]
    net_http_of_go = Client {
        name: "`net/http` of Go, in a loop", path: PATH, rule: RULE, raises: false, command: go,
    };
    #[ignore = "tests/run --all"]
    curl_of_php = Client {
        name: "curl of PHP, in a loop", path: PATH, rule: RULE, raises: false,
        command: || with("php", &[], "curl.php"),
    };
    #[ignore = "tests/run --all"]
    guzzle = Client {
        name: "Guzzle (PHP), `Middleware::retry`", path: PATH, rule: RULE, raises: true,
        command: || with("php", &[], "guzzle.php"),
    };
    #[ignore = "tests/run --all"]
    net_http_of_ruby = Client {
        name: "`net/http` of Ruby, in a loop", path: PATH, rule: RULE, raises: false,
        command: || with("ruby", &[], "net_http.rb"),
    };
}
