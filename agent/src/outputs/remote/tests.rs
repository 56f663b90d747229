//! Peers that are late, hang, close in the middle, or take large things by file only.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use super::super::frame::{Frame, Header};
use super::super::tests::{DEADLINE, batch, batches, count, dropped, events, start, until};
use super::super::writer::Trouble;
use super::super::{Batch, Fact, Fanout, OutputStats, Target};
use super::{Peer, Remote};
use crate::config::{Facility, SyslogFormat};

fn syslog() -> Frame {
    Frame::Syslog(Header::new(SyslogFormat::Rfc5424, Facility::Daemon, Some("node-1")))
}

/// An output alone, and what it counts. Connections are counted by the target.
fn output(peer: Peer, frame: Frame, queue: usize) -> (Fanout, Arc<OutputStats>, Arc<OutputStats>) {
    let own = Arc::<OutputStats>::default();
    let remote = Remote::new(peer, frame, own.clone()).unwrap();
    let (fanout, mut stats) = start(queue, vec![("remote", Box::new(remote) as Box<dyn Target>)]);
    (fanout, stats.remove(0), own)
}

fn listen() -> (TcpListener, Peer) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Peer::Tcp("127.0.0.1".into(), port))
}

fn socket(name: &str) -> (TempDir, PathBuf, Peer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path.clone(), Peer::Unix(path))
}

/// All that comes until the other side closes.
fn read(mut stream: impl io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Takes messages apart by their octet counts.
fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let octets: usize = str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
        let (message, rest) = bytes[space + 1..].split_at(octets);
        messages.push(String::from_utf8(message.into()).unwrap());
        bytes = rest;
    }
    messages
}

