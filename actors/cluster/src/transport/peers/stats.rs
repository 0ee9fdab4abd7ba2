//! What connections with peers have done, for people to look at.

use super::table::channel_number;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use weald_peers::Channel;
use weald_storage::NodeId;

/// Longest text of a failure that is kept, in characters.
const FAILURE_CHARS_MAX: usize = 300;

/// A peer, connected or wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerStats {
    /// Its id.
    pub node: NodeId,
    /// Its name, if it was ever connected.
    pub name: Option<String>,
    /// Whether all its channels are connected.
    pub connected: bool,
    /// Whether it is kept connected.
    pub wanted: bool,
    /// For how many milliseconds it has been connected.
    pub up_ms: Option<u64>,
    /// How often all its channels came to be connected.
    pub connects: u64,
    /// Newest round trip on the control channel, in microseconds.
    pub rtt_us: Option<u64>,
    /// Why a connection was last lost, or could not be made.
    pub last_failure: Option<String>,
    /// Its channels.
    pub channels: Vec<ChannelStats>,
}

/// A channel to a peer, over all its connections since this process has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelStats {
    /// Which one.
    pub channel: Channel,
    /// Connections at the moment.
    pub links: usize,
    /// Frames sent; queued, to be exact.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that were refused because too much waited.
    pub overflow: u64,
    /// Bytes that wait now.
    pub waiting_bytes: usize,
}

/// Counters of one channel.
#[derive(Debug, Default)]
pub(super) struct ChannelCounters {
    frames_out: AtomicU64,
    bytes_out: AtomicU64,
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
    overflow: AtomicU64,
}

/// Counters of one peer.
#[derive(Debug, Default)]
pub(super) struct Counters {
    channels: [ChannelCounters; 3],
    connects: AtomicU64,
    /// Microseconds plus one; 0: none yet.
    rtt_us: AtomicU64,
    named: Mutex<Named>,
}

#[derive(Debug, Default)]
struct Named {
    name: Option<String>,
    failure: Option<String>,
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl ChannelCounters {
    pub(super) fn sent(&self, bytes: usize) {
        self.frames_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(count(bytes), Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(count(bytes), Ordering::Relaxed);
    }

    pub(super) fn overflowed(&self) {
        self.overflow.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames from and to the peer.
    pub(super) fn frames(&self) -> u64 {
        self.frames_out.load(Ordering::Relaxed).wrapping_add(self.frames_in.load(Ordering::Relaxed))
    }

    fn stats(&self, channel: Channel, links: usize, waiting_bytes: usize) -> ChannelStats {
        ChannelStats {
            channel,
            links,
            frames_out: self.frames_out.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            frames_in: self.frames_in.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            overflow: self.overflow.load(Ordering::Relaxed),
            waiting_bytes,
        }
    }
}

impl Counters {
    pub(super) fn channel(&self, channel: Channel) -> &ChannelCounters {
        let [control, data, relay] = &self.channels;
        match channel_number(channel) {
            0 => control,
            1 => data,
            _ => relay,
        }
    }

    pub(super) fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn round_trip(&self, us: u64) {
        self.rtt_us.store(us.saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn named(&self, name: &str) {
        self.lock().name = Some(name.to_owned());
    }

    pub(super) fn failed(&self, why: &str) {
        self.lock().failure = Some(why.chars().take(FAILURE_CHARS_MAX).collect());
    }

    /// A channel's figures; with the bytes that wait on each of its connections.
    pub(super) fn channel_stats(&self, channel: Channel, waiting: &[usize]) -> ChannelStats {
        self.channel(channel).stats(channel, waiting.len(), waiting.iter().sum())
    }

    /// The peer's own figures, without its channels.
    pub(super) fn stats(&self, node: NodeId) -> PeerStats {
        let named = self.lock();
        PeerStats {
            node,
            name: named.name.clone(),
            connected: false,
            wanted: false,
            up_ms: None,
            connects: self.connects.load(Ordering::Relaxed),
            rtt_us: self.rtt_us.load(Ordering::Relaxed).checked_sub(1),
            last_failure: named.failure.clone(),
            channels: Vec::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Named> {
        // Nothing panics while it is held.
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
