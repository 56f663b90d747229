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
use tempfile::TempDir;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint};

use crate::{
    image,
    runtime::{self, Daemon},
    until,
};

/// The image of the pods' containers.
pub const APP: &str = "localhost/tellwire-test:1";
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

/// A containerd that answers, with the images of the tests' pods.
#[derive(Debug)]
pub struct Containerd {
    // Fields are dropped in this order.
    client: RuntimeServiceClient<Channel>,
    runtime: Runtime,
    daemon: Option<Daemon>,
    socket: PathBuf,
    folder: TempDir,
}

impl Containerd {
    /// One of the test's own, with the driver `cgroupfs`.
    pub fn start() -> Self {
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
        let (runtime, socket) = (runtime(), path("containerd.sock"));
        let client = daemon.until("containerd that answers", || runtime.block_on(connect(&socket)));
        Self { client, runtime, daemon: Some(daemon), socket, folder }.with_images()
    }

    /// The machine's, which somebody else has started.
    pub fn at(socket: &Path) -> Self {
        let (runtime, socket) = (runtime(), socket.to_owned());
        let client = until("containerd answers", || runtime.block_on(connect(&socket)));
        let folder = tempfile::tempdir().expect("a folder");
        Self { client, runtime, daemon: None, socket, folder }.with_images()
    }

    fn with_images(self) -> Self {
        for reference in [APP, PAUSE] {
            let name = reference.replace(['/', ':'], "-");
            let (work, archive) =
                (self.folder.path().join(&name), self.folder.path().join(format!("{name}.tar")));
            fs::create_dir(&work).expect("a folder");
            // The sandbox runs the image's own command, and must stay.
            let command = if reference == PAUSE { &["/bin/sleep", "86400"][..] } else { &["/bin/true"][..] };
            image::archive_with(reference, &work, &archive, command);
            self.import(&archive);
        }
        self
    }

    /// Takes in the images of an archive.
    pub fn import(&self, archive: &Path) {
        let mut ctr = Command::new(runtime::program("ctr", "containerd"));
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io", "images", "import"]);
        runtime::run(ctr.arg(archive));
    }

    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// The process whose network the pods' is connected with: that of a node.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon of the test's own").pid()
    }

    /// Makes a pod without containers.
    pub fn sandbox(&self, config: PodSandboxConfig) -> Sandbox<'_> {
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let mut client = self.client.clone();
        let answer = self.runtime.block_on(client.run_pod_sandbox(request)).expect("a sandbox");
        Sandbox { containerd: self, config, id: answer.into_inner().pod_sandbox_id }
    }
}

/// A pod; it is removed with this value, and its containers with it.
#[derive(Debug)]
pub struct Sandbox<'a> {
    containerd: &'a Containerd,
    config: PodSandboxConfig,
    pub id: String,
}

impl Sandbox<'_> {
    /// Starts a container in it; gives its id.
    pub fn start(&self, config: ContainerConfig) -> String {
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
    pub fn address(&self) -> IpAddr {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let mut client = self.containerd.client.clone();
        let answer =
            self.containerd.runtime.block_on(client.pod_sandbox_status(request)).expect("its status");
        let network = answer.into_inner().status.and_then(|status| status.network);
        network.and_then(|network| network.ip.parse().ok()).expect("an address")
    }

    /// Ends a container as the kubelet does, which gives it so many seconds; gives its exit code.
    pub fn stop(&self, id: &str, seconds: i64) -> i32 {
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

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
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
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    pub name: &'static str,
    pub uid: &'static str,
    /// The quality of service: `guaranteed`, `burstable`, `besteffort`.
    pub class: &'static str,
    pub network: NamespaceMode,
}

impl Pod {
    /// Its cgroup as the driver `cgroupfs` names it.
    pub fn cgroup(&self) -> String {
        let class = if self.class == "guaranteed" { String::new() } else { format!("{}/", self.class) };
        format!("kubepods/{class}pod{}", self.uid)
    }

    /// The same as a slice of systemd.
    pub fn slice(&self) -> String {
        let class = if self.class == "guaranteed" { String::new() } else { format!("-{}", self.class) };
        format!("kubepods{class}-pod{}.slice", self.uid.replace('-', "_"))
    }

    pub fn config(&self, cgroup: &str) -> PodSandboxConfig {
        let Self { name, uid, network, .. } = *self;
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
                cgroup_parent: cgroup.to_owned(),
                security_context: Some(security),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Its container, which runs this.
    pub fn container(&self, args: &[&str]) -> ContainerConfig {
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
pub fn kubelet_labels(container: &str, pod: &str, namespace: &str, uid: &str) -> HashMap<String, String> {
    let labels =
        [("container.name", container), ("pod.name", pod), ("pod.namespace", namespace), ("pod.uid", uid)];
    labels.map(|(key, value)| (format!("io.kubernetes.{key}"), value.to_owned())).into()
}
