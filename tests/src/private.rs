//! The machine's own root with accounts, logs and a network that are a test's alone.
//!
//! A process holds a mount and a network namespace in which `/etc` is a copy and what programs write elsewhere is
//! thrown away. Nothing that is done there reaches the machine; it goes with the process.

use std::{
    ffi::CString,
    fs::{self, File},
    io::Write as _,
    os::{fd::AsFd as _, unix::fs::chown},
    path::Path,
    process::Command,
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, unmount},
    process::{Signal, chdir, pivot_root},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde_json::Value;

use crate::{Agent, Child, net, runtime, sys, wait::until};

/// A user of the private root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: &'static str,
    /// One that no user of a machine has.
    pub id: u32,
    pub password: &'static str,
}

/// The namespaces; they go with this value.
#[derive(Debug)]
pub struct Private {
    holder: Child,
}

/// What programs write to outside of /etc: nothing of it is the machine's.
const SCRATCH: [&str; 6] = ["/run", "/home", "/var/log", "/var/mail", "/var/lib/sudo", "/root"];

impl Private {
    /// Sets it up, with these accounts. `more` runs in it, as root.
    ///
    /// The holder is in no cgroup that an agent watches.
    pub fn new(folder: &Path, accounts: &'static [Account], more: impl FnOnce()) -> Self {
        let copy = folder.join("etc");
        let root = move || {
            fs::create_dir(&copy).expect("a folder");
            scratch(&copy);
            run(Command::new("cp").args(["-a", "/etc/."]).arg(&copy));
            mount_bind(&copy, "/etc").expect("the copy");
        };
        Self::with(folder, root, accounts, more)
    }

    /// The same with another root, such as one of [`crate::debian::root`]; nothing is written there either.
    pub fn in_root(root: &Path, folder: &Path, accounts: &'static [Account], more: impl FnOnce()) -> Self {
        let (lower, upper) = (root.to_owned(), folder.join("upper"));
        let place = folder.join("root");
        let root = move || {
            fs::create_dir(&upper).expect("a folder");
            fs::create_dir(&place).expect("a folder");
            scratch(&upper);
            let (written, work) = (upper.join("written"), upper.join("work"));
            fs::create_dir(&written).expect("a folder");
            fs::create_dir(&work).expect("a folder");
            let [lower, written, work] = [&lower, &written, &work].map(|path| path.display());
            let options = format!("lowerdir={lower},upperdir={written},workdir={work}");
            let options = CString::new(options).expect("paths without NUL");
            mount("none", &place, "overlay", MountFlags::empty(), Some(options.as_c_str()))
                .expect("an overlay");
            for directory in ["proc", "dev", "sys"] {
                mount_bind_recursive(Path::new("/").join(directory), place.join(directory)).expect("a bind");
            }
            pivot_root(&place, place.join("mnt")).expect("another root");
            chdir("/").expect("the root");
            unmount("/mnt", UnmountFlags::DETACH).expect("the machine's root");
        };
        Self::with(folder, root, accounts, more)
    }

    fn with(folder: &Path, root: impl FnOnce(), accounts: &'static [Account], more: impl FnOnce()) -> Self {
        let mark = folder.join("ready");
        fs::write(&mark, "").expect("a mark");
        let path = mark.clone();
        let holder = crate::fork(move || {
            let mut ready = File::create(path).expect("the mark");
            sys::private_mounts().expect("private mounts");
            net::own_network();
            root();
            for place in SCRATCH.iter().filter(|place| Path::new(place).is_dir()) {
                scratch(Path::new(place));
            }
            for account in accounts {
                account.add();
            }
            more();
            ready.write_all(b"ready").expect("the mark");
            sys::sleep_until_killed()
        });
        let mut this = Self { holder };
        until("a private root", || {
            assert!(this.holder.ended().is_none(), "{}", this.holder.last_words());
            fs::read(&mark).is_ok_and(|mark| !mark.is_empty()).then_some(())
        });
        this
    }

    /// Moves the calling process there. It must have one thread.
    pub fn enter(&self) {
        for (name, kind) in [("mnt", LinkNameSpaceType::Mount), ("net", LinkNameSpaceType::Network)] {
            let path = format!("/proc/{}/ns/{name}", self.holder.pid);
            let namespace = File::open(path).expect("a namespace");
            move_into_link_name_space(namespace.as_fd(), Some(kind)).expect("entering it");
        }
    }

    /// What an agent does to see the private root's accounts, and nothing else of it. See [`crate::Setup::before`].
    pub fn see_accounts(&self) -> impl FnMut() -> std::io::Result<()> + Send + Sync + 'static {
        let namespace = File::open(format!("/proc/{}/ns/mnt", self.holder.pid)).expect("a namespace");
        move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).map_err(Into::into)
        }
    }

    /// Runs a closure there, in a forked child that the agent watches.
    pub fn fork<T: Into<Value>>(&self, agent: &Agent, work: impl FnOnce() -> T) -> Child {
        agent.fork(|| {
            self.enter();
            work()
        })
    }

    /// Starts a program there that the agent watches.
    pub fn exec(&self, agent: &Agent, program: &str, args: &[&str]) -> Child {
        self.fork(agent, || sys::exec(Path::new(program), args))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if self.holder.ended().is_none() {
            self.holder.kill(Signal::KILL);
        }
    }
}

impl Account {
    /// Makes it, in the root that the process has.
    pub fn add(self) {
        let Self { name, id, password } = self;
        append("/etc/passwd", &format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n"));
        append("/etc/group", &format!("{name}:x:{id}:\n"));
        append("/etc/shadow", &format!("{name}:{}:19000:0:99999:7:::\n", hash(password)));
        let home = Path::new("/home").join(name);
        fs::create_dir(&home).expect("a home");
        chown(&home, Some(id), Some(id)).expect("a home");
    }
}

/// What is written there is thrown away.
fn scratch(directory: &Path) {
    mount("none", directory, "tmpfs", MountFlags::empty(), Some(c"mode=0755")).expect("a tmpfs");
}

/// A password as /etc/shadow has it.
fn hash(password: &str) -> String {
    let mut command = Command::new(runtime::program("openssl", "openssl"));
    runtime::run(command.args(["passwd", "-6", password])).trim().to_owned()
}

/// Writes at the end of a file.
pub fn append(path: &str, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("a file");
}

fn run(command: &mut Command) {
    let status = command.status().expect("a command");
    assert!(status.success(), "{command:?} ended with {status}");
}
