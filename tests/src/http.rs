//! One HTTP request on loopback.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
};

use crate::wait::limit;

/// The status and the body of the answer.
pub fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connecting to the agent");
    stream.set_read_timeout(Some(limit())).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("asking the agent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the agent's answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}