/// The lines within, each with its newline.
fn texts(messages: &[String]) -> String {
    messages.iter().flat_map(|message| [message.rsplit_once(" - ").unwrap().1, "\n"]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_go_to_tcp_and_to_unix_sockets_as_they_are() {
    let (listener, peer) = listen();
    let (_folder, path, unix) = socket("s");
    let local = UnixListener::bind(&path).unwrap();
    let readers = [
        thread::spawn(move || read(listener.accept().unwrap().0)),
        thread::spawn(move || read(local.accept().unwrap().0)),
    ];
    for (peer, reader) in [peer, unix].into_iter().zip(readers) {
        let (fanout, stats, own) = output(peer, Frame::Ndjson, 1 << 20);
        let (batches, sent) = batches(5, 100_000);
        for batch in &batches {
            fanout.send(batch, None);
        }
        fanout.close(DEADLINE).await;
        let text = String::from_utf8(reader.join().unwrap()).unwrap();
        assert_eq!(count(&text), (sent, 50));
        assert_eq!((events(&stats), dropped(&stats), own.reconnects.load(Relaxed)), (50, 0, 0));
        assert_eq!(stats.bytes.load(Relaxed), text.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_over_tcp_counts_octets() {
    let (listener, peer) = listen();
    let reader = thread::spawn(move || read(listener.accept().unwrap().0));
    let (fanout, stats, _) = output(peer, syslog(), 1 << 20);
    let (batches, sent) = batches(3, 200_000);
    for batch in &batches {
        fanout.send(batch, None);
    }
    fanout.close(DEADLINE).await;
    let messages = messages(&reader.join().unwrap());
    assert!(messages.iter().all(|message| message.starts_with("<30>1 1970-01-01T00:00:00.000000Z node-1 ")));
    assert_eq!(count(&texts(&messages)), (sent, 30));
    assert_eq!((events(&stats), dropped(&stats)), (30, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_late_gets_what_waited() {
    let (_folder, path, peer) = socket("s");
    let (fanout, stats, own) = output(peer, Frame::Ndjson, 3000);
    let (batches, _) = batches(5, 1000);
    for batch in &batches {
        fanout.send(batch, None);
    }
    until("it fails", || stats.failed.load(Relaxed)).await;
    assert_eq!((events(&stats), dropped(&stats)), (0, 20));
    let listener = UnixListener::bind(&path).unwrap();
    let reader = thread::spawn(move || read(listener.accept().unwrap().0));
    until("it works", || !stats.failed.load(Relaxed)).await;
    fanout.close(DEADLINE).await;
    assert_eq!(count(&String::from_utf8(reader.join().unwrap()).unwrap()).1, 30);
    // It is the first connection.
    assert_eq!((events(&stats), dropped(&stats), own.reconnects.load(Relaxed)), (30, 20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_there_does_not_hold_up_the_end() {
    let (_folder, _, peer) = socket("s");
    let (fanout, stats, _) = output(peer, Frame::Ndjson, 3000);
    fanout.send(&batch(0..10, 1000), None);
    fanout.close(DEADLINE).await;
    assert_eq!((events(&stats), dropped(&stats)), (0, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_closes_in_the_middle_of_a_line_gets_it_whole_on_the_next_connection() {
    let (listener, peer) = listen();
    let reader = thread::spawn(move || {
        let mut first = listener.accept().unwrap().0;
        let mut some = vec![0; 1500];
        first.read_exact(&mut some).unwrap();
        // With what is unread: a reset.
        drop(first);
        (some, read(listener.accept().unwrap().0))
    });
    let (fanout, stats, own) = output(peer, syslog(), 64 << 20);
    // More than buffers hold, so that the end comes in the middle.
    let large = batch(0..100, 16 << 20);
    fanout.send(&large, None);
    until("all is written", || events(&stats) == 100).await;
    fanout.close(DEADLINE).await;
    let (some, rest) = reader.join().unwrap();
    assert!(some.starts_with(b"167"), "{}", String::from_utf8_lossy(&some[..80]));
    // Every message there is whole, and none is missing from the first one on.
    let texts = texts(&messages(&rest));
    let numbers: Vec<usize> =
        texts.lines().map(|line| line.trim_start_matches('0').parse().unwrap_or(0)).collect();
    assert!(numbers[0] < 50, "{}", numbers[0]);
    assert_eq!(numbers, (numbers[0]..100).collect::<Vec<_>>());
    assert_eq!(own.reconnects.load(Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_closed_while_nothing_was_sent_costs_no_line() {
    let (listener, peer) = listen();
    let (fanout, stats, own) = output(peer, Frame::Ndjson, 1 << 20);
    for number in 0..3 {
        let (closes, listener) = (number < 2, listener.try_clone().unwrap());
        let reader = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut bytes = vec![0; 100];
            stream.read_exact(&mut bytes).unwrap();
            (!closes).then(|| read(stream))
        });
        fanout.send(&batch(number * 10..(number + 1) * 10, 100), None);
        until("it is written", || events(&stats) == 10 * (number as u64 + 1)).await;
        if closes {
            reader.join().unwrap();
        }
    }
    fanout.close(DEADLINE).await;
    assert_eq!((events(&stats), dropped(&stats), own.reconnects.load(Relaxed)), (30, 0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_hangs_loses_only_its_own_lines_and_holds_up_nobody() {
    let (listener, peer) = listen();
    let (_folder, path, unix) = socket("s");
    let local = UnixListener::bind(&path).unwrap();
    let reader = thread::spawn(move || read(local.accept().unwrap().0));
    let remote =
        |peer| Box::new(Remote::new(peer, Frame::Ndjson, Arc::default()).unwrap()) as Box<dyn Target>;
    let (fanout, stats) = start(1 << 18, vec![("hangs", remote(peer)), ("reads", remote(unix))]);
    let (batches, sent) = batches(24, 1 << 18);
    for (index, batch) in batches.iter().enumerate() {
        fanout.send(batch, None);
        until("the other has it", || events(&stats[1]) == 10 * (index as u64 + 1)).await;
    }
    until("it has lost some", || dropped(&stats[0]) > 0).await;
    let started = Instant::now();
    fanout.close(Duration::from_millis(100)).await;
    assert!(started.elapsed() < DEADLINE / 2);
    assert_eq!(count(&String::from_utf8(reader.join().unwrap()).unwrap()), (sent, 240));
    assert_eq!((events(&stats[1]), dropped(&stats[1])), (240, 0));
    assert_eq!(events(&stats[0]) + dropped(&stats[0]), 240);
    drop(listener);
}

#[test]
fn a_peer_that_takes_nothing_for_too_long_is_connected_to_again() {
    let (listener, peer) = listen();
    let stats = Arc::<OutputStats>::default();
    let mut remote = Remote::new(peer, Frame::Ndjson, stats.clone()).unwrap();
    remote.stall = Duration::ZERO;
    // More than the buffers of a connection.
    let large = batch(0..4, 16 << 20);
    let written = remote.write(&large, 0);
    let error = format!("{:?}", written.result.unwrap_err());
    assert!(error.contains("takes nothing"), "{error}");
    assert_eq!((remote.part, remote.link.is_none()), (0, true));
    let upto = written.upto;
    assert!(upto < large.bytes.len());
    let reader = thread::spawn(move || {
        drop(listener.accept().unwrap());
        read(listener.accept().unwrap().0)
    });
    remote.stall = DEADLINE;
    let mut written = remote.write(&large, upto);
    while matches!(written.result, Err(Trouble::Again)) {
        written = remote.write(&large, written.upto);
    }
    assert_eq!((written.upto, written.result.is_ok()), (large.bytes.len(), true));
    drop(remote);
    assert_eq!(reader.join().unwrap(), large.bytes[upto..]);
    assert_eq!(stats.reconnects.load(Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_connects_again_when_it_is_told_to() {
    let (listener, peer) = listen();
    let (fanout, _, own) = output(peer, Frame::Ndjson, 1 << 20);
    let mut first = listener.accept().unwrap().0;
    fanout.registry().reopen();
    let second = thread::spawn(move || read(listener.accept().unwrap().0));
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    until("it has connected", || own.reconnects.load(Relaxed) == 1).await;
    fanout.send(&batch(0..10, 100), None);
    fanout.close(DEADLINE).await;
    assert_eq!(second.join().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_on_a_unix_socket_is_datagrams_or_a_stream_with_nul() {
    let (_folder, path, peer) = socket("log");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let (fanout, stats, _) = output(peer.clone(), syslog(), 1 << 20);
    fanout.send(&batch(0..3, 300), None);
    let mut buffer = [0; 1000];
    for number in 0..3 {
        let len = receiver.recv(&mut buffer).unwrap();
        let message = str::from_utf8(&buffer[..len]).unwrap();
        assert!(message.starts_with("<30>1 ") && message.ends_with(&number.to_string()), "{message}");
    }
    // The daemon is started anew, with another kind of socket.
    drop(receiver);
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let reader = thread::spawn(move || read(listener.accept().unwrap().0));
    fanout.send(&batch(3..5, 300), None);
    until("all is written", || events(&stats) == 5).await;
    fanout.close(DEADLINE).await;
    let text = String::from_utf8(reader.join().unwrap()).unwrap();
    assert_eq!(text.matches('\0').count(), 2);
    assert!(text.ends_with("4\0") && text.starts_with("<30>1 "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_for_a_datagram_is_lost_alone() {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let peer = Peer::Udp("127.0.0.1".into(), receiver.local_addr().unwrap().port());
    let (fanout, stats, _) = output(peer, syslog(), 1 << 20);
    let (small, large) = (batch(0..1, 100), batch(1..2, 70_000));
    let all = Batch {
        bytes: [&small.bytes[..], &large.bytes[..], &small.bytes[..]].concat().into(),
        counts: batch(0..3, 300).counts,
        facts: [&*small.facts, &*large.facts, &*small.facts].concat().into(),
    };
    fanout.send(&all, None);
    fanout.close(DEADLINE).await;
    let mut buffer = [0; 1000];
    for _ in 0..2 {
        assert!(receiver.recv(&mut buffer).unwrap() > 100);
    }
    assert_eq!((events(&stats), stats.dropped.load(Relaxed), stats.bytes.load(Relaxed)), (2, 1, 200));
    assert_eq!(stats.dropped_by_action[1].load(Relaxed), 1);
}

/// A journal: what a datagram says, or the file that comes with it.
fn receive(socket: &UnixDatagram) -> (String, bool) {
    let mut bytes = vec![0; 1 << 20];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut bytes)];
    let len = recvmsg(socket, &mut parts, &mut control, RecvFlags::empty()).unwrap().bytes;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if let Some(descriptor) = descriptors.next() {
        let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        assert!(fcntl_get_seals(&descriptor).unwrap().contains(all));
        assert_eq!(len, 0);
        // From its start: the sender shares the place that it has written up to.
        let mut text = vec![0; usize::try_from(rustix::fs::fstat(&descriptor).unwrap().st_size).unwrap()];
        File::from(descriptor).read_exact_at(&mut text, 0).unwrap();
        return (String::from_utf8(text).unwrap(), true);
    }
    drop(descriptors);
    bytes.truncate(len);
    (String::from_utf8(bytes).unwrap(), false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_gets_datagrams_and_large_ones_by_a_sealed_file() {
    let (_folder, path, peer) = socket("journal");
    let bind = || {
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let journal = bind();
    let (fanout, stats, own) = output(peer, Frame::Journal, 64 << 20);
    let large = batch(1..2, 20 << 20);
    fanout.send(&batch(0..1, 100), None);
    fanout.send(&large, None);
    let (message, by_file) = receive(&journal);
    assert!(
        !by_file && message.starts_with("MESSAGE=0000") && message.contains("\nPRIORITY=6\n"),
        "{message}"
    );
    let (message, by_file) = receive(&journal);
    assert!(by_file && message.len() > large.bytes.len());
    assert!(message.ends_with("\nSYSLOG_IDENTIFIER=tellwire\nTELLWIRE_ACTION=exec_failed\n"));
    // It is started anew.
    drop(journal);
    fs::remove_file(&path).unwrap();
    let journal = bind();
    fanout.send(&batch(2..3, 100), None);
    assert!(receive(&journal).0.starts_with("MESSAGE=000"));
    fanout.close(DEADLINE).await;
    assert_eq!((events(&stats), dropped(&stats), own.reconnects.load(Relaxed)), (3, 0, 1));
}

#[test]
fn the_facts_of_a_line_go_with_it() {
    let all = batch(0..5, 100);
    let lines: Vec<_> = all.lines_from(45).map(|line| (line.end, line.fact.time)).collect();
    assert_eq!(lines, [(60, 2), (80, 3), (100, 4)]);
    assert_eq!(all.lines_from(40).count(), 3);
    assert_eq!(all.lines_from(100).count(), 0);
    let whole: Vec<Fact> = all.lines_from(0).map(|line| line.fact).collect();
    assert_eq!(whole, *all.facts);
}
