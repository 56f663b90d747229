//! Values out of a closed set, and values that are words: read the same from the command line,
//! the environment and the file.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::str::FromStr;

use clap::ValueEnum;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::values::{Raw, read, schema};

/// Declares closed sets of words: the enum, its names, and how clap lists them.
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        pub(crate) enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub(crate) enum $name { $($(#[$variant_meta])* #[value(name = $text)] $variant,)* }

        impl $name {
            /// The name that users write.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.name())
            }
        }

        impl Word for $name {
            fn accepts() -> String {
                either(&[$($text),*])
            }

            fn read(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }

            fn rules() -> Value {
                json!({ "enum": [$($text),*] })
            }
        }

        word!($name);
    )*};
}

/// A value that is one word, in the file as on the command line.
pub(super) trait Word: Sized {
    /// What to write: the end of the sentence "write …".
    fn accepts() -> String;

    fn read(text: &str) -> Option<Self>;

    /// What JSON Schema can say of it.
    fn rules() -> Value {
        json!({ "type": "string" })
    }
}

/// Text of the file or of the command line as a [`Word`].
macro_rules! word {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer, Self::accepts(), |raw| match raw {
                    Raw::Text(text) => <Self as Word>::read(text),
                    Raw::Number(_) => None,
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schema(&Self::accepts(), <Self as Word>::rules())
            }
        }
    };
}

fn either(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("\"{only}\""),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|name| format!("\"{name}\"")).collect();
            format!("{} or \"{last}\"", first.join(", "))
        }
    }
}

choices! {
    /// How much makes a line.
    pub(crate) enum Profile {
        /// What an investigation needs; connects that repeat are folded.
        Default = "default",
        /// Every event.
        Full = "full",
    }

    /// The schema of the lines.
    pub(crate) enum Format {
        /// Elastic Common Schema.
        Ecs = "ecs",
        /// Open Cybersecurity Schema Framework.
        Ocsf = "ocsf",
    }

    /// How events are written to stdout.
    pub(crate) enum Style {
        /// Readable on a terminal, else JSON.
        Auto = "auto",
        /// One readable line for each event.
        Pretty = "pretty",
        /// One JSON object a line.
        Json = "json",
    }

    /// How much the agent says about itself.
    pub(crate) enum LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }

    /// How a syslog message begins.
    pub(crate) enum SyslogFormat {
        /// RFC 5424.
        Rfc5424 = "rfc5424",
        /// What syslog(3) writes, for daemons that listen on this host only.
        Local = "local",
    }

    /// What a rule does with an event.
    pub(crate) enum Effect {
        /// It makes no line.
        Drop = "drop",
        /// It makes its line, whatever later rules say.
        Keep = "keep",
        /// One of so many makes a line.
        Sample = "sample",
        /// The line gets tags, and later rules are asked.
        Tag = "tag",
    }

    /// What is told of names that are no users.
    pub(crate) enum UnknownUserNames {
        /// Nothing but that there was one.
        Withhold = "withhold",
        /// The name.
        Show = "show",
    }

    /// `event.outcome`.
    pub(crate) enum RuleOutcome {
        Success = "success",
        Failure = "failure",
        Unknown = "unknown",
    }

    /// How much the kernel programs say about themselves.
    pub(crate) enum KernelLog {
        Off = "off",
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

/// A label of every line: `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Word for Label {
    fn accepts() -> String {
        "a key of letters, digits, `_` and `-`, and its value, such as \"team=payments\"".into()
    }

    fn read(text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        // ECS keeps dots for nesting.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (!key.is_empty() && key.chars().all(is_plain))
            .then(|| Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.key, self.value)
    }
}

word!(Label);

/// Where metrics and health are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    On(SocketAddr),
    None,
}

impl Word for Listen {
    fn accepts() -> String {
        "an address with its port, such as \"127.0.0.1:9477\" or \"[::]:9477\", or \"none\"".into()
    }

    fn read(text: &str) -> Option<Self> {
        if text == "none" { Some(Self::None) } else { text.parse().ok().map(Self::On) }
    }
}

impl Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(address) => address.fmt(formatter),
            Self::None => formatter.write_str("none"),
        }
    }
}

word!(Listen);

/// For clap, which says the value itself.
macro_rules! argument {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                <Self as Word>::read(text).ok_or_else(|| format!("write {}", Self::accepts()))
            }
        }
    };
}

argument!(Label);
argument!(Listen);

pub(super) use {argument, word};

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::{KernelLog, Label, Listen, Profile, Word as _};

    #[test]
    fn a_label_is_a_key_and_a_value() {
        for text in ["team=payments", "a-b_1=", "x==y"] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        for text in ["", "team", "=x", "a.b=x", "a b=x"] {
            assert!(text.parse::<Label>().unwrap_err().contains("team=payments"), "{text}");
        }
    }

    #[test]
    fn listening_needs_an_address_and_a_port() {
        for text in ["127.0.0.1:9477", "[::1]:9477", "0.0.0.0:80", "none"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["", "9477", ":9477", "127.0.0.1", "::1:9477", "127.0.0.1:65536"] {
            assert!(text.parse::<Listen>().unwrap_err().contains("127.0.0.1:9477"), "{text}");
        }
    }

    #[test]
    fn choices_have_one_name_in_the_file_and_on_the_command_line() {
        for choice in KernelLog::value_variants() {
            assert_eq!(choice.to_possible_value().unwrap().get_name(), choice.name());
            assert_eq!(KernelLog::read(choice.name()), Some(*choice));
        }
        assert_eq!(Profile::accepts(), "\"default\" or \"full\"");
    }
}
