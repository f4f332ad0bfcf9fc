//! The files in `deploy/` are consistent.

mod image;
mod kubernetes;
mod monitoring;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use onlyonce::config::{Config, Listen, RedisServers, StoreEndpoint, StoreLocation, UpstreamAddress, load};
use onlyonce::metrics::Metrics;
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn configuration() -> Config {
    load(&file("onlyonce.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn address(config: &Config) -> SocketAddr {
    let [Listen::Tcp(address)] = config.server.listen[..] else { panic!("a container is reached by one address") };
    address
}

#[test]
fn the_configuration_listens_where_a_container_is_reached() {
    let config = configuration();
    assert!(address(&config).ip().is_unspecified());
    assert!(config.admin.listen.is_some_and(|listen| listen.ip().is_unspecified()));
}

#[test]
fn the_configuration_names_services_of_the_compose_file() {
    let compose = fs::read_to_string(file("compose.yaml")).expect("the compose file");
    let config = configuration();
    let client_port = address(&config).port();
    let StoreLocation::Redis(redis) = config.store.location else { panic!("it should use the Redis beside it") };
    let UpstreamAddress::Http(backend) = config.upstream.address else { panic!("the backend speaks plain HTTP") };
    let RedisServers::One(StoreEndpoint::Tcp(redis, _)) = &redis.servers else { panic!("it should use one server") };
    for host in [backend.host(), redis] {
        assert!(compose.contains(&format!("\n  {host}:\n")), "compose.yaml has no service {host}");
    }
    for port in [client_port, config.admin.listen.map_or(0, |listen| listen.port())] {
        assert!(compose.contains(&format!("\"127.0.0.1:{port}:{port}\"")), "compose.yaml does not publish {port}");
    }
}

#[test]
fn what_the_compose_file_mounts_is_there_and_prometheus_reads_it() {
    let compose = fs::read_to_string(file("compose.yaml")).expect("the compose file");
    let mounts: Vec<_> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("- ./")?.split(':').next()).collect();
    assert!(mounts.len() >= 5, "{mounts:?}");
    for mounted in mounts {
        assert!(file(mounted).exists(), "compose.yaml mounts {mounted}");
    }
    let said = run("promtool", &["check", "config", "deploy/prometheus/prometheus.yml"], "");
    said.unwrap_or_else(|said| panic!("{said}"));
    let scraped = fs::read_to_string(file("prometheus/prometheus.yml")).expect("what Prometheus reads");
    let admin = configuration().admin.listen.map_or(0, |address| address.port());
    assert!(scraped.contains(&format!("\"onlyonce:{admin}\"")), "Prometheus does not scrape the admin listener");
}

/// Runs a program to its end with this standard input. Returns its output if it succeeds.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut process = Command::new(program)
        .args(arguments)
        .current_dir(top)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    process.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("to write");
    let output = process.wait_with_output().expect("an end");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[test]
fn the_unit_for_systemd_is_right_and_its_score_is_the_one_that_it_states() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = fs::read_to_string(file("systemd/onlyonce.service")).expect("the unit");
    // The program is not installed where this is tested.
    let here = unit.replace("ExecStart=onlyonce", concat!("ExecStart=", env!("CARGO_BIN_EXE_onlyonce")));
    let service = folder.path().join("onlyonce.service");
    fs::write(&service, here).expect("to write");
    let socket = folder.path().join("onlyonce.socket");
    fs::copy(file("systemd/onlyonce.socket"), &socket).expect("the socket");
    let names = [&service, &socket].map(|path| path.to_str().expect("UTF-8"));
    let said = run("systemd-analyze", &["verify", "--man=no", names[0], names[1]], "");
    // Messages about other units of the machine are ignored.
    let about = said.unwrap_or_else(|said| panic!("{said}"));
    assert!(!about.contains("onlyonce"), "{about}");
    let score = run("systemd-analyze", &["security", "--offline=true", names[0]], "");
    let score = score.unwrap_or_else(|said| panic!("{said}"));
    let level = score.split("Overall exposure level for onlyonce.service: ").nth(1).expect("a level");
    let level = level.split(' ').next().expect("a number");
    assert!(unit.contains(&format!("# {level} of 10")), "the unit states another score than {level}");
    assert!(level.parse::<f32>().expect("a number") < 1.5);
}
