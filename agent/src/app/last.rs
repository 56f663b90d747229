//! The run before this one, and the notes that this one leaves for the next.

use std::{path::Path, sync::Arc};

use tokio::{
    task::spawn_blocking,
    time::{Instant, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::RunArgs,
    config::Config,
    http::Readiness,
    kernel::{Attached, Kernel, support::Support},
    lines::{
        clock::{boot_now, wall_now},
        own::{LastRunFacts, Notice, ProbeFacts, SettingFacts, StartedFacts},
    },
    own::{NOTE, Note, StateFile},
};

/// What the readiness calls it.
const ABOUT: &str = "state-dir";

/// The state file, where there is one, and what was in it.
pub(super) struct Last {
    file: Option<StateFile>,
    found: Option<Note>,
    folder: String,
    boot_id: String,
    readiness: Arc<Readiness>,
    works: bool,
}

impl Last {
    /// Takes the state file, or does without.
    pub(super) fn open(folder: &Path, ephemeral_id: &str, boot_id: &str, readiness: &Arc<Readiness>) -> Self {
        let note = Note::new(ephemeral_id.to_owned(), boot_id.to_owned());
        let mut last = Self {
            file: None,
            found: None,
            folder: folder.display().to_string(),
            boot_id: boot_id.to_owned(),
            readiness: Arc::clone(readiness),
            works: true,
        };
        match StateFile::open(folder, note) {
            Ok((mut file, found)) => {
                // Before the first line: who reads that has a run whose end the next one can tell.
                last.says(file.write(None));
                (last.file, last.found) = (Some(file), found);
            }
            Err(error) => last.says(Err(error)),
        }
        last
    }

    /// What the agent starts with.
    pub(super) fn started(
        &self,
        args: &RunArgs,
        config: &Config,
        kernel: &Kernel,
        support: &Support,
        attached: u64,
    ) -> Notice {
        let wall = wall_now().saturating_sub(boot_now().saturating_sub(attached));
        let blind = self.found.as_ref().map(|note| note.until(&self.boot_id, attached, wall));
        let last_run = self.found.as_ref().map(|note| LastRunFacts {
            ephemeral_id: note.ephemeral_id.clone(),
            clean: note.stopped,
            rebooted: !note.is_of_boot(&self.boot_id),
        });
        let settings = Config::default().changes(config).into_iter();
        let file = Config::file(args);
        Notice::Started(Box::new(StartedFacts {
            kernel: support.release.clone(),
            probes: kernel.probes.iter().map(probe).collect(),
            config_file: file.exists().then(|| file.display().to_string()),
            settings: settings.map(|change| SettingFacts { key: change.key, value: change.new }).collect(),
            blind_seconds: blind.map(|blind| blind.as_secs_f64()),
            last_run,
        }))
    }

    /// Notes now and then that the agent runs, until it is cancelled.
    pub(super) async fn note(mut self, cancel: CancellationToken) -> Self {
        let mut tick = interval_at(Instant::now() + NOTE, NOTE);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return self,
                _ = tick.tick() => self = self.write(None).await,
            }
        }
    }

    /// Notes that the agent has stopped looking at this boot time, and has told all that it knew.
    pub(super) async fn stop(self, at: u64) {
        drop(self.write(Some(at)).await);
    }

    async fn write(mut self, stopped: Option<u64>) -> Self {
        let Some(mut file) = self.file.take() else { return self };
        // A disk can take its time.
        let written = spawn_blocking(move || {
            let outcome = file.write(stopped);
            (file, outcome)
        });
        if let Ok((file, outcome)) = written.await {
            self.file = Some(file);
            self.says(outcome);
        }
        self
    }

    /// Says it once that the notes are lost, until they are not.
    fn says(&mut self, outcome: std::io::Result<()>) {
        let reason = outcome.err().map(|error| format!("state-dir {}: {error}", self.folder));
        if let Some(reason) = &reason
            && self.works
        {
            tracing::warn!(reason, "the next start cannot tell how long nobody looked");
        }
        self.works = reason.is_none();
        self.readiness.degrade_for_now(ABOUT, reason);
    }
}

fn probe(attached: &Attached) -> ProbeFacts {
    ProbeFacts {
        name: attached.probe.name,
        attached: attached.is_attached(),
        by: attached.chosen.map(|chosen| chosen.by.name()),
        gives: None,
        reason: attached.failure().map(ToOwned::to_owned),
    }
}
