//! The files in `deploy/` are consistent.

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

/// The root of the image, with the program of the tests: no library, certificate or file of the C library is missing.
#[test]
fn the_program_runs_in_the_root_of_its_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    make_root(Path::new(env!("CARGO_BIN_EXE_onlyonce")), &root);
    runs_in(&root);
}

fn make_root(program: &Path, root: &Path) {
    let paths = [program, root].map(|path| path.to_str().expect("UTF-8"));
    run("deploy/image/root", &paths, "").unwrap_or_else(|said| panic!("{said}"));
}

fn runs_in(root: &Path) {
    let write = |store: &str| {
        let rest = "[server]\nlisten = \"0.0.0.0:8080\"\n[upstream]\nurl = \"https://backend.example\"\n\
                    [[route]]\nname = \"orders\"\npath = \"/orders\"\nscope = []\n";
        let configuration = format!("{rest}[store]\nurl = \"{store}\"\n");
        fs::write(root.join("etc/onlyonce.toml"), configuration).expect("a configuration");
    };
    let inside = |arguments: &[&str]| {
        let root = root.to_str().expect("UTF-8");
        let user = ["--userspec=onlyonce:onlyonce", root, "/usr/local/bin/onlyonce"];
        let is_root = run("id", &["-u"], "").is_ok_and(|id| id.trim() == "0");
        let chroot = if is_root { vec!["chroot", user[0]] } else { vec!["unshare", "--map-root-user", "chroot"] };
        run(chroot[0], &[&chroot[1..], &user[1..], arguments].concat(), "")
    };
    let version = inside(&["--version"]).unwrap_or_else(|said| panic!("{said}"));
    assert!(version.starts_with(concat!("onlyonce ", env!("CARGO_PKG_VERSION"))), "{version}");
    write("embedded:/var/lib/onlyonce");
    inside(&["check", "/etc/onlyonce.toml"]).unwrap_or_else(|said| panic!("{said}"));

    // Names are looked up, as containers and pods are named. Nothing listens on the first port.
    fs::write(root.join("etc/hosts"), "127.0.0.1 store.example\n").expect("a file");
    for (host, why) in [("store.example", "refused"), ("other.example", "lookup address")] {
        write(&format!("redis://{host}:1"));
        let said = inside(&["check", "--connect", "/etc/onlyonce.toml"]).expect_err("there is no store");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(why), "{host}: {said}");
    }

    fs::remove_file(root.join("etc/ssl/certs/ca-certificates.crt")).expect("the certificates");
    write("embedded:/var/lib/onlyonce");
    let said = inside(&["check", "/etc/onlyonce.toml"]).expect_err("a backend over TLS needs certificates");
    assert!(said.contains("certificate"), "{said}");
}

/// As in the Dockerfile, whose own build needs an image to begin with.
#[test]
#[ignore = "tests/run --all"]
fn the_image_has_less_than_17_megabytes_and_its_static_program_runs() {
    let dockerfile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).expect("a file");
    let flags = "-C target-feature=+crt-static";
    assert!(dockerfile.contains(&format!("RUSTFLAGS=\"{flags}\"")), "the Dockerfile builds otherwise");
    let version = run("rustc", &["-vV"], "").unwrap_or_else(|said| panic!("{said}"));
    let target = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--bin", "onlyonce", "--target", target])
        .env("RUSTFLAGS", flags)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.expect("cargo").success());
    // Test programs are two folders below that of all builds.
    let own = std::env::current_exe().expect("a path");
    let program = own.ancestors().nth(3).expect("the folder of builds").join(target).join("release/onlyonce");
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    make_root(&program, &root);
    let sizes = run("find", &[root.to_str().expect("UTF-8"), "-type", "f", "-printf", "%s %P\n"], "").expect("files");
    let size: u64 =
        sizes.lines().map(|line| line.split(' ').next().expect("a size").parse::<u64>().expect("a size")).sum();
    println!("{size} bytes:\n{sizes}");
    assert!(size < 17_000_000, "{size} bytes:\n{sizes}");
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy.md")).expect("a page");
    let stated = docs.split("Unpacked it has ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a size");
    let stated: f64 = stated.parse().expect("a size in MB");
    assert!((stated - size as f64 / 1e6).abs() < 0.5, "docs/deploy.md says {stated} MB, and it has {size} bytes");
    runs_in(&root);
}

