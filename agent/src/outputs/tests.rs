//! The outputs together: what one loses, no other does, and every line is in the books.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::geteuid;
use tokio::time::sleep;

use super::file::Appender;
use super::stdout::Stdout;
use super::writer::Target;
use super::{
    Batch, Counts, Fact, Fanout, HostRoot, Observer, OpenOutput, Opened, OutputStats, Registry, Swap,
};
use crate::config::{Output, OutputSpec, Style};

/// Longer than any test takes on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// More than a pipe holds.
const LARGE: usize = 100 * 1024;

/// A batch with the lines of these numbers, `bytes` in all; a line's action is its number modulo 3.
pub(super) fn batch(numbers: std::ops::Range<usize>, bytes: usize) -> Batch {
    let width = bytes / numbers.len() - 1;
    let mut counts = Counts::default();
    let mut text = String::new();
    for number in numbers.clone() {
        counts.add(number % 3);
        let digits = number.to_string();
        // The width of a format is 65,535 at the most.
        writeln!(text, "{}{digits}", "0".repeat(width - digits.len())).unwrap();
    }
    let fact = |number| Fact {
        time: number as u64,
        wall: 0,
        ring: 1,
        action: u8::try_from(number % 3).unwrap(),
        is_failure: false,
    };
    Batch { bytes: text.into(), counts, facts: numbers.map(fact).collect() }
}

/// Batches of 10 lines each and what they count.
pub(super) fn batches(many: usize, bytes: usize) -> (Vec<Batch>, Counts) {
    let batches: Vec<_> = (0..many).map(|index| batch(index * 10..(index + 1) * 10, bytes)).collect();
    let mut sum = Counts::default();
    for batch in &batches {
        for (sum, count) in sum.0.iter_mut().zip(batch.counts.0) {
            *sum += count;
        }
    }
    (batches, sum)
}

pub(super) fn start(
    queue_bytes: usize,
    targets: Vec<(&str, Box<dyn Target>)>,
) -> (Fanout, Vec<Arc<OutputStats>>) {
    let open = |(name, target): (&str, _)| {
        let stats = Arc::default();
        OpenOutput { name: name.into(), spec: OutputSpec::None, pretty: false, stats, target }
    };
    let observer: Observer = Arc::new(|_| {});
    let outputs = targets.into_iter().map(open).collect();
    let fanout = Opened { outputs, registry: Registry::default() }.start(queue_bytes, &observer).unwrap();
    let stats = fanout.registry().all().into_iter().map(|(_, stats)| stats).collect();
    (fanout, stats)
}

fn pipe() -> (io::PipeReader, Box<dyn Target>) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, Box::new(Stdout::from(File::from(OwnedFd::from(writer)))))
}

fn appender(path: &Path) -> Box<dyn Target> {
    Box::new(Appender::open(path, super::file::tests::settings(), Arc::default()).unwrap())
}

pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn events(stats: &OutputStats) -> u64 {
    stats.events.load(Relaxed)
}

pub(super) fn dropped(stats: &OutputStats) -> u64 {
    let dropped = stats.dropped.load(Relaxed);
    let by_action: u64 = stats.dropped_by_action.iter().map(|count| count.load(Relaxed)).sum();
    assert_eq!(by_action, dropped);
    dropped
}

/// The lines by action, and their number.
pub(super) fn count(text: &str) -> (Counts, u64) {
    let mut counts = Counts::default();
    for line in text.lines() {
        counts.add(line.parse::<usize>().unwrap() % 3);
    }
    assert!(text.is_empty() || text.ends_with('\n'));
    (counts, counts.total())
}

fn open(specs: &[OutputSpec], style: Style) -> Result<Opened, super::OpenError> {
    let output = Output { to: specs.to_vec(), style, ..Output::default() };
    Fanout::open(&output, &HostRoot::new("/"))
}

