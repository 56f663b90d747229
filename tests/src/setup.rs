//! How an agent is started.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::Value;

use crate::{log::Log, program};

type Before = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// What is different from a plain agent.
#[derive(Default)]
pub struct Setup {
    config: String,
    config_file: Option<PathBuf>,
    keeps_output: bool,
    default_profile: bool,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, String)>,
    output: Option<String>,
    stdout: Option<Stdio>,
    before: Option<Before>,
    through: Option<Command>,
}

impl Setup {
    /// Its configuration. `{cgroup}` in it is the cgroup to watch, which no flag says then.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.config);
        self
    }

    /// A file of the test's own, instead of one with [`Self::config`].
    #[must_use]
    pub fn config_file(mut self, file: &Path) -> Self {
        self.config_file = Some(file.to_owned());
        self
    }

    /// No flag says where lines go: the configuration does.
    #[must_use]
    pub fn output_of_config(mut self) -> Self {
        self.keeps_output = true;
        self
    }

    /// The profile of a user who chooses none; the other tests look at everything.
    #[must_use]
    pub fn default_profile(mut self) -> Self {
        self.default_profile = true;
        self
    }

    /// More arguments of `run`.
    #[must_use]
    pub fn arguments<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Where lines go, instead of the file that the test reads.
    #[must_use]
    pub fn output(mut self, output: &str) -> Self {
        self.output = Some(output.to_owned());
        self
    }

    /// Variables of its environment.
    #[must_use]
    pub fn variables<V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Self {
        self.variables.extend(variables.into_iter().map(|(name, value)| (name, value.into())));
        self
    }

    /// What its stdout is; nothing, if this is not said.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// What its process does before it becomes the agent.
    #[must_use]
    pub fn before(mut self, before: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.before = Some(Box::new(before));
        self
    }

    /// A program that becomes the agent, whose command line is the end of its own.
    #[must_use]
    pub fn through(mut self, command: Command) -> Self {
        self.through = Some(command);
        self
    }

    /// The command and the port where the agent will listen. `folder` is for its files.
    #[expect(unsafe_code, reason = "what runs between fork and exec is unsafe by its nature")]
    pub(crate) fn command(&mut self, cgroup: &Path, folder: &Path) -> (Command, u16) {
        let config = self.config_file.clone().unwrap_or_else(|| {
            let config = config(folder);
            fs::write(&config, filled(&self.config, cgroup, folder)).expect("writing the configuration");
            config
        });
        let output = self.output.clone().unwrap_or_else(|| format!("file:{}", events(folder).display()));
        let port = free_port();
        let mut command = through(self.through.take(), tellwire(["run", "--config"]));
        command.arg(config);
        if !self.config.contains(CGROUP) {
            command.arg("--cgroup").arg(cgroup);
        }
        if !self.keeps_output {
            command.args(["--output", &output]);
        }
        if !self.default_profile {
            command.args(["--profile", "full"]);
        }
        command.args(["--listen", &format!("127.0.0.1:{port}")]).args(&self.arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(self.stdout.take().unwrap_or_else(Stdio::null))
            .stderr(Stdio::piped());
        let mut before = self.before.take();
        let before = move || {
            // An agent that is left behind by a test that was killed ends too.
            set_parent_process_death_signal(Some(Signal::TERM))?;
            before.as_mut().map_or(Ok(()), |before| before())
        };
        // SAFETY: system calls only, by the contract of `before`.
        unsafe { command.pre_exec(before) };
        (command, port)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Setup").field("arguments", &self.arguments).finish_non_exhaustive()
    }
}

/// The agent's configuration file.
pub(crate) fn config(folder: &Path) -> PathBuf {
    folder.join("tellwire.toml")
}

/// Stands for the watched cgroup in a configuration.
const CGROUP: &str = "{cgroup}";

/// Suites whose agents look at libpam. Probing the host's takes the kernel a second or two at the end, which a hundred
/// other agents need not spend.
const ABOUT_LOGINS: [&str; 2] = ["pam", "auth"];

/// Cargo puts a hash behind a suite's name, `cargo xtask vm` does not.
fn is_about_logins() -> bool {
    let program = env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or_default();
    name.split('-').next().is_some_and(|suite| ABOUT_LOGINS.contains(&suite))
}

