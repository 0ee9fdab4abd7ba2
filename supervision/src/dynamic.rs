//! Children that come and go at run time.
//!
//! Guarantees: ids are unique among the live children, their number has a limit, and either refusal
//! is a typed error that leaves everything as it was; children do not survive a restart of their
//! supervisor (OTP likewise). Refuses: significant children.
//!
//! Starts are made one after the other inside the supervisor: keep `pre_start` of such children short.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::address::Address;
use crate::child::ChildSpec;
use crate::error::{StartError, TerminateError};
use crate::spec::{Intensity, Restart, Shutdown};
use crate::supervisor::SupMsg;

/// Longest wait for the answer of a dynamic supervisor (it may have others to start before).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Limits of a dynamic supervisor, and defaults of its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynamicSpec {
    /// For children whose specification names none.
    pub restart: Restart,
    /// For children whose specification names none; `None` leaves it to the child's kind.
    pub shutdown: Option<Shutdown>,
    /// Restarts tolerated, over all children.
    pub intensity: Intensity,
    /// Most children at a time.
    pub max_children: usize,
    /// Keep orderly starts and ends of the children out of the log (crashes are always in): for
    /// children as short-lived as client sessions, which would push everything else out of it.
    pub quiet: bool,
}

impl Default for DynamicSpec {
    /// Temporary children, default intensity, at most 100,000 children (about 1 GiB of idle
    /// actors at 10.9 KiB each).
    fn default() -> Self {
        Self {
            restart: Restart::Temporary,
            shutdown: None,
            intensity: Intensity::default(),
            max_children: 100_000,
            quiet: false,
        }
    }
}

/// Starts and ends children of one dynamic supervisor. Clones are the same handle.
#[derive(Debug, Clone)]
pub struct DynamicHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: Address<SupMsg>,
    count: AtomicUsize,
}

impl Default for DynamicHandle {
    fn default() -> Self {
        Self::new("dynamic")
    }
}

impl DynamicHandle {
    /// A handle no supervisor listens to yet; give it to [`ChildSpec::dynamic`].
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { inner: Arc::new(Inner { address: Address::new(name), count: AtomicUsize::new(0) }) }
    }

    /// Starts a child; returns its path once its `pre_start` is through.
    ///
    /// # Errors
    /// [`StartError::Duplicate`], [`StartError::Full`], [`StartError::InvalidSpec`]: nothing
    /// happened. [`StartError::Failed`], [`StartError::Timeout`]: it did not start, and is not
    /// tried again. [`StartError::Down`]: no supervisor, or no answer in time.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<String, StartError> {
        let make = |reply| SupMsg::StartChild(Box::new(spec), reply);
        match self.inner.address.call(make, ANSWER_TIMEOUT).await {
            Ok(answer) => answer,
            Err(_unanswered) => Err(StartError::Down),
        }
    }

    /// Stops a child as its specification says, and forgets it.
    ///
    /// # Errors
    /// [`TerminateError::NotFound`]; [`TerminateError::Down`] when no supervisor answers.
    pub async fn terminate_child(&self, id: &str) -> Result<(), TerminateError> {
        let id = id.to_owned();
        let make = |reply| SupMsg::TerminateChild(id, reply);
        match self.inner.address.call(make, ANSWER_TIMEOUT).await {
            Ok(answer) => answer,
            Err(_unanswered) => Err(TerminateError::Down),
        }
    }

    /// Children at the moment, restarting ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Whether the supervisor is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.inner.address.is_up()
    }

    /// Waits until the supervisor is up; `false` when that took longer than `timeout`.
    pub async fn wait_up(&self, timeout: Duration) -> bool {
        self.inner.address.wait_up(timeout).await
    }

    pub(crate) fn address(&self) -> &Address<SupMsg> {
        &self.inner.address
    }

    pub(crate) fn set_count(&self, count: usize) {
        self.inner.count.store(count, Ordering::Relaxed);
    }
}
