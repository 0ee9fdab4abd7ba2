//! Sessions across nodes, and writes that wait for other members.
//!
//! What it is: the requests that carry a session token, and the seam [`Consistency`] behind which replication answers what
//! of a token is here and who else has a write.
//!
//! What it guarantees: a request with a token is not served before this replica has all that the token names; a token that
//! is handed back covers the token that came, what the request read and what it wrote. A write is reported as done once it
//! is durable here, whether or not the members it should wait for had it in time. A write under a context waits until this
//! replica has the events that the context names: what it replaces is known, and no object ever names an event that nobody
//! has issued, whatever a client makes up.
//!
//! What it refuses: to undo a write that too few members have; to serve a stale read, or to write over what was never here,
//! instead of [`weald_proto::ErrorCode::NotCaughtUp`].

use super::data::{address, op, read_error, write_failure};
use super::{Deps, REQUEST_TIME_MAX, invalid};
use crate::service::BoxFuture;
use crate::store::StoreHandle;
use futures::TryFutureExt;
use futures::future::Either;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weald_proto::error::Current;
use weald_proto::limits::{TOKEN_BYTES_MAX, WAIT_MS_MAX};
use weald_proto::request::{CatchUp, GetWith, Seen, WriteWith, WrittenWith};
use weald_proto::{ErrorCode, Reply, WireError};
use weald_storage::{
    Dot, Key, Space, TableKind, TableName, VersionVector, WriteOp, Written, partition_of,
};

/// How long a write without a session waits for what its context names. // guess: many times the latency of a broadcast
const CONTEXT_TIME: Duration = Duration::from_secs(2);

/// One of the logs of events in which a session has seen something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: u16,
    /// Its durable or its memory tables.
    pub space: Space,
}

/// What replication knows of sessions. Tokens are opaque to the gate; none means that nothing was seen yet.
pub trait Consistency: Send + Sync {
    /// Whether this replica has what the token names, at this moment and without waiting.
    ///
    /// # Errors
    /// [`weald_proto::ErrorCode::Invalid`]: it is no token of this cluster.
    fn is_caught_up(&self, token: &[u8]) -> Reply<bool>;

    /// Waits until it has, pulling from peers meanwhile.
    ///
    /// # Errors
    /// [`weald_proto::ErrorCode::NotCaughtUp`] at the deadline, [`weald_proto::ErrorCode::Invalid`] as [`Self::is_caught_up`].
    fn caught_up(&self, token: Vec<u8>, deadline: Instant) -> BoxFuture<'static, Reply<()>>;

    /// A token that covers `token` and these events of `place`: those that an object which was read or written reflects.
    ///
    /// # Errors
    /// [`weald_proto::ErrorCode::Invalid`] as [`Self::is_caught_up`].
    fn observe(&self, token: Option<&[u8]>, place: Place, seen: &VersionVector) -> Reply<Vec<u8>>;

    /// Waits until `members` other members have acknowledged these events as durable, or for the deadline; how many have.
    fn acked(
        &self,
        place: Place,
        dots: Vec<Dot>,
        members: u8,
        deadline: Instant,
    ) -> BoxFuture<'static, u8>;
}

pub(super) async fn get_with(deps: Arc<Deps>, r: GetWith) -> Reply<Seen> {
    let (table, key) = address(&r.table, &r.key)?;
    if let Some(waiting) = wait_for(&deps, r.token.as_deref(), r.wait_ms)? {
        waiting.await?;
    }
    let got = deps.store.get(&table, &key).map_err(|e| read_error(&e))?;
    let place = place_of(&deps.store, &table, &key);
    let token = deps.consistency.observe(r.token.as_deref(), place, got.context.vector())?;
    let current = Current { context: got.context.encode(), values: got.values };
    Ok(Seen { current, token })
}

pub(super) async fn catch_up(deps: Arc<Deps>, r: CatchUp) -> Reply<()> {
    match wait_for(&deps, Some(&r.token), r.wait_ms)? {
        Some(waiting) => waiting.await,
        None => Ok(()),
    }
}

