//! Containers of docker, by the ids that docker gives them.

use std::path::PathBuf;

use serde_json::json;
use tellwire_tests::{Agent, Setup, at, runtime::Cgroups};

use crate::{agent, dockerd::Docker, expect_host};

#[test]
fn the_first_exec_has_the_id_that_docker_printed() {
    let (agent, cgroups) = agent();
    let docker = Docker::shared();
    let args = ["/bin/sh", "-c", "/bin/usleep 50000; exit 5"];
    let id = docker.run(&cgroups, &[], &args);
    assert_eq!((id.len(), docker.wait(&id).as_str()), (64, "5"));
    assert_eq!(docker.inspect(&id, ".Id"), id);
    let container = json!({ "id": id, "runtime": "docker" });
    let exec = json!({ "process.args": args, "process.executable": "/bin/busybox", "container": container });
    let event = agent.expect(None, "exec", &exec);
    let pid = crate::pid(&event);
    agent.expect(pid, "exit", &json!({ "process.exit_code": 5, "container": container }));
    expect_host(&agent);
    docker.remove(&id);
}

#[test]
fn two_containers_at_a_time_have_an_id_each() {
    let (agent, cgroups) = agent();
    let docker = Docker::shared();
    let run = |name| docker.run(&cgroups, &[], &["/bin/sh", "-c", "/bin/sleep 600; :", name]);
    let ids = [run("first"), run("second")];
    for (id, name) in ids.iter().zip(["first", "second"]) {
        let pid: u32 = docker.inspect(id, ".State.Pid").parse().expect("a process id");
        let container = json!({ "id": id, "runtime": "docker" });
        let args = ["/bin/sh", "-c", "/bin/sleep 600; :", name];
        agent.expect(pid, "exec", &json!({ "process.args": args, "container": container }));
        let child = json!({ "process.args": ["/bin/sleep", "600"], "process.parent.pid": pid, "container": container });
        agent.expect(None, "exec", &child);
        docker.remove(id);
        agent.expect(pid, "exit", &json!({ "tellwire.exit.signal": "SIGKILL", "container": container }));
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_cgroup_inside_a_container_of_docker_keeps_its_id() {
    let (agent, cgroups) = agent();
    let docker = Docker::shared();
    let mount = format!("{}:/cgroup", agent.cgroup().display());
    // The host's name is the beginning of the id.
    let script = "cd /cgroup/docker/$HOSTNAME* && mkdir nested && \
        echo $$ > nested/cgroup.procs && exec /bin/true nested";
    let id = docker.run(&cgroups, &["--volume", &mount], &["/bin/sh", "-c", script]);
    assert_eq!(docker.wait(&id), "0");
    let container = json!({ "id": id, "runtime": "docker" });
    agent.expect(None, "exec", &json!({ "process.args": ["/bin/true", "nested"], "container": container }));
    agent.expect(None, "exit", &json!({ "process.exit_code": 0, "container": container }));
    docker.remove(&id);
    assert_eq!(Cgroups::directories(&cgroups.path(&format!("docker/{id}"))), Vec::<PathBuf>::new());
}

#[test]
fn names_and_images_are_told_by_dockers_api() {
    let docker = Docker::shared();
    let config = format!(
        "[containers]\nsockets = ['{}']\nlabels = ['team']\n[[rules]]\nname = 'web'\neffect = 'tag'\ntags = ['web']\n\
         containers = ['web-1']\n",
        docker.socket().display()
    );
    let agent = Agent::with(|| Setup::default().config(&config));
    let cgroups = Cgroups::of(agent.cgroup());
    agent.expect_metric("tellwire_runtime_up", &[], 1);
    let options = ["--name", "web-1", "--label", "team=shop", "--label", "secret=x"];
    let args = ["/bin/sh", "-c", "/bin/usleep 50000"];
    let id = docker.run(&cgroups, &options, &args);
    docker.wait(&id);
    let container = json!({
        "id": id, "name": "web-1", "runtime": "docker", "labels": { "team": "shop" },
        "image": { "name": "localhost/tellwire-test:1" },
    });
    for action in ["container_started", "exec"] {
        let line = agent.expect(None, action, &json!({ "container": container, "tags": ["web"] }));
        assert_eq!(tellwire_tests::ecs::faults(&line), Vec::<String>::new());
    }
    docker.remove(&id);
    let line = agent.expect(None, "container_stopped", &json!({ "container": container }));
    assert_eq!(at(&line, "k8s"), None);
    agent.expect_metric("tellwire_enrichments_total", &[("kind", "names"), ("outcome", "at_once")], 1);
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
}
