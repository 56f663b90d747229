//! The outputs: each is one task with a queue of its own, and the pipeline waits for none.
//!
//! An output that is slower than the events loses lines when its queue is full. They are counted,
//! and no other output notices.

mod archive;
mod file;
mod frame;
mod queue;
mod registry;
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
use memchr::{memchr_iter, memrchr};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::books::ByAction;
use crate::config::{self, OutputSpec};
use crate::host::HostRoot;
use frame::Frame;
use queue::Queue;
pub(crate) use registry::Registry;
use writer::{Stop, Target, Writer};

/// Room for the actions of all events; an action's number is its index.
pub(crate) const ACTIONS: usize = 64;

/// Events by action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) [u32; ACTIONS]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; ACTIONS])
    }
}

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
    pub(crate) dropped_by_action: ByAction,
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
pub(crate) struct Opened {
    outputs: Vec<OpenOutput>,
    registry: Registry,
}

struct OpenOutput {
    name: Arc<str>,
    spec: OutputSpec,
    pretty: bool,
    stats: Arc<OutputStats>,
    target: Box<dyn Target>,
}

/// Outputs that run.
pub(crate) struct Fanout {
    outputs: Vec<Output>,
    crews: Vec<Crew>,
    registry: Registry,
}

/// The tasks of outputs that were started together.
struct Crew {
    tasks: TaskTracker,
    /// What is still queued is lost.
    give_up: CancellationToken,
}

struct Output {
    name: Arc<str>,
    spec: OutputSpec,
    pretty: bool,
    queue: Queue,
    /// No more lines will come.
    closing: CancellationToken,
    /// The times of its writes are those that are observed.
    is_first: Arc<AtomicBool>,
}

/// Outputs that take the place of others.
#[derive(Debug)]
pub(crate) struct Swap {
    pub(crate) removed: Vec<OutputSpec>,
    pub(crate) added: Fanout,
}

impl Fanout {
    /// Opens what `output.to` names, as the rest of `output` says.
    pub(crate) fn open(output: &config::Output, host: &HostRoot) -> Result<Opened, OpenError> {
        Opened::new(&output.to, output, host, Registry::default())
    }

    /// Gives each output its batch; never waits. Without a pretty batch, all get `json`.
    pub(crate) fn send(&self, json: &Batch, pretty: Option<&Batch>) {
        for output in &self.outputs {
            output.queue.offer(pretty.filter(|_| output.pretty).unwrap_or(json));
        }
    }

    /// The outputs by the name that metrics give them.
    pub(crate) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// What [`Self::send`] wants: no output, no encoding.
    pub(crate) fn encodings(&self) -> Encodings {
        Encodings {
            json: self.outputs.iter().any(|output| !output.pretty),
            pretty: self.outputs.iter().any(|output| output.pretty),
        }
    }

    /// Takes outputs in and others out. Those write what they have, and nobody waits for them.
    pub(crate) fn swap(&mut self, swap: Swap) {
        let Swap { removed, added: Self { outputs, crews, registry: _ } } = swap;
        self.outputs.retain(|output| {
            let stays = !removed.contains(&output.spec);
            if !stays {
                output.closing.cancel();
                self.registry.closed(&output.name);
            }
            stays
        });
        self.outputs.extend(outputs);
        // Those that have written all are through.
        self.crews.retain(|crew| !crew.tasks.is_empty());
        self.crews.extend(crews);
        for (number, output) in self.outputs.iter().enumerate() {
            output.is_first.store(number == 0, Relaxed);
        }
    }

    /// Writes what is queued. What cannot be written until the deadline is dropped, and counted.
    pub(crate) async fn close(self, deadline: Duration) {
        let Self { outputs, crews, registry: _ } = self;
        for output in outputs {
            output.closing.cancel();
        }
        let deadline = Instant::now() + deadline;
        for Crew { tasks, give_up } in crews {
            tasks.close();
            if timeout_at(deadline, tasks.wait()).await.is_err() {
                give_up.cancel();
                tasks.wait().await;
            }
        }
    }
}

