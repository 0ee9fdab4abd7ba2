//! What other nodes have, in the tables of this one.
//!
//! What it guarantees: rows of a node that is down are kept and not used; once it is up they are used again, without anything
//! being sent. A node that is gone leaves nothing behind. Clients of this node are told what came or went for them when a node
//! came or went, by events without a session; what a node's own clients do, that node announces.
//!
//! What it refuses: versions and order of what a node tells; they are judged before it comes here.

use std::sync::Arc;

use weald_storage::ids::NodeId;

use super::effect::{Effects, InterestChange, InterestKey, MetaChange, MetaEvent};
use super::id::{Id, Kind};
use super::pattern::{PatternTooLong, Uri};
use super::row::{Describe, Down, Row, Subscriber, is_announced};
use super::snapshot::Rows;
use super::table::{Tables, left};

impl<S: Subscriber> Tables<S> {
    /// Takes what a node has. Returns how many rows were refused: patterns too long to be kept, rows of nobody, and rows of
    /// this node itself.
    pub fn apply_remote(
        &mut self,
        node: NodeId,
        rows: impl IntoIterator<Item = InterestChange>,
    ) -> usize {
        rows.into_iter().filter(|row| !self.apply(node, row)).count()
    }

    /// Takes out what a node has; it is as if it had never been there.
    pub fn drop_node(&mut self, node: NodeId, effects: &mut Effects) {
        for key in self.nodes.remove(&node).unwrap_or_default() {
            let down = &self.state.down;
            match key.kind {
                Kind::Subscription => {
                    drop_row(&mut self.state.subscriptions, node, &key, down, effects)
                }
                Kind::Registration => {
                    drop_row(&mut self.state.registrations, node, &key, down, effects)
                }
            }
            self.settle(&key);
        }
        if self.state.down.contains(&node) {
            Arc::make_mut(&mut self.state.down).remove(&node);
        }
    }

    /// Uses a node's rows, or keeps them unused until it is back. A node nothing was said of is usable.
    pub fn set_node_usable(&mut self, node: NodeId, usable: bool, effects: &mut Effects) {
        if usable != self.state.down.contains(&node) {
            return;
        }
        let before = Arc::clone(&self.state.down);
        let down = Arc::make_mut(&mut self.state.down);
        if usable {
            down.remove(&node);
        } else {
            down.insert(node);
        }
        let keys = self.nodes.get(&node).into_iter().flatten();
        for InterestKey { kind, policy, uri } in keys {
            let (before, now) = (&before, &self.state.down);
            match kind {
                Kind::Subscription => {
                    let row = self.state.subscriptions.index.get(*policy, uri);
                    row.into_iter().for_each(|row| appeared(&**row, before, now, effects));
                }
                Kind::Registration => {
                    let row = self.state.registrations.index.get(*policy, uri);
                    row.into_iter().for_each(|row| appeared(&**row, before, now, effects));
                }
            }
        }
    }

    /// How many rows a node has here.
    pub fn remote_len(&self, node: NodeId) -> usize {
        self.nodes.get(&node).map_or(0, std::collections::BTreeSet::len)
    }

    /// Forgets that a node has a row.
    pub(super) fn forget(&mut self, node: NodeId, key: &InterestKey) {
        if let Some(keys) = self.nodes.get_mut(&node) {
            keys.remove(key);
            if keys.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    /// Whether the row was one that a node may have.
    fn apply(&mut self, node: NodeId, change: &InterestChange) -> bool {
        let InterestChange { key, row } = change;
        if node == self.state.node || row.is_some_and(|row| row.count == 0) {
            return false;
        }
        let applied = match key.kind {
            Kind::Subscription => set_row(&mut self.state.subscriptions, &self.realm, node, change),
            Kind::Registration => set_row(&mut self.state.registrations, &self.realm, node, change),
        };
        let Ok(uri) = applied else {
            return false;
        };
        match (uri, row) {
            // The key holds the text that the tables hold, not another copy of it.
            (Some(uri), Some(_)) => {
                let key = InterestKey { uri, ..*key };
                self.nodes.entry(node).or_default().insert(key);
            }
            (Some(_), None) => self.forget(node, key),
            (None, _) => {}
        }
        self.settle(key);
        true
    }

    /// Takes out the row of a key on which nobody is any more.
    fn settle(&mut self, key: &InterestKey) {
        match key.kind {
            Kind::Subscription => self.state.subscriptions.sweep(key.policy, &key.uri),
            Kind::Registration => {
                self.note_shared(key.policy, &key.uri);
                self.state.registrations.sweep(key.policy, &key.uri);
            }
        }
    }
}

/// Sets what a node has, and returns the text of the row; none if there was nothing and is nothing.
fn set_row<I: Id, M: Clone, X: Clone + Default>(
    rows: &mut Rows<I, M, X>,
    realm: &str,
    node: NodeId,
    change: &InterestChange,
) -> Result<Option<Uri>, PatternTooLong> {
    let InterestKey { policy, uri, .. } = &change.key;
    let row = match change.row {
        Some(there) => rows.edit_or_make(realm, *policy, uri, there.oldest_ms)?,
        None => match rows.edit(*policy, uri) {
            Some(row) => row,
            None => return Ok(None),
        },
    };
    row.set_remote(node, change.row);
    Ok(Some(Uri::clone(row.uri())))
}

fn drop_row<I: Id, M: Clone, X: Clone + Default>(
    rows: &mut Rows<I, M, X>,
    node: NodeId,
    key: &InterestKey,
    down: &Down,
    effects: &mut Effects,
) {
    let Some(row) = rows.edit(key.policy, &key.uri) else {
        return;
    };
    let was_there = row.is_there(down);
    row.set_remote(node, None);
    if was_there && !row.is_there(down) {
        left(row.id(), None, MetaChange::Deleted, &key.uri, effects);
    }
}

/// Tells this node's clients of a row that came or went with a node.
fn appeared<I: Id, M, X>(row: &Row<I, M, X>, before: &Down, now: &Down, effects: &mut Effects)
where
    Row<I, M, X>: Describe,
{
    let change = match (row.is_there(before), row.is_there(now)) {
        (false, true) => MetaChange::Created(Box::new(row.details(now))),
        (true, false) => MetaChange::Deleted,
        (true, true) | (false, false) => return,
    };
    if is_announced(I::KIND, row.uri()) {
        effects.meta.push(MetaEvent { id: row.id().into(), session: None, change });
    }
}
