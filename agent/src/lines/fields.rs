//! The groups of fields of a line.

mod container;
mod credentials;

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

pub(crate) use self::{
    container::{Container, Kubernetes},
    credentials::{CredentialFacts, Credentials},
};
use super::{
    audit::{AuditFacts, BruteforceFacts, LoginFacts},
    auth::AuthFacts,
    own,
};

/// A number that ECS has as a keyword: written as a string, without making one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u32);

impl Process<'_> {
    /// Whether no process is known: that of a line about a container.
    pub(crate) fn is_absent(&self) -> bool {
        self.pid.is_none() && self.entity_id.is_none() && self.name.is_empty()
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(itoa::Buffer::new().format(self.0))
    }
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// What happened.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EventFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    pub(crate) category: [&'static str; 1],
    #[serde(rename = "type")]
    pub(crate) event_type: [&'static str; 1],
    /// See `tellwire events`.
    pub(crate) action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dataset: Option<&'static str>,
    /// `success`, `failure` or `unknown`. The end of a process has one only where it refused somebody: then
    /// `tellwire.auth` says whom, and of which proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
    /// As syslog has it (RFC 5424): 4, a warning, of `credentials_changed`. Other lines have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) severity: Option<u8>,
    /// What a call of libpam returned, such as `PAM_AUTH_ERR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Cow<'static, str>>,
    /// Number of the record among those of its CPU and ring, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sequence: Option<u64>,
    /// When the first of several that are told together happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<&'a str>,
    /// In nanoseconds: of a handshake, of a connection, of a call of libpam, or of a process's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<u64>,
    /// Why it ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Cow<'a, str>>,
}

/// The node.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Host {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The machine id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) boot: Boot,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Boot {
    pub(crate) id: String,
}

/// The process that acted. The full fields stand on `exec`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Process<'a> {
    /// In the host's pid namespace. Absent where several processes are told together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// In its innermost pid namespace, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vpid: Option<u32>,
    /// The same over exec, and never reused. Absent where several processes are told together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entity_id: Option<&'a str>,
    /// `comm`: what the kernel calls the task.
    pub(crate) name: &'a str,
    /// The file that runs, not `argv[0]`; for a script its interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) executable: Option<&'a str>,
    /// Every argument, empty ones too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args_count: Option<u32>,
    /// `args` with spaces between them, which does not say where one ends; only with `agent.command-line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command_line: Option<&'a str>,
    /// Ours: `args` is not all of them, or the last is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args_truncated: Option<bool>,
    /// Ours: bytes of argv, where `args` is not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) working_directory: Option<&'a str>,
    /// When the process began: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<u32>,
    /// Whether it has a controlling terminal; in the profile `default` only where it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interactive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tty: Option<Tty>,
    /// Effective ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) real_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) saved_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) real_group: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) saved_group: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thread: Option<Thread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Parent<'a>>,
    /// Ours: the user who logged in, whoever the process is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) login_uid: Option<Id>,
    /// Ours: the audit session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<u32>,
}

/// A terminal, by its device number.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Tty {
    /// Ours: its name, such as `pts/0`.
    pub(crate) name: String,
}

/// A user or group: the id of the host's own namespace, and the host's name for it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct User {
    /// Absent where only the name of an account is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<Arc<str>>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Thread {
    /// The thread that acted, where it is not the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
}

/// Capability names, where they are not all or none of what this kernel knows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Capabilities {
    pub(crate) effective: Vec<&'static str>,
    pub(crate) permitted: Vec<&'static str>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Parent<'a> {
    pub(crate) pid: u32,
    pub(crate) entity_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) executable: Option<&'a str>,
    /// With `agent.command-line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command_line: Option<&'a str>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Network {
    /// `tcp`.
    pub(crate) transport: &'static str,
    /// `ipv4` or `ipv6`; a v4-mapped address is IPv4.
    #[serde(rename = "type")]
    pub(crate) version: &'static str,
    pub(crate) direction: &'static str,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Endpoint {
    /// What a program calls the other side, an address or a name; only of authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Payload that this end sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorCode {
    /// The errno's name, such as `ENOENT`.
    pub(crate) code: Cow<'static, str>,
}

