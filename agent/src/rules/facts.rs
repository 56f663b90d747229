//! What rules ask of an event.

use std::{fmt, sync::Arc};

use tellwire_ebpf::{close::Close, filter::Filter, network, network::Connect};

use crate::events::action::Action;

/// `event.outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success = 0,
    Failure = 1,
    Unknown = 2,
}

const _: () = assert!(
    Outcome::Success as usize == Filter::SUCCESS
        && Outcome::Failure as usize == Filter::FAILURE
        && Outcome::Unknown as usize == Filter::UNKNOWN
);

impl Outcome {
    /// Whether it went well, by an errno that is 0 if it did.
    fn of_error(error: u32) -> Self {
        if error == 0 { Self::Success } else { Self::Failure }
    }
}

/// What happened, as far as rules ask; who acted comes from the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct What {
    pub(crate) action: Action,
    pub(crate) outcome: Option<Outcome>,
    /// Address, IPv4 as v4-mapped IPv6, and port.
    pub(crate) destination: Option<(u128, u16)>,
}

impl What {
    /// A successful exec, or ids that changed.
    pub(crate) fn success(action: Action) -> Self {
        Self { action, outcome: Some(Outcome::Success), destination: None }
    }

    pub(crate) fn exec_failed() -> Self {
        Self { action: Action::ExecFailed, outcome: Some(Outcome::Failure), destination: None }
    }

    pub(crate) fn exit() -> Self {
        Self { action: Action::Exit, outcome: None, destination: None }
    }

    pub(crate) fn connect(connect: &Connect) -> Self {
        let outcome = match network::Outcome::from_number(connect.outcome) {
            Some(network::Outcome::Established) => Outcome::Success,
            Some(network::Outcome::Unknown) | None => Outcome::Unknown,
            Some(_) => Outcome::Failure,
        };
        let destination = (u128::from_be_bytes(connect.tuple.remote), connect.tuple.remote_port);
        Self { action: Action::Connect, outcome: Some(outcome), destination: Some(destination) }
    }

    pub(crate) fn close(close: &Close) -> Self {
        let destination = (u128::from_be_bytes(close.tuple.remote), close.tuple.remote_port);
        Self { action: Action::Close, outcome: Some(Outcome::Success), destination: Some(destination) }
    }

    /// What libpam, a program or the kernel reported; `is_success` where it said so.
    pub(crate) fn reported(action: Action, is_success: Option<bool>) -> Self {
        let outcome = match is_success {
            Some(true) => Outcome::Success,
            Some(false) => Outcome::Failure,
            None => Outcome::Unknown,
        };
        Self { action, outcome: Some(outcome), destination: None }
    }

    /// A credential call; `error` is its errno, 0 for none.
    pub(crate) fn call(action: Action, error: u32) -> Self {
        Self { action, outcome: Some(Outcome::of_error(error)), destination: None }
    }
}

/// An event as rules see it. What is not known matches no condition.
#[derive(Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) what: What,
    pub(crate) executable: Option<&'a str>,
    /// Writes the command line; only an exec has one.
    pub(crate) args: Option<&'a dyn Fn(&mut String)>,
    /// The effective user.
    pub(crate) uid: u32,
    /// Looked up only where a rule asks for a name.
    pub(crate) user_name: Option<Arc<str>>,
    /// The container's id.
    pub(crate) container: Option<&'a str>,
    pub(crate) container_name: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) image: Option<&'a str>,
}

impl fmt::Debug for Facts<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Facts").field("what", &self.what).finish_non_exhaustive()
    }
}
