//! Lines on their way to the outputs: encoded once, sent a batch at a time.

use std::sync::Arc;

use bytes::Bytes;
use tellwire_ebpf::wire::Ring;

use crate::{
    books::Books,
    events::action::Action,
    lines::{self, Line, pretty},
    outputs::{Batch, Counts, Encodings, Fanout},
};

/// A batch is sent when it has so many bytes, or at the end of a cycle.
const BATCH_BYTES: usize = 64 * 1024;

/// Encodes lines and hands them to the outputs.
#[derive(Debug)]
pub(crate) struct Outbox {
    fanout: Fanout,
    encodings: Encodings,
    /// By action: whether it makes a line.
    wanted: [bool; Action::COUNT],
    json: Vec<u8>,
    pretty: Vec<u8>,
    counts: Counts,
    times: Vec<(u8, u64)>,
}

impl Outbox {
    pub(crate) fn new(fanout: Fanout, encodings: Encodings, wanted: [bool; Action::COUNT]) -> Self {
        Self {
            fanout,
            encodings,
            wanted,
            json: Vec::new(),
            pretty: Vec::new(),
            counts: Counts::default(),
            times: Vec::new(),
        }
    }

    /// Whether the action makes a line; if not, that is counted.
    pub(crate) fn wants(&self, action: Action, books: &Books) -> bool {
        let wanted = self.wanted.get(action as usize).copied().unwrap_or(true);
        if !wanted {
            Books::add(&books.left_out, action as usize);
        }
        wanted
    }

    /// Encodes a line. `ring` and `time` say where the event came from, for the delivery histogram.
    pub(crate) fn put(&mut self, action: Action, line: &Line<'_>, ring: Ring, time: u64, books: &Books) {
        if self.encodings.json
            && let Err(error) = lines::write(line, &mut self.json)
        {
            // No line of ours can fail to be JSON; if one does, it is counted and said.
            tracing::error!(%error, action = action.name(), "line not encoded");
            return Books::add(&books.encode_errors, action as usize);
        }
        if self.encodings.pretty {
            pretty::write(line, &mut self.pretty);
        }
        Books::add(&books.lines, action as usize);
        self.counts.add(action as usize);
        self.times.push((ring as u8, time));
        if self.json.len() + self.pretty.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Sends what is there.
    pub(crate) fn flush(&mut self) {
        if self.times.is_empty() {
            return;
        }
        let times: Arc<[(u8, u64)]> = std::mem::take(&mut self.times).into();
        let counts = std::mem::take(&mut self.counts);
        let batch = |bytes: &mut Vec<u8>| {
            let bytes = Bytes::copy_from_slice(bytes);
            Batch { bytes, counts, times: Arc::clone(&times) }
        };
        let json = batch(&mut self.json);
        let pretty = self.encodings.pretty.then(|| batch(&mut self.pretty));
        self.json.clear();
        self.pretty.clear();
        self.fanout.send(&json, pretty.as_ref());
    }

    pub(crate) fn into_fanout(self) -> Fanout {
        self.fanout
    }
}
