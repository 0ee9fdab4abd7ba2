//! Routes of other nodes, on their way into the registry of each realm.

use std::collections::BTreeMap;
use std::sync::Arc;

use weald_storage::NodeId;

use super::Relay;
use super::inbox::set;
use crate::dealer::register;
use crate::interest::{Change, Routes, change_for};
use crate::realm::Realm;
use crate::registry::{InterestChange, Uri};
use crate::session::Work;

impl Routes for Relay {
    fn apply(&self, node: NodeId, rows: Vec<Change>) {
        let mut by_realm: BTreeMap<Uri, Vec<InterestChange>> = BTreeMap::new();
        for (row, value) in rows {
            let realm = Uri::clone(&row.realm);
            by_realm.entry(realm).or_default().push(change_for((row, value)));
        }
        let Some(router) = self.router() else { return };
        for (name, rows) in by_realm {
            let Some(realm) = router.realm(&name) else { continue };
            let work = &mut Work::new();
            let (refused, _) = realm.change(work, |tables, _, _| tables.apply_remote(node, rows));
            if refused > 0 {
                tracing::debug!(event = "interest_refused", peer = %node, refused, "rows of a node were not taken");
            }
            resolve(&realm, work);
        }
    }

    fn drop_node(&self, node: NodeId) {
        self.heard_of(node, false);
        let Some(router) = self.router() else { return };
        for realm in router.realms() {
            realm.change(&mut Work::new(), |tables, _, effects| tables.drop_node(node, effects));
        }
    }

    fn usable(&self, node: NodeId, is_usable: bool) {
        self.heard_of(node, is_usable);
        let Some(router) = self.router() else { return };
        for realm in router.realms() {
            let work = &mut Work::new();
            realm.change(work, |tables, _, effects| {
                tables.set_node_usable(node, is_usable, effects);
            });
            resolve(realm, work);
        }
    }
}

impl Relay {
    /// A node answers, or does not any more.
    fn heard_of(&self, node: NodeId, is_known: bool) {
        set(&self.known, node, is_known);
        if !is_known {
            self.asks.lost(node);
        }
    }
}

/// Takes registrations away that yield to another node's: both were taken while the nodes did not see each other.
fn resolve(realm: &Arc<Realm>, work: &mut Work) {
    for conflict in realm.conflicts() {
        let (policy, procedure) = (conflict.policy, &conflict.procedure);
        if let Some(before_ms) = conflict.replaced_ms {
            // A message says so, too, but may be lost; what is told in rows is not.
            let reason = Some(register::REPLACED);
            register::revoked(realm, work, policy, procedure, before_ms, reason);
            continue;
        }
        tracing::warn!(
            event = "registration_conflict",
            realm = %realm.name(),
            procedure = %conflict.procedure,
            winner = %conflict.winner,
            "a registration yields to an older one of another node"
        );
        let reason = Some(register::CONFLICT);
        register::revoked(realm, work, policy, procedure, u64::MAX, reason);
    }
}
