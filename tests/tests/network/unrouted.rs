//! Connects that no route leads from: in networks of their own, so that nothing leaves the machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use serde_json::json;
use tellwire_tests::{Agent, net};

use crate::end;

#[test]
fn a_connect_without_a_route_is_unreachable_at_once() {
    let agent = Agent::shared();
    // Addresses for documentation: they are nobody's.
    for (ip, family) in [("192.0.2.1", "ipv4"), ("2001:db8::1", "ipv6"), ("::ffff:192.0.2.1", "ipv4")] {
        let to = SocketAddr::new(ip.parse().expect("an address"), 443);
        let child = agent.fork(|| {
            net::own_network();
            let error = TcpStream::connect(to).expect_err("no route");
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        });
        let told = SocketAddr::new(to.ip().to_canonical(), to.port());
        agent.expect(
            child.pid,
            "connect",
            &json!({
                "event": {"outcome": "failure", "duration": null},
                "error.code": "ENETUNREACH",
                "network.type": family,
                "destination": end(told),
                "source": null,
                "tellwire.connect.outcome": "unreachable",
            }),
        );
        child.join();
    }
}

#[test]
fn a_connect_that_does_not_wait_is_unreachable_too() {
    let agent = Agent::shared();
    let to = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 443));
    let child = agent.fork(|| {
        net::own_network();
        let socket = net::stream_socket(rustix::net::AddressFamily::INET, rustix::net::SocketFlags::NONBLOCK);
        assert_eq!(rustix::net::connect(&socket, &to), Err(rustix::io::Errno::NETUNREACH));
    });
    agent.expect(child.pid, "connect", &json!({"error.code": "ENETUNREACH", "destination": end(to)}));
    child.join();
}

#[test]
fn a_route_that_leads_nowhere_says_why() {
    let agent = Agent::shared();
    for (kind, errno, code, outcome) in [
        (net::NoRoute::Unreachable, libc::EHOSTUNREACH, "EHOSTUNREACH", "unreachable"),
        (net::NoRoute::Prohibited, libc::EACCES, "EACCES", "denied"),
    ] {
        let network = Ipv4Addr::new(198, 51, 100, 0);
        let to = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 7), 443));
        let child = agent.fork(|| {
            net::own_network();
            net::add_route(network, kind);
            let error = TcpStream::connect(to).expect_err("no way");
            assert_eq!(error.raw_os_error(), Some(errno));
        });
        let fields = json!({"error.code": code, "tellwire.connect.outcome": outcome, "destination": end(to)});
        agent.expect(child.pid, "connect", &fields);
        child.join();
    }
}

#[test]
fn a_network_of_its_own_has_a_loopback_of_its_own() {
    let agent = Agent::shared();
    let child = agent.fork(|| {
        net::own_network();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listening");
        crate::ends(&TcpStream::connect(net::address(&listener)).expect("a connection"))
    });
    let fields = json!({"tellwire.connect.outcome": "established", "destination.ip": IpAddr::from(Ipv4Addr::LOCALHOST)});
    agent.expect(child.pid, "connect", &fields);
    agent.expect(child.pid, "connect", &child.join());
}
