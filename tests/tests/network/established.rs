//! Connects that find somebody.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, bind, connect},
};
use serde_json::json;
use tellwire_tests::{Agent, at, fork, net, program::Program, raced::RacedAddress, sys};

use crate::{end, ends, outcomes};

#[test]
fn both_ends_of_a_connection_are_told() {
    let agent = Agent::shared();
    for (ip, family) in
        [(IpAddr::from(Ipv4Addr::LOCALHOST), "ipv4"), (IpAddr::from(Ipv6Addr::LOCALHOST), "ipv6")]
    {
        let server = net::Server::start(ip);
        let to = server.address();
        let child = agent.fork(|| {
            rustix::thread::set_name(c"connects").expect("a name");
            ends(&TcpStream::connect(to).expect("a connection"))
        });
        let event = agent.expect(
            child.pid,
            "connect",
            &json!({
                "event": {
                    "category": ["network"], "type": ["connection"], "outcome": "success",
                    "dataset": "tellwire.network", "reason": null,
                },
                "network": {"transport": "tcp", "type": family, "direction": "egress"},
                "destination": end(to),
                "process": {"name": "connects", "thread": null, "args": null},
                "user.id": "0",
                "error": null,
                "tellwire.connect.outcome": "established",
            }),
        );
        let duration = at(&event, "event.duration").and_then(serde_json::Value::as_u64).expect("a duration");
        assert!(duration > 0 && Duration::from_nanos(duration) < Duration::from_secs(1), "{duration}");
        agent.expect(child.pid, "connect", &child.join());
    }
}

#[test]
fn a_mapped_address_is_the_ipv4_address_on_the_wire() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), to.port()));
    let child = agent.fork(|| ends(&TcpStream::connect(mapped).expect("a connection")));
    agent.expect(
        child.pid,
        "connect",
        &json!({"network.type": "ipv4", "destination": end(to), "source.ip": "127.0.0.1"}),
    );
    agent.expect(child.pid, "connect", &child.join());
}

#[test]
fn an_address_that_the_process_chose_is_told() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let child = agent.fork(|| {
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, 5), 0))).expect("binding");
        connect(&socket, &to).expect("a connection");
        ends(&socket.into())
    });
    agent.expect(child.pid, "connect", &json!({"source.ip": "127.0.0.5"}));
    agent.expect(child.pid, "connect", &child.join());
}

#[test]
fn a_connect_that_does_not_wait_is_told_once() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        let socket = net::begin_connect(to);
        // Asking again gives EALREADY or EISCONN, and is no attempt.
        while connect(&socket, &to) != Err(Errno::ISCONN) {}
        ends(&socket.into())
    });
    agent.settle(&mut child);
    let events = agent.events_of(child.pid, "connect");
    assert_eq!(outcomes(&events), ["established"]);
    agent.expect(child.pid, "connect", &child.join());
}

#[test]
fn a_thread_connects_for_its_process() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let child = agent.fork(|| {
        let thread = thread::spawn(move || {
            let stream = TcpStream::connect(to).expect("a connection");
            let mut seen = ends(&stream);
            seen["process"] = json!({"thread.id": rustix::thread::gettid().as_raw_pid()});
            seen
        });
        thread.join().expect("the thread")
    });
    agent.expect(child.pid, "connect", &json!({"destination": end(to)}));
    agent.expect(child.pid, "connect", &child.join());
}

#[test]
fn a_child_connects_for_itself() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut parent = agent.fork(|| {
        let child = fork(|| ends(&TcpStream::connect(to).expect("a connection")));
        let pid = child.pid;
        let ends = child.join();
        json!({"pid": pid, "ends": ends})
    });
    agent.settle(&mut parent);
    assert_eq!(agent.events_of(parent.pid, "connect").len(), 0);
    let (pid, seen) = (parent.pid, parent.join());
    let child = seen["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    agent.expect(child, "connect", &seen["ends"]);
    agent.expect(child, "connect", &json!({"process.parent.pid": pid}));
}

