//! An agent that runs for a test, and what the test asks of it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    alone::{self, Alone},
    cgroup::Cgroup,
    child::{Child, fork_into},
    http,
    lines::Lines,
    log::{self, Ledger, Log},
    matching::{at, differences, nearest},
    metrics::Metrics,
    program,
    setup::{self, Setup},
    sys,
    wait::{limit, until, within},
};

/// Two agents may choose one port at the same time.
const ATTEMPTS: usize = 5;

/// An agent that watches a cgroup of its own, to which it writes in a folder of its own.
#[derive(Debug)]
pub struct Agent {
    process: Mutex<Option<process::Child>>,
    log: Log,
    lines: Mutex<Lines>,
    /// Counters as they were when a test began that has the agent to itself.
    before: Mutex<Option<Metrics>>,
    cgroup: Cgroup,
    folder: TempDir,
    port: u16,
}

/// An agent that was stopped.
#[derive(Debug)]
pub struct Stopped {
    pub status: ExitStatus,
    /// By record kind.
    pub ledgers: BTreeMap<String, Ledger>,
    /// What it said on stderr.
    pub log: Vec<String>,
    /// What is in its file, without what it tells of itself.
    pub events: Vec<Value>,
    /// What it tells of itself: the family `agent`.
    pub own: Vec<Value>,
}

impl Agent {
    /// A plain agent.
    pub fn start() -> Self {
        Self::with(Setup::default)
    }

    /// An agent with a configuration.
    pub fn with_config(toml: &str) -> Self {
        Self::with(|| Setup::default().config(toml))
    }

    /// An agent that is started in another way. It may take more than one attempt to start it.
    pub fn with(setup: impl Fn() -> Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Some workloads run as other users.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("opening the folder");
        let cgroup = Cgroup::new();
        for _ in 0..ATTEMPTS {
            let (command, port) = setup().command(cgroup.path(), folder.path());
            let log = Log::default();
            let process = Mutex::new(Some(setup::start(command, &log)));
            if log.wait_for("watching") {
                let lines = Mutex::new(Lines::new(setup::events(folder.path())));
                return Self { process, log, lines, before: Mutex::default(), cgroup, folder, port };
            }
            let said = log.all().join("\n");
            // EADDRINUSE; its text is the C library's.
            assert!(said.contains("os error 98"), "the agent does not start:\n{said}");
        }
        panic!("no port for the agent");
    }

