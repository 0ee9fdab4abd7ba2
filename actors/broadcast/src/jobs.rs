//! What the actor has others do, because it reads the store or touches many bytes: each job ends with a message to it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use tokio::task::spawn_blocking;
use weald_peers::{Channel, Dots, Permit, SendError, WireDelta};
use weald_proto::Frame;
use weald_storage::{Clock, Dot, NodeId, ReadError};

use crate::actor::Msg;
use crate::dots::{difference, missing};
use crate::handle::{Shared, Stream, Totals};
use crate::messages::{Announcement, EVENTS_MAX, GOSSIP, GOSSIP_BYTES, Gossip, dots_of};
use crate::source::MergeFailure;

/// Dots of a graft that are looked up at once. // guess
const ANSWER_DOTS: usize = 256;

/// A gossip as it waits to be merged.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) from: NodeId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) permit: Permit,
}

/// A gossip that was merged.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) from: NodeId,
    pub(crate) root: NodeId,
    pub(crate) round: u16,
    pub(crate) fresh: Dots,
    pub(crate) duplicate: Dots,
    /// The gossip with what was fresh.
    pub(crate) bytes: Vec<u8>,
}

/// Events of this node, ready to be pushed.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) dots: Dots,
    pub(crate) bytes: Vec<u8>,
}

/// What a read of new events has found.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) batches: Vec<Batch>,
    pub(crate) more: bool,
}

/// Does `work` on a thread that may block and sends what it says. A panic ends the actor, which waits for the message.
fn job(
    shared: &Arc<Shared>,
    generation: u64,
    work: impl FnOnce(&Arc<Shared>) -> Msg + Send + 'static,
) {
    let shared = Arc::clone(shared);
    // The thread says itself what it has found: a task that waits for it would be one more to wake, for each commit.
    spawn_blocking(move || {
        let message = catch_unwind(AssertUnwindSafe(|| work(&shared)));
        shared.cast(message.unwrap_or(Msg::Broken { generation }));
    });
}

/// Reads what was committed since the last read.
pub(crate) fn read(shared: &Arc<Shared>, generation: u64, number: u16, stream: &Arc<Stream>) {
    let stream = Arc::clone(stream);
    job(shared, generation, move |shared| {
        // Before the read: what is committed after it says so again.
        stream.is_dirty.store(false, Ordering::Release);
        let (read, pushed) = read_now(shared, number, &stream).unwrap_or_else(|error| {
            Totals::add(&shared.totals.read_failures, 1);
            tracing::warn!(
                event = "broadcast_read_failed",
                stream = number,
                %error,
                "new events cannot be read: they are left to the exchange or the next commit"
            );
            (Read::default(), stream.pushed())
        });
        Msg::Read { generation, stream: number, read, pushed }
    });
}

type Pushed = (weald_storage::Actor, u64);

fn read_now(shared: &Shared, number: u16, stream: &Stream) -> Result<(Read, Pushed), ReadError> {
    let (mut actor, mut after) = stream.pushed();
    let now = stream.source.actor();
    let mut found = stream.source.after(&actor, after, GOSSIP_BYTES)?;
    if now != actor && found.events.is_empty() && !found.more {
        // The old incarnation's last events are out: the new one's are next.
        (actor, after) = (now, 0);
        found = stream.source.after(&actor, after, GOSSIP_BYTES)?;
    }
    let more = found.more || now != actor;
    let last = found.last.unwrap_or(after).max(after);
    let mut batches = Vec::new();
    let mut events = found.events;
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(EVENTS_MAX));
        let gossip = Gossip { root: shared.own, round: 0, stream: number, events };
        events = rest;
        let dots = gossip.dots();
        match gossip.encode() {
            Ok(bytes) => batches.push(Batch { dots, bytes }),
            Err(_too_large_for_memory) => Totals::add(&shared.totals.read_failures, 1),
        }
    }
    Ok((Read { batches, more }, (actor, last)))
}

/// Merges gossips of one stream, in order, and says what each has brought.
pub(crate) fn merge(
    shared: &Arc<Shared>,
    generation: u64,
    number: u16,
    stream: &Arc<Stream>,
    received: Vec<Received>,
) {
    let (worker, stream) = (Arc::clone(shared), Arc::clone(stream));
    let merging = async move {
        let decoder = Arc::clone(&worker);
        let decoded = spawn_blocking(move || {
            let gossips: Vec<_> =
                received.into_iter().filter_map(|r| decode(&decoder, r)).collect();
            let all = gossips.iter().flat_map(|(_, gossip)| gossip.events.iter().cloned());
            let merging = stream.source.merge(all.collect());
            (gossips, merging)
        });
        let Ok((gossips, merging)) = decoded.await else { return None };
        let mut results = merging.await.into_iter();
        let outcome = |(received, gossip): (Received, Gossip)| {
            let results: Vec<_> = results.by_ref().take(gossip.events.len()).collect();
            outcome_of(&worker, received, gossip, &results)
        };
        Some(gossips.into_iter().map(outcome).collect())
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        shared.cast(match AssertUnwindSafe(merging).catch_unwind().await {
            Ok(Some(merged)) => Msg::Merged { generation, stream: number, merged },
            Ok(None) | Err(_) => Msg::Broken { generation },
        });
    });
}

fn decode(shared: &Shared, received: Received) -> Option<(Received, Gossip)> {
    match Gossip::decode(&received.bytes) {
        Ok(gossip) => Some((received, gossip)),
        Err(error) => {
            Totals::add(&shared.totals.malformed, 1);
            tracing::debug!(event = "broadcast_malformed", peer = %received.from, %error, "a gossip cannot be read");
            None
        }
    }
}

