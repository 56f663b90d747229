//! A node with some services: what makes a log grow in ordinary life, at ordinary rates.
//!
//! Thirty containers, each a cgroup with the name that a kubelet gives one, and in each a service that
//! - is asked for its health by a connect of the node's own, every ten seconds,
//! - runs a probe as a command (a shell, and what it starts), every ten seconds,
//! - keeps connections to three others, opens each anew every twenty seconds, and makes one request a second by a
//!   new connection,
//! - fails to connect to something that is gone, once a minute,
//! - runs a helper with a longer command line, once a minute.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::load::{CGROUP, pause, tiny_program};

pub(super) const CONTAINERS: u32 = 30;

/// One round of each service.
const ROUND: Duration = Duration::from_secs(1);

/// The child's side, as in [`super::load::child`]: its events are rounds.
pub(super) fn child(length: Duration) -> Result<()> {
    let root = PathBuf::from(std::env::var_os(CGROUP).context("the services need a cgroup")?);
    // Paths as long as those of real services: they stand on every line.
    let folder = Path::new("/tmp").join(format!("tw-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let service = folder.join("service");
    fs::copy(std::env::current_exe()?, &service)?;
    let program = folder.join("healthcheck");
    fs::write(&program, tiny_program())?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    // Those who answer are none of the containers, and are not looked at.
    let upstreams = (0..CONTAINERS).map(|_| server()).collect::<Result<Vec<_>>>()?;
    let gone = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.local_addr()?
    };
    let containers = (0..CONTAINERS).map(|number| container(&root, number)).collect::<Result<Vec<_>>>()?;

    let mut stdout = std::io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let begin = Instant::now();
    let mut services = Vec::new();
    for (number, cgroup) in (0..CONTAINERS).zip(&containers) {
        // Its exec is one of the container's, as a service's is.
        let mut work = Command::new("/bin/sh");
        work.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(cgroup).arg(&service);
        let upstreams: Vec<String> = (1..=3)
            .filter_map(|step| upstreams.get(((number + step) % CONTAINERS) as usize))
            .map(ToString::to_string)
            .collect();
        let spec = format!(
            "service,{number},{},{},{gone},{}",
            length.as_millis(),
            program.display(),
            upstreams.join(",")
        );
        services.push(work.args(["bench", "--workload", &spec]).spawn()?);
    }
    for mut service in services {
        ensure!(service.wait()?.success(), "a service failed");
    }
    let rounds = u64::try_from(begin.elapsed().as_millis() / ROUND.as_millis())?;
    for cgroup in &containers {
        fs::remove_dir(cgroup)?;
        cgroup.parent().map(fs::remove_dir).transpose()?;
    }
    for parent in ["kubepods/burstable", "kubepods"] {
        let _not_empty = fs::remove_dir(root.join(parent));
    }
    fs::remove_dir_all(&folder)?;
    writeln!(stdout, "{rounds} {}", begin.elapsed().as_nanos())?;
    Ok(())
}

/// Answers whoever connects, until the process ends.
fn server() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 512];
                while stream.read(&mut request).is_ok_and(|len| len > 0) {
                    if stream.write_all(&[b'x'; 2048]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// The cgroup of a container of a pod of its own, by the cgroupfs driver.
fn container(root: &Path, number: u32) -> Result<PathBuf> {
    let pod = format!("pod{number:08x}-0000-4000-8000-{:012x}", std::process::id());
    let id = format!("{number:02x}{:062x}", std::process::id());
    let cgroup = root.join("kubepods/burstable").join(pod).join(id);
    fs::create_dir_all(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
    Ok(cgroup)
}

/// One service: the child of the child.
pub(super) fn service(spec: &str) -> Result<()> {
    let mut parts = spec.split(',').skip(1);
    let mut next = || parts.next().context("number, milliseconds, program, who is gone, upstreams");
    let (number, millis) = (next()?.parse::<u64>()?, next()?.parse::<u64>()?);
    let program = PathBuf::from(next()?);
    let gone: SocketAddr = next()?.parse()?;
    let upstreams = parts.map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
    let begin = Instant::now();
    let mut pool: Vec<Option<TcpStream>> = upstreams.iter().map(|_| None).collect();
    for round in 0.. {
        if begin.elapsed() >= Duration::from_millis(millis) {
            break;
        }
        // Not all of them at once.
        let turn = round + number;
        for (upstream, kept) in upstreams.iter().zip(&mut pool) {
            if turn.is_multiple_of(20) || kept.is_none() {
                *kept = Some(TcpStream::connect(upstream)?);
            }
            request(kept.as_mut().context("a connection")?)?;
        }
        if let Some(upstream) = upstreams.get(usize::try_from(turn)? % upstreams.len().max(1)) {
            request(&mut TcpStream::connect(upstream)?)?;
        }
        if turn.is_multiple_of(10) {
            let probe = format!("{} --timeout=1 http://127.0.0.1:8080/healthz && exit 0", program.display());
            ensure!(Command::new("/bin/sh").args(["-c", &probe]).status()?.success(), "the probe failed");
        }
        if turn.is_multiple_of(60) {
            let _refused = TcpStream::connect(gone);
            let helper = Command::new(&program)
                .args([
                    "--config=/etc/service/helper.yaml",
                    "--once",
                    "--verbose",
                    "--output=/var/lib/service/report.json",
                ])
                .status()?;
            ensure!(helper.success(), "the helper failed");
        }
        let due = ROUND * u32::try_from(round + 1)?;
        if let Some(early) = due.checked_sub(begin.elapsed()) {
            pause(early);
        }
    }
    Ok(())
}

fn request(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[b'r'; 200])?;
    stream.read_exact(&mut [0; 2048])?;
    Ok(())
}
