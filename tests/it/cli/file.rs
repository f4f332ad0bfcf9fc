//! Which configuration file is used, and what is said of one that cannot be.

use super::*;

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
