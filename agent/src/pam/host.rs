//! What libpam there is on the host, and what none tells.

use serde_json::{Value, json};

use super::{
    books::PamBooks,
    root::RootDirectory,
    table::{Seen, Table},
};
use crate::{host::HostRoot, kernel::libraries::Libraries};

/// What there is on the host.
#[derive(Debug, Default)]
pub(crate) struct HostLibraries(pub(super) Seen);

/// Who is told nothing of by any libpam that is probed, here or elsewhere; docs/auth.md says more.
const NOT_COVERED: [&str; 4] = [
    "programs that do without PAM: BusyBox's login, su and passwd, dropbear, OpenSSH as Alpine builds it",
    "programs with libpam linked in statically, and libraries in unusual places",
    "32-bit libraries on 64-bit machines",
    "containers whose image has no libpam",
];

impl HostLibraries {
    /// In one line.
    pub(crate) fn text(&self) -> String {
        let Seen { attached, refused } = &self.0;
        let refused = refused.iter().map(|(path, why)| format!("not {path}: {why}"));
        let all: Vec<_> = attached.iter().cloned().chain(refused).collect();
        if all.is_empty() { "none found".into() } else { all.join("; ") }
    }

    /// For `tellwire check`: what can be attached to, and what cannot, with the reason.
    pub(crate) fn json(&self) -> Value {
        let Seen { attached, refused } = &self.0;
        let refused: Vec<_> =
            refused.iter().map(|(path, why)| json!({"path": path, "reason": why})).collect();
        json!({"attached": attached, "refused": refused, "not_covered": self.not_covered()})
    }

    /// What calls of libpam do not tell, a sentence each.
    pub(crate) fn not_covered(&self) -> Vec<&'static str> {
        let host = self.0.attached.is_empty().then_some("the host itself: no libpam of it is probed");
        host.into_iter().chain(NOT_COVERED).collect()
    }

    /// What is wrong: there is a library, and nothing is attached to any.
    pub(super) fn fault(&self) -> Option<String> {
        (self.0.attached.is_empty() && !self.0.refused.is_empty())
            .then(|| format!("PAM calls of the host are not seen: {}", self.text()))
    }
}

/// Attaches to the host's libraries for a moment, to say what is there.
pub(crate) fn on_host(host: &HostRoot, libraries: &Libraries) -> HostLibraries {
    let mut table = Table::new(libraries.clone());
    let found = RootDirectory::open(&host.join("/"), true).map(|directory| {
        let id = directory.id(0);
        let seen = table.look(id, &directory, &PamBooks::default());
        table.gone(id, &PamBooks::default());
        seen
    });
    HostLibraries(found.unwrap_or_default())
}
