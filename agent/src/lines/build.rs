//! Builds lines: an event and who acted, as the fields of [`Line`].

mod audit;
mod auth;
mod login;
mod network;
mod privilege;
mod process;

use tellwire_ebpf::wire::{Header, Kind};

pub(crate) use self::{
    audit::{Reporter, add_record, audit, bruteforce},
    auth::{PamContext, pam, refused},
    login::login,
    network::{close, connect, connects},
    privilege::{credentials, credentials_changed},
    process::{ExecTexts, Lineage, exec, exec_failed, exit},
};
use super::{
    ECS_VERSION, Ecs, Line, SCHEMA,
    fields::{
        Capabilities, Container, EventFields, Id, Kubernetes, Parent, Process, Related, Tellwire, Thread,
        User,
    },
    names,
    origin::Origin,
};
use crate::{
    config::Profile,
    enrich::{users::Users, who::Who},
    events::action::Action,
    redact::{Rule, RuleSet},
};

/// What every line of one record shares.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: &'a Header,
    pub(crate) who: &'a Who,
    pub(crate) origin: &'a Origin,
    /// How much a line says.
    pub(crate) profile: Profile,
    /// The record's time as text.
    pub(crate) timestamp: &'a str,
}

impl<'a> Frame<'a> {
    pub(super) fn line(&self, action: Action, outcome: Option<&'static str>, users: &mut Users) -> Line<'a> {
        let Header { sequence, cpu, kind, redacted, .. } = *self.header;
        let who = self.who;
        let Origin { host, host_name, agent, orchestrator, cloud, labels, node } = self.origin;
        let is_full = self.profile == Profile::Full;
        let user = user(who.subject.ids.euid, users);
        Line {
            timestamp: self.timestamp,
            ecs: Some(Ecs { version: ECS_VERSION }),
            event: EventFields {
                kind: is_full.then_some("event"),
                category: [action.category()],
                event_type: [action.event_type()],
                action: action.name(),
                dataset: is_full.then(|| action.dataset()),
                outcome,
                severity: None,
                code: None,
                sequence: is_full.then_some(sequence),
                start: None,
                duration: None,
                reason: None,
            },
            host: if is_full { host } else { host_name },
            agent: is_full.then_some(&**agent),
            orchestrator: orchestrator.as_deref(),
            cloud: cloud.as_deref(),
            labels: labels.as_deref(),
            related: is_full.then(|| Related { user: user.name.iter().cloned().collect(), ip: Vec::new() }),
            process: self.process(),
            user: Some(user),
            group: None,
            container: who.container.as_deref().map(Container::new),
            k8s: Kubernetes::new(node.as_deref(), who.container.as_deref(), is_full),
            network: None,
            source: None,
            destination: None,
            error: None,
            tags: Vec::new(),
            tellwire: Tellwire {
                schema: Some(SCHEMA),
                sequence_cpu: is_full.then_some(cpu),
                sequence_ring: Kind::from_number(kind.into())
                    .filter(|_| is_full)
                    .map(|kind| kind.ring().name()),
                redacted: RuleSet::from_bits(redacted).iter().map(Rule::name).collect(),
                sandbox: who
                    .container
                    .as_ref()
                    .and_then(|container| container.names()?.is_sandbox.then_some(true)),
                ..Tellwire::default()
            },
        }
    }

    fn is_full(&self) -> bool {
        self.profile == Profile::Full
    }

    fn process(&self) -> Process<'a> {
        let who = self.who;
        let subject = &who.subject;
        Process {
            pid: Some(subject.tgid),
            vpid: who.vpid,
            entity_id: Some(who.entity_id.as_str()),
            name: &who.name,
            executable: who.executable.as_deref(),
            thread: (subject.tid != subject.tgid)
                .then_some(Thread { id: Some(subject.tid), capabilities: None }),
            parent: self.is_full().then(|| self.parent()),
            login_uid: (subject.login_uid != u32::MAX).then_some(Id(subject.login_uid)),
            session_id: (subject.session_id != u32::MAX).then_some(subject.session_id),
            ..Process::default()
        }
    }

    fn parent(&self) -> Parent<'a> {
        let parent = &self.who.parent;
        Parent {
            pid: parent.pid,
            entity_id: parent.entity_id.as_str(),
            name: parent.name.as_deref(),
            executable: parent.executable.as_deref(),
            command_line: None,
        }
    }
}

/// Takes the record's number off a line that another one's record gave rise to, or none.
pub(crate) fn without_sequence(line: &mut Line<'_>) {
    line.event.sequence = None;
    line.tellwire.sequence_cpu = None;
    line.tellwire.sequence_ring = None;
    line.tellwire.redacted = Vec::new();
}

/// The start of a container, of which its first process tells.
pub(crate) fn container_started<'a>(frame: &Frame<'a>, users: &mut Users) -> Line<'a> {
    let mut line = frame.line(Action::ContainerStarted, Some("success"), users);
    // The exec's own line has the number.
    without_sequence(&mut line);
    line
}

/// A line about a container, of which no process tells: the frame's process is nobody.
pub(crate) fn container<'a>(frame: &Frame<'a>, action: Action, users: &mut Users) -> Line<'a> {
    let mut line = frame.line(action, None, users);
    without_sequence(&mut line);
    line.process = Process::default();
    line.user = None;
    line.related = None;
    line
}

fn user(id: u32, users: &mut Users) -> User {
    User { id: Some(Id(id)), name: users.user_name(id) }
}

fn group(id: u32, users: &mut Users) -> User {
    User { id: Some(Id(id)), name: users.group_name(id) }
}

fn sets(effective: u64, permitted: u64) -> Capabilities {
    Capabilities { effective: names::capabilities(effective), permitted: names::capabilities(permitted) }
}
