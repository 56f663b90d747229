//! tellwire: what happens on this host, from the kernel, as exact metrics and JSON lines.

mod app;
mod audit;
mod auth;
mod books;
mod check;
mod cli;
mod config;
mod enrich;
mod events;
mod failure;
mod host;
mod http;
mod kernel;
mod lines;
mod logging;
#[cfg(feature = "manual")]
mod manual;
mod metrics;
mod outputs;
mod own;
mod pam;
mod pipeline;
mod redact;
mod rules;
mod runtimes;
mod scope;
mod words;
mod workloads;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use cli::{Command, ConfigCommand, RunArgs};
use failure::Failure;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && error.kind() != MISSING => {
            return end(&Failure::command_line(&error));
        }
        Err(error) => {
            // Help, asked for or not. Nothing can be done where not even this can be printed.
            let _unprinted = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 64);
        }
    };
    match dispatch(&cli.command) {
        Ok(code) => code,
        Err(failure) => end(&failure),
    }
}

/// `tellwire` alone: what it can do is printed, as by `--help`.
const MISSING: clap::error::ErrorKind = clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

fn end(failure: &Failure) -> ExitCode {
    let _unprinted = writeln!(io::stderr(), "tellwire: {failure}");
    failure.status()
}

fn dispatch(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => app::run(args),
        Command::Check(args) => {
            let run = RunArgs::of_check(args);
            let config = config::Config::load(&run, events::action::NAMES).map_err(Failure::usage)?;
            let (report, usable) = check::report(args.json, &config)?;
            print(&report)?;
            Ok(if usable { ExitCode::SUCCESS } else { ExitCode::from(69) })
        }
        Command::Config(ConfigCommand::Default) => print(&config::default_toml()),
        Command::Config(ConfigCommand::Check { file }) => {
            config::Config::from_file(file, events::action::NAMES).map_err(Failure::usage)?;
            print(&format!("{}: valid\n", file.display()))
        }
        Command::Config(ConfigCommand::Schema) => print(&config::json_schema()),
        Command::Config(ConfigCommand::Show(args)) => {
            print(&config::show(args, events::action::NAMES).map_err(Failure::usage)?)
        }
        Command::Events(args) if args.json_schema => print(&lines::schema::json_schema()),
        Command::Events(_) => print(&lines::schema::actions()),
        Command::Version => print(&format!("tellwire {}\n", env!("CARGO_PKG_VERSION"))),
        #[cfg(feature = "manual")]
        Command::Manual { folder } => manual::write(folder).map(|()| ExitCode::SUCCESS).map_err(Failure::bug),
    }
}

/// Prints to stdout; a reader that has gone is no error.
fn print(text: &str) -> Result<ExitCode, Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::bug(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
