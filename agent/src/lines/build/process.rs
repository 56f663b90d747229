//! Lines of the family `process`: exec, failed exec, exit.

use std::sync::Arc;

use tellwire_ebpf::{
    exec as wire,
    process::Exit,
    wire::{Capabilities as Sets, Ids},
};

use super::{Frame, group, sets, user};
use crate::{
    enrich::{
        processes::{Process, ProcessKey},
        users::Users,
    },
    events::{
        action::Action,
        exec::{Exec, ExecFailed},
        paths::absolute,
        text::text,
    },
    lines::{
        Line,
        fields::{
            Ancestor, Capabilities, ErrorCode, ExecFacts, ExitFacts, Id, Namespaces, Owner, Parent, Thread,
            Tty,
        },
        names,
    },
};

/// Ancestors beyond the parent that an exec of the profile `default` names.
const ANCESTORS: usize = 4;

/// Room for so many arguments is made at once.
const ARGS: usize = 64;

/// A new program image, with every field of the process.
pub(crate) fn exec<'a>(
    frame: &Frame<'a>,
    exec: &'a Exec<'a>,
    texts: &'a ExecTexts,
    lineage: Lineage<'a>,
    all_capabilities: u64,
    users: &mut Users,
) -> Line<'a> {
    let mut line = frame.line(Action::Exec, Some("success"), users);
    let Lineage { mut ancestors, parent_capabilities } = lineage;
    if !frame.is_full() {
        ancestors.truncate(ANCESTORS);
    }
    let Ids { uid, gid, suid, sgid, euid, egid, .. } = frame.who.subject.ids;
    let facts = &exec.wire;
    let process = &mut line.process;
    process.executable = Some(&texts.executable);
    let mut args = Vec::with_capacity(usize::try_from(facts.argc).unwrap_or(usize::MAX).min(ARGS));
    args.extend(exec.args().map(text));
    process.args = Some(args);
    process.args_count = Some(facts.argc);
    if exec.args_truncated() {
        process.args_truncated = Some(true);
        process.args_total_bytes = Some(facts.args_total);
    }
    process.working_directory = Some(&texts.working_directory);
    process.start = Some(texts.start.clone());
    let tty = facts.tty.split(|byte| *byte == 0).next().unwrap_or_default();
    process.interactive = (frame.is_full() || !tty.is_empty()).then_some(!tty.is_empty());
    process.tty = (!tty.is_empty()).then(|| Tty { name: names::terminal(&text(tty)) });
    process.command_line = texts.command_line.as_deref();
    process.parent = Some(Parent {
        command_line: frame.who.parent.command_line.as_deref().filter(|_| texts.command_line.is_some()),
        ..frame.parent()
    });
    // In `default` what is the same as the user or the group that the process acts as is not said again.
    let is_told = |id: u32, like: u32| frame.is_full() || id != like;
    process.user = frame.is_full().then(|| user(euid, users));
    process.real_user = is_told(uid, euid).then(|| user(uid, users));
    process.saved_user = is_told(suid, euid).then(|| user(suid, users));
    process.group = Some(group(egid, users));
    process.real_group = is_told(gid, egid).then(|| group(gid, users));
    process.saved_group = is_told(sgid, egid).then(|| group(sgid, users));
    process.thread = capabilities(&facts.capabilities, all_capabilities)
        // Nor are capabilities that it simply has from its parent.
        .filter(|_| frame.is_full() || parent_capabilities != Some(facts.capabilities.effective))
        .map(|capabilities| Thread { id: None, capabilities: Some(capabilities) });
    let facts = exec_facts(frame, exec, texts, ancestors);
    line.tellwire.exec = (facts != ExecFacts::default()).then(|| Box::new(facts));
    line
}

fn exec_facts<'a>(
    frame: &Frame<'a>,
    exec: &'a Exec<'a>,
    texts: &'a ExecTexts,
    ancestors: Vec<Ancestor<'a>>,
) -> ExecFacts<'a> {
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
        filename: (frame.is_full() || *filename != *texts.executable).then_some(filename),
        evidence: None,
        interpreter: is_script.then(|| text(exec.interpreter)),
        inode: frame.is_full().then_some(facts.inode),
        device: frame.is_full().then(|| format!("{}:{}", facts.device >> 20, facts.device & 0xf_ffff)),
        unlinked: (facts.links == 0)
            .then(|| if texts.executable.starts_with("memfd:") { "memfd" } else { "deleted" }),
        not_in_image: exec.has(wire::Exec::FLAG_LAYER_KNOWN).then(|| exec.has(wire::Exec::FLAG_UPPER_LAYER)),
        set_id,
        secure: exec.has(wire::Exec::FLAG_SECURE).then_some(true),
        owner: (frame.is_full() || facts.owner_uid != 0)
            .then_some(Owner { uid: Id(facts.owner_uid), gid: Id(facts.owner_gid) }),
        namespaces: frame.is_full().then_some(Namespaces { cgroup, ipc, mnt, net, pid, time, user, uts }),
        env_count: frame.is_full().then_some(facts.envc),
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
    /// The arguments in one piece, where that is asked for.
    pub(crate) command_line: Option<Arc<str>>,
}

/// What an exec's line says of the processes that it comes from.
#[derive(Debug)]
pub(crate) struct Lineage<'a> {
    pub(crate) ancestors: Vec<Ancestor<'a>>,
    /// The parent's effective capabilities at its own exec, where they are known.
    pub(crate) parent_capabilities: Option<u64>,
}

impl<'a> Lineage<'a> {
    /// `chain` are the ancestors, the nearest first.
    pub(crate) fn new(
        chain: impl Iterator<Item = (ProcessKey, &'a Process)>,
        parent_capabilities: Option<u64>,
    ) -> Self {
        let ancestors = chain.map(|(key, process)| Ancestor { pid: key.tgid, name: &process.name }).collect();
        Self { ancestors, parent_capabilities }
    }
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
    line.event.reason = Some(exit.reason().name().into());
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

/// The names, where they say more than all or none.
fn capabilities(of: &Sets, all: u64) -> Option<Capabilities> {
    let Sets { effective, permitted, .. } = *of;
    (names::is_partial(effective, all) || names::is_partial(permitted, all))
        .then(|| sets(effective, permitted))
}
