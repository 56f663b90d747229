//! The configuration: TOML, checked once, so that no part has to check again.
//!
//! The doc comment of each key is its manual: `tellwire config default` prints it. A flag goes
//! over its environment variable over the file over the default, decided in [`layer`] alone.

mod auth;
mod changes;
mod checks;
mod choices;
mod containers;
mod error;
mod file;
mod http;
mod kernel;
mod outputs;
mod render;
mod rules;
mod values;
mod watch;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::{Given, RunArgs};
use crate::rules::placements;

pub(crate) use auth::Auth;
pub(crate) use changes::Changed;
pub(crate) use choices::{
    Effect, Format, KernelLog, Label, Listen, LogLevel, Profile, RuleOutcome, Style, SyslogFormat,
    UnknownUserNames,
};
pub(crate) use containers::{Containers, Metrics};
pub(crate) use error::{ConfigError, nearest};
pub(crate) use http::{Http, HttpArgs};
pub(crate) use kernel::Kernel;
pub(crate) use outputs::{Facility, Group, Output, OutputFile, OutputSpec, Peer};
pub(crate) use render::{default_toml, json_schema};
pub(crate) use rules::{Network, Ports, Rule, UserSpec, masked};
pub(crate) use values::{Count, Time, duration};
pub(crate) use watch::FileWatch;

/// Read if no other file is named and if it exists.
const DEFAULT_FILE: &str = "/etc/tellwire/tellwire.toml";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Config {
    pub(crate) agent: Agent,
    pub(crate) kernel: Kernel,
    pub(crate) processes: Processes,
    pub(crate) redaction: Redaction,
    pub(crate) auth: Auth,
    pub(crate) containers: Containers,
    pub(crate) output: Output,
    pub(crate) http: Http,
    pub(crate) metrics: Metrics,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rules: Vec<Rule>,
}

/// What is watched, and what the agent says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Agent {
    /// How much makes a line, and how much a line says. "default" leaves out what execs and connects tell anyway,
    /// and tells successful connects that repeat in one line a minute; "full" has every event and every field.
    pub(crate) profile: Profile,
    /// Only these event types make lines; an empty list means all of the profile. `tellwire events`
    /// lists them. Metrics count all types.
    pub(crate) types: Vec<String>,
    /// Only these cgroups and those below them; an empty list means the whole host. A path under
    /// the cgroup mount, or absolute. The kernel decides: everything else costs next to nothing
    /// and is not counted as seen.
    pub(crate) cgroups: Vec<PathBuf>,
    /// How long connects that repeat are told together, in the profile "default".
    pub(crate) fold_window: Time<1_000, 3_600_000>,
    /// Whether lines have the arguments of a process in one piece as well, as `process.command_line`, and those of
    /// its parent: detection rules ask for it, `process.args` says it exactly.
    pub(crate) command_line: bool,
    /// The cluster's name, for every line; empty for none.
    pub(crate) cluster: String,
    /// What Kubernetes calls the node, for every line; empty for none. The manifests fill it in.
    pub(crate) node_name: String,
    /// The id that the cloud gave the machine, for every line; empty for none. It is not asked for by the network.
    pub(crate) cloud_instance_id: String,
    /// Labels for every line.
    pub(crate) labels: Vec<Label>,
    /// Where the host's root directory is seen: in a container, where it is mounted, say "/host".
    pub(crate) host_root: PathBuf,
    /// Where the agent notes that it runs, in the file state.json, so that the next start can say how long
    /// nobody looked. Two agents need one each. The agent makes it, and goes on without it.
    pub(crate) state_dir: PathBuf,
    /// How much the agent says about itself, on stderr.
    pub(crate) log_level: LogLevel,
}

/// The table of running processes, from which lines get what the kernel does not say each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Processes {
    /// Processes that are remembered at the most. Lines of those beyond say less.
    pub(crate) max: Count<1024, { 1 << 22 }>,
    /// How long a process is remembered after its exit, for what is still on its way to be told.
    pub(crate) keep_exited: Time<0, 600_000>,
}

