//! Lines of the family `auth`: calls of libpam.

use std::net::IpAddr;

use tellwire_ebpf::pam::{Call, Pam as Wire};

use super::{Frame, user};
use crate::{
    auth::refusals::Proof,
    enrich::users::Users,
    events::{action::Action, pam::Pam, text::text},
    lines::{
        Line,
        auth::AuthFacts,
        fields::{Endpoint, Id, User},
        names,
    },
};

/// `PAM_SILENT`, `security/_pam_types.h` of Linux-PAM 1.5.2.
const SILENT: u32 = 0x8000;

/// What the tables know of a PAM call.
#[derive(Debug)]
pub(crate) struct PamContext {
    /// The process is in the host's mount namespace: its users are those of the host.
    pub(crate) is_host: bool,
    /// Tells the transaction from others.
    pub(crate) transaction: Option<String>,
}

/// A call of libpam.
pub(crate) fn pam<'a>(frame: &Frame<'a>, pam: &Pam<'_>, context: PamContext, users: &mut Users) -> Line<'a> {
    let PamContext { is_host, transaction } = context;
    let outcome = match pam.is_success() {
        Some(true) => "success",
        Some(false) => "failure",
        None => "unknown",
    };
    let mut line = frame.line(Action::of_pam(pam.call), Some(outcome), users);
    line.event.duration = pam.result().is_some().then_some(pam.wire.duration);
    line.event.code = pam.result().map(names::pam_result);
    let told = |bytes: &[u8]| (!bytes.is_empty()).then(|| text(bytes).into_owned());
    // Of the process it is said below `process` whom it acts as.
    line.process.user = Some(user(frame.who.subject.ids.euid, users));
    line.user = told(pam.user)
        .map(|name| User { id: users.user_id(&name).filter(|_| is_host).map(Id), name: Some(name.into()) });
    let address = told(pam.remote_host);
    line.source = address.map(|address| Endpoint {
        ip: address.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
        address: Some(address),
        ..Endpoint::default()
    });
    if let Some(related) = &mut line.related {
        related.user.extend(line.user.as_ref().and_then(|user| user.name.clone()));
        related.user.extend(told(pam.remote_user).map(Into::into));
        related.user.dedup();
        related.ip.extend(line.source.as_ref().and_then(|source| source.ip));
    }
    let lacking = |bit: u32| -> Vec<&'static str> {
        let names = ["service", "user", "remote_host", "remote_user", "tty"];
        (0..).zip(names).filter(|(at, _)| pam.has(bit << at)).map(|(_, name)| name).collect()
    };
    line.tellwire.auth = Some(Box::new(AuthFacts {
        service: told(pam.service),
        tty: told(pam.terminal),
        remote_user: told(pam.remote_user),
        silent: (pam.wire.call_flags & SILENT != 0).then_some(true),
        proof: matches!(pam.call, Call::Account | Call::Setcred | Call::SessionOpen)
            .then(|| pam.has(Wire::FLAG_PROVEN))
            .filter(|_| !pam.has(Wire::FLAG_UNTRACKED) && !pam.has(Wire::FLAG_NO_RESULT)),
        transaction,
        user_withheld: pam.has(Wire::FLAG_WITHHELD).then_some(true),
        untracked: pam.has(Wire::FLAG_UNTRACKED).then_some(true),
        unreadable: lacking(Wire::UNREADABLE),
        truncated: lacking(Wire::CUT),
        sources: vec!["pam"],
    }));
    line
}

/// Says of a process's end that it refused somebody in spite of a proof.
pub(crate) fn refused(line: &mut Line<'_>, proof: Proof, transaction: String) {
    let Proof { service, user, remote_user, terminal, .. } = proof;
    let told = |text: String| (!text.is_empty()).then_some(text);
    let [user, remote_user] = [user, remote_user].map(told);
    line.event.outcome = Some("failure");
    if let Some(related) = &mut line.related {
        related.user.extend(user.map(Into::into));
        related.user.extend(remote_user.clone().map(Into::into));
        related.user.dedup();
    }
    line.tellwire.auth = Some(Box::new(AuthFacts {
        service: told(service),
        tty: told(terminal),
        remote_user,
        proof: Some(true),
        transaction: Some(transaction),
        sources: vec!["pam"],
        ..AuthFacts::default()
    }));
}
