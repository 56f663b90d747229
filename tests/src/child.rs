//! Children of a test: closures that run in a forked process, and programs.

use std::{
    any::Any,
    fmt,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    mem::ManuallyDrop,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitStatus,
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};
use serde_json::{Value, json};

use crate::{cgroup::Cgroup, wait::until};

/// The status of a child whose closure panicked.
const PANICKED: i32 = 101;

/// Where a forked child writes what its closure returned.
const REPORT: i32 = 3;

/// A process that a test started. What still runs is killed with this value.
#[derive(Debug)]
pub struct Child {
    pub pid: u32,
    report: Option<File>,
    status: Option<ExitStatus>,
}

impl Child {
    /// Of a process that `Command` started.
    pub(crate) fn adopt(pid: u32) -> Self {
        Self { pid, report: None, status: None }
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let ended = || waitpid(Some(self.id()), WaitOptions::NOHANG).expect("a child to wait for");
        let (_, status) = until(Ends(self.pid), ended);
        let status = ExitStatus::from_raw(status.as_raw());
        self.status = Some(status);
        status
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            let ended = waitpid(Some(self.id()), WaitOptions::NOHANG).expect("a child to ask for");
            self.status = ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        }
        self.status
    }

    /// What a child that ended before its time had to say.
    pub fn last_words(&mut self) -> String {
        self.report().as_str().unwrap_or("nothing").to_owned()
    }

    /// Waits for its end, which must be a good one, and gives what its closure returned.
    pub fn join(mut self) -> Value {
        let status = self.wait();
        let report = self.report();
        assert!(status.code() != Some(PANICKED), "in the child: {}", report.as_str().unwrap_or_default());
        assert!(status.success(), "child {} ended with {status}", self.pid);
        report
    }

    pub fn kill(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("a child to kill");
    }

    /// What was reported so far. A child of the child may hold the other end open, so the end is not waited for.
    fn report(&mut self) -> Value {
        let Some(report) = &mut self.report else { return Value::Null };
        fcntl_setfl(&*report, OFlags::NONBLOCK).expect("a pipe");
        let mut bytes = Vec::new();
        match report.read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                panic!("reading the child's report: {error}")
            }
            _ if bytes.is_empty() => Value::Null,
            _ => serde_json::from_slice(&bytes).expect("a report is JSON"),
        }
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed()).expect("a process id")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ended = kill_process(self.id(), Signal::KILL);
            let _status = waitpid(Some(self.id()), WaitOptions::empty());
        }
    }
}

/// The end of a child, with what it does instead: that is looked up when it is told.
struct Ends(u32);

impl fmt::Display for Ends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the end of child {}", self.0)?;
        for file in ["wchan", "syscall", "stack"] {
            let text = fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default();
            write!(formatter, "\n{file}: {}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Runs a closure in a forked child. What it returns is the child's report; if it panics, [`Child::join`] does.
///
/// The child has one thread and no descriptor but the standard ones: those of the test are closed.
pub fn fork<T: Into<Value>>(work: impl FnOnce() -> T) -> Child {
    fork_into(None, work)
}

/// The same, in a cgroup.
#[expect(unsafe_code, reason = "a forked child is what the tests are about")]
pub(crate) fn fork_into<T: Into<Value>>(cgroup: Option<&Cgroup>, work: impl FnOnce() -> T) -> Child {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    // SAFETY: the child does nothing with locks that another thread of the test could have held, but for
    // the allocator's, which the C library sees to. It never returns from here.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        0 => run(cgroup, &write, work),
        pid => Child { pid: pid.unsigned_abs(), report: Some(read.into()), status: None },
    }
}

fn run<T: Into<Value>>(cgroup: Option<&Cgroup>, report: &OwnedFd, work: impl FnOnce() -> T) -> ! {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if let Some(cgroup) = cgroup {
            cgroup.enter().expect("entering the cgroup");
        }
        keep_only(report);
        work().into()
    }));
    let (value, status) = match outcome {
        Ok(value) => (value, 0),
        Err(panic) => (json!(message(panic.as_ref())), PANICKED),
    };
    if !value.is_null() {
        let mut report = report_file();
        let _gone = report.write_all(value.to_string().as_bytes());
    }
    exit_at_once(status)
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "a panic without words".to_owned(),
    }
}

/// Another test's pipe must not stay open for as long as this child lives.
#[expect(unsafe_code, reason = "closes what others own, in a process of which nothing else is left")]
fn keep_only(report: &OwnedFd) {
    if report.as_raw_fd() != REPORT {
        // SAFETY: whoever owned the number in the parent does not run here.
        unsafe { libc::dup3(report.as_raw_fd(), REPORT, libc::O_CLOEXEC) };
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, REPORT + 1, u32::MAX, 0) };
}

#[expect(unsafe_code, reason = "the report's descriptor is known by its number")]
fn report_file() -> ManuallyDrop<File> {
    // SAFETY: open until the process ends.
    ManuallyDrop::new(unsafe { File::from_raw_fd(REPORT) })
}

/// Ends the process without what the test binary does at its exit.
#[expect(unsafe_code, reason = "std has no exit that leaves everything as it is")]
pub fn exit_at_once(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}
