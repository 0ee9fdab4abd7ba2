//! One running session: the shell around [`Session`], a temporary child of the supervisor `exchanges`.
//!
//! What it guarantees: it reports its end exactly once, also when it panics or is killed; reads of the store and clocks that
//! are taken over run on blocking threads; merges of one session run side by side.
//! What it refuses: to outlive its deadline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, mpsc};
use weald_peers::{Channel, Permit, SendError};
use weald_proto::Frame;
use weald_storage::{NodeId, WriteError};
use weald_supervision::{Address, BoxError, ChildSpec, Restart, TaskContext};

use crate::actor::Msg;
use crate::core::{Counters, Failed, Input, Mode, Outcome, Output, Resort, Session};
use crate::frames::{FROM_INITIATOR, FROM_RESPONDER};
use crate::handle::Shared;

/// Frames that wait for a session. // guess: its windows allow some hundred, for objects of many megabytes
pub(crate) const FRAMES_MAX: usize = 1024;
/// How long to wait when the peer's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Which session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) peer: NodeId,
    pub(crate) number: u64,
    /// Whether it was begun here.
    pub(crate) ours: bool,
}

/// What comes for a session.
#[derive(Debug)]
pub(crate) enum Mail {
    Frame(Vec<u8>, Permit),
    Input(Input),
}

/// What a session is started with.
#[derive(Debug, Clone)]
pub(crate) enum Begin {
    Ours { mode: Mode, first: u16, resort: Arc<Resort> },
    Theirs { resort: Arc<Resort> },
}

/// Says how the session ended, whatever happens to it.
struct Report {
    key: SessionKey,
    address: Address<Msg>,
    outcome: Option<Box<Outcome>>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let lost = || {
            let result = Err(Failed::Aborted("the session crashed here".to_owned()));
            let counters = Counters::default();
            Box::new(Outcome {
                result,
                counters,
                diff: None,
                compared: Vec::new(),
                clocks: Vec::new(),
            })
        };
        let outcome = self.outcome.take().unwrap_or_else(lost);
        drop(self.address.cast(Msg::Ended { key: self.key, outcome }));
    }
}

pub(crate) fn child_spec(
    shared: Arc<Shared>,
    key: SessionKey,
    begin: Begin,
    mail: mpsc::Receiver<Mail>,
) -> ChildSpec {
    let side = if key.ours { "to" } else { "from" };
    let id = format!("{side}-{}-{:x}", key.peer, key.number);
    // A temporary child starts once; the receiver is for that one start.
    let mail = Arc::new(Mutex::new(Some(mail)));
    ChildSpec::task(&id, move |context| {
        let (shared, begin, mail) = (Arc::clone(&shared), begin.clone(), Arc::clone(&mail));
        async move {
            let Some(mail) = mail.lock().await.take() else { return Ok(()) };
            run(shared, key, begin, mail, context).await
        }
    })
    .restart(Restart::Temporary)
}

async fn run(
    shared: Arc<Shared>,
    key: SessionKey,
    begin: Begin,
    mut mail: mpsc::Receiver<Mail>,
    context: TaskContext,
) -> Result<(), BoxError> {
    let mut report = Report { key, address: shared.address.clone(), outcome: None };
    let limits = shared.config.limits();
    let now_ms = shared.now_ms();
    let (session, outputs) = match begin {
        Begin::Ours { mode, first, resort } => {
            let stores = Arc::clone(&shared.deps.stores);
            let begin = move || Session::initiate(mode, first, limits, resort, &*stores, now_ms);
            tokio::task::spawn_blocking(begin).await?
        }
        Begin::Theirs { resort } => (Session::respond(limits, resort, now_ms), Vec::new()),
    };
    let mut running = Running {
        shared,
        key,
        session: Some(session),
        out: VecDeque::new(),
        work: FuturesUnordered::new(),
        finished: None,
    };
    running.perform(outputs);
    let mut tick = tokio::time::interval(TICK);
    loop {
        let full = running.flush();
        if let Some(outcome) = running.finished.take_if(|_| running.out.is_empty()) {
            report.outcome = Some(outcome);
            return Ok(());
        }
        // Biased: what is done makes room for what comes; the order decides nothing else.
        let input = tokio::select! {
            biased;
            () = context.cancelled() => return Ok(()),
            Some(input) = running.work.next() => input,
            () = tokio::time::sleep(FULL_PAUSE), if full => continue,
            next = mail.recv() => match next {
                Some(Mail::Frame(frame, permit)) => {
                    running.handle(Input::Frame(frame)).await?;
                    drop(permit);
                    continue;
                }
                Some(Mail::Input(input)) => input,
                None => Input::Disconnected,
            },
            _ = tick.tick() => Input::Tick,
        };
        running.handle(input).await?;
    }
}

