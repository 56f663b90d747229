//! The agent's own use of the machine, by the names that all Prometheus clients use.

use std::{fmt::Error, fs};

use super::encode::{Sink, float};

/// Clock ticks a second in /proc: 100 on every architecture (`USER_HZ`).
const TICKS: f64 = 100.0;

pub(super) fn encode(sink: &mut Sink<'_>) -> Result<(), Error> {
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) else {
        return Ok(());
    };
    sink.counter_f64(
        "process_cpu_seconds_total",
        "User and system CPU time of the agent.",
        &[(&[], float(stat.ticks) / TICKS)],
    )?;
    sink.gauge(
        "process_resident_memory_bytes",
        "Resident memory of the agent, its maps of the rings included.",
        &[(&[], float(stat.resident_pages * rustix::param::page_size() as u64))],
    )?;
    sink.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory of the agent.",
        &[(&[], float(stat.virtual_bytes))],
    )?;
    if let Some(start) = boot_time().map(|boot| float(boot) + float(stat.start_ticks) / TICKS) {
        sink.gauge(
            "process_start_time_seconds",
            "When the agent started, since the epoch.",
            &[(&[], start)],
        )?;
    }
    if let Ok(directory) = fs::read_dir("/proc/self/fd") {
        sink.gauge(
            "process_open_fds",
            "Open files of the agent.",
            &[(&[], float(directory.count() as u64))],
        )?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// `proc_pid_stat(5)`. The name stands in parentheses and may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_time() -> Option<u64> {
    fs::read_to_string("/proc/stat")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 140 150 16 17 18 19 20 21 2200 2300 24 25";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { ticks: 290, start_ticks: 2200, virtual_bytes: 2300, resident_pages: 24 });
    }
}
