//! The `DaemonSet` of `deploy/kubernetes`, as a kubelet asks a container runtime for it.
//!
//! Everything comes from the manifests: what they say and this cannot ask for fails.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use k8s_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, SecurityProfile, security_profile::ProfileType,
};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value};
use tellwire_tests::{containerd::kubelet_labels, runtime::Cgroups};

pub(crate) const POD: &str = "tellwire-x2v9k";
pub(crate) const UID: &str = "3f8d2c1e-5b6a-4c7d-8e9f-0a1b2c3d4e60";

/// A file of `deploy/`.
pub(crate) fn deployed(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    let [document] = documents.as_slice() else { panic!("{file}: not one document") };
    json(document)
}

fn json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::String(value)) => value.as_ref().into(),
        Yaml::Sequence(values) => values.iter().map(json).collect(),
        Yaml::Mapping(values) => {
            let pair = |(key, value): (&Yaml<'_>, _)| (key.as_str().expect("a name").to_owned(), json(value));
            values.iter().map(pair).collect::<Map<_, _>>().into()
        }
        other => panic!("not of JSON: {other:?}"),
    }
}

/// What the API server and the kubelet add to a manifest.
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    pub(crate) cgroups: &'a Cgroups,
    /// For what the kubelet writes, and for what the agent writes on the host.
    pub(crate) folder: &'a Path,
    /// More of the configuration, behind that of the `ConfigMap`.
    pub(crate) more: String,
}

pub(crate) struct DaemonSet(Value);

impl DaemonSet {
    /// With `privileged`.
    pub(crate) fn base() -> Self {
        Self(deployed("kubernetes/base/daemonset.yaml")["spec"]["template"].take())
    }

