//! Container identity from a cgroup path: which container, which engine, which pod.
//!
//! A path is relative to the root of its hierarchy, as in the third field of `/proc/PID/cgroup`
//! or as the kernel gives it when a cgroup is made. The innermost container wins: in a container
//! inside a container, that is the one the process lives in. Choosing between the lines of
//! `/proc/PID/cgroup` is the caller's part, and so is telling a pod's sandbox (`pause`) from its
//! other containers, for which the path has no word.

/// The engine that made a container, as far as the path tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Docker,
    Containerd,
    CriO,
    Podman,
    Runc,
    Crun,
    Lxc,
    Nspawn,
    Garden,
    Buildkit,
}

impl Runtime {
    /// The value of `container.runtime`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
            Self::Garden => "garden",
            Self::Buildkit => "buildkit",
        }
    }
}

/// The quality-of-service class of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
            Self::BestEffort => "besteffort",
        }
    }
}

/// The Kubernetes pod that a cgroup belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// With dashes, as the API server writes it; the hash of a static pod has none.
    pub(crate) uid: String,
    /// `None` where a cgroup namespace cuts the path off right above the pod, as in `/../podUID`.
    pub(crate) qos: Option<Qos>,
}

/// A container as its cgroup path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerPath {
    pub(crate) id: String,
    /// `None` where several engines use the same form: `/kubepods/.../<id>` may be containerd
    /// or cri-dockerd.
    pub(crate) runtime: Option<Runtime>,
    pub(crate) pod: Option<Pod>,
    pub(crate) certainty: Certainty,
}

/// How far the path alone proves that there is a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// Only container engines make such a path.
    Known,
    /// The name is free text (`runc run web`, `ctr run ... web1`) and could be anyone's cgroup:
    /// only a container if its processes are in namespaces of their own, which the caller checks.
    IfIsolated,
}

/// The innermost container on `path`, if there is one.
pub(crate) fn parse(path: &str) -> Option<ContainerPath> {
    let segments = segments(path);
    let mut above = segments.as_slice();
    let mut child = None;
    while let Some((&segment, parents)) = above.split_last() {
        if let Some(container) = container(parents, segment, child) {
            return Some(ContainerPath { pod: innermost_pod(above), ..container });
        }
        child = Some(segment);
        above = parents;
    }
    free_text(&segments)
}

fn segments(path: &str) -> Vec<&str> {
    // `proc_cgroup_show` marks a cgroup that was removed while a zombie was still in it.
    // https://github.com/torvalds/linux/blob/v6.12/kernel/cgroup/cgroup.c
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    // `..` leads out of the reader's cgroup namespace. What comes after it has the usual forms.
    path.split('/').filter(|segment| !matches!(*segment, "" | "." | "..")).collect()
}

/// Whether `segment`, below `parents` and above `child`, is a container.
///
/// A segment that is not may still lie inside one: a systemd in a container makes slices and
/// services, crun adds `container`, and the workload may make any cgroup it likes.
fn container(parents: &[&str], segment: &str, child: Option<&str>) -> Option<ContainerPath> {
    engine(parents, segment)
        .or_else(|| by_parent(parents, segment))
        .or_else(|| lxc(segment))
        .or_else(|| machine(parents, segment, child))
        .or_else(|| oci_scope(segment))
}

/// `<id>`, `<prefix>-<id>`, `<prefix>-<id>.scope` and `<slice>:<prefix>:<id>`.
///
/// The last is the systemd driver's way to name a cgroup, taken literally by a runtime that was
/// told to use cgroupfs.
fn engine(parents: &[&str], segment: &str) -> Option<ContainerPath> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let (before, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    let prefix = before.rsplit_once(':').map_or(before, |(_, prefix)| prefix);
    // Builds of a docker daemon with the systemd driver.
    let is_build = prefix == "docker" && is_buildkit_id(id);
    if !is_engine_id(id) && !is_build {
        return None;
    }
    let runtime = match (prefix, parents) {
        // The monitor of a container carries the ID of the container but runs outside of it.
        (prefix, _) if prefix.ends_with("conmon") => return None,
        // A podman pod, which is not a container: its containers are `libpod-<id>` below it.
        ("", [.., "libpod_parent"]) => return None,
        ("docker", _) | ("", [.., "docker"] | [.., "ecs", _]) => Some(Runtime::Docker),
        ("cri-containerd" | "nerdctl", _) => Some(Runtime::Containerd),
        ("crio", _) => Some(Runtime::CriO),
        // `libpod-payload` is `--cgroups=split`, which is what Quadlet units use.
        ("libpod" | "libpod-payload", _) => Some(Runtime::Podman),
        ("", [.., scope]) if scope.starts_with("podman-") => Some(Runtime::Podman),
        ("", [.., "lxc" | "lxc.payload"]) => Some(Runtime::Lxc),
        ("runc", _) => Some(Runtime::Runc),
        ("crun", _) => Some(Runtime::Crun),
        _ => None,
    };
    Some(known(id, runtime))
}

