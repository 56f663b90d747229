//! The agent's own memory: code that only the start needed is not kept mapped.

use std::{fs, io, ops::Range, ptr, time::Duration};

use rustix::mm::{Advice, madvise};

/// By then the libraries of the host are found and the container runtimes have answered, if they do.
const SETTLED: Duration = Duration::from_secs(10);

/// Gives back what the start needed: once now, and once more when the tasks that it began have settled.
pub(crate) async fn settle() {
    give_back_code();
    tokio::time::sleep(SETTLED).await;
    give_back_code();
}

/// Lets the pages of the program's file go, of which the start touched nearly all (the loader, the verifier's log, the configuration,
/// the compiler of patterns). Those that are needed again come back from the page cache, as they came the first time; all others
/// count no more as memory of this process, and the kernel is free to drop them.
fn give_back_code() {
    let given = file_pages().and_then(|ranges| ranges.into_iter().try_for_each(give_back));
    if let Err(error) = given {
        tracing::debug!(%error, "code that only the start needed stays mapped");
    }
}

/// Where the program's file is mapped and was not written to.
fn file_pages() -> io::Result<Vec<Range<usize>>> {
    let program = fs::read_link("/proc/self/exe")?;
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    Ok(unwritten(&smaps, &program.to_string_lossy()))
}

/// Mappings of the file in `smaps` (Documentation/filesystems/proc.rst, v6.18) that cannot be written to and have no page of their own:
/// relocations, for one, write to pages before they are made read-only, and what was written must stay.
fn unwritten(smaps: &str, file: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some((range, is_wanted)) = header(line, file) {
            current = is_wanted.then_some(range);
        } else if let Some(size) = line.strip_prefix("Anonymous:")
            && let Some(range) = current.take()
            && size.trim() == "0 kB"
        {
            ranges.push(range);
        }
    }
    ranges
}

/// The first line of a mapping: where it is, and whether it is the file's and cannot be written to.
fn header(line: &str, file: &str) -> Option<(Range<usize>, bool)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let is_read_only = matches!(fields.next(), Some("r-xp" | "r--p"));
    let is_ours = fields.nth(3) == Some(file);
    Some((range, is_read_only && is_ours))
}

#[expect(unsafe_code, reason = "the kernel takes addresses")]
fn give_back(range: Range<usize>) -> io::Result<()> {
    let start = ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: a private mapping of a file without pages of its own: what is read next is the same file's.
    Ok(unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) }?)
}

#[cfg(test)]
mod tests {
    use super::{file_pages, give_back_code, unwritten};

    #[test]
    fn only_pages_that_the_file_has_too_are_given_back() {
        let smaps = "\
            55d0-55d8 r--p 00000000 08:01 42 /usr/bin/tellwire\nRss: 8 kB\nAnonymous: 0 kB\nVmFlags: rd mr\n\
            55d8-55e0 r-xp 00008000 08:01 42 /usr/bin/tellwire\nRss: 8 kB\nAnonymous:         0 kB\n\
            55e0-55e8 r--p 00010000 08:01 42 /usr/bin/tellwire\nRss: 8 kB\nAnonymous:         4 kB\n\
            55e8-55f0 rw-p 00018000 08:01 42 /usr/bin/tellwire\nRss: 8 kB\nAnonymous:         0 kB\n\
            7f00-7f08 r-xp 00000000 08:01 43 /usr/lib/libc.so.6\nRss: 8 kB\nAnonymous:         0 kB\n\
            7f08-7f10 r--p 00000000 00:00 0\nRss: 8 kB\nAnonymous:         0 kB\n";
        assert_eq!(unwritten(smaps, "/usr/bin/tellwire"), [0x55d0..0x55d8, 0x55d8..0x55e0]);
    }

    #[test]
    fn this_program_has_such_pages_and_runs_on_without_them() {
        assert!(!file_pages().unwrap().is_empty());
        give_back_code();
        assert!(!file_pages().unwrap().is_empty());
    }
}
