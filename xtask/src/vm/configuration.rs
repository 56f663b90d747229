//! Ways in which machines are set up, beside the kernel: what `guest/init.sh` does for each, and how it is booted.

use anyhow::{Result, bail};

use super::guest::System;

/// One way to set a machine up.
#[derive(Debug)]
pub(super) struct Configuration {
    /// Empty for the plain one: cgroup v2, tracefs, types, no lockdown.
    pub(super) name: &'static str,
    /// Words of the kernel's command line.
    pub(super) boot: &'static str,
    /// QEMU's `-smp`.
    pub(super) cpus: &'static str,
    pub(super) system: System,
    /// What must be seen.
    pub(super) expected: Expected,
}

/// What must be seen in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Every test passes.
    Tests,
    /// `tellwire check` attaches probes, and names this degradation. The tests need what is missing.
    Degraded(&'static str),
}

const fn plain(name: &'static str, boot: &'static str) -> Configuration {
    Configuration { name, boot, cpus: "2", system: System::Script, expected: Expected::Tests }
}

pub(super) const PLAIN: Configuration = plain("", "");

/// All but the plain one.
pub(super) const ALL: [Configuration; 12] = [
    Configuration { expected: Expected::Degraded("no_cgroup_v2"), ..plain("cgroup-v1", "") },
    plain("cgroup-hybrid", ""),
    plain("no-tracefs", ""),
    plain("btf-file", ""),
    plain("preempt-full", "preempt=full"),
    plain("lockdown-integrity", "lockdown=integrity lsm=lockdown,capability"),
    Configuration {
        expected: Expected::Degraded("kernel_memory_locked"),
        ..plain("lockdown-confidentiality", "lockdown=confidentiality lsm=lockdown,capability")
    },
    plain("unprivileged-bpf-disabled", ""),
    plain("apparmor", ""),
    plain("cpu-hotplug", ""),
    // They are there and never started, which costs nothing; room for more would not be counted as possible since 6.9.
    Configuration { cpus: "72", ..plain("many-cpus", "maxcpus=2") },
    Configuration { system: System::Systemd, ..plain("systemd", "") },
];

/// Those that `--configuration` names.
pub(super) fn named(asked: Option<&str>) -> Result<Vec<&'static Configuration>> {
    let Some(asked) = asked else { return Ok(vec![&PLAIN]) };
    if asked == "all" {
        return Ok(ALL.iter().collect());
    }
    let mut found = Vec::new();
    for name in asked.split(',') {
        match ALL.iter().find(|known| known.name == name) {
            Some(known) => found.push(known),
            None => bail!("no configuration {name}: {}", ALL.map(|known| known.name).join(", ")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{ALL, named};

    #[test]
    fn configurations_are_found_by_name() {
        assert_eq!(named(Some("all")).unwrap().len(), ALL.len());
        assert_eq!(named(Some("cgroup-v1,no-tracefs")).unwrap().len(), 2);
        assert_eq!(named(None).unwrap()[0].name, "");
        assert!(named(Some("no-such")).unwrap_err().to_string().contains("preempt-full"));
    }

    #[test]
    fn the_guest_knows_every_configuration_that_the_kernel_is_not_told() {
        let script = include_str!("guest/init.sh");
        for known in ALL.iter().filter(|known| known.boot.is_empty()) {
            assert!(script.contains(known.name), "{}", known.name);
        }
    }
}
