//! What a thousand rules cost the pipeline.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;

use super::{
    Bench, CONNECTS_FOR_COST, EXECS,
    agent::Agent,
    load::{Work, Workload, pause},
    median,
    report::{Goal, Report},
};
use crate::say;

/// So many rules as a large site has: none of them matches the workload, so that each must be found not to.
const RULES: usize = 1000;

/// By then the pipeline has taken everything.
const DRAINED: Duration = Duration::from_millis(500);

/// Turns without and with the rules.
const ROUNDS: usize = 7;

impl Bench {
    /// CPU of the agent per event with a thousand rules against none, in turns: the machine may be shared.
    pub(super) fn rules(&self, report: &mut Report) -> Result<()> {
        let config = rules();
        for (workload, rate) in [(Workload::Exec, EXECS), (Workload::Connect, CONNECTS_FOR_COST)] {
            say(format_args!("rules: {RULES} against none at {rate} {}s a second", workload.name()));
            let work = Work { workload, rate, length: self.length / 3 };
            let (mut without, mut with) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                without.push(self.cpu(&work, "")?);
                with.push(self.cpu(&work, &config)?);
            }
            let (without, with) = (median(&mut without), median(&mut with));
            report.section(&format!("{RULES} rules, {rate} {}s a second", workload.name()));
            report.figure("agent CPU per event without rules", without, "µs");
            report.figure("agent CPU per event with them", with, "µs");
            report.goal(&Goal::at_most("more CPU by the rules", 10.0, "%"), (with / without - 1.0) * 100.0);
        }
        Ok(())
    }

    /// CPU of the agent for each event of this work, in µs.
    fn cpu(&self, work: &Work, config: &str) -> Result<f64> {
        let agent = Agent::start(&self.binary, config, "file:events.ndjson")?;
        let before = agent.read()?;
        let cpu_before = agent.cpu_seconds()?;
        let done = work.run(Some(agent.cgroup()))?;
        // Before the page of metrics is asked for: a rule has its rows there, which are not the pipeline's.
        pause(DRAINED);
        let cpu = (agent.cpu_seconds()? - cpu_before) * 1e6 / done.count();
        agent.read_when_settled(&before, (work.workload, &done))?;
        agent.stop()?;
        Ok(cpu)
    }
}

/// All sorts of conditions in equal parts.
fn rules() -> String {
    let mut text = String::new();
    for number in 0..RULES {
        let high = number / 250;
        let low = number % 250;
        let conditions = match number % 10 {
            0 => format!("actions = ['exec', 'exit']\nexecutables = ['/opt/vendor-{number}/**/bin/*']"),
            1 => format!("actions = ['exec']\nexecutables = ['/usr/lib/tool-{number}/helper']"),
            2 => format!("args = ['--config=/etc/app-{number}/[a-z]+\\.conf']"),
            3 => format!("args = ['^/usr/bin/probe-{number} .*/healthz$']"),
            4 => format!(
                "destinations = ['10.{high}.{low}.0/24']\nports = [443, '{}-{}']",
                8000 + number,
                8010 + number
            ),
            5 => format!("destinations = ['2001:db8:{number:x}::/48', '172.16.{low}.0/24']"),
            6 => format!("actions = ['exec', 'connect']\nusers = [{}]", 100_000 + number),
            7 => format!("actions = ['exec', 'connect']\nusers = ['service-{number}']"),
            8 => format!("actions = ['exec', 'connect']\ncontainers = ['{number:012x}']"),
            _ => format!("actions = ['exec']\nexecutables = ['**/job-{number}']\nargs = ['--dry-run']"),
        };
        let effect = match number % 4 {
            0 => "effect = 'keep'",
            1 => "effect = 'sample'\none-in = 100",
            2 => "effect = 'tag'\ntags = ['tagged']",
            _ => "effect = 'drop'",
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "[[rules]]\nname = 'rule-{number}'\n{effect}\n{conditions}");
    }
    text
}
