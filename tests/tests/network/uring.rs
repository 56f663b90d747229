//! Connects by `io_uring`, which make no system call of their own.

use std::{net::Ipv4Addr, os::fd::AsFd as _};

use rustix::net::{AddressFamily, SocketFlags};
use serde_json::json;
use tellwire_tests::{Agent, net, uring};

use crate::{end, ends, outcomes};

#[test]
fn a_connect_by_io_uring_is_its_process_s() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    for by in [uring::By::Caller, uring::By::Worker] {
        let mut child = agent.fork(|| {
            let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
            uring::connect(socket.as_fd(), to, by).expect("a connection");
            ends(&socket.into())
        });
        agent.settle(&mut child);
        let events = agent.events_of(child.pid, "connect");
        assert_eq!(outcomes(&events), ["established"], "{by:?}");
        agent.expect(child.pid, "connect", &child.join());
    }
}

#[test]
fn a_refused_connect_by_io_uring_says_so() {
    let agent = Agent::shared();
    let (_socket, closed) = net::closed_port();
    for by in [uring::By::Caller, uring::By::Worker] {
        let mut child = agent.fork(|| {
            let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
            let error = uring::connect(socket.as_fd(), closed, by).expect_err("nobody listens");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        });
        agent.settle(&mut child);
        agent.expect(
            child.pid,
            "connect",
            &json!({"error.code": "ECONNREFUSED", "destination": end(closed)}),
        );
        assert_eq!(agent.events_of(child.pid, "connect").len(), 1, "{by:?}");
        child.join();
    }
}
