//! Child specifications: what to start, and how it is treated.
//!
//! Guarantees: a specification can be started any number of times (factories are `Fn`).
//! Refuses: ids that would make a path ambiguous.

use std::any::type_name;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, SpawnErr};

use crate::address::Address;
use crate::dynamic::{DynamicHandle, DynamicSpec};
use crate::error::StartError;
use crate::guard::Guard;
use crate::panics;
use crate::probe::Probe;
use crate::scope::Scope;
use crate::spec::{Kind, Restart, Shutdown, Strategy};
use crate::supervisor::{Args, Plan, SupMsg, Supervisor};
use crate::supervisor_spec::SupervisorSpec;
use crate::task::{BoxError, TaskActor, TaskContext};
use crate::tasks::{Owner, OwnerArgs, TasksHandle, TasksSpec};

/// Time a worker has for `pre_start` unless told otherwise. A guess: long enough to recover a
/// store, short enough that a boot that hangs becomes a report.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time a worker has to stop; OTP's default.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type Started = (ActorCell, JoinHandle<()>);
type StartFuture = Pin<Box<dyn Future<Output = Result<Started, StartError>> + Send>>;
type StartFn = Arc<dyn Fn(StartCx) -> StartFuture + Send + Sync>;

/// What a start needs to know.
pub(crate) struct StartCx {
    pub(crate) scope: Scope,
    pub(crate) path: Arc<str>,
    pub(crate) parent: Option<ActorCell>,
    pub(crate) probe: Arc<Probe>,
}

/// How to start one child, and how to treat it. Defaults are OTP's: permanent; workers have 5 s to
/// stop, supervisors as long as they need. A worker has 60 s to start, a supervisor as long as its
/// children need.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) id: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) restart: Option<Restart>,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) significant: bool,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) nested: Option<Arc<SupervisorSpec>>,
    pub(crate) start: StartFn,
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

impl ChildSpec {
    /// A ractor actor that is reached at `address`. The factory is called for each start.
    pub fn worker<A, F>(id: &str, address: &Address<A::Msg>, factory: F) -> Self
    where
        A: Actor,
        F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    {
        let (address, factory) = (address.clone(), Arc::new(factory));
        Self::of(id, Kind::Worker, move |cx| {
            let (address, factory) = (address.clone(), Arc::clone(&factory));
            Box::pin(async move {
                let (actor, args) = panics::catch_sync(|| factory())
                    .map_err(|caught| panicked(&cx.path, caught))?;
                spawn(cx, actor, args, Some(address)).await
            })
        })
    }

    /// A supervised future: `Ok` is a normal end, `Err` and a panic are crashes. It should end when
    /// its [`TaskContext`] is cancelled; it is dropped at its next await once its time is over.
    pub fn task<F, Fut>(id: &str, factory: F) -> Self
    where
        F: Fn(TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let factory = Arc::new(factory);
        Self::of(id, Kind::Worker, move |cx| {
            let factory = Arc::clone(&factory);
            Box::pin(async move {
                let context = TaskContext::new(Arc::clone(&cx.path));
                let cancel = context.canceller();
                cx.probe.set_on_cancel(Box::new(move || cancel.cancel()));
                let run: crate::task::Run = Box::new(move |cx| Box::pin(factory(cx)));
                cx.probe.describe(type_name::<F>(), "future");
                spawn(cx, TaskActor::new(run, context), (), None).await
            })
        })
    }

    /// A supervisor with its children.
    #[must_use]
    pub fn supervisor(id: &str, spec: SupervisorSpec) -> Self {
        let strategy = spec.strategy;
        let spec = Arc::new(spec);
        let plan = Arc::new(Plan::fixed(&spec));
        let mut child = Self::of(id, Kind::Supervisor, move |cx| start_supervisor(cx, &plan, None));
        child.strategy = Some(strategy);
        child.nested = Some(spec);
        child
    }

    /// A dynamic supervisor, driven by `handle`.
    #[must_use]
    pub fn dynamic(id: &str, handle: &DynamicHandle, spec: DynamicSpec) -> Self {
        let plan = Arc::new(Plan::dynamic(handle, spec));
        let address = handle.address().clone();
        let mut child = Self::of(id, Kind::Supervisor, move |cx| {
            start_supervisor(cx, &plan, Some(address.clone()))
        });
        child.strategy = Some(Strategy::Dynamic);
        child
    }

