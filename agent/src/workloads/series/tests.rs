//! Series of workloads: sums, budgets, names that come late.

use super::*;
use crate::enrich::{
    cgroup_path,
    names::{Names, PodNames},
};

fn container(number: u64, workload: Option<&str>) -> Arc<Container> {
    let path = cgroup_path::parse(&format!("/docker/{number:064x}")).unwrap();
    let container = Arc::new(Container::new(path));
    if let Some(workload) = workload {
        container.name(&Arc::new(names(workload)));
    }
    container
}

fn names(workload: &str) -> Names {
    let pod = PodNames { namespace: "shop".into(), name: format!("{workload}-x").into(), uid: "u".into() };
    Names { container: Some("server".into()), workload: workload.into(), pod: Some(pod), ..Names::default() }
}

fn key_of(workload: &str) -> Key {
    let [namespace, container] = ["shop", "server"].map(Arc::from);
    Key::Workload { namespace, workload: workload.into(), container, pod: None }
}

fn execs(series: &mut Series, key: &Key) -> Option<u64> {
    series.show().iter().find(|(found, _)| found == key).map(|(_, sums)| sums[0])
}

fn sum(series: &mut Series) -> u64 {
    series.show().iter().map(|(_, sums)| sums[0]).sum()
}

fn update(series: &mut Series, counts: &[(u64, u64)], now: Instant) {
    series.update(counts.iter().map(|(id, count)| ((0, *id), EXECS, *count)), now);
}

#[test]
fn what_was_shown_before_a_name_came_stays_where_it_was() {
    let (mut series, now) = (Series::default(), Instant::now());
    let cart = container(1, None);
    series.containers.insert((0, 1), Arc::clone(&cart));
    update(&mut series, &[(1, 5)], now);
    assert_eq!(execs(&mut series, &Key::Unnamed), Some(5));
    cart.name(&Arc::new(names("cart")));
    update(&mut series, &[(1, 7)], now);
    assert_eq!(execs(&mut series, &Key::Unnamed), Some(5));
    assert_eq!(execs(&mut series, &key_of("cart")), Some(2));
}

#[test]
fn nothing_that_nobody_saw_stays_without_a_name() {
    let (mut series, now) = (Series::default(), Instant::now());
    let cart = container(1, None);
    series.containers.insert((0, 1), Arc::clone(&cart));
    update(&mut series, &[(1, 5)], now);
    cart.name(&Arc::new(names("cart")));
    update(&mut series, &[(1, 7)], now);
    assert_eq!(execs(&mut series, &key_of("cart")), Some(7));
    assert_eq!(execs(&mut series, &Key::Unnamed), Some(0));
}

#[test]
fn churn_leaves_a_flat_number_of_series_and_exact_sums() {
    let mut series = Series { budget: 20 * FIELDS, own: 0, ..Series::default() };
    let start = Instant::now();
    let mut largest = 0;
    for second in 0..7_200_u64 {
        let now = start + Duration::from_secs(second);
        let name = format!("job-{second}");
        series.containers.insert((0, second), container(second, Some(&name)));
        update(&mut series, &[(second, 3)], now);
        series.harvested((0, second), EXECS, 3);
        series.gone(&FxHashSet::from_iter([(0, second)]), now);
        largest = largest.max(series.slots.len());
        assert_eq!(sum(&mut series), 3 * (second + 1));
    }
    // The workloads that have room, and those of no workload.
    assert!(largest <= 24, "{largest}");
    assert_eq!((series.places.len(), series.containers.len()), (0, 0));
    assert!(series.refused > 0);
}

#[test]
fn a_workload_keeps_its_series_over_its_pods() {
    let (mut series, now) = (Series::default(), Instant::now());
    series.containers.insert((0, 1), container(1, Some("cart")));
    update(&mut series, &[(1, 4)], now);
    series.harvested((0, 1), EXECS, 4);
    series.gone(&FxHashSet::from_iter([(0, 1)]), now);
    series.containers.insert((0, 2), container(2, Some("cart")));
    update(&mut series, &[(2, 6)], now);
    assert_eq!(execs(&mut series, &key_of("cart")), Some(10));
    update(&mut series, &[(2, 6)], now + GRACE * 2);
    assert_eq!(execs(&mut series, &key_of("cart")), Some(10));
    series.harvested((0, 2), EXECS, 6);
    series.gone(&FxHashSet::from_iter([(0, 2)]), now + GRACE * 2);
    update(&mut series, &[], now + GRACE * 4);
    assert_eq!(execs(&mut series, &key_of("cart")), None);
    assert_eq!(execs(&mut series, &Key::Removed), Some(10));
}

#[test]
fn another_configuration_holds_from_then_on_and_no_sum_goes_back() {
    let (mut series, now) = (Series { own: 0, ..Series::default() }, Instant::now());
    series.configure(0, false);
    series.containers.insert((0, 1), container(1, Some("cart")));
    update(&mut series, &[(1, 4)], now);
    assert_eq!((execs(&mut series, &Key::Overflow), series.refused), (Some(4), 1));
    series.configure(100, false);
    update(&mut series, &[(1, 5)], now);
    assert_eq!(execs(&mut series, &Key::Overflow), Some(4));
    assert_eq!(execs(&mut series, &key_of("cart")), Some(1));
    series.configure(100, true);
    update(&mut series, &[(1, 7)], now);
    assert_eq!(execs(&mut series, &key_of("cart")), Some(1));
    series.configure(0, true);
    update(&mut series, &[(1, 9)], now);
    let of_pod = series.show().into_iter().find(|(key, _)| matches!(key, Key::Workload { pod: Some(_), .. }));
    assert_eq!(of_pod.map(|(_, sums)| sums[0]), Some(4), "what has series keeps them");
    assert_eq!((sum(&mut series), series.refused), (9, 1));
}

#[test]
fn attempts_are_told_by_whether_they_succeeded() {
    let (mut series, now) = (Series::default(), Instant::now());
    let counter = |service: pam::Service, outcome: pam::Outcome| AUTH + service as u32 * 4 + outcome as u32;
    let attempts = pam::Service::ALL
        .iter()
        .flat_map(|service| pam::Outcome::ALL.iter().map(|outcome| ((0, 1), counter(*service, *outcome), 1)));
    series.update(attempts.chain([((0, 1), SESSIONS_OPENED, 50)]), now);
    let shown = series.show();
    let (_, sums) = shown.iter().find(|(key, _)| *key == Key::Host).unwrap();
    assert_eq!((sums[6], sums[7]), (5, 15));
}

#[test]
fn pods_have_series_of_their_own_where_that_is_wanted() {
    let (mut series, now) = (Series { pods: true, ..Series::default() }, Instant::now());
    series.containers.insert((0, 1), container(1, Some("cart")));
    update(&mut series, &[(1, 4)], now);
    let pod = |key: &Key| matches!(key, Key::Workload { pod: Some(pod), .. } if &**pod == "cart-x");
    assert!(series.show().iter().any(|(key, _)| pod(key)));
}
