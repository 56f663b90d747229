//! Who is behind a process that acts as somebody else: the user who logged in, and the way from there.
//!
//! The kernel keeps the login uid over everything that a process and its children do. The way is that of the ancestors:
//! programs that made somebody of somebody else, by a set-id bit (sudo, su) or as root (su, runuser).

use tellwire_ebpf::wire::Subject;

use crate::enrich::processes::{Keys as _, ProcessKey, Processes};

/// A program that made somebody of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) program: ProcessKey,
    pub(crate) name: String,
    /// Who ran it.
    pub(crate) by: u32,
}

/// The user who logged in, and the way from there to the process, the latest first; `None` where the process acts as
/// that user, belongs to no login, or was root all the way, such as sshd when it makes a login.
pub(crate) fn behind(subject: &Subject, processes: &Processes) -> Option<(u32, Vec<Step>)> {
    let login = subject.login_uid;
    if login == u32::MAX || login == subject.ids.euid {
        return None;
    }
    let mut path: Vec<Step> = Vec::new();
    let mut key = subject.key();
    let mut euid = subject.ids.euid;
    let mut name = processes.get(key).map(|process| process.name.to_string()).unwrap_or_default();
    for (ancestor, process) in processes.lineage(subject.parent_key()) {
        let above = process.expected.ids().euid;
        if above != euid {
            // Root gives itself up in a child of its own; others have to run a set-id program.
            let (program, by_name) =
                if above == 0 { (ancestor, process.name.to_string()) } else { (key, name.clone()) };
            match path.last_mut() {
                Some(step) if step.program == program => step.by = above,
                _ => path.push(Step { program, name: by_name, by: above }),
            }
        }
        if above == login {
            break;
        }
        (key, euid) = (ancestor, above);
        name = process.name.to_string();
    }
    (!path.is_empty()).then_some((login, path))
}

#[cfg(test)]
mod tests {
    use tellwire_ebpf::wire::Ids;
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::enrich::containers::Containers;

    /// The login, and steps: name, process id and who ran it.
    type Way = (u32, Vec<(String, u32, u32)>);

    /// A chain of processes, the oldest first: name and effective user.
    fn chain(login: u32, of: &[(&str, u32)]) -> Option<Way> {
        let mut processes = Processes::new("boot".into(), 100, 0);
        let mut last = Subject::new_zeroed();
        for (number, (name, euid)) in (10..).zip(of) {
            let mut subject = Subject::new_zeroed();
            (subject.tgid, subject.tid, subject.start) = (number, number, u64::from(number));
            (subject.parent_tgid, subject.parent_start) = (number - 1, u64::from(number) - 1);
            subject.comm[..name.len()].copy_from_slice(name.as_bytes());
            let euid = *euid;
            subject.ids =
                Ids { uid: euid, gid: 0, suid: euid, sgid: 0, euid, egid: 0, fsuid: euid, fsgid: 0 };
            subject.login_uid = login;
            processes.meet(&subject, 1, &Containers::default()).unwrap();
            last = subject;
        }
        let (login, path) = behind(&last, &processes)?;
        Some((login, path.into_iter().map(|step| (step.name, step.program.tgid, step.by)).collect()))
    }

    #[test]
    fn a_root_shell_by_sudo_leads_to_the_user() {
        let path = chain(1000, &[("sshd", 0), ("sh", 1000), ("sudo", 0), ("sudo", 0), ("bash", 0)]);
        assert_eq!(path, Some((1000, vec![("sudo".into(), 12, 1000)])));
    }

    #[test]
    fn su_to_another_user_is_one_step() {
        let path = chain(1000, &[("sh", 1000), ("su", 0), ("sh", 1001)]);
        assert_eq!(path, Some((1000, vec![("su".into(), 11, 1000)])));
    }

    #[test]
    fn the_way_over_several_users_is_told_from_its_end() {
        let path = chain(1000, &[("sh", 1000), ("su", 0), ("sh", 1001), ("sudo", 0), ("bash", 0)]);
        assert_eq!(path, Some((1000, vec![("sudo".into(), 13, 1001), ("su".into(), 11, 1000)])));
    }

    #[test]
    fn root_who_becomes_somebody_has_a_way_too() {
        let path = chain(0, &[("bash", 0), ("runuser", 0), ("sh", 1001)]);
        assert_eq!(path, Some((0, vec![("runuser".into(), 11, 0)])));
    }

    #[test]
    fn who_is_the_user_and_who_has_no_login_has_no_way() {
        assert_eq!(chain(1000, &[("sh", 1000), ("ls", 1000)]), None);
        assert_eq!(chain(1000, &[("sshd", 0), ("sshd", 0)]), None);
        assert_eq!(chain(u32::MAX, &[("cron", 0), ("sh", 33)]), None);
    }
}