/// The configuration with the watched cgroup, and with a folder for the agent's notes that no other agent has
/// unless it names one.
pub(crate) fn filled(toml: &str, cgroup: &Path, folder: &Path) -> String {
    let mut toml = toml.replace(CGROUP, &cgroup.display().to_string());
    // Mounts have no cgroup: other tests' would be seen too.
    if is_about_logins() && !toml.contains("watch-mounts") {
        toml = toml.replace("[auth]\n", "[auth]\nwatch-mounts = false\n");
    }
    if !toml.contains("[auth]") {
        toml.push_str(if is_about_logins() {
            "\n[auth]\nwatch-mounts = false\n"
        } else {
            "\n[auth]\npam = false\n"
        });
    }
    if toml.contains("state-dir") {
        return toml;
    }
    let key = format!("state-dir = \"{}\"", folder.join("state").display());
    // Behind the section's own keys, so that the lines of the test's text keep their numbers.
    if let Some(section) = toml.find("[agent]\n") {
        let end = toml[section..].find("\n[").map_or(toml.len(), |next| section + next + 1);
        let (before, after) = toml.split_at(end);
        let newline = if before.ends_with('\n') { "" } else { "\n" };
        return format!("{before}{newline}{key}\n{after}");
    }
    format!("{toml}\n[agent]\n{key}\n")
}

/// The file that the agent's lines go to.
pub(crate) fn events(folder: &Path) -> PathBuf {
    folder.join("events.ndjson")
}

/// Names the types of a kernel that does not give its own.
const TYPES: &str = "TELLWIRE_BTF";

/// The agent's binary, with arguments and without variables that would change what they mean.
pub fn tellwire<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    let changes = |name: &OsStr| name.as_encoded_bytes().starts_with(b"TELLWIRE_") && name != TYPES;
    for (name, _) in env::vars_os().filter(|(name, _)| changes(name)) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// The same, by a program that becomes it.
fn through(program: Option<Command>, agent: Command) -> Command {
    let Some(mut command) = program else { return agent };
    for (name, value) in agent.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.arg(agent.get_program()).args(agent.get_args());
    command
}

fn binary() -> PathBuf {
    if let Some(binary) = env::var_os("TELLWIRE_BIN") {
        return binary.into();
    }
    // Test binaries are in target/PROFILE/deps.
    let test = env::current_exe().expect("the test's own path");
    let binary =
        test.ancestors().nth(2).map(|folder| folder.join("tellwire")).filter(|binary| binary.exists());
    binary.expect("the agent's binary: build it, or name it in TELLWIRE_BIN")
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = program::while_none_is_written(|| command.spawn()).expect("starting the command");
    child.wait_with_output().expect("the command's output")
}

/// By which of its alternatives `tellwire check` attaches a probe on this kernel, such as `kernel functions`.
pub fn attached_by(probe: &str) -> String {
    let report = check();
    let probes = report["probes"].as_array().expect("a list");
    let probe = probes.iter().find(|row| row["probe"] == probe).expect("a row");
    probe["by"].as_str().expect("it is attached").to_owned()
}

/// Whether `tellwire check` says that this kernel cannot give something, by its name in the agent's table of degradations.
pub fn is_degraded(name: &str) -> bool {
    check()["degradations"].as_array().expect("a list").iter().any(|row| row["name"] == name)
}

/// What `tellwire check --json` says: from the file `TELLWIRE_CHECK`, where somebody asked it before.
fn check() -> &'static Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    REPORT.get_or_init(|| {
        let report = match env::var_os("TELLWIRE_CHECK") {
            Some(file) => fs::read(file).expect("the report"),
            None => output(&mut tellwire(["check", "--json"])).stdout,
        };
        serde_json::from_slice(&report).expect("JSON")
    })
}

/// Starts the command, and reads its stderr into the log.
///
/// In a thread that lives as long as the agent: the signal of the parent's death comes when the thread
/// that started it ends.
pub(crate) fn start(mut command: Command, log: &Log) -> Child {
    let (tell, told) = mpsc::channel();
    let log = log.clone();
    thread::spawn(move || {
        let mut child = program::while_none_is_written(|| command.spawn()).expect("starting the agent");
        let stderr = child.stderr.take().expect("the agent's stderr");
        tell.send(child).expect("the one who asked for it");
        log.fill(stderr);
    });
    told.recv().expect("an agent that starts")
}

/// A port that no connection takes by chance: below those that the kernel hands out.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Another test binary begins elsewhere.
        let number = process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = u16::try_from(10_000 + number % 20_000).expect("below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
