//! Who the agent is, on its own lines: a process like any other, and a run like no other.

use std::fs;

use rustix::{
    param::clock_ticks_per_second,
    process::{getegid, geteuid, getgid, getppid, getuid},
};
use tellwire_ebpf::wire::{Ids, Subject};
use zerocopy::FromZeros as _;

use crate::{enrich::processes::Processes, host::HostRoot};

/// The agent's process id on the host; a pod has ids of its own.
pub(crate) fn pid_on_host(host: &HostRoot) -> u32 {
    fs::read_link(host.join("/proc/self"))
        .ok()
        .and_then(|link| link.to_str()?.parse().ok())
        .unwrap_or_else(std::process::id)
}

/// The agent's process: as the table has it, or as far as /proc tells.
pub(crate) fn subject(pid: u32, host: &HostRoot, processes: &Processes) -> Subject {
    if let Some(subject) = processes.subject(pid, pid) {
        return subject;
    }
    let mut subject = Subject::new_zeroed();
    let stat = fs::read_to_string(host.join(&format!("/proc/{pid}/stat"))).unwrap_or_default();
    subject.tgid = pid;
    subject.tid = pid;
    subject.start = start_of(&stat);
    subject.parent_tgid = getppid().map_or(0, |parent| parent.as_raw_nonzero().get().cast_unsigned());
    let (real, effective) =
        ((getuid().as_raw(), getgid().as_raw()), (geteuid().as_raw(), getegid().as_raw()));
    subject.ids = Ids {
        uid: real.0,
        gid: real.1,
        suid: effective.0,
        sgid: effective.1,
        euid: effective.0,
        egid: effective.1,
        fsuid: effective.0,
        fsgid: effective.1,
    };
    for (to, from) in subject.comm.iter_mut().zip(b"tellwire") {
        *to = *from;
    }
    subject.login_uid = u32::MAX;
    subject.session_id = u32::MAX;
    subject
}

/// What /proc/PID/stat says of the start, in nanoseconds; it counts in ticks.
fn start_of(stat: &str) -> u64 {
    // The name in brackets can have anything in it; the 22nd field is the 20th behind it.
    let ticks =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse::<u64>().ok());
    ticks.unwrap_or(0).saturating_mul(1_000_000_000 / clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_with_any_name_is_found() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 6 7";
        assert_eq!(start_of(stat), 12345 * (1_000_000_000 / clock_ticks_per_second()));
        assert_eq!(start_of(""), 0);
    }
}
