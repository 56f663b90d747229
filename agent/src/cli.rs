//! The command line. The doc line of each flag is its manual.
//!
//! Every flag of `run` has an environment variable. None may be called `--port` or begin with
//! `--service`: in Kubernetes, a Service named `tellwire` sets `TELLWIRE_PORT` and
//! `TELLWIRE_SERVICE_HOST` in every pod beside it.

mod variables;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::variables::{given, innermost, name_variable, without_empty_variables};
use crate::config::{Format, KernelLog, Label, Listen, LogLevel, OutputSpec, Profile, Style, duration};

/// What happens on this host, from the kernel: exact metrics and one JSON line per event.
#[derive(Debug, Parser)]
#[command(name = "tellwire", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch this host until it is told to stop
    Run(Box<RunArgs>),
    /// Say what this kernel offers, which probe would attach where, and why not; and which rules the kernel takes
    Check(CheckArgs),
    /// Print or check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List every event type and field
    Events(EventsArgs),
    /// Print the version
    Version,
    /// Write manual pages and completions into a folder
    #[cfg(feature = "manual")]
    #[command(hide = true)]
    Manual { folder: PathBuf },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the default configuration with its documentation
    Default,
    /// Say whether a configuration file is valid
    Check {
        /// The file to check
        file: PathBuf,
    },
    /// Print the JSON Schema of a configuration file
    Schema,
    /// Print what `run` with these flags would use, and where each value comes from
    Show(Box<RunArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Configuration file, of whose rules it is said which the kernel takes [default: /etc/tellwire/tellwire.toml if it
    /// exists]
    #[arg(long, value_name = "FILE", env = "TELLWIRE_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Types of the running kernel, where it gives none itself: BTF, or the kernel's ELF file that has it
    #[arg(long, value_name = "FILE", env = "TELLWIRE_BTF")]
    pub(crate) btf: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Print the JSON Schema of a line
    #[arg(long)]
    pub(crate) json_schema: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArgs {
    /// Configuration file [default: /etc/tellwire/tellwire.toml if it exists]
    #[arg(long, value_name = "FILE", env = "TELLWIRE_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// How much makes a line [default: default]
    #[arg(long, env = "TELLWIRE_PROFILE")]
    pub(crate) profile: Option<Profile>,

    /// Only this cgroup and those below it; a path under the cgroup mount, or absolute. May be repeated
    #[arg(
        long = "cgroup", value_name = "PATH", env = "TELLWIRE_CGROUP", value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new().map(PathBuf::from)
    )]
    pub(crate) cgroups: Vec<PathBuf>,

    /// Only lines of these types, separated by commas; `tellwire events` lists them
    #[arg(
        long, value_name = "LIST", env = "TELLWIRE_TYPES", value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) types: Vec<String>,

    /// Where lines go: `stdout`, `file:PATH`, `journald`, `syslog:unix:PATH`, `syslog:tcp:HOST:PORT`,
    /// `syslog:udp:HOST:PORT`, `ndjson:unix:PATH`, `ndjson:tcp:HOST:PORT` or `none`. May be repeated [default: stdout]
    #[arg(long = "output", value_name = "OUTPUT", env = "TELLWIRE_OUTPUT", value_delimiter = ',')]
    pub(crate) outputs: Vec<OutputSpec>,

    /// The schema of the lines [default: ecs]
    #[arg(long, env = "TELLWIRE_FORMAT")]
    pub(crate) format: Option<Format>,

    /// Readable lines on stdout, even if it is no terminal
    #[arg(long, env = "TELLWIRE_PRETTY", value_parser = BoolishValueParser::new())]
    pretty: bool,

    /// JSON lines on stdout, even if it is a terminal
    #[arg(long, env = "TELLWIRE_JSON", value_parser = BoolishValueParser::new())]
    json: bool,

    /// Where metrics and health are served: ADDR:PORT or none [default: 127.0.0.1:9477]
    #[arg(long, value_name = "ADDR:PORT", env = "TELLWIRE_LISTEN")]
    pub(crate) listen: Option<Listen>,
    #[command(flatten)]
    pub(crate) http: crate::config::HttpArgs,

    /// Where the host's root directory is seen: / or, in a container, where it is mounted [default: /]
    #[arg(long, value_name = "DIR", env = "TELLWIRE_HOST_ROOT")]
    pub(crate) host_root: Option<PathBuf>,

    /// The cluster's name, for every line
    #[arg(long, value_name = "NAME", env = "TELLWIRE_CLUSTER")]
    pub(crate) cluster: Option<String>,

    /// What Kubernetes calls the node, for every line
    #[arg(long, value_name = "NAME", env = "TELLWIRE_NODE_NAME")]
    pub(crate) node_name: Option<String>,

    /// The id that the cloud gave the machine, for every line
    #[arg(long, value_name = "ID", env = "TELLWIRE_CLOUD_INSTANCE_ID")]
    pub(crate) cloud_instance_id: Option<String>,

    /// A label for every line, such as team=payments. May be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", env = "TELLWIRE_LABELS", value_delimiter = ',')]
    pub(crate) labels: Vec<Label>,

    /// Types of the running kernel, where it gives none itself: BTF, or the kernel's ELF file that has it
    #[arg(long, value_name = "FILE", env = "TELLWIRE_BTF")]
    pub(crate) btf: Option<PathBuf>,

    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", env = "TELLWIRE_DURATION", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Write every record as it came from the rings to this file, for the replay tests
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) record: Option<PathBuf>,

    /// How much the agent says about itself, on stderr [default: info]
    #[arg(long, value_name = "LEVEL", env = "TELLWIRE_LOG_LEVEL")]
    pub(crate) log_level: Option<LogLevel>,

    /// How much the kernel programs say about themselves [default: off]
    #[arg(long, value_name = "LEVEL", env = "TELLWIRE_KERNEL_LOG")]
    pub(crate) kernel_log: Option<KernelLog>,

    /// Which of the above were given, and where.
    #[arg(skip)]
    given: BTreeMap<String, Given>,
}