/// What lines of other systems can be found by.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Related {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) user: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ip: Vec<IpAddr>,
}

/// What ECS has no name for.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Tellwire<'a> {
    /// Version of the line's schema. Not on lines of connections in the profile `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<u32>,
    /// The CPU and the ring that `event.sequence` counts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sequence_cpu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sequence_ring: Option<&'static str>,
    /// The rules that took secrets out of this event's text, where `[redacted]` stands now: `flag_value`,
    /// `tool_argument`, `environment_value`, `field_value`, `url_credentials`, `authorization_header`,
    /// `known_token`, `private_key`, `piped_value` or `configured`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) redacted: Vec<&'static str>,
    /// The line stands for several events: a rule sampled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sampled: Option<SampledFacts>,
    /// The container holds the namespaces of a pod, and runs nothing of the workload ("pause").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exec: Option<Box<ExecFacts<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<ExitFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect: Option<ConnectFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<Box<CredentialFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth: Option<Box<AuthFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<Box<AuditFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<Box<LoginFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bruteforce: Option<Box<BruteforceFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Box<own::StartedFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopped: Option<Box<own::StoppedFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<Box<own::LostFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probe: Option<Box<own::ProbeFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Box<own::ConfigFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<Box<own::ClockFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ledger: Option<Box<own::LedgerFacts>>,
}

/// What a rule of the configuration chose the line from.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SampledFacts {
    /// The name of the rule.
    pub(crate) rule: Arc<str>,
    /// Of so many events that matched the rule exactly one made a line.
    pub(crate) one_in: u32,
}

/// Facts of an execution.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ExecFacts<'a> {
    /// The path given to exec. On `exec_failed` it was read from the caller's memory after the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filename: Option<Cow<'a, str>>,
    /// `caller_memory` where another thread can have rewritten `filename`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evidence: Option<&'static str>,
    /// The script's absolute path, where a script was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) script: Option<String>,
    /// The interpreter that the script's first line names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interpreter: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inode: Option<u64>,
    /// `major:minor` of the file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// `memfd` or `deleted`, where the file has no name any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unlinked: Option<&'static str>,
    /// The file came into the container after its image: it stands in the overlay's upper layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_in_image: Option<bool>,
    /// `setuid`, `setgid`: bits of the file's mode.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) set_id: Vec<&'static str>,
    /// The kernel gave more privilege than the caller had (`AT_SECURE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secure: Option<bool>,
    /// Owner of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespaces: Option<Namespaces>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env_count: Option<u32>,
    /// Parents of the parent, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ancestors: Vec<Ancestor<'a>>,
    /// argv could not be read from the new image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args_unreadable: Option<bool>,
    /// A path is longer than a record holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_truncated: Option<bool>,
}

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Owner {
    pub(crate) uid: Id,
    pub(crate) gid: Id,
}

/// Inode numbers, as in /proc/PID/ns.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Namespaces {
    pub(crate) cgroup: u32,
    pub(crate) ipc: u32,
    pub(crate) mnt: u32,
    pub(crate) net: u32,
    pub(crate) pid: u32,
    pub(crate) time: u32,
    pub(crate) user: u32,
    pub(crate) uts: u32,
}

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Ancestor<'a> {
    pub(crate) pid: u32,
    pub(crate) name: &'a str,
}

/// How a process ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExitFacts {
    /// The signal that ended it, such as `SIGKILL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) core_dumped: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oom_killed: Option<bool>,
    /// Of all its threads, in nanoseconds, as the kernel has counted it: what a thread used after the last tick (every 4 ms at
    /// 250 Hz) is missing.
    pub(crate) cpu_time: u64,
    /// Largest resident set, in bytes.
    pub(crate) peak_rss: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectFacts {
    /// `established`, `refused`, `timed_out`, `unreachable`, `denied`, `reset`, `aborted`, `failed` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
    /// How many are told together, from `event.start` to `@timestamp`; `source.bytes` and `destination.bytes` are
    /// those of the connections that were closed in that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
}
