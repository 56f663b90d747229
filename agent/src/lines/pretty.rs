//! Lines for a person at a terminal: time, container, who, what.

use std::{io::Write as _, net::SocketAddr};

use bytes::{BufMut as _, BytesMut};

use super::{Line, fields::ConnectFacts};
use crate::events::text::printable;

const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// Appends the line. Nothing that a process says of itself reaches the terminal as a control character.
pub(crate) fn write(line: &Line<'_>, to: &mut BytesMut) {
    let time = line.timestamp.get(11..23).unwrap_or(line.timestamp);
    let container =
        line.container.as_ref().map_or("host", |container| container.id.get(..12).unwrap_or(container.id));
    let user = line.user.as_ref().map_or_else(String::new, |user| match &user.name {
        Some(name) => name.to_string(),
        None => user.id.map_or_else(String::new, |id| id.0.to_string()),
    });
    let process = &line.process;
    let action = line.event.action;
    let colour = match line.event.outcome {
        Some("failure") => RED,
        _ if action == "exit" => DIM,
        _ => GREEN,
    };
    let mut to = to.writer();
    // Writing to memory cannot fail.
    let _infallible = write!(
        to,
        "{DIM}{time}{RESET} {CYAN}{:<12}{RESET} {:<10} {BOLD}{}{RESET}{} {colour}{action:<12}{RESET} ",
        printable(container),
        printable(&user),
        printable(process.name),
        process.pid.map(|pid| format!("[{pid}]")).unwrap_or_default(),
    );
    let _infallible = what(line, &mut to);
    let _infallible = writeln!(to);
}

fn what(line: &Line<'_>, to: &mut impl std::io::Write) -> std::io::Result<()> {
    if let (Some(args), Some(executable)) = (&line.process.args, line.process.executable) {
        write!(to, "{}", printable(executable))?;
        for arg in args.iter().skip(1) {
            let arg = printable(arg);
            if arg.is_empty() || arg.contains([' ', '\'', '"']) {
                write!(to, " {arg:?}")?;
            } else {
                write!(to, " {arg}")?;
            }
        }
        if line.process.args_truncated == Some(true) {
            write!(to, " …")?;
        }
    } else if let Some(exec) = &line.tellwire.exec {
        write!(to, "{}", printable(exec.filename.as_deref().unwrap_or_default()))?;
    } else if let Some(destination) = &line.destination {
        if let (Some(ip), Some(port)) = (destination.ip, destination.port) {
            write!(to, "{} ", SocketAddr::new(ip, port))?;
        }
        if let Some(ConnectFacts { outcome, count }) = &line.tellwire.connect {
            write!(to, "{}", outcome.unwrap_or("established"))?;
            if let Some(count) = count {
                write!(to, " ×{count}")?;
            }
        }
        if let (Some(sent), Some(received)) =
            (line.source.as_ref().and_then(|source| source.bytes), destination.bytes)
        {
            write!(to, " {sent} B out, {received} B in")?;
        }
        if let Some(duration) = line.event.duration {
            write!(to, " {DIM}{} µs{RESET}", duration / 1000)?;
        }
    } else if let Some(exit) = &line.tellwire.exit {
        match (&exit.signal, line.process.exit_code) {
            (Some(signal), _) => write!(to, "{signal}")?,
            (None, Some(code)) => write!(to, "{code}")?,
            (None, None) => {}
        }
    } else if let Some(credentials) = &line.tellwire.credentials {
        write!(
            to,
            "{}:{} -> {}:{}",
            credentials.old.euid.0, credentials.old.egid.0, credentials.new.euid.0, credentials.new.egid.0
        )?;
    } else if let Some(summary) = super::audit::summary(line) {
        write!(to, "{}", printable(&summary))?;
    } else if let Some(auth) = &line.tellwire.auth {
        write!(to, "{}", printable(auth.service.as_deref().unwrap_or_default()))?;
        if let Some(address) = line.source.as_ref().and_then(|source| source.address.as_deref()) {
            write!(to, " from {}", printable(address))?;
        }
        if let Some(code) = &line.event.code {
            write!(to, " {code}")?;
        }
    } else if let Some(summary) = super::own::summary(line) {
        write!(to, "{}", printable(&summary))?;
    }
    if let Some(error) = &line.error {
        write!(to, " {RED}{}{RESET}", error.code)?;
    }
    Ok(())
}