    /// With capabilities instead: the overlay's patch names the one container.
    pub(crate) fn with_capabilities() -> Self {
        let mut this = Self::base();
        let mut patch = deployed("kubernetes/capabilities/daemonset.yaml");
        let container = &mut patch["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["name"], this.container()["name"]);
        let security = container["securityContext"].take();
        let into = this.0["spec"]["containers"][0]["securityContext"].as_object_mut().expect("a map");
        into.extend(security.as_object().expect("a map").clone());
        this
    }

    /// With one more argument of the agent.
    pub(crate) fn with_argument(mut self, argument: &str) -> Self {
        let args = self.0["spec"]["containers"][0]["args"].as_array_mut().expect("arguments");
        args.push(argument.into());
        self
    }

    pub(crate) fn spec(&self) -> &Value {
        &self.0["spec"]
    }

    fn container(&self) -> &Value {
        let containers = self.spec()["containers"].as_array().expect("containers");
        let [container] = containers.as_slice() else { panic!("not one container") };
        container
    }

    /// The port of this name.
    pub(crate) fn port(&self, name: &Value) -> u16 {
        let ports = self.container()["ports"].as_array().expect("ports");
        let port = ports.iter().find(|port| port["name"] == *name).expect("a port of the name");
        port["containerPort"].as_u64().and_then(|port| port.try_into().ok()).expect("a number")
    }

    /// Port and path of a probe.
    pub(crate) fn probe(&self, name: &str) -> (u16, String) {
        let get = &self.container()[name]["httpGet"];
        (self.port(&get["port"]), text(&get["path"]))
    }

    /// What Kubernetes' service discovery of Prometheus tells of the pod: role `pod`, one target for each port.
    pub(crate) fn discovered(&self, node: &Node<'_>, ip: &str) -> Map<String, Value> {
        let metadata = &self.0["metadata"];
        let mut labels = Map::new();
        for (kind, of) in [("label", &metadata["labels"]), ("annotation", &metadata["annotations"])] {
            for (key, value) in of.as_object().expect("a map") {
                let name = key.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
                labels.insert(format!("__meta_kubernetes_pod_{kind}_{name}"), value.clone());
            }
        }
        let port = &self.container()["ports"][0];
        for (name, value) in [
            ("namespace", "tellwire".into()),
            ("pod_name", POD.into()),
            ("pod_ip", ip.into()),
            ("pod_node_name", node.name.into()),
            ("pod_container_name", self.container()["name"].clone()),
            ("pod_container_port_name", port["name"].clone()),
            ("pod_container_port_number", port["containerPort"].to_string().into()),
        ] {
            labels.insert(format!("__meta_kubernetes_{name}"), value);
        }
        labels
    }

    pub(crate) fn sandbox_config(&self, node: &Node<'_>) -> PodSandboxConfig {
        let namespaces = self.namespaces();
        let is_privileged = self.container()["securityContext"]["privileged"] == true;
        let labels = self.0["metadata"]["labels"].as_object().expect("labels").iter();
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: POD.into(),
                uid: UID.into(),
                namespace: "tellwire".into(),
                attempt: 0,
            }),
            hostname: POD.into(),
            log_directory: node.folder.join("logs").display().to_string(),
            labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
            linux: Some(LinuxPodSandboxConfig {
                // Requests and limits that differ make it burstable.
                cgroup_parent: node.cgroups.path(&format!("kubepods/burstable/pod{UID}")),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    privileged: is_privileged,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub(crate) fn container_config(&self, node: &Node<'_>) -> ContainerConfig {
        let container = self.container();
        let name = text(&container["name"]);
        let args: Vec<String> = container["args"].as_array().expect("arguments").iter().map(text).collect();
        assert!(!args.iter().any(|arg| arg.contains("$(")), "variables in {args:?}");
        assert_eq!(container.get("command"), None, "the image's own");
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.clone(), attempt: 0 }),
            image: Some(ImageSpec { image: text(&container["image"]), ..Default::default() }),
            args,
            envs: container["env"]
                .as_array()
                .expect("variables")
                .iter()
                .map(|env| variable(env, node))
                .collect(),
            mounts: self.mounts(node),
            labels: kubelet_labels(&name, POD, "tellwire", UID),
            log_path: "tellwire.log".into(),
            linux: Some(LinuxContainerConfig {
                resources: Some(resources(&container["resources"])),
                security_context: Some(self.security(&container["securityContext"])),
            }),
            ..Default::default()
        }
    }

    fn namespaces(&self) -> NamespaceOption {
        let of = |host: &Value, otherwise| if *host == true { NamespaceMode::Node } else { otherwise };
        let spec = self.spec();
        NamespaceOption {
            network: of(&spec["hostNetwork"], NamespaceMode::Pod).into(),
            pid: of(&spec["hostPID"], NamespaceMode::Container).into(),
            ipc: of(&spec["hostIPC"], NamespaceMode::Pod).into(),
            ..Default::default()
        }
    }

    fn security(&self, context: &Value) -> LinuxContainerSecurityContext {
        let of_pod = &self.spec()["securityContext"];
        assert_eq!(
            (&of_pod["runAsUser"], &of_pod["runAsGroup"]),
            (&0.into(), &0.into()),
            "root, as the image"
        );
        let known = [
            "privileged",
            "readOnlyRootFilesystem",
            "allowPrivilegeEscalation",
            "capabilities",
            "seccompProfile",
            "appArmorProfile",
        ];
        let unknown = context.as_object().expect("a map").keys().find(|key| !known.contains(&key.as_str()));
        assert_eq!(unknown, None, "not asked of the runtime");
        let list =
            |of: &Value| of.as_array().map(|names| names.iter().map(text).collect()).unwrap_or_default();
        let capabilities = &context["capabilities"];
        let profile = |of: &Value| {
            let kind = match of["type"].as_str() {
                None | Some("Unconfined") => ProfileType::Unconfined,
                Some("RuntimeDefault") => ProfileType::RuntimeDefault,
                Some(other) => panic!("profile {other}"),
            };
            Some(SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() })
        };
        LinuxContainerSecurityContext {
            namespace_options: Some(self.namespaces()),
            privileged: context["privileged"] == true,
            readonly_rootfs: context["readOnlyRootFilesystem"] == true,
            no_new_privs: context["allowPrivilegeEscalation"] == false,
            capabilities: Some(Capability {
                add_capabilities: list(&capabilities["add"]),
                drop_capabilities: list(&capabilities["drop"]),
                ..Default::default()
            }),
            seccomp: profile(&context["seccompProfile"]),
            apparmor: profile(&context["appArmorProfile"]),
            ..Default::default()
        }
    }

    fn mounts(&self, node: &Node<'_>) -> Vec<Mount> {
        let volumes = self.spec()["volumes"].as_array().expect("volumes");
        let sources: HashMap<String, PathBuf> =
            volumes.iter().map(|volume| (text(&volume["name"]), source(volume, node))).collect();
        let mounts = self.container()["volumeMounts"].as_array().expect("mounts");
        let mount = |mount: &Value| {
            let propagation = match mount["mountPropagation"].as_str() {
                None => MountPropagation::PropagationPrivate,
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                Some(other) => panic!("mountPropagation {other}"),
            };
            Mount {
                container_path: text(&mount["mountPath"]),
                host_path: sources[&text(&mount["name"])].display().to_string(),
                readonly: mount["readOnly"] == true,
                propagation: propagation.into(),
                ..Default::default()
            }
        };
        mounts.iter().map(mount).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn variable(env: &Value, node: &Node<'_>) -> KeyValue {
    let value = match env["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        Some("spec.nodeName") => node.name.to_owned(),
        Some(other) => panic!("fieldPath {other}"),
        None => text(&env["value"]),
    };
    KeyValue { key: text(&env["name"]), value }
}

/// Where a volume is on the host.
fn source(volume: &Value, node: &Node<'_>) -> PathBuf {
    if let Some(map) = volume["configMap"]["name"].as_str() {
        let map_of_node = deployed("kubernetes/base/configmap.yaml");
        assert_eq!(map_of_node["metadata"]["name"], map);
        let folder = node.folder.join("configuration");
        fs::create_dir_all(&folder).expect("a folder");
        for (file, content) in map_of_node["data"].as_object().expect("files") {
            fs::write(folder.join(file), text(content) + &node.more).expect("a file");
        }
        return folder;
    }
    let path = PathBuf::from(text(&volume["hostPath"]["path"]));
    match volume["hostPath"]["type"].as_str() {
        Some("Directory") => {
            assert!(path.is_dir(), "{} is not there", path.display());
            path
        }
        // What the agent writes on the host, it writes elsewhere here.
        Some("DirectoryOrCreate") => {
            let here = node.folder.join("state");
            fs::create_dir_all(&here).expect("a folder");
            here
        }
        other => panic!("hostPath of type {other:?}"),
    }
}

/// As the kubelet translates them: `MilliCPUToShares` of `pkg/kubelet/cm/helpers_linux.go`.
fn resources(of: &Value) -> LinuxContainerResources {
    let amount = |value: &Value, unit: &str| -> Option<i64> {
        let value = text(value);
        value.strip_suffix(unit).and_then(|number| number.parse().ok())
    };
    let cpu = amount(&of["requests"]["cpu"], "m").expect("thousandths of a CPU");
    let memory = amount(&of["limits"]["memory"], "Mi").expect("mebibytes");
    assert_eq!(of["limits"].get("cpu"), None, "an agent that is throttled loses events");
    LinuxContainerResources {
        cpu_shares: (cpu * 1024 / 1000).max(2),
        memory_limit_in_bytes: memory << 20,
        ..Default::default()
    }
}
