//! A real containerd with its container runtime interface: pods as a kubelet has them made, without a kubelet.

use std::{collections::HashMap, fs, path::Path, process::Command};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
    VersionRequest, runtime_service_client::RuntimeServiceClient,
};
use serde_json::{Value, json};
use tellwire_tests::{
    Agent, Setup, at, image,
    runtime::{self, Cgroups, Daemon},
};
use tempfile::TempDir;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint};

const APP: &str = "localhost/tellwire-test:1";
const PAUSE: &str = "localhost/pause:1";

/// What is different from containerd's own defaults: see docs of containerd 1.6, `docs/cri/config.md`.
const CONFIG: &str = r#"
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"#;

struct Containerd {
    // Fields are dropped in this order.
    client: RuntimeServiceClient<Channel>,
    runtime: Runtime,
    _daemon: Daemon,
    folder: TempDir,
}

impl Containerd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let config = path("config.toml");
        fs::write(&config, CONFIG.replace("{folder}", &folder.path().display().to_string())).expect("a file");
        fs::create_dir(path("cni")).expect("a folder");
        let network = r#"{"cniVersion":"0.4.0","name":"lo","plugins":[{"type":"loopback"}]}"#;
        fs::write(path("cni/lo.conflist"), network).expect("a network");
        let mut command = Command::new(runtime::program("containerd", "containerd"));
        command.arg("--config").arg(config);
        let mut daemon = Daemon::start_apart(command);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let socket = path("containerd.sock");
        let client = daemon.until("containerd that answers", || runtime.block_on(connect(&socket)));
        for reference in [APP, PAUSE] {
            let name = reference.replace(['/', ':'], "-");
            let (work, archive) = (path(&name), path(&format!("{name}.tar")));
            fs::create_dir(&work).expect("a folder");
            // The sandbox runs the image's own command, and must stay.
            let command = if reference == PAUSE { &["/bin/sleep", "86400"][..] } else { &["/bin/true"][..] };
            image::archive_with(reference, &work, &archive, command);
            let mut ctr = Command::new(runtime::program("ctr", "containerd"));
            ctr.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "images", "import"]);
            runtime::run(ctr.arg(archive));
        }
        Self { client, runtime, _daemon: daemon, folder }
    }

    /// Makes a pod with one container, which runs to its end; gives the ids of the sandbox and of the container.
    fn run(&mut self, cgroups: &Cgroups, pod: &Pod, args: &[&str]) -> (String, String) {
        let Self { client, runtime, .. } = self;
        let config = pod.config(cgroups);
        runtime.block_on(async {
            let sandbox = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
            let sandbox =
                client.run_pod_sandbox(sandbox).await.expect("a sandbox").into_inner().pod_sandbox_id;
            let container = CreateContainerRequest {
                pod_sandbox_id: sandbox.clone(),
                config: Some(ContainerConfig {
                    metadata: Some(ContainerMetadata { name: "server".into(), attempt: 0 }),
                    image: Some(ImageSpec { image: APP.into(), ..Default::default() }),
                    command: args.iter().map(ToString::to_string).collect(),
                    labels: HashMap::from([
                        ("io.kubernetes.container.name".into(), "server".into()),
                        ("io.kubernetes.pod.name".into(), pod.name.into()),
                        ("io.kubernetes.pod.namespace".into(), "shop".into()),
                        ("io.kubernetes.pod.uid".into(), pod.uid.into()),
                    ]),
                    ..Default::default()
                }),
                sandbox_config: Some(config),
            };
            let id = client.create_container(container).await.expect("a container").into_inner().container_id;
            let start = StartContainerRequest { container_id: id.clone() };
            client.start_container(start).await.expect("its start");
            (sandbox, id)
        })
    }

    fn remove(&mut self, sandbox: &str) {
        let Self { client, runtime, .. } = self;
        let pod_sandbox_id = sandbox.to_owned();
        runtime.block_on(async {
            let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            client.stop_pod_sandbox(stop).await.expect("its end");
            client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await.expect("its removal");
        });
    }
}

async fn connect(socket: &Path) -> Option<RuntimeServiceClient<Channel>> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.ok()?;
    let mut client = RuntimeServiceClient::new(channel);
    client.version(VersionRequest::default()).await.ok()?;
    Some(client)
}

struct Pod {
    name: &'static str,
    uid: &'static str,
    class: &'static str,
}

impl Pod {
    fn config(&self, cgroups: &Cgroups) -> PodSandboxConfig {
        let Self { name, uid, class } = *self;
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: uid.into(),
                namespace: "shop".into(),
                attempt: 0,
            }),
            labels: HashMap::from([
                ("app".into(), "cart".into()),
                ("pod-template-hash".into(), "7d5c9b8f6d".into()),
            ]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroups.path(&format!("kubepods/{class}pod{uid}")),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        network: NamespaceMode::Node.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

#[test]
fn pods_of_a_real_containerd_are_named_from_their_first_line_on() {
    let mut containerd = Containerd::start();
    let socket = containerd.folder.path().join("containerd.sock");
    let config = format!("[containers]\nsockets = ['{}']\nlabels = ['app']\n", socket.display());
    let agent = Agent::with(|| Setup::default().config(&config));
    let cgroups = Cgroups::of(agent.cgroup());
    agent.expect_metric("tellwire_runtime_up", &[], 1);
    let mut named = 0;
    for (pod, qos) in [
        (
            Pod {
                name: "cart-7d5c9b8f6d-x2v9k",
                uid: "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e51",
                class: "burstable/",
            },
            "burstable",
        ),
        (
            Pod {
                name: "cart-7d5c9b8f6d-zq7wn",
                uid: "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e52",
                class: "besteffort/",
            },
            "besteffort",
        ),
        (
            Pod { name: "cart-7d5c9b8f6d-b2c4d", uid: "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e53", class: "" },
            "guaranteed",
        ),
    ] {
        let (sandbox, id) = containerd.run(&cgroups, &pod, &["/bin/sh", "-c", "/bin/usleep 50000"]);
        let fields = json!({
            "container": { "id": id, "name": "server", "image.name": APP },
            "k8s": {
                "namespace.name": "shop",
                "container.name": "server",
                "pod": { "uid": pod.uid, "name": pod.name, "qos": qos, "label": { "app": "cart" } },
            },
        });
        agent.expect(None, "container_stopped", &json!({ "container.id": id }));
        let line = agent.expect(None, "exit", &fields);
        assert_eq!(tellwire_tests::ecs::faults(&line), Vec::<String>::new());
        let events = agent.events();
        let first =
            events.iter().find(|event| at(event, "container.id").and_then(Value::as_str) == Some(&id));
        named += usize::from(first.is_some_and(|first| at(first, "k8s.pod.name").is_some()));
        // The sandbox is listed once it runs; its names come after its first line.
        let of_sandbox =
            json!({ "container.id": sandbox, "k8s.pod.name": pod.name, "tellwire.sandbox": true });
        agent.expect(None, "container_named", &of_sandbox);
        containerd.remove(&sandbox);
        agent.expect(None, "container_stopped", &of_sandbox);
    }
    println!("{named} of 3 containers of a real containerd had names on their first line");
    assert!(named >= 2, "{named} of 3");
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
}
