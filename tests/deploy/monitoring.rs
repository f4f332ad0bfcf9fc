//! The alert rules and the dashboard, by the metrics that there are.

use super::*;

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
