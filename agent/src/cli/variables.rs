//! Arguments and their environment variables: which was given, and which is to blame.

use std::{collections::BTreeMap, env, ffi::OsString};

use clap::{
    ArgMatches,
    builder::{Resettable, StyledStr},
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use super::Given;

/// A variable that is set to nothing counts as unset, as it comes out of templates.
pub(super) fn without_empty_variables(mut command: clap::Command) -> clap::Command {
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, without_empty_variables);
    }
    command.mut_args(|arg| match arg.get_env().and_then(env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    })
}

pub(super) fn innermost<'a>(
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

pub(super) fn given(command: &clap::Command, matches: &ArgMatches) -> BTreeMap<String, Given> {
    let given = |arg: &clap::Arg| match matches.value_source(arg.get_id().as_str())? {
        ValueSource::CommandLine => Some(Given::Flag(format!("--{}", arg.get_long()?))),
        ValueSource::EnvVariable => Some(Given::Env(arg.get_env()?.to_string_lossy().into_owned())),
        _ => None,
    };
    command.get_arguments().filter_map(|arg| Some((arg.get_id().to_string(), given(arg)?))).collect()
}

/// Clap blames a flag for a value that came from its variable: adds where to look.
pub(super) fn name_variable(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    // Such as `--profile <PROFILE>`.
    let blamed = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(blamed)) => blamed.split(' ').next().unwrap_or_default().to_owned(),
        _ => return error,
    };
    let mut arguments = command.get_subcommands().flat_map(|sub| {
        sub.get_arguments().chain(sub.get_subcommands().flat_map(clap::Command::get_arguments))
    });
    let is_blamed =
        |arg: &&clap::Arg| arg.get_long().is_some_and(|long| blamed.strip_prefix("--") == Some(long));
    let Some(variable) = arguments.find(is_blamed).and_then(clap::Arg::get_env) else { return error };
    let is_given = |argument: OsString| {
        let rest = argument.to_str().and_then(|text| text.strip_prefix(&blamed));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    if env::var_os(variable).is_some() && !env::args_os().any(is_given) {
        let tip = format!("the value is that of the environment variable {}", variable.display());
        let tip = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}
