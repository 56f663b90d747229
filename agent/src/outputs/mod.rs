//! The outputs: each is one task with a queue of its own, and the pipeline waits for none.
//!
//! An output that is slower than the events loses lines when its queue is full. They are counted,
//! and no other output notices.

mod archive;
mod file;
mod frame;
mod queue;
mod remote;
mod stdout;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, OutputSpec};
use crate::host::HostRoot;
use frame::Frame;
use queue::Queue;
use writer::{Stop, Target, Writer};

/// Room for the actions of all events; an action's number is its index.
pub(crate) const ACTIONS: usize = 32;

/// Events by action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) [u32; ACTIONS]);

/// The lines of one pipeline cycle, encoded once and shared by the outputs.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Whole lines, each with its `\n`.
    pub(crate) bytes: Bytes,
    pub(crate) counts: Counts,
    /// One for each line.
    pub(crate) facts: Arc<[Fact]>,
}

/// What is known of a line besides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fact {
    /// When the kernel saw the event, `CLOCK_BOOTTIME` in nanoseconds.
    pub(crate) time: u64,
    /// The same by the wall clock, in nanoseconds since 1970: the line's own time.
    pub(crate) wall: u64,
    pub(crate) ring: u8,
    pub(crate) action: u8,
    /// Its `event.outcome` is `failure`.
    pub(crate) is_failure: bool,
}

/// One line of a [`Batch`].
#[derive(Debug, Clone, Copy)]
struct BatchLine<'a> {
    /// With its `\n`.
    bytes: &'a [u8],
    /// Where in the batch it ends.
    end: usize,
    fact: Fact,
}

/// Told the facts of each batch that the first output has written.
pub(crate) type Observer = Arc<dyn Fn(&[Fact]) + Send + Sync>;

/// What became of an output's lines. Every line that was sent is in `events` or in `dropped` once
/// the output is closed; before that, what is in neither is in its queue.
#[derive(Debug, Default)]
pub(crate) struct OutputStats {
    /// Lines written.
    pub(crate) events: AtomicU64,
    /// Lines lost: the queue was full, or the output was gone.
    pub(crate) dropped: AtomicU64,
    /// Bytes of the lines written.
    pub(crate) bytes: AtomicU64,
    pub(crate) dropped_by_action: [AtomicU64; ACTIONS],
    /// It cannot write at the moment.
    pub(crate) failed: AtomicBool,
    /// Files that were full or old enough, and got another name.
    pub(crate) rotations: AtomicU64,
    /// Rotated files that were deleted to stay below the limit.
    pub(crate) deleted: AtomicU64,
    /// Connections after the first.
    pub(crate) reconnects: AtomicU64,
}

/// The encodings that outputs want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encodings {
    pub(crate) json: bool,
    pub(crate) pretty: bool,
}

/// An output that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("output {output}: {error}")]
pub(crate) struct OpenError {
    output: OutputSpec,
    error: io::Error,
}

/// Outputs that can be written to, before anything is attached.
pub(crate) struct Opened(Vec<OpenOutput>);

struct OpenOutput {
    name: Arc<str>,
    pretty: bool,
    stats: Arc<OutputStats>,
    target: Box<dyn Target>,
}

/// Outputs that run.
pub(crate) struct Fanout {
    outputs: Vec<Output>,
    tasks: TaskTracker,
    /// No more lines will come.
    closing: CancellationToken,
    /// What is still queued is lost.
    give_up: CancellationToken,
}

struct Output {
    name: Arc<str>,
    pretty: bool,
    queue: Queue,
    stats: Arc<OutputStats>,
    reopen: Arc<Notify>,
}

/// Has all outputs opened again.
#[derive(Debug, Clone)]
pub(crate) struct Reopener(Vec<Arc<Notify>>);

impl Fanout {
    /// Opens what `output.to` names, as the rest of `output` says.
    pub(crate) fn open(output: &config::Output, host: &HostRoot) -> Result<Opened, OpenError> {
        let mut outputs: Vec<OpenOutput> = Vec::new();
        for spec in &output.to {
            let stats = Arc::new(OutputStats::default());
            let opened = open_target(spec, output, host, &stats);
            let target = opened.map_err(|error| OpenError { output: spec.clone(), error })?;
            let Some((kind, target)) = target else { continue };
            // `file`, `file_2`: short names that say which one, in the order of the configuration.
            let same = outputs.iter().filter(|other| other.name.split('_').next() == Some(kind)).count();
            let name = if same == 0 { kind.into() } else { format!("{kind}_{}", same + 1).into() };
            let pretty = *spec == OutputSpec::Stdout && stdout::is_pretty(output.style);
            outputs.push(OpenOutput { name, pretty, stats, target });
        }
        Ok(Opened(outputs))
    }

    /// Gives each output its batch; never waits. Without a pretty batch, all get `json`.
    pub(crate) fn send(&self, json: &Batch, pretty: Option<&Batch>) {
        for output in &self.outputs {
            output.queue.offer(pretty.filter(|_| output.pretty).unwrap_or(json));
        }
    }

    /// The outputs by the name that metrics give them.
    pub(crate) fn stats(&self) -> Vec<(Arc<str>, Arc<OutputStats>)> {
        self.outputs.iter().map(|output| (output.name.clone(), output.stats.clone())).collect()
    }

