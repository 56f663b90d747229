//! Whether the agent does its work: fully, in part, or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A pipeline that shows no sign of life for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// What `/readyz` says.
#[derive(Debug)]
pub(crate) struct Readiness {
    started: Instant,
    /// The pipeline's last sign of life, in milliseconds since the start.
    beat: AtomicU64,
    faults: Mutex<Faults>,
}

#[derive(Debug, Clone, Default)]
struct Faults {
    degraded: Vec<String>,
    /// Degraded for as long as it lasts, by what it is about.
    passing: BTreeMap<&'static str, String>,
    failed: Vec<String>,
    /// What an administrator should know, and is no fault; by what it is about.
    notes: BTreeMap<&'static str, String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    status: Status,
    degraded: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ready,
    Degraded,
    Failed,
}

impl Default for Readiness {
    /// Ready, with the pipeline seen alive just now.
    fn default() -> Self {
        Self { started: Instant::now(), beat: AtomicU64::new(0), faults: Mutex::default() }
    }
}

impl Readiness {
    /// Something does not work, and the agent goes on without it.
    pub(crate) fn degrade(&self, reason: String) {
        add(&mut self.faults().degraded, reason);
    }

    /// The same, until it is said that it works again.
    pub(crate) fn degrade_for_now(&self, about: &'static str, reason: Option<String>) {
        let passing = &mut self.faults().passing;
        match reason {
            Some(reason) => passing.insert(about, reason),
            None => passing.remove(about),
        };
    }

    /// Something that is worth saying and no fault, until it is not so any more.
    pub(crate) fn note(&self, about: &'static str, text: Option<String>) {
        let notes = &mut self.faults().notes;
        match text {
            Some(text) => notes.insert(about, text),
            None => notes.remove(about),
        };
    }

    /// The agent does not do its work.
    pub(crate) fn fail(&self, reason: String) {
        add(&mut self.faults().failed, reason);
    }

    /// The pipeline is alive.
    pub(crate) fn beat(&self) {
        self.beat.store(self.millis(Instant::now()), Relaxed);
    }

    /// Whether the agent does not do its work at the moment.
    pub(crate) fn is_failed(&self) -> bool {
        self.report().is_failed()
    }

    pub(super) fn report(&self) -> Report {
        self.report_at(Instant::now())
    }

    fn report_at(&self, now: Instant) -> Report {
        let Faults { mut degraded, passing, mut failed, notes } = self.faults().clone();
        degraded.extend(passing.into_values());
        let silence = self.millis(now).saturating_sub(self.beat.load(Relaxed));
        if u128::from(silence) >= STUCK.as_millis() {
            add(&mut failed, "pipeline is stuck".into());
        }
        let status = match (failed.as_slice(), degraded.as_slice()) {
            ([], []) => Status::Ready,
            ([], _) => Status::Degraded,
            _ => Status::Failed,
        };
        Report { status, degraded, failed, notes: notes.into_values().collect() }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        // Nothing can panic halfway through a change of the lists.
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Report {
    pub(super) fn is_failed(&self) -> bool {
        self.status == Status::Failed
    }
}

/// Each reason once, however often it comes.
fn add(reasons: &mut Vec<String>, reason: String) {
    if !reasons.contains(&reason) {
        reasons.push(reason);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Readiness;

    fn json(readiness: &Readiness, now: Instant) -> String {
        serde_json::to_string(&readiness.report_at(now)).unwrap()
    }

    #[test]
    fn a_report_says_the_worst_and_each_reason_once() {
        let readiness = Readiness::default();
        let now = Instant::now();
        assert_eq!(json(&readiness, now), r#"{"status":"ready","degraded":[]}"#);
        for _ in 0..2 {
            readiness.degrade("exit is not attached".into());
        }
        let degraded = r#"{"status":"degraded","degraded":["exit is not attached"]}"#;
        assert_eq!(json(&readiness, now), degraded);
        readiness.degrade_for_now("config", Some("old".into()));
        readiness.degrade_for_now("config", Some("refused".into()));
        let both = r#"{"status":"degraded","degraded":["exit is not attached","refused"]}"#;
        assert_eq!(json(&readiness, now), both);
        readiness.degrade_for_now("config", None);
        assert_eq!(json(&readiness, now), degraded);
        readiness.fail("no probe is attached".into());
        let failed =
            r#"{"status":"failed","degraded":["exit is not attached"],"failed":["no probe is attached"]}"#;
        assert_eq!(json(&readiness, now), failed);
    }

    #[test]
    fn a_silent_pipeline_is_stuck_until_it_beats_again() {
        let readiness = Readiness::default();
        let later = |millis| readiness.started + Duration::from_millis(millis);
        assert!(!readiness.report_at(later(9_999)).is_failed());
        let stuck = r#"{"status":"failed","degraded":[],"failed":["pipeline is stuck"]}"#;
        assert_eq!(json(&readiness, later(10_001)), stuck);
        readiness.beat.store(5_000, super::Relaxed);
        assert!(!readiness.report_at(later(14_999)).is_failed());
        assert!(readiness.report_at(later(15_000)).is_failed());
        readiness.beat();
        assert!(!readiness.report().is_failed());
    }
}