/// Splits a gossip by what has become of its events. Its permit is given back.
fn outcome_of(
    shared: &Shared,
    received: Received,
    gossip: Gossip,
    results: &[Result<bool, MergeFailure>],
) -> Merged {
    let Received { from, bytes, permit } = received;
    let Gossip { root, round, stream, events } = gossip;
    let all = events.len();
    let failed = all - results.iter().filter(|result| result.is_ok()).count();
    if failed > 0 {
        Totals::add(&shared.totals.merge_failures, failed);
        shared.behind.behind(from);
        let first = results.iter().find_map(|result| result.as_ref().err());
        if let Some(suppressed) = shared.logs.admit() {
            tracing::warn!(
                event = "broadcast_merge_failed", peer = %from, failed, first = ?first, suppressed, "events were not merged"
            );
        }
    }
    let (mut fresh, mut duplicate) = (Vec::new(), Vec::new());
    for (event, result) in events.into_iter().zip(results) {
        match result {
            Ok(true) => fresh.push(event),
            Ok(false) => duplicate.push(event),
            Err(_) => {}
        }
    }
    Totals::add(&shared.totals.merged, fresh.len());
    let dots = dots_of(&fresh);
    let duplicate = difference(&dots_of(&duplicate), &dots);
    let bytes = if fresh.len() == all || fresh.is_empty() {
        bytes
    } else {
        Gossip { root, round, stream, events: fresh }.encode().unwrap_or_default()
    };
    drop(permit);
    Merged { from, root, round, fresh: dots, duplicate, bytes }
}

/// Finds out which of the announced events are missing.
pub(crate) fn hear(
    shared: &Arc<Shared>,
    generation: u64,
    from: NodeId,
    items: Vec<Announcement>,
    permit: Permit,
) {
    job(shared, generation, move |shared| {
        let mut clocks = Clocks::default();
        let heard = items
            .into_iter()
            .filter_map(|announced| {
                let clock = clocks.get(shared, announced.stream)?;
                let missing = missing(&announced.dots, clock);
                Some((announced, missing))
            })
            .collect();
        drop(permit);
        Msg::Heard { generation, from, heard }
    });
}

/// Finds out which of the events that are to be asked for have arrived another way.
pub(crate) fn check(shared: &Arc<Shared>, generation: u64, due: Vec<(u16, Dots)>) {
    job(shared, generation, move |shared| {
        let mut clocks = Clocks::default();
        let known = due
            .into_iter()
            .filter_map(|(stream, dots)| {
                let missing = missing(&dots, clocks.get(shared, stream)?);
                Some((stream, difference(&dots, &missing)))
            })
            .collect();
        Msg::Checked { generation, known }
    });
}

/// Clocks of streams, each read once.
#[derive(Default)]
struct Clocks(BTreeMap<u16, Option<Clock>>);

impl Clocks {
    fn get(&mut self, shared: &Shared, stream: u16) -> Option<&Clock> {
        let read = || {
            let clock = shared.streams.get(&stream)?.source.clock();
            if clock.is_err() {
                Totals::add(&shared.totals.read_failures, 1);
            }
            clock.ok()
        };
        self.0.entry(stream).or_insert_with(read).as_ref()
    }
}

/// What a peer has asked for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) to: NodeId,
    pub(crate) root: NodeId,
    pub(crate) round: u16,
    pub(crate) stream: u16,
    pub(crate) dots: Dots,
}

/// Sends what a peer has asked for. `slot` is given back at the end.
pub(crate) fn answer(
    shared: &Arc<Shared>,
    stream: &Arc<Stream>,
    answer: Answer,
    slot: tokio::sync::OwnedSemaphorePermit,
) {
    let (shared, stream) = (Arc::clone(shared), Arc::clone(stream));
    spawn_blocking(move || {
        let to = answer.to;
        match answer_now(&shared, &stream, answer) {
            Ok(true) => {}
            Ok(false) => shared.behind.behind(to),
            Err(_unreadable) => {
                Totals::add(&shared.totals.read_failures, 1);
                shared.behind.behind(to);
            }
        }
        drop(slot);
    });
}

/// Whether all of it was found and taken by the network.
fn answer_now(shared: &Shared, stream: &Stream, answer: Answer) -> Result<bool, ReadError> {
    let Answer { to, root, round, stream: number, dots } = answer;
    let dots: Vec<Dot> = dots.iter().take(crate::config::GRAFT_DOTS_MAX_USIZE).collect();
    let mut is_whole = true;
    for part in dots.chunks(ANSWER_DOTS) {
        let (mut events, unknown) = stream.source.of(part)?;
        is_whole &= unknown.is_empty();
        while !events.is_empty() {
            let rest = events.split_off(fitting(&events));
            let gossip = Gossip { root, round, stream: number, events };
            events = rest;
            let Ok(body) = gossip.encode() else { return Ok(false) };
            let frame = Frame { kind: GOSSIP, corr: 0, body };
            match shared.network.send(to, Channel::Data, u64::from(number), &frame) {
                Ok(()) => {}
                Err(SendError::Full { .. }) => {
                    shared.cast(Msg::Refused { peer: to });
                    return Ok(false);
                }
                Err(_not_sent) => return Ok(false),
            }
        }
    }
    Ok(is_whole)
}

/// How many events go into one gossip; at least one.
fn fitting(events: &[WireDelta]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(EVENTS_MAX).take_while(|event| {
        bytes += event.len_hint();
        bytes <= GOSSIP_BYTES
    });
    fits.count().max(1)
}
