//! The command line. The doc line of each flag is its manual.
//!
//! Every flag of `run` has an environment variable. None may be called `--port` or begin with
//! `--service`: in Kubernetes, a Service named `tellwire` sets `TELLWIRE_PORT` and
//! `TELLWIRE_SERVICE_HOST` in every pod beside it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser, Resettable, StyledStr, TypedValueParser as _};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Format, KernelLog, Listen, LogLevel, OutputSpec, Profile, Style, duration};

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
    /// Say what this kernel offers, which probe would attach where, and why not
    Check(CheckArgs),
    /// Print or check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List every event type and field
    Events(EventsArgs),
    /// Print the version
    Version,
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
    /// Print what `run` with these flags would use, and where each value comes from
    Show(Box<RunArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
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

#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    /// Configuration file [default: /etc/tellwire/tellwire.toml if it exists]
    #[arg(long, value_name = "FILE", env = "TELLWIRE_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// How much makes a line
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

    /// Where lines go: `stdout`, `file:PATH` or `none`. May be repeated
    #[arg(long = "output", value_name = "OUTPUT", env = "TELLWIRE_OUTPUT", value_delimiter = ',')]
    pub(crate) outputs: Vec<OutputSpec>,

    /// The schema of the lines
    #[arg(long, env = "TELLWIRE_FORMAT")]
    pub(crate) format: Option<Format>,

    /// Readable lines on stdout, even if it is no terminal
    #[arg(long, env = "TELLWIRE_PRETTY", value_parser = BoolishValueParser::new())]
    pretty: bool,

    /// JSON lines on stdout, even if it is a terminal
    #[arg(long, env = "TELLWIRE_JSON", value_parser = BoolishValueParser::new())]
    json: bool,

    /// Where metrics and health are served: ADDR:PORT or none
    #[arg(long, value_name = "ADDR:PORT", env = "TELLWIRE_LISTEN")]
    pub(crate) listen: Option<Listen>,

    /// Where the host's root directory is seen: / or, in a container, where it is mounted
    #[arg(long, value_name = "DIR", env = "TELLWIRE_HOST_ROOT")]
    pub(crate) host_root: Option<PathBuf>,

    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", env = "TELLWIRE_DURATION", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// How much the agent says about itself, on stderr
    #[arg(long, value_name = "LEVEL", env = "TELLWIRE_LOG_LEVEL")]
    pub(crate) log_level: Option<LogLevel>,

    /// How much the kernel programs say about themselves
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

fn parse_from(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
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

/// A variable that is set to nothing counts as unset, as it comes out of templates.
fn without_empty_variables(mut command: clap::Command) -> clap::Command {
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, without_empty_variables);
    }
    command.mut_args(|arg| match arg.get_env().and_then(env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    })
}

fn innermost<'a>(
    mut command: &'a clap::Command,
    mut matches: &'a ArgMatches,
) -> (&'a clap::Command, &'a ArgMatches) {
    while let Some((name, inner)) = matches.subcommand() {
        match command.find_subcommand(name) {
            Some(sub) => (command, matches) = (sub, inner),
            None => break,
        }
    }
    (command, matches)
}

fn given(command: &clap::Command, matches: &ArgMatches) -> BTreeMap<String, Given> {
    let given = |arg: &clap::Arg| match matches.value_source(arg.get_id().as_str())? {
        ValueSource::CommandLine => Some(Given::Flag(format!("--{}", arg.get_long()?))),
        ValueSource::EnvVariable => Some(Given::Env(arg.get_env()?.to_string_lossy().into_owned())),
        _ => None,
    };
    command
        .get_arguments()
        .filter_map(|arg| Some((arg.get_id().to_string(), given(arg)?)))
        .collect()
}

/// Clap blames a flag for a value that came from its variable: adds where to look.
fn name_variable(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    let Some(ContextValue::String(blamed)) = error.get(ContextKind::InvalidArg) else { return error };
    let commands = command.get_subcommands().flat_map(|sub| [sub].into_iter().chain(sub.get_subcommands()));
    let arg = commands.flat_map(clap::Command::get_arguments).find(|arg| arg.to_string() == *blamed);
    let Some((flag, variable)) = arg.and_then(|arg| Some((arg.get_long()?, arg.get_env()?))) else {
        return error;
    };
    let flag = format!("--{flag}");
    let is_flag = |argument: OsString| {
        argument.to_str().and_then(|text| text.strip_prefix(&flag)).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    if env::var_os(variable).is_some() && !env::args_os().any(is_flag) {
        let tip = format!("the value is that of the environment variable {}", variable.display());
        let tip = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a time with its unit, such as 500ms, 30s or 5m".into())
}
