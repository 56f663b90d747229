//! The task of one socket: connects, lists, answers questions, hears of changes, and begins again where that fails.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustc_hash::FxHashSet;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Change, Found, Told,
    books::{Outcome, SocketBooks},
    cri::{self, Cri},
    docker::{self, Docker},
    grpc,
};
use crate::enrich::cgroup_path::Runtime;

/// Every call.
const PATIENCE: Duration = Duration::from_secs(2);

/// A full list, whose calls are as many as there are pods.
const LIST: Duration = Duration::from_secs(10);

/// Between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// When a container is asked for again that the runtime did not know: sandboxes are listed once they run.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(5)];

/// Containers that are asked for again at one time.
const WAITING: usize = 1024;

/// What there is to a socket.
#[derive(Debug)]
pub(super) struct Task {
    /// As the agent sees it.
    pub(super) socket: PathBuf,
    pub(super) is_docker: bool,
    pub(super) runtime: Option<Runtime>,
    pub(super) allowed: Arc<[String]>,
    pub(super) resync: Duration,
    pub(super) asked: mpsc::Receiver<Arc<str>>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) books: Arc<SocketBooks>,
}

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// The agent stops.
    Cancelled,
    Failed(String),
}

type Step<T> = Result<T, End>;

impl Task {
    /// Runs until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        let mut has_listed = false;
        loop {
            let begun = Instant::now();
            let failure = tokio::select! {
                end = self.session(&mut has_listed) => match end {
                    Ok(()) => "the connection was closed".to_owned(),
                    Err(End::Failed(why)) => why,
                    Err(End::Cancelled) => return,
                },
                () = cancel.cancelled() => return,
            };
            self.books.down(&failure);
            if !has_listed {
                has_listed = true;
                if self.told.send(Told::Listed).await.is_err() {
                    return;
                }
            }
            // One that worked for a while is tried again soon.
            pause =
                if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            if !self.rest(begun, pause, &cancel).await {
                return;
            }
        }
    }

    /// Waits for the next attempt. A new container is a reason to try earlier: it may be the runtime that is back.
    async fn rest(&mut self, begun: Instant, pause: Duration, cancel: &CancellationToken) -> bool {
        let (soon, late) = (begun + FIRST_PAUSE * 4, Instant::now() + pause);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return false,
                () = sleep_until(late) => return true,
                asked = self.asked.recv() => match asked {
                    Some(_answered_by_the_list) if Instant::now() >= soon => return true,
                    Some(_too_early) => {}
                    None => return false,
                },
            }
        }
    }

    async fn session(&mut self, has_listed: &mut bool) -> Step<()> {
        let mut client = self.connect().await?;
        let mut known = FxHashSet::default();
        // Before the list, so that nothing falls between.
        let mut events = in_time(PATIENCE, client.events()).await?;
        self.list(&mut client, &mut known).await?;
        self.books.up();
        if !std::mem::replace(has_listed, true) {
            self.tell(Told::Listed).await?;
        }
        let mut waiting: VecDeque<(Instant, usize, Arc<str>)> = VecDeque::new();
        let mut resync = Instant::now() + self.resync;
        loop {
            let due = waiting.iter().map(|(at, ..)| *at).min().map_or(resync, |at| at.min(resync));
            tokio::select! {
                asked = self.asked.recv() => {
                    let Some(id) = asked else { return Err(End::Cancelled) };
                    self.look_up(&mut client, &mut known, &mut waiting, (0, id), false).await?;
                }
                event = events.next() => match event? {
                    Some((id, Some(Change::Removed))) => {
                        if known.remove(&id) {
                            self.tell(Told::Removed(id)).await?;
                        }
                    }
                    Some((id, change)) => {
                        let is_new = change == Some(Change::Created);
                        if is_new || !known.contains(&id) {
                            self.look_up(&mut client, &mut known, &mut waiting, (0, id), is_new).await?;
                        }
                    }
                    None => return Ok(()),
                },
                () = sleep_until(due) => {
                    let now = Instant::now();
                    if now >= resync {
                        self.list(&mut client, &mut known).await?;
                        resync = now + self.resync;
                    }
                    while let Some(at) = waiting.iter().position(|(at, ..)| *at <= now)
                        && let Some((_, attempt, id)) = waiting.remove(at)
                    {
                        if !known.contains(&id) {
                            self.look_up(&mut client, &mut known, &mut waiting, (attempt, id), false).await?;
                        }
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Step<Client> {
        if self.is_docker {
            return Ok(Client::Docker(Docker::new(&self.socket, self.runtime, Arc::clone(&self.allowed))));
        }
        let client = in_time(PATIENCE, async {
            Cri::connect(&self.socket, self.runtime, Arc::clone(&self.allowed)).await.map_err(failed_call)
        });
        client.await.map(Client::Cri)
    }

    /// Tells all containers that are new, and those that are gone.
    async fn list(&self, client: &mut Client, known: &mut FxHashSet<Arc<str>>) -> Step<()> {
        let found = in_time(LIST, client.list()).await?;
        self.books.refused.fetch_add(client.take_refused(), Relaxed);
        let mut gone = std::mem::take(known);
        for found in found {
            gone.remove(&found.id);
            known.insert(Arc::clone(&found.id));
            self.tell(Told::Found(found)).await?;
        }
        for id in gone {
            self.tell(Told::Removed(id)).await?;
        }
        Ok(())
    }

    async fn look_up(
        &self,
        client: &mut Client,
        known: &mut FxHashSet<Arc<str>>,
        waiting: &mut VecDeque<(Instant, usize, Arc<str>)>,
        (attempt, id): (usize, Arc<str>),
        is_created: bool,
    ) -> Step<()> {
        let found = in_time(PATIENCE, client.look_up(&id)).await;
        self.books.refused.fetch_add(client.take_refused(), Relaxed);
        self.books.looked_up(match &found {
            Ok(Some(_)) => Outcome::Found,
            Ok(None) => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        });
        if let Some(found) = found? {
            known.insert(Arc::clone(&found.id));
            return self.tell(if is_created { Told::Created(found) } else { Told::Found(found) }).await;
        }
        if let Some(pause) = AGAIN.get(attempt)
            && waiting.len() < WAITING
        {
            waiting.push_back((Instant::now() + *pause, attempt + 1, id));
        }
        Ok(())
    }

    async fn tell(&self, told: Told) -> Step<()> {
        self.told.send(told).await.map_err(|_stopped| End::Cancelled)
    }
}

/// Whoever speaks what the socket speaks.
#[derive(Debug)]
enum Client {
    Cri(Cri),
    Docker(Docker),
}

impl Client {
    async fn list(&mut self) -> Step<Vec<Found>> {
        match self {
            Self::Cri(cri) => cri.list().await.map_err(failed_call),
            Self::Docker(docker) => docker.list().await.map_err(failed_request),
        }
    }

    async fn look_up(&mut self, id: &str) -> Step<Option<Found>> {
        match self {
            Self::Cri(cri) => cri.look_up(id).await.map_err(failed_call),
            Self::Docker(docker) => docker.look_up(id).await.map_err(failed_request),
        }
    }

    async fn events(&mut self) -> Step<Events> {
        Ok(match self {
            Self::Cri(cri) => Events::Cri(Box::new(cri.events().await.map_err(failed_call)?)),
            Self::Docker(docker) => Events::Docker(Box::new(docker.events().await.map_err(failed_request)?)),
        })
    }

    fn take_refused(&mut self) -> u64 {
        match self {
            Self::Cri(cri) => std::mem::take(&mut cri.refused),
            Self::Docker(docker) => std::mem::take(&mut docker.refused),
        }
    }
}

/// What the runtime tells by itself.
#[derive(Debug)]
enum Events {
    /// It does not: questions and the periodic list must do.
    None,
    Cri(Box<grpc::Stream>),
    Docker(Box<docker::Events>),
}

impl Events {
    /// The next event; `None` at the end. To be cancelled at any time loses nothing: what came is in a buffer.
    async fn next(&mut self) -> Step<Option<(Arc<str>, Option<Change>)>> {
        match self {
            Self::None => std::future::pending().await,
            Self::Cri(stream) => loop {
                let message = match stream.next().await {
                    Ok(Some(message)) => message,
                    Ok(None) => return Ok(None),
                    Err(grpc::CallError::Status(grpc::UNIMPLEMENTED)) => break,
                    Err(error) => return Err(failed_call(error)),
                };
                if let Some(event) = cri::event(&message) {
                    return Ok(Some(event));
                }
            },
            Self::Docker(events) => return events.next().await.map_err(failed_request),
        }
        *self = Self::None;
        std::future::pending().await
    }
}

async fn in_time<T>(patience: Duration, call: impl Future<Output = Step<T>>) -> Step<T> {
    match timeout(patience, call).await {
        Ok(result) => result,
        Err(_elapsed) => Err(End::Failed(format!("no answer within {} s", patience.as_secs()))),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn failed_call(error: grpc::CallError) -> End {
    End::Failed(error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn failed_request(error: docker::CallError) -> End {
    End::Failed(error.to_string())
}
