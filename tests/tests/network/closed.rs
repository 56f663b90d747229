//! The end of connections that this host opened: how long, and how much.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use serde_json::{Value, json};
use tellwire_tests::{Agent, at, net};

/// Listens, and for each connection reads `request` bytes and answers with `answer` bytes.
fn answering(listener: TcpListener, request: usize, answer: usize) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.read_exact(&mut vec![0; request]).expect("the request");
            stream.write_all(&vec![0; answer]).expect("the answer");
        }
    });
}

/// Sends and receives so much, and closes the connection after the other side did.
fn talk(to: SocketAddr, request: usize) {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.write_all(&vec![0; request]).expect("the request");
    stream.read_to_end(&mut Vec::new()).expect("the answer");
}

#[test]
fn the_end_of_a_connection_tells_what_it_carried() {
    let agent = Agent::alone();
    for listener in [TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), TcpListener::bind((Ipv6Addr::LOCALHOST, 0))]
    {
        let listener = listener.expect("listening");
        let to = listener.local_addr().expect("its address");
        answering(listener, 3000, 70_000);
        let mut child = agent.fork(|| talk(to, 3000));
        agent.settle(&mut child);
        let connect = agent.expect(child.pid, "connect", &json!({"event.outcome": "success"}));
        let close = agent.expect(
            child.pid,
            "close",
            &json!({
                "event": {"category": ["network"], "type": ["end"], "dataset": "tellwire.network"},
                "destination": {"ip": to.ip(), "port": to.port(), "bytes": 70_000},
                "source.bytes": 3000,
            }),
        );
        for field in ["source.ip", "source.port", "process.entity_id", "process.executable"] {
            assert_eq!(at(&connect, field), at(&close, field), "{field}");
        }
        assert!(
            at(&close, "event.duration").and_then(Value::as_u64).is_some_and(|duration| duration > 0),
            "{close}"
        );
        child.join();
    }
    agent.expect_metric("tellwire_events_total", &[("action", "close")], 2);
    agent.expect_metric("tellwire_connection_bytes_total", &[("direction", "sent")], 6000);
    agent.expect_metric("tellwire_connection_bytes_total", &[("direction", "received")], 140_000);
}

#[test]
fn a_connection_that_never_was_has_no_end() {
    let agent = Agent::shared();
    let (_socket, closed) = net::closed_port();
    let mut child = agent.fork(|| {
        TcpStream::connect(closed).expect_err("nobody listens");
    });
    agent.settle(&mut child);
    assert_eq!(agent.events_of(child.pid, "connect").len(), 1);
    assert_eq!(agent.events_of(child.pid, "close"), [Value::Null; 0]);
    child.join();
}
