//! Connects that find nobody, or that somebody forbids.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd as _,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, bind, connect, sockopt::set_socket_reuseaddr},
};
use serde_json::{Value, json};
use tellwire_tests::{Agent, attached_by, bpf, is_degraded, net, sys, uring};

use crate::{end, local_port, outcomes};

/// Of agents whose cgroup may make no connection, once a test has forbidden it.
const DENIED: &str = "[kernel]\npoll-interval = \"1ms\"\n";

#[test]
fn a_refused_connect_says_so() {
    let agent = Agent::shared();
    let (_socket, closed) = net::closed_port();
    let child = agent.fork(|| {
        let error = TcpStream::connect(closed).expect_err("nobody listens");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    });
    let event = agent.expect(
        child.pid,
        "connect",
        &json!({
            "event.outcome": "failure",
            "error.code": "ECONNREFUSED",
            "destination": end(closed),
            "tellwire.connect.outcome": "refused",
        }),
    );
    assert!(event["event"]["duration"].is_u64(), "{event}");
    child.join();
}

#[test]
fn a_refused_connect_that_does_not_wait_says_so() {
    let agent = Agent::shared();
    let (_socket, closed) = net::closed_port();
    let mut child = agent.fork(|| {
        let socket = net::begin_connect(closed);
        assert_eq!(net::outcome(&socket), Err(Errno::CONNREFUSED));
    });
    agent.settle(&mut child);
    let events = agent.events_of(child.pid, "connect");
    assert_eq!(outcomes(&events), ["refused"]);
    child.join();
}

/// The kernel lets go of the port before it tells the outcome.
#[test]
fn our_end_is_told_of_connects_that_failed_too() {
    let agent = Agent::shared();
    let (listener, _first) = net::silent_listener();
    let silent = net::address(&listener);
    let (_socket, closed) = net::closed_port();
    for (to, outcome) in [(silent, "aborted"), (closed, "refused")] {
        let child = agent.fork(|| {
            let socket = net::begin_connect(to);
            local_port(&socket)
        });
        let event = agent.expect(
            child.pid,
            "connect",
            &json!({"tellwire.connect.outcome": outcome, "source.ip": "127.0.0.1"}),
        );
        let port = child.join();
        // Refused before the process could ask, it has none any more.
        assert!(event["source"]["port"] == port || port == 0, "{port} in {event}");
    }
}

#[test]
fn every_attempt_of_one_socket_is_told() {
    let agent = Agent::shared();
    let (_socket, closed) = net::closed_port();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        for _ in 0..3 {
            assert_eq!(connect(&socket, &closed), Err(Errno::CONNREFUSED));
        }
        connect(&socket, &to).expect("a connection");
        assert_eq!(connect(&socket, &to), Err(Errno::ISCONN));
    });
    agent.settle(&mut child);
    let told = agent.events_of(child.pid, "connect");
    assert_eq!(outcomes(&told), ["refused", "refused", "refused", "established"]);
    child.join();
}

#[test]
fn a_connect_that_a_cgroup_program_forbids_is_denied() {
    let agent = Agent::alone_with_config(DENIED);
    bpf::deny_connects(agent.cgroup());
    for (ip, family) in [(Ipv4Addr::LOCALHOST.into(), "ipv4"), (Ipv6Addr::LOCALHOST.into(), "ipv6")] {
        let to = SocketAddr::new(ip, 9);
        let child = agent.fork(|| {
            let error = TcpStream::connect(to).expect_err("forbidden");
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        });
        agent.expect(
            child.pid,
            "connect",
            &json!({
                "event": {"outcome": "failure", "duration": null},
                "error.code": "EPERM",
                "network.type": family,
                "destination": end(to),
                "source": null,
                "tellwire.connect.outcome": "denied",
            }),
        );
        child.join();
        let labels = [("outcome", "denied"), ("family", family), ("scope", "loopback")];
        agent.expect_metric("tellwire_connects_total", &labels, 1);
    }
    agent.expect_metric("tellwire_connects_total", &[], 2);
}

/// The module is asked before the cgroup hooks are.
#[test]
fn a_connect_that_a_security_module_forbids_is_denied() {
    let agent = Agent::shared();
    let to = [SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), SocketAddr::from((Ipv6Addr::LOCALHOST, 9))];
    let mut child = agent.fork(|| {
        if let Err(error) = sys::forbid_connects() {
            return json!(error.to_string());
        }
        for to in to {
            let error = TcpStream::connect(to).expect_err("forbidden");
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        }
        // Another family's socket is no TCP connect; the caller's own mistakes are not denied.
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .expect("a socket")
            .connect(to[0])
            .expect("a datagram's address");
        json!(null)
    });
    agent.settle(&mut child);
    let pid = child.pid;
    if let Value::String(why) = child.join() {
        println!("this kernel's Landlock does not restrict connects: {why}");
        return;
    }
    let told = agent.events_of(pid, "connect");
    if is_degraded("connects_denied_by_a_security_module") {
        assert_eq!(told.len(), 0);
        return;
    }
    for to in to {
        let connect = json!({ "outcome": "denied" });
        let fields = json!({
            "event.outcome": "failure", "destination": end(to), "source": null,
            "error.code": "EACCES", "tellwire.connect": connect,
        });
        agent.expect(pid, "connect", &fields);
    }
    assert_eq!(told.len(), to.len());
}

/// By `io_uring` there is no system call whose end could be seen: the attempt is told without its errno.
#[test]
fn a_connect_by_io_uring_that_is_forbidden_is_told() {
    let agent = Agent::alone_with_config(DENIED);
    bpf::deny_connects(agent.cgroup());
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    // What io_uring's call came to is known where it comes to a function that is hooked.
    let is_known = attached_by("connect_errno") == "kernel functions";
    let code = if is_known { json!("EPERM") } else { Value::Null };
    for by in [uring::By::Caller, uring::By::Worker] {
        let mut child = agent.fork(|| {
            let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
            let error = uring::connect(socket.as_fd(), to, by).expect_err("forbidden");
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        });
        agent.settle(&mut child);
        let fields = json!({
            "event.outcome": "failure", "destination": end(to), "source": null, "error.code": code,
        });
        agent.expect(child.pid, "connect", &fields);
        assert_eq!(agent.events_of(child.pid, "connect").len(), 1);
        child.join();
    }
}

/// Two connections cannot have the same four numbers: the kernel finds out after it has left the first state.
#[test]
fn a_connect_without_an_address_of_its_own_has_failed() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        let sockets = [(); 2].map(|()| {
            let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
            set_socket_reuseaddr(&socket, true).expect("sharing an address");
            socket
        });
        let [one, other] = &sockets;
        bind(one, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binding");
        bind(other, &SocketAddr::from((Ipv4Addr::LOCALHOST, local_port(one)))).expect("binding");
        connect(one, &to).expect("a connection");
        assert_eq!(connect(other, &to), Err(Errno::ADDRNOTAVAIL));
    });
    agent.settle(&mut child);
    let events = agent.events_of(child.pid, "connect");
    assert_eq!(outcomes(&events), ["established", "failed"]);
    agent.expect(child.pid, "connect", &json!({"error.code": "EADDRNOTAVAIL"}));
    child.join();
}
