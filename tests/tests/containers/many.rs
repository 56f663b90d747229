//! Twenty containers in a row: not one exec without its id, not one event that is not accounted for.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tellwire_tests::at;

use crate::{agent, dockerd::Docker, expect_host, isolated};

const CONTAINERS: usize = 20;

#[test]
fn twenty_short_containers_of_docker_all_have_their_ids_at_the_first_exec() {
    let (agent, cgroups) = agent();
    let docker = Docker::shared();
    let mut ids = BTreeMap::new();
    for number in 0..CONTAINERS {
        let name = format!("number-{number}");
        let id = docker.run(&cgroups, &["--rm"], &["/bin/true", &name]);
        ids.insert(name, id);
    }
    for (name, id) in &ids {
        // By the event alone: whether the id is right is what is asked.
        let event = agent.expect(None, "exec", &json!({ "process.args": ["/bin/true", name] }));
        let pid = crate::pid(&event);
        assert_eq!(at(&event, "container"), Some(&json!({ "id": id, "runtime": "docker" })), "{event}");
        agent.expect(pid, "exit", &json!({ "process.exit_code": 0, "container.id": id }));
    }
    drop(cgroups);
    expect_host(&agent);
    for metric in
        ["tellwire_events_lost_total", "tellwire_sequence_gaps_total", "tellwire_table_refusals_total"]
    {
        agent.expect_metric(metric, &[], 0);
    }
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
    let execs = agent.metric("tellwire_execs_total", &[("outcome", "success")]);
    let events = agent.end();
    let lines = events.iter().filter(|event| event["event"]["action"] == "exec").count();
    assert_eq!(lines as u64, execs);
    let first_execs: Vec<&Value> = isolated(&events).collect();
    assert_eq!(first_execs.len(), CONTAINERS, "{first_execs:?}");
}
