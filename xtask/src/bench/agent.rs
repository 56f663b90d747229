//! The agent under measurement: started in cgroups of its own, scoped to the workload's.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::load::{Done, Workload, pause};

/// Probes that run for an exec, its failure's included.
pub(super) const EXEC_PROBES: &[&str] = &["exec", "exec_failed"];

/// Probes that run for a connect.
pub(super) const CONNECT_PROBES: &[&str] = &["connect_denied", "connect", "connect_errno"];

/// What each possible CPU adds to the kernel's memory: the ledger, the sequence numbers, and the free lists of
/// the two least-recently-used maps (some 4 entries of 100 bytes each, `kernel/bpf/bpf_lru_list.c`).
pub(super) const BYTES_PER_CPU: f64 = 8.0 * 48.0 + 3.0 * 8.0 + 2.0 * 4.0 * 100.0;

const DEADLINE: Duration = Duration::from_secs(30);

/// How often it is asked how long types take.
const CHECKS: usize = 5;

/// What the kernel's types take at a start, in milliseconds: the median of what some `tellwire check` say.
pub(super) fn types_millis(binary: &Path) -> Result<f64> {
    let once = |_| {
        let output = Command::new(binary).args(["check", "--json"]).stderr(Stdio::null()).output()?;
        let check: serde_json::Value = serde_json::from_slice(&output.stdout).context("`tellwire check`")?;
        let seconds = check.get("btf_seconds").and_then(serde_json::Value::as_f64);
        Ok(seconds.context("`tellwire check` does not say what types took")? * 1e3)
    };
    let mut taken = (0..CHECKS).map(once).collect::<Result<Vec<f64>>>()?;
    taken.sort_by(f64::total_cmp);
    taken.get(CHECKS / 2).copied().context("a check")
}

pub(super) struct Agent {
    child: Child,
    directory: PathBuf,
    cgroup: PathBuf,
    memory: Option<PathBuf>,
    address: String,
}

impl Agent {
    /// `config` is the text of a configuration file; `output` may be a file relative to a directory of its own.
    pub(super) fn start(binary: &Path, config: &str, output: &str) -> Result<Self> {
        let name = format!("tellwire-bench-{}", std::process::id());
        let cgroup = v2_mount().context("no cgroup v2 hierarchy is mounted")?.join(&name);
        make(&cgroup)?;
        let memory = memory_cgroup(&name);
        let directory = Path::new("/tmp").join(&name);
        fs::create_dir_all(&directory)?;
        let file = directory.join("tellwire.toml");
        fs::write(&file, format!("agent.state-dir = '{}'\n{config}", directory.display()))?;
        let output = output.replace("file:events", &format!("file:{}/events", directory.display()));
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(binary);
        command
            .args(["run", "--listen", &address, "--output", &output, "--config"])
            .arg(&file)
            .arg("--cgroup")
            .arg(&cgroup)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(memory) = &memory {
            let procs = fs::OpenOptions::new().write(true).open(memory.join("cgroup.procs"))?;
            #[expect(unsafe_code, reason = "the agent's memory is counted from its first page")]
            // SAFETY: one write to an open descriptor, which is safe between fork and exec.
            unsafe {
                command.pre_exec(move || (&procs).write_all(b"0"));
            }
        }
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().context("the child has a stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        for line in lines.by_ref() {
            let line = line?;
            if line.contains("\"watching\"") {
                // What it says later is read by nobody, and must not stop it.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, directory, cgroup, memory, address });
            }
            if !line.contains("\"INFO\"") {
                crate::complain(&line);
            }
        }
        bail!("the agent did not start")
    }