/// Handed to the store before this returns unless the token has to be waited for, so that the writes of a session which does
/// not move between nodes keep the order of its calls.
pub(super) fn write_with(
    deps: Arc<Deps>,
    r: WriteWith,
) -> impl Future<Output = Reply<WrittenWith>> + Send + use<> {
    let WriteWith { op: request, token, wait_ms, concern } = r;
    let deadline = deadline(wait_ms);
    let begun = op(request).and_then(|op| {
        let (table, key) = op.target();
        let place = place_of(&deps.store, table, key);
        let of_token = wait_for(&deps, token.as_deref(), wait_ms)?;
        // The context may name more than the token does.
        let waiting = match (of_token, wait_for_context(&deps, &op, deadline)?) {
            (Some(first), Some(second)) => Some(Box::pin(first.and_then(|()| second)) as Waiting),
            (first, second) => first.or(second),
        };
        Ok((place, write_after(&deps.store, waiting, op)))
    });
    async move {
        let (place, writing) = begun?;
        let written = writing.await?;
        let seen = written.context.vector();
        let token = deps.consistency.observe(token.as_deref(), place, seen)?;
        let acked = match concern {
            0 => 0,
            // A write with nothing to do made no event: then those it found are what members must have.
            members => {
                let dots = written.dot.map_or_else(|| dots_of(seen), |dot| vec![dot]);
                deps.consistency.acked(place, dots, members, deadline).await
            }
        };
        Ok(WrittenWith { context: written.context.encode(), token, acked })
    }
}

/// Something that has to be here first.
pub(super) type Waiting = BoxFuture<'static, Reply<()>>;

/// Hands a write to the store: before this returns, unless there is something to wait for.
pub(super) fn write_after(
    store: &StoreHandle,
    waiting: Option<Waiting>,
    op: WriteOp,
) -> impl Future<Output = Reply<Written>> + Send + use<> {
    let write = |store: &StoreHandle, op| store.write(op, Instant::now() + REQUEST_TIME_MAX);
    let begun = match waiting {
        None => Either::Left(write(store, op)),
        Some(waiting) => Either::Right((store.clone(), waiting, op)),
    };
    async move {
        let written = match begun {
            Either::Left(writing) => writing.await,
            Either::Right((store, waiting, op)) => {
                waiting.await?;
                write(&store, op).await
            }
        };
        written.map_err(write_failure)
    }
}

/// The wait for a token; none when there is nothing to wait for.
fn wait_for(deps: &Deps, token: Option<&[u8]>, wait_ms: u64) -> Reply<Option<Waiting>> {
    let Some(token) = token else { return Ok(None) };
    if token.len() > TOKEN_BYTES_MAX {
        let len = token.len();
        return Err(invalid(format!(
            "session token of {len} bytes is over the limit of {TOKEN_BYTES_MAX}"
        )));
    }
    if deps.consistency.is_caught_up(token)? {
        return Ok(None);
    }
    Ok(Some(deps.consistency.caught_up(token.to_vec(), deadline(wait_ms))))
}

/// When a write that brings no time of its own gives up waiting for its context.
pub(super) fn context_deadline() -> Instant {
    Instant::now() + CONTEXT_TIME
}

/// The wait for the events that the context of a write names; none when they were processed here, or the object here names
/// them, too.
pub(super) fn wait_for_context(
    deps: &Deps,
    op: &WriteOp,
    deadline: Instant,
) -> Reply<Option<Waiting>> {
    let (WriteOp::Put { context: Some(context), .. }
    | WriteOp::PutIf { expected: Some(context), .. }
    | WriteOp::Delete { context: Some(context), .. }) = op
    else {
        return Ok(None);
    };
    let (table, key) = op.target();
    let store = deps.store.store();
    let mut named = dots_of(context.vector());
    // Those of this life are judged where they are issued.
    let place = place_of(&deps.store, table, key);
    let own = store.partition(place.partition).actor(place.space);
    named.retain(|dot| dot.actor != own);
    if !named.is_empty()
        && let Ok(got) = store.get(table, key, deps.store.wall_ms())
    {
        named.retain(|dot| !got.context.vector().covers(dot));
    }
    if named.is_empty() {
        return Ok(None);
    }
    let clock = store.partition(place.partition).clock(place.space).map_err(|e| read_error(&e))?;
    named.retain(|dot| !clock.contains(dot));
    if named.is_empty() {
        return Ok(None);
    }
    let vector = named.iter().map(|dot| (dot.actor, dot.counter)).collect();
    let token = deps.consistency.observe(None, place, &vector)?;
    let waiting = deps.consistency.caught_up(token, deadline);
    let unseen = |mut error: WireError| {
        if error.code == ErrorCode::NotCaughtUp {
            error.message = "the context names events that have not arrived at this node: read again here, or write where it was read".to_owned();
        }
        error
    };
    Ok(Some(Box::pin(waiting.map_err(unseen))))
}

fn deadline(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX))
}

fn place_of(store: &StoreHandle, table: &TableName, key: &Key) -> Place {
    let store = store.store();
    let space = match store.table(table).kind {
        TableKind::Durable => Space::Durable,
        TableKind::Memory => Space::Memory,
    };
    Place { partition: partition_of(table, key, store.partitions()), space }
}

fn dots_of(vector: &VersionVector) -> Vec<Dot> {
    vector.iter().map(|(actor, counter)| Dot { actor, counter }).collect()
}
