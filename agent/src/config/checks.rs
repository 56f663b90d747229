//! What no single value can know: lists, and names that other parts decide.

use std::borrow::Cow;
use std::path::PathBuf;

use super::error::{ConfigError, nearest, shown};
use super::{Config, Format, Group, Http, OutputFile, OutputSpec, Redaction, Rule, Source, Sources};
use crate::cli::Given;
use crate::enrich::users::group_id;
use crate::host::HostRoot;
use crate::redact;
use crate::rules::{Refused, specs};

/// What is wrong with the value of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    key: Cow<'static, str>,
    /// The element, if the value is a list.
    index: Option<usize>,
    wrong: String,
    instead: Option<String>,
}

impl Fault {
    fn new(key: &'static str, index: Option<usize>, wrong: String, instead: &str) -> Self {
        Self { key: key.into(), index, wrong, instead: Some(instead.into()) }
    }

    pub(super) fn at(self, sources: &Sources) -> ConfigError {
        let Self { key, index, wrong, instead } = self;
        let element = index.and_then(|index| sources.get(&format!("{key}[{index}]")));
        match element.or_else(|| sources.get(key.as_ref())) {
            Some(Source::File(path, line)) => ConfigError::line(path, *line, wrong, instead),
            Some(Source::Given(Given::Flag(by) | Given::Env(by))) => ConfigError::given(by, wrong, instead),
            Some(Source::Default) | None => ConfigError::given(&key, wrong, instead),
        }
    }
}

pub(super) fn check(config: &Config, known_types: &[&str]) -> Result<(), Fault> {
    let Config {
        agent,
        kernel: _,
        processes: _,
        redaction,
        auth: _,
        containers,
        output,
        http,
        metrics: _,
        rules,
    } = config;
    check_sockets(&containers.sockets)?;
    check_types(&agent.types, known_types)?;
    if let Some(index) = agent.cgroups.iter().position(|path| path.as_os_str().is_empty()) {
        let wrong = "a cgroup without a path".into();
        return Err(Fault::new("agent.cgroups", Some(index), wrong, "write its path, \"/\" for all of them"));
    }
    if !agent.host_root.is_absolute() {
        let wrong = format!("host-root {} is no absolute path", agent.host_root.display());
        return Err(Fault::new("agent.host-root", None, wrong, "write one that begins with /"));
    }
    if !agent.state_dir.is_absolute() {
        let wrong = format!("state-dir {} is no absolute path", agent.state_dir.display());
        return Err(Fault::new("agent.state-dir", None, wrong, "write one that begins with /"));
    }
    check_http(http)?;
    check_redaction(redaction)?;
    check_outputs(&output.to)?;
    check_files(&output.file, &HostRoot::new(&agent.host_root))?;
    check_rules(rules)?;
    match output.format {
        Format::Ecs => Ok(()),
        Format::Ocsf => {
            let wrong = "format ocsf is not available yet; use ecs".into();
            Err(Fault { key: "output.format".into(), index: None, wrong, instead: None })
        }
    }
}

/// Whether the files are of use shows when they are read, before anything is attached.
fn check_http(http: &Http) -> Result<(), Fault> {
    let Http { listen: _, tls_certificate, tls_key, token_file: _ } = http;
    let is_named = |path: &PathBuf| !path.as_os_str().is_empty();
    match (is_named(tls_certificate), is_named(tls_key)) {
        (true, false) => {
            let wrong = "tls-certificate without its key".into();
            Err(Fault::new("http.tls-certificate", None, wrong, "write http.tls-key as well"))
        }
        (false, true) => {
            let wrong = "tls-key without its certificate".into();
            Err(Fault::new("http.tls-key", None, wrong, "write http.tls-certificate as well"))
        }
        _ => Ok(()),
    }
}

/// Each has series of its own in the metrics.
const SOCKETS: usize = 16;

