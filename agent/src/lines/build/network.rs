//! Lines of the family `network`: connect, close, and connects that are told together.

use std::net::{IpAddr, Ipv6Addr};

use tellwire_ebpf::{
    close::Close,
    network::{Connect, Outcome, Tuple},
};

use super::{Frame, without_sequence};
use crate::{
    enrich::users::Users,
    events::action::Action,
    lines::{
        Line,
        fields::{ConnectFacts, Endpoint, ErrorCode, Kubernetes, Network},
        names,
    },
    pipeline::folds::Fold,
};

/// A TCP connection that was tried.
pub(crate) fn connect<'a>(frame: &Frame<'a>, connect: &Connect, users: &mut Users) -> Line<'a> {
    let outcome = Outcome::from_number(connect.outcome).unwrap_or(Outcome::Unknown);
    let ecs_outcome = match outcome {
        Outcome::Established => "success",
        Outcome::Unknown => "unknown",
        _ => "failure",
    };
    let mut line = frame.line(Action::Connect, Some(ecs_outcome), users);
    line.event.duration = (connect.duration != 0).then_some(connect.duration);
    ends(frame, &mut line, &connect.tuple);
    line.error = (connect.error != 0).then(|| ErrorCode { code: names::errno(connect.error) });
    line.tellwire.connect = Some(ConnectFacts { outcome: Some(outcome.name()), count: None });
    shorten(frame, &mut line);
    line
}

/// Connects to one destination that are told together: the frame's record is the last one.
pub(crate) fn connects<'a>(frame: &Frame<'a>, fold: &Fold, first: &'a str, users: &mut Users) -> Line<'a> {
    let mut line = frame.line(Action::Connect, Some("success"), users);
    without_sequence(&mut line);
    // They may be several processes.
    line.process.pid = None;
    line.process.vpid = None;
    line.process.entity_id = None;
    line.event.start = Some(first);
    ends(frame, &mut line, &fold.tuple);
    // Each of them had a port of its own.
    line.source = Some(Endpoint { bytes: Some(fold.sent), ..Endpoint::default() });
    if let Some(destination) = &mut line.destination {
        destination.bytes = Some(fold.received);
    }
    let outcome = frame.is_full().then_some(Outcome::Established.name());
    line.tellwire.connect = Some(ConnectFacts { outcome, count: Some(fold.count) });
    shorten(frame, &mut line);
    line
}

/// The end of a connection that this host opened.
pub(crate) fn close<'a>(frame: &Frame<'a>, close: &Close, users: &mut Users) -> Line<'a> {
    let mut line = frame.line(Action::Close, Some("success"), users);
    line.event.duration = Some(close.duration);
    ends(frame, &mut line, &close.tuple);
    if let Some(source) = &mut line.source {
        source.bytes = Some(close.sent);
    }
    if let Some(destination) = &mut line.destination {
        destination.bytes = Some(close.received);
    }
    line
}

/// Takes off what is the same on every line, and what the line of the container's exec says too: connections are what
/// most lines of a node are about, and should cost half a kilobyte each.
fn shorten(frame: &Frame<'_>, line: &mut Line<'_>) {
    if frame.is_full() {
        return;
    }
    line.ecs = None;
    line.tellwire.schema = None;
    // Whoever looks at connections asks for the pod first; the rest stands on its execs.
    line.k8s = line.k8s.take().and_then(Kubernetes::names_only);
    if let Some(container) = &mut line.container {
        container.runtime = None;
        container.name = None;
        container.image = None;
        container.labels = None;
        // Of the host's accounts, which are not the container's.
        if let Some(user) = &mut line.user {
            user.name = None;
        }
    }
}

/// Both ends of a connection.
fn ends(frame: &Frame<'_>, line: &mut Line<'_>, tuple: &Tuple) {
    let remote = address(tuple.remote);
    // All of them are TCP, and the address says which version it is.
    line.network = frame.is_full().then(|| Network {
        transport: "tcp",
        version: if remote.is_ipv4() { "ipv4" } else { "ipv6" },
        direction: "egress",
    });
    line.source = (tuple.local_port != 0).then(|| endpoint(tuple.local, tuple.local_port));
    line.destination = Some(endpoint(tuple.remote, tuple.remote_port));
    if let Some(related) = &mut line.related {
        related.ip = line.source.iter().chain(&line.destination).filter_map(|end| end.ip).collect();
    }
}

fn endpoint(bytes: [u8; 16], port: u16) -> Endpoint {
    Endpoint { ip: Some(address(bytes)), port: Some(port), ..Endpoint::default() }
}

/// A v4-mapped address is the IPv4 address that is on the wire.
fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}
