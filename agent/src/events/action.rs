//! Actions: the closed set of `event.action` values.

use tellwire_ebpf::{pam, privilege::Call};

macro_rules! actions {
    ($($variant:ident = $name:literal, $family:literal, $category:literal, $type:literal, $about:literal;)*) => {
        /// What a line tells; a label of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Action { $(#[doc = $about] $variant,)* }

        impl Action {
            /// Every action, by its number.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// `event.action`.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// `event.dataset`.
            pub(crate) const fn dataset(self) -> &'static str {
                match self { $(Self::$variant => concat!("tellwire.", $family),)* }
            }

            /// `event.category`.
            pub(crate) const fn category(self) -> &'static str {
                match self { $(Self::$variant => $category,)* }
            }

            /// `event.type`.
            pub(crate) const fn event_type(self) -> &'static str {
                match self { $(Self::$variant => $type,)* }
            }

            /// What the line means, for the documentation.
            pub(crate) const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }

        /// The names that `--types` takes.
        pub(crate) const NAMES: &[&str] = &[$($name),*];
    };
}

actions! {
    Exec = "exec", "process", "process", "start", "A new program image was committed.";
    ExecFailed = "exec_failed", "process", "process", "info", "An exec gave no new image.";
    Exit = "exit", "process", "process", "end", "The last thread of a process ended.";
    Connect = "connect", "network", "network", "connection", "A TCP connection was tried, with its final outcome.";
    Close = "close", "network", "network", "end",
        "A TCP connection that this host opened was closed, with its duration and what it carried.";
    Setuid = "setuid", "privilege", "iam", "change", "setuid(2).";
    Setgid = "setgid", "privilege", "iam", "change", "setgid(2).";
    Setreuid = "setreuid", "privilege", "iam", "change", "setreuid(2).";
    Setregid = "setregid", "privilege", "iam", "change", "setregid(2).";
    Setresuid = "setresuid", "privilege", "iam", "change", "setresuid(2).";
    Setresgid = "setresgid", "privilege", "iam", "change", "setresgid(2).";
    Setfsuid = "setfsuid", "privilege", "iam", "change", "setfsuid(2).";
    Setfsgid = "setfsgid", "privilege", "iam", "change", "setfsgid(2).";
    Setgroups = "setgroups", "privilege", "iam", "change", "setgroups(2).";
    Capset = "capset", "privilege", "iam", "change", "capset(2).";
    CredentialsChanged = "credentials_changed", "privilege", "iam", "change",
        "A process has other ids than it had, by no call that was seen and no set-id program.";
    PamAuthenticate = "pam_authenticate", "auth", "authentication", "info",
        "A program had PAM check a proof of who somebody is, such as a password.";
    PamAccount = "pam_account", "auth", "authentication", "info",
        "A program asked PAM whether the account may be used now.";
    PamSetcred = "pam_setcred", "auth", "authentication", "info",
        "A program had PAM set or delete the credentials of the user.";
    PamSessionOpen = "pam_session_open", "auth", "session", "start",
        "A session began: somebody is in, by a proof or without one.";
    PamSessionClose = "pam_session_close", "auth", "session", "end", "A session ended.";
    PamChauthtok = "pam_chauthtok", "auth", "iam", "change",
        "A program had PAM change a password, or asked whether it may be changed.";
    AgentStarted = "agent_started", "agent", "host", "start", "The agent looks from here on.";
    AgentStopped = "agent_stopped", "agent", "host", "end", "The agent has stopped looking.";
    EventsLost = "events_lost", "agent", "host", "info", "Events of a while made no line, though they should have.";
    ProbeLost = "probe_lost", "agent", "host", "change", "Somebody has detached a probe.";
    ConfigChanged = "config_changed", "agent", "configuration", "change",
        "The configuration was read again, and taken over or refused as a whole.";
    ClockChanged = "clock_changed", "agent", "host", "change", "The wall clock was set.";
    Ledger = "ledger", "agent", "host", "info", "Once a minute: what was seen, and what became of it.";
}

impl Action {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The action of a call of libpam.
    pub(crate) const fn of_pam(call: pam::Call) -> Self {
        match call {
            pam::Call::Authenticate => Self::PamAuthenticate,
            pam::Call::Account => Self::PamAccount,
            pam::Call::Setcred => Self::PamSetcred,
            pam::Call::SessionOpen => Self::PamSessionOpen,
            pam::Call::SessionClose => Self::PamSessionClose,
            pam::Call::Chauthtok => Self::PamChauthtok,
        }
    }

    /// The action of a credential call.
    pub(crate) const fn of_call(call: Call) -> Self {
        match call {
            Call::Setuid => Self::Setuid,
            Call::Setgid => Self::Setgid,
            Call::Setreuid => Self::Setreuid,
            Call::Setregid => Self::Setregid,
            Call::Setresuid => Self::Setresuid,
            Call::Setresgid => Self::Setresgid,
            Call::Setfsuid => Self::Setfsuid,
            Call::Setfsgid => Self::Setfsgid,
            Call::Setgroups => Self::Setgroups,
            Call::Capset => Self::Capset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_and_its_action_have_one_name() {
        for call in Call::ALL {
            assert_eq!(Action::of_call(*call).name(), call.name());
        }
        for call in pam::Call::ALL {
            assert_eq!(Action::of_pam(*call).name(), call.name());
        }
    }
}
