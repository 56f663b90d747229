//! What `tellwire events` prints: the actions, and the JSON Schema of a line.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;

use crate::{events::action::Action, lines::Line};

/// Every action with its meaning, one a line.
pub(crate) fn actions() -> String {
    let mut text = String::new();
    for action in Action::ALL {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{:<22}{:<22}{}", action.name(), action.dataset(), action.about());
    }
    text
}

/// The JSON Schema of a line, generated from the structs.
pub(crate) fn json_schema() -> String {
    // What is skipped when it is empty is not required: the contract of writing, not of reading.
    let schema =
        SchemaSettings::default().for_serialize().into_generator().into_root_schema_for::<Line<'_>>();
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}
