//! Counting tests over all stages: what ran is read from what the harnesses print.

use std::{iter::Sum, process::Command};

use anyhow::{Result, ensure};

use crate::{
    complain, say,
    stream::{self, Limit},
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
}

impl Summary {
    /// What stands for a stage that broke before its tests could say anything.
    pub(crate) const BROKEN: Self = Self { passed: 0, failed: 1 };

    /// Counts the tests of a command as it runs. A command that breaks without a failed test counts as one.
    pub(crate) fn of(command: Command) -> Result<Self> {
        let mut summary = Self::default();
        let status = stream::watch(command, Limit::None, |line| summary.see(line))?;
        Ok(summary.checked_by(status.success()))
    }

    /// One test, and how it went.
    pub(crate) fn of_one(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into() }
    }

    /// Adds what a harness says at its end: `test result: ok. 3 passed; 0 failed; …`.
    pub(crate) fn see(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result: ") else { return };
        let count = |what: &str| -> u64 {
            let number = result.split(what).next().and_then(|before| before.split_whitespace().last());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
    }

    /// Tests that passed, and tests that failed.
    pub(crate) fn counts(self) -> (u64, u64) {
        (self.passed, self.failed)
    }

    /// An unsuccessful end counts even when every test that spoke had passed.
    pub(crate) fn checked_by(self, success: bool) -> Self {
        if !success && self.failed == 0 { Self { failed: 1, ..self } } else { self }
    }

    /// The last word: one line for people and scripts, and an error unless something ran and nothing failed.
    pub(crate) fn conclude(self) -> Result<()> {
        let Self { passed, failed } = self;
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
        })
    }
}

/// Runs one stage under a heading. A stage that breaks counts as failed, and the next ones still run.
pub(crate) fn stage(name: &str, run: impl FnOnce() -> Result<Summary>) -> Summary {
    say(format_args!("\n== {name}"));
    run().unwrap_or_else(|error| {
        complain(format_args!("{name}: {error:#}"));
        Summary::BROKEN
    })
}

#[cfg(test)]
mod tests {
    use super::{Summary, stage};

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
        assert_eq!(of(text), Summary { passed: 15, failed: 2 });
    }

    #[test]
    fn a_kernel_message_before_a_result_does_not_hide_it() {
        assert_eq!(
            of("[    3.1] random: test result: ok. 1 passed; 0 failed;"),
            Summary { passed: 1, failed: 0 }
        );
    }

    #[test]
    fn a_bad_end_counts_once() {
        let passed = Summary { passed: 3, failed: 0 };
        assert_eq!(passed.checked_by(false), Summary { passed: 3, failed: 1 });
        assert_eq!(passed.checked_by(true), passed);
        let failed = Summary { passed: 3, failed: 2 };
        assert_eq!(failed.checked_by(false), failed);
        assert_eq!(stage("broken", || anyhow::bail!("no cargo")), Summary { passed: 0, failed: 1 });
    }

    #[test]
    fn nothing_run_is_not_a_success() {
        assert!(Summary::default().conclude().is_err());
        assert!(Summary { passed: 1, failed: 1 }.conclude().is_err());
        assert!(Summary { passed: 1, failed: 0 }.conclude().is_ok());
    }
}