fn check_sockets(sockets: &[PathBuf]) -> Result<(), Fault> {
    if sockets.len() > SOCKETS {
        let wrong = format!("{} sockets", sockets.len());
        return Err(Fault::new("containers.sockets", None, wrong, &format!("write {SOCKETS} at the most")));
    }
    if let Some(index) = sockets.iter().position(|socket| !socket.is_absolute()) {
        let path = sockets.get(index).map(|path| path.display().to_string()).unwrap_or_default();
        let wrong = format!("socket {path} is no absolute path");
        return Err(Fault::new("containers.sockets", Some(index), wrong, "write one that begins with /"));
    }
    Ok(())
}

/// What is wrong with a rule has the line of the rule's key, or of the rule.
fn check_rules(rules: &[Rule]) -> Result<(), Fault> {
    specs(rules).map(drop).map_err(|refused| {
        let Refused { rule, key, index, wrong, instead } = refused;
        let key = if key.is_empty() { format!("rules[{rule}]") } else { format!("rules[{rule}].{key}") };
        Fault { key: key.into(), index, wrong, instead: Some(instead) }
    })
}

/// `known` are the names of all event types.
fn check_types(types: &[String], known: &[&str]) -> Result<(), Fault> {
    match types.iter().enumerate().find(|(_, name)| !known.contains(&name.as_str())) {
        Some((index, name)) => {
            let wrong = format!("unknown event type {name}");
            Err(Fault::new("agent.types", Some(index), wrong, &nearest(name, known)))
        }
        None => Ok(()),
    }
}

fn check_redaction(redaction: &Redaction) -> Result<(), Fault> {
    let Redaction { enabled: _, flags, patterns, allow } = redaction;
    for (key, names) in [("redaction.flags", flags), ("redaction.allow", allow)] {
        let is_name = |name: &String| {
            let name = name.trim_start_matches('-');
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !name.is_empty() && name.bytes().all(is_part)
        };
        if let Some(index) = names.iter().position(|name| !is_name(name)) {
            let wrong = format!("{} is no name", shown(names.get(index).map_or("", String::as_str)));
            return Err(Fault::new(key, Some(index), wrong, "write it without a value, such as \"--pin\""));
        }
    }
    for (index, text) in patterns.iter().enumerate() {
        let wrong = match redact::pattern(text) {
            Err(error) => format!("{} is no pattern: {}", shown(text), redact::pattern_error(&error)),
            Ok(pattern) if pattern.is_match(b"") => format!("{} matches everywhere", shown(text)),
            Ok(_) => continue,
        };
        let instead = "write a regular expression, such as \"ticket=(?P<secret>[0-9]+)\"";
        return Err(Fault::new("redaction.patterns", Some(index), wrong, instead));
    }
    Ok(())
}

fn check_outputs(to: &[OutputSpec]) -> Result<(), Fault> {
    if to.is_empty() {
        let wrong = "no output".into();
        return Err(Fault::new("output.to", None, wrong, "write \"none\" for metrics without lines"));
    }
    if to.len() > 1
        && let Some(index) = to.iter().position(|output| *output == OutputSpec::None)
    {
        let wrong = "none and another output".into();
        return Err(Fault::new("output.to", Some(index), wrong, "write only one of them"));
    }
    for (index, output) in to.iter().enumerate() {
        if to.iter().take(index).any(|earlier| earlier == output) {
            let wrong = format!("{output} is there twice");
            return Err(Fault::new("output.to", Some(index), wrong, "write it once"));
        }
    }
    Ok(())
}

fn check_files(file: &OutputFile, host: &HostRoot) -> Result<(), Fault> {
    let (max, total) = (file.max_bytes, file.total_bytes);
    if total.get() != 0 && total.get() < max.get() {
        let wrong = "output.file.total-bytes is less than output.file.max-bytes".into();
        return Err(Fault::new("output.file.total-bytes", None, wrong, "write more, or a smaller max-bytes"));
    }
    let Group::Name(name) = &file.group else { return Ok(()) };
    let groups = host.join("/etc/group");
    let wrong = match group_id(&groups, name) {
        Ok(Some(_)) => return Ok(()),
        Ok(None) => format!("unknown group {name}"),
        Err(error) => format!("group {name}: {}: {error}", groups.display()),
    };
    let instead = format!("write one of {}, or a number", groups.display());
    Err(Fault::new("output.file.group", None, wrong, &instead))
}
