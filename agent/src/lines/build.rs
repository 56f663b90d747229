//! Builds lines: an event and who acted, as the fields of [`Line`].

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use serde_json::value::RawValue;
use tellwire_ebpf::{
    exec as wire,
    network::{Connect, Outcome},
    privilege,
    process::Exit,
    wire::{Header, Ids, Kind},
};

use super::{
    ECS_VERSION, Ecs, Line, SCHEMA,
    fields::{
        Ancestor, Capabilities, ConnectFacts, Container, CredentialFacts, Credentials, Endpoint, ErrorCode,
        EventFields, ExecFacts, ExitFacts, Id, Kubernetes, Namespaces, Network, Owner, Parent, Pod, Process,
        Tellwire, Thread, Tty, User,
    },
    names,
};
use crate::{
    enrich::{users::Users, who::Who},
    events::{
        action::Action,
        exec::{Exec, ExecFailed},
        paths::absolute,
        text::text,
    },
};

/// What every line of one record shares.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: &'a Header,
    pub(crate) who: &'a Who,
    /// As JSON.
    pub(crate) host: &'a RawValue,
    /// The record's time as text.
    pub(crate) timestamp: &'a str,
}

impl<'a> Frame<'a> {
    fn line(&self, action: Action, outcome: Option<&'static str>, users: &mut Users) -> Line<'a> {
        let Header { sequence, cpu, kind, .. } = *self.header;
        let who = self.who;
        let ids = who.subject.ids;
        Line {
            timestamp: self.timestamp,
            ecs: Ecs { version: ECS_VERSION },
            event: EventFields {
                kind: "event",
                category: [action.category()],
                event_type: [action.event_type()],
                action: action.name(),
                dataset: action.dataset(),
                outcome,
                sequence: Some(sequence),
                duration: None,
                reason: None,
            },
            host: self.host,
            process: self.process(),
            user: Some(user(ids.euid, users)),
            container: who.container.as_deref().map(|container| Container {
                id: &container.id,
                runtime: container.runtime.map(crate::enrich::cgroup_path::Runtime::as_str),
            }),
            k8s: who.container.as_deref().and_then(|container| container.pod.as_ref()).map(|pod| {
                Kubernetes {
                    pod: Pod { uid: &pod.uid, qos: pod.qos.map(crate::enrich::cgroup_path::Qos::as_str) },
                }
            }),
            network: None,
            source: None,
            destination: None,
            error: None,
            tags: Vec::new(),
            tellwire: Tellwire {
                schema: SCHEMA,
                sequence_cpu: Some(cpu),
                sequence_ring: Kind::from_number(kind.into()).map(|kind| kind.ring().name()),
                ..Tellwire::default()
            },
        }
    }

    fn process(&self) -> Process<'a> {
        let who = self.who;
        let subject = &who.subject;
        Process {
            pid: subject.tgid,
            vpid: who.vpid,
            entity_id: who.entity_id.as_str(),
            name: &who.name,
            executable: who.executable.as_deref(),
            thread: (subject.tid != subject.tgid)
                .then_some(Thread { id: Some(subject.tid), capabilities: None }),
            parent: Some(Parent {
                pid: who.parent.pid,
                entity_id: who.parent.entity_id.as_str(),
                name: who.parent.name.as_deref(),
                executable: who.parent.executable.as_deref(),
            }),
            login_uid: (subject.login_uid != u32::MAX).then_some(Id(subject.login_uid)),
            session_id: (subject.session_id != u32::MAX).then_some(subject.session_id),
            ..Process::default()
        }
    }
}

/// A new program image, with every field of the process.
pub(crate) fn exec<'a>(
    frame: &Frame<'a>,
    exec: &'a Exec<'a>,
    texts: &'a ExecTexts,
    ancestors: Vec<Ancestor<'a>>,
    all_capabilities: u64,
    users: &mut Users,
) -> Line<'a> {
    let mut line = frame.line(Action::Exec, Some("success"), users);
    let Ids { uid, gid, suid, sgid, euid, egid, .. } = frame.who.subject.ids;
    let facts = &exec.wire;
    let process = &mut line.process;
    process.executable = Some(&texts.executable);
    process.args = Some(exec.args().map(text).collect());
    process.args_count = Some(facts.argc);
    if exec.args_truncated() {
        process.args_truncated = Some(true);
        process.args_total_bytes = Some(facts.args_total);
    }
    process.working_directory = Some(&texts.working_directory);
    process.start = Some(texts.start.clone());
    let tty = facts.tty.split(|byte| *byte == 0).next().unwrap_or_default();
    process.interactive = Some(!tty.is_empty());
    process.tty = (!tty.is_empty()).then(|| Tty { name: names::terminal(&text(tty)) });
    process.user = Some(user(euid, users));
    process.real_user = Some(user(uid, users));
    process.saved_user = Some(user(suid, users));
    process.group = Some(group(egid, users));
    process.real_group = Some(group(gid, users));
    process.saved_group = Some(group(sgid, users));
    let capabilities =
        capabilities(facts.capabilities.effective, facts.capabilities.permitted, all_capabilities);
    process.thread = capabilities.map(|capabilities| Thread { id: None, capabilities: Some(capabilities) });
    line.tellwire.exec = Some(Box::new(exec_facts(exec, texts, ancestors)));
    line
}

