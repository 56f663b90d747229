//! Ids that a process should have, held against those that its next record shows.
//!
//! A change that came by no call that was seen and by no set-id program shows here: a 32-bit call where
//! calls are seen by syscall tracepoints, or what an exploit does.

use tellwire_ebpf::wire::Ids;

/// The ids that the threads of one process are known to have.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    ids: Ids,
    /// When that was learned, CLOCK_BOOTTIME in nanoseconds: an older record proves nothing.
    since: u64,
    /// Threads whose ids differ from the leader's; rarely any.
    threads: Vec<(u32, Ids)>,
}

impl Expected {
    pub(crate) fn new(ids: Ids, since: u64) -> Self {
        Self { ids, since, threads: Vec::new() }
    }

    /// The leader's.
    pub(crate) fn ids(&self) -> Ids {
        self.ids
    }

    /// Takes over what a credential call or an exec is known to have brought.
    pub(crate) fn set(&mut self, tid: u32, is_leader: bool, ids: Ids, time: u64) {
        if time < self.since {
            return;
        }
        self.since = time;
        self.threads.retain(|(thread, _)| *thread != tid);
        if is_leader {
            self.ids = ids;
        } else if ids != self.ids {
            self.threads.push((tid, ids));
        }
    }

    /// After an exec there is one thread, the leader.
    pub(crate) fn exec(&mut self, ids: Ids, time: u64) {
        // A call after the exec can have come first, by the urgent ring.
        if time >= self.since {
            *self = Self::new(ids, time);
        }
    }

    /// The ids that the thread which called exec had, if the exec brought others than it should.
    ///
    /// The saved ids become the effective ones (`cap_bprm_creds_from_file`, security/commoncap.c, v6.18).
    pub(crate) fn check_exec(&self, caller: u32, ids: Ids, time: u64) -> Option<Ids> {
        if time < self.since {
            return None;
        }
        let own = self.own(caller);
        let expected = own.unwrap_or(self.ids);
        let after = |Ids { uid, gid, euid, egid, .. }| Ids {
            uid,
            gid,
            suid: euid,
            sgid: egid,
            euid,
            egid,
            fsuid: euid,
            fsgid: egid,
        };
        // One that was not met yet has its ids from whichever thread made it.
        let is_inherited = own.is_none() && self.threads.iter().any(|(_, other)| after(*other) == ids);
        (after(expected) != ids && !is_inherited).then_some(expected)
    }

    /// Ids of a thread that differ from the leader's.
    fn own(&self, tid: u32) -> Option<Ids> {
        self.threads.iter().find(|(thread, _)| *thread == tid).map(|(_, ids)| *ids)
    }

    /// The ids that the thread had, if the record shows others; they are taken over.
    pub(crate) fn check(&mut self, tid: u32, is_leader: bool, ids: Ids, time: u64) -> Option<Ids> {
        if time < self.since {
            return None;
        }
        let own = self.own(tid);
        let expected = own.unwrap_or(self.ids);
        if expected == ids {
            return None;
        }
        // A thread that was not met yet inherited its ids from whichever thread made it.
        let inherited = own.is_none() && !is_leader && self.threads.iter().any(|(_, other)| *other == ids);
        self.set(tid, is_leader, ids, time);
        (!inherited).then_some(expected)
    }
}

/// What an exec's record says of its privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Privileges {
    /// Capabilities, bit n for capability n.
    pub(crate) effective: u64,
    /// Those that it can come to have: its bounding set.
    pub(crate) bounding: u64,
    /// Inode number.
    pub(crate) user_namespace: u32,
}

impl Privileges {
    /// `PROC_USER_INIT_INO`, `include/linux/proc_ns.h` (v6.18).
    const INITIAL_NAMESPACE: u32 = 0xEFFF_FFFD;

