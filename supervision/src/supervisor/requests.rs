//! What a dynamic supervisor is asked for through its handle.
//!
//! Guarantees: a refusal changes nothing. Refuses: more children than allowed, ids in use.

use std::sync::Arc;

use ractor::ActorRef;

use super::{State, SupMsg};
use crate::child::ChildSpec;
use crate::core::Input;
use crate::error::{StartError, TerminateError};

impl State {
    pub(super) async fn start_child(
        &mut self,
        myself: &ActorRef<SupMsg>,
        spec: ChildSpec,
    ) -> Result<String, StartError> {
        let Some((_, limits)) = &self.plan.dynamic else {
            return Err(StartError::Down);
        };
        let path = spec.path_below(&self.path)?;
        if self.by_id.contains_key(&spec.id) {
            return Err(StartError::Duplicate { id: spec.id.to_string() });
        }
        if self.slots.len() >= limits.max_children {
            return Err(StartError::Full { max: limits.max_children });
        }
        if spec.significant {
            let problem = "a dynamic supervisor has no significant children";
            return Err(StartError::InvalidSpec { path: path.to_string(), problem });
        }
        if let Some(nested) = &spec.nested {
            nested.validate(&path)?;
        }
        let key = self.core.next_key();
        let policy = self.plan.child_policy(&spec);
        self.insert(key, spec, Arc::clone(&path));
        self.publish_count();
        self.last_failure = None;
        self.drive(myself, Input::Add(policy)).await;
        self.last_failure.take().map_or_else(|| Ok(path.to_string()), Err)
    }

    pub(super) async fn terminate_child(
        &mut self,
        myself: &ActorRef<SupMsg>,
        id: String,
    ) -> Result<(), TerminateError> {
        let Some(key) = self.by_id.get(id.as_str()).copied() else {
            return Err(TerminateError::NotFound { id });
        };
        self.drive(myself, Input::Terminate(key)).await;
        Ok(())
    }

    pub(super) fn publish_count(&self) {
        if let Some((handle, _)) = &self.plan.dynamic {
            handle.set_count(self.slots.len());
        }
    }
}