#[tokio::test]
async fn a_stalled_reader_loses_only_its_own_lines_and_they_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let (mut reader, stalled) = pipe();
    let (fanout, stats) = start(3 * LARGE, vec![("stdout", stalled), ("file", appender(&path))]);
    let (batches, sent) = batches(10, LARGE);
    for (index, batch) in batches.iter().enumerate() {
        fanout.send(batch, None);
        until("the file has the batch", || events(&stats[1]) == 10 * (index as u64 + 1)).await;
    }
    // The queue holds three, and a pipe that nobody reads not even one.
    assert_eq!((events(&stats[0]), dropped(&stats[0])), (0, 70));

    let reading = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    fanout.close(DEADLINE).await;
    let text = reading.join().unwrap();
    let (read, lines) = count(&text);
    assert_eq!((lines, events(&stats[0]), dropped(&stats[0])), (30, 30, 70));
    assert_eq!(stats[0].bytes.load(Relaxed), text.len() as u64);
    for (action, sent) in sent.0.into_iter().enumerate() {
        let lost = stats[0].dropped_by_action[action].load(Relaxed);
        assert_eq!(u64::from(read.0[action]) + lost, u64::from(sent), "{action}");
    }
    assert_eq!(count(&fs::read_to_string(&path).unwrap()), (sent, 100));
    assert_eq!((events(&stats[1]), dropped(&stats[1])), (100, 0));
}

#[tokio::test]
async fn a_stalled_reader_does_not_hold_up_the_end() {
    let (reader, stalled) = pipe();
    let (fanout, stats) = start(3 * LARGE, vec![("stdout", stalled)]);
    for batch in batches(5, LARGE).0 {
        fanout.send(&batch, None);
    }
    let started = Instant::now();
    fanout.close(Duration::from_millis(100)).await;
    assert!(started.elapsed() < DEADLINE / 2);
    assert_eq!((events(&stats[0]), dropped(&stats[0])), (0, 50));
    drop(reader);
}

#[tokio::test]
async fn a_reader_that_is_gone_is_counted_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let (reader, gone) = pipe();
    drop(reader);
    let (fanout, stats) = start(LARGE, vec![("stdout", gone), ("file", appender(&path))]);
    for (index, batch) in batches(5, 1000).0.iter().enumerate() {
        fanout.send(batch, None);
        until("the batch is lost", || dropped(&stats[0]) == 10 * (index as u64 + 1)).await;
    }
    assert!(stats[0].failed.load(Relaxed));
    fanout.close(DEADLINE).await;
    assert_eq!((events(&stats[0]), dropped(&stats[0])), (0, 50));
    assert_eq!((events(&stats[1]), dropped(&stats[1])), (50, 0));
    assert!(!stats[1].failed.load(Relaxed));
}

#[tokio::test]
async fn a_full_device_is_counted_and_resumes_when_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (path, new) = (folder.path().join("events"), folder.path().join("new"));
    symlink("/dev/full", &path).unwrap();
    let (fanout, stats) = start(3000, vec![("file", appender(&path))]);
    let (batches, _) = batches(10, 1000);
    let (first, last) = batches.split_at(5);
    for batch in first {
        fanout.send(batch, None);
    }
    until("the output fails", || stats[0].failed.load(Relaxed)).await;
    // Three wait for better times, the others find no room.
    assert_eq!((events(&stats[0]), dropped(&stats[0])), (0, 20));
    fs::write(&new, "").unwrap();
    fs::rename(&new, &path).unwrap();
    until("the output works again", || !stats[0].failed.load(Relaxed)).await;
    until("the queue is empty", || events(&stats[0]) == 30).await;
    for batch in last {
        fanout.send(batch, None);
        let before = events(&stats[0]);
        until("the batch is written", || events(&stats[0]) > before).await;
    }
    fanout.close(DEADLINE).await;
    assert_eq!((events(&stats[0]), dropped(&stats[0])), (80, 20));
    assert_eq!(count(&fs::read_to_string(&path).unwrap()).1, 80);
}