/// Passwords, tokens and keys are taken out of all text before anything else is done with it: they are in no
/// line, on no terminal and in no recording. docs/redaction.md says what is found and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Redaction {
    /// Without it, whoever can read a line or a recording can read the passwords that users and programs on this
    /// host put on command lines.
    pub(crate) enabled: bool,
    /// More flags whose values are secrets, such as "--pin" or "-P". A name of more than one letter holds for
    /// variables and fields too, whatever its case and the signs between its words.
    pub(crate) flags: Vec<String>,
    /// More secrets, as regular expressions (syntax of the regex crate, ASCII): the whole match is redacted, or
    /// its group named "secret", as in "ticket=(?P<secret>[0-9]+)". Each is tried on every argument.
    pub(crate) patterns: Vec<String>,
    /// Names of flags, variables and fields whose values are no secrets, whatever they sound like: for false
    /// alarms. What has the form of a known token is redacted all the same.
    pub(crate) allow: Vec<String>,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            profile: Profile::Default,
            types: Vec::new(),
            cgroups: Vec::new(),
            fold_window: const { Time::from_millis(60_000) },
            command_line: false,
            cluster: String::new(),
            node_name: String::new(),
            cloud_instance_id: String::new(),
            labels: Vec::new(),
            host_root: "/".into(),
            state_dir: "/var/lib/tellwire".into(),
            log_level: LogLevel::Info,
        }
    }
}

impl Default for Processes {
    fn default() -> Self {
        Self { max: const { Count::new(65536) }, keep_exited: const { Time::from_millis(2_000) } }
    }
}

impl Default for Redaction {
    fn default() -> Self {
        Self { enabled: true, flags: Vec::new(), patterns: Vec::new(), allow: Vec::new() }
    }
}

impl Config {
    /// What `run` with these arguments uses. `known_types` are the names of all event types.
    pub(crate) fn load(args: &RunArgs, known_types: &[&str]) -> Result<Self, ConfigError> {
        load(args, known_types, Path::new(DEFAULT_FILE)).map(|(config, _)| config)
    }

    /// The file that `run` with these arguments reads, if it exists.
    pub(crate) fn file(args: &RunArgs) -> &Path {
        args.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// What `path` says, without flags and environment.
    pub(crate) fn from_file(path: &Path, known_types: &[&str]) -> Result<Self, ConfigError> {
        from_file(path, known_types).map(|(config, _)| config)
    }
}

/// What `run` with these arguments uses, as TOML that says where each value comes from.
pub(crate) fn show(args: &RunArgs, known_types: &[&str]) -> Result<String, ConfigError> {
    let (config, sources) = load(args, known_types, Path::new(DEFAULT_FILE))?;
    let notes: Vec<String> =
        placements(&config.rules).iter().map(|placed| format!("Judged {placed}.")).collect();
    Ok(render::effective(&config, &sources, &notes))
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Default,
    File(PathBuf, usize),
    Given(Given),
}

impl Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path, line) => write!(formatter, "file {}:{line}", path.display()),
            Self::Given(Given::Env(variable)) => write!(formatter, "env {variable}"),
            Self::Given(Given::Flag(flag)) => write!(formatter, "flag {flag}"),
        }
    }
}

/// Where values come from, by path (`agent.types`, and `agent.types[1]` for an element): those
/// that are missing are defaults.
type Sources = BTreeMap<String, Source>;

fn load(args: &RunArgs, known_types: &[&str], default_file: &Path) -> Result<(Config, Sources), ConfigError> {
    let (mut config, mut sources) = match &args.config {
        Some(path) => from_file(path, known_types)?,
        None => match from_file(default_file, known_types) {
            Err(error) if error.cause() == Some(io::ErrorKind::NotFound) => Default::default(),
            read => read?,
        },
    };
    layer(&mut config, &mut sources, args);
    checks::check(&config, known_types).map_err(|fault| fault.at(&sources))?;
    Ok((config, sources))
}

