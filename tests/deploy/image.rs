//! The image, and the Debian package: what is in them, and that the program runs there.

use super::*;

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
