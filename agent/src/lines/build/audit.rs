//! Lines of audit records.

use std::net::IpAddr;

use super::{Frame, user, without_sequence};
use crate::{
    audit::{Message, Record},
    auth::bursts::{Burst, Key, State},
    enrich::users::Users,
    events::action::Action,
    lines::{
        Line,
        audit::{AuditFacts, BruteforceFacts, Group},
        auth::AuthFacts,
        fields::{Endpoint, Id, User},
    },
};

/// A record, and what is known of the process that wrote it.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) record: Record,
    /// The process is in the table.
    pub(crate) is_known: bool,
    /// The account may be told.
    pub(crate) is_user: bool,
}

/// What a program reported.
pub(crate) fn audit<'a>(frame: &Frame<'a>, reporter: Reporter, users: &mut Users) -> Line<'a> {
    let Reporter { record, is_known, is_user } = reporter;
    let Record { kind, serial, uid, message, .. } = record;
    let outcome = match message.is_success {
        Some(true) => "success",
        Some(false) => "failure",
        None => "unknown",
    };
    let mut line = frame.line(kind.action, Some(outcome), users);
    without_sequence(&mut line);
    // The line's user is whom it is about; whom the process acts as is the process's.
    line.process.user = line.user.take();
    let is_iam = kind.action.category() == "iam";
    if !is_known {
        line.process.entity_id = None;
        line.process.parent = None;
        line.process.user = uid.map(|uid| user(uid, users));
    }
    let known_id = message.account.as_deref().and_then(|name| users.user_id(name));
    let is_withheld = message.account.is_some() && !is_user && message.is_success != Some(true) && !is_iam;
    let name = message.account.as_deref().filter(|_| !is_withheld);
    // A name in a container is not the host's.
    let id = message.id.or(known_id.filter(|_| frame.who.container.is_none()));
    if name.is_some() || id.is_some() {
        let named = || id.and_then(|id| users.user_name(id));
        line.user = Some(User { id: id.map(Id), name: name.map(Into::into).or_else(named) });
    }
    line.source = source(message.address.as_deref(), message.hostname.as_deref());
    relate(&mut line);
    let (id, name) = (message.group_id.map(Id), message.group.clone());
    line.group = (id.is_some() || name.is_some()).then_some(Group { id, name });
    line.tellwire.auth = Some(Box::new(AuthFacts {
        user_withheld: is_withheld.then_some(true),
        sources: vec!["audit"],
        ..AuthFacts::default()
    }));
    line.tellwire.audit = Some(Box::new(facts(frame, kind.name, serial, message)));
    line
}

/// Adds to the line of a call of libpam what libpam itself reported of it.
pub(crate) fn add_record<'a>(frame: &Frame<'a>, line: &mut Line<'a>, record: Record) {
    let Record { kind, serial, message, .. } = record;
    if let Some(auth) = &mut line.tellwire.auth {
        auth.sources.push("audit");
    }
    // libpam has resolved the name that the program gave.
    if let Some(source) = &mut line.source
        && source.ip.is_none()
    {
        source.ip = message.address.as_deref().and_then(|address| address.parse().ok());
    }
    line.tellwire.audit = Some(Box::new(facts(frame, kind.name, serial, message)));
}

fn facts(frame: &Frame<'_>, kind: &'static str, serial: u64, message: Message) -> AuditFacts {
    let mut grantors: Vec<_> =
        message.grantors.iter().flat_map(|all| all.split(',')).map(ToOwned::to_owned).collect();
    grantors.dedup();
    AuditFacts {
        kind,
        serial,
        op: message.op,
        terminal: message.terminal,
        grantors,
        exe: message.exe.filter(|exe| frame.who.executable.as_deref() != Some(exe)),
        evidence: frame.is_full().then_some(if kind == "LOGIN" { "kernel" } else { "userspace" }),
    }
}

/// A burst of failures. `first` and `last` are its times as text.
pub(crate) fn bruteforce<'a>(
    frame: &Frame<'a>,
    burst: Burst,
    (first, last): (String, String),
    shows_unknown_users: bool,
    users: &mut Users,
) -> Line<'a> {
    let Burst { key, state, failures, distinct, succeeded, is_known, .. } = burst;
    let outcome = if succeeded { "success" } else { "failure" };
    let mut line = frame.line(Action::AuthBruteforce, Some(outcome), users);
    without_sequence(&mut line);
    line.process.user = line.user.take();
    let distinct = u32::try_from(distinct).unwrap_or(u32::MAX);
    let (by, tried, sources) = match key {
        Key::Source(ip) => {
            line.source = Some(Endpoint { ip: Some(ip), ..Endpoint::default() });
            ("source", distinct, 1)
        }
        Key::User { name, container: _ } => {
            let id = users.user_id(&name);
            let is_shown = id.is_some() || is_known || shows_unknown_users;
            line.user = is_shown.then_some(User { id: id.map(Id), name: Some(name) });
            line.tellwire.auth = (!is_shown)
                .then(|| Box::new(AuthFacts { user_withheld: Some(true), ..AuthFacts::default() }));
            ("user", 1, distinct)
        }
    };
    relate(&mut line);
    line.tellwire.bruteforce = Some(Box::new(BruteforceFacts {
        by,
        state: match state {
            State::Begun => "begun",
            State::Succeeded => "succeeded",
            State::Ended => "ended",
        },
        failures,
        users: tried,
        sources,
        first,
        last,
        succeeded,
    }));
    line
}

/// What the line can be found by: whom it is about, who acted, and from where.
fn relate(line: &mut Line<'_>) {
    if let Some(related) = &mut line.related {
        related.user =
            line.user.iter().chain(&line.process.user).filter_map(|user| user.name.clone()).collect();
        related.user.dedup();
        related.ip = line.source.iter().filter_map(|source| source.ip).collect();
    }
}

/// Programs without a remote host name this one.
fn is_own(name: &str) -> bool {
    rustix::system::uname().nodename().to_bytes() == name.as_bytes()
}

/// Where somebody comes from. The name can be one that only the program's own resolver knew.
fn source(address: Option<&str>, hostname: Option<&str>) -> Option<Endpoint> {
    let ip =
        |text: Option<&str>| text.and_then(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
    let ip = ip(address).or_else(|| ip(hostname));
    let name = hostname.or(address).filter(|name| name.parse::<IpAddr>().is_err() && !is_own(name));
    (ip.is_some() || name.is_some()).then(|| Endpoint {
        ip,
        address: name.map(ToOwned::to_owned),
        ..Endpoint::default()
    })
}
