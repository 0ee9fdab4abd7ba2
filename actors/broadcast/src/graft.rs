//! Events that were announced and have not arrived, with the timers after which they are asked for.

use std::collections::BTreeMap;

use weald_peers::Dots;
use weald_storage::NodeId;

use crate::config::{ANNOUNCERS_MAX, GIVE_UP_MS, GRAFT_DOTS_MAX, POSTPONED_MAX, WANTED_MAX};
use crate::dots::DotSet;

#[derive(Debug, Clone, Default)]
pub(crate) struct Wants {
    /// By stream and root.
    by_tree: BTreeMap<(u16, NodeId), Want>,
}

/// What is wanted of one root and stream. Events announced while a timer runs join at its end, so each waits for at least
/// half a timeout.
#[derive(Debug, Clone, Default)]
struct Want {
    due: DotSet,
    due_ms: u64,
    later: DotSet,
    /// Who has announced what, in the order in which they will be asked.
    announcers: Vec<(NodeId, DotSet)>,
    asked: Option<NodeId>,
    is_last_wait: bool,
    postponed: u8,
}

/// What a due timer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Graft { to: NodeId, root: NodeId, stream: u16, dots: Dots },
    GiveUp { asked: NodeId },
}

impl Wants {
    /// Takes an announcement of missing events; `false` when that is too much.
    pub(crate) fn announced(
        &mut self,
        (stream, root): (u16, NodeId),
        from: NodeId,
        missing: &Dots,
        (now_ms, wait_ms): (u64, u64),
    ) -> bool {
        let want = self.by_tree.entry((stream, root)).or_default();
        let mut all = want.due.clone();
        all.union(&want.later);
        all.extend(missing);
        if all.count() > WANTED_MAX {
            if want.is_done() {
                self.by_tree.remove(&(stream, root));
            }
            return false;
        }
        if want.is_done() {
            want.due = all;
            want.due_ms = now_ms.saturating_add(wait_ms);
        } else {
            all.remove(&want.due.to_dots());
            want.later = all;
            if want.is_last_wait {
                want.is_last_wait = false;
                want.due_ms = want.due_ms.min(now_ms.saturating_add(wait_ms));
            }
        }
        if let Some((_, dots)) = want.announcers.iter_mut().find(|(peer, _)| *peer == from) {
            dots.extend(missing);
        } else if want.announcers.len() < ANNOUNCERS_MAX {
            // Else enough others have it.
            want.announcers.push((from, DotSet::from(missing)));
        }
        true
    }

    /// Events have arrived; tells the peers that had been asked for some of them.
    pub(crate) fn arrived(
        &mut self,
        stream: u16,
        dots: &Dots,
        wait_ms: u64,
        now_ms: u64,
    ) -> Option<NodeId> {
        let (first, last) = ((stream, NodeId([0; 16])), (stream, NodeId([0xff; 16])));
        let (mut asked, mut done) = (None, Vec::new());
        for (key, want) in self.by_tree.range_mut(first..=last) {
            if want.due.remove(dots) {
                asked = asked.or(want.asked);
            }
            want.later.remove(dots);
            if want.is_done() {
                done.push(*key);
            } else if want.due.is_empty() {
                want.due = std::mem::take(&mut want.later);
                want.due_ms = now_ms.saturating_add(wait_ms);
                want.asked = None;
                want.is_last_wait = false;
                want.postponed = 0;
            }
        }
        for key in done {
            self.by_tree.remove(&key);
        }
        asked
    }

    /// Much of a stream waits to be merged: what is due of it may be there.
    pub(crate) fn postpone(&mut self, stream: u16, now_ms: u64, wait_ms: u64) {
        let (first, last) = ((stream, NodeId([0; 16])), (stream, NodeId([0xff; 16])));
        for want in self.by_tree.range_mut(first..=last).map(|(_, want)| want) {
            if want.due_ms <= now_ms && want.postponed < POSTPONED_MAX {
                want.postponed += 1;
                want.due_ms = now_ms.saturating_add(wait_ms);
            }
        }
    }

    /// A peer is gone: what it was asked for is asked of the next one now.
    pub(crate) fn forget(&mut self, peer: NodeId, now_ms: u64) {
        for want in self.by_tree.values_mut() {
            want.announcers.retain(|(known, _)| *known != peer);
            if want.asked == Some(peer) {
                want.due_ms = want.due_ms.min(now_ms);
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.by_tree.values().map(|want| want.due_ms).min()
    }

    /// What is due.
    pub(crate) fn due(&self, now_ms: u64) -> Vec<(u16, Dots)> {
        let due = self.by_tree.iter().filter(|(_, want)| want.due_ms <= now_ms);
        due.map(|((stream, _), want)| (*stream, want.due.to_dots())).collect()
    }

    /// Asks for what is due. `wait_ms` says how long the answer may take, by root.
    pub(crate) fn tick(&mut self, now_ms: u64, wait_ms: impl Fn(NodeId) -> u64) -> Vec<Ask> {
        let mut asks = Vec::new();
        self.by_tree.retain(|(stream, root), want| {
            if want.due_ms > now_ms {
                return true;
            }
            let next = want.next_announcer();
            want.due.union(&std::mem::take(&mut want.later));
            if let Some((to, dots)) = next {
                want.asked = Some(to);
                want.due_ms = now_ms.saturating_add(wait_ms(*root));
                asks.push(Ask::Graft { to, root: *root, stream: *stream, dots: dots.to_dots() });
                return true;
            }
            if want.announcers.iter().any(|(_, dots)| !want.due.intersect(dots).is_empty()) {
                // Somebody has announced what joined just now.
                want.due_ms = now_ms.saturating_add(wait_ms(*root));
                return true;
            }
            want.announcers.clear();
            if want.is_last_wait {
                asks.extend(want.asked.map(|asked| Ask::GiveUp { asked }));
                return false;
            }
            want.is_last_wait = true;
            want.due_ms = now_ms.saturating_add(GIVE_UP_MS);
            true
        });
        asks
    }
}

impl Want {
    fn is_done(&self) -> bool {
        self.due.is_empty() && self.later.is_empty()
    }

    /// The next peer that has announced something that is due. Each is asked once for what it had announced, in parts.
    fn next_announcer(&mut self) -> Option<(NodeId, DotSet)> {
        let has_due = |(_, dots): &(NodeId, DotSet)| !self.due.intersect(dots).is_empty();
        let at = self.announcers.iter().position(has_due)?;
        let (peer, announced) = self.announcers.remove(at);
        let common = self.due.intersect(&announced);
        let part = common.first(GRAFT_DOTS_MAX);
        let mut rest = announced;
        rest.remove(&part.to_dots());
        if !rest.is_empty() {
            self.announcers.push((peer, rest));
        }
        Some((peer, part))
    }
}
