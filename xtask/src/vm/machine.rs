//! A boot: QEMU without acceleration, and what is read from the guest's console.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    configuration::{Configuration, Expected},
    guest::System,
    kernel::Image,
    table,
};
use crate::{
    build::Arch,
    say,
    stream::{self, Limit},
    summary::Summary,
};

const LIMIT: Duration = Duration::from_mins(20);

/// What one guest is to do.
pub(super) struct Job<'a> {
    /// The kernel's release, as it was asked for.
    pub(super) release: &'a str,
    pub(super) kernel: &'a Image,
    pub(super) arch: Arch,
    pub(super) initramfs: &'a Path,
    pub(super) configuration: &'a Configuration,
    /// Test binaries to run.
    pub(super) tests: &'a [&'a str],
    /// Only tests whose name contains this.
    pub(super) filter: Option<&'a str>,
    /// Give the kernel's types instead of running `tellwire check`.
    pub(super) gives_types: bool,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) summary: Summary,
    /// What `tellwire check --json` said.
    pub(super) check: Option<Value>,
    /// Names of tests that failed.
    pub(super) failed: Vec<String>,
    /// The kernel's types, compressed and in base 64.
    pub(super) types: String,
    pub(super) duration: Duration,
}

impl Job<'_> {
    /// What stands before each line and in the table.
    pub(super) fn name(&self) -> String {
        let name = format!("{} {}", self.kernel.name, self.arch.machine());
        match self.configuration.name {
            "" => name,
            configuration => format!("{name} {configuration}"),
        }
    }

    /// Whether its kernel takes longer than others to load programs: before 5.17 loops are walked turn by turn, and since 7.0 the
    /// verifier follows the stack.
    pub(super) fn is_long(&self) -> bool {
        ["5.", "7."].iter().any(|release| self.kernel.name.starts_with(release))
    }

    /// Boots the guest, shows its console line by line, and reads how it went.
    pub(super) fn run(&self) -> Result<Outcome> {
        let name = self.name();
        let start = Instant::now();
        let mut console = Console::default();
        stream::read(self.qemu(), Limit::After(LIMIT), |line| {
            if console.see(line) {
                say(format_args!("{name} | {line}"));
            }
        })?;
        let exit = console.exit.context("the guest ended without saying how: no `EXIT=` line")?;
        let mut outcome = console.outcome;
        let told = |name: &str| console.check.contains(&format!("\"name\": \"{name}\""));
        outcome.summary = match self.configuration.expected {
            Expected::Tests => outcome.summary.checked_by(exit == 0),
            Expected::Degraded(name) => Summary::of_one(exit == 0 && told(name)),
        };
        if console.check.starts_with('{') {
            let check: Value = serde_json::from_str(&console.check).context("what `tellwire check` said")?;
            for finding in table::findings(&check) {
                say(format_args!("{name} | check: {finding}"));
            }
            outcome.check = Some(check);
        }
        outcome.duration = start.elapsed();
        Ok(outcome)
    }

    fn qemu(&self) -> Command {
        let mut qemu = Command::new(format!("qemu-system-{}", self.arch.machine()));
        let console = match self.arch {
            Arch::X86_64 => {
                qemu.args(["-cpu", "max"]);
                // The timer is found not to work where the machine has no time for the guest meanwhile.
                "ttyS0 no_timer_check"
            }
            Arch::Aarch64 => {
                // Pointer authentication by QEMU's own algorithm: that of the architecture takes most of the time.
                qemu.args(["-M", "virt", "-cpu", "max,pauth-impdef=on"]);
                "ttyAMA0"
            }
        };
        // Emulated even where /dev/kvm exists: on some machines it hangs the guest.
        let megabytes = if self.configuration.system == System::Systemd { "2048" } else { "1024" };
        qemu.args(["-accel", "tcg,thread=multi", "-m", megabytes, "-smp", self.configuration.cpus]);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        qemu.arg("-kernel").arg(&self.kernel.path).arg("-initrd").arg(self.initramfs);
        // Debian's kernels clear memory before it is used, which is a tenth of what an emulated one does.
        let mut line =
            format!("console={console} quiet panic=-1 init_on_alloc=0 {}", self.configuration.boot);
        let mut option = |name: &str, value: &str| {
            if !value.is_empty() {
                line.extend([" tellwire.", name, "=", value]);
            }
        };
        option("configuration", self.configuration.name);
        let runs_tests = self.configuration.expected == Expected::Tests;
        option("tests", &if runs_tests { self.tests.join(",") } else { String::new() });
        option("filter", self.filter.unwrap_or_default());
        option("what", if self.gives_types { "btf" } else { "" });
        qemu.arg("-append").arg(line);
        qemu
    }
}

/// What the guest prints, taken apart.
#[derive(Default)]
struct Console {
    outcome: Outcome,
    check: String,
    part: Part,
    exit: Option<u8>,
}

#[derive(Default, PartialEq, Eq)]
enum Part {
    #[default]
    Tests,
    Check,
    Types,
}

impl Console {
    /// Takes a line; gives whether a person wants to see it.
    fn see(&mut self, line: &str) -> bool {
        match (line, &self.part) {
            ("CHECK-BEGIN", _) => self.part = Part::Check,
            ("BTF-BEGIN", _) => self.part = Part::Types,
            ("CHECK-END" | "BTF-END", _) => self.part = Part::Tests,
            (_, Part::Types) => self.outcome.types += line,
            (_, Part::Check) => {
                // What the agent logs goes to the same console.
                if line.starts_with("{\"") {
                    return true;
                }
                self.check += line;
                self.check.push('\n');
            }
            (_, Part::Tests) => {
                self.outcome.summary.see(line);
                if let Some(failed) =
                    line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"))
                {
                    self.outcome.failed.push(failed.to_owned());
                }
                self.exit = marker(line).or(self.exit);
                return true;
            }
        }
        false
    }
}

/// The guest's last word.
fn marker(line: &str) -> Option<u8> {
    line.strip_prefix("EXIT=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Console, marker};

    #[test]
    fn the_marker_stands_alone_on_its_line() {
        assert_eq!(marker("EXIT=0"), Some(0));
        assert_eq!(marker("EXIT=101"), Some(101));
        assert_eq!(marker("the line EXIT=0 ends it"), None);
        assert_eq!(marker("EXIT="), None);
    }

    #[test]
    fn a_console_is_taken_apart() {
        let mut console = Console::default();
        let text = "CHECK-BEGIN\n{\n{\"level\":\"WARN\"}\n\"kernel\": \"5.10\"\n}\nCHECK-END\ntest a::b ... ok\n\
                    test a::c ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\nEXIT=101";
        let shown: Vec<&str> = text.lines().filter(|line| console.see(line)).collect();
        assert_eq!(shown.len(), 5);
        assert_eq!(console.check, "{\n\"kernel\": \"5.10\"\n}\n");
        assert_eq!(console.outcome.failed, ["a::c"]);
        assert_eq!(console.exit, Some(101));
    }
}
