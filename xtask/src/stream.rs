//! Running a command with its output shown as it comes, and read at the same time.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How often a silent command is looked after.
const TICK: Duration = Duration::from_millis(200);

/// How long a command may take.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    None,
    After(Duration),
}

/// Runs a command; shows its output and hands each line of it to `see`. Past the limit the command is killed.
pub(crate) fn watch(command: Command, limit: Limit, see: impl FnMut(&str)) -> Result<ExitStatus> {
    show(command, limit, &mut io::stdout(), see)
}

/// Runs a command and hands each line of its output to `see`, which shows what it likes.
pub(crate) fn read(command: Command, limit: Limit, see: impl FnMut(&str)) -> Result<ExitStatus> {
    show(command, limit, &mut io::sink(), see)
}

fn show(
    mut command: Command,
    limit: Limit,
    screen: &mut impl Write,
    mut see: impl FnMut(&str),
) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    // One pipe for both, so that what belongs together stays together.
    let (output, input) = io::pipe().context("opening a pipe")?;
    command.stdin(Stdio::null()).stdout(input.try_clone().context("opening a pipe")?).stderr(input);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    // It holds our ends of the pipe, which would never close.
    drop(command);
    let (sender, chunks) = sync_channel(16);
    thread::spawn(move || pump(output, &sender));

    let mut lines = Lines::default();
    while let Some(chunk) = next(&mut child, &chunks)? {
        screen.write_all(&chunk).context("showing output")?;
        screen.flush().context("showing output")?;
        lines.take(&chunk, &mut see);
        if let Limit::After(limit) = limit
            && start.elapsed() > limit
        {
            child.kill().with_context(|| format!("killing {name}"))?;
            child.wait().with_context(|| format!("waiting for {name}"))?;
            bail!("{name} did not end in {} seconds: killed", limit.as_secs());
        }
    }
    lines.end(&mut see);
    child.wait().with_context(|| format!("waiting for {name}"))
}

/// The next output, empty when there is none yet; `None` once the command has ended. A daemon that it left
/// behind may hold the pipe open for ever, so the end of the pipe is not the only end.
fn next(child: &mut Child, chunks: &Receiver<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    match chunks.recv_timeout(TICK) {
        Ok(chunk) => Ok(Some(chunk)),
        Err(RecvTimeoutError::Disconnected) => Ok(None),
        Err(RecvTimeoutError::Timeout) => {
            let ended = child.try_wait().context("waiting for a command")?.is_some();
            // What it wrote last may still be on its way.
            Ok(if ended { chunks.recv_timeout(TICK).ok() } else { Some(Vec::new()) })
        }
    }
}

fn pump(mut output: impl Read, chunks: &SyncSender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(length) = output.read(&mut buffer) {
        match buffer.get(..length) {
            None | Some([]) => break,
            Some(chunk) if chunks.send(chunk.to_vec()).is_err() => break,
            Some(_) => {}
        }
    }
}

/// Puts lines together from chunks that end anywhere.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, chunk: &[u8], see: &mut impl FnMut(&str)) {
        self.rest.extend_from_slice(chunk);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            see(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn end(&mut self, see: &mut impl FnMut(&str)) {
        if !self.rest.is_empty() {
            see(String::from_utf8_lossy(&self.rest).trim_end());
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, process::Command, time::Duration};

    use super::{Limit, Lines, show};

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for chunk in ["on", "e\r\ntw", "o\n\nthree"] {
            lines.take(chunk.as_bytes(), &mut |line: &str| seen.push(line.to_owned()));
        }
        lines.end(&mut |line: &str| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", "", "three"]);
    }

    #[test]
    fn the_status_and_the_last_line_arrive() {
        let (mut screen, mut seen) = (Vec::new(), Vec::new());
        let command = shell("echo a; printf b; exit 3");
        let status = show(command, Limit::None, &mut screen, |line| seen.push(line.to_owned()));
        assert_eq!(screen, b"a\nb");
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn a_command_past_its_limit_is_killed() {
        let limit = Limit::After(Duration::from_millis(1));
        let error = show(shell("exec sleep 60"), limit, &mut io::sink(), |_| ()).unwrap_err();
        assert!(error.to_string().contains("killed"), "{error}");
    }

    #[test]
    fn a_daemon_left_behind_holds_nobody_up() {
        let status = show(shell("sleep 5 & echo done"), Limit::None, &mut io::sink(), |_| ()).unwrap();
        assert!(status.success());
    }
}
