//! The files in `deploy/` fit each other.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use onlyonce::config::{Config, Listen, RedisEndpoint, RedisServers, StoreLocation, UpstreamAddress, load};

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
    let RedisServers::One(RedisEndpoint::Tcp(redis, _)) = &redis.servers else { panic!("it should use one server") };
    for host in [backend.host(), redis] {
        assert!(compose.contains(&format!("\n  {host}:\n")), "compose.yaml has no service {host}");
    }
    for port in [client_port, config.admin.map_or(0, |admin| admin.listen.port())] {
        assert!(compose.contains(&format!("\"127.0.0.1:{port}:{port}\"")), "compose.yaml does not publish {port}");
    }
}

/// The folders at the top that files of `src` take text from when they are compiled.
fn included_folders(folder: &Path, found: &mut BTreeSet<String>) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            included_folders(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = fs::read_to_string(&path).expect("a source file");
            for name in code.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let file = folder.join(name).canonicalize().unwrap_or_else(|error| panic!("{name}: {error}"));
                let below = file.strip_prefix(top.canonicalize().expect("the repository")).expect("a file of ours");
                found.extend(below.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned()));
            }
        }
    }
}

#[test]
fn the_image_is_built_from_everything_that_the_program_is_made_of() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(top.join(name)).expect("a file");
    let (dockerfile, ignored) = (read("Dockerfile"), read(".dockerignore"));
    let mut folders = BTreeSet::from(["src".to_owned()]);
    included_folders(&top.join("src"), &mut folders);
    for folder in folders {
        assert!(dockerfile.contains(&format!("\nCOPY {folder} {folder}\n")), "the Dockerfile does not copy {folder}");
        assert!(ignored.lines().any(|line| line == format!("!{folder}")), ".dockerignore leaves {folder} out");
    }
}

/// `cargo deb` packs what the release build has made; here it is given the program of the tests.
#[test]
fn the_debian_package_has_the_program_and_its_units_where_there_is_cargo_deb() {
    let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !is_there("cargo-deb") || !is_there("dpkg-deb") {
        eprintln!("no package is built: cargo-deb or dpkg-deb is not there");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let built = folder.path().join("target/release");
    fs::create_dir_all(&built).expect("a folder");
    fs::copy(env!("CARGO_BIN_EXE_onlyonce"), built.join("onlyonce")).expect("a copy of the program");
    let (package, root) = (folder.path().join("onlyonce.deb"), folder.path().join("root"));
    let mut cargo = Command::new("cargo");
    cargo.args(["deb", "--no-build", "--no-strip", "--fast", "--output"]).arg(&package);
    cargo.env("CARGO_TARGET_DIR", folder.path().join("target")).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(Command::new("dpkg-deb").arg("-x").args([&package, &root]).status().expect("dpkg-deb").success());
    let version = Command::new(root.join("usr/bin/onlyonce")).arg("--version").output().expect("the program");
    assert!(String::from_utf8_lossy(&version.stdout).starts_with(concat!("onlyonce ", env!("CARGO_PKG_VERSION"))));
    for unit in ["onlyonce.service", "onlyonce.socket"] {
        let packed = fs::read(root.join("usr/lib/systemd/system").join(unit)).expect("a unit");
        assert_eq!(packed, fs::read(file(unit)).expect("a unit"), "{unit}");
    }
    let documents = root.join("usr/share/doc/onlyonce");
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "copyright", "examples/orders.toml"] {
        assert!(documents.join(name).is_file(), "{name} is not in the package");
    }
}
