//! The ports for WAMP clients, and the tasks of their sessions.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weald_storage::NodeId;
use weald_supervision::{ChildSpec, Shutdown, TaskContext, TasksHandle};
use weald_transports::{Address, Connection, Endpoint, Listener, Settings, Tls};

use crate::interest::InterestHandle;
use crate::router::Router;
use crate::session::serve;

/// Time that a listener has to stop.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Time that the routes of other nodes have to arrive before clients are let in all the same. // guess
pub const CATCH_UP_TIME: Duration = Duration::from_secs(10);

/// Time that a node which is told where others are waits for the first of them before that. // guess
pub const MEET_TIME: Duration = Duration::from_secs(3);

/// The address a port is bound to, once it is.
#[derive(Debug, Clone, Default)]
pub struct Bound(Arc<Mutex<Option<Address>>>);

impl Bound {
    /// The address, if the port is open.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, address: Option<Address>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// How often it is looked whether certificate files have changed. // guess
const FILES_PERIOD: Duration = Duration::from_secs(2);

/// The process that keeps the certificates of ports as new as their files. Connections that stand are not touched; files
/// that make no sense are told of once, and those before stay in use.
#[must_use]
pub fn certificates(tls: Arc<Tls>) -> ChildSpec {
    ChildSpec::task("certificates", move |context| {
        let tls = Arc::clone(&tls);
        async move {
            loop {
                tokio::select! {
                    biased;
                    () = context.cancelled() => return Ok(()),
                    () = tokio::time::sleep(FILES_PERIOD) => look_at_files(&tls).await,
                }
            }
        }
    })
}

async fn look_at_files(tls: &Arc<Tls>) {
    let looked = Arc::clone(tls);
    // Files may be slow to read.
    match tokio::task::spawn_blocking(move || looked.reload()).await {
        Ok(Ok(false)) | Err(_) => {}
        Ok(Ok(true)) => {
            tracing::info!(
                event = "client_certificates_loaded",
                "certificate files of client ports have changed and are in use"
            );
        }
        Ok(Err(why)) => {
            let cause = std::error::Error::source(&why).map(ToString::to_string);
            tracing::error!(event = "client_certificates_bad", reason = %why, cause, "changed certificate files of client ports are not used, those before stay");
        }
    }
}

/// What a port needs.
#[derive(Debug, Clone)]
pub struct Port {
    /// The name of its process, also in the log.
    pub name: &'static str,
    /// Where and what.
    pub endpoint: Endpoint,
    /// What its connections have in common.
    pub settings: Settings,
    /// Set while it is open.
    pub bound: Bound,
    /// Whose clients they are.
    pub router: Arc<Router>,
    /// The supervisor of sessions.
    pub sessions: TasksHandle,
    /// What is waited for before clients are let in.
    pub interest: InterestHandle,
    /// Whether this node is told where others are, by seeds or by names.
    pub has_seeds: bool,
}

impl Port {
    /// The process that listens. It opens the port once this node knows the routes of the others, or after
    /// [`CATCH_UP_TIME`]; a node with seeds that meets nobody opens it after [`MEET_TIME`].
    #[must_use]
    pub fn child_spec(self) -> ChildSpec {
        let name = self.name;
        let port = Arc::new(self);
        ChildSpec::task(name, move |context| {
            let port = Arc::clone(&port);
            async move { port.listen(context).await }
        })
        .shutdown(Shutdown::Timeout(STOP_TIME))
    }

    async fn caught_up(&self) -> Result<(), BTreeSet<NodeId>> {
        let start = Instant::now();
        if self.has_seeds && !self.interest.met(start + MEET_TIME).await {
            tracing::info!(
                event = "nobody_met",
                port = self.name,
                "clients are let in although no other node was found yet"
            );
        }
        self.interest.caught_up(start + CATCH_UP_TIME).await
    }

    async fn listen(&self, context: TaskContext) -> Result<(), weald_supervision::BoxError> {
        tokio::select! {
            biased;
            () = context.cancelled() => return Ok(()),
            caught_up = self.caught_up() => {
                if let Err(missing) = caught_up {
                    tracing::warn!(
                        event = "routes_missing",
                        port = self.name,
                        missing = missing.len(),
                        "clients are let in before the routes of all nodes are known"
                    );
                }
            }
        }
        let (router, sessions) = (Arc::clone(&self.router), self.sessions.clone());
        let next = AtomicU64::new(1);
        let port = self.name;
        let serving = move |connection: Connection| {
            let id = format!("{port}-{}", next.fetch_add(1, Ordering::Relaxed));
            let router = Arc::clone(&router);
            let started = sessions.start(&id, |_context| async move {
                serve(router, connection).await;
                Ok(())
            });
            if let Err(error) = started {
                // Its connection was dropped with the future that was not started.
                tracing::warn!(event = "session_not_started", %error, "a client was turned away");
            }
        };
        let listener =
            Listener::start(self.endpoint.clone(), self.settings.clone(), Arc::new(serving))?;
        self.bound.set(Some(listener.address().clone()));
        tracing::info!(event = "port_open", port, address = %listener.address(), "port for WAMP clients open");
        context.cancelled().await;
        self.bound.set(None);
        drop(listener.stop().await);
        Ok(())
    }
}
