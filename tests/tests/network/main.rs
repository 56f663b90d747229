//! Connections that are opened: each attempt is one line, with its outcome.

#![expect(clippy::expect_used, reason = "tests panic, they do not return errors")]
#![expect(clippy::print_stdout, reason = "what a kernel cannot be asked is told beside the outcome")]

mod closed;
mod established;
mod many;
mod pending;
mod refused;
mod unrouted;
mod uring;

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
};

use serde_json::{Value, json};
use tellwire_tests::at;

/// The fields of both ends of a connection, as the process itself sees them.
fn ends(stream: &TcpStream) -> Value {
    let end = |address: SocketAddr| json!({"ip": address.ip().to_canonical(), "port": address.port()});
    let (local, peer) = (stream.local_addr().expect("our end"), stream.peer_addr().expect("the other end"));
    json!({"source": end(local), "destination": end(peer)})
}

/// An address as a line has it.
fn end(address: SocketAddr) -> Value {
    json!({"ip": address.ip(), "port": address.port()})
}

/// The local port of a socket.
fn local_port(socket: impl AsFd) -> u16 {
    let address = rustix::net::getsockname(socket.as_fd()).expect("its address");
    SocketAddr::try_from(address).expect("an IP address").port()
}

/// What the connect lines of a process say of their outcome.
fn outcomes(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| at(event, "tellwire.connect.outcome")?.as_str()).collect()
}