fn exec_facts<'a>(exec: &'a Exec<'a>, texts: &'a ExecTexts, ancestors: Vec<Ancestor<'a>>) -> ExecFacts<'a> {
    let facts = &exec.wire;
    let is_script = exec.has(wire::Exec::FLAG_SCRIPT);
    let filename = text(exec.filename);
    let mut set_id = Vec::new();
    if facts.mode & 0o4000 != 0 {
        set_id.push("setuid");
    }
    if facts.mode & 0o2000 != 0 {
        set_id.push("setgid");
    }
    let wire::Namespaces { cgroup, ipc, mnt, net, pid, time, user, uts } = facts.namespaces;
    ExecFacts {
        script: is_script.then(|| absolute(&filename, &texts.working_directory)),
        filename: Some(filename),
        evidence: None,
        interpreter: is_script.then(|| text(exec.interpreter)),
        inode: Some(facts.inode),
        device: Some(format!("{}:{}", facts.device >> 20, facts.device & 0xf_ffff)),
        unlinked: (facts.links == 0)
            .then(|| if texts.executable.starts_with("memfd:") { "memfd" } else { "deleted" }),
        not_in_image: exec.has(wire::Exec::FLAG_LAYER_KNOWN).then(|| exec.has(wire::Exec::FLAG_UPPER_LAYER)),
        set_id,
        secure: exec.has(wire::Exec::FLAG_SECURE).then_some(true),
        owner: Some(Owner { uid: Id(facts.owner_uid), gid: Id(facts.owner_gid) }),
        namespaces: Some(Namespaces { cgroup, ipc, mnt, net, pid, time, user, uts }),
        env_count: Some(facts.envc),
        ancestors,
        args_unreadable: exec.has(wire::Exec::FLAG_ARGS_UNREADABLE).then_some(true),
        path_truncated: exec.has(wire::Exec::FLAG_PATH_TRUNCATED).then_some(true),
    }
}

/// Strings of an exec that are made once and used by the table and the line.
#[derive(Debug)]
pub(crate) struct ExecTexts {
    pub(crate) executable: Arc<str>,
    pub(crate) working_directory: String,
    /// When the process began: RFC 3339.
    pub(crate) start: String,
}

/// An exec that gave no image.
pub(crate) fn exec_failed<'a>(frame: &Frame<'a>, failed: &ExecFailed<'_>, users: &mut Users) -> Line<'a> {
    let mut line = frame.line(Action::ExecFailed, Some("failure"), users);
    line.error = Some(ErrorCode { code: names::errno(failed.error) });
    line.tellwire.exec = Some(Box::new(ExecFacts {
        filename: Some(text(failed.path).into_owned().into()),
        evidence: Some("caller_memory"),
        ..ExecFacts::default()
    }));
    line
}

/// The end of a process. `page_size` is the kernel's, in bytes.
pub(crate) fn exit<'a>(frame: &Frame<'a>, exit: &Exit, page_size: u64, users: &mut Users) -> Line<'a> {
    let mut line = frame.line(Action::Exit, None, users);
    let signal = exit.status & 0x7f;
    line.event.duration = Some(frame.header.time.saturating_sub(frame.who.subject.start));
    line.event.reason = Some(exit.reason().name());
    line.process.end = Some(frame.timestamp);
    line.process.exit_code = (signal == 0).then_some(exit.status >> 8 & 0xff);
    line.tellwire.exit = Some(ExitFacts {
        signal: (signal != 0).then(|| names::signal(signal)),
        core_dumped: (exit.status & 0x80 != 0).then_some(true),
        oom_killed: (exit.oom_killed != 0).then_some(true),
        cpu_time: exit.cpu_time,
        peak_rss: exit.peak_rss_pages.saturating_mul(page_size),
    });
    line
}

