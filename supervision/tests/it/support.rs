//! Actors and helpers the tests share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weald_supervision::ractor::{
    Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort, concurrency,
};
use weald_supervision::{Address, ChildSpec, Filter, Record, Scope, SupervisionLog};

pub(crate) const LONG: Duration = Duration::from_secs(10);

/// What happened, in order; shared by all workers of a test.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(crate) fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Waits until `done`, and fails with `state` when it takes too long.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool, state: impl Fn() -> String) {
    let deadline = concurrency::Instant::now() + LONG;
    while !done() {
        assert!(concurrency::Instant::now() < deadline, "{what} did not happen: {}", state());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

/// Things of which only one may exist; taken in `pre_start`, given back when the state is dropped.
#[derive(Clone, Default)]
pub(crate) struct Exclusive(Arc<AtomicBool>);

impl Exclusive {
    pub(crate) fn take(&self) -> Option<Token> {
        (!self.0.swap(true, Ordering::SeqCst)).then(|| Token(self.clone()))
    }
}

pub(crate) struct Token(Exclusive);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::SeqCst);
    }
}

/// How the next starts of a path go; by default well.
#[derive(Clone, Default)]
pub(crate) struct Failing(Arc<Mutex<BTreeMap<String, u8>>>);

impl Failing {
    pub(crate) fn add(&self, path: &str, times: u8) {
        *self.0.lock().unwrap().entry(path.to_owned()).or_default() += times;
    }

    fn take(&self, path: &str) -> bool {
        match self.0.lock().unwrap().get_mut(path) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// A worker that tells of its starts and stops and ends as it is told.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) path: String,
    pub(crate) seen: Seen,
    pub(crate) failing: Failing,
    pub(crate) exclusive: Exclusive,
}

pub(crate) enum Msg {
    Ping(RpcReplyPort<u64>),
    Count,
    Stop,
    Panic,
    Fail,
    /// Await forever.
    Hang,
    /// Block the thread until the test drops its end.
    Block(std::sync::mpsc::Receiver<()>),
    DropReply(RpcReplyPort<u64>),
    KillSelf,
}

impl Message for Msg {}

pub(crate) struct State {
    handled: u64,
    leaving: bool,
    _token: Token,
}

impl Probe {
    pub(crate) fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            seen: Seen::default(),
            failing: Failing::default(),
            exclusive: Exclusive::default(),
        }
    }

    pub(crate) fn spec(&self, id: &str, address: &Address<Msg>) -> ChildSpec {
        let probe = self.clone();
        ChildSpec::worker(id, address, move || (probe.clone(), ()))
    }
}

impl Actor for Probe {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        if self.failing.take(&self.path) {
            self.seen.push(format!("fail {}", self.path));
            return Err("told to fail".into());
        }
        let Some(token) = self.exclusive.take() else {
            self.seen.push(format!("OVERLAP {}", self.path));
            return Err("another incarnation is alive".into());
        };
        self.seen.push(format!("start {}", self.path));
        Ok(State { handled: 0, leaving: false, _token: token })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Ping(reply) => reply.send(state.handled)?,
            Msg::Count => state.handled += 1,
            Msg::Stop => {
                state.leaving = true;
                self.seen.push(format!("exit {}", self.path));
                myself.stop(None);
            }
            Msg::Panic => {
                self.seen.push(format!("exit {}", self.path));
                panic!("told to panic");
            }
            Msg::Fail => {
                self.seen.push(format!("exit {}", self.path));
                return Err("told to err".into());
            }
            Msg::Hang => std::future::pending::<()>().await,
            Msg::Block(until) => {
                until.recv().ok();
            }
            Msg::DropReply(reply) => drop(reply),
            Msg::KillSelf => myself.kill(),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if !state.leaving {
            self.seen.push(format!("stop {}", self.path));
        }
        Ok(())
    }
}

pub(crate) fn log_in(dir: &std::path::Path) -> SupervisionLog {
    SupervisionLog::open(dir, Default::default()).unwrap()
}

pub(crate) fn records(scope: &Scope) -> Vec<Record> {
    let log = scope.log().unwrap();
    log.flush();
    log.query(&Filter::default()).unwrap()
}
