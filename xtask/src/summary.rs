//! Counting tests over all stages: what ran is read from what the harnesses print.

use std::{iter::Sum, process::Command, time::Instant};

use anyhow::{Result, ensure};

use crate::{
    complain, say,
    stream::{self, Limit},
};

/// So much of what a failed test printed is said again at the end, where it is found after hours of other lines.
const EXCERPT: usize = 5;
const EXCERPT_LINE: usize = 400;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    /// What failed, with the first lines of what it said.
    failures: Vec<String>,
    /// How many lines of the last failure may still follow.
    more: usize,
    /// What follows was printed by tests that passed (`--show-output`).
    of_passed: bool,
}

impl Summary {
    /// Counts the tests of a command as it runs. A command that breaks without a failed test counts as one.
    pub(crate) fn of(command: Command) -> Result<Self> {
        let mut summary = Self::default();
        let status = stream::watch(command, Limit::None, |line| summary.see(line))?;
        Ok(summary.checked_by(status.success()))
    }

    /// One test, and how it went.
    pub(crate) fn of_one(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), ..Self::default() }
    }

    /// What stands for a stage that broke before its tests could say anything.
    pub(crate) fn broken(why: String) -> Self {
        Self { failures: vec![why], ..Self::of_one(false) }
    }

    /// Reads a line of a harness: at its end the counts (`test result: ok. 3 passed; 0 failed; …`), before that what each
    /// failed test had printed (`---- NAME stdout ----`).
    pub(crate) fn see(&mut self, line: &str) {
        self.see_failure(line);
        let Some((_, result)) = line.split_once("test result: ") else { return };
        self.of_passed = false;
        let count = |what: &str| -> u64 {
            let number = result.split(what).next().and_then(|before| before.split_whitespace().last());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
    }

    fn see_failure(&mut self, line: &str) {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.split_once(" std"));
        if line == "successes:" || line == "failures:" {
            self.of_passed = line == "successes:";
            self.more = 0;
        } else if self.of_passed {
            // It is told as the tests run, and no fault.
        } else if let Some((name, _)) = heading {
            self.failures.push(name.to_owned());
            self.more = EXCERPT;
        } else if line.starts_with("stack backtrace:") {
            self.more = 0;
        } else if let Some(failure) = self.failures.last_mut()
            && self.more > 0
            && !line.trim().is_empty()
        {
            self.more -= 1;
            failure.push_str("\n    ");
            failure.extend(line.chars().take(EXCERPT_LINE));
        }
    }

    /// Tests that passed, and tests that failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.passed, self.failed)
    }

    /// An unsuccessful end counts even when every test that spoke had passed.
    pub(crate) fn checked_by(self, success: bool) -> Self {
        if !success && self.failed == 0 { Self { failed: 1, ..self } } else { self }
    }

    /// The last word: what failed, one line for people and scripts, and an error unless something ran and nothing failed.
    pub(crate) fn conclude(self) -> Result<()> {
        let Self { passed, failed, failures, .. } = self;
        for failure in failures {
            say(format_args!("failed: {failure}"));
        }
        say(format_args!("{passed} passed, {failed} failed"));
        ensure!(failed == 0, "tests failed");
        ensure!(passed > 0, "no test ran");
        Ok(())
    }
}

impl Sum for Summary {
    fn sum<I: Iterator<Item = Self>>(stages: I) -> Self {
        stages.fold(Self::default(), |sum, stage| Self {
            passed: sum.passed + stage.passed,
            failed: sum.failed + stage.failed,
            failures: [sum.failures, stage.failures].concat(),
            ..Self::default()
        })
    }
}

/// Runs one stage under a heading. A stage that breaks counts as failed, and the next ones still run.
pub(crate) fn stage(name: &str, run: impl FnOnce() -> Result<Summary>) -> Summary {
    say(format_args!("\n== {name}"));
    let begin = Instant::now();
    let summary = run().unwrap_or_else(|error| {
        complain(format_args!("{name}: {error:#}"));
        Summary::broken(format!("{name}: {error:#}"))
    });
    say(format_args!("== {name}: {:.1} minutes", begin.elapsed().as_secs_f64() / 60.0));
    summary
}

#[cfg(test)]
mod tests {
    use super::{Summary, stage};

    fn counted(passed: u64, failed: u64) -> Summary {
        Summary { passed, failed, ..Summary::default() }
    }

    fn of(text: &str) -> Summary {
        let mut summary = Summary::default();
        text.lines().for_each(|line| summary.see(line));
        summary
    }

    #[test]
    fn every_harness_is_added() {
        let text = "running 4 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test a_failed_login_is_3_failed_events ... ok\n\
            test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(of(text), counted(15, 2));
    }

    #[test]
    fn what_a_test_said_that_passed_is_no_failure() {
        let text = "test a::b ... ok\n\nsuccesses:\n\n---- a::b stdout ----\n7 of 7\n\nsuccesses:\n    a::b\n\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(of(text), counted(1, 0));
    }

    #[test]
    fn what_a_failed_test_said_is_said_again() {
        let text = "test a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\n\nthread 'a::b' panicked at a.rs:1:2:\n\
            the agent says nothing more\nstack backtrace:\n   0: somewhere\n\nfailures:\n    a::b\n\n\
            test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let summary = of(text);
        assert_eq!(summary.counts(), (0, 1));
        let said = "a::b\n    thread 'a::b' panicked at a.rs:1:2:\n    the agent says nothing more";
        assert_eq!(summary.failures, [said]);
    }

    #[test]
    fn a_kernel_message_before_a_result_does_not_hide_it() {
        assert_eq!(of("[    3.1] random: test result: ok. 1 passed; 0 failed;"), counted(1, 0));
    }

    #[test]
    fn a_bad_end_counts_once() {
        let passed = counted(3, 0);
        assert_eq!(passed.clone().checked_by(false), counted(3, 1));
        assert_eq!(passed.clone().checked_by(true), passed);
        let failed = counted(3, 2);
        assert_eq!(failed.clone().checked_by(false), failed);
        let broken = stage("broken", || anyhow::bail!("no cargo"));
        assert_eq!((broken.counts(), broken.failures), ((0, 1), vec!["broken: no cargo".to_owned()]));
    }

    #[test]
    fn nothing_run_is_not_a_success() {
        assert!(Summary::default().conclude().is_err());
        assert!(counted(1, 1).conclude().is_err());
        assert!(counted(1, 0).conclude().is_ok());
    }
}