    /// The cgroup that it looks at.
    pub(super) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    pub(super) fn read(&self) -> Result<Reading> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Reading::parse(&text))
    }

    /// Reads until the lines and losses of the work are all there, or for some seconds.
    pub(super) fn read_when_settled(
        &self,
        before: &Reading,
        (workload, done): (Workload, &Done),
    ) -> Result<Reading> {
        let begin = Instant::now();
        loop {
            let reading = self.read()?;
            let waiting = reading.sum("tellwire_ring_used_bytes", &[]);
            let since = |metric| reading.sum(metric, &[]) - before.sum(metric, &[]);
            let lines = since("tellwire_lines_total");
            let written = since("tellwire_output_events_total");
            // Of this workload alone: others, such as the exits of what was started, come between.
            let taken = reading.taken(workload) - before.taken(workload);
            let settled = waiting < 1.0 && written >= lines && taken + reading.lost() >= done.count();
            if settled || begin.elapsed() > Duration::from_secs(5) {
                return Ok(reading);
            }
            pause(Duration::from_millis(100));
        }
    }

    /// Keeps the agent from running for a while.
    pub(super) fn stall(&self, length: Duration) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, Signal::STOP)?;
            pause(length);
            kill_process(pid, Signal::CONT)?;
        }
        Ok(())
    }

    /// A row of /proc/PID/status, in MiB.
    pub(super) fn memory(&self, row: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(row)).context("the row is there")?;
        let kib: f64 = line.split_whitespace().nth(1).context("the row has a value")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// CPU time of all its threads, by the scheduler's own clock: /proc/PID/stat counts in ticks.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let mut nanos = 0.0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that has just ended is not there any more.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanos += text.split_whitespace().next().context("schedstat has a run time")?.parse::<f64>()?;
        }
        Ok(nanos / 1e9)
    }

    /// Bytes charged to the agent's cgroup, where a memory controller can say; page cache of its file left out.
    pub(super) fn cgroup_memory(&self) -> Option<f64> {
        let memory = self.memory.as_ref()?;
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let current = fs::read_to_string(memory.join("memory.current"))
            .or_else(|_| fs::read_to_string(memory.join("memory.usage_in_bytes")))
            .ok()?;
        let stat = fs::read_to_string(memory.join("memory.stat")).ok()?;
        let row = |name: &str| stat.lines().find_map(|line| number(line.strip_prefix(name)?));
        let file = row("total_cache ").or_else(|| row("file ")).unwrap_or(0.0);
        Some(number(&current)? - file)
    }

    /// Stops it, and gives back what stands in a file of its directory.
    pub(super) fn stop_and_read(mut self, file: &str) -> Result<String> {
        self.end()?;
        Ok(fs::read_to_string(self.directory.join(file))?)
    }

    /// Stops it; tells whether it ended well, which it does only if its books are exact.
    pub(super) fn stop(mut self) -> Result<bool> {
        self.end()
    }

    fn end(&mut self) -> Result<bool> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, Signal::TERM)?;
        }
        let begin = Instant::now();
        while begin.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            pause(Duration::from_millis(20));
        }
        self.child.kill()?;
        bail!("the agent did not stop")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.directory);
        let _removed = fs::remove_dir(&self.cgroup);
        if let Some(memory) = &self.memory {
            let _removed = fs::remove_dir(memory);
        }
    }
}

fn make(cgroup: &Path) -> Result<()> {
    if !cgroup.is_dir() {
        fs::create_dir(cgroup).with_context(|| format!("making {}", cgroup.display()))?;
    }
    Ok(())
}

fn v2_mount() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .find(|mount| mount.join("cgroup.controllers").exists())
}

/// A cgroup with a memory controller, on v1 or v2.
fn memory_cgroup(name: &str) -> Option<PathBuf> {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    let cgroup = if v1.join("cgroup.procs").exists() {
        v1.join(name)
    } else {
        v2_mount()?.join(format!("{name}-agent"))
    };
    make(&cgroup).ok()?;
    (cgroup.join("memory.usage_in_bytes").exists() || cgroup.join("memory.current").exists())
        .then_some(cgroup)
}

/// BPF statistics, off again when this is dropped if they were off before.
pub(super) struct Statistics(String);

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Statistics {
    pub(super) fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH)?;
        fs::write(SWITCH, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _left_on = fs::write(SWITCH, &self.0);
    }
}

/// One scrape: series and values.
pub(super) struct Reading(HashMap<String, f64>);

impl Reading {
    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| {
                    let (series, value) = line.rsplit_once(' ')?;
                    Some((series.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// The sum over the series of a metric that have all these labels.
    pub(super) fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.0
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(metric))
            .filter(|(series, _)| {
                labels.iter().all(|(name, value)| series.contains(&format!("{name}=\"{value}\"")))
            })
            .map(|(_, value)| value)
            .sum()
    }

    pub(super) fn probe_seconds(&self, probe: &str) -> f64 {
        self.sum("tellwire_probe_run_seconds_total", &[("probe", probe)])
    }

    pub(super) fn probe_runs(&self, probe: &str) -> f64 {
        self.sum("tellwire_probe_runs_total", &[("probe", probe)])
    }

    pub(super) fn output_bytes(&self) -> f64 {
        self.sum("tellwire_output_bytes_total", &[])
    }

    pub(super) fn events(&self, workload: Workload) -> f64 {
        self.sum("tellwire_events_total", &[("action", workload.name())])
    }

    /// Events that the agent took and made lines of, or left out and counted.
    pub(super) fn taken(&self, workload: Workload) -> f64 {
        let action = [("action", workload.name())];
        let summaries =
            if workload == Workload::Connect { self.sum("tellwire_fold_lines_total", &[]) } else { 0.0 };
        self.sum("tellwire_lines_total", &action) + self.sum("tellwire_lines_left_out_total", &action)
            - summaries
    }

    pub(super) fn lost(&self) -> f64 {
        self.sum("tellwire_events_lost_total", &[])
    }

    pub(super) fn lost_of(&self, workload: Workload) -> f64 {
        self.sum("tellwire_events_lost_total", &[("action", workload.name())])
    }

    pub(super) fn throttled(&self) -> f64 {
        self.sum("tellwire_kernel_records_total", &[("outcome", "throttled")])
    }

    pub(super) fn balanced(&self) -> f64 {
        self.sum("tellwire_ledger_balanced", &[])
    }

    pub(super) fn ring_bytes(&self) -> f64 {
        self.sum("tellwire_ring_bytes", &[])
    }
}

/// CPUs that may ever be there.
pub(super) fn possible_cpus() -> Result<f64> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().context("a list of CPUs")?;
    Ok(last.parse::<f64>()? + 1.0)
}
