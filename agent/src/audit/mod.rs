//! The kernel's audit records of logins, sessions and accounts: what sshd, libpam, sudo and others report.
//!
//! `socket` joins the multicast group, a task reads it and hands records to the pipeline, which never waits for them.
//! `control` tells whether the kernel's auditing is on at all. auditd, where there is one, is not touched.

pub(crate) mod books;
mod control;
mod fields;
mod kinds;
mod record;
mod socket;
mod source;
mod task;

pub(crate) use self::{
    record::{Message, Record},
    source::{Facts, facts, start},
    task::Feed,
};
