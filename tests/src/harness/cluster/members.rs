//! Who belongs to the cluster, as each node sees it.

use super::Cluster;
use crate::harness::wait::wait_until;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use weald_proto::cluster::{Member, Members};

impl Cluster {
    /// The members as a node knows them.
    ///
    /// # Errors
    /// What it said instead.
    pub fn members(&self, node: usize) -> Result<Members, String> {
        self.block(self.places[node].client.members()).map_err(|e| e.to_string())
    }

    /// What a node knows of the newest member with this name.
    #[must_use]
    pub fn member(&self, node: usize, name: &str) -> Option<Member> {
        let members = self.members(node).ok()?.members;
        let is_live = |m: &&Member| ["joined", "fenced", "leaving"].contains(&m.status.as_str());
        let named = || members.iter().filter(|m| m.name == name);
        named().find(is_live).or_else(|| named().next()).cloned()
    }

    /// Waits until a node sees a member as wanted; how long that took.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_member(
        &self,
        node: usize,
        name: &str,
        deadline: Duration,
        wanted: impl Fn(Option<&Member>) -> bool,
    ) -> Duration {
        let start = Instant::now();
        wait_until(deadline, &format!("n{node} to see {name} as it should be"), || {
            let member = self.member(node, name);
            if wanted(member.as_ref()) { Ok(start.elapsed()) } else { Err(format!("{member:?}")) }
        })
    }

    /// Waits until every running node sees every running node as joined and up; how long that took.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn wait_formed(&self, deadline: Duration) -> Duration {
        let running = self.running();
        let names: BTreeSet<_> = running.iter().map(|&k| Self::node_name(k)).collect();
        let start = Instant::now();
        wait_until(deadline, "all nodes to see each other", || {
            for &node in &running {
                let members = self.members(node)?.members;
                let up: BTreeSet<_> = members
                    .iter()
                    .filter(|m| m.status == "joined" && m.liveness == "up")
                    .map(|m| m.name.clone())
                    .collect();
                if !names.is_subset(&up) {
                    return Err(format!("n{node} sees {up:?} of {names:?}"));
                }
            }
            Ok(start.elapsed())
        })
    }
}
