//! A bare runc, whose containers have names instead of ids.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tellwire_tests::{Agent, Setup, at, runtime, runtime::Cgroups};

use crate::{agent, bundle::Bundle, expect_host, isolated, made_up_id};

/// Lives for 50 milliseconds.
const SHORT: [&str; 3] = ["/bin/sh", "-c", "/bin/true; /bin/usleep 50000; exit 0"];

/// What the first process of a container with [`SHORT`] in it tells, in order.
fn expect_short(agent: &Agent, pid: u32, container: &Value) {
    let exec = json!({ "process.args": SHORT, "process.executable": "/bin/busybox", "container": container });
    agent.expect(pid, "exec", &exec);
    agent.expect(pid, "exit", &json!({ "process.exit_code": 0, "container": container }));
    for args in [json!(["/bin/true"]), json!(["/bin/usleep", "50000"])] {
        let child = json!({ "process.args": args, "process.parent.pid": pid, "container": container });
        let event = agent.expect(None, "exec", &child);
        agent.expect(crate::pid(&event), "exit", &json!({ "container": container }));
    }
}

#[test]
fn a_container_that_lives_50_milliseconds_is_named_from_its_first_exec_to_its_exit() {
    let (agent, cgroups) = agent();
    let path = cgroups.path("web-1");
    let pid = Bundle::new(&agent, "web-1", &path, &SHORT).run();
    // Nothing in the path says who made it.
    expect_short(&agent, pid, &json!({ "id": "web-1", "runtime": null }));
    expect_host(&agent);
    drop(cgroups);
    for event in isolated(&agent.end()) {
        assert_eq!(at(event, "container.id"), Some(&json!("web-1")), "{event}");
    }
}

#[test]
fn a_container_is_named_after_its_cgroup_is_gone() {
    let (agent, cgroups) = agent();
    let id = made_up_id(0xa1);
    let path = cgroups.path(&format!("docker-{id}.scope"));
    let bundle = Bundle::new(&agent, "late", &path, &SHORT);
    // All of its life is read when it is over.
    agent.signal(Signal::STOP);
    let pid = bundle.run();
    assert_eq!(Cgroups::directories(&path), Vec::<PathBuf>::new());
    agent.signal(Signal::CONT);
    expect_short(&agent, pid, &json!({ "id": id, "runtime": "docker" }));
    expect_host(&agent);
    // It started and stopped, and once, though all of it was read at once.
    for action in ["container_started", "container_stopped"] {
        let is_it = |event: &&Value| {
            at(event, "event.action").is_some_and(|found| found == action)
                && at(event, "container.id").is_some_and(|found| *found == id)
        };
        assert_eq!(agent.events().iter().filter(is_it).count(), 1, "{action}");
    }
    assert_eq!(agent.metric("tellwire_ledger_balanced", &[]), 1);
}

#[test]
fn the_end_of_a_container_is_named_though_it_is_read_late() {
    let (agent, cgroups) = agent();
    let path = cgroups.path("web-2");
    let bundle = Bundle::new(&agent, "web-2", &path, &["/bin/sleep", "600"]);
    let running = bundle.start();
    let pid = running.pid();
    let container = json!({ "container.id": "web-2" });
    agent.expect(pid, "exec", &container);
    agent.signal(Signal::STOP);
    running.end();
    assert_eq!(Cgroups::directories(&path), Vec::<PathBuf>::new());
    agent.signal(Signal::CONT);
    agent.expect(pid, "exit", &json!({ "container.id": "web-2", "tellwire.exit.signal": "SIGKILL" }));
}

#[test]
fn a_child_that_never_executes_is_named_too() {
    let (agent, cgroups) = agent();
    let path = cgroups.path("forks");
    let pid = Bundle::new(&agent, "forks", &path, &["/bin/sh", "-c", "(exit 9); exit 0"]).run();
    agent.expect(
        None,
        "exit",
        &json!({ "process.exit_code": 9, "process.parent.pid": pid, "container.id": "forks" }),
    );
}

#[test]
fn a_cgroup_inside_the_container_keeps_its_name() {
    let (agent, cgroups) = agent();
    for (number, name) in ["web-3".to_owned(), format!("docker/{}", made_up_id(0xa2))].iter().enumerate() {
        let id = name.rsplit('/').next().expect("a name");
        let script = format!(
            "mkdir /cgroup/{name}/nested && echo $$ > /cgroup/{name}/nested/cgroup.procs && exec /bin/true nested"
        );
        let bundle = format!("nested-{number}");
        let args = ["/bin/sh", "-c", &script];
        let pid = Bundle::new(&agent, &bundle, &cgroups.path(name), &args).mount(agent.cgroup()).run();
        for args in [json!(args), json!(["/bin/true", "nested"])] {
            agent.expect(pid, "exec", &json!({ "process.args": args, "container.id": id }));
        }
        agent.expect(pid, "exit", &json!({ "process.exit_code": 0, "container.id": id }));
    }
}

#[test]
fn a_process_that_joins_a_container_is_named_and_one_beside_it_is_not() {
    let (agent, cgroups) = agent();
    let path = cgroups.path("web-4");
    let bundle = Bundle::new(&agent, "web-4", &path, &["/bin/sleep", "600"]);
    let running = bundle.start();
    agent.expect(running.pid(), "exec", &json!({ "container.id": "web-4" }));
    expect_host(&agent);
    let joined = running.exec(&["/bin/true", "joined"]);
    agent.expect(
        joined,
        "exec",
        &json!({ "process.args": ["/bin/true", "joined"], "container.id": "web-4" }),
    );
}

/// A cgroup of the v1 hierarchy, where there is one, can be chosen as well.
#[test]
fn a_container_in_another_chosen_hierarchy_is_named() {
    let (hierarchy, cgroups) = (runtime::second_hierarchy(), Cgroups::named("other"));
    let chosen = hierarchy.join(cgroups.path("").trim_start_matches('/'));
    fs::create_dir(&chosen).expect("a cgroup");
    let agent = Agent::with(|| Setup::default().arguments(["--cgroup".as_ref(), chosen.as_os_str()]));
    let pid = Bundle::new(&agent, "web-5", &cgroups.path("web-5"), &SHORT).run();
    expect_short(&agent, pid, &json!({ "id": "web-5" }));
}
