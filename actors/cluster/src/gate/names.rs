//! Named actors: who holds a name, and messages to the holder.

use super::Deps;
use crate::registry::core::NameError;
use crate::registry::{Found, RegistryError};
use crate::service::{Caller, PushError};
use std::sync::Arc;
use std::time::Duration;
use weald_proto::limits::WAIT_MS_MAX;
use weald_proto::request::{self, Named, decode_reply, request_frame};
use weald_proto::{ErrorCode, Reply, WireError};

/// Names in one reply.
const NAMES_MAX: usize = 1000;
/// Time the registry has for an answer.
const REGISTRY_TIME: Duration = Duration::from_secs(5);

pub(super) fn whereis(deps: &Deps, r: &request::Whereis) -> Reply<Option<Named>> {
    Ok(deps.registry.whereis(&r.name))
}

pub(super) fn names(deps: &Deps, r: &request::Names) -> Vec<Named> {
    deps.registry.names(&r.prefix, NAMES_MAX)
}

pub(super) async fn register(
    deps: Arc<Deps>,
    caller: Arc<Caller>,
    r: request::Register,
) -> Reply<Named> {
    let now = deps.store.wall_ms();
    let named = deps.registry.register(r.name, &caller, now, REGISTRY_TIME).await;
    named.map_err(|e| registry_error(&e))
}

pub(super) async fn unregister(
    deps: Arc<Deps>,
    caller: Arc<Caller>,
    r: request::Unregister,
) -> Reply<()> {
    let done = deps.registry.unregister(r.name, caller.session, REGISTRY_TIME).await;
    done.map_err(|e| registry_error(&e))
}

pub(super) async fn send(deps: Arc<Deps>, r: request::SendTo) -> Reply<Vec<u8>> {
    let entry = match deps.registry.find(&r.name) {
        Some(Found::Here(entry)) => entry,
        Some(Found::There { name, .. }) => {
            let text = format!("{:?} is registered at node {name:?}: connect to that one", r.name);
            return Err(WireError::new(ErrorCode::Unavailable, text));
        }
        Some(Found::Away { name }) => {
            let text =
                format!("{:?} is registered at node {name:?}, which does not answer", r.name);
            return Err(WireError::new(ErrorCode::Unavailable, text));
        }
        None => {
            let text = format!("no actor is registered as {:?}", r.name);
            return Err(WireError::new(ErrorCode::NotFound, text));
        }
    };
    let timeout = Duration::from_millis(r.timeout_ms.clamp(1, WAIT_MS_MAX));
    let call = request::Deliver { name: r.name, payload: r.payload, reply: r.reply };
    let frame =
        entry.holder.0.request(request_frame(0, &call), timeout).await.map_err(push_error)?;
    decode_reply::<request::Deliver>(&frame)
        .unwrap_or_else(|e| Err(WireError::new(ErrorCode::Internal, format!("actor's reply: {e}"))))
}

fn push_error(error: PushError) -> WireError {
    let code = match error {
        PushError::Closed => ErrorCode::Unavailable,
        PushError::Timeout => ErrorCode::TimedOut,
        PushError::Overloaded => ErrorCode::Overloaded,
    };
    WireError::new(code, error.to_string())
}

fn registry_error(error: &RegistryError) -> WireError {
    let code = match error {
        RegistryError::Name(NameError::Taken { .. }) => ErrorCode::Taken,
        RegistryError::Name(NameError::Malformed { .. }) => ErrorCode::Invalid,
        RegistryError::Name(NameError::TooMany | NameError::Full) => ErrorCode::Overloaded,
        RegistryError::Name(NameError::NotHeld(_)) => ErrorCode::NotFound,
        RegistryError::Unavailable(_) => ErrorCode::Unavailable,
    };
    WireError::new(code, error.to_string())
}
