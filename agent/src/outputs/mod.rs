//! The outputs: each is one task with a queue of its own, and the pipeline waits for none.
//!
//! An output that is slower than the events loses lines when its queue is full. They are counted,
//! and no other output notices.

mod file;
mod queue;
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
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{OutputSpec, Style};
use queue::Queue;
use writer::{Target, Writer};

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
    /// The ring of each event and when the kernel saw it, `CLOCK_BOOTTIME` in nanoseconds.
    pub(crate) times: Arc<[(u8, u64)]>,
}

/// Told the `times` of each batch that the first output has written.
pub(crate) type Observer = Arc<dyn Fn(&[(u8, u64)]) + Send + Sync>;

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
}

impl Fanout {
    /// Opens what `specs` name. `style` is that of stdout.
    pub(crate) fn open(specs: &[OutputSpec], style: Style) -> Result<Opened, OpenError> {
        let mut files = 0;
        let mut outputs = Vec::new();
        for spec in specs {
            let fail = |error| OpenError { output: spec.clone(), error };
            match spec {
                OutputSpec::None => {}
                OutputSpec::Stdout => outputs.push(OpenOutput {
                    name: "stdout".into(),
                    pretty: stdout::is_pretty(style),
                    target: Box::new(stdout::Stdout::open().map_err(fail)?),
                }),
                OutputSpec::File(path) => {
                    files += 1;
                    let name = if files == 1 { "file".into() } else { format!("file_{files}").into() };
                    let target = Box::new(file::Appender::open(path).map_err(fail)?);
                    outputs.push(OpenOutput { name, pretty: false, target });
                }
            }
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
        for OpenOutput { name, pretty, target } in opened {
            let stats = Arc::new(OutputStats::default());
            let (queue, queued) = queue::bounded(queue_bytes, stats.clone());
            let observer = outputs.is_empty().then(|| observer.clone());
            let stop = (closing.clone(), give_up.clone());
            tasks.spawn(Writer::start(name.clone(), target, queued, stop, observer)?.run());
            outputs.push(Output { name, pretty, queue, stats });
        }
        Ok(Fanout { outputs, tasks, closing, give_up })
    }
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
    fn written(&self, batch: &Batch) {
        self.events.fetch_add(batch.counts.total(), Relaxed);
        self.bytes.fetch_add(batch.bytes.len() as u64, Relaxed);
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
