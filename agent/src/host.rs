//! The host that is looked at: `/`, or where a pod mounts it.
//!
//! Every path of the host goes through [`HostRoot`], so that the agent in a pod and the tests with
//! a made-up tree take the same way as the agent on a machine.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where the host's root directory is mounted.
#[derive(Clone, Debug)]
pub(crate) struct HostRoot(PathBuf);

/// The cgroup hierarchies that name containers on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Where the unified hierarchy is mounted.
    pub(crate) v2: Option<PathBuf>,
    /// One v1 controller, where there are any.
    pub(crate) v1: Option<V1>,
}

/// A cgroup v1 controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct V1 {
    /// Its name in /proc/cgroups, such as `memory`.
    pub(crate) controller: String,
    /// `cgroup_root.hierarchy_id`.
    pub(crate) hierarchy: u32,
    pub(crate) mount: PathBuf,
}

/// Controllers that container runtimes use on v1, the likeliest first.
const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "devices", "freezer"];

impl HostRoot {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The host's `path`, as this process sees it.
    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The host's name; a pod has one of its own.
    ///
    /// `/proc/sys/kernel/hostname` is that of the reader's UTS namespace, whosever procfs it is read from
    /// (`proc_do_uts_string`, `kernel/utsname_sysctl.c`, v6.18): in a pod only the file says the host's.
    pub(crate) fn hostname(&self) -> Option<String> {
        let (kernel, file) = ("/proc/sys/kernel/hostname", "/etc/hostname");
        let order = if self.0 == Path::new("/") { [kernel, file] } else { [file, kernel] };
        order.into_iter().filter_map(|path| self.line(path)).find(|name| !name.is_empty())
    }

    /// The machine id of systemd, which `host.id` is.
    pub(crate) fn machine_id(&self) -> Option<String> {
        self.line("/etc/machine-id").filter(|id| !id.is_empty())
    }

    /// A random number of 128 bits, as a UUID.
    pub(crate) fn random_id(&self) -> String {
        let id = fs::read_to_string(self.join("/proc/sys/kernel/random/uuid")).unwrap_or_default();
        id.trim().to_owned()
    }

    /// Differs after every boot.
    pub(crate) fn boot_id(&self) -> Option<String> {
        // Inside a container /proc/sys is the host's as well.
        self.line("/proc/sys/kernel/random/boot_id")
            .or_else(|| line(Path::new("/proc/sys/kernel/random/boot_id")))
    }

    /// The mount namespace of a process; `None` where it is gone.
    pub(crate) fn mount_namespace(&self, pid: u32) -> Option<u32> {
        let namespace = fs::metadata(self.join(&format!("/proc/{pid}/ns/mnt"))).ok()?;
        u32::try_from(namespace.ino()).ok()
    }

    /// What a process of this host can have at the most: the first process's bounding set.
    pub(crate) fn all_capabilities(&self) -> u64 {
        fs::read_to_string(self.join("/proc/1/status"))
            .ok()
            .and_then(|status| capability_set(&status, "CapBnd:"))
            .unwrap_or(u64::MAX)
    }

    /// Finds the cgroup hierarchies by what is mounted.
    pub(crate) fn hierarchies(&self) -> Hierarchies {
        let v2 = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .map(|path| self.join(path))
            .find(|path| path.join("cgroup.controllers").exists());
        let table = fs::read_to_string(self.join("/proc/cgroups")).unwrap_or_default();
        let v1 = CONTROLLERS.into_iter().find_map(|controller| {
            let mount = self.join("/sys/fs/cgroup").join(controller);
            let hierarchy = hierarchy_of(&table, controller).filter(|id| *id != 0)?;
            mount.join("cgroup.procs").exists().then(|| V1 {
                controller: controller.to_owned(),
                hierarchy,
                mount,
            })
        });
        Hierarchies { v2, v1 }
    }

    fn line(&self, path: &str) -> Option<String> {
        line(&self.join(path))
    }
}

fn line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A set of /proc/PID/status, such as `CapEff:`.
pub(crate) fn capability_set(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// The second column of a controller's row in /proc/cgroups; 0 where it belongs to v2.
fn hierarchy_of(table: &str, controller: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        if columns.next()? == controller { columns.next()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t4\t8\t1\npids\t0\t1\t1\n";

    fn host(directories: &[&str], files: &[(&str, &str)]) -> (tempfile::TempDir, HostRoot) {
        let root = tempfile::tempdir().unwrap();
        let host = HostRoot::new(root.path());
        for directory in directories {
            fs::create_dir_all(host.join(directory)).unwrap();
        }
        for (path, text) in files {
            fs::create_dir_all(host.join(path).parent().unwrap()).unwrap();
            fs::write(host.join(path), text).unwrap();
        }
        (root, host)
    }

    #[test]
    fn in_a_pod_the_name_is_not_that_of_the_pod() {
        let files = [("/proc/sys/kernel/hostname", "tellwire-x7k2p\n"), ("/etc/hostname", "node-1\n")];
        assert_eq!(host(&[], &files).1.hostname().as_deref(), Some("node-1"));
        assert_eq!(host(&[], &files[..1]).1.hostname().as_deref(), Some("tellwire-x7k2p"));
    }

    #[test]
    fn a_hybrid_host_has_both_hierarchies() {
        let (_root, host) = host(
            &[],
            &[
                ("/proc/cgroups", TABLE),
                ("/sys/fs/cgroup/memory/cgroup.procs", ""),
                ("/sys/fs/cgroup/unified/cgroup.controllers", ""),
            ],
        );
        let hierarchies = host.hierarchies();
        assert_eq!(hierarchies.v2, Some(host.join("/sys/fs/cgroup/unified")));
        assert_eq!(hierarchies.v1.unwrap().hierarchy, 4);
    }

    #[test]
    fn a_v2_host_has_no_v1_controller() {
        let table = TABLE.replace("memory\t4", "memory\t0").replace("cpu\t1", "cpu\t0");
        let (_root, host) =
            host(&[], &[("/proc/cgroups", &table), ("/sys/fs/cgroup/cgroup.controllers", "memory pids")]);
        assert_eq!(host.hierarchies(), Hierarchies { v2: Some(host.join("/sys/fs/cgroup")), v1: None });
    }

    #[test]
    fn a_v1_host_falls_back_to_another_controller() {
        let (_root, host) = host(&[], &[("/proc/cgroups", TABLE), ("/sys/fs/cgroup/cpu/cgroup.procs", "")]);
        assert_eq!(host.hierarchies().v1.unwrap().controller, "cpu");
    }
}
