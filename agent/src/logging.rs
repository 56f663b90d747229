//! The agent's own log: stderr, for a person on a terminal and as JSON elsewhere. Never the event stream.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    Layer as _, Registry, filter::LevelFilter, fmt, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

use crate::config::LogLevel;

/// Changes the level of a log that runs.
#[derive(Clone, Debug)]
pub(crate) struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    pub(crate) fn set(&self, level: LogLevel) {
        let Self(handle) = self;
        let filter = filter(level);
        // It fails only where there is no log any more.
        let _nobody_listens = handle.reload(filter);
        log::set_max_level(filter.into_level().map_or(log::LevelFilter::Off, of_log));
    }
}

/// Starts logging; once.
pub(crate) fn start(level: LogLevel) -> Level {
    let (filter, handle) = reload::Layer::new(filter(level));
    let to_stderr = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let to_stderr = if std::io::stderr().is_terminal() {
        to_stderr.boxed()
    } else {
        to_stderr.json().flatten_event(true).boxed()
    };
    tracing_subscriber::registry().with(filter).with(to_stderr).init();
    Level(handle)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// What the crate `log`, which libraries speak, lets through.
fn of_log(level: tracing::Level) -> log::LevelFilter {
    match level {
        tracing::Level::ERROR => log::LevelFilter::Error,
        tracing::Level::WARN => log::LevelFilter::Warn,
        tracing::Level::INFO => log::LevelFilter::Info,
        tracing::Level::DEBUG => log::LevelFilter::Debug,
        tracing::Level::TRACE => log::LevelFilter::Trace,
    }
}