fn from_file(path: &Path, known_types: &[&str]) -> Result<(Config, Sources), ConfigError> {
    let (config, sources) = file::read(path)?;
    checks::check(&config, known_types).map_err(|fault| fault.at(&sources))?;
    Ok((config, sources))
}

/// Flags and environment over what is there.
fn layer(config: &mut Config, sources: &mut Sources, args: &RunArgs) {
    let Config {
        agent,
        kernel,
        processes: _,
        redaction: _,
        auth: _,
        containers: _,
        output,
        http,
        metrics: _,
        rules: _,
    } = config;
    let mut over = Over { sources, args };
    over.set(&mut agent.profile, args.profile, "agent.profile", "profile");
    over.set(&mut agent.types, unless_empty(&args.types), "agent.types", "types");
    over.set(&mut agent.cgroups, unless_empty(&args.cgroups), "agent.cgroups", "cgroups");
    over.set(&mut agent.cluster, args.cluster.clone(), "agent.cluster", "cluster");
    over.set(&mut agent.node_name, args.node_name.clone(), "agent.node-name", "node_name");
    let instance = args.cloud_instance_id.clone();
    over.set(&mut agent.cloud_instance_id, instance, "agent.cloud-instance-id", "cloud_instance_id");
    over.set(&mut agent.labels, unless_empty(&args.labels), "agent.labels", "labels");
    over.set(&mut agent.host_root, args.host_root.clone(), "agent.host-root", "host_root");
    over.set(&mut agent.log_level, args.log_level, "agent.log-level", "log_level");
    over.set(&mut kernel.btf, args.btf.clone(), "kernel.btf", "btf");
    over.set(&mut kernel.log, args.kernel_log, "kernel.log", "kernel_log");
    over.set(&mut output.to, unless_empty(&args.outputs), "output.to", "outputs");
    over.set(&mut output.format, args.format, "output.format", "format");
    let (style, id) = args.style().unzip();
    over.set(&mut output.style, style, "output.style", id.unwrap_or_default());
    over.set(&mut http.listen, args.listen, "http.listen", "listen");
    let HttpArgs { tls_certificate, tls_key, token_file } = args.http.clone();
    over.set(&mut http.tls_certificate, tls_certificate, "http.tls-certificate", "tls_certificate");
    over.set(&mut http.tls_key, tls_key, "http.tls-key", "tls_key");
    over.set(&mut http.token_file, token_file, "http.token-file", "token_file");
}

fn unless_empty<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

struct Over<'a> {
    sources: &'a mut Sources,
    args: &'a RunArgs,
}

