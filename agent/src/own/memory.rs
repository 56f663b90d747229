//! The agent's own memory: code that only the start needed is not kept mapped.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    ptr,
    time::Duration,
};

use rustix::{
    mm::{Advice, madvise},
    param::page_size,
};

// Documentation/admin-guide/mm/pagemap.rst (v6.18): bytes of an entry, and its bits for a page that is in memory, and for one of a file.
const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
const FILE: u64 = 1 << 61;

/// Pauses in seconds. What the tasks that the start began need comes to an end at different times: the libraries of the host are found,
/// and the container runtimes have answered, if they do.
const PAUSES: [u64; 4] = [0, 1, 3, 6];

/// Gives back what the start needed.
pub(crate) async fn settle() {
    for pause in PAUSES {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        give_back_code();
    }
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

/// Where pages of the program's file are in memory as the file has them.
fn file_pages() -> io::Result<Vec<Range<usize>>> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let pagemap = File::open("/proc/self/pagemap")?;
    let page = page_size();
    let mut ranges = Vec::new();
    for mapping in maps.lines().filter_map(|line| read_only(line, &program.to_string_lossy())) {
        let mut entries = vec![0; mapping.len() / page * ENTRY];
        pagemap.read_exact_at(&mut entries, (mapping.start / page * ENTRY) as u64)?;
        ranges.extend(
            of_file(&entries)
                .map(|pages| mapping.start + pages.start * page..mapping.start + pages.end * page),
        );
    }
    Ok(ranges)
}

/// The range of a mapping of the file that cannot be written to; a line as in Documentation/filesystems/proc.rst (v6.18).
fn read_only(line: &str, file: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let is_read_only = matches!(fields.next(), Some("r-xp" | "r--p"));
    let is_ours = fields.nth(3) == Some(file);
    (is_read_only && is_ours).then_some(range)
}

/// Runs of pages that are there and are the file's, by their entries in `pagemap`. Others must stay: relocations write to pages before
/// they are made read-only, and whoever watches a function of this program has a breakpoint in a page of its own.
fn of_file(entries: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let is_of_file = |entry: &[u8; ENTRY]| u64::from_ne_bytes(*entry) & (PRESENT | FILE) == PRESENT | FILE;
    let (entries, _) = entries.as_chunks::<ENTRY>();
    let mut at = 0;
    entries.chunk_by(move |one, next| is_of_file(one) == is_of_file(next)).filter_map(move |run| {
        let start = at;
        at += run.len();
        run.first().is_some_and(is_of_file).then_some(start..at)
    })
}

#[expect(unsafe_code, reason = "the kernel takes addresses")]
fn give_back(range: Range<usize>) -> io::Result<()> {
    let start = ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: pages that nobody has written to: what is read next is the same file's.
    Ok(unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_mappings_of_the_file_are_told_from_others() {
        let line = "7f52-7f60 r-xp 00066000 fe:00 10018827                   /usr/bin/tellwire";
        assert_eq!(read_only(line, "/usr/bin/tellwire"), Some(0x7f52..0x7f60));
        assert_eq!(read_only(line, "/usr/bin/tell"), None);
        assert_eq!(read_only(&line.replace("r-xp", "rw-p"), "/usr/bin/tellwire"), None);
        assert_eq!(read_only("7f08-7f10 r--p 00000000 00:00 0", "/usr/bin/tellwire"), None);
        assert_eq!(read_only("", "/usr/bin/tellwire"), None);
    }

    #[test]
    fn only_pages_that_the_file_has_too_are_given_back() {
        let of = |entries: &[u64]| {
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
            of_file(&bytes).collect::<Vec<_>>()
        };
        let (ours, written, gone) = (PRESENT | FILE | 7, PRESENT | 8, FILE);
        assert_eq!(of(&[ours, ours, written, gone, ours, 0]), [0..2, 4..5]);
        assert!(of(&[written]).is_empty() && of(&[]).is_empty());
    }

    #[test]
    fn this_program_has_such_pages_and_runs_on_without_them() {
        assert!(!file_pages().unwrap().is_empty());
        give_back_code();
        assert!(!file_pages().unwrap().is_empty());
    }
}
