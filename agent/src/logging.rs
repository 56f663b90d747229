//! The agent's own log: stderr, for a person on a terminal and as JSON elsewhere. Never the event stream.

use std::io::IsTerminal as _;

use tracing_subscriber::{filter::LevelFilter, fmt};

use crate::config::LogLevel;

/// Starts logging; once.
pub(crate) fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    if std::io::stderr().is_terminal() {
        log.init();
    } else {
        log.json().flatten_event(true).init();
    }
}
