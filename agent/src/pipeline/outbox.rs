//! Lines on their way to the outputs: encoded once, sent a batch at a time.

use std::sync::Arc;

use bytes::BytesMut;
use tellwire_ebpf::wire::Ring;

use super::Selection;
use crate::{
    books::Books,
    events::action::Action,
    lines::{self, Line, pretty},
    outputs::{Batch, Counts, Encodings, Fact, Fanout, Swap},
};

/// A batch is sent when it has so many bytes, or at the end of a cycle.
const BATCH_BYTES: usize = 128 * 1024;

/// A line is seldom longer; one that is makes the buffer grow by itself.
const LINE_BYTES: usize = 4 * 1024;

/// Several batches, so that the buffer's end is seldom met while they are on their way.
const BUFFER_BYTES: usize = 4 * BATCH_BYTES;

/// Encodes lines and hands them to the outputs.
#[derive(Debug)]
pub(crate) struct Outbox {
    fanout: Fanout,
    encodings: Encodings,
    pub(crate) selection: Selection,
    json: BytesMut,
    pretty: BytesMut,
    counts: Counts,
    facts: Vec<Fact>,
}

impl Outbox {
    pub(crate) fn new(fanout: Fanout, selection: Selection) -> Self {
        let encodings = fanout.encodings();
        Self {
            fanout,
            encodings,
            selection,
            json: BytesMut::new(),
            pretty: BytesMut::new(),
            counts: Counts::default(),
            facts: Vec::new(),
        }
    }

    /// Chooses other actions, and other outputs, from here on.
    pub(crate) fn change(&mut self, selection: Selection, swap: Option<Swap>) {
        self.selection = selection;
        if let Some(swap) = swap {
            self.flush();
            self.fanout.swap(swap);
            self.encodings = self.fanout.encodings();
        }
    }

    /// Whether the action makes a line; if not, that is counted.
    pub(crate) fn wants(&self, action: Action, books: &Books) -> bool {
        let left_out = self.selection.left_out(action);
        if let Some(why) = left_out {
            books.leave_out(action, why);
        }
        left_out.is_none()
    }

    /// Encodes a line. `ring` and `times` say where the event came from, and when by the kernel's clock and by the
    /// wall clock.
    pub(crate) fn put(
        &mut self,
        action: Action,
        line: &Line<'_>,
        ring: Ring,
        times: (u64, u64),
        books: &Books,
    ) {
        make_room(&mut self.json);
        if self.encodings.json
            && let Err(error) = lines::write(line, &mut self.json)
        {
            // No line of ours can fail to be JSON; if one does, it is counted and said.
            tracing::error!(%error, action = action.name(), "line not encoded");
            return Books::add(&books.encode_errors, action as usize);
        }
        if self.encodings.pretty {
            make_room(&mut self.pretty);
            pretty::write(line, &mut self.pretty);
        }
        Books::add(&books.lines, action as usize);
        self.counts.add(action as usize);
        let is_failure = line.event.outcome == Some("failure");
        let (time, wall) = times;
        self.facts.push(Fact { time, wall, ring: ring as u8, action: action as u8, is_failure });
        if self.json.len() + self.pretty.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Sends what is there.
    pub(crate) fn flush(&mut self) {
        if self.facts.is_empty() {
            return;
        }
        let facts: Arc<[Fact]> = std::mem::take(&mut self.facts).into();
        let counts = std::mem::take(&mut self.counts);
        let batch =
            |bytes: &mut BytesMut| Batch { bytes: bytes.split().freeze(), counts, facts: Arc::clone(&facts) };
        let json = batch(&mut self.json);
        let pretty = self.encodings.pretty.then(|| batch(&mut self.pretty));
        self.fanout.send(&json, pretty.as_ref());
    }

    /// Encodes for outputs that are not there.
    #[cfg(test)]
    pub(super) fn encode(&mut self, encodings: Encodings) {
        self.encodings = encodings;
    }

    /// The lines that were not sent yet.
    #[cfg(test)]
    pub(super) fn pending(&self) -> &[u8] {
        &self.json
    }

    pub(crate) fn into_fanout(self) -> Fanout {
        self.fanout
    }
}

/// Sees to it that there is room for a line. Batches are split off the front of one buffer, which is used again
/// from its start once every output has let them go: asking for memory each time would have the kernel clear it.
fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() < LINE_BYTES {
        buffer.reserve(BUFFER_BYTES);
    }
}
