//! Wall-clock time of an event: the kernel's boot time plus an offset that is measured again now and then.

use rustix::time::{ClockId, clock_gettime};

use super::own::ClockFacts;

const NANOS: i128 = 1_000_000_000;

/// The offset may move so far from one reading to the next and be a clock that is slewed or that drifts: five hundred
/// parts in a million are the kernel's limit. What is beyond was set.
const STEP: i128 = NANOS;

/// Turns CLOCK_BOOTTIME into RFC 3339.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Nanoseconds to add to boot time.
    offset: i128,
    /// The second that `prefix` says.
    second: i64,
    /// `YYYY-MM-DDTHH:MM:SS.` of that second: many events share one.
    prefix: String,
}

impl Clock {
    /// Reads the offset now.
    pub(crate) fn new() -> Self {
        Self { offset: offset(), second: i64::MIN, prefix: String::new() }
    }

    /// For times that are wall-clock time already.
    pub(crate) fn of_wall() -> Self {
        Self { offset: 0, second: i64::MIN, prefix: String::new() }
    }

    /// A fixed offset in nanoseconds, for tests.
    #[cfg(test)]
    pub(crate) fn fixed(offset: i128) -> Self {
        Self { offset, second: i64::MIN, prefix: String::new() }
    }

    /// Reads the offset again; tells if the wall clock was set.
    pub(crate) fn refresh(&mut self) -> Option<ClockFacts> {
        self.set_offset(offset())
    }

    fn set_offset(&mut self, new: i128) -> Option<ClockFacts> {
        let old = self.offset;
        self.offset = new;
        // What was written for this second is true no more.
        self.second = i64::MIN;
        ((new - old).abs() > STEP).then(|| ClockFacts {
            step_seconds: seconds(new - old),
            old_offset: seconds(old),
            new_offset: seconds(new),
        })
    }

    /// The wall-clock time of a boot time, in nanoseconds since 1970.
    pub(crate) fn wall(&self, boot: u64) -> u64 {
        u64::try_from(i128::from(boot) + self.offset).unwrap_or_default()
    }

    /// The boot time of a wall-clock time, both in nanoseconds.
    pub(crate) fn boot(&self, wall: u64) -> u64 {
        u64::try_from(i128::from(wall) - self.offset).unwrap_or_default()
    }

    /// Writes the wall-clock time of a boot time, in place of what `to` holds.
    pub(crate) fn write(&mut self, boot: u64, to: &mut String) {
        let nanos = i128::from(boot) + self.offset;
        let second = i64::try_from(nanos.div_euclid(NANOS)).unwrap_or_default();
        if second != self.second {
            self.second = second;
            self.prefix.clear();
            // A time beyond year 9999 is no time of ours; the epoch says so plainly.
            let timestamp = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            self.prefix.push_str(&timestamp.strftime("%Y-%m-%dT%H:%M:%S.").to_string());
        }
        to.clear();
        to.push_str(&self.prefix);
        // Nine digits by hand: the formatter's way to leading zeros is a large part of a line's cost.
        let fraction = u32::try_from(nanos.rem_euclid(NANOS)).unwrap_or_default();
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(fraction);
        to.push_str("000000000".get(digits.len()..).unwrap_or_default());
        to.push_str(digits);
        to.push('Z');
    }

    pub(crate) fn text(&mut self, boot: u64) -> String {
        let mut text = String::with_capacity(30);
        self.write(boot, &mut text);
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of this century have room")]
fn seconds(nanos: i128) -> f64 {
    nanos as f64 / NANOS as f64
}

/// CLOCK_BOOTTIME now, in nanoseconds.
pub(crate) fn boot_now() -> u64 {
    u64::try_from(nanos(ClockId::Boottime)).unwrap_or_default()
}

/// `CLOCK_REALTIME` now, in nanoseconds.
pub(crate) fn wall_now() -> u64 {
    u64::try_from(nanos(ClockId::Realtime)).unwrap_or_default()
}

fn offset() -> i128 {
    nanos(ClockId::Realtime) - nanos(ClockId::Boottime)
}

fn nanos(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * NANOS + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_and_share_a_second() {
        let mut clock = Clock::fixed(1_700_000_000 * NANOS);
        assert_eq!(clock.text(0), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(clock.text(1), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(clock.text(999_999_999), "2023-11-14T22:13:20.999999999Z");
        assert_eq!(clock.text(1_000_000_000), "2023-11-14T22:13:21.000000000Z");
    }

    #[test]
    fn a_clock_that_was_set_is_told_and_one_that_drifts_is_followed() {
        let mut clock = Clock::fixed(1_700_000_000 * NANOS);
        assert_eq!(clock.text(0), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(clock.set_offset(1_700_000_000 * NANOS + 500_000_000), None);
        assert_eq!(clock.text(0), "2023-11-14T22:13:20.500000000Z");
        let back = clock.set_offset(1_699_996_400 * NANOS + 500_000_000);
        let facts =
            ClockFacts { step_seconds: -3600.0, old_offset: 1_700_000_000.5, new_offset: 1_699_996_400.5 };
        assert_eq!(back, Some(facts));
        assert_eq!(clock.text(0), "2023-11-14T21:13:20.500000000Z");
        assert!(clock.set_offset(1_699_996_401 * NANOS + 500_000_001).is_some());
    }
}
