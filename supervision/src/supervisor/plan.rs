//! A supervisor's specification in the core's terms.

use std::time::Duration;

use crate::child::ChildSpec;
use crate::core::{BackoffPolicy, ChildPolicy, Policy};
use crate::dynamic::{DynamicHandle, DynamicSpec};
use crate::spec::{AutoShutdown, Backoff, Restart, Shutdown, Strategy};
use crate::supervisor_spec::SupervisorSpec;

/// What a supervisor starts with, each time.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) policy: Policy,
    pub(super) children: Vec<ChildSpec>,
    pub(super) dynamic: Option<(DynamicHandle, DynamicSpec)>,
}

impl Plan {
    pub(crate) fn fixed(spec: &SupervisorSpec) -> Self {
        Self {
            policy: Policy {
                strategy: spec.strategy,
                intensity_max: spec.intensity.max_restarts,
                window_ms: millis(spec.intensity.window),
                auto_shutdown: spec.auto_shutdown,
                backoff: spec.backoff.map(backoff_policy),
            },
            children: spec.children.clone(),
            dynamic: None,
        }
    }

    pub(crate) fn dynamic(handle: &DynamicHandle, spec: DynamicSpec) -> Self {
        Self {
            policy: Policy {
                strategy: Strategy::Dynamic,
                intensity_max: spec.intensity.max_restarts,
                window_ms: millis(spec.intensity.window),
                auto_shutdown: AutoShutdown::Never,
                backoff: None,
            },
            children: Vec::new(),
            dynamic: Some((handle.clone(), spec)),
        }
    }

    pub(super) fn default_restart(&self) -> Restart {
        self.dynamic.as_ref().map_or(Restart::Permanent, |(_, spec)| spec.restart)
    }

    pub(super) fn default_shutdown(&self) -> Option<Shutdown> {
        self.dynamic.as_ref().and_then(|(_, spec)| spec.shutdown)
    }

    pub(super) fn child_policy(&self, spec: &ChildSpec) -> ChildPolicy {
        ChildPolicy {
            restart: spec.restart_or(self.default_restart()),
            significant: spec.significant,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn backoff_policy(backoff: Backoff) -> BackoffPolicy {
    BackoffPolicy {
        initial_ms: millis(backoff.initial),
        max_ms: millis(backoff.max),
        jitter_percent: backoff.jitter_percent,
        seed: backoff.seed,
        reset_after_ms: millis(backoff.reset_after),
    }
}