/// Where an argument was given, spelled as the user did: `--types`, `TELLWIRE_TYPES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    Flag(String),
    Env(String),
}

impl RunArgs {
    /// What `check` shares with `run`.
    pub(crate) fn of_check(args: &CheckArgs) -> Self {
        Self { config: args.config.clone(), btf: args.btf.clone(), ..Self::default() }
    }

    /// `id` is the name of the field.
    pub(crate) fn given(&self, id: &str) -> Option<&Given> {
        self.given.get(id)
    }

    /// The style of stdout and the field that says so. A flag goes before the environment.
    pub(crate) fn style(&self) -> Option<(Style, &'static str)> {
        let flag = |id| matches!(self.given(id), Some(Given::Flag(_)));
        match (self.pretty, self.json) {
            (true, true) if flag("pretty") => Some((Style::Pretty, "pretty")),
            (_, true) => Some((Style::Json, "json")),
            (true, false) => Some((Style::Pretty, "pretty")),
            (false, false) => None,
        }
    }
}

/// The command line of this process. An error of [`ErrorKind::DisplayHelp`] or
/// [`ErrorKind::DisplayVersion`] is none: `use_stderr` tells them from the others.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    parse_from(env::args_os())
}

pub(crate) fn parse_from(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = without_empty_variables(Cli::command());
    let matches =
        command.try_get_matches_from_mut(arguments).map_err(|error| name_variable(error, &command))?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let Command::Run(args) | Command::Config(ConfigCommand::Show(args)) = &mut cli.command {
        let (command, matches) = innermost(&command, &matches);
        args.given = given(command, matches);
        let both = |source: fn(&Given) -> bool| {
            args.pretty && args.json && ["pretty", "json"].iter().all(|id| args.given(id).is_some_and(source))
        };
        if both(|given| matches!(given, Given::Flag(_))) || both(|given| matches!(given, Given::Env(_))) {
            let message = "--pretty and --json cannot be used together: write one of them";
            return Err(command.clone().error(ErrorKind::ArgumentConflict, message));
        }
    }
    Ok(cli)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a time with its unit, such as 500ms, 30s or 5m".into())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process;
    use std::time::Duration;

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::{Cli, Command, ConfigCommand, Given, RunArgs, env, parse_from};
    use crate::config::{Config, OutputSpec, Profile, Style};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        parse_from(line.split_whitespace().map(Into::into))
    }

    fn run(flags: &str) -> RunArgs {
        match parse(&format!("tellwire run {flags}")).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn error(line: &str) -> String {
        parse(line).unwrap_err().to_string()
    }

    #[test]
    fn the_commands_are_those_that_people_rely_on() {
        Cli::command().debug_assert();
        let command = |line: &str| parse(line).unwrap().command;
        assert!(matches!(command("tellwire run"), Command::Run(_)));
        assert!(matches!(command("tellwire check --json"), Command::Check(args) if args.json));
        let config = |line: &str| match command(line) {
            Command::Config(config) => config,
            other => panic!("{other:?}"),
        };
        assert!(matches!(config("tellwire config default"), ConfigCommand::Default));
        let check = config("tellwire config check a.toml");
        assert!(matches!(check, ConfigCommand::Check { file } if file.to_str() == Some("a.toml")));
        let show = config("tellwire config show --profile full");
        assert!(matches!(show, ConfigCommand::Show(args) if args.profile == Some(Profile::Full)));
        let events = command("tellwire events --json-schema");
        assert!(matches!(events, Command::Events(args) if args.json_schema));
        assert!(matches!(command("tellwire version"), Command::Version));
    }

    #[test]
    fn lists_are_repeated_or_have_commas() {
        let args = run("--cgroup a --cgroup /b --types exec,exit --output stdout --output file:/c");
        assert_eq!(args.cgroups, [PathBuf::from("a"), "/b".into()]);
        assert_eq!(args.types, ["exec", "exit"]);
        assert_eq!(args.outputs, [OutputSpec::Stdout, OutputSpec::File("/c".into())]);
        assert_eq!(args.given("outputs"), Some(&Given::Flag("--output".into())));
        assert_eq!(args.given("listen"), None);
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(run("--duration 500ms").duration, Some(Duration::from_millis(500)));
        assert_eq!(run("--duration 5m").duration, Some(Duration::from_mins(5)));
        for wrong in ["30", "0s", "-1s", "soon"] {
            let error = error(&format!("tellwire run --duration={wrong}"));
            assert!(error.contains("write a time with its unit, such as 500ms, 30s or 5m"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write_instead() {
        for (line, part) in [
            ("tellwire run --profile ful", "possible values: default, full"),
            ("tellwire run --output /var/x", "write \"stdout\", \"file:PATH\", \"journald\""),
            ("tellwire run --listen 9477", "write an address with its port"),
            ("tellwire run --pretty --json", "--pretty and --json cannot be used together"),
            ("tellwire run --types exec,,exit", "a value is required for '--types <LIST>'"),
            ("tellwire run --proflie full", "a similar argument exists: '--profile'"),
            ("tellwire rum", "a similar subcommand exists: 'run'"),
        ] {
            let error = error(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn help_is_no_error_and_no_command_is_one() {
        assert!(!parse("tellwire --help").unwrap_err().use_stderr());
        assert!(!parse("tellwire --version").unwrap_err().use_stderr());
        assert!(parse("tellwire").unwrap_err().use_stderr());
    }

    #[test]
    fn the_help_of_a_flag_says_its_default() {
        let Config { agent, kernel, output, http, .. } = Config::default();
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for (id, default) in [
            ("profile", agent.profile.to_string()),
            ("host_root", agent.host_root.display().to_string()),
            ("log_level", agent.log_level.to_string()),
            ("outputs", output.to[0].to_string()),
            ("format", output.format.to_string()),
            ("listen", http.listen.to_string()),
            ("kernel_log", kernel.log.to_string()),
        ] {
            let arg = run.get_arguments().find(|arg| arg.get_id() == id).unwrap();
            let help = arg.get_help().unwrap().to_string();
            assert!(help.ends_with(&format!(" [default: {default}]")), "{help}");
        }
    }

    /// Environment variables are those of a process: the test runs itself again with them.
    fn with_variables(test: &str, variables: &[(&str, &str)]) -> bool {
        if env::var_os("CLI_TEST_CHILD").is_some() {
            return true;
        }
        let output = process::Command::new(env::current_exe().unwrap())
            .args([&format!("cli::tests::{test}"), "--exact", "--nocapture"])
            .env("CLI_TEST_CHILD", "1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        false
    }

    #[test]
    fn variables_are_used_where_no_flag_is_and_empty_ones_are_none() {
        let variables = [
            ("TELLWIRE_PROFILE", "full"),
            ("TELLWIRE_TYPES", "exec,exit"),
            ("TELLWIRE_LISTEN", ""),
            ("TELLWIRE_OUTPUT", "stdout,file:/a"),
            ("TELLWIRE_PRETTY", "1"),
        ];
        if !with_variables("variables_are_used_where_no_flag_is_and_empty_ones_are_none", &variables) {
            return;
        }
        let args = run("--types connect");
        assert_eq!(args.profile, Some(Profile::Full));
        assert_eq!(args.given("profile"), Some(&Given::Env("TELLWIRE_PROFILE".into())));
        assert_eq!(args.types, ["connect"]);
        assert_eq!(args.listen, None);
        assert_eq!(args.outputs, [OutputSpec::Stdout, OutputSpec::File("/a".into())]);
        assert_eq!(args.style(), Some((Style::Pretty, "pretty")));
        assert_eq!(run("--json").style(), Some((Style::Json, "json")));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        if !with_variables("a_wrong_variable_is_named", &[("TELLWIRE_PROFILE", "ful")]) {
            return;
        }
        let error = parse("tellwire run").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        let tip = "tip: the value is that of the environment variable TELLWIRE_PROFILE";
        assert!(error.to_string().contains(tip), "{error}");
    }
}
