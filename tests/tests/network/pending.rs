//! Connects that get no answer: a listener whose queue is full does not say a word.

use std::{fs, io::Read as _, net::TcpStream, os::fd::IntoRawFd as _, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketFlags, connect,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use serde_json::{Value, json};
use tellwire_tests::{Agent, net, sys};

use crate::{end, outcomes};

#[test]
fn a_connect_that_the_caller_gives_up_is_aborted() {
    let agent = Agent::shared();
    let (listener, _first) = net::silent_listener();
    let to = net::address(&listener);
    let mut child = agent.fork(|| {
        let socket = net::begin_connect(to);
        // Still on its way when it is closed.
        assert_eq!(connect(&socket, &to), Err(Errno::ALREADY));
        drop(socket);
    });
    agent.settle(&mut child);
    let fields = json!({"event.outcome": "failure", "destination": end(to), "error": null});
    agent.expect(child.pid, "connect", &fields);
    assert_eq!(outcomes(&agent.events_of(child.pid, "connect")), ["aborted"]);
    child.join();
}

#[test]
fn a_process_that_ends_meanwhile_aborts_its_connect() {
    let agent = Agent::shared();
    let (listener, _first) = net::silent_listener();
    let to = net::address(&listener);
    let mut child = agent.fork(|| {
        let _left_open = net::begin_connect(to).into_raw_fd();
    });
    agent.settle(&mut child);
    let fields = json!({"destination": end(to), "user.id": "0"});
    agent.expect(child.pid, "connect", &fields);
    assert_eq!(outcomes(&agent.events_of(child.pid, "connect")), ["aborted"]);
}

#[test]
fn a_process_that_is_killed_while_it_waits_aborts_its_connect() {
    let agent = Agent::shared();
    let (listener, _first) = net::silent_listener();
    let to = net::address(&listener);
    let mut child = agent.fork(|| {
        TcpStream::connect(to).expect("never");
    });
    tellwire_tests::until("a connect that waits", || {
        let call =
            fs::read_to_string(format!("/proc/{}/syscall", child.pid)).expect("the call that it is in");
        call.starts_with(&format!("{} ", libc::SYS_connect)).then_some(())
    });
    child.kill(rustix::process::Signal::KILL);
    agent.settle(&mut child);
    assert_eq!(outcomes(&agent.events_of(child.pid, "connect")), ["aborted"]);
}

#[test]
fn a_connect_whose_time_is_up_goes_on_until_it_is_closed() {
    let agent = Agent::shared();
    let (listener, _first) = net::silent_listener();
    let to = net::address(&listener);
    let mut child = agent.fork(|| {
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_millis(50))).expect("a time");
        assert_eq!(connect(&socket, &to), Err(Errno::INPROGRESS));
    });
    agent.settle(&mut child);
    let events = agent.events_of(child.pid, "connect");
    assert_eq!(outcomes(&events), ["aborted"]);
    let duration = events.iter().filter_map(|event| event["event"]["duration"].as_u64()).sum::<u64>();
    // The kernel counts ticks, and an emulated machine that lost some makes up for them at once.
    assert!(Duration::from_nanos(duration) >= Duration::from_millis(25), "{duration}");
    child.join();
}

/// The call comes back with `EINTR`; the handshake goes on, and its outcome is what counts.
#[test]
fn an_interrupted_connect_is_told_once_with_what_came_of_it() {
    let agent = Agent::shared();
    let interrupted = agent.folder().join("interrupted");
    let (listener, first) = net::silent_listener();
    let to = net::address(&listener);
    let mut child = agent.fork(|| {
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        sys::alarm_after(50);
        assert_eq!(connect(&socket, &to), Err(Errno::INTR));
        fs::write(&interrupted, "").expect("a sign");
        // The next packet is sent a second after the first one, and then there is room.
        let mut stream = TcpStream::from(socket);
        let mut byte = [0];
        tellwire_tests::until("a connection", || match stream.read(&mut byte) {
            Ok(_) => Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => None,
            Err(error) => panic!("{error}"),
        });
        crate::ends(&stream)
    });
    tellwire_tests::until("an interruption", || interrupted.exists().then_some(()));
    // Makes room, and then says something to the one who comes.
    drop(listener.accept().expect("the first"));
    drop(first);
    let (mut second, _) = listener.accept().expect("the second");
    std::io::Write::write_all(&mut second, b"x").expect("a byte");
    agent.settle(&mut child);
    assert_eq!(outcomes(&agent.events_of(child.pid, "connect")), ["established"]);
    agent.expect(child.pid, "connect", &child.join());
}

#[test]
fn a_connect_that_nobody_answers_has_timed_out() {
    let agent = Agent::shared();
    let mut child = agent.fork(|| {
        net::own_network();
        let (listener, _first) = net::silent_listener();
        // One repeat, a second later, and its answer is waited for two seconds more. Kernels from 6.5 on
        // repeat some more at first, unless they are told not to.
        let linear = "/proc/sys/net/ipv4/tcp_syn_linear_timeouts";
        if fs::exists(linear).expect("a setting") {
            fs::write(linear, "0").expect("setting it");
        }
        let socket = net::stream_socket(AddressFamily::INET, SocketFlags::CLOEXEC);
        net::set_syn_count(&socket, 1);
        assert_eq!(connect(&socket, &net::address(&listener)), Err(Errno::TIMEDOUT));
        Value::Null
    });
    agent.settle(&mut child);
    let fields = json!({"event.outcome": "failure", "error.code": "ETIMEDOUT"});
    let event = agent.expect(child.pid, "connect", &fields);
    // The filler's own connect is the process's too.
    assert_eq!(outcomes(&agent.events_of(child.pid, "connect")), ["established", "timed_out"]);
    let duration = Duration::from_nanos(event["event"]["duration"].as_u64().expect("a duration"));
    assert!(duration >= Duration::from_millis(900), "{duration:?}");
    child.join();
}
