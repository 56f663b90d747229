//! Lines of the family `privilege`: credential calls, and changes that no call explains.

use tellwire_ebpf::{privilege, wire::Ids};

use super::{Frame, sets, without_sequence};
use crate::{
    enrich::{credentials::Privileges, users::Users},
    events::action::Action,
    lines::{
        Line,
        fields::{CredentialFacts, Credentials, ErrorCode, Id},
        names,
    },
};

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

/// Ids that changed by nothing that was seen, or privileges before and after that no call leads to.
pub(crate) fn credentials_changed<'a>(
    frame: &Frame<'a>,
    old: Ids,
    gained: Option<(Privileges, Privileges)>,
    users: &mut Users,
) -> Line<'a> {
    let mut line = frame.line(Action::CredentialsChanged, Some("success"), users);
    // The record that showed the change is another event's; this line has no number of its own.
    without_sequence(&mut line);
    line.event.severity = Some(Action::CredentialsChanged.severity(false) as u8);
    let (mut old, mut new) = (ids(old), ids(frame.who.subject.ids));
    if let Some((before, now)) = gained {
        for (credentials, privileges) in [(&mut old, before), (&mut new, now)] {
            credentials.bounding = Some(names::capabilities(privileges.bounding));
            credentials.user_namespace = Some(privileges.user_namespace);
        }
    }
    line.tellwire.credentials =
        Some(Box::new(CredentialFacts { old, new, asked: Vec::new(), evidence: "comparison" }));
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
        bounding: None,
        user_namespace: None,
    }
}