struct Running {
    shared: Arc<Shared>,
    key: SessionKey,
    /// `None` only while a blocking thread has it.
    session: Option<Session>,
    out: VecDeque<Frame>,
    work: FuturesUnordered<BoxFuture<'static, Input>>,
    finished: Option<Box<Outcome>>,
}

impl Running {
    async fn handle(&mut self, input: Input) -> Result<(), BoxError> {
        if self.finished.is_some() {
            if matches!(input, Input::Disconnected) {
                self.out.clear();
            }
            return Ok(());
        }
        let Some(mut session) = self.session.take() else { return Ok(()) };
        let (stores, now_ms) = (Arc::clone(&self.shared.deps.stores), self.shared.now_ms());
        let handle = move || {
            let outputs = session.handle(&*stores, now_ms, input);
            (session, outputs)
        };
        let (session, outputs) = tokio::task::spawn_blocking(handle).await?;
        self.session = Some(session);
        self.perform(outputs);
        Ok(())
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        let deps = &self.shared.deps;
        for output in outputs {
            match output {
                Output::Send(body) => {
                    let kind = if self.key.ours { FROM_INITIATOR } else { FROM_RESPONDER };
                    self.out.push_back(Frame { kind, corr: self.key.number, body });
                }
                Output::Merge { id, shard, items } => {
                    let merge = deps.sink.merge(shard.partition, shard.space, items);
                    self.work
                        .push(Box::pin(async move { Input::Merged { id, results: merge.await } }));
                }
                Output::Adopt { id, shard, clock, swept, watch } => {
                    let upkeep = Arc::clone(&deps.upkeep);
                    let adopt = move || upkeep.adopt(shard, &clock, &swept, watch);
                    let adopt = tokio::task::spawn_blocking(adopt);
                    self.work.push(Box::pin(async move {
                        let ok = match adopt.await {
                            Ok(Ok(())) => true,
                            // The next exchange finds what it was.
                            Ok(Err(WriteError::Disturbed)) => false,
                            Ok(Err(e)) => {
                                tracing::warn!(event = "clock_not_adopted", shard = %shard, error = %e);
                                false
                            }
                            Err(_panicked) => false,
                        };
                        Input::Adopted { id, ok }
                    }));
                }
                Output::Renew { highest } => {
                    let lives = Arc::clone(&deps.lives);
                    drop(tokio::task::spawn_blocking(move || lives.renew(highest)));
                }
                Output::Finished(outcome) => self.finished = Some(outcome),
            }
        }
    }

    /// Sends what it can; true when something waits for room.
    fn flush(&mut self) -> bool {
        let network = &self.shared.deps.network;
        while let Some(frame) = self.out.front() {
            match network.send(self.key.peer, Channel::Data, self.key.number, frame) {
                Ok(()) => {
                    self.out.pop_front();
                }
                // The peer is slow, not lost; the deadline of the session counts. What a session says last is not worth it.
                Err(SendError::Full { .. }) if self.finished.is_none() => return true,
                Err(_) => {
                    self.out.clear();
                    if self.finished.is_none() {
                        self.work.push(Box::pin(async { Input::Disconnected }));
                    }
                }
            }
        }
        false
    }
}