    /// One plain agent for all tests of this process that do not ask for what an agent alone can tell.
    pub fn shared() -> &'static Self {
        alone::kept("")
    }

    /// A plain agent that no other test uses meanwhile.
    pub fn alone() -> Alone {
        Alone::with_config("")
    }

    /// The same with a configuration, which the test must not change.
    pub fn alone_with_config(toml: &str) -> Alone {
        Alone::with_config(toml)
    }

    /// The directory of the cgroup that is watched.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// A folder for the test's files, which other users may enter.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new folder in [`Self::folder`].
    pub fn subfolder(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Runs a closure in a forked child that is watched from its first instruction on, see [`crate::fork`].
    pub fn fork<T: Into<Value>>(&self, work: impl FnOnce() -> T) -> Child {
        fork_into(Some(&self.cgroup), work)
    }

    /// Starts a program. This exec is the first thing that is seen of the process.
    pub fn exec<A: AsRef<[u8]>>(&self, program: impl AsRef<Path>, args: &[A]) -> Child {
        self.fork(|| sys::exec(program.as_ref(), args))
    }

    /// The same in a cgroup below the watched one: where that has others below that an engine has made, v2 lets no process into it.
    pub fn exec_below<A: AsRef<[u8]>>(&self, cgroup: &str, program: impl AsRef<Path>, args: &[A]) -> Child {
        let directory = self.cgroup.path().join(cgroup);
        fs::create_dir_all(&directory).expect("a cgroup");
        fork_into(None, || {
            fs::write(directory.join("cgroup.procs"), "0").expect("entering the cgroup");
            sys::exec(program.as_ref(), args)
        })
    }

    /// Starts a command.
    #[expect(unsafe_code, reason = "what runs between fork and exec is unsafe by its nature")]
    pub fn spawn(&self, command: &mut Command) -> Child {
        let door = self.cgroup.door();
        let enter = move || rustix::io::write(&door, b"0").map(|_| ()).map_err(Into::into);
        // SAFETY: one write.
        unsafe { command.pre_exec(enter) };
        Child::adopt(program::while_none_is_written(|| command.spawn()).expect("starting the command").id())
    }

    /// Runs a command to its end; gives its process id.
    pub fn run(&self, command: &mut Command) -> u32 {
        let mut child = self.spawn(command);
        let status = child.wait();
        assert!(status.success(), "{command:?} ended with {status}");
        child.pid
    }

    /// Waits for a line of this action, of this process (or of any), that has these fields, nested or with
    /// dotted names; `null` stands for a field that must not be there.
    pub fn expect(&self, pid: impl Into<Option<u32>>, action: &str, fields: &Value) -> Value {
        let pid = pid.into();
        let mut subset = json!({ "event.action": action });
        if let Some(pid) = pid {
            subset["process.pid"] = json!(pid);
        }
        let matches =
            |event: &&Value| differences(&subset, event).is_empty() && differences(fields, event).is_empty();
        let found = within(limit(), || self.lines().events().iter().find(matches).cloned());
        found.unwrap_or_else(|| {
            let process = pid.map_or_else(|| "any process".to_owned(), |pid| format!("process {pid}"));
            panic!(
                "no {action} of {process} with {fields}\n{}",
                nearest(self.lines().events(), pid, action, fields)
            )
        })
    }

    /// All lines so far, without what the agent tells of itself.
    pub fn events(&self) -> Vec<Value> {
        self.lines().events().iter().filter(|event| !is_own(event)).cloned().collect()
    }

    /// What the agent told of itself so far: the lines of the family `agent`.
    pub fn own_events(&self) -> Vec<Value> {
        self.lines().events().iter().filter(|event| is_own(event)).cloned().collect()
    }

    /// Writes another configuration into its file, in place.
    pub fn configure(&self, toml: &str) {
        let toml = setup::filled(toml, self.cgroup(), self.folder());
        fs::write(self.config(), toml).expect("writing the configuration");
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        setup::config(self.folder())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().map(process::Child::id).expect("an agent that runs")
    }

    /// The lines of this process so far, of this action.
    pub fn events_of(&self, pid: u32, action: &str) -> Vec<Value> {
        let is_it = |event: &&Value| {
            at(event, "process.pid").is_some_and(|found| *found == pid)
                && at(event, "event.action").is_some_and(|found| found == action)
        };
        self.lines().events().iter().filter(is_it).cloned().collect()
    }

    /// Waits for the end of a child, and until all that was seen of it is in the file: lines of different rings
    /// come in any order.
    pub fn settle(&self, child: &mut Child) {
        child.wait();
        // The exit of a process is told before its parent hears of it.
        self.deliver();
    }

    /// Waits until all that the kernel told so far is in the file.
    fn deliver(&self) {
        let submitted = self.scrape_whole().get("tellwire_kernel_records_total", &[("outcome", "submitted")]);
        until("what was submitted is received", || {
            (self.scrape_whole().get("tellwire_records_received_total", &[]) >= submitted).then_some(())
        });
        let made = self.scrape_whole().get("tellwire_lines_total", &[]);
        until("what was made is written", || {
            let metrics = self.scrape_whole();
            let done = metrics.get("tellwire_output_events_total", &[])
                + metrics.get("tellwire_output_dropped_total", &[]);
            (done >= made).then_some(())
        });
    }

    /// Its metrics; what it counted for tests before this one is not in them.
    pub fn scrape(&self) -> Metrics {
        let metrics = self.scrape_whole();
        match &*self.before.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(before) => metrics.since(before),
            None => metrics,
        }
    }

    fn scrape_whole(&self) -> Metrics {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// From here on lines and counters are another test's. Nothing of the one before runs any more, nor is under way.
    pub(crate) fn begin_anew(&self) {
        // A test that failed may have left it stopped.
        self.signal(Signal::CONT);
        self.cgroup.kill();
        self.deliver();
        self.lines().forget();
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.scrape_whole());
    }

    /// Whether its process runs.
    pub(crate) fn is_there(&self) -> bool {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_mut().is_some_and(|process| process.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Ends it, and takes away what it would when it is dropped.
    pub(crate) fn discard(&self) {
        self.end();
        self.cgroup.remove();
        let _untidy = fs::remove_dir_all(self.folder.path());
    }

    /// The sum of the samples that have these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.scrape().get(name, labels)
    }

    /// Waits until a metric has this value.
    pub fn expect_metric(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let mut found = 0;
        let reached = within(limit(), || {
            found = self.metric(name, labels);
            (found == value).then_some(())
        });
        assert!(reached.is_some(), "{name}{labels:?}: expected {value}, found {found}");
    }

    /// The status and the body of an answer of its HTTP server.
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.port, path)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it said on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = process.as_ref().map(process::Child::id).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.expect("an agent that runs"), signal).expect("a signal");
    }

    /// Waits until it ends by itself.
    pub fn wait(self) -> Stopped {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut process = process.expect("an agent that runs");
        let status = until("the agent's end", || process.try_wait().expect("the agent's status"));
        let log = self.log.all();
        let (own, events) = self.lines().events().iter().cloned().partition(is_own);
        Stopped { status, ledgers: log::ledgers(&log), log, events, own }
    }

    /// Ends it by SIGTERM.
    pub fn stop(self) -> Stopped {
        self.signal(Signal::TERM);
        self.wait()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        if let Some(mut process) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ended = process.kill();
            let _status = process.wait();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether the agent tells it of itself.
fn is_own(event: &Value) -> bool {
    at(event, "event.dataset").is_some_and(|dataset| dataset == "tellwire.agent")
}
