//! The manifests for Kubernetes.

use super::*;

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
