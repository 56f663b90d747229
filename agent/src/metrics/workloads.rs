//! Metrics by workload, and how it goes with the runtimes that name them.

use std::{fmt::Error, sync::atomic::Ordering::Relaxed};

use super::{Parts, encode::Sink};
use crate::{
    kernel::ledger::Totals,
    runtimes::OUTCOMES,
    workloads::{FIELDS, Key, Sums},
};

/// Labels of one series, and which of the sums it is.
struct Family {
    name: &'static str,
    help: &'static str,
    /// A label and its value, for each of the sums.
    parts: &'static [(Option<(&'static str, &'static str)>, usize)],
}

/// Every sum is a series of one of these.
const FAMILIES: [Family; 5] = [
    Family {
        name: "tellwire_workload_execs_total",
        help: "Programs that were executed, by workload, counted in the kernel. The sum is tellwire_execs_total of the \
               outcome success. __host__ is in no container, __unnamed__ in one without names, __overflow__ what the \
               budget has no room for, __removed__ what workloads had counted that are gone.",
        parts: &[(None, 0)],
    },
    Family {
        name: "tellwire_workload_connects_total",
        help: "TCP connections that were tried, by workload: established, or failed in any way; counted in the kernel.",
        parts: &[(Some(("outcome", "established")), 1), (Some(("outcome", "failed")), 2)],
    },
    Family {
        name: "tellwire_workload_connection_bytes_total",
        help: "Payload in bytes of TCP connections that the workload opened, counted in the kernel when they are closed.",
        parts: &[(Some(("direction", "sent")), 3), (Some(("direction", "received")), 4)],
    },
    Family {
        name: "tellwire_workload_oom_kills_total",
        help: "Processes that the kernel ended for want of memory, by workload, counted in the kernel.",
        parts: &[(None, 5)],
    },
    Family {
        name: "tellwire_workload_auth_attempts_total",
        help: "Attempts to authenticate by PAM, by workload, counted in the kernel. The sum is \
               tellwire_auth_attempts_total; failure is all that is no success there.",
        parts: &[(Some(("outcome", "success")), 6), (Some(("outcome", "failure")), 7)],
    },
];

const _: () = assert!(FIELDS == 8, "a sum without a series");

impl Parts {
    pub(super) fn runtimes(&self, sink: &mut Sink<'_>) -> Result<(), Error> {
        let sockets: Vec<_> = self.runtimes.sockets.iter().filter(|socket| socket.is_shown()).collect();
        let up: Vec<_> = sockets
            .iter()
            .map(|socket| {
                ([("socket", socket.path.as_str())], f64::from(u8::from(socket.is_up.load(Relaxed))))
            })
            .collect();
        let up: Vec<_> = up.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.gauge("tellwire_runtime_up", "Whether the container runtime behind a socket tells names.", &up)?;
        let look_ups: Vec<_> = sockets
            .iter()
            .flat_map(|socket| {
                let labels = |outcome| [("socket", socket.path.as_str()), ("outcome", outcome)];
                OUTCOMES
                    .into_iter()
                    .zip(&socket.look_ups)
                    .map(move |(outcome, counter)| (labels(outcome), counter.load(Relaxed)))
            })
            .collect();
        let look_ups: Vec<_> = look_ups.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_runtime_lookups_total",
            "Containers whose names were asked for one by one: sandboxes may be unknown until they run.",
            &look_ups,
        )?;
        let refused: Vec<_> = sockets
            .iter()
            .map(|socket| ([("socket", socket.path.as_str())], socket.refused.load(Relaxed)))
            .collect();
        let refused: Vec<_> = refused.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
        sink.counter(
            "tellwire_runtime_refused_total",
            "Entries in answers of container runtimes that made no sense.",
            &refused,
        )
    }

    /// The last ones of a scrape: what the others leave of the budget is theirs.
    pub(super) fn workloads(&self, sink: &mut Sink<'_>, totals: &Totals) -> Result<(), Error> {
        // Four keys are no workload's.
        self.kernel.count_own_series(sink.samples + 4 * FIELDS);
        for Family { name, help, parts } in FAMILIES {
            let samples: Vec<_> = totals
                .workloads
                .iter()
                .flat_map(|workload| parts.iter().map(move |(part, field)| sample(workload, *part, *field)))
                .collect();
            let samples: Vec<_> = samples.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
            sink.counter(name, help, &samples)?;
        }
        Ok(())
    }
}

fn sample<'a>(
    (key, sums): &'a (Key, Sums),
    part: Option<(&'static str, &'static str)>,
    field: usize,
) -> (Vec<(&'static str, &'a str)>, u64) {
    let (namespace, workload, container, pod) = match key {
        Key::Host => ("", "__host__", "", None),
        Key::Unnamed => ("", "__unnamed__", "", None),
        Key::Overflow => ("__overflow__", "__overflow__", "__overflow__", None),
        Key::Removed => ("__removed__", "__removed__", "__removed__", None),
        Key::Workload { namespace, workload, container, pod } => {
            (&**namespace, &**workload, &**container, pod.as_deref())
        }
    };
    let mut labels = vec![("namespace", namespace), ("workload", workload), ("container", container)];
    // An empty label is none to Prometheus; where it keeps our labels, it keeps the agent's own pod away as well.
    labels.push(("pod", pod.unwrap_or_default()));
    labels.extend(part);
    (labels, sums.get(field).copied().unwrap_or(0))
}
