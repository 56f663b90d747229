//! The life of a process: exec with what it says, exec that fails, exit.

#![expect(clippy::expect_used, clippy::panic, reason = "tests panic, they do not return errors")]

mod args;
mod exec;
mod exit;
mod failed;
mod images;
mod many;
mod paths;
mod set_id;
mod threads;

use std::path::PathBuf;

use serde_json::Value;
use tellwire_tests::{Agent, at, program::Program};

/// A folder of the shared agent with a program in it that ends well.
fn folder_with_program(name: &str) -> (PathBuf, PathBuf) {
    let folder = Agent::shared().subfolder(name);
    let program = folder.join("program");
    Program::Exit(0).write(&program);
    (folder, program)
}

/// The text at a path of an event that must have it.
fn text<'a>(event: &'a Value, path: &str) -> &'a str {
    at(event, path).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {path} in {event}"))
}

/// The number at a path of an event that must have it.
fn number(event: &Value, path: &str) -> u64 {
    at(event, path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {path} in {event}"))
}
