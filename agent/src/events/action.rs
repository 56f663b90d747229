//! Actions: the closed set of `event.action` values.

use tellwire_ebpf::{pam, privilege::Call};

macro_rules! actions {
    ($($variant:ident = $name:literal, $family:literal, $category:literal, $type:literal, $about:literal;)*) => {
        /// What a line tells; a label of metrics.
        #[expect(clippy::doc_markdown, reason = "the texts are for people at a terminal too")]
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
        "A process has other ids than it had, by no call that was seen and no set-id program, or a bounding set that grew.";
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
    UserLogin = "user_login", "auth", "authentication", "start",
        "A program let somebody log in, or refused to (audit record USER_LOGIN).";
    UserLogout = "user_logout", "auth", "authentication", "end", "Somebody logged out (USER_LOGOUT).";
    UserAuth = "user_auth", "auth", "authentication", "start", "Somebody was to prove who they are (USER_AUTH).";
    UserAccount = "user_account", "auth", "authentication", "info",
        "Whether an account may be used here and now (USER_ACCT).";
    UserSessionStart = "user_session_start", "auth", "session", "start", "A session was opened (USER_START).";
    UserSessionEnd = "user_session_end", "auth", "session", "end", "A session was closed (USER_END).";
    UserError = "user_error", "auth", "authentication", "info",
        "A program could not tell whom to authenticate (USER_ERR).";
    UserCommand = "user_command", "auth", "session", "info",
        "A command was run for somebody by sudo or the like (USER_CMD); the exec tells which.";
    UserChanged = "user_changed", "auth", "iam", "user", "A property of an account was changed (USER_MGMT, CHUSER_ID).";
    UserPasswordChanged = "user_password_changed", "auth", "iam", "change",
        "A password was changed, or was to be (USER_CHAUTHTOK).";
    CredentialsAcquired = "credentials_acquired", "auth", "authentication", "info",
        "A program took the credentials of a user (CRED_ACQ).";
    CredentialsDisposed = "credentials_disposed", "auth", "authentication", "info",
        "A program gave the credentials of a user up (CRED_DISP).";
    CredentialsRefreshed = "credentials_refreshed", "auth", "authentication", "info",
        "A program renewed the credentials of a user (CRED_REFR).";
    LoginUidSet = "login_uid_set", "auth", "session", "info",
        "The kernel was told whose login a process belongs to (LOGIN).";
    AccountAdded = "account_added", "auth", "iam", "creation", "An account was added (ADD_USER).";
    AccountDeleted = "account_deleted", "auth", "iam", "deletion", "An account was deleted (DEL_USER).";
    AccountLocked = "account_locked", "auth", "iam", "change", "An account was locked (ACCT_LOCK, RESP_ACCT_LOCK).";
    AccountUnlocked = "account_unlocked", "auth", "iam", "change", "An account was unlocked (ACCT_UNLOCK).";
    GroupAdded = "group_added", "auth", "iam", "creation", "A group was added (ADD_GROUP).";
    GroupDeleted = "group_deleted", "auth", "iam", "deletion", "A group was deleted (DEL_GROUP).";
    GroupChanged = "group_changed", "auth", "iam", "group",
        "A group, its members or its password were changed (GRP_MGMT, GRP_CHAUTHTOK, CHGRP_ID).";
    GroupAuth = "group_auth", "auth", "authentication", "start", "Somebody gave a group's password (GRP_AUTH).";
    RoleChanged = "role_changed", "auth", "iam", "change", "A role was given or taken (ROLE_ASSIGN and the like).";
    LoginAnomaly = "login_anomaly", "auth", "authentication", "info",
        "A program found a login odd: too many failures, at a wrong time, from a wrong place (ANOM_LOGIN_*).";
    AuthBruteforce = "auth_bruteforce", "auth", "authentication", "info",
        "Many authentications failed from one address or for one user within a short time.";
    ContainerRunning = "container_running", "container", "host", "info",
        "A container that ran already when the agent started.";
    ContainerCreated = "container_created", "container", "host", "info",
        "A runtime made a container, which does not run yet. Only from runtimes that tell.";
    ContainerStarted = "container_started", "container", "host", "start",
        "The first program of a container was executed: the process is that one.";
    ContainerStopped = "container_stopped", "container", "host", "end", "The last cgroup of a container was removed.";
    ContainerNamed = "container_named", "container", "host", "info",
        "Enrichment: the names of a container whose lines went out without them. It is joined by container.id.";
    AgentStarted = "agent_started", "agent", "host", "start", "The agent looks from here on.";
    AgentStopped = "agent_stopped", "agent", "host", "end", "The agent has stopped looking.";
    EventsLost = "events_lost", "agent", "host", "info", "Events of a while made no line, though they should have.";
    ProbeLost = "probe_lost", "agent", "host", "change", "Somebody has detached a probe.";
    ConfigChanged = "config_changed", "agent", "configuration", "change",
        "The configuration was read again, and taken over or refused as a whole.";
    ClockChanged = "clock_changed", "agent", "host", "change", "The wall clock was set.";
    Ledger = "ledger", "agent", "host", "info", "Once a minute: what was seen, and what became of it.";
}

/// Numbers of RFC 5424, which the journal has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Warning = 4,
    Notice = 5,
    Info = 6,
}

impl Action {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// What fails is worth a second look; ids that change by nothing that was seen are worth a first.
    pub(crate) const fn severity(self, is_failure: bool) -> Severity {
        match self {
            Self::CredentialsChanged => Severity::Warning,
            _ if is_failure => Severity::Notice,
            _ => Severity::Info,
        }
    }

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