/// The top-level folders from which `src` includes files.
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
    // With what is copied, cargo knows what to build: files of tests and benchmarks are not there.
    let context = tempfile::tempdir().expect("a folder");
    let copied =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    for name in copied.flat_map(|line| line.rsplit_once(' ').expect("a target").0.split(' ')) {
        let place = context.path().join(name);
        fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
        run("cp", &["-r", name, place.to_str().expect("UTF-8")], "").unwrap_or_else(|said| panic!("{said}"));
    }
    let manifest = context.path().join("Cargo.toml");
    let manifest = ["--manifest-path", manifest.to_str().expect("UTF-8")];
    let fetched = run("cargo", &[&["fetch", "--offline", "--locked"], &manifest[..]].concat(), "");
    // Crates that are not at hand do not matter here.
    assert!(
        !fetched.is_err_and(|said| said.contains("parse manifest")),
        "the manifest names files that are not copied"
    );
    // `cargo install` takes a whole version, or a requirement that says so.
    let installed = dockerfile.split_whitespace().filter_map(|word| word.split_once('@'));
    let installed: Vec<_> = installed.filter(|(name, _)| name.starts_with("cargo-")).collect();
    assert_eq!(installed.len(), 2, "{installed:?}");
    for (name, version) in installed {
        assert!(version.starts_with(['^', '~', '=']) || version.split('.').count() == 3, "{name}@{version}");
    }
    for folder in folders {
        assert!(dockerfile.contains(&format!("\nCOPY {folder} {folder}\n")), "the Dockerfile does not copy {folder}");
        assert!(ignored.lines().any(|line| line == format!("!{folder}")), ".dockerignore leaves {folder} out");
    }
}

/// `cargo deb` packs a release build; here it gets the program of the tests.
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
        assert_eq!(packed, fs::read(file("systemd").join(unit)).expect("a unit"), "{unit}");
    }
    let documents = root.join("usr/share/doc/onlyonce");
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "copyright", "examples/orders.toml"] {
        assert!(documents.join(name).is_file(), "{name} is not in the package");
    }
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

/// All metrics, for every kind of route.
fn exposition() -> String {
    let metrics = Metrics::new().expect("metrics");
    metrics.route("orders");
    metrics.observed_route("orders");
    metrics.asking_route("orders");
    metrics.probed_route("orders");
    metrics.store_left_behind(0);
    metrics.render().expect("an exposition")
}

#[test]
fn promtool_has_nothing_to_say_of_the_metrics() {
    let said = run("promtool", &["check", "metrics"], &exposition());
    assert_eq!(said.as_deref(), Ok(""), "promtool check metrics");
}

#[test]
fn alert_rules_are_right_and_fire_when_they_should() {
    for arguments in
        [["check", "rules", "deploy/prometheus/rules.yml"], ["test", "rules", "tests/prometheus/rules_test.yml"]]
    {
        run("promtool", &arguments, "").unwrap_or_else(|said| panic!("{said}"));
    }
}

/// The names of alerts, and where their runbook is.
fn alerts() -> Vec<(String, String)> {
    let rules = fs::read_to_string(file("prometheus/rules.yml")).expect("the rules");
    let alerts = rules.split("- alert: ").skip(1).map(|rule| {
        let name = rule.lines().next().expect("a name").trim().to_owned();
        let runbook = rule.lines().find_map(|line| line.trim().strip_prefix("runbook_url: ")).expect("a runbook");
        (name, runbook.to_owned())
    });
    alerts.collect()
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_a_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(top.join(name)).expect("a file");
    let (runbook, tests) = (read("docs/runbook.md"), read("tests/prometheus/rules_test.yml"));
    let entries: Vec<&str> = runbook.split("\n## ").skip(1).collect();
    let alerts = alerts();
    assert_eq!(alerts.len(), entries.len(), "alerts, and entries of the runbook");
    for (name, link) in alerts {
        assert_eq!(link, format!("docs/runbook.md#{}", name.to_lowercase()));
        let entry =
            entries.iter().find(|entry| entry.lines().next() == Some(&name)).unwrap_or_else(|| panic!("{name}"));
        for part in ["**It means:**", "**Look at:**", "**Do:**", "**Do not:**"] {
            assert!(entry.contains(part), "{name} does not say: {part}");
        }
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} is not tested");
    }
}

