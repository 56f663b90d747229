//! Workloads: bounded in count and time, on loopback alone, each in a child process that starts in a given cgroup.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    net::{AddressFamily, SocketType, connect, socket, sockopt::set_socket_linger},
    thread::{Timespec, nanosleep},
};

/// The variable that tells the child its cgroup.
pub(super) const CGROUP: &str = "TELLWIRE_BENCH_CGROUP";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// A program of a few bytes with 1 KiB of argv, eight directories deep.
    Exec,
    /// A blocking connect to a listener on loopback, established and reset.
    Connect,
    /// A socket that begins to listen and is closed: two changes of state that are none of a connect's.
    Listen,
    /// A system call that nobody looks at.
    Getppid,
    /// What a node with some services does, see [`super::services`].
    Services,
}

/// What to do.
pub(super) struct Work {
    pub(super) workload: Workload,
    /// Events a second; 0 for as many as go.
    pub(super) rate: u32,
    pub(super) length: Duration,
}

/// What was done.
pub(super) struct Done {
    events: u64,
    elapsed: Duration,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Getppid => "getppid",
            Self::Services => "services",
        }
    }
}

impl Done {
    /// The events as a figure.
    #[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
    pub(super) fn count(&self) -> f64 {
        self.events as f64
    }

    pub(super) fn rate(&self) -> f64 {
        self.count() / self.elapsed.as_secs_f64()
    }

    pub(super) fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64()
    }

    pub(super) fn nanos_each(&self) -> f64 {
        self.elapsed.as_secs_f64() * 1e9 / self.count().max(1.0)
    }
}

impl Work {
    /// Does it, in `cgroup` if there is one.
    pub(super) fn run(&self, cgroup: Option<&Path>) -> Result<Done> {
        self.run_watched(cgroup, &mut || Ok(()))
    }

    /// Does it, and calls `watch` again and again meanwhile.
    pub(super) fn run_watched(
        &self,
        cgroup: Option<&Path>,
        watch: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Done> {
        let Self { workload, rate, length } = self;
        let spec = format!("{},{rate},{}", workload.name(), length.as_millis());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--workload", &spec]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(cgroup) = cgroup {
            command.env(CGROUP, cgroup);
        }
        let mut child = command.spawn()?;
        let mut stdout = child.stdout.take().context("the child has a stdout")?;
        let mut ready = [0; 6];
        stdout.read_exact(&mut ready)?;
        // The child's own exec and whatever it set up are done; what is counted begins now.
        drop(child.stdin.take());
        while child.try_wait()?.is_none() {
            watch()?;
            pause(Duration::from_millis(200));
        }
        let mut text = String::new();
        stdout.read_to_string(&mut text)?;
        if !child.wait()?.success() {
            bail!("the workload {spec} failed");
        }
        let (events, nanos) = text.trim().split_once(' ').context("the workload says what it did")?;
        Ok(Done { events: events.parse()?, elapsed: Duration::from_nanos(nanos.parse()?) })
    }
}

/// The child's side: says that it is ready, waits for the word, works, says what it did.
pub(super) fn child(spec: &str) -> Result<()> {
    if spec.starts_with("service,") {
        return super::services::service(spec);
    }
    let mut parts = spec.split(',');
    let mut next = || parts.next().context("workload, rate, milliseconds");
    let (name, rate, millis) = (next()?, next()?.parse::<u32>()?, next()?.parse::<u64>()?);
    if name == "services" {
        return super::services::child(Duration::from_millis(millis));
    }
    let mut event: Box<dyn FnMut() -> Result<()>> = match name {
        "exec" => exec()?,
        "connect" => established()?,
        "listen" => Box::new(|| {
            drop(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
            Ok(())
        }),
        "getppid" => Box::new(|| {
            let _parent = rustix::process::getppid();
            Ok(())
        }),
        other => bail!("no workload {other}"),
    };
    // After its own exec, which is none of the work.
    if let Some(cgroup) = std::env::var_os(CGROUP) {
        fs::write(Path::new(&cgroup).join("cgroup.procs"), "0")?;
    }
    let mut stdout = std::io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let begin = Instant::now();
    let length = Duration::from_millis(millis);
    let mut events = 0_u64;
    while begin.elapsed() < length {
        if rate != 0 {
            let due = Duration::from_nanos(events.saturating_mul(1_000_000_000) / u64::from(rate));
            // Sleeping shorter than the clock can is spinning.
            if let Some(early) =
                due.checked_sub(begin.elapsed()).filter(|early| *early > Duration::from_micros(200))
            {
                pause(early);
            }
        }
        // The clock is not asked at each of the fast ones.
        let burst = if name == "getppid" { 1000 } else { 1 };
        for _ in 0..burst {
            event()?;
            events += 1;
        }
    }
    writeln!(stdout, "{events} {}", begin.elapsed().as_nanos())?;
    Ok(())
}

pub(super) fn pause(length: Duration) {
    // An interrupted sleep is a shorter one, and the caller's clock knows.
    let _interrupted = nanosleep(&Timespec {
        tv_sec: length.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: length.subsec_nanos().into(),
    });
}

fn exec() -> Result<Box<dyn FnMut() -> Result<()>>> {
    let root = Path::new("/tmp").join(format!("tellwire-bench-{}", std::process::id()));
    let directory = root.join("b/c/d/e/f");
    fs::create_dir_all(&directory)?;
    let program = directory.join("program");
    fs::write(&program, tiny_program())?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    // With the 28 bytes or so of the path: argv of 1 KiB.
    let arguments: Vec<String> =
        (0..8).map(|number| format!("--argument-{number}={}", "x".repeat(107))).collect();
    let guard = Removed(root);
    Ok(Box::new(move || {
        let _kept = &guard;
        let status = Command::new(&program).args(&arguments).env_clear().status()?;
        if !status.success() {
            bail!("the tiny program ended with {status}");
        }
        Ok(())
    }))
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// An ELF file whose only deed is exit(0): the exec is what is measured, not a dynamic linker.
pub(super) fn tiny_program() -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    const CODE: &[u8] = &[0xb8, 0x3c, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]; // mov eax, 60; xor edi, edi; syscall
    #[cfg(target_arch = "x86_64")]
    const MACHINE: u16 = 62;
    #[cfg(target_arch = "aarch64")]
    const CODE: &[u8] = &[0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4]; // mov x8, #93; mov x0, #0; svc #0
    #[cfg(target_arch = "aarch64")]
    const MACHINE: u16 = 183;
    const BASE: u64 = 0x40_0000;
    let entry = BASE + 64 + 56;
    let size = 64 + 56 + CODE.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2_u16.to_le_bytes());
    elf.extend(MACHINE.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    elf.extend(entry.to_le_bytes());
    elf.extend(64_u64.to_le_bytes());
    elf.extend(0_u64.to_le_bytes());
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // One loadable segment, readable and executable.
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(CODE);
    elf
}

fn established() -> Result<Box<dyn FnMut() -> Result<()>>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    Ok(Box::new(move || {
        let client = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // Closed by a reset: no port is left in TIME_WAIT.
        set_socket_linger(&client, Some(Duration::ZERO))?;
        connect(&client, &address)?;
        drop(listener.accept()?);
        Ok(())
    }))
}