    /// Whether no system call leads here from `before`: a bounding set never grows within a user namespace, and nobody comes back
    /// to the initial one (`cap_prctl_drop`, security/commoncap.c; `userns_install`, `kernel/user_namespace.c`, v6.18). An exploit does
    /// both that takes over the kernel's own credentials; where it was root in a container, its ids say nothing.
    pub(crate) fn are_beyond(self, before: Self) -> bool {
        if self.user_namespace == before.user_namespace {
            self.bounding & !before.bounding != 0
        } else {
            self.user_namespace == Self::INITIAL_NAMESPACE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(uid: u32) -> Ids {
        Ids { uid, gid: uid, suid: uid, sgid: uid, euid: uid, egid: uid, fsuid: uid, fsgid: uid }
    }

    #[test]
    fn an_unexplained_change_is_told_once() {
        let mut expected = Expected::new(ids(1000), 10);
        assert_eq!(expected.check(5, true, ids(0), 20), Some(ids(1000)));
        assert_eq!(expected.check(5, true, ids(0), 30), None);
    }

    #[test]
    fn an_exec_makes_the_saved_ids_the_effective_ones() {
        let mut expected = Expected::new(ids(0), 10);
        expected.set(5, true, Ids { sgid: 1000, fsgid: 1000, ..ids(0) }, 20);
        assert_eq!(expected.check_exec(5, ids(0), 30), None);
        assert_eq!(expected.check_exec(5, ids(1000), 15), None);
        assert!(expected.check_exec(5, ids(1000), 30).is_some());
        // Another thread can have called it, with ids of its own.
        expected.set(6, false, ids(1000), 40);
        assert_eq!(expected.check_exec(6, ids(1000), 50), None);
        assert_eq!(expected.check_exec(6, ids(0), 50), Some(ids(1000)));
    }

    #[test]
    fn a_call_that_was_seen_explains_the_change() {
        let mut expected = Expected::new(ids(0), 10);
        expected.set(5, true, ids(1000), 20);
        assert_eq!(expected.check(5, true, ids(1000), 30), None);
    }

    #[test]
    fn an_exec_that_comes_late_does_not_undo_a_call() {
        let mut expected = Expected::new(ids(0), 10);
        expected.set(5, true, ids(1000), 30);
        expected.exec(ids(0), 20);
        assert_eq!(expected.check(5, true, ids(1000), 40), None);
    }

    #[test]
    fn an_older_record_proves_nothing() {
        let mut expected = Expected::new(ids(0), 10);
        expected.set(5, true, ids(1000), 20);
        assert_eq!(expected.check(5, true, ids(0), 15), None);
    }

    #[test]
    fn threads_may_have_ids_of_their_own() {
        let mut expected = Expected::new(ids(0), 10);
        expected.set(6, false, ids(1000), 20);
        assert_eq!(expected.check(6, false, ids(1000), 30), None);
        assert_eq!(expected.check(5, true, ids(0), 40), None);
        // A thread made by the one with other ids.
        assert_eq!(expected.check(7, false, ids(1000), 50), None);
        assert_eq!(expected.check(8, false, ids(77), 60), Some(ids(0)));
    }

    #[test]
    fn a_bounding_set_only_shrinks_and_nobody_comes_back_to_the_initial_namespace() {
        let initial = Privileges::INITIAL_NAMESPACE;
        let are = |bounding, user_namespace| Privileges { effective: 0, bounding, user_namespace };
        let container = are(0b0101, initial);
        assert!(!are(0b0101, initial).are_beyond(container));
        assert!(!are(0b0001, initial).are_beyond(container));
        assert!(are(0b0111, initial).are_beyond(container));
        assert!(are(0b0010, initial).are_beyond(container));
        // Whoever makes a user namespace has every capability in it, and is not let out.
        let own = are(u64::MAX, 7);
        assert!(!own.are_beyond(container));
        assert!(!are(u64::MAX, 8).are_beyond(own));
        assert!(are(0, initial).are_beyond(own));
    }
}
