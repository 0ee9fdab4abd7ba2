//! Named actors: who holds a name, and messages to the holder.

use super::{Deps, invalid};
use crate::mail::{Delivering, How, Letter};
use crate::registry::core::NameError;
use crate::registry::{Found, RegistryError};
use crate::service::{BoxFuture, Caller};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use weald_proto::limits::{MONOTONIC_KEY_BYTES_MAX, PAGE_ITEMS_MAX, TOKEN_BYTES_MAX, WAIT_MS_MAX};
use weald_proto::request::{self, Delivery, Named};
use weald_proto::{ErrorCode, Reply, WireError};

/// Time the registry has for an answer.
const REGISTRY_TIME: Duration = Duration::from_secs(5);

pub(super) fn whereis(deps: &Deps, r: &request::Whereis) -> Reply<Option<Named>> {
    Ok(deps.registry.whereis(&r.name))
}

pub(super) fn names(deps: &Deps, r: &request::Names) -> Vec<Named> {
    deps.registry.names(&r.prefix, PAGE_ITEMS_MAX)
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

/// Sends a message. Handed on before this returns, so that messages of one client keep their order; the future is for waiting.
pub(super) fn send(
    deps: &Deps,
    r: request::SendTo,
) -> impl Future<Output = Reply<Vec<u8>>> + Send + use<> {
    let request::SendTo { name, payload, reply, timeout_ms } = r;
    post(deps, name, payload, timeout_ms, How::Once { reply })
}

/// Sends a message, delivered as asked for. Handed on as [`send`] does.
pub(super) fn send_with(
    deps: &Deps,
    r: request::SendWith,
) -> impl Future<Output = Reply<()>> + Send + use<> {
    let request::SendWith { name, payload, timeout_ms, delivery } = r;
    let how = how(delivery);
    let sent = how.map(|how| post(deps, name, payload, timeout_ms, how));
    async move { sent?.await.map(drop) }
}

fn how(delivery: Delivery) -> Reply<How> {
    Ok(match delivery {
        Delivery::BestEffort => How::Once { reply: false },
        Delivery::Acknowledged => How::Acknowledged { token: None },
        Delivery::Monotonic { key } if (1..=MONOTONIC_KEY_BYTES_MAX).contains(&key.len()) => {
            How::Newest { key }
        }
        Delivery::Monotonic { key } => {
            let len = key.len();
            return Err(invalid(format!(
                "a monotonic message has a key of 1 to {MONOTONIC_KEY_BYTES_MAX} bytes, not {len}"
            )));
        }
        Delivery::Causal { token } if token.len() <= TOKEN_BYTES_MAX => {
            How::Acknowledged { token: Some(token) }
        }
        Delivery::Causal { token } => {
            let len = token.len();
            return Err(invalid(format!(
                "a session token of {len} bytes is over the limit of {TOKEN_BYTES_MAX}"
            )));
        }
    })
}

fn post(
    deps: &Deps,
    name: String,
    payload: Vec<u8>,
    timeout_ms: u64,
    how: How,
) -> BoxFuture<'static, Reply<Vec<u8>>> {
    let timeout_ms = timeout_ms.clamp(1, WAIT_MS_MAX);
    match deps.registry.find(&name) {
        Some(Found::Here(_)) => {
            let (reply, token) = match how {
                How::Once { reply } => (reply, None),
                How::Acknowledged { token } => (false, token),
                // Here nothing waits, so nothing is replaced.
                How::Newest { .. } => (false, None),
            };
            deps.mail.deliver(Delivering { name, payload, reply, token, timeout_ms })
        }
        Some(Found::There { node, name: node_name }) => {
            deps.mail.send(node, Letter { node: node_name, name, payload, timeout_ms, how })
        }
        Some(Found::Away { name: node_name }) => refused(
            ErrorCode::Unavailable,
            format!("{name:?} is registered at node {node_name:?}, which does not answer"),
        ),
        None => refused(ErrorCode::NotFound, format!("no actor is registered as {name:?}")),
    }
}

fn refused(code: ErrorCode, text: String) -> BoxFuture<'static, Reply<Vec<u8>>> {
    Box::pin(std::future::ready(Err(WireError::new(code, text))))
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