impl Over<'_> {
    /// `id` is the argument's name in [`RunArgs`].
    fn set<T>(&mut self, slot: &mut T, value: Option<T>, key: &str, id: &str) {
        let Some(value) = value else { return };
        *slot = value;
        // The places of the elements that the file had.
        self.sources.retain(|path, _| !path.starts_with(&format!("{key}[")));
        if let Some(given) = self.args.given(id) {
            self.sources.insert(key.to_owned(), Source::Given(given.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{Config, OutputSpec, Profile, load, render};
    use crate::cli::{Command, RunArgs, parse_from};

    const TYPES: [&str; 3] = ["exec", "exec_failed", "exit"];

    fn args(flags: &[&str]) -> RunArgs {
        match parse_from(["tellwire", "run"].iter().chain(flags).map(Into::into)).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("t.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// The error with `text` in the file, less the folder of the file.
    fn error(text: &str, flags: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, text);
        let error = load(&args(flags), &TYPES, &path).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn a_flag_goes_over_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "[agent]\nprofile = 'full'\ntypes = ['exit', 'exec']\n");
        let flags =
            args(&["--types", "exec,exec_failed", "--output", "file:/a", "--output", "stdout", "--json"]);
        let (config, sources) = load(&flags, &TYPES, &path).unwrap();
        assert_eq!(config.agent.profile, Profile::Full);
        assert_eq!(config.agent.types, ["exec", "exec_failed"]);
        assert_eq!(config.output.to, [OutputSpec::File("/a".into()), OutputSpec::Stdout]);
        let shown = render::effective(&config, &sources, &[]);
        for line in [
            &format!("profile = \"full\"  # file {}:2", path.display()),
            "types = [\"exec\", \"exec_failed\"]  # flag --types",
            "to = [\"file:/a\", \"stdout\"]  # flag --output",
            "style = \"json\"  # flag --json",
            "log-level = \"info\"  # default",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
        // It is a configuration too.
        assert_eq!(Config::from_file(&file(&folder, &shown), &TYPES), Ok(config));
    }

    #[test]
    fn only_a_file_that_was_named_must_exist() {
        let missing = Path::new("/nonexistent/t.toml");
        assert_eq!(load(&args(&[]), &TYPES, missing).unwrap().0, Config::default());
        let error = load(&args(&["--config", "/nonexistent/t.toml"]), &TYPES, missing).unwrap_err();
        let line = "/nonexistent/t.toml: No such file or directory (os error 2): name a file that exists";
        assert_eq!(error.to_string(), line);
        let error = Config::from_file(Path::new("/"), &TYPES).unwrap_err().to_string();
        assert!(error.starts_with("/: Is a directory"), "{error}");
    }

    #[test]
    fn what_no_single_value_can_know_is_checked_where_it_was_written() {
        let instead = "write exec (valid are exec, exec_failed, exit)";
        for (text, flags, line) in [
            (
                "[agent]\ntypes = [\n  'exit',\n  'exce',\n]",
                &[] as &[&str],
                format!("t.toml:4: unknown event type exce: {instead}").as_str(),
            ),
            ("", &["--types", "exit,exce"], &format!("--types: unknown event type exce: {instead}")),
            ("[output]\nformat = 'ocsf'", &[], "t.toml:2: format ocsf is not available yet; use ecs"),
            ("", &["--format", "ocsf"], "format ocsf is not available yet; use ecs"),
            (
                "[agent]\nhost-root = 'host'",
                &[],
                "t.toml:2: host-root host is no absolute path: write one that begins with /",
            ),
            (
                "[agent]\ncgroups = ['/a', '']",
                &[],
                "t.toml:2: a cgroup without a path: write its path, \"/\" for all of them",
            ),
            (
                "[redaction]\npatterns = [\n  'a',\n  'b[',\n]",
                &[],
                "t.toml:4: b[ is no pattern: unclosed character class: write a regular expression, such as \
                 \"ticket=(?P<secret>[0-9]+)\"",
            ),
            (
                "[redaction]\npatterns = ['x*']",
                &[],
                "t.toml:2: x* matches everywhere: write a regular expression, such as \
                 \"ticket=(?P<secret>[0-9]+)\"",
            ),
            (
                "[redaction]\nflags = ['--pin=']",
                &[],
                "t.toml:2: --pin= is no name: write it without a value, such as \"--pin\"",
            ),
            ("[output]\nto = []", &[], "t.toml:2: no output: write \"none\" for metrics without lines"),
            (
                "[output]\nto = ['none', 'stdout']",
                &[],
                "t.toml:2: none and another output: write only one of them",
            ),
            ("", &["--output", "file:/a,stdout,file:/a"], "--output: file:/a is there twice: write it once"),
            // A flag does not make a bad file good.
            (
                "[output]\nto = []",
                &["--output", "none"],
                "t.toml:2: no output: write \"none\" for metrics without lines",
            ),
        ] {
            assert_eq!(error(text, flags), line, "{text} {flags:?}");
        }
    }
}