#[test]
fn a_line_names_the_program_that_connects() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let program = agent.subfolder("named").join("program");
    Program::Exit(0).write(&program);
    let mut child = agent.fork(|| {
        // What a process was forked from is known once that has an event.
        sys::execve(Path::new("/nowhere"), &["x"]);
        let pid = fork(|| {
            drop(TcpStream::connect(to).expect("a connection"));
            sys::exec(&program, &["program"])
        });
        let number = pid.pid;
        pid.join();
        number
    });
    agent.settle(&mut child);
    let pid = u32::try_from(child.join().as_u64().expect("a pid")).expect("a pid");
    let connected = agent.expect(pid, "connect", &json!({"tellwire.connect.outcome": "established"}));
    let executed = agent.expect(pid, "exec", &json!({"process.executable": program}));
    assert_eq!(at(&connected, "process.entity_id"), at(&executed, "process.entity_id"));
}

/// The kernel copies the address once; what another thread makes of the caller's memory meanwhile is not told.
#[test]
fn an_address_that_is_rewritten_meanwhile_is_told_as_it_was_used() {
    const CONNECTS: usize = 200;
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::UNSPECIFIED);
    let to = server.address();
    let port = to.port();
    let mut child = agent.fork(|| {
        let memory: &'static RacedAddress = Box::leak(Box::new(RacedAddress::new(port)));
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let writer = thread::spawn(|| {
            while !stop.load(Relaxed) {
                memory.rewrite();
            }
        });
        let seen: Vec<_> = (0..CONNECTS).map(|_| ends(&memory.connect())).collect();
        stop.store(true, Relaxed);
        writer.join().expect("the writer");
        seen
    });
    agent.settle(&mut child);
    let events = agent.events_of(child.pid, "connect");
    let told: Vec<_> = events
        .iter()
        .map(|event| json!({"source": event["source"], "destination": event["destination"]}))
        .collect();
    assert_eq!(json!(told), child.join());
}

#[test]
fn data_on_the_first_packet_is_a_connect_too() {
    let agent = Agent::shared();
    // Nobody takes the connection: a server that closed it with data unread would reset it.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listening");
    let to = net::address(&listener);
    let child = agent.fork(|| {
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        net::send_fast_open(socket.as_fd(), to);
        ends(&socket.into())
    });
    agent.expect(child.pid, "connect", &json!({"tellwire.connect.outcome": "established"}));
    agent.expect(child.pid, "connect", &child.join());
}

/// What connects is a TCP socket below; the one that the process holds changes its state beside it.
#[test]
fn a_multipath_connect_is_told_once() {
    const MULTIPATH: u32 = 262;
    let agent = Agent::shared();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listening");
    let to = net::address(&listener);
    if !Path::new("/proc/sys/net/mptcp").exists() {
        // A kernel that was built without it, as Debian's 5.10: there is no such connect to tell.
        let refused = net::stream_socket_of(AddressFamily::INET, MULTIPATH).expect_err("no such protocol");
        assert_eq!(refused, Errno::PROTONOSUPPORT);
        return;
    }
    let mut child = agent.fork(|| {
        let socket = net::stream_socket_of(AddressFamily::INET, MULTIPATH).expect("a socket");
        connect(&socket, &to).expect("a connection");
        ends(&socket.into())
    });
    agent.settle(&mut child);
    assert_eq!(outcomes(&agent.events_of(child.pid, "connect")), ["established"]);
    agent.expect(child.pid, "connect", &child.join());
}

#[test]
fn what_is_no_tcp_connect_is_not_told_as_one() {
    let agent = Agent::shared();
    let server = net::Server::start(Ipv4Addr::LOCALHOST);
    let to = server.address();
    let mut child = agent.fork(|| {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        udp.connect((Ipv4Addr::LOCALHOST, 9)).expect("a peer");
        let (mut one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        one.write_all(b"x").expect("a byte");
        let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        drop(own);
        drop(TcpStream::connect(to).expect("a connection"));
    });
    agent.settle(&mut child);
    assert_eq!(outcomes(&agent.events_of(child.pid, "connect")), ["established"]);
}

#[test]
fn a_socket_that_connects_to_itself_is_told_once() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binding");
        let stream = TcpStream::from(socket);
        let own = stream.local_addr().expect("its address");
        // Both sides open at once (RFC 9293, figure 7): SYN_SENT, SYN_RECEIVED, ESTABLISHED.
        connect(&stream, &own).expect("a connection to itself");
        ends(&stream)
    });
    agent.settle(&mut child);
    let pid = child.pid;
    agent.expect(pid, "connect", &child.join());
    assert_eq!(outcomes(&agent.events_of(pid, "connect")), ["established"]);
    agent.expect(pid, "close", &json!({"event.type": ["end"]}));
}
