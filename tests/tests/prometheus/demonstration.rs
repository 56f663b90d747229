//! A small fleet at work: two nodes with pods, logins and things that go wrong, scraped as the monitors of the chart do it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tellwire_tests::{
    Agent, Child, Setup, at,
    cri::{FakeRuntime, Made},
    net::{Server, closed_port},
    program,
    runtime::{self, Cgroups, second_hierarchy},
    sys,
};
use tempfile::TempDir;

use crate::{
    helper::{self, Form},
    logql::Line,
    server::Prometheus,
};

/// Each waits for a scrape.
const ROUNDS: usize = 20;
/// From here on the database does not answer.
const TROUBLE: usize = 10;

/// Runs a command as root, in a child, as sudo does it. Its file is set-uid.
const BECOMES_ROOT: &str = "#include <sys/wait.h>\n#include <unistd.h>\n\
    int main(int argc, char **argv) { int status = argc < 2 || setuid(0);\n\
    if (status == 0 && fork() == 0) { execv(argv[1], argv + 1); _exit(1); }\n\
    wait(&status); return status != 0; }\n";

pub(crate) const CLUSTER: &str = "demo";

struct Node {
    // Fields are dropped in this order.
    _cgroups: Cgroups,
    agent: Agent,
    runtime: FakeRuntime,
    _folder: TempDir,
    becomes_root: PathBuf,
    name: &'static str,
}

pub(crate) struct Demonstration {
    pub(crate) prometheus: Prometheus,
    nodes: [Node; 2],
}

impl Node {
    fn start(name: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = FakeRuntime::start(&folder.path().join("cri.sock"), true);
        let socket = runtime.socket().display();
        let config = format!("[containers]\nsockets = ['{socket}']\n[auth]\nburst-failures = 3\n");
        let agent = Agent::with(|| Setup::default().config(&config).default_profile());
        let becomes_root = agent.folder().join("becomes-root");
        let source = folder.path().join("becomes-root.c");
        fs::write(&source, BECOMES_ROOT).expect("a program's source");
        let mut compile = Command::new(runtime::program("gcc", "gcc libc6-dev"));
        runtime::run(compile.args(["-O1", "-o"]).arg(&becomes_root).arg(source));
        program::set_mode(&becomes_root, 0o4755);
        let cgroups = Cgroups::of(agent.cgroup());
        let this = Self { _cgroups: cgroups, agent, runtime, _folder: folder, becomes_root, name };
        this.agent.expect_metric("tellwire_runtime_up", &[], 1);
        this
    }

    /// Does something in a container's cgroup, without an engine.
    fn inside<T: Into<Value>>(&self, made: &Made, work: impl FnOnce() -> T) -> Child {
        let directory = self.agent.cgroup().join(made.cgroup());
        fs::create_dir_all(&directory).expect("a cgroup");
        // On a hybrid host counters are those of the v1 hierarchy, where a process is in a cgroup there.
        let second = second_hierarchy();
        self.agent.fork(|| {
            for cgroup in [&second, &directory] {
                fs::write(cgroup.join("cgroup.procs"), "0").expect("entering the cgroup");
            }
            work()
        })
    }

    fn lines(&self) -> Vec<Line> {
        let (cluster, node) = (CLUSTER.to_owned(), self.name.to_owned());
        let labels = BTreeMap::from([("job", "tellwire".to_owned()), ("cluster", cluster), ("node", node)]);
        let line = |event: &Value| {
            let mut labels = labels.clone();
            for (label, field) in [("action", "event.action"), ("namespace", "k8s.namespace.name")] {
                if let Some(value) = at(event, field).and_then(Value::as_str) {
                    labels.insert(label, value.to_owned());
                }
            }
            Line { labels, text: event.to_string() }
        };
        let events = self.agent.own_events().into_iter().chain(self.agent.events());
        let mut lines: Vec<Line> = events.map(|event| line(&event)).collect();
        lines.extend(self.agent.log().into_iter().map(|text| Line { labels: labels.clone(), text }));
        lines
    }
}