    /// A supervisor of light tasks, which are started by `handle`.
    #[must_use]
    pub fn tasks(id: &str, handle: &TasksHandle, spec: TasksSpec) -> Self {
        let handle = handle.clone();
        let mut child = Self::of(id, Kind::Supervisor, move |cx| {
            let (scope, path) = (cx.scope.clone(), Arc::clone(&cx.path));
            let args = OwnerArgs { scope, path, handle: handle.clone(), spec };
            Box::pin(spawn(cx, Owner, args, None))
        });
        child.strategy = Some(Strategy::Dynamic);
        child
    }

    fn of(
        id: &str,
        kind: Kind,
        start: impl Fn(StartCx) -> StartFuture + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            kind,
            strategy: None,
            restart: None,
            shutdown: None,
            significant: false,
            start_timeout: (kind == Kind::Worker).then_some(START_TIMEOUT),
            nested: None,
            start: Arc::new(start),
        }
    }

    /// When it is restarted; permanent unless told.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = Some(restart);
        self
    }

    /// How it is stopped.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = Some(shutdown);
        self
    }

    /// Whether its end counts for the supervisor's auto-shutdown. Not for permanent children.
    #[must_use]
    pub fn significant(mut self, significant: bool) -> Self {
        self.significant = significant;
        self
    }

    /// Time for `pre_start`; a start that takes longer is given up, and counts as failed.
    #[must_use]
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = Some(limit);
        self
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn restart_or(&self, default: Restart) -> Restart {
        self.restart.unwrap_or(default)
    }

    pub(crate) fn shutdown_or(&self, default: Option<Shutdown>) -> Shutdown {
        self.shutdown.or(default).unwrap_or(match self.kind {
            Kind::Worker => Shutdown::Timeout(SHUTDOWN_TIMEOUT),
            Kind::Supervisor => Shutdown::Infinity,
        })
    }

    /// The path below `parent`, if the id makes one.
    pub(crate) fn path_below(&self, parent: &str) -> Result<Arc<str>, StartError> {
        check_id(parent, &self.id)?;
        Ok(format!("{parent}/{}", self.id).into())
    }
}

/// Ids are parts of a path, shown to people and matched in queries.
pub(crate) fn check_id(parent: &str, id: &str) -> Result<(), StartError> {
    let problem = if id.is_empty() {
        "an id must not be empty"
    } else if id.len() > 255 {
        "an id has at most 255 bytes"
    } else if id.chars().any(|c| c == '/' || c.is_control()) {
        "an id holds neither '/' nor control characters"
    } else {
        return Ok(());
    };
    Err(StartError::InvalidSpec { path: format!("{parent}/{id}"), problem })
}

fn panicked(path: &str, caught: panics::Caught) -> StartError {
    StartError::Failed {
        path: path.to_owned(),
        reason: "panic".to_owned(),
        error: caught.text,
        location: caught.location,
    }
}

/// Spawns an actor in its guard. No global name is ever used.
pub(crate) async fn spawn<A: Actor>(
    cx: StartCx,
    actor: A,
    args: A::Arguments,
    address: Option<Address<A::Msg>>,
) -> Result<Started, StartError> {
    let guard = Guard::new(actor, Arc::clone(&cx.probe), address);
    let spawned = match cx.parent {
        Some(parent) => Guard::spawn_linked(None, guard, args, parent).await,
        None => Guard::spawn(None, guard, args).await,
    };
    match spawned {
        Ok((actor, join)) => Ok((actor.get_cell(), join)),
        Err(error) => {
            cx.probe.close_address();
            let exit = cx.probe.exit(None, false);
            // Killed from outside, or refused by a supervisor that ends: no fate of its own.
            let (reason, text) = match exit.error {
                Some(text) => (exit.reason, text),
                None => ("error", spawn_error(&error)),
            };
            Err(StartError::Failed {
                path: cx.path.to_string(),
                reason: reason.to_owned(),
                error: text,
                location: exit.location,
            })
        }
    }
}

fn spawn_error(error: &SpawnErr) -> String {
    match error {
        SpawnErr::StartupFailed(inner) => inner.to_string(),
        SpawnErr::ActorAlreadyStarted | SpawnErr::ActorAlreadyRegistered(_) => error.to_string(),
    }
}

/// Starts a supervisor; the failure of a child below it comes back as that child's.
pub(crate) fn start_supervisor(
    cx: StartCx,
    plan: &Arc<Plan>,
    address: Option<Address<SupMsg>>,
) -> StartFuture {
    let failure = Arc::new(Mutex::new(None));
    let args = Args {
        scope: cx.scope.clone(),
        path: Arc::clone(&cx.path),
        plan: Arc::clone(plan),
        probe: Arc::clone(&cx.probe),
        failure: Arc::clone(&failure),
    };
    Box::pin(async move {
        spawn(cx, Supervisor, args, address).await.map_err(|error| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(error)
        })
    })
}
