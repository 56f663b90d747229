//! Every form of path that is known, and many that are none.

use super::*;

const ID: &str = "e0a00bf663b29d0a3879c8e9171569bf3c26587b6ac1bacf457b139ccdbb0206";
const OUTER: &str = "2337940cbbe78d1df07b722f837660e6e96470424b0739a27d62a94285f5a0b7";
const UID: &str = "f064088c-33f5-4ff0-8945-9c556a5b93c9";
const HASH: &str = "0bd0ba6ab1b8ae1a9b6a4e2e1e7a4b12";
const BUILD: &str = "k3b0mz2n4q8vxh1r7y5t9w6cd";
const SAMPLES: &str = include_str!("../testdata/cgroup-paths.txt");

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
    is_known("/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4711.scope/ID", "ID", podman);
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

/// The pod of a path, with a container in it or without.
fn pod(path: &str) -> Option<Pod> {
    innermost_pod(&segments(path))
}
