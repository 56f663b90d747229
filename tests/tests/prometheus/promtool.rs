//! What promtool thinks of the metrics and of what is deployed with them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tellwire_tests::{Agent, runtime};

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let agent = Agent::start();
    let (status, text) = agent.get("/metrics");
    assert_eq!(status, 200);
    let file = agent.folder().join("metrics.txt");
    fs::write(&file, &text).expect("a file");
    let (accepted, printed, said) = runtime::attempt_reading(
        &mut promtool(&["check", "metrics"]),
        fs::File::open(file).expect("the file"),
    );
    assert_eq!((accepted, printed.as_str(), said.as_str()), (true, "", ""), "{text}");
}

#[test]
fn promtool_accepts_the_configuration_and_the_rules_that_are_deployed() {
    for (what, name) in [("config", "scrape.yml"), ("rules", "rules.yml")] {
        let file = deployed("prometheus").join(name);
        let file = file.to_str().expect("UTF-8");
        let (accepted, printed, said) = runtime::attempt(&mut promtool(&["check", what, file]));
        assert!(accepted, "{name}: {printed}{said}");
    }
}

/// Debian's promtool is built without the discovery of Kubernetes: here another one stands in its place.
#[test]
fn promtool_accepts_what_relabels_the_targets_of_kubernetes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scrape.yml");
    let text = fs::read_to_string(deployed("prometheus/scrape-kubernetes.yml")).expect("the configuration");
    let discovery = "kubernetes_sd_configs:\n      - role: pod\n";
    assert_eq!(text.matches(discovery).count(), 2, "{text}");
    fs::write(&file, text.replace(discovery, "static_configs:\n      - targets: []\n")).expect("a file");
    let (accepted, printed, said) =
        runtime::attempt(&mut promtool(&["check", "config", file.to_str().expect("UTF-8")]));
    assert!(accepted, "{printed}{said}");
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let file = deployed("prometheus/rules.test.yml");
    let (passed, printed, said) =
        runtime::attempt(&mut promtool(&["test", "rules", file.to_str().expect("UTF-8")]));
    assert!(passed, "{printed}{said}");
    let tests = fs::read_to_string(&file).expect("the tests");
    for alert in alerts() {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
    }
}

#[test]
fn each_alert_has_a_runbook() {
    let rules = fs::read_to_string(deployed("prometheus/rules.yml")).expect("the rules");
    let runbooks = fs::read_to_string(deployed("../docs/runbooks.md")).expect("the runbooks");
    let operations = fs::read_to_string(deployed("../docs/operations.md")).expect("the page");
    let alerts = alerts();
    assert!(alerts.len() > 5, "{alerts:?}");
    for alert in alerts {
        assert!(runbooks.contains(&format!("\n## {alert}\n")), "{alert} has no part in docs/runbooks.md");
        let url = format!("runbooks.md#{}\"", alert.to_lowercase());
        assert!(rules.contains(&url), "{alert} does not lead there");
        assert!(operations.contains(&format!("`{alert}`")), "docs/operations.md does not name {alert}");
    }
}

#[test]
fn each_metric_of_the_rules_is_one_that_the_agent_has() {
    let agent = Agent::start();
    let (_status, text) = agent.get("/metrics");
    let rules = fs::read_to_string(deployed("prometheus/rules.yml")).expect("the rules");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let names = expressions.flat_map(|expression| expression.split(|c| !is_name(c)));
    let names: Vec<&str> =
        names.filter(|name| name.starts_with("tellwire_") && !name.contains(':')).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let starts = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        assert!(text.lines().any(starts), "no {name} in:\n{text}");
    }
}

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// Their names, from the rules.
fn alerts() -> Vec<String> {
    let rules = fs::read_to_string(deployed("prometheus/rules.yml")).expect("the rules");
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

pub(crate) fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new(runtime::program("promtool", "prometheus"));
    command.args(arguments);
    command
}
