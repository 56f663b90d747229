//! A terminal at which a test types what a program asks for.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    process::setsid,
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use serde_json::{Value, json};

use crate::{child, sys, wait::limit};

/// How often is looked again.
const MOMENT: Duration = Duration::from_millis(5);

/// A prompt's end, and what is typed then.
pub type Answer<'a> = (&'a str, &'a str);

/// Typed by nobody: the terminal goes away.
pub const HANG_UP: &str = "\0";

/// Runs a program at a terminal of its own, answers what it asks in this order, and waits for its end.
///
/// For a forked child. Gives `{"pid", "status", "said"}`; `before` runs in the program's process.
pub fn run(program: &[&str], answers: &[Answer<'_>], before: impl FnOnce()) -> Value {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let main = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).expect("a terminal");
    sys::unlock_terminal(main.as_fd());
    let name = format!("/dev/pts/{}", sys::terminal_number(main.as_fd()));
    let mut child = child::fork(|| {
        setsid().expect("a session");
        // The first terminal that the leader of a session opens is its own.
        let terminal = OpenOptions::new().read(true).write(true).open(&name).expect("the terminal");
        dup2_stdin(&terminal).expect("stdin");
        dup2_stdout(&terminal).expect("stdout");
        dup2_stderr(&terminal).expect("stderr");
        drop(terminal);
        before();
        // sudo 1.9.16 crashes where there is no environment.
        sys::exec_as_usual(Path::new(program[0]), program)
    });
    let mut main = Some(File::from(main));
    let (mut said, mut heard) = (String::new(), 0);
    let mut answers = answers.iter();
    let mut next = answers.next();
    // Sooner than whoever waits for this process loses patience: what the program said should be told.
    let deadline = Instant::now() + limit() * 4 / 5;
    let status = loop {
        while let Some(main) = main.as_mut().filter(|main| readable(main)) {
            let mut buffer = [0; 4096];
            match main.read(&mut buffer) {
                Ok(len) if len > 0 => said.push_str(&String::from_utf8_lossy(&buffer[..len])),
                // Nobody has it open: the program has ended, or has not opened it yet.
                _ => break,
            }
        }
        if main.is_none() {
            thread::park_timeout(MOMENT);
        }
        if let Some((prompt, answer)) = next
            && let Some(at) = said[heard..].find(prompt)
        {
            heard += at + prompt.len();
            if *answer == HANG_UP {
                main = None;
            } else if let Some(main) = &mut main {
                main.write_all(format!("{answer}\n").as_bytes()).expect("typing");
            }
            next = answers.next();
        }
        if let Some(status) = child.ended() {
            break status;
        }
        assert!(Instant::now() < deadline, "{program:?} does not end; it said:\n{said}");
    };
    json!({"pid": child.pid, "status": status.code(), "said": said})
}

/// Whether there is something to read within a moment.
fn readable(terminal: &File) -> bool {
    let moment = Timespec { tv_sec: 0, tv_nsec: MOMENT.subsec_nanos().into() };
    let mut fds = [PollFd::new(terminal, PollFlags::IN)];
    poll(&mut fds, Some(&moment)).is_ok() && fds[0].revents().contains(PollFlags::IN)
}
