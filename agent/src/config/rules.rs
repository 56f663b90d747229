//! Rules, as they stand in the file. What they mean, and whether they make sense, is told by [`crate::rules`].

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv6Addr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use super::choices::{Effect, RuleOutcome, Word, word};
use super::values::{Count, Raw, read, schema};

/// Rules choose which events make lines, and mark them. The first rule that matches and drops, keeps or samples
/// decides; "tag" marks the line and goes on. An event that no rule decides makes its line. All conditions of a rule
/// must hold, and a list holds if one of its elements does. Metrics count every event, whatever the rules say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Rule {
    /// What it is called, in metrics and in reports. No two rules have one name.
    pub(crate) name: String,
    /// What becomes of an event that matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effect: Option<Effect>,
    /// Event types; `tellwire events` lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actions: Option<Vec<String>>,
    /// Globs of the file that runs, as `process.executable` has it: `*` stays within a directory, `**` does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) executables: Option<Vec<String>>,
    /// Regular expressions that are looked for in the command line of an exec: its arguments, with a space between
    /// each two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args: Option<Vec<String>>,
    /// Effective users, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) users: Option<Vec<UserSpec>>,
    /// Containers, by id or by its first 12 digits or more. What else stands here is a name: the one that the
    /// runtime gives the container, or for runtimes whose ids are names the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) containers: Option<Vec<String>>,
    /// Globs of Kubernetes namespaces. They match once the runtime has told them: see `containers.names`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespaces: Option<Vec<String>>,
    /// Globs of container images, as the runtime tells them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) images: Option<Vec<String>>,
    /// Where a connect goes: networks, or addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destinations: Option<Vec<Network>>,
    /// Ports that a connect goes to: numbers, or ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ports: Option<Vec<Ports>>,
    /// What `event.outcome` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcomes: Option<Vec<RuleOutcome>>,
    /// For "sample": one line for so many events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) one_in: Option<Count<2, 1_000_000>>,
    /// For "tag": what is added to the line's `tags`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Vec<String>>,
    /// Says that a rule that drops or samples means failed authentication, failed credential calls and
    /// `credentials_changed` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) even_authentication_failures: Option<bool>,
}

/// What stands in the default configuration, as a comment.
pub(super) const EXAMPLE: &str = r#"[[rules]]
name = "health-checks"
effect = "sample"
one-in = 100
actions = ["exec"]
executables = ["/usr/bin/curl", "/opt/*/bin/probe"]
args = ["/healthz?$"]
"#;

/// A user, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserSpec {
    Id(u32),
    Name(String),
}

impl UserSpec {
    fn accepts() -> String {
        "a user's name or number, such as \"www-data\" or 33".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match *raw {
            // The last number stands for no user.
            Raw::Number(id) => u32::try_from(id).ok().filter(|id| *id != u32::MAX).map(Self::Id),
            Raw::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Id)
            }
            Raw::Text(text) => {
                let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != ':';
                text.chars().all(is_name).then(|| Self::Name(text.into()))
            }
        }
    }
}

impl Serialize for UserSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(id) => serializer.serialize_u32(*id),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

/// Ports from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Ports {
    fn accepts() -> String {
        "a port from 1 to 65535 or a range of them, such as 443 or \"8000-8999\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        let (first, last) = match *raw {
            Raw::Number(port) => (u16::try_from(port).ok()?, u16::try_from(port).ok()?),
            Raw::Text(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                (first.trim().parse().ok()?, last.trim().parse().ok()?)
            }
        };
        (first != 0 && first <= last).then_some(Self { first, last })
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.serialize_u16(self.first)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.first, self.last))
        }
    }
}

/// A number or text as one of the two above.
macro_rules! number_or_text {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer, Self::accepts(), |raw| Self::read(&raw))
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
                schema(&Self::accepts(), json!({ "type": ["integer", "string"] }))
            }
        }
    };
}

number_or_text!(UserSpec);
number_or_text!(Ports);

/// Addresses that begin with the same bits. IPv4 is v4-mapped IPv6, as on the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) address: u128,
    /// How many of the 128 bits are the prefix.
    pub(crate) bits: u8,
}

/// `::ffff:0:0/96`.
const MAPPED: u128 = 0xffff_0000_0000;

impl Network {
    /// What all of IPv4 is.
    pub(crate) const IPV4: Self = Self { address: MAPPED, bits: 96 };

    #[cfg(test)]
    pub(crate) fn contains(self, address: u128) -> bool {
        // An IPv6 network that happens to include the mapped addresses does not mean IPv4.
        self.is_ipv4() == Self::is_mapped(address) && masked(address, self.bits) == self.address
    }

    pub(crate) fn is_ipv4(self) -> bool {
        self.bits >= 96 && Self::is_mapped(self.address)
    }

    fn is_mapped(address: u128) -> bool {
        address >> 32 == MAPPED >> 32
    }
}

/// The first bits of an address, the others cleared.
pub(crate) fn masked(address: u128, bits: u8) -> u128 {
    if bits == 0 { 0 } else { address & u128::MAX << (128 - u32::from(bits.min(128))) }
}

