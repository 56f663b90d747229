//! What promtool thinks of the metrics and of what is deployed with them.

use std::{fs, path::Path, process::Command};

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
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
    for (what, name) in [("config", "scrape.yml"), ("rules", "rules.yml")] {
        let file = deployed.join(name);
        let file = file.to_str().expect("UTF-8");
        let (accepted, printed, said) = runtime::attempt(&mut promtool(&["check", what, file]));
        assert!(accepted, "{name}: {printed}{said}");
    }
}

fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new(runtime::program("promtool", "prometheus"));
    command.args(arguments);
    command
}
