//! Where somebody logs in: a private root of this machine, or a container.

use std::path::PathBuf;

use tellwire_tests::{Agent, Child, oci, private::Private, runtime, sys, terminal};

use crate::flows::Flow;

pub(crate) trait Place {
    /// Has a flow's program run at a terminal, in a child that the agent watches.
    fn start(&self, agent: &Agent, flow: &Flow) -> Child;
}

impl Place for Private {
    fn start(&self, agent: &Agent, flow: &Flow) -> Child {
        self.fork(agent, || {
            terminal::run(flow.program, flow.answers, || {
                if let Some(id) = flow.by {
                    sys::become_user(id);
                }
            })
        })
    }
}

/// One of a bare runc that runs.
pub(crate) struct Container {
    pub(crate) id: &'static str,
    /// runc's own folder.
    pub(crate) state: PathBuf,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _gone = oci::runc(&self.state).args(["delete", "--force", self.id]).output();
    }
}

impl Place for Container {
    fn start(&self, agent: &Agent, flow: &Flow) -> Child {
        let user = flow.by.map_or_else(|| "0".to_owned(), |id| format!("{id}:{id}"));
        let runc = runtime::program("runc", "runc");
        let [runc, state] = [&runc, &self.state].map(|path| path.to_str().expect("a path of text"));
        let mut program = vec![runc, "--root", state, "exec", "--user", &user];
        if !flow.caller.terminal.is_empty() {
            program.push("--tty");
        }
        program.push(self.id);
        program.extend(flow.program);
        agent.fork(|| terminal::run(&program, flow.answers, || {}))
    }
}