impl Opened {
    /// Opens `to`, as the rest of `output` says. They get names that are free in the registry.
    pub(crate) fn new(
        to: &[OutputSpec],
        output: &config::Output,
        host: &HostRoot,
        registry: Registry,
    ) -> Result<Self, OpenError> {
        let mut outputs: Vec<OpenOutput> = Vec::new();
        for spec in to {
            let Some(kind) = spec.kind() else { continue };
            let taken: Vec<_> = outputs.iter().map(|output| Arc::clone(&output.name)).collect();
            let (name, stats) = registry.free_name(kind, &taken);
            let opened = open_target(spec, output, host, &stats);
            let target = opened.map_err(|error| OpenError { output: spec.clone(), error })?;
            let Some(target) = target else { continue };
            let pretty = *spec == OutputSpec::Stdout && stdout::is_pretty(output.style);
            outputs.push(OpenOutput { name, spec: spec.clone(), pretty, stats, target });
        }
        Ok(Self { outputs, registry })
    }

    /// `queue_bytes` bounds each queue. Needs a tokio runtime.
    pub(crate) fn start(self, queue_bytes: usize, observer: &Observer) -> io::Result<Fanout> {
        let Self { outputs: opened, registry } = self;
        let crew = Crew { tasks: TaskTracker::new(), give_up: CancellationToken::new() };
        let mut outputs: Vec<Output> = Vec::new();
        for OpenOutput { name, spec, pretty, stats, target } in opened {
            let (queue, queued) = queue::bounded(queue_bytes, stats.clone());
            let is_first = Arc::new(AtomicBool::new(outputs.is_empty()));
            let observer = if_first(&is_first, observer);
            let (closing, reopen) = (CancellationToken::new(), Arc::new(Notify::new()));
            let stop =
                Stop { closing: closing.clone(), give_up: crew.give_up.clone(), reopen: reopen.clone() };
            crew.tasks.spawn(Writer::start(name.clone(), target, queued, stop, Some(observer))?.run());
            registry.opened(&name, &stats, &reopen);
            outputs.push(Output { name, spec, pretty, queue, closing, is_first });
        }
        Ok(Fanout { outputs, crews: vec![crew], registry })
    }
}

/// Observes as long as the output is the first.
fn if_first(is_first: &Arc<AtomicBool>, observer: &Observer) -> Observer {
    let (is_first, observer) = (is_first.clone(), observer.clone());
    Arc::new(move |facts| {
        if is_first.load(Relaxed) {
            observer(facts);
        }
    })
}

/// What `spec` stands for; nothing for no output.
fn open_target(
    spec: &OutputSpec,
    output: &config::Output,
    host: &HostRoot,
    stats: &Arc<OutputStats>,
) -> io::Result<Option<Box<dyn Target>>> {
    let remote = |peer, frame| remote::Remote::new(peer, frame, stats.clone());
    let syslog =
        || frame::Header::new(output.syslog.format, output.syslog.facility, host.hostname().as_deref());
    Ok(match spec {
        OutputSpec::None => None,
        OutputSpec::Stdout => Some(Box::new(stdout::Stdout::open()?)),
        OutputSpec::File(path) => {
            let settings = file::Settings::new(&output.file, host)?;
            Some(Box::new(file::Appender::open(path, settings, stats.clone())?))
        }
        OutputSpec::Journald(path) => {
            let path = path.clone().unwrap_or_else(|| host.join("/run/systemd/journal/socket"));
            Some(Box::new(remote(config::Peer::Unix(path), Frame::Journal)?))
        }
        OutputSpec::Syslog(peer) => Some(Box::new(remote(peer.clone(), Frame::Syslog(syslog()))?)),
        OutputSpec::Ndjson(peer) => Some(Box::new(remote(peer.clone(), Frame::Ndjson)?)),
    })
}

impl Batch {
    /// The lines from the one on that holds byte `from`.
    fn lines_from(&self, from: usize) -> impl Iterator<Item = BatchLine<'_>> {
        let start = line_start(&self.bytes, from);
        let before = self.bytes.get(..start).unwrap_or_default();
        let facts = self.facts.get(memchr_iter(b'\n', before).count()..).unwrap_or_default();
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
    memrchr(b'\n', before).map_or(0, |newline| newline + 1)
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
        formatter.debug_list().entries(self.outputs.iter().map(|output| &output.name)).finish()
    }
}

impl fmt::Debug for Fanout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.outputs.iter().map(|output| &output.name)).finish()
    }
}