/// The names of metrics in an expression, as they are in an exposition.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("onlyonce_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn every_panel_and_every_alert_asks_for_metrics_that_there_are() {
    let exposition = exposition();
    let exists = |metric: &str| {
        exposition.lines().any(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])))
    };
    let dashboard = fs::read_to_string(file("grafana/onlyonce.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row");
    let mut rules = String::from("groups:\n- name: panels\n  rules:\n");
    let mut asked = BTreeSet::new();
    for (number, panel) in panels.enumerate() {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty() && panel["description"].is_string(), "{title}");
        for (target, letter) in targets.iter().zip('a'..) {
            let expression = target["expr"].as_str().expect("an expression");
            let metrics = metrics_of(expression);
            assert!(!metrics.is_empty(), "{title}");
            metrics.iter().for_each(|metric| assert!(exists(metric), "{title}: there is no {metric}"));
            asked.extend(metrics);
            // A variable of Grafana.
            let expression = Value::from(expression.replace("$__rate_interval", "5m"));
            rules.push_str(&format!("  - record: panel:{letter}{number}\n    expr: {expression}\n"));
        }
    }
    // Every metric is on some panel.
    for line in exposition.lines().filter_map(|line| line.strip_prefix("# TYPE onlyonce_")) {
        let metric = format!("onlyonce_{}", line.split(' ').next().expect("a name"));
        assert!(asked.iter().any(|asked| asked.starts_with(&metric)), "no panel shows {metric}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let queries = folder.path().join("panels.yml");
    fs::write(&queries, rules).expect("to write");
    run("promtool", &["check", "rules", queries.to_str().expect("UTF-8")], "").unwrap_or_else(|said| panic!("{said}"));
    let alerts = fs::read_to_string(file("prometheus/rules.yml")).expect("the rules");
    let alerts = alerts.lines().filter(|line| !line.trim_start().starts_with(['#', '-']));
    for metric in alerts.flat_map(metrics_of) {
        assert!(exists(&metric), "there is no {metric}");
    }
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

#[test]
fn the_kubernetes_overlays_are_built_and_their_rules_are_right() {
    let text = fs::read_to_string(file("kubernetes/base/onlyonce.toml")).expect("the rules");
    for (overlay, upstream) in [("beside-backend", "http://127.0.0.1:3000"), ("gateway", "http://backend:3000")] {
        let built = run("kubectl", &["kustomize", &format!("deploy/kubernetes/{overlay}")], "");
        let built = built.unwrap_or_else(|said| panic!("{overlay}: {said}"));
        for kind in ["Deployment", "Service", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget"] {
            assert!(built.contains(&format!("\nkind: {kind}\n")), "{overlay} has no {kind}");
        }
        for part in ["startupProbe:", "readinessProbe:", "livenessProbe:", "preStop:", "readOnlyRootFilesystem: true"] {
            assert!(built.contains(part), "{overlay} has no {part}");
        }
        // The labels for the network policy and the disruption budget.
        assert_eq!(built.matches("onlyonce: guards").count(), 3, "{overlay}");
        let set = environment_of(&built);
        assert_eq!(set.get("ONLYONCE_UPSTREAM").map(String::as_str), Some(upstream), "{overlay}: {set:?}");
        let config = onlyonce::config::parse("onlyonce.toml", &text, &|name: &str| set.get(name).cloned());
        let config = config.unwrap_or_else(|error| panic!("{overlay}: {error}"));
        let grace = std::time::Duration::from_secs(60);
        assert!(config.server.drain_delay + config.server.drain_timeout < grace);
    }
}

/// What the schemas of Kubernetes say against it, in the oldest version that is supported and in the newest that the
/// validator knows. Unknown fields are errors.
fn validate(manifest: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("manifest.yaml");
    fs::write(&file, manifest).expect("to write");
    let builds = std::env::current_exe().expect("a path");
    let builds = builds.ancestors().nth(3).expect("the folder of builds");
    let validator = builds.join("peers-python/bin/kubernetes-validate");
    for version in ["1.30", "1.37"] {
        let arguments = ["--strict", "--no-warn", "-k", version, file.to_str().expect("UTF-8")];
        run(validator.to_str().expect("UTF-8"), &arguments, "")?;
    }
    Ok(())
}

#[test]
fn every_manifest_has_the_form_that_kubernetes_wants() {
    let folder = file("kubernetes");
    let built = |overlay: &str| {
        let built = run("kubectl", &["kustomize", folder.join(overlay).to_str().expect("UTF-8")], "");
        built.unwrap_or_else(|said| panic!("{overlay}: {said}"))
    };
    let mut reached = 0;
    for part in fs::read_dir(&folder).expect("a folder") {
        let part = part.expect("an entry").path();
        let overlay = part.file_name().and_then(|name| name.to_str()).expect("a name");
        validate(&built(overlay)).unwrap_or_else(|said| panic!("{overlay}: {said}"));
        // And each file by itself: all of them are in a kustomization.
        let kustomization = fs::read_to_string(part.join("kustomization.yaml")).expect("a kustomization");
        for entry in fs::read_dir(&part).expect("a folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            assert!(name == "kustomization.yaml" || kustomization.contains(&name), "{overlay} leaves {name} out");
            if name.ends_with(".yaml") && name != "kustomization.yaml" {
                let manifest = fs::read_to_string(part.join(&name)).expect("a manifest");
                validate(&manifest).unwrap_or_else(|said| panic!("{said}"));
                reached += 1;
            }
        }
    }
    assert_eq!(reached, 4);
    // The validator does find what is wrong.
    let wrong = built("gateway").replace("readOnlyRootFilesystem", "readOnlyRootFileSystem");
    assert!(validate(&wrong).is_err_and(|said| said.contains("readOnlyRootFileSystem")));
}

#[test]
fn the_overlay_of_ones_own_in_the_docs_is_right() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy.md")).expect("a page");
    let overlay = docs.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an overlay");
    let path = overlay.lines().next().and_then(|line| line.strip_prefix("# deploy/")).expect("where it is");
    let folder = tempfile::tempdir().expect("a folder");
    let copy = [file("kubernetes"), folder.path().to_owned()].map(|path| path.to_str().expect("UTF-8").to_owned());
    run("cp", &["-r", &copy[0], &copy[1]], "").unwrap_or_else(|said| panic!("{said}"));
    let place = folder.path().join(path);
    let own = place.parent().expect("a folder");
    fs::create_dir(own).expect("a folder");
    fs::write(&place, overlay).expect("to write");
    fs::write(own.join("onlyonce.toml"), "# rules of my own").expect("to write");
    let built =
        run("kubectl", &["kustomize", own.to_str().expect("UTF-8")], "").unwrap_or_else(|said| panic!("{said}"));
    validate(&built).unwrap_or_else(|said| panic!("{said}"));
    for part in ["image: registry.example/onlyonce:0.1.0\n", "value: http://shop-api:8000\n", "# rules of my own"] {
        assert_eq!(built.matches(part).count(), 1, "{part}: {built}");
    }
    assert!(!built.contains("http://backend:3000"), "{built}");
    assert_eq!(built.matches("namespace: shop\n").count(), built.matches("\nkind: ").count(), "{built}");
}

/// The environment that a built Deployment sets. Values from the secret are examples.
fn environment_of(built: &str) -> BTreeMap<String, String> {
    let entries = built.split("- name: ONLYONCE_").skip(1).map(|entry| {
        let (name, rest) = entry.split_once('\n').expect("a line");
        let mut lines = rest.lines().map(str::trim);
        let value = match lines.next().expect("a value") {
            "valueFrom:" => match lines.find_map(|line| line.strip_prefix("key: ")).expect("a key") {
                "store" => "redis://redis:6379/0",
                "admin-token" => "a-token-of-some-length",
                key => panic!("no such key of the secret: {key}"),
            },
            line => line.strip_prefix("value: ").expect("a value").trim_matches(['"', '\'']),
        };
        (format!("ONLYONCE_{name}"), value.to_owned())
    });
    entries.collect()
}
