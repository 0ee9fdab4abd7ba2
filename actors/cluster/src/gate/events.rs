//! What happened to the membership, for whoever follows it.
//!
//! What it guarantees: events are numbered without gaps in one run of a node; a follower that falls behind the last
//! [`EVENTS_KEPT`], or that comes from an earlier run, is told that it has missed some.
//!
//! # Shape
//! A position is the run (8 bytes) and the number of the last event seen (8 bytes), both big-endian.

use super::cluster::Answer;
use super::invalid;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use weald_peers::{Cluster, Liveness, Member, Status};
use weald_proto::Reply;
use weald_proto::cluster::{ClusterEvent, Member as Shown};
use weald_proto::request::ClusterChanges;

/// Events kept for followers. // guess
pub const EVENTS_KEPT: usize = 4096;

/// The events of one run of a node. Clones are the same feed.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    run: u64,
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    last_seq: u64,
    events: VecDeque<String>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("last_seq", &*self.shared.last.borrow()).finish()
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl Feed {
    /// An empty feed, of a run of its own.
    #[must_use]
    pub fn new() -> Self {
        let mut run = [0; 8];
        // Without randomness the time of the start tells runs apart well enough.
        if getrandom::fill(&mut run).is_err() {
            run = crate::node::wall_ms().to_be_bytes();
        }
        let run = u64::from_be_bytes(run);
        let shared = Shared { run, kept: Mutex::default(), last: watch::Sender::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Takes down what has changed between two states of the membership.
    pub fn note(&self, before: &Cluster, after: &Cluster, wall_ms: u64) {
        let mut kept = self.kept();
        for (event, member) in changes(before, after) {
            kept.last_seq += 1;
            let event = ClusterEvent {
                seq: kept.last_seq,
                ts_ms: wall_ms,
                event: event.to_owned(),
                member: shown(member),
            };
            let text = serde_json::to_string(&event).unwrap_or_default();
            kept.events.push_back(text);
            if kept.events.len() > EVENTS_KEPT {
                kept.events.pop_front();
            }
        }
        let last_seq = kept.last_seq;
        drop(kept);
        self.shared.last.send_if_modified(|last| std::mem::replace(last, last_seq) != last_seq);
    }

    /// The events after a position (none: from now on), as soon as there is one, or at the deadline.
    #[must_use]
    pub fn follow(
        &self,
        position: Option<Vec<u8>>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<ClusterChanges> {
        let feed = self.clone();
        Box::pin(async move {
            let (after, lagged) = feed.start(position.as_deref())?;
            let mut last = feed.shared.last.subscribe();
            if !lagged {
                // At the deadline there is nothing new, and that is the answer.
                timeout_at(deadline, last.wait_for(|last| *last > after)).await.ok();
            }
            Ok(feed.page(after, limit, lagged))
        })
    }

    /// After which event to begin, and whether it is another run's.
    fn start(&self, position: Option<&[u8]>) -> Reply<(u64, bool)> {
        let Some(bytes) = position else { return Ok((self.kept().last_seq, false)) };
        let ([run, seq], []) = bytes.as_chunks::<8>() else {
            return Err(invalid(format!(
                "a position of {} bytes is none of cluster events",
                bytes.len()
            )));
        };
        let kept = self.kept();
        let oldest = kept.last_seq - kept.events.len() as u64;
        let seq = u64::from_be_bytes(*seq);
        if u64::from_be_bytes(*run) != self.shared.run || seq > kept.last_seq {
            return Ok((oldest, true));
        }
        Ok((seq, false))
    }

    fn page(&self, after: u64, limit: usize, lagged: bool) -> ClusterChanges {
        let kept = self.kept();
        let oldest = kept.last_seq - kept.events.len() as u64;
        // The reader was too slow, or some have gone while it waited.
        let lagged = lagged || after < oldest;
        let after = after.max(oldest);
        let skip = usize::try_from(after - oldest).unwrap_or(usize::MAX);
        let events: Vec<String> = kept.events.iter().skip(skip).take(limit).cloned().collect();
        let mut position = self.shared.run.to_be_bytes().to_vec();
        position.extend_from_slice(&(after + events.len() as u64).to_be_bytes());
        ClusterChanges { events, position, lagged }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics half-way.
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member as clients see it.
#[must_use]
pub fn shown(member: &Member) -> Shown {
    Shown {
        name: member.name.clone(),
        node: member.node.to_string(),
        incarnation: member.incarnation,
        addresses: member.addresses.clone(),
        status: member.status.to_string(),
        liveness: member.liveness.to_string(),
        seen_ms: member.seen_ms,
        ..Shown::default()
    }
}

/// What the difference between two states is called, member by member.
fn changes<'a>(before: &Cluster, after: &'a Cluster) -> Vec<(&'static str, &'a Member)> {
    let mut found = Vec::new();
    for (node, now) in &after.members {
        let was = before.members.get(node);
        if was.is_none_or(|was| was.status != now.status) {
            found.push((status_event(now.status), now));
        }
        let Some(was) = was else { continue };
        if was.liveness != now.liveness {
            found.push((liveness_event(now.liveness), now));
        }
        if was.addresses != now.addresses {
            found.push(("member_moved", now));
        }
    }
    found
}

const fn status_event(status: Status) -> &'static str {
    match status {
        Status::Joined => "member_joined",
        Status::Fenced => "member_fenced",
        Status::Leaving => "member_leaving",
        Status::Left => "member_left",
        Status::Evicted => "member_evicted",
    }
}

const fn liveness_event(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Up => "member_up",
        Liveness::Suspect => "member_suspect",
        Liveness::Down => "member_down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use weald_storage::NodeId;

    fn member(id: u8) -> Member {
        Member {
            node: NodeId([id; 16]),
            name: format!("n{id}"),
            incarnation: 1,
            version: 1,
            addresses: vec![format!("10.0.0.{id}:1")],
            status: Status::Joined,
            liveness: Liveness::Up,
            seen_ms: 0,
        }
    }

    fn names(changes: &ClusterChanges) -> Vec<String> {
        let parse = |text: &String| serde_json::from_str::<ClusterEvent>(text).unwrap();
        changes.events.iter().map(parse).map(|e| format!("{} {}", e.event, e.member.name)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn feed_tells_each_change_once_and_says_when_some_were_missed() {
        let feed = Feed::new();
        let soon = || Instant::now() + Duration::from_secs(1);
        let start = feed.follow(None, 10, Instant::now()).await.unwrap();
        assert!(start.events.is_empty() && !start.lagged);

        let one = Cluster::alone(member(1));
        let mut two = one.clone();
        two.members.insert(NodeId([2; 16]), member(2));
        let mut down = two.clone();
        let second = down.members.get_mut(&NodeId([2; 16])).unwrap();
        (second.liveness, second.addresses) = (Liveness::Down, vec!["10.0.0.9:1".into()]);
        let mut evicted = down.clone();
        evicted.members.get_mut(&NodeId([2; 16])).unwrap().status = Status::Evicted;

        let waiting = tokio::spawn(feed.follow(Some(start.position.clone()), 10, soon()));
        tokio::task::yield_now().await;
        feed.note(&one, &two, 5);
        let first = waiting.await.unwrap().unwrap();
        assert_eq!(names(&first), ["member_joined n2"]);
        feed.note(&two, &two, 6);
        feed.note(&two, &down, 7);
        feed.note(&down, &evicted, 8);
        let next = feed.follow(Some(first.position.clone()), 2, soon()).await.unwrap();
        assert_eq!(names(&next), ["member_down n2", "member_moved n2"]);
        let last = feed.follow(Some(next.position), 2, soon()).await.unwrap();
        assert_eq!(names(&last), ["member_evicted n2"]);
        let none = feed.follow(Some(last.position.clone()), 2, soon()).await.unwrap();
        assert_eq!((none.events.len(), &none.position, none.lagged), (0, &last.position, false));

        // More than is kept, another run, and what is no position.
        for _ in 0..EVENTS_KEPT / 3 + 1 {
            feed.note(&two, &evicted, 9);
        }
        let behind = feed.follow(Some(first.position.clone()), 1, soon()).await.unwrap();
        assert!(behind.lagged && behind.events.len() == 1);
        let other = Feed::new().follow(Some(first.position), 1, soon()).await.unwrap();
        assert!(other.lagged && other.events.is_empty());
        assert!(feed.follow(Some(vec![1]), 1, soon()).await.is_err());
    }
}
