//! Who acted: a record's subject with what the tables know of it, ready for any line.

use std::sync::Arc;

use tellwire_ebpf::wire::Subject;

use super::{
    container::Container,
    containers::Containers,
    entity::EntityId,
    processes::{Keys as _, Processes, comm},
};

/// The process of a line.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) subject: Subject,
    pub(crate) entity_id: EntityId,
    pub(crate) name: Arc<str>,
    pub(crate) executable: Option<Arc<str>>,
    pub(crate) vpid: Option<u32>,
    pub(crate) container: Option<Arc<Container>>,
    pub(crate) parent: Relative,
}

/// A parent, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Relative {
    pub(crate) pid: u32,
    pub(crate) entity_id: EntityId,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) executable: Option<Arc<str>>,
    pub(crate) command_line: Option<Arc<str>>,
}

impl Who {
    /// Looks the subject up. Where the table has no room for it, the record speaks for itself.
    pub(crate) fn new(subject: &Subject, processes: &Processes, containers: &Containers) -> Self {
        let parent_key = subject.parent_key();
        let parent = processes.get(parent_key);
        let process = processes.get(subject.key());
        let parent = Relative {
            pid: subject.parent_tgid,
            entity_id: match (process, parent) {
                (Some(process), _) if process.parent == parent_key => process.parent_entity_id,
                (_, Some(parent)) => parent.entity_id,
                _ => processes.entity_id(parent_key),
            },
            name: parent.map(|parent| Arc::clone(&parent.name)),
            executable: parent.and_then(|parent| parent.executable.clone()),
            command_line: parent.and_then(|parent| parent.command_line.clone()),
        };
        Self {
            subject: *subject,
            entity_id: process
                .map_or_else(|| processes.entity_id(subject.key()), |process| process.entity_id),
            name: process.map_or_else(|| comm(subject), |process| Arc::clone(&process.name)),
            executable: process.and_then(|process| process.executable.clone()),
            vpid: process.and_then(|process| process.vpid).filter(|vpid| *vpid != subject.tgid),
            container: match process {
                Some(process) => process.container.clone(),
                None => containers.of(subject.cgroup_v2, subject.cgroup_v1, false),
            },
            parent,
        }
    }
}