impl Word for Network {
    fn accepts() -> String {
        "a network whose bits behind the prefix are 0, or an address, such as \"10.0.0.0/8\", \"2001:db8::/32\" or \
         \"192.0.2.1\""
            .into()
    }

    fn read(text: &str) -> Option<Self> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let is_number = |bits: &&str| bits.bytes().all(|byte| byte.is_ascii_digit());
        let (address, width) = match address.parse().ok()? {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 32),
            IpAddr::V6(address) => (address, 128),
        };
        let bits = match bits {
            Some(bits) => Some(bits).filter(is_number)?.parse().ok().filter(|bits| *bits <= width)?,
            None => width,
        };
        let network = Self { address: address.to_bits(), bits: bits + (128 - width) };
        (masked(network.address, network.bits) == network.address).then_some(network)
    }
}

impl Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.address);
        match address.to_ipv4_mapped().filter(|_| self.is_ipv4()) {
            Some(address) if self.bits == 128 => address.fmt(formatter),
            Some(address) => write!(formatter, "{address}/{}", self.bits - 96),
            None if self.bits == 128 => address.fmt(formatter),
            None => write!(formatter, "{address}/{}", self.bits),
        }
    }
}

word!(Network);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_as_they_are_read() {
        for text in ["10.0.0.0/8", "192.0.2.1", "0.0.0.0/0", "2001:db8::/32", "::1", "::/0"] {
            assert_eq!(Network::read(text).unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/+8", "10.0/8", "example.org", "::1/64"] {
            assert_eq!(Network::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_network_of_ipv4_holds_mapped_addresses_and_one_of_ipv6_does_not() {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().to_bits();
        let holds = |network, text| Network::read(network).unwrap().contains(address(text));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!holds("10.0.0.0/8", "::ffff:11.1.2.3"));
        assert!(holds("0.0.0.0/0", "::ffff:11.1.2.3"));
        assert!(!holds("::/0", "::ffff:11.1.2.3"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
    }

    #[test]
    fn ports_and_users_are_numbers_or_text() {
        assert_eq!(Ports::read(&Raw::Number(443)), Some(Ports { first: 443, last: 443 }));
        assert_eq!(Ports::read(&Raw::Text("8000-8999")), Some(Ports { first: 8000, last: 8999 }));
        for text in ["", "0", "-", "9-8", "65536", "0-5", "http"] {
            assert_eq!(Ports::read(&Raw::Text(text)), None, "{text}");
        }
        assert_eq!(UserSpec::read(&Raw::Text("33")), Some(UserSpec::Id(33)));
        assert_eq!(UserSpec::read(&Raw::Text("web")), Some(UserSpec::Name("web".into())));
        for raw in [Raw::Number(u64::from(u32::MAX)), Raw::Text(""), Raw::Text("a b")] {
            assert_eq!(UserSpec::read(&raw), None);
        }
    }

    fn error(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        let error = super::super::from_file(&path, &[]).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_where_it_stands() {
        let rule = |text: &str| format!("[[rules]]\nname = \"a\"\n{text}\n");
        for (text, said) in [
            ("[[rules]]\neffect = 'drop'".into(), "t.toml:1: a rule without a name: write name = "),
            ("[[rules]]\nname = 'a b'".into(), "t.toml:2: \"a b\" is no name of a rule: write name = "),
            (rule(""), "t.toml:1: rule a has no effect: write effect = \"drop\", \"keep\""),
            (
                rule("effect = 'dorp'"),
                "t.toml:3: rules[0].effect = 'dorp': write \"drop\", \"keep\", \"sample\" or",
            ),
            (
                rule("efect = 'drop'"),
                "t.toml:3: unknown key efect in [[rules]]: write effect (valid are name,",
            ),
            (
                rule("effect = 'keep'\nactions = []"),
                "t.toml:4: rule a: an empty list, which nothing matches: leave",
            ),
            (
                rule("effect = 'keep'\nactions = ['exec',\n'exce']"),
                "t.toml:5: rule a: unknown event type exce: write exec (valid",
            ),
            (
                rule("effect = 'keep'\none-in = 5"),
                "t.toml:4: rule a: one-in means nothing where effect is \"keep\": leave",
            ),
            (rule("effect = 'keep'\ntags = ['x']"), "t.toml:4: rule a: tags means nothing where effect is"),
            (
                rule("effect = 'sample'"),
                "t.toml:3: rule a does not say how many events make one line: write one-in",
            ),
            (
                rule("effect = 'sample'\none-in = 1"),
                "t.toml:4: rules[0].one-in = 1: write a whole number from 2",
            ),
            (rule("effect = 'tag'"), "t.toml:3: rule a has no tags to add: write tags"),
            (
                rule("effect = 'tag'\ntags = ['ok', 'a b']"),
                "t.toml:4: rule a: \"a b\" is no tag: write 1 to 64 bytes",
            ),
        ] {
            let found = error(&text);
            assert!(found.starts_with(said), "{text}\ngives {found}\nnot  {said}");
        }
    }

    #[test]
    fn a_condition_that_makes_no_sense_is_refused_where_it_stands() {
        let rule = |text: &str| format!("[[rules]]\nname = \"a\"\n{text}\n");
        for (text, said) in [
            (
                rule("effect = 'keep'\nargs = ['a(']"),
                "t.toml:4: \"a(\" is no regular expression (unclosed group): write",
            ),
            (
                rule("effect = 'keep'\nargs = ['(a{999}){999}']"),
                "t.toml:4: \"(a{999}){999}\" would take more than 1 MiB of memory",
            ),
            (
                rule("effect = 'keep'\nexecutables = ['/a[']"),
                "t.toml:4: \"/a[\" is no glob: write a glob, such as",
            ),
            (
                rule("effect = 'keep'\nexecutables = ['curl']"),
                "t.toml:4: no file has a path like \"curl\": write a path from the root, or \"**/curl\"",
            ),
            (
                rule("effect = 'keep'\ndestinations = ['10.0.0.1/8']"),
                "t.toml:4: rules[0].destinations[0] = '10.0.0.1/8': write a network whose",
            ),
            (
                rule("effect = 'keep'\nports = [0]"),
                "t.toml:4: rules[0].ports[0] = 0: write a port from 1 to 65535",
            ),
            (rule("effect = 'keep'\nports = ['9-8']"), "t.toml:4: rules[0].ports[0] = '9-8': write a port"),
            (
                rule("effect = 'keep'\nusers = [-1]"),
                "t.toml:4: rules[0].users[0] = -1: write a user's name or number",
            ),
            (
                rule("effect = 'keep'\noutcomes = ['ok']"),
                "t.toml:4: rules[0].outcomes[0] = 'ok': write \"success\", \"failure\" or",
            ),
            (rule("effect = 'keep'\ncontainers = ['']"), "t.toml:4: a container without a name: write an id"),
            (
                rule("effect = 'keep'\nargs = ['x']\nports = [1]"),
                "t.toml:1: no event can match all conditions of rule a: args are",
            ),
            (
                rule("effect = 'keep'\nactions = ['exec']\noutcomes = ['failure']"),
                "t.toml:1: no event can match all",
            ),
            (
                rule("effect = 'drop'\nusers = [1000]"),
                "t.toml:3: rule a would leave out authentication failures (setuid and 41 more): write actions",
            ),
            (
                rule("effect = 'drop'\nactions = ['credentials_changed']"),
                "t.toml:3: rule a would leave out authentication failures (credentials_changed): write",
            ),
            (
                rule("effect = 'keep'\neven-authentication-failures = true"),
                "t.toml:4: rule a: even-authentication-failures means nothing",
            ),
            (
                format!("{}{}", rule("effect = 'keep'\nports = [1]"), rule("effect = 'keep'\nports = [2]")),
                "t.toml:6: two rules are called a: write another name",
            ),
            (
                format!("{}[[rules]]\nname = 'b'\neffect = 'keep'\nports = [2]", rule("effect = 'keep'")),
                "t.toml:4: rule b is never reached: a takes every event before it: move it above a",
            ),
            (
                "[rules]\nname = 'a'".into(),
                "t.toml:1: rules is no list of tables: write [[rules]] above each rule",
            ),
            ("rules = 5".into(), "t.toml:1: rules is no list of tables: write [[rules]] above each rule"),
            ("[[rule]]\nname = 'a'".into(), "t.toml:1: unknown section rule: write rules (valid are agent,"),
            ("effect = 'drop'".into(), "t.toml:1: unknown section effect: write it as a key of [[rules]]"),
        ] {
            let found = error(&text);
            assert!(found.starts_with(said), "{text}\ngives {found}\nnot  {said}");
        }
    }

    #[test]
    fn rules_that_are_meant_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        let text = format!(
            "{EXAMPLE}\n[[rules]]\nname = 'all'\neffect = 'drop'\nusers = ['web', 33]\nports = ['1-9', 10]\n\
             actions = ['connect']\n[[rules]]\nname = 'even'\neffect = 'drop'\neven-authentication-failures = true\n"
        );
        std::fs::write(&path, text).unwrap();
        let (config, sources) = super::super::from_file(&path, &[]).unwrap();
        assert_eq!(config.rules.len(), 3);
        let shown = super::super::render::effective(&config, &sources, &["in the agent: …".into()]);
        let place = |line: u32| format!("# file {}:{line}\n", path.display());
        let rule =
            format!("# in the agent: …\n[[rules]]  {}name = \"health-checks\"  {}", place(1), place(2));
        assert!(shown.contains(&rule), "{shown}");
        assert!(shown.contains("ports = [\"1-9\", 10]  # file "), "{shown}");
        // It is a configuration too.
        std::fs::write(&path, &shown).unwrap();
        assert_eq!(super::super::from_file(&path, &[]).unwrap().0, config);
    }
}
