//! The process table: who runs, since when, from whom. Seeded by the task iterator, kept by fork, exec
//! and exit, bounded, and safe against reused process ids.

use std::{collections::VecDeque, os::unix::ffi::OsStrExt as _, sync::Arc};

use rustc_hash::FxHashMap;
use tellwire_ebpf::{
    process::{Fork, Seed},
    wire::{Header, Subject},
};

use super::{
    container::Container,
    containers::Containers,
    credentials::{Expected, Privileges},
    entity::EntityId,
};
use crate::{events::text::text, host::HostRoot, redact::Redactor};

/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h` (v3.8 to v6.18): a process that is elsewhere is in a container,
/// if its cgroup's name can be one's.
const INITIAL_PID_NAMESPACE: u32 = 0xefff_fffc;

/// Ancestors that are followed at the most.
const ANCESTORS: usize = 8;

/// A process, by its id and its start: process ids come again, the two together do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProcessKey {
    pub(crate) tgid: u32,
    pub(crate) start: u64,
}

/// What is known of a process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) start: u64,
    pub(crate) entity_id: EntityId,
    pub(crate) parent: ProcessKey,
    /// Of the parent, which may never have been met.
    pub(crate) parent_entity_id: EntityId,
    /// As of its last record.
    pub(crate) name: Arc<str>,
    /// Absent for a process that was never seen to exec and is not in /proc.
    pub(crate) executable: Option<Arc<str>>,
    /// Where it is asked for.
    pub(crate) command_line: Option<Arc<str>>,
    /// At its last exec, or at that of the process that it was forked from.
    pub(crate) privileges: Option<Privileges>,
    pub(crate) vpid: Option<u32>,
    pub(crate) expected: Expected,
    /// The login uid and the audit session as of its last record; `u32::MAX` where never set.
    pub(crate) login: (u32, u32),
    pub(crate) container: Option<Arc<Container>>,
    /// The cgroups that `container` was found by.
    cgroups: (u64, u64),
    /// Inode number; 0 where not known.
    pid_namespace: u32,
    exited: bool,
}

impl Process {
    /// Looks the container up by the cgroups and the pid namespace.
    fn find_container(&mut self, containers: &Containers) {
        let isolated = !matches!(self.pid_namespace, 0 | INITIAL_PID_NAMESPACE);
        self.container = containers.of(self.cgroups.0, self.cgroups.1, isolated);
    }
}

/// All processes that are known.
#[derive(Debug)]
pub(crate) struct Processes {
    /// Boxed: a table of such entries has room for twice as many, and doubles in one step.
    map: FxHashMap<u32, Box<Process>>,
    /// Processes that ended, oldest first, with the time of their end.
    exited: VecDeque<(u64, ProcessKey)>,
    boot_id: String,
    max: usize,
    kept_ns: u64,
    /// Processes that had no room in the table.
    pub(crate) refused: u64,
}

impl Processes {
    pub(crate) fn new(boot_id: String, max: usize, kept_ns: u64) -> Self {
        Self { map: FxHashMap::default(), exited: VecDeque::new(), boot_id, max, kept_ns, refused: 0 }
    }

    /// Other limits. Processes beyond a smaller one stay until they end.
    pub(crate) fn limit(&mut self, max: usize, kept_ns: u64) {
        self.max = max;
        self.kept_ns = kept_ns;
    }

    /// Takes in what ran before the agent; /proc adds the executable, which the iterator cannot give.
    pub(crate) fn seed(
        &mut self,
        host: &HostRoot,
        seeds: &[Seed],
        containers: &Containers,
        redactor: &Redactor,
    ) {
        for Seed { subject, vpid, pid_namespace } in seeds {
            let executable = executable(host, subject.tgid, redactor);
            let mut subject = *subject;
            redactor.comm(&mut subject);
            let Some(process) = self.adopt(&subject, 0, containers) else { continue };
            process.vpid = Some(*vpid);
            process.pid_namespace = *pid_namespace;
            process.executable = executable;
            process.find_container(containers);
        }
    }

    /// The entity id of a process that is not in the table.
    pub(crate) fn entity_id(&self, key: ProcessKey) -> EntityId {
        EntityId::new(&self.boot_id, key.tgid, key.start)
    }

    pub(crate) fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.map.get(&key.tgid).map(|process| &**process).filter(|process| process.start == key.start)
    }

    pub(crate) fn get_mut(&mut self, key: ProcessKey) -> Option<&mut Process> {
        self.map.get_mut(&key.tgid).map(|process| &mut **process).filter(|process| process.start == key.start)
    }

    /// Sees to it that a record's subject is in the table, with its container as of now; `None` where the table is full.
    pub(crate) fn meet(
        &mut self,
        subject: &Subject,
        time: u64,
        containers: &Containers,
    ) -> Option<&mut Process> {
        let key = subject.key();
        if self.get(key).is_none() {
            self.adopt(subject, time, containers)?;
        } else {
            self.refresh_container(subject, containers);
        }
        let parent = subject.parent_key();
        let adopted_by = match self.get(key) {
            // Its parent has ended, and it has another one.
            Some(process) if process.parent != parent => Some(self.entity_id(parent)),
            _ => None,
        };
        let process = self.get_mut(key)?;
        if let Some(entity_id) = adopted_by {
            process.parent = parent;
            process.parent_entity_id = entity_id;
        }
        process.login = (subject.login_uid, subject.session_id);
        if !is_comm(&process.name, subject) {
            process.name = comm(subject);
        }
        Some(process)
    }

    /// A child: what it has from its parent is taken over.
    pub(crate) fn fork(&mut self, child: &Subject, fork: &Fork, time: u64, containers: &Containers) {
        let inherited = self.get(child.parent_key()).map(|parent| {
            let container = (parent.container.clone(), parent.cgroups, parent.pid_namespace);
            let image = (parent.executable.clone(), parent.command_line.clone(), parent.privileges);
            (image, container)
        });
        let key = child.key();
        // A later record of the child can have come first: the ids that it showed stay.
        let process =
            if self.get(key).is_some() { self.get_mut(key) } else { self.adopt(child, time, containers) };
        let Some(process) = process else { return };
        process.vpid = Some(fork.vpid);
        if process.pid_namespace != fork.pid_namespace {
            process.pid_namespace = fork.pid_namespace;
            process.find_container(containers);
        }
        if let Some((image, (container, cgroups, pid_namespace))) = inherited {
            (process.executable, process.command_line, process.privileges) = image;
            if cgroups == process.cgroups && pid_namespace == fork.pid_namespace {
                process.container = container;
            }
        }
    }

    /// A new image, by the exec's record. Gives the privileges that are known of before.
    pub(crate) fn exec(&mut self, by: &Header, image: &Image, containers: &Containers) -> Option<Privileges> {
        let process = self.meet(&by.subject, by.time, containers)?;
        process.executable = Some(Arc::clone(&image.executable));
        process.command_line.clone_from(&image.command_line);
        process.vpid = Some(image.vpid);
        if process.pid_namespace != image.pid_namespace {
            process.pid_namespace = image.pid_namespace;
            process.find_container(containers);
        }
        process.privileges.replace(image.privileges)
    }

    /// The end of a process. It stays for a while: its children's lines name it.
    pub(crate) fn exit(&mut self, key: ProcessKey, time: u64) {
        if let Some(process) = self.get_mut(key)
            && !process.exited
        {
            process.exited = true;
            self.exited.push_back((time, key));
        }
    }

    /// Forgets processes that ended a while before `now`.
    pub(crate) fn expire(&mut self, now: u64) {
        while self.exited.front().is_some_and(|(time, _)| now.saturating_sub(*time) > self.kept_ns) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.exited.pop_front() else { return false };
        // The process id can belong to another process by now.
        if self.get(key).is_some() {
            self.map.remove(&key.tgid);
        }
        true
    }

    /// A subject for a process of which there is no record, only its id.
    pub(crate) fn subject(&self, pid: u32, thread: u32) -> Option<Subject> {
        let process = self.map.get(&pid)?;
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(process.name.bytes().take(15)) {
            *to = from;
        }
        Some(Subject {
            tgid: pid,
            tid: thread,
            start: process.start,
            parent_tgid: process.parent.tgid,
            exec_id: 0,
            parent_start: process.parent.start,
            ids: process.expected.ids(),
            cgroup_v2: process.cgroups.0,
            cgroup_v1: process.cgroups.1,
            comm,
            login_uid: process.login.0,
            session_id: process.login.1,
        })
    }

    /// Containers that have processes, and the cgroups of one of these: in v2 and in v1.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&Arc<Container>, (u64, u64))> {
        let alive = self.map.values().filter(|process| !process.exited);
        alive.filter_map(|process| Some((process.container.as_ref()?, process.cgroups)))
    }

    /// Whether it is known to have ended, or not known at all.
    pub(crate) fn has_ended(&self, key: ProcessKey) -> bool {
        self.get(key).is_none_or(|process| process.exited)
    }

    /// The same by the process id alone, which another process can have by now.
    pub(crate) fn is_gone(&self, tgid: u32) -> bool {
        self.map.get(&tgid).is_none_or(|process| process.exited)
    }

    /// Parents of a process's parent, the nearest first.
    pub(crate) fn ancestors(&self, parent: ProcessKey) -> impl Iterator<Item = (ProcessKey, &Process)> {
        self.lineage(parent).skip(1)
    }

    /// A process's parent and its ancestors, the nearest first.
    pub(crate) fn lineage(&self, parent: ProcessKey) -> impl Iterator<Item = (ProcessKey, &Process)> {
        let next = move |key: ProcessKey| self.get(key).map(|process| (key, process));
        std::iter::successors(next(parent), move |(_, process)| next(process.parent)).take(ANCESTORS + 1)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Inserts the subject as far as its record tells.
    fn adopt(&mut self, subject: &Subject, time: u64, containers: &Containers) -> Option<&mut Process> {
        let key = subject.key();
        if self.map.len() >= self.max && !self.map.contains_key(&key.tgid) && !self.forget_oldest() {
            self.refused += 1;
            return None;
        }
        let parent = subject.parent_key();
        let (parent_entity_id, name) = match self.get(parent) {
            // A child has its parent's name at first.
            Some(process) => {
                (process.entity_id, is_comm(&process.name, subject).then(|| Arc::clone(&process.name)))
            }
            None => (self.entity_id(parent), None),
        };
        let process = Process {
            start: key.start,
            entity_id: self.entity_id(key),
            parent,
            parent_entity_id,
            name: name.unwrap_or_else(|| comm(subject)),
            executable: None,
            command_line: None,
            privileges: None,
            vpid: None,
            expected: Expected::new(subject.ids, time),
            login: (subject.login_uid, subject.session_id),
            container: containers.of(subject.cgroup_v2, subject.cgroup_v1, false),
            cgroups: (subject.cgroup_v2, subject.cgroup_v1),
            pid_namespace: 0,
            exited: false,
        };
        self.map.insert(key.tgid, Box::new(process));
        self.map.get_mut(&key.tgid).map(|process| &mut **process)
    }

    /// Looks the container up again where the process has moved to another cgroup.
    fn refresh_container(&mut self, subject: &Subject, containers: &Containers) {
        let Some(process) = self.get_mut(subject.key()) else { return };
        let cgroups = (subject.cgroup_v2, subject.cgroup_v1);
        if process.cgroups != cgroups {
            process.cgroups = cgroups;
            process.find_container(containers);
        }
    }
}

/// What an exec brings to the table.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) executable: Arc<str>,
    pub(crate) command_line: Option<Arc<str>>,
    pub(crate) privileges: Privileges,
    pub(crate) vpid: u32,
    /// Inode number.
    pub(crate) pid_namespace: u32,
}

/// A record's subject as keys of the table.
pub(crate) trait Keys {
    fn key(&self) -> ProcessKey;
    fn parent_key(&self) -> ProcessKey;
}

impl Keys for Subject {
    fn key(&self) -> ProcessKey {
        ProcessKey { tgid: self.tgid, start: self.start }
    }

    fn parent_key(&self) -> ProcessKey {
        ProcessKey { tgid: self.parent_tgid, start: self.parent_start }
    }
}

/// Whether `name` is what the kernel calls the task; told without making text of it.
fn is_comm(name: &str, subject: &Subject) -> bool {
    let comm = &subject.comm;
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    comm.get(..end) == Some(name.as_bytes()) && !name.contains('\\')
}

/// The kernel's name of the task, as text.
pub(crate) fn comm(subject: &Subject) -> Arc<str> {
    let end = subject.comm.iter().position(|byte| *byte == 0).unwrap_or(subject.comm.len());
    text(subject.comm.get(..end).unwrap_or_default()).into()
}

fn executable(host: &HostRoot, tgid: u32, redactor: &Redactor) -> Option<Arc<str>> {
    let target = std::fs::read_link(host.join(&format!("/proc/{tgid}/exe"))).ok()?;
    Some(text(&redactor.redacted(target.as_os_str().as_bytes())).into())
}

#[cfg(test)]
mod tests {
    use tellwire_ebpf::wire::Ids;
    use zerocopy::FromZeros as _;

    use super::*;

    fn subject(tgid: u32, start: u64, parent: (u32, u64)) -> Subject {
        let mut subject = Subject::new_zeroed();
        subject.tgid = tgid;
        subject.tid = tgid;
        subject.start = start;
        (subject.parent_tgid, subject.parent_start) = parent;
        subject.comm[..2].copy_from_slice(b"sh");
        subject.ids = Ids { uid: 0, gid: 0, suid: 0, sgid: 0, euid: 0, egid: 0, fsuid: 0, fsgid: 0 };
        subject
    }

    fn table(max: usize) -> Processes {
        Processes::new("boot".into(), max, 1_000)
    }

    fn fork(table: &mut Processes, child: &Subject) {
        let fork = Fork { vpid: child.tgid, pid_namespace: 0, parent_tid: 0, reserved: 0 };
        table.fork(child, &fork, child.start, &Containers::default());
    }

    #[test]
    fn a_reused_process_id_is_another_process() {
        let mut table = table(10);
        fork(&mut table, &subject(7, 100, (1, 0)));
        table.exit(ProcessKey { tgid: 7, start: 100 }, 200);
        fork(&mut table, &subject(7, 300, (1, 0)));
        assert!(table.get(ProcessKey { tgid: 7, start: 100 }).is_none());
        // The old one's expiry must not take the new one away.
        table.expire(10_000);
        assert!(table.get(ProcessKey { tgid: 7, start: 300 }).is_some());
    }

    #[test]
    fn an_exited_process_stays_a_while_and_goes() {
        let mut table = table(10);
        let key = ProcessKey { tgid: 7, start: 100 };
        fork(&mut table, &subject(7, 100, (1, 0)));
        table.exit(key, 200);
        table.exit(key, 201);
        table.expire(1_100);
        assert!(table.get(key).is_some());
        table.expire(1_300);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_full_table_forgets_the_dead_first_and_then_refuses() {
        let mut table = table(2);
        fork(&mut table, &subject(1, 1, (0, 0)));
        fork(&mut table, &subject(2, 2, (1, 1)));
        table.exit(ProcessKey { tgid: 1, start: 1 }, 5);
        fork(&mut table, &subject(3, 3, (2, 2)));
        assert_eq!((table.len(), table.refused), (2, 0));
        fork(&mut table, &subject(4, 4, (2, 2)));
        assert_eq!((table.len(), table.refused), (2, 1));
    }

    #[test]
    fn ancestors_follow_the_parents_and_end_at_a_stranger() {
        let mut table = table(10);
        for (tgid, parent) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
            fork(&mut table, &subject(tgid, tgid.into(), (parent, parent.into())));
        }
        let ancestors: Vec<u32> =
            table.ancestors(ProcessKey { tgid: 3, start: 3 }).map(|(key, _)| key.tgid).collect();
        assert_eq!(ancestors, [2, 1]);
    }

    #[test]
    fn a_process_that_is_its_own_ancestor_ends_the_walk() {
        let mut table = table(10);
        fork(&mut table, &subject(2, 2, (2, 2)));
        assert_eq!(table.ancestors(ProcessKey { tgid: 2, start: 2 }).count(), ANCESTORS);
    }
}
