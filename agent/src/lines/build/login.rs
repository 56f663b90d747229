//! Who is behind the process of a line.

use super::{Frame, user};
use crate::{
    auth::sessions,
    enrich::{processes::Processes, users::Users},
    events::action::Action,
    lines::{
        audit::{LoginFacts, LoginStep},
        fields::Id,
    },
};

/// Where the process acts as another user than the one who logged in. In `default` an exec says so only where it is
/// what sudo, su or the like ran: its children share the session, and their `process.parent` leads there.
pub(crate) fn login(
    frame: &Frame<'_>,
    action: Action,
    processes: &Processes,
    users: &mut Users,
) -> Option<Box<LoginFacts>> {
    let is_asked = match action.dataset() {
        "tellwire.auth" => true,
        "tellwire.privilege" => frame.is_full(),
        _ => action == Action::Exec,
    };
    if !is_asked {
        return None;
    }
    let subject = &frame.who.subject;
    let (login, path) = sessions::behind(subject, processes)?;
    let is_first = || path.first().is_some_and(|step| step.program.tgid == subject.parent_tgid);
    if action == Action::Exec && !frame.is_full() && !is_first() {
        return None;
    }
    let step = |step: sessions::Step| LoginStep { name: step.name, pid: step.program.tgid, by: Id(step.by) };
    Some(Box::new(LoginFacts { user: user(login, users), path: path.into_iter().map(step).collect() }))
}
