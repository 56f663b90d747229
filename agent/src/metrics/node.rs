//! What happened on the node, counted in the kernel.

use std::{fmt::Error, sync::atomic::Ordering::Relaxed};

use tellwire_ebpf::{
    counters::{BYTES_RECEIVED, BYTES_SENT, CONNECTS, CREDENTIALS, EXECS, EXITS, Ledger},
    network::{Outcome, Scope},
    privilege::Call,
    process::ExitReason,
    wire::Kind,
};

use super::{Parts, encode::Sink};
use crate::{events::action::Action, kernel::ledger::Totals};

const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

impl Totals {
    pub(super) fn at(&self, counter: u32) -> u64 {
        self.sums.get(counter as usize).copied().unwrap_or(0)
    }

    fn connects(&self, family: u32, scope: Scope, outcome: Outcome) -> u64 {
        self.at(CONNECTS + (family * 3 + scope as u32) * 16 + outcome as u32)
    }

    fn call(&self, call: Call, failed: u32) -> u64 {
        self.at(CREDENTIALS + call as u32 * 2 + failed)
    }

    /// Events of an action, as the kernel counted them; 0 for what the agent derives. Where each makes one record, the
    /// ledger has counted it.
    fn events(&self, action: Action, ledger: &[Ledger]) -> u64 {
        if let Some(calls) = self.pam_calls(action) {
            return calls;
        }
        match action {
            Action::Exec => self.at(EXECS),
            Action::ExecFailed => self.at(EXECS + 1),
            Action::Exit => ExitReason::ALL.iter().map(|reason| self.at(EXITS + *reason as u32)).sum(),
            Action::Connect => (CONNECTS..CREDENTIALS).map(|counter| self.at(counter)).sum(),
            Action::Close => ledger.get(Kind::Close as usize).map_or(0, |close| close.seen),
            Action::CredentialsChanged => 0,
            _ => Call::ALL
                .iter()
                .filter(|call| Action::of_call(**call) == action)
                .map(|call| self.call(*call, 0) + self.call(*call, 1))
                .sum(),
        }
    }
}

impl Parts {
    pub(super) fn events(
        &self,
        sink: &mut Sink<'_>,
        totals: &Totals,
        ledger: &[Ledger],
    ) -> Result<(), Error> {
        let swept = self.books.swept_connects.load(Relaxed);
        let events: Vec<_> = Action::ALL
            .iter()
            .map(|action| {
                let derived =
                    self.books.derived.get(*action as usize).map_or(0, |counter| counter.load(Relaxed));
                let swept = if *action == Action::Connect { swept } else { 0 };
                ([("action", action.name())], totals.events(*action, ledger) + derived + swept)
            })
            .collect();
        let samples: Vec<_> = events.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_events_total",
            "Events by action, counted in the kernel where they happened and exact under any overload; \
             credentials_changed and what audit records report are counted by the agent, which also counts what it tells \
             of itself.",
            &samples,
        )
    }

    pub(super) fn node(&self, sink: &mut Sink<'_>, totals: &Totals) -> Result<(), Error> {
        sink.counter(
            "tellwire_execs_total",
            "Executions by outcome, counted in the kernel.",
            &[
                (&[("outcome", "success")], totals.at(EXECS)),
                (&[("outcome", "failure")], totals.at(EXECS + 1)),
            ],
        )?;
        let exits: Vec<_> = ExitReason::ALL
            .iter()
            .map(|reason| ([("reason", reason.name())], totals.at(EXITS + *reason as u32)))
            .collect();
        let samples: Vec<_> = exits.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_process_exits_total",
            "Processes that ended, by reason, counted in the kernel.",
            &samples,
        )?;
        self.connects(sink, totals)?;
        let changes: Vec<_> = Call::ALL
            .iter()
            .flat_map(|call| {
                [("success", 0), ("failure", 1)].map(|(outcome, failed)| {
                    ([("call", call.name()), ("outcome", outcome)], totals.call(*call, failed))
                })
            })
            .collect();
        let samples: Vec<_> = changes.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_privilege_changes_total",
            "Credential calls by outcome, counted in the kernel.",
            &samples,
        )
    }

    fn connects(&self, sink: &mut Sink<'_>, totals: &Totals) -> Result<(), Error> {
        let swept = self.books.swept_connects.load(Relaxed);
        let mut connects = Vec::new();
        for (family, family_name) in (0_u32..).zip(FAMILIES) {
            for scope in Scope::ALL {
                for outcome in Outcome::ALL {
                    let labels = [
                        ("transport", "tcp"),
                        ("family", family_name),
                        ("outcome", outcome.name()),
                        ("scope", scope.name()),
                    ];
                    connects.push((labels, totals.connects(family, *scope, *outcome)));
                }
            }
        }
        let samples: Vec<_> = connects.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_connects_total",
            "TCP connections that were tried, by outcome, counted in the kernel. Scope is where the other side lies.",
            &samples,
        )?;
        sink.counter(
            "tellwire_connects_swept_total",
            "TCP connections whose outcome never came, told by the agent and not in tellwire_connects_total.",
            &[(&[], swept)],
        )?;
        sink.counter(
            "tellwire_connection_bytes_total",
            "Payload in bytes of TCP connections that this host opened, counted in the kernel when they are closed.",
            &[
                (&[("direction", "sent")], totals.at(BYTES_SENT)),
                (&[("direction", "received")], totals.at(BYTES_RECEIVED)),
            ],
        )?;
        sink.histogram(
            "tellwire_connect_handshake_seconds",
            "Time from the first packet to an established connection, of the connects whose record reached the agent.",
            &[(&[], &self.histograms.handshake)],
        )
    }
}