/// A TCP connection that was tried.
pub(crate) fn connect<'a>(frame: &Frame<'a>, connect: &Connect, users: &mut Users) -> Line<'a> {
    let outcome = Outcome::from_number(connect.outcome).unwrap_or(Outcome::Unknown);
    let ecs_outcome = match outcome {
        Outcome::Established => "success",
        Outcome::Unknown => "unknown",
        _ => "failure",
    };
    let mut line = frame.line(Action::Connect, Some(ecs_outcome), users);
    let remote = address(connect.tuple.remote);
    line.event.duration = (connect.duration != 0).then_some(connect.duration);
    line.network = Some(Network {
        transport: "tcp",
        version: if remote.is_ipv4() { "ipv4" } else { "ipv6" },
        direction: "egress",
    });
    line.source = (connect.tuple.local_port != 0)
        .then(|| Endpoint { ip: address(connect.tuple.local), port: connect.tuple.local_port });
    line.destination = Some(Endpoint { ip: remote, port: connect.tuple.remote_port });
    line.error = (connect.error != 0).then(|| ErrorCode { code: names::errno(connect.error) });
    line.tellwire.connect = Some(ConnectFacts { outcome: outcome.name() });
    line
}

/// A credential call.
pub(crate) fn credentials<'a>(
    frame: &Frame<'a>,
    call: privilege::Call,
    record: &privilege::Credentials,
    users: &mut Users,
) -> Line<'a> {
    let outcome = if record.error == 0 { "success" } else { "failure" };
    let mut line = frame.line(Action::of_call(call), Some(outcome), users);
    line.error = (record.error != 0).then(|| ErrorCode { code: names::errno(record.error) });
    let mut old = ids(record.old);
    let mut new = ids(frame.who.subject.ids);
    match call {
        privilege::Call::Capset => {
            old.capabilities =
                Some(sets(record.old_capabilities.effective, record.old_capabilities.permitted));
            new.capabilities =
                Some(sets(record.new_capabilities.effective, record.new_capabilities.permitted));
        }
        privilege::Call::Setgroups => {
            old.groups = Some(record.old_groups);
            new.groups = Some(record.new_groups);
        }
        _ => {}
    }
    line.tellwire.credentials =
        Some(Box::new(CredentialFacts { old, new, asked: asked(call, record), evidence: "call" }));
    line
}

/// Ids that changed by nothing that was seen.
pub(crate) fn credentials_changed<'a>(frame: &Frame<'a>, old: Ids, users: &mut Users) -> Line<'a> {
    let mut line = frame.line(Action::CredentialsChanged, Some("success"), users);
    // The record that showed the change is another event's; this line has no number of its own.
    line.event.sequence = None;
    line.tellwire.sequence_cpu = None;
    line.tellwire.sequence_ring = None;
    line.tellwire.credentials = Some(Box::new(CredentialFacts {
        old: ids(old),
        new: ids(frame.who.subject.ids),
        asked: Vec::new(),
        evidence: "comparison",
    }));
    line
}

/// The ids that a call was given; -1 is written as such: it asks for no change.
fn asked(call: privilege::Call, record: &privilege::Credentials) -> Vec<String> {
    use privilege::Call;
    let count = match call {
        Call::Setuid | Call::Setgid | Call::Setfsuid | Call::Setfsgid => 1,
        Call::Setreuid | Call::Setregid => 2,
        Call::Setresuid | Call::Setresgid => 3,
        Call::Setgroups | Call::Capset => 0,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "ids are the register's low half"
    )]
    let id = |argument: &u64| (*argument as u32 as i32).to_string();
    let unsigned =
        |text: String, argument: &u64| if text == "-1" { text } else { (argument & 0xffff_ffff).to_string() };
    record.arguments.iter().take(count).map(|argument| unsigned(id(argument), argument)).collect()
}

fn ids(ids: Ids) -> Credentials {
    let Ids { uid, gid, suid, sgid, euid, egid, fsuid, fsgid } = ids;
    Credentials {
        uid: Id(uid),
        euid: Id(euid),
        suid: Id(suid),
        fsuid: Id(fsuid),
        gid: Id(gid),
        egid: Id(egid),
        sgid: Id(sgid),
        fsgid: Id(fsgid),
        groups: None,
        capabilities: None,
    }
}

fn sets(effective: u64, permitted: u64) -> Capabilities {
    Capabilities { effective: names::capabilities(effective), permitted: names::capabilities(permitted) }
}

/// The names, where they say more than all or none.
fn capabilities(effective: u64, permitted: u64, all: u64) -> Option<Capabilities> {
    (names::is_partial(effective, all) || names::is_partial(permitted, all))
        .then(|| sets(effective, permitted))
}

fn user(id: u32, users: &mut Users) -> User {
    User { id: Id(id), name: users.user_name(id) }
}

fn group(id: u32, users: &mut Users) -> User {
    User { id: Id(id), name: users.group_name(id) }
}

/// A v4-mapped address is the IPv4 address that is on the wire.
fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// Ancestors as the line has them.
pub(crate) fn ancestors<'a>(
    chain: impl Iterator<Item = (crate::enrich::processes::ProcessKey, &'a crate::enrich::processes::Process)>,
) -> Vec<Ancestor<'a>> {
    chain.map(|(key, process)| Ancestor { pid: key.tgid, name: &process.name }).collect()
}