#[tokio::test]
async fn a_device_that_stays_full_does_not_hold_up_the_end() {
    let (fanout, stats) = start(3000, vec![("file", appender(Path::new("/dev/full")))]);
    for batch in &batches(2, 1000).0 {
        fanout.send(batch, None);
    }
    fanout.close(DEADLINE).await;
    assert_eq!((events(&stats[0]), dropped(&stats[0])), (0, 20));
}

/// A file system of 64 KiB.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=64k"))
            .expect("root may mount a tmpfs: give it CAP_SYS_ADMIN");
        Self(folder)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_never_leaves_half_a_line() {
    if !geteuid().is_root() {
        // Only root makes a small disk. Others have `/dev/full`, above, and the appender's own tests.
        return;
    }
    let disk = Tmpfs::mount();
    let (path, filler) = (disk.0.path().join("events"), disk.0.path().join("filler"));
    fs::write(&filler, vec![0; 32 * 1024]).unwrap();
    let (fanout, stats) = start(LARGE, vec![("file", appender(&path))]);
    let (batches, sent) = batches(3, 15_370);
    for batch in &batches {
        fanout.send(batch, None);
    }
    until("the disk is full", || stats[0].failed.load(Relaxed)).await;
    let (_, lines) = count(&fs::read_to_string(&path).unwrap());
    assert!((20..30).contains(&lines), "{lines}");
    fs::remove_file(&filler).unwrap();
    until("the output works again", || events(&stats[0]) == 30).await;
    fanout.close(DEADLINE).await;
    assert_eq!(dropped(&stats[0]), 0);
    assert_eq!(count(&fs::read_to_string(&path).unwrap()), (sent, 30));
}

#[tokio::test]
async fn a_pipe_that_somebody_made_non_blocking_gets_whole_lines() {
    let (mut reader, writer) = io::pipe().unwrap();
    fcntl_setfl(writer.as_fd(), OFlags::NONBLOCK).unwrap();
    let target = Box::new(Stdout::from(File::from(OwnedFd::from(writer))));
    let (fanout, stats) = start(3 * LARGE, vec![("stdout", target)]);
    let (batches, sent) = batches(3, LARGE);
    for batch in &batches {
        fanout.send(batch, None);
    }
    let reading = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    fanout.close(DEADLINE).await;
    assert_eq!(count(&reading.join().unwrap()), (sent, 30));
    assert!(!stats[0].failed.load(Relaxed));
}

#[tokio::test]
async fn a_batch_larger_than_the_queue_passes_when_it_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let (fanout, stats) = start(1000, vec![("file", appender(&path))]);
    fanout.send(&batch(0..10, LARGE), None);
    fanout.send(&batch(10..20, 100), None);
    fanout.close(DEADLINE).await;
    assert_eq!((events(&stats[0]), dropped(&stats[0])), (10, 10));
    assert_eq!(fs::read_to_string(&path).unwrap().len(), LARGE / 10 * 10);
}

#[tokio::test]
async fn only_the_first_output_tells_when_lines_were_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let specs = ["a", "b"].map(|name| OutputSpec::File(folder.path().join(name)));
    let seen: Arc<Mutex<Vec<Fact>>> = Arc::default();
    let observer: Observer = {
        let seen = seen.clone();
        Arc::new(move |facts| seen.lock().unwrap().extend(facts))
    };
    let opened = open(&specs, Style::Auto).unwrap();
    let fanout = opened.start(LARGE, &observer).unwrap();
    assert!(fanout.encodings().json && !fanout.encodings().pretty);
    let names: Vec<_> = fanout.registry().all().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["file", "file_2"]);
    let (json, pretty) = (batch(0..2, 100), batch(5..6, 50));
    fanout.send(&json, Some(&pretty));
    fanout.close(DEADLINE).await;
    assert_eq!(*seen.lock().unwrap(), *json.facts);
    for name in ["a", "b"] {
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), json.bytes);
    }
}

