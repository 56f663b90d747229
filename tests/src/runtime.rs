//! Programs of the distribution that tests start: daemons, commands, and the cgroups that they leave behind.

use std::{
    env, fs,
    io::{Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process, set_parent_process_death_signal},
    thread::UnshareFlags,
};

use crate::{log::Log, net, program as programs, setup, sys, wait::within};

/// How long an engine may take to do one thing, with everything else that runs on the machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a program is. Without it the test cannot be.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// Where the host has its libpam.
pub fn libpam() -> PathBuf {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib"];
    let found = folders.iter().map(|folder| Path::new(folder).join("libpam.so.0")).find(|path| path.exists());
    fs::canonicalize(found.expect("libpam is missing: apt-get install libpam0g")).expect("its file")
}

/// Runs a command to its end, which must be a good one; gives what it printed.
///
/// Its output goes to files: what it leaves running in the background would hold a pipe open.
pub fn run(command: &mut Command) -> String {
    let (success, printed, said) = attempt(command);
    assert!(success, "{command:?}:\n{printed}{said}");
    printed
}

/// Runs a command to its end: whether it was a good one, its stdout and its stderr.
pub fn attempt(command: &mut Command) -> (bool, String, String) {
    attempt_reading(command, Stdio::null())
}

/// The same, with something to read on stdin.
pub fn attempt_reading(command: &mut Command, stdin: impl Into<Stdio>) -> (bool, String, String) {
    let (mut printed, mut said) = (file(), file());
    command.stdin(stdin).stdout(copy(&printed)).stderr(copy(&said));
    let mut child = programs::while_none_is_written(|| command.spawn())
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status = within(PATIENCE, || child.try_wait().expect("the command's status"));
    if status.is_none() {
        let _ended = child.kill();
        let _status = child.wait();
    }
    let text = |file: &mut fs::File| {
        let mut bytes = Vec::new();
        file.rewind().expect("the command's output");
        file.read_to_end(&mut bytes).expect("the command's output");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (printed, said) = (text(&mut printed), text(&mut said));
    let status = status.unwrap_or_else(|| panic!("{command:?} does not end:\n{printed}{said}"));
    (status.success(), printed, said)
}

fn file() -> fs::File {
    tempfile::tempfile().expect("a file for output")
}

fn copy(file: &fs::File) -> fs::File {
    file.try_clone().expect("another descriptor")
}

/// A daemon of a test: it ends with this value, and with the test binary.
#[derive(Debug)]
pub struct Daemon {
    process: process::Child,
    log: Log,
}

impl Daemon {
    pub fn start(command: Command) -> Self {
        Self::start_in(command, UnshareFlags::empty())
    }

    /// In a mount and a network namespace of its own: what it mounts goes with it, and what it sets up for
    /// networks is not the host's.
    pub fn start_apart(command: Command) -> Self {
        Self::start_in(command, UnshareFlags::NEWNS | UnshareFlags::NEWNET)
    }

    #[expect(unsafe_code, reason = "what runs between fork and exec is unsafe by its nature")]
    fn start_in(mut command: Command, apart: UnshareFlags) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let before = move || {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if apart.contains(UnshareFlags::NEWNS) {
                sys::private_mounts()?;
            }
            if apart.contains(UnshareFlags::NEWNET) {
                net::own_network();
            }
            Ok(())
        };
        // SAFETY: system calls only.
        unsafe { command.pre_exec(before) };
        let log = Log::default();
        Self { process: setup::start(command, &log), log }
    }

    /// What `ready` gives, once it gives something. The daemon must not end before.
    pub fn until<T>(&mut self, what: &str, ready: impl FnMut() -> Option<T>) -> T {
        self.within_patience(ready).unwrap_or_else(|| panic!("no {what}; the daemon said:\n{}", self.said()))
    }

    /// The same, or nothing where it takes too long or the daemon ends before.
    pub fn within_patience<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let found = within(PATIENCE, || match self.process.try_wait().expect("the daemon's status") {
            Some(_ended) => Some(None),
            None => ready().map(Some),
        });
        found.flatten()
    }

    /// What it said on stderr so far.
    pub fn said(&self) -> String {
        self.log.lines().join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.process.id().cast_signed()) {
            // One that has ended by itself is not waited for yet: the number is still its own.
            let _ended = kill_process(pid, Signal::TERM);
        }
        let ended = within(PATIENCE, || self.process.try_wait().ok().flatten());
        if ended.is_none() {
            let _ended = self.process.kill();
            let _status = self.process.wait();
        }
    }
}

/// The cgroups below a name, in every hierarchy: engines make them, and leave the parents behind.
/// They are removed with this value, but for the one that the agent of the test watches.
#[derive(Debug)]
pub struct Cgroups {
    name: String,
    /// Not ours to remove.
    watched: Option<PathBuf>,
}

impl Cgroups {
    /// Of the same name as the cgroup that is watched.
    pub fn of(watched: &Path) -> Self {
        let name = watched.file_name().and_then(|name| name.to_str()).expect("a cgroup's name");
        Self { name: name.to_owned(), watched: Some(watched.to_owned()) }
    }

    /// Of another name, which is this process's alone.
    pub fn named(name: &str) -> Self {
        Self { name: format!("tellwire-test-{}-{name}", process::id()), watched: None }
    }

    /// The path of a cgroup below, as engines want it: from the root of each hierarchy.
    pub fn path(&self, below: &str) -> String {
        format!("/{}/{below}", self.name)
    }

    /// The directories that there are now, in whichever hierarchy, for such a path.
    pub fn directories(path: &str) -> Vec<PathBuf> {
        let below = path.trim_start_matches('/');
        hierarchies().into_iter().map(|mount| mount.join(below)).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for directory in Self::directories(&self.name) {
            // The last processes may still be on their way out.
            let _stays = within(PATIENCE, || {
                remove_below(&directory);
                let is_empty = || {
                    fs::read_dir(&directory)
                        .is_ok_and(|entries| !entries.flatten().any(|entry| is_cgroup(&entry)))
                };
                let done = if self.watched.as_ref() == Some(&directory) {
                    is_empty()
                } else {
                    fs::remove_dir(&directory).is_ok()
                };
                done.then_some(())
            });
        }
    }
}

fn remove_below(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().filter(is_cgroup).map(|entry| entry.path()) {
        remove_below(&path);
        let _stays = fs::remove_dir(path);
    }
}

fn is_cgroup(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Where cgroup hierarchies are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("what is mounted");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))))
        .map(|fields| PathBuf::from(fields[1]))
        .collect()
}

/// Where the v1 memory controller is mounted, or the unified hierarchy where there is none.
pub fn second_hierarchy() -> PathBuf {
    let all = hierarchies();
    let memory = all.iter().find(|mount| mount.ends_with("memory"));
    memory.or_else(|| all.last()).expect("a cgroup hierarchy").clone()
}

#[cfg(test)]
mod tests {
    use super::{attempt, program};

    #[test]
    #[should_panic(expected = "no-such-program is missing: apt-get install no-such-package")]
    fn a_missing_program_is_named_with_its_package() {
        program("no-such-program", "no-such-package");
    }

    #[test]
    fn what_a_command_says_is_told_apart() {
        let mut command = std::process::Command::new(program("sh", "dash"));
        let told = attempt(command.args(["-c", "echo printed; echo said >&2; exit 1"]));
        assert_eq!(told, (false, "printed\n".to_owned(), "said\n".to_owned()));
    }
}
