//! Bursts, by hand and by chance.

use std::collections::VecDeque;

use proptest::prelude::*;
use zerocopy::FromZeros as _;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn attempt(time: u64, source: &str, user: &str) -> Attempt {
    let user = (!user.is_empty()).then(|| user.into());
    let source = source.parse().ok();
    Attempt { time, source, user, is_known: false, container: None, subject: Subject::new_zeroed() }
}

fn bursts(failures: u32) -> Bursts {
    Bursts::new(failures, Duration::from_mins(1))
}

#[test]
fn a_burst_is_told_at_its_beginning_at_a_success_and_at_its_end() {
    let mut bursts = bursts(3);
    assert_eq!(bursts.failed(&attempt(100 * SECOND, "192.0.2.1", "a")), [None, None]);
    assert_eq!(bursts.failed(&attempt(101 * SECOND, "192.0.2.1", "b")), [None, None]);
    let [begun, by_user] = bursts.failed(&attempt(102 * SECOND, "192.0.2.1", "c"));
    let burst = Burst {
        key: Key::Source("192.0.2.1".parse().unwrap()),
        state: State::Begun,
        failures: 3,
        distinct: 3,
        first: 100 * SECOND,
        last: 102 * SECOND,
        succeeded: false,
        is_known: false,
        subject: Subject::new_zeroed(),
    };
    assert_eq!((begun, by_user), (Some(burst.clone()), None));
    assert_eq!(bursts.failed(&attempt(103 * SECOND, "192.0.2.1", "c")), [None, None]);
    let grown = Burst { failures: 4, last: 103 * SECOND, succeeded: true, ..burst };
    let succeeded = Burst { state: State::Succeeded, ..grown.clone() };
    assert_eq!(bursts.succeeded(&attempt(104 * SECOND, "192.0.2.1", "c")), [Some(succeeded), None]);
    assert_eq!(bursts.succeeded(&attempt(104 * SECOND, "192.0.2.1", "c")), [None, None]);
    assert_eq!(bursts.ended(Some(150 * SECOND)), []);
    assert_eq!(bursts.ended(Some(163 * SECOND)), [Burst { state: State::Ended, ..grown }]);
    assert_eq!(bursts.ended(Some(164 * SECOND)), []);
}

#[test]
fn one_user_from_many_places_is_a_burst_too() {
    let mut bursts = bursts(3);
    bursts.failed(&attempt(SECOND, "192.0.2.1", "root"));
    bursts.failed(&attempt(SECOND, "192.0.2.2", "root"));
    let [by_source, by_user] = bursts.failed(&attempt(SECOND, "192.0.2.3", "root"));
    assert_eq!(by_source, None);
    let by_user = by_user.unwrap();
    let key = Key::User { name: "root".into(), container: None };
    assert_eq!((by_user.key, by_user.distinct), (key, 3));
}

#[test]
fn a_user_of_one_container_is_not_that_of_another() {
    let mut bursts = bursts(3);
    let within = |time, container: &str| Attempt {
        container: Some(container.into()),
        ..attempt(time * SECOND, "", "root")
    };
    for time in 1..3 {
        for container in ["a", "b"] {
            assert_eq!(bursts.failed(&within(time, container)), [None, None]);
        }
        assert_eq!(bursts.failed(&attempt(time * SECOND, "", "root")), [None, None]);
    }
    let [_, begun] = bursts.failed(&within(3, "b"));
    let key = Key::User { name: "root".into(), container: Some("b".into()) };
    assert_eq!(begun.map(|burst| burst.key), Some(key));
    assert_eq!(bursts.succeeded(&within(4, "a")), [None, None]);
}

#[test]
fn addresses_of_one_v6_network_are_one_source() {
    let mut bursts = bursts(2);
    bursts.failed(&attempt(SECOND, "2001:db8::1", ""));
    let [burst, _] = bursts.failed(&attempt(SECOND, "2001:db8::ffff:1", ""));
    assert_eq!(burst.unwrap().key, Key::Source("2001:db8::".parse().unwrap()));
    assert_eq!(bursts.failed(&attempt(SECOND, "2001:db8:0:1::1", "")), [None, None]);
    // A mapped address is the one that it maps.
    bursts.failed(&attempt(SECOND, "::ffff:192.0.2.1", ""));
    assert!(bursts.failed(&attempt(SECOND, "192.0.2.1", ""))[0].is_some());
}

#[test]
fn a_slow_guesser_is_no_burst() {
    let mut bursts = bursts(3);
    for number in 0..100 {
        assert_eq!(bursts.failed(&attempt(number * 31 * SECOND, "192.0.2.1", "a")), [None, None]);
    }
}

/// A million addresses that fail once do not hide the one that fails often.
#[test]
fn memory_is_bounded_and_the_worst_is_seen_among_a_million_addresses() {
    let mut bursts = bursts(10);
    let mut found = 0;
    for number in 0..1_000_000_u32 {
        let stranger = IpAddr::from(number.wrapping_mul(2_654_435_761).to_be_bytes());
        let time = SECOND + u64::from(number) * 10_000;
        bursts.failed(&Attempt { source: Some(stranger), ..attempt(time, "", "") });
        if number % 1000 == 0 {
            let [burst, _] = bursts.failed(&attempt(time, "203.0.113.9", ""));
            found += usize::from(burst.is_some());
        }
    }
    assert!(bursts.len() <= 2 * ENTRIES);
    assert_eq!(found, 1);
}

proptest! {
    /// Against the plain definition: all times are kept.
    #[test]
    fn a_burst_begins_when_so_many_failed_within_the_window_and_not_before(
        gaps in proptest::collection::vec(0_u64..20, 1..200),
        failures in 2_u32..12,
    ) {
        let mut bursts = bursts(failures);
        let mut times = VecDeque::new();
        let mut time = 1000 * SECOND;
        for gap in gaps {
            time += gap * SECOND;
            times.push_back(time);
            let within = |span: u64| times.iter().filter(|other| time - **other < span).count() as u64;
            let [burst, _] = bursts.failed(&attempt(time, "192.0.2.1", ""));
            if burst.is_some() {
                prop_assert!(within(60 * SECOND) >= u64::from(failures));
                break;
            }
            prop_assert!(within(55 * SECOND) < u64::from(failures));
        }
    }

    #[test]
    fn what_has_begun_ends_once(times in proptest::collection::vec(0_u64..1000, 1..300)) {
        let mut bursts = bursts(3);
        let mut times = times;
        times.sort_unstable();
        let (mut begun, mut ended) = (0, 0);
        for time in times {
            let now = (1000 + time) * SECOND;
            ended += bursts.ended(Some(now)).len();
            begun += bursts.failed(&attempt(now, "192.0.2.1", "")).iter().flatten().count();
        }
        ended += bursts.ended(None).len();
        prop_assert_eq!(begun, ended);
        prop_assert_eq!(bursts.len(), 0);
    }
}
