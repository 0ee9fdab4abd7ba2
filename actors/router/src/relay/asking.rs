//! Questions to all nodes, and their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use weald_storage::NodeId;
use weald_wamp::ByteString;

use super::Relay;
use super::frames::{Message, pack};
use crate::meta::query::{Part, Query};

/// Time that nodes have to answer; those that have not are left out.
const ASK_TIME: Duration = Duration::from_secs(5);
/// Questions under way at most; more are answered by this node alone. // guess
const ASKS_MAX: usize = 10_000;

/// A question under way.
#[derive(Debug)]
struct Ask {
    waiting: BTreeSet<NodeId>,
    parts: Vec<Part>,
    done: oneshot::Sender<Vec<Part>>,
}

/// All questions of this node that are under way.
#[derive(Debug, Default)]
pub(super) struct Asks {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Ask>>,
}

impl Asks {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Ask>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has answered.
    pub(super) fn told(&self, node: NodeId, id: u64, part: Part) {
        let mut open = self.open();
        let Some(ask) = open.get_mut(&id) else { return };
        if !ask.waiting.remove(&node) {
            return;
        }
        ask.parts.push(part);
        if ask.waiting.is_empty() {
            finish(open.remove(&id));
        }
    }

    /// Whether a node is to answer something.
    pub(super) fn is_asked(&self, node: NodeId) -> bool {
        self.open().values().any(|ask| ask.waiting.contains(&node))
    }

    /// A node is lost, and will not answer.
    pub(super) fn lost(&self, node: NodeId) {
        let mut open = self.open();
        let ids: Vec<u64> = open
            .iter_mut()
            .filter_map(|(id, ask)| {
                (ask.waiting.remove(&node) && ask.waiting.is_empty()).then_some(*id)
            })
            .collect();
        for id in ids {
            finish(open.remove(&id));
        }
    }
}

fn finish(ask: Option<Ask>) {
    if let Some(ask) = ask {
        // Nobody may wait any more.
        ask.done.send(ask.parts).ok();
    }
}

impl Relay {
    /// Asks all other nodes. None when there are none.
    pub(crate) fn ask(
        self: &std::sync::Arc<Self>,
        realm: &ByteString,
        query: &Query,
    ) -> Option<BoxFuture<'static, Vec<Part>>> {
        let peers: BTreeSet<NodeId> =
            self.connected.load().union(&self.known.load()).copied().collect();
        if peers.is_empty() || self.asks.open().len() >= ASKS_MAX {
            return None;
        }
        let id = self.asks.next.fetch_add(1, Ordering::Relaxed);
        let body = pack(query).ok()?;
        let frame = Message::Ask { realm: realm.clone(), ask: id, body }.encode().ok()?;
        let (done, answered) = oneshot::channel();
        let ask = Ask { waiting: peers.clone(), parts: Vec::new(), done };
        self.asks.open().insert(id, ask);
        for node in &peers {
            if self.send_frame(*node, id, &frame).is_err() {
                self.asks.told(*node, id, Part::Nothing);
            }
        }
        let relay = std::sync::Arc::clone(self);
        let waiting = async move {
            if let Ok(Ok(parts)) = tokio::time::timeout(ASK_TIME, answered).await {
                return parts;
            }
            let late = relay.asks.open().remove(&id);
            late.map(|ask| ask.parts).unwrap_or_default()
        };
        Some(waiting.boxed())
    }
}