/// Names that mean a container because of the cgroup they are in.
fn by_parent(parents: &[&str], segment: &str) -> Option<ContainerPath> {
    if is_unit(segment) {
        return None;
    }
    match parents {
        [.., "lxc" | "lxc.payload"] => Some(known(segment, Some(Runtime::Lxc))),
        [.., "buildkit"] if is_buildkit_id(segment) => Some(known(segment, Some(Runtime::Buildkit))),
        // Garden sorts containers by whether they exceed their share of the CPU.
        [.., "garden"] if matches!(segment, "good" | "bad") => None,
        [.., "garden"] | [.., "garden", "good" | "bad"] if is_garden_id(segment) => {
            Some(known(segment, Some(Runtime::Garden)))
        }
        [.., "garden"] | [.., "garden", "good" | "bad"] => Some(if_isolated(segment, Some(Runtime::Garden))),
        _ if is_fargate_id(segment) && parents.iter().any(|parent| is_ecs(parent)) => {
            Some(known(segment, Some(Runtime::Containerd)))
        }
        _ => None,
    }
}

/// `lxc.payload.NAME`; the monitor in `lxc.monitor.NAME` runs outside of the container.
fn lxc(segment: &str) -> Option<ContainerPath> {
    let name = segment.strip_prefix("lxc.payload.").filter(|name| !name.is_empty())?;
    Some(known(name, Some(Runtime::Lxc)))
}

/// The machines of systemd: `machine-NAME.scope` once registered, `NAME.scope` if not, and
/// `systemd-nspawn@NAME.service` when started as a service.
fn machine(parents: &[&str], segment: &str, child: Option<&str>) -> Option<ContainerPath> {
    if matches!(child, Some("supervisor" | "libvirt")) {
        return None;
    }
    let is_payload = child == Some("payload");
    let (name, runtime) = if let Some(scope) = segment.strip_suffix(".scope") {
        match (scope.strip_prefix("machine-"), parents) {
            (Some(name), _) => (name, is_payload.then_some(Runtime::Nspawn)),
            (None, [.., "machine.slice"]) if is_payload => (scope, Some(Runtime::Nspawn)),
            (None, _) => return None,
        }
    } else {
        let name = segment.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")?;
        (name, Some(Runtime::Nspawn))
    };
    let name = unit_unescape(name);
    // libvirt registers virtual machines in the same way.
    if name.is_empty() || name.starts_with("qemu-") {
        return None;
    }
    // Without a payload it is systemd on cgroup v1 or another user of machined.
    Some(if is_payload { known(&name, runtime) } else { if_isolated(&name, runtime) })
}

/// The default scope of an OCI runtime that was given a name and the systemd driver but no path.
fn oci_scope(segment: &str) -> Option<ContainerPath> {
    let scope = segment.strip_suffix(".scope")?;
    let (name, runtime) = if let Some(name) = scope.strip_prefix("runc-") {
        (name, Runtime::Runc)
    } else if let Some(name) = scope.strip_prefix("crun-") {
        (name, Runtime::Crun)
    } else if scope.starts_with("bpm-") {
        // BOSH's process manager on runc. With the default scope its containers are named so too.
        (scope, Runtime::Runc)
    } else {
        return None;
    };
    (!name.is_empty()).then(|| if_isolated(name, Some(runtime)))
}

/// `/NAME` of a bare runc or crun and `/NAMESPACE/NAME` of a bare containerd.
///
/// A process that made a child cgroup in a bare runc container looks like the second and is
/// reported by the child's name.
fn free_text(segments: &[&str]) -> Option<ContainerPath> {
    let id = match segments {
        [] | [_, "conmon"] => return None,
        [first, ..] if is_reserved(first) => return None,
        [_, second, ..] if !is_reserved(second) => second,
        [first, ..] => first,
    };
    Some(if_isolated(id, None))
}