/// Runs it; it is over when this returns, but Prometheus goes on to scrape.
pub(crate) fn run() -> Demonstration {
    let nodes = [Node::start("node-a"), Node::start("node-b")];
    let mut prometheus = Prometheus::with(&configuration(&nodes));
    let (database, (_port, gone)) = (Server::start([127, 0, 0, 1]), closed_port());
    let pods = [Made::new(1, "cart-7d5c9b8f6d-x2v9k"), Made::new(2, "payments-6c9f8d7b5-zq7wn")];
    for node in &nodes {
        for made in &pods {
            node.runtime.make(made);
        }
    }
    for round in 0..ROUNDS {
        for (number, node) in nodes.iter().enumerate() {
            let [cart, payments] = &pods;
            node.inside(payments, || sys::exec("/bin/busybox".as_ref(), &["true"])).wait();
            for _ in 0..=(round + number) % 3 {
                node.inside(cart, || sys::exec("/bin/busybox".as_ref(), &["true"])).wait();
            }
            let of_payments = if round < TROUBLE { database.address() } else { gone };
            for (made, to) in [(cart, database.address()), (payments, of_payments)] {
                node.inside(made, || {
                    let sent = TcpStream::connect(to).and_then(|mut stream| stream.write_all(b"a question"));
                    sent.is_ok()
                })
                .join();
            }
            on_the_host(node, round, number);
        }
        next_scrape(&mut prometheus);
    }
    for node in &nodes {
        for made in &pods {
            fs::remove_dir(node.agent.cgroup().join(made.cgroup())).expect("the container's end");
            node.agent.expect(None, "container_stopped", &json!({ "container.id": made.id }));
        }
    }
    next_scrape(&mut prometheus);
    next_scrape(&mut prometheus);
    Demonstration { prometheus, nodes }
}

/// Logins, and somebody who becomes another user.
fn on_the_host(node: &Node, round: usize, number: usize) {
    let from = format!("item4=203.0.113.{}", 7 + number);
    if round % 3 == number {
        let steps = [&*from, "auth", "account", "open", "close"];
        node.agent.run(&mut helper::command(Form::Linked, "sshd", "root", &steps));
    }
    for _ in 0..=round % 2 * 2 * number {
        node.agent.run(&mut helper::command(Form::Linked, "login", "root", &[&*from, "auth"]));
    }
    node.agent.fork(|| sys::execve("/no/such/program".as_ref(), &["program"]).to_string()).join();
    node.agent.fork(|| sys::become_user(1)).join();
    // Somebody logs in, and becomes root by a set-uid program, as by sudo.
    let command = format!("{} /bin/busybox true; :", node.becomes_root.display());
    let login = || {
        fs::write("/proc/self/loginuid", "1").expect("a login");
        sys::become_user(1);
        sys::exec("/bin/busybox".as_ref(), &["sh", "-c", &command])
    };
    node.agent.fork(login).wait();
}

impl Demonstration {
    /// Lines of all agents, as a shipper labels them.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.nodes.iter().flat_map(Node::lines).collect()
    }
}

/// Target labels are those that the `PodMonitor` gives: `namespace`, `pod` and `container` are the agent's own.
fn configuration(nodes: &[Node]) -> String {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yml");
    let mut text = format!(
        "global: {{ scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s }}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n\
         - job_name: tellwire\n  honor_labels: true\n  static_configs:\n",
        rules.display()
    );
    for Node { agent, name, .. } in nodes {
        writeln!(
            text,
            "  - targets: ['127.0.0.1:{}']\n    labels: {{ cluster: {CLUSTER}, node: {name}, instance: {name}, \
             namespace: tellwire, pod: tellwire-x2v9k, container: tellwire }}",
            agent.port()
        )
        .expect("writing to a string");
    }
    text
}

fn next_scrape(prometheus: &mut Prometheus) {
    let count = "min(count_over_time(up[1h]))";
    let before = prometheus.query(count).first().copied().unwrap_or(0.0);
    prometheus.wait_for(count, |counts| matches!(counts, [count] if *count > before));
}
