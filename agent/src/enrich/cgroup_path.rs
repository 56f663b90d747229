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

/// The innermost pod on `path`, also when the path ends above or beside the pod's containers
/// (the pod's own cgroup, a container's monitor).
pub(crate) fn pod(path: &str) -> Option<Pod> {
    innermost_pod(&segments(path))
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
mod tests {
    use super::*;

    const ID: &str = "e0a00bf663b29d0a3879c8e9171569bf3c26587b6ac1bacf457b139ccdbb0206";
    const OUTER: &str = "2337940cbbe78d1df07b722f837660e6e96470424b0739a27d62a94285f5a0b7";
    const UID: &str = "f064088c-33f5-4ff0-8945-9c556a5b93c9";
    const HASH: &str = "0bd0ba6ab1b8ae1a9b6a4e2e1e7a4b12";
    const BUILD: &str = "k3b0mz2n4q8vxh1r7y5t9w6cd";
    const SAMPLES: &str = include_str!("testdata/cgroup-paths.txt");

    /// Puts the IDs of this module in place of the words.
    fn path(form: &str) -> String {
        form.replace("UID_", &UID.replace('-', "_"))
            .replace("UID", UID)
            .replace("HASH", HASH)
            .replace("OUTER", OUTER)
            .replace("BUILD", BUILD)
            .replace("ID", ID)
    }

    #[track_caller]
    fn is_known(form: &str, id: &str, runtime: Option<Runtime>) {
        let container = parse(&path(form)).unwrap_or_else(|| panic!("no container in {form}"));
        assert_eq!(
            (container.id.as_str(), container.runtime, container.certainty),
            (path(id).as_str(), runtime, Certainty::Known),
            "{form}"
        );
    }

    #[track_caller]
    fn is_known_if_isolated(form: &str, id: &str, runtime: Option<Runtime>) {
        let container = parse(&path(form)).unwrap_or_else(|| panic!("no container in {form}"));
        assert_eq!(
            (container.id.as_str(), container.runtime, container.certainty),
            (path(id).as_str(), runtime, Certainty::IfIsolated),
            "{form}"
        );
    }

    #[track_caller]
    fn is_none(form: &str) {
        assert_eq!(parse(&path(form)), None, "{form}");
    }

    #[track_caller]
    fn is_in_pod(form: &str, uid: &str, qos: Option<Qos>) {
        let expected = Some(Pod { uid: uid.to_owned(), qos });
        assert_eq!(pod(&path(form)), expected, "{form}");
        if let Some(container) = parse(&path(form)) {
            assert_eq!(container.pod, expected, "{form}");
        }
    }

    #[test]
    fn docker_containers_are_known_with_both_drivers() {
        let docker = Some(Runtime::Docker);
        is_known("/docker/ID", "ID", docker);
        is_known("/system.slice/docker-ID.scope", "ID", docker);
        is_known("/docker-ce/docker/ID", "ID", docker);
        is_known("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope", "ID", docker);
        is_known("/system.slice/docker.service/docker/ID", "ID", docker);
    }

    #[test]
    fn kubernetes_containers_are_known_with_the_cgroupfs_driver() {
        is_known("/kubepods/besteffort/podUID/ID", "ID", None);
        is_known("/kubepods/burstable/podUID/ID", "ID", None);
        is_known("/kubepods/podUID/ID", "ID", None);
        is_known("/kubepods/burstable/podUID/crio-ID", "ID", Some(Runtime::CriO));
        is_known("/kubepods/burstable/podUID/crio-ID/container", "ID", Some(Runtime::CriO));
    }

    #[test]
    fn kubernetes_containers_are_known_with_the_systemd_driver() {
        let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice";
        is_known(&format!("{slice}/cri-containerd-ID.scope"), "ID", Some(Runtime::Containerd));
        is_known(&format!("{slice}/crio-ID.scope"), "ID", Some(Runtime::CriO));
        is_known(&format!("{slice}/crio-ID.scope/container"), "ID", Some(Runtime::CriO));
        is_known(&format!("{slice}/docker-ID.scope"), "ID", Some(Runtime::Docker));
        is_known(
            "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
            "ID",
            Some(Runtime::Containerd),
        );
    }

    #[test]
    fn a_systemd_path_taken_literally_by_the_cgroupfs_driver_is_known() {
        let containerd = Some(Runtime::Containerd);
        is_known("/kubepods-burstable-podUID_.slice:cri-containerd:ID", "ID", containerd);
        is_known(
            "/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
            "ID",
            containerd,
        );
        is_known("/system.slice:docker:ID", "ID", Some(Runtime::Docker));
        is_known("/:cri-containerd:ID", "ID", containerd);
    }

    #[test]
    fn podman_containers_are_known_in_every_form() {
        let podman = Some(Runtime::Podman);
        is_known("/libpod_parent/libpod-ID", "ID", podman);
        is_known("/libpod_parent/OUTER/libpod-ID", "ID", podman);
        is_known("/machine.slice/libpod-ID.scope", "ID", podman);
        is_known("/machine.slice/libpod-ID.scope/container", "ID", podman);
        is_known("/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope/container", "ID", podman);
        is_known("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", "ID", podman);
        is_known(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4711.scope/ID",
            "ID",
            podman,
        );
        is_known("/system.slice/web.service/libpod-payload-ID/container", "ID", podman);
    }

    #[test]
    fn monitors_and_pods_without_a_container_are_none() {
        is_none("/kubepods.slice/kubepods-podUID_.slice/crio-conmon-ID.scope");
        is_none("/kubepods/podUID/crio-conmon-ID");
        is_none("/machine.slice/libpod-conmon-ID.scope");
        is_none("/libpod-conmon-ID");
        is_none("/libpod_parent/conmon");
        is_none("/libpod_parent/OUTER/conmon");
        is_none("/libpod_parent/OUTER");
        is_none("/custom/conmon");
        is_none("/machine.slice/machine-libpod_pod_OUTER.slice");
        is_none("/system.slice/web.service/runtime");
        is_none("/kubepods/besteffort/podUID");
        is_none("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice");
        is_none("/podUID");
        is_none("/../podUID");
        is_none("/lxc.monitor.c1");
        is_none("/lxc.monitor/c1");
        is_none("/lxc.pivot");
        is_none("/ecs/HASH");
    }

    #[test]
    fn machines_of_systemd_are_known_by_their_payload() {
        let nspawn = Some(Runtime::Nspawn);
        is_known("/machine.slice/machine-box2.scope/payload", "box2", nspawn);
        is_known("/machine.slice/machine-box2.scope/payload/system.slice/cron.service", "box2", nspawn);
        is_known(r"/machine.slice/machine-my\x2dbox.scope/payload", "my-box", nspawn);
        is_known("/machine.slice/box1.scope/payload", "box1", nspawn);
        is_known("/machine.slice/systemd-nspawn@box3.service/payload/init.scope", "box3", nspawn);
        is_known_if_isolated("/machine.slice/systemd-nspawn@box3.service", "box3", nspawn);
        is_known_if_isolated("/machine.slice/machine-box2.scope", "box2", None);
        is_none("/machine.slice/systemd-nspawn@box3.service/supervisor");
        is_none("/machine.slice/machine-box2.scope/supervisor");
        is_none("/machine.slice/box1.scope");
        is_none(r"/machine.slice/machine-qemu\x2d1\x2dvm.scope");
        is_none(r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator");
        is_none("/machine.slice/machine-.scope/payload");
    }

    #[test]
    fn lxc_containers_are_known_old_and_new() {
        let lxc = Some(Runtime::Lxc);
        is_known("/lxc.payload.c1", "c1", lxc);
        is_known("/lxc.payload.c1/system.slice/cron.service", "c1", lxc);
        is_known("/lxc.payload/c1", "c1", lxc);
        is_known("/lxc/c1", "c1", lxc);
        is_known("/lxc/101/ns/init.scope", "101", lxc);
        is_known("/lxc.payload.c1/docker/ID", "ID", Some(Runtime::Docker));
        is_known("/lxc.payload.c1/lxc.payload.c2", "c2", lxc);
        is_none("/lxc.payload.");
    }

    #[test]
    fn cloud_platforms_have_forms_of_their_own() {
        is_known("/ecs/HASH/ID", "ID", Some(Runtime::Docker));
        is_known("/ecs/UID/ID", "ID", Some(Runtime::Docker));
        is_known("/ecstasks.slice/ecstasks-HASH.slice/docker-ID.scope", "ID", Some(Runtime::Docker));
        is_known("/ecs/HASH/HASH-2531612879", "HASH-2531612879", Some(Runtime::Containerd));
        let garden = Some(Runtime::Garden);
        is_known("/garden/UID", "UID", garden);
        is_known(
            "/system.slice/garden.service/garden/bad/2f57368b-0eda-4e52-64d8-af5c",
            "2f57368b-0eda-4e52-64d8-af5c",
            garden,
        );
        is_known_if_isolated("/garden/web", "web", garden);
        is_none("/garden/good");
        is_known_if_isolated(
            "/system.slice/runc-bpm-galera-agent.scope",
            "bpm-galera-agent",
            Some(Runtime::Runc),
        );
        is_known_if_isolated("/system.slice/bpm-galera-agent.scope", "bpm-galera-agent", Some(Runtime::Runc));
        is_known_if_isolated("/system.slice/crun-web.scope/container", "web", Some(Runtime::Crun));
    }

    #[test]
    fn build_steps_are_containers() {
        is_known("/docker/buildkit/BUILD", "BUILD", Some(Runtime::Buildkit));
        is_known("/system.slice/docker-BUILD.scope", "BUILD", Some(Runtime::Docker));
    }

    #[test]
    fn the_innermost_container_wins() {
        is_known("/docker/OUTER/docker/ID", "ID", Some(Runtime::Docker));
        is_known("/kubepods/burstable/podUID/OUTER/docker/ID", "ID", Some(Runtime::Docker));
        let kind = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                    kubelet-kubepods-besteffort-podUID_.slice/cri-containerd-ID.scope";
        for node in ["", "system.slice/docker-OUTER.scope/", "docker/OUTER/"] {
            let form = format!("/{node}{kind}");
            is_known(&form, "ID", Some(Runtime::Containerd));
            is_in_pod(&form, UID, Some(Qos::BestEffort));
        }
        is_known("/docker/OUTER/kubelet/kubepods/podUID/ID", "ID", None);
    }

    #[test]
    fn a_cgroup_made_inside_a_container_belongs_to_the_container() {
        is_known("/kubepods/burstable/podUID/ID/kube-proxy", "ID", None);
        is_known("/docker/ID/init.scope", "ID", Some(Runtime::Docker));
        is_known("/docker/ID/system.slice/kubelet.service", "ID", Some(Runtime::Docker));
        is_known("/docker/OUTER/machine.slice/libpod-conmon-ID.scope", "OUTER", Some(Runtime::Docker));
        is_known("/docker/ID/default/web1", "ID", Some(Runtime::Docker));
        // A pod's own cgroup in a kind node: the node's container is the one around it.
        is_known("/docker/OUTER/kubelet/kubepods/podUID", "OUTER", Some(Runtime::Docker));
        assert_eq!(parse(&path("/docker/OUTER/kubepods/podUID")).unwrap().pod, None);
    }

    #[test]
    fn an_id_under_unknown_parents_is_a_container() {
        is_known("/ID", "ID", None);
        is_known("/actions_job/ID", "ID", None);
        is_known("/foo.slice/ID.scope", "ID", None);
        is_known("/default/ID", "ID", None);
        is_known("/foo.slice/engine-ID.scope", "ID", None);
        is_none("/system.slice/ID.service");
    }

    #[test]
    fn paths_out_of_a_cgroup_namespace_are_read_like_others() {
        is_known("/../../../../docker/ID", "ID", Some(Runtime::Docker));
        is_known("/../ID", "ID", None);
        is_known("/../crio-ID.scope", "ID", Some(Runtime::CriO));
        is_known_if_isolated("/../web1", "web1", None);
        is_none("/..");
        is_none("/../..");
        is_none("/../../system.slice/cron.service");
        is_in_pod("/../../podUID/ID", UID, None);
        is_in_pod("/../../../burstable/podUID/ID", UID, Some(Qos::Burstable));
    }

    #[test]
    fn a_removed_cgroup_keeps_its_identity() {
        is_known("/docker/ID (deleted)", "ID", Some(Runtime::Docker));
        is_none("/system.slice/cron.service (deleted)");
    }

    #[test]
    fn free_text_names_are_containers_if_isolated() {
        is_known_if_isolated("/web", "web", None);
        is_known_if_isolated("/default/web1", "web1", None);
        is_known_if_isolated("/default/web1/child", "web1", None);
        is_known_if_isolated("/web/system.slice/cron.service", "web", None);
        is_known_if_isolated("/web/init.scope", "web", None);
    }

    #[test]
    fn cgroups_of_the_host_are_none() {
        for path in [
            "",
            "/",
            "//",
            "/init.scope",
            "/system.slice",
            "/system.slice/cron.service",
            "/system.slice/system-foo.slice/foo@bar-1.service",
            "/system.slice/dev-hugepages.mount",
            "/system.slice/dbus.socket",
            "/system.slice/containerd.service",
            "/system.slice/docker.service/init",
            "/user.slice",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/run-p2089-i200048.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service",
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4711.scope",
            "/machine.slice",
            "/kubepods",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-besteffort.slice",
            "/docker",
            "/docker/buildkit",
            "/libpod_parent",
            "/garden",
            "/lxc",
            "/lxc.payload",
            "/ecs",
        ] {
            assert_eq!(parse(path), None, "{path}");
            assert_eq!(pod(path), None, "{path}");
        }
    }

    #[test]
    fn pods_have_their_uid_and_class_with_both_drivers() {
        is_in_pod("/kubepods/besteffort/podUID/ID", UID, Some(Qos::BestEffort));
        is_in_pod("/kubepods/burstable/podUID/ID", UID, Some(Qos::Burstable));
        is_in_pod("/kubepods/podUID/ID", UID, Some(Qos::Guaranteed));
        is_in_pod("/kubepods/podHASH/ID/child", HASH, Some(Qos::Guaranteed));
        is_in_pod("/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope", UID, Some(Qos::Guaranteed));
        is_in_pod("/kubepods.slice/kubepods-podUID_.slice/crio-conmon-ID.scope", UID, Some(Qos::Guaranteed));
        is_in_pod(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/crio-ID.scope",
            HASH,
            Some(Qos::Burstable),
        );
        is_in_pod("/system.slice/kubepods-besteffort-podUID_.slice:crio:ID", UID, Some(Qos::BestEffort));
        // Docker inside a pod: the engine is Docker, the pod is still the pod.
        is_in_pod("/kubepods/burstable/podUID/OUTER/docker/ID", UID, Some(Qos::Burstable));
    }

    #[test]
    fn every_recorded_path_gives_the_container_it_was_recorded_for() {
        let mut containers = 0;
        let mut services = 0;
        for path in recorded_paths() {
            let id = path.split(|byte: char| !byte.is_ascii_hexdigit()).rfind(|run| run.len() == 64);
            if let Some(id) = id {
                let container = parse(path).unwrap_or_else(|| panic!("no container in {path}"));
                assert_eq!((container.id.as_str(), container.certainty), (id, Certainty::Known), "{path}");
                assert_eq!(container.pod.is_some(), path.contains("kubepods"), "{path}");
                containers += 1;
            }
            if path.ends_with(".service") {
                assert_eq!(parse(path), None, "{path}");
                services += 1;
            }
        }
        assert!(containers > 100, "{containers} containers");
        assert!(services > 3, "{services} services");
    }

    #[test]
    fn any_text_parses_without_a_panic() {
        let forms: Vec<&str> = recorded_paths().collect();
        let mut random = Lcg(1);
        for _ in 0..50_000 {
            let mut bytes = forms[random.below(forms.len())].as_bytes().to_vec();
            for _ in 0..random.below(4) {
                let other = forms[random.below(forms.len())].as_bytes();
                let at = random.below(bytes.len() + 1);
                match random.below(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, b"/-.:\\_x0a\xc3\xff"[random.below(11)]),
                    2 => drop(bytes.splice(at.., other[random.below(other.len())..].iter().copied())),
                    _ if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.reverse(),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            if let Some(container) = parse(&text) {
                assert!(!container.id.is_empty() && !container.id.contains('/'), "{text}");
                assert!(container.pod.is_none() || pod(&text).is_some(), "{text}");
            }
        }
    }

    /// The third fields of the `N:controllers:/path` lines, some of which stand behind a command line.
    fn recorded_paths() -> impl Iterator<Item = &'static str> {
        SAMPLES.lines().filter_map(|line| {
            let line = line.rsplit_once(" : ").map_or(line, |(_, line)| line);
            let mut fields = line.splitn(3, ':');
            fields.next()?.parse::<u32>().ok()?;
            fields.nth(1).filter(|path| path.starts_with('/'))
        })
    }

    /// The same sequence in every run, so that a failure can be had again.
    struct Lcg(u64);

    impl Lcg {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % limit
        }
    }
}
