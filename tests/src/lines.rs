//! The lines that an agent wrote to its file.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use serde_json::Value;

/// Reads on where it stopped.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    read: u64,
    /// A line that has no end yet.
    begun: Vec<u8>,
    events: Vec<Value>,
}

impl Lines {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, read: 0, begun: Vec::new(), events: Vec::new() }
    }

    /// All events so far. Every line must be JSON: an argument that breaks one shows here.
    pub(crate) fn events(&mut self) -> &[Value] {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return &self.events,
            file => file.expect("the agent's lines"),
        };
        file.seek(SeekFrom::Start(self.read)).expect("the agent's lines");
        let start = self.begun.len();
        file.read_to_end(&mut self.begun).expect("the agent's lines");
        self.read += (self.begun.len() - start) as u64;
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        for line in self.begun.drain(..whole).collect::<Vec<_>>().split_inclusive(|byte| *byte == b'\n') {
            let event = serde_json::from_slice(line)
                .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(line)));
            self.events.push(event);
        }
        &self.events
    }

    /// Events so far are not given any more.
    pub(crate) fn forget(&mut self) {
        self.events();
        self.events.clear();
    }
}
