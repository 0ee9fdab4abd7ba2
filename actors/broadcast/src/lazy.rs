//! Announcements that wait for the tick, by peer.
//!
//! They are sent once and forgotten. What a peer has shown to have is taken out, so of two peers only one announces.

use std::collections::BTreeMap;

use weald_peers::Dots;
use weald_storage::NodeId;

use crate::config::{ANNOUNCE_RUNS, ANNOUNCED_RUNS_MAX};
use crate::dots::DotSet;
use crate::messages::Announcement;

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    /// It waits.
    Waiting,
    /// So much waits that it is better sent now.
    Large,
    /// Too much waits; it was dropped.
    Overflow,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Lazy {
    by_peer: BTreeMap<NodeId, Waiting>,
}

#[derive(Debug, Clone, Default)]
struct Waiting {
    /// Round and dots by root and stream.
    items: BTreeMap<(NodeId, u16), (u16, DotSet)>,
    runs: usize,
}

impl Lazy {
    pub(crate) fn add(
        &mut self,
        peer: NodeId,
        (root, round, stream): (NodeId, u16, u16),
        dots: &Dots,
    ) -> Queued {
        let waiting = self.by_peer.entry(peer).or_default();
        if waiting.runs >= ANNOUNCED_RUNS_MAX {
            return Queued::Overflow;
        }
        let item = waiting.items.entry((root, stream)).or_default();
        let before = item.1.runs_len();
        item.0 = round;
        item.1.extend(dots);
        waiting.runs = waiting.runs + item.1.runs_len() - before;
        if waiting.runs >= ANNOUNCE_RUNS { Queued::Large } else { Queued::Waiting }
    }

    /// The peer has these.
    pub(crate) fn has(&mut self, peer: NodeId, root: NodeId, stream: u16, dots: &Dots) {
        let Some(waiting) = self.by_peer.get_mut(&peer) else { return };
        let Some(item) = waiting.items.get_mut(&(root, stream)) else { return };
        let before = item.1.runs_len();
        item.1.remove(dots);
        waiting.runs = waiting.runs + item.1.runs_len() - before;
        if item.1.is_empty() {
            waiting.items.remove(&(root, stream));
        }
        if waiting.items.is_empty() {
            self.by_peer.remove(&peer);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.by_peer.remove(&peer);
    }

    /// Takes what waits for one peer.
    pub(crate) fn take(&mut self, peer: NodeId) -> Vec<Announcement> {
        self.by_peer.remove(&peer).map(Waiting::into_items).unwrap_or_default()
    }

    /// Takes what waits for all.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (NodeId, Vec<Announcement>)> + use<> {
        let all = std::mem::take(&mut self.by_peer);
        all.into_iter().map(|(peer, waiting)| (peer, waiting.into_items()))
    }
}

impl Waiting {
    fn into_items(self) -> Vec<Announcement> {
        let item = |((root, stream), (round, dots)): ((NodeId, u16), (u16, DotSet))| Announcement {
            root,
            round,
            stream,
            dots: dots.to_dots(),
        };
        self.items.into_iter().map(item).collect()
    }
}
