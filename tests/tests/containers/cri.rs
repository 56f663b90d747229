//! A real containerd with its container runtime interface: pods as a kubelet has them made, without a kubelet.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerStatusRequest, CreateContainerRequest, ImageSpec,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest, VersionRequest,
    runtime_service_client::RuntimeServiceClient,
};
use serde_json::json;
use tellwire_tests::{
    Agent, Setup, at, image,
    runtime::{self, Cgroups, Daemon},
};
use tempfile::TempDir;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint};

const APP: &str = "localhost/tellwire-test:1";
const PAUSE: &str = "localhost/pause:1";

/// A network of pods: each is connected with the network that the daemon is in, by `ptp` of the package
/// containernetworking-plugins.
const NETWORK: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipam": {
      "type": "host-local",
      "dataDir": "{folder}/addresses",
      "subnet": "10.88.77.0/24",
      "routes": [{ "dst": "0.0.0.0/0" }]
    }
  }]
}"#;

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
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"#;

pub(crate) struct Containerd {
    // Fields are dropped in this order.
    client: RuntimeServiceClient<Channel>,
    runtime: Runtime,
    daemon: Daemon,
    folder: TempDir,
}

impl Containerd {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let filled = |text: &str| text.replace("{folder}", &folder.path().display().to_string());
        let config = path("config.toml");
        fs::write(&config, filled(CONFIG)).expect("a file");
        fs::create_dir(path("cni")).expect("a folder");
        fs::write(path("cni/pods.conflist"), filled(NETWORK)).expect("a network");
        // As on a node, whose mounts pods can see come: they are made shared in the daemon's own namespace.
        let mut command = Command::new(runtime::program("sh", "dash"));
        command.args(["-c", "mount --make-rshared / && exec \"$@\"", "sh"]);
        command.arg(runtime::program("containerd", "containerd")).arg("--config").arg(config);
        let mut daemon = Daemon::start_apart(command);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let socket = path("containerd.sock");
        let client = daemon.until("containerd that answers", || runtime.block_on(connect(&socket)));
        let this = Self { client, runtime, daemon, folder };
        for reference in [APP, PAUSE] {
            let name = reference.replace(['/', ':'], "-");
            let (work, archive) =
                (this.folder.path().join(&name), this.folder.path().join(format!("{name}.tar")));
            fs::create_dir(&work).expect("a folder");
            // The sandbox runs the image's own command, and must stay.
            let command = if reference == PAUSE { &["/bin/sleep", "86400"][..] } else { &["/bin/true"][..] };
            image::archive_with(reference, &work, &archive, command);
            this.import(&archive);
        }
        this
    }

    /// Takes in the images of an archive.
    pub(crate) fn import(&self, archive: &Path) {
        let mut ctr = Command::new(runtime::program("ctr", "containerd"));
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io", "images", "import"]);
        runtime::run(ctr.arg(archive));
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    /// The process whose network the pods' is connected with: that of a node.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Makes a pod without containers.
    pub(crate) fn sandbox(&self, config: PodSandboxConfig) -> Sandbox<'_> {
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let mut client = self.client.clone();
        let answer = self.runtime.block_on(client.run_pod_sandbox(request)).expect("a sandbox");
        Sandbox { containerd: self, config, id: answer.into_inner().pod_sandbox_id }
    }
}

/// A pod; it is removed with this value, and its containers with it.
pub(crate) struct Sandbox<'a> {
    containerd: &'a Containerd,
    config: PodSandboxConfig,
    pub(crate) id: String,
}

