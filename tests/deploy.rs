//! The files in `deploy/` fit each other.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use onlyonce::config::{Config, Listen, StoreLocation, UpstreamAddress, load};

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
    assert!(config.admin.is_some_and(|admin| admin.listen.ip().is_unspecified()));
}

#[test]
fn the_configuration_names_services_of_the_compose_file() {
    let compose = fs::read_to_string(file("compose.yaml")).expect("the compose file");
    let config = configuration();
    let client_port = address(&config).port();
    let StoreLocation::Redis(redis) = config.store.location else { panic!("it should use the Redis beside it") };
    let UpstreamAddress::Http(backend) = config.upstream.address else { panic!("the backend speaks plain HTTP") };
    for host in [backend.host(), &redis.host] {
        assert!(compose.contains(&format!("\n  {host}:\n")), "compose.yaml has no service {host}");
    }
    for port in [client_port, config.admin.map_or(0, |admin| admin.listen.port())] {
        assert!(compose.contains(&format!("\"127.0.0.1:{port}:{port}\"")), "compose.yaml does not publish {port}");
    }
}
