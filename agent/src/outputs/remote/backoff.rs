//! How long to wait before a connection is tried again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);

/// Longer would keep lines waiting after an outage that is over.
const LONGEST: Duration = Duration::from_secs(10);

/// A connection that lived so long was a good one: the next is tried at once.
const LASTING: Duration = Duration::from_secs(5);

/// Doubles from one attempt to the next.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    until: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, until: None }
    }
}

impl Backoff {
    /// How long to wait now.
    pub(super) fn take(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        // Between half of it and all of it: the agents of many hosts, which lost one collector at the same time, do
        // not come back at the same time.
        let random = u16::try_from(RandomState::new().hash_one(0) >> 48).unwrap_or_default();
        let wait = longest / 2 + longest.mul_f64(f64::from(random) / f64::from(u16::MAX)) / 2;
        self.until = Some(Instant::now() + wait);
        wait
    }

    /// Whether the time that was taken last is not over.
    pub(super) fn is_waiting(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// A connection of this age has ended. Only one that lasted shows that the peer is well: some accept, and
    /// close at once.
    pub(super) fn ended(&mut self, age: Duration) {
        if age >= LASTING {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST, LASTING, LONGEST};

    #[test]
    fn waits_double_up_to_the_longest_and_no_two_hosts_wait_alike() {
        let mut backoff = Backoff::default();
        assert!(!backoff.is_waiting());
        let mut longest = FIRST;
        for _ in 0..12 {
            let wait = backoff.take();
            assert!(longest / 2 <= wait && wait <= longest, "{wait:?} of {longest:?}");
            longest = (longest * 2).min(LONGEST);
        }
        assert!(backoff.is_waiting());
        backoff.ended(LASTING / 2);
        assert!(backoff.take() >= LONGEST / 2);
        backoff.ended(LASTING);
        assert!(!backoff.is_waiting() && backoff.take() <= FIRST);
    }
}