impl Sandbox<'_> {
    /// Starts a container in it; gives its id.
    pub(crate) fn start(&self, config: ContainerConfig) -> String {
        let mut client = self.containerd.client.clone();
        self.containerd.runtime.block_on(async {
            let container = CreateContainerRequest {
                pod_sandbox_id: self.id.clone(),
                config: Some(config),
                sandbox_config: Some(self.config.clone()),
            };
            let id = client.create_container(container).await.expect("a container").into_inner().container_id;
            let start = StartContainerRequest { container_id: id.clone() };
            client.start_container(start).await.expect("its start");
            id
        })
    }

    /// The address of a pod that has a network of its own.
    pub(crate) fn address(&self) -> IpAddr {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let mut client = self.containerd.client.clone();
        let answer =
            self.containerd.runtime.block_on(client.pod_sandbox_status(request)).expect("its status");
        let network = answer.into_inner().status.and_then(|status| status.network);
        network.and_then(|network| network.ip.parse().ok()).expect("an address")
    }

    /// Ends a container as the kubelet does, which gives it so many seconds; gives its exit code.
    pub(crate) fn stop(&self, id: &str, seconds: i64) -> i32 {
        let mut client = self.containerd.client.clone();
        self.containerd.runtime.block_on(async {
            let stop = StopContainerRequest { container_id: id.to_owned(), timeout: seconds };
            client.stop_container(stop).await.expect("its end");
            let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
            let answer = client.container_status(request).await.expect("its status").into_inner();
            answer.status.expect("a status").exit_code
        })
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        let pod_sandbox_id = self.id.clone();
        let mut client = self.containerd.client.clone();
        self.containerd.runtime.block_on(async {
            let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            let _failed = client.stop_pod_sandbox(stop).await;
            let _failed = client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await;
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

/// A pod of the namespace `shop`, whose one container is `server`.
pub(crate) struct Pod {
    pub(crate) name: &'static str,
    pub(crate) uid: &'static str,
    pub(crate) class: &'static str,
    pub(crate) network: NamespaceMode,
}

impl Pod {
    pub(crate) fn config(&self, cgroups: &Cgroups) -> PodSandboxConfig {
        let Self { name, uid, class, network } = *self;
        let options = NamespaceOption { network: network.into(), ..Default::default() };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
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
                security_context: Some(security),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Its container, which runs this.
    pub(crate) fn container(&self, args: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: "server".into(), attempt: 0 }),
            image: Some(ImageSpec { image: APP.into(), ..Default::default() }),
            command: args.iter().map(ToString::to_string).collect(),
            labels: kubelet_labels("server", self.name, "shop", self.uid),
            ..Default::default()
        }
    }
}

/// The labels that the kubelet puts on a container.
pub(crate) fn kubelet_labels(
    container: &str,
    pod: &str,
    namespace: &str,
    uid: &str,
) -> HashMap<String, String> {
    let labels =
        [("container.name", container), ("pod.name", pod), ("pod.namespace", namespace), ("pod.uid", uid)];
    labels.map(|(key, value)| (format!("io.kubernetes.{key}"), value.to_owned())).into()
}

pub(crate) const PODS: [(&str, &str); 3] = [
    ("cart-7d5c9b8f6d-x2v9k", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e51"),
    ("cart-7d5c9b8f6d-zq7wn", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e52"),
    ("cart-7d5c9b8f6d-b2c4d", "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e53"),
];

#[test]
fn pods_of_a_real_containerd_are_named_from_their_first_line_on() {
    let containerd = Containerd::start();
    let socket = containerd.socket();
    let config = format!("[containers]\nsockets = ['{}']\nlabels = ['app']\n", socket.display());
    let agent = Agent::with(|| Setup::default().config(&config));
    let cgroups = Cgroups::of(agent.cgroup());
    agent.expect_metric("tellwire_runtime_up", &[], 1);
    let mut named = 0;
    for ((name, uid), class) in PODS.into_iter().zip(["burstable/", "besteffort/", ""]) {
        let pod = Pod { name, uid, class, network: NamespaceMode::Node };
        let qos = if class.is_empty() { "guaranteed" } else { class.trim_end_matches('/') };
        let sandbox = containerd.sandbox(pod.config(&cgroups));
        let id = sandbox.start(pod.container(&["/bin/sh", "-c", "/bin/usleep 50000"]));
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
        let has_names_at_once = |id: &str| {
            let first =
                events.iter().find(|event| at(event, "container.id").is_some_and(|found| found == id));
            first.is_some_and(|first| at(first, "k8s.pod.name").is_some())
        };
        named += usize::from(has_names_at_once(&id));
        let of_sandbox =
            json!({ "container.id": sandbox.id, "k8s.pod.name": pod.name, "tellwire.sandbox": true });
        // The sandbox is listed once it runs; its names mostly come after its first line.
        if !has_names_at_once(&sandbox.id) {
            agent.expect(None, "container_named", &of_sandbox);
        }
        drop(sandbox);
        agent.expect(None, "container_stopped", &of_sandbox);
    }
    println!("{named} of 3 containers of a real containerd had names on their first line");
    assert!(named >= 2, "{named} of 3");
    agent.expect_metric("tellwire_ledger_balanced", &[], 1);
}