#[tokio::test]
async fn outputs_that_take_the_place_of_others_lose_nothing_of_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let spec = |name: &str| OutputSpec::File(folder.path().join(name));
    let written = Arc::new(Mutex::new(0));
    let observer: Observer = {
        let written = written.clone();
        Arc::new(move |facts| *written.lock().unwrap() += facts.len())
    };
    let mut fanout = open(&[spec("a"), spec("b")], Style::Auto).unwrap().start(LARGE, &observer).unwrap();
    let registry = fanout.registry();
    let line = |number: usize| batch(number..number + 1, 50);
    fanout.send(&line(0), None);
    until("both have it", || registry.all().iter().all(|(_, stats)| events(stats) == 1)).await;
    let output = Output::default();
    let opened = Opened::new(&[spec("c")], &output, &HostRoot::new("/"), registry.clone()).unwrap();
    let swap = Swap { removed: vec![spec("a")], added: opened.start(LARGE, &observer).unwrap() };
    fanout.swap(swap);
    fanout.send(&line(1), None);
    fanout.close(DEADLINE).await;
    for (name, numbers) in [("a", 0..1), ("b", 0..2), ("c", 1..2)] {
        let expected: Vec<u8> = numbers.flat_map(|number| line(number).bytes).collect();
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), expected, "{name}");
    }
    let events: Vec<_> =
        registry.all().into_iter().map(|(name, stats)| (name.to_string(), events(&stats))).collect();
    assert_eq!(events, [("file".into(), 1), ("file_2".into(), 2), ("file_3".into(), 1)]);
    // The second is the first now.
    assert_eq!(*written.lock().unwrap(), 2);
}

#[tokio::test]
async fn pretty_lines_go_only_where_they_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, pretty| {
        let target = appender(&folder.path().join(name));
        OpenOutput { name: name.into(), spec: OutputSpec::None, pretty, stats: Arc::default(), target }
    };
    let outputs = vec![open("pretty", true), open("json", false)];
    let observer: Observer = Arc::new(|_| {});
    let fanout = Opened { outputs, registry: Registry::default() }.start(LARGE, &observer).unwrap();
    assert!(fanout.encodings().json && fanout.encodings().pretty);
    let (json, pretty) = (batch(0..2, 100), batch(5..6, 50));
    fanout.send(&json, Some(&pretty));
    fanout.close(DEADLINE).await;
    assert_eq!(fs::read(folder.path().join("pretty")).unwrap(), pretty.bytes);
    assert_eq!(fs::read(folder.path().join("json")).unwrap(), json.bytes);
}

#[test]
fn an_output_that_cannot_be_opened_is_named_with_the_reason() {
    let specs = [OutputSpec::Stdout, OutputSpec::File("/nonexistent/events".into())];
    let error = open(&specs, Style::Json).unwrap_err().to_string();
    assert_eq!(error, "output file:/nonexistent/events: No such file or directory (os error 2)");
    let opened = open(&[OutputSpec::None], Style::Pretty).unwrap();
    assert_eq!(opened.outputs.len(), 0);
}

#[tokio::test]
async fn outputs_of_a_kind_are_numbered_and_what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = [
        "stdout".to_owned(),
        format!("file:{}", path("a").display()),
        format!("syslog:unix:{}", path("s").display()),
        format!("ndjson:unix:{}", path("t").display()),
        format!("ndjson:unix:{}", path("u").display()),
        format!("journald:{}", path("j").display()),
    ];
    let specs: Vec<OutputSpec> = text.iter().map(|text| text.parse().unwrap()).collect();
    let names: Vec<_> =
        open(&specs, Style::Json).unwrap().outputs.into_iter().map(|output| output.name).collect();
    assert_eq!(
        names.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["stdout", "file", "syslog", "ndjson", "ndjson_2", "journald"]
    );

    let file = OutputSpec::File(path("a"));
    // The same file by another name.
    symlink(path("a"), path("link")).unwrap();
    let error = open(&[file, OutputSpec::File(path("link"))], Style::Json).unwrap_err().to_string();
    assert!(error.contains("another output or another tellwire writes to it"), "{error}");
    let error = open(&[format!("syslog:unix:{}", path("a").display()).parse().unwrap()], Style::Json);
    assert!(error.unwrap_err().to_string().ends_with("/a: this is no socket"));
}