fn known(id: &str, runtime: Option<Runtime>) -> ContainerPath {
    ContainerPath { id: id.to_owned(), runtime, pod: None, certainty: Certainty::Known }
}

fn if_isolated(id: &str, runtime: Option<Runtime>) -> ContainerPath {
    ContainerPath { id: id.to_owned(), runtime, pod: None, certainty: Certainty::IfIsolated }
}

/// Names that are never free text: units of systemd and the parents that engines make.
fn is_reserved(segment: &str) -> bool {
    const PARENTS: [&str; 15] = [
        "besteffort",
        "buildkit",
        "burstable",
        "conmon",
        "docker",
        "ecs",
        "garden",
        "kubelet",
        "libpod_parent",
        "lxc",
        "lxc.pivot",
        // libvirt without systemd, and systemd before it had slices.
        "machine",
        "podruntime",
        "system",
        "user",
    ];
    PARENTS.contains(&segment)
        || is_unit(segment)
        || segment.ends_with("kubepods")
        || segment.starts_with("lxc.monitor")
        || segment.starts_with("lxc.payload")
        || segment.starts_with("libpod-conmon-")
        || segment.starts_with("crio-conmon-")
        || pod_at(&[], segment).is_some()
}

fn is_unit(segment: &str) -> bool {
    let kind = segment.rsplit_once('.').map(|(_, kind)| kind);
    matches!(kind, Some("slice" | "scope" | "service" | "mount" | "socket" | "swap"))
}

fn innermost_pod(segments: &[&str]) -> Option<Pod> {
    let mut above = segments;
    while let Some((segment, parents)) = above.split_last() {
        if let Some(pod) = pod_at(parents, segment) {
            return Some(pod);
        }
        above = parents;
    }
    None
}

/// `pod<uid>` of the cgroupfs driver and `...kubepods[-<qos>]-pod<uid with _>.slice` of systemd's,
/// the latter also in `<slice>:<prefix>:<id>`.
fn pod_at(parents: &[&str], segment: &str) -> Option<Pod> {
    if let Some(uid) = segment.strip_prefix("pod").filter(|uid| is_pod_uid(uid)) {
        let qos = match parents {
            [.., "besteffort"] => Some(Qos::BestEffort),
            [.., "burstable"] => Some(Qos::Burstable),
            [.., parent] if parent.ends_with("kubepods") => Some(Qos::Guaranteed),
            _ => None,
        };
        return Some(Pod { uid: uid.to_owned(), qos });
    }
    let slice = segment.split_once(':').map_or(segment, |(slice, _)| slice).strip_suffix(".slice")?;
    let (class, uid) = slice.rsplit_once("-pod")?;
    // A dash in a slice's name means "child of", so systemd's driver writes the UID without.
    let uid = uid.replace('_', "-");
    let qos = match class.rsplit('-').next() {
        Some("besteffort") => Qos::BestEffort,
        Some("burstable") => Qos::Burstable,
        Some("kubepods") => Qos::Guaranteed,
        _ => return None,
    };
    is_pod_uid(&uid).then_some(Pod { uid, qos: Some(qos) })
}

/// A UUID, or the MD5 hash that the kubelet gives to static pods.
fn is_pod_uid(text: &str) -> bool {
    is_hex_groups(text, &[8, 4, 4, 4, 12]) || is_hex(text, 32)
}

fn is_engine_id(text: &str) -> bool {
    is_hex(text, 64)
}

/// 128 bits in base 36.
fn is_buildkit_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

/// A UUID, cut to 28 characters for the instances that Diego starts.
fn is_garden_id(text: &str) -> bool {
    is_hex_groups(text, &[8, 4, 4, 4, 12]) || is_hex_groups(text, &[8, 4, 4, 4, 4])
}

/// The task's ID and a number.
fn is_fargate_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(task, number)| {
        is_hex(task, 32) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn is_ecs(segment: &str) -> bool {
    segment == "ecs" || segment.starts_with("ecstasks")
}

fn is_hex_groups(text: &str, lengths: &[usize]) -> bool {
    text.split('-').count() == lengths.len()
        && text.split('-').zip(lengths).all(|(group, &length)| is_hex(group, length))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Undoes systemd's `\xNN`, in which a unit's name holds a dash of a machine's.
fn unit_unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (code, part.get(2..)) {
            // Names of machines are host names: no byte above ASCII can be meant.
            (Some(code), Some(rest)) if code.is_ascii_graphic() => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => {
                plain.push_str("\\x");
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests;
