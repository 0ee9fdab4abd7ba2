//! Specification of a supervisor with fixed children.

use std::collections::BTreeSet;

use crate::child::{ChildSpec, check_id};
use crate::error::StartError;
use crate::spec::{AutoShutdown, Backoff, Intensity, Restart, Strategy};

/// A supervisor's strategy, limits and children, in start order.
#[derive(Debug, Clone)]
pub struct SupervisorSpec {
    pub(crate) strategy: Strategy,
    pub(crate) intensity: Intensity,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) children: Vec<ChildSpec>,
}

impl SupervisorSpec {
    /// A supervisor without children; default intensity, no auto-shutdown, no back-off.
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            intensity: Intensity::default(),
            auto_shutdown: AutoShutdown::Never,
            backoff: None,
            children: Vec::new(),
        }
    }

    /// How many restarts are tolerated in which time.
    #[must_use]
    pub fn intensity(mut self, intensity: Intensity) -> Self {
        self.intensity = intensity;
        self
    }

    /// Whether it ends with its significant children.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.auto_shutdown = auto_shutdown;
        self
    }

    /// Delays between restarts. Siblings that a strategy stops are stopped at once and wait, too.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Adds a child behind those that are there.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Adds several children.
    #[must_use]
    pub fn children(mut self, children: impl IntoIterator<Item = ChildSpec>) -> Self {
        self.children.extend(children);
        self
    }

    /// Checks this specification and those below it.
    ///
    /// # Errors
    /// [`StartError::InvalidSpec`] for the first contradiction.
    pub fn validate(&self, path: &str) -> Result<(), StartError> {
        let refuse = |path: String, problem| Err(StartError::InvalidSpec { path, problem });
        if self.strategy == Strategy::Dynamic {
            return refuse(path.to_owned(), "a dynamic supervisor is made by ChildSpec::dynamic");
        }
        let mut ids = BTreeSet::new();
        for child in &self.children {
            check_id(path, &child.id)?;
            let child_path = format!("{path}/{}", child.id);
            if !ids.insert(&child.id) {
                return refuse(child_path, "two children have this id");
            }
            if child.significant && child.restart_or(Restart::Permanent) == Restart::Permanent {
                return refuse(child_path, "a permanent child cannot be significant");
            }
            if child.significant && self.auto_shutdown == AutoShutdown::Never {
                return refuse(child_path, "significant children need an auto-shutdown");
            }
            if let Some(nested) = &child.nested {
                nested.validate(&child_path)?;
            }
        }
        Ok(())
    }
}