    /// For SIGHUP: a log rotation that moved files away, a peer whose address has changed.
    pub(crate) fn reopener(&self) -> Reopener {
        Reopener(self.outputs.iter().map(|output| output.reopen.clone()).collect())
    }

    /// Writes what is queued. What cannot be written until the deadline is dropped, and counted.
    pub(crate) async fn close(self, deadline: Duration) {
        let Self { outputs, tasks, closing, give_up } = self;
        drop(outputs);
        closing.cancel();
        tasks.close();
        if timeout(deadline, tasks.wait()).await.is_err() {
            give_up.cancel();
            tasks.wait().await;
        }
    }
}

impl Opened {
    /// What [`Fanout::send`] will want: no output, no encoding.
    pub(crate) fn encodings(&self) -> Encodings {
        let Self(outputs) = self;
        Encodings {
            json: outputs.iter().any(|output| !output.pretty),
            pretty: outputs.iter().any(|output| output.pretty),
        }
    }

    /// `queue_bytes` bounds each queue. Needs a tokio runtime.
    pub(crate) fn start(self, queue_bytes: usize, observer: &Observer) -> io::Result<Fanout> {
        let Self(opened) = self;
        let (closing, give_up) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let mut outputs: Vec<Output> = Vec::new();
        for OpenOutput { name, pretty, stats, target } in opened {
            let (queue, queued) = queue::bounded(queue_bytes, stats.clone());
            let observer = outputs.is_empty().then(|| observer.clone());
            let reopen = Arc::new(Notify::new());
            let stop = Stop { closing: closing.clone(), give_up: give_up.clone(), reopen: reopen.clone() };
            tasks.spawn(Writer::start(name.clone(), target, queued, stop, observer)?.run());
            outputs.push(Output { name, pretty, queue, stats, reopen });
        }
        Ok(Fanout { outputs, tasks, closing, give_up })
    }
}

impl Reopener {
    /// Returns at once: each output does it when it has come that far.
    pub(crate) fn reopen(&self) {
        for reopen in &self.0 {
            reopen.notify_one();
        }
    }
}

/// What `spec` stands for, with its kind as metrics name it; nothing for no output.
fn open_target(
    spec: &OutputSpec,
    output: &config::Output,
    host: &HostRoot,
    stats: &Arc<OutputStats>,
) -> io::Result<Option<(&'static str, Box<dyn Target>)>> {
    let remote = |peer, frame| remote::Remote::new(peer, frame, stats.clone());
    let syslog =
        || frame::Header::new(output.syslog.format, output.syslog.facility, host.hostname().as_deref());
    Ok(match spec {
        OutputSpec::None => None,
        OutputSpec::Stdout => Some(("stdout", Box::new(stdout::Stdout::open()?))),
        OutputSpec::File(path) => {
            let settings = file::Settings::new(&output.file, host)?;
            Some(("file", Box::new(file::Appender::open(path, settings, stats.clone())?)))
        }
        OutputSpec::Journald(path) => {
            let path = path.clone().unwrap_or_else(|| host.join("/run/systemd/journal/socket"));
            Some(("journald", Box::new(remote(config::Peer::Unix(path), Frame::Journal)?)))
        }
        OutputSpec::Syslog(peer) => {
            Some(("syslog", Box::new(remote(peer.clone(), Frame::Syslog(syslog()))?)))
        }
        OutputSpec::Ndjson(peer) => Some(("ndjson", Box::new(remote(peer.clone(), Frame::Ndjson)?))),
    })
}

impl Batch {
    /// The lines from the one on that holds byte `from`.
    fn lines_from(&self, from: usize) -> impl Iterator<Item = BatchLine<'_>> {
        let start = line_start(&self.bytes, from);
        let before = self.bytes.get(..start).unwrap_or_default();
        let index = before.split(|byte| *byte == b'\n').count() - 1;
        let facts = self.facts.get(index..).unwrap_or_default();
        let lines = self.bytes.get(start..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
        lines.zip(facts).scan(start, |end, (bytes, fact)| {
            *end += bytes.len();
            Some(BatchLine { bytes, end: *end, fact: *fact })
        })
    }
}

/// Where the line that holds the byte before `upto`, or ends there, begins; `upto` if it ends there.
fn line_start(bytes: &[u8], upto: usize) -> usize {
    let before = bytes.get(..upto).unwrap_or(bytes);
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

impl Counts {
    /// One more event of this action.
    pub(crate) fn add(&mut self, action: usize) {
        debug_assert!(action < ACTIONS, "raise ACTIONS");
        if let Some(count) = self.0.get_mut(action) {
            *count += 1;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }
}

impl OutputStats {
    fn written(&self, lines: u64, bytes: usize) {
        self.events.fetch_add(lines, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn lost(&self, counts: &Counts) {
        self.dropped.fetch_add(counts.total(), Relaxed);
        for (dropped, count) in self.dropped_by_action.iter().zip(counts.0) {
            if count > 0 {
                dropped.fetch_add(count.into(), Relaxed);
            }
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|output| &output.name)).finish()
    }
}

impl fmt::Debug for Fanout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.stats()).finish()
    }
}
