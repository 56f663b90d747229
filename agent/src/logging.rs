//! The agent's own log: stderr, for a person on a terminal and as JSON elsewhere. Never the event stream.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    Layer as _, Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::config::LogLevel;

/// Changes the level of a log that runs.
#[derive(Clone, Debug)]
pub(crate) struct Level(reload::Handle<Targets, Registry>);

impl Level {
    pub(crate) fn set(&self, level: LogLevel) {
        let Self(handle) = self;
        // It fails only where there is no log any more.
        let _nobody_listens = handle.reload(filter(level));
        log::set_max_level(most(level).into_level().map_or(log::LevelFilter::Off, of_log));
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

/// Debugging is about tellwire: what the loader says of every relocation, thousands of lines, is for tracing.
fn filter(level: LogLevel) -> Targets {
    let most = most(level);
    let libraries = if level == LogLevel::Debug { LevelFilter::INFO } else { most };
    Targets::new().with_default(libraries).with_target("tellwire", most)
}

fn most(level: LogLevel) -> LevelFilter {
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

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::filter;
    use crate::config::LogLevel;

    #[test]
    fn debugging_leaves_out_what_libraries_say_of_themselves() {
        let says = |level, target, of| filter(level).would_enable(target, &of);
        for ours in ["tellwire", "tellwire::kernel::rings", "tellwire_ebpf"] {
            assert!(says(LogLevel::Debug, ours, Level::DEBUG), "{ours}");
            assert!(!says(LogLevel::Debug, ours, Level::TRACE), "{ours}");
        }
        assert!(!says(LogLevel::Debug, "aya_obj::relocation", Level::DEBUG));
        assert!(says(LogLevel::Debug, "aya", Level::WARN));
        assert!(says(LogLevel::Trace, "aya_obj::relocation", Level::DEBUG));
        assert!(!says(LogLevel::Warn, "tellwire", Level::INFO));
    }
}
