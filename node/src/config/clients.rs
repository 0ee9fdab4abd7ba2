//! What holds for each WAMP client, whichever port it comes by: limits of messages, time, and memory.

use super::keys::{Key, count, word};
use super::value::{Value, show_bytes, show_duration};
use std::ops::RangeInclusive;
use std::time::Duration;
use weald_transports::Policy;

/// Section `clients`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clients {
    /// Connections of all ports.
    pub(crate) connections_max: usize,
    /// Connections of one port.
    pub(crate) port_connections_max: usize,
    /// Handshakes of one port at a time.
    pub(crate) handshakes_max: usize,
    /// Time for a handshake, and to join.
    pub(crate) handshake_timeout: Duration,
    /// Time to answer GOODBYE.
    pub(crate) goodbye_timeout: Duration,
    /// Silence before a ping; 0: none.
    pub(crate) ping_interval: Duration,
    /// Whether RawSocket clients are pinged.
    pub(crate) rawsocket_pings: bool,
    /// Time to answer a ping.
    pub(crate) ping_timeout: Duration,
    /// Bytes of a message.
    pub(crate) message_size: u64,
    /// Levels of a message.
    pub(crate) message_depth: usize,
    /// Values in a message.
    pub(crate) message_values: usize,
    /// What to do with a client that does not read.
    pub(crate) slow: Policy,
    /// Bytes that wait for one client.
    pub(crate) queue_size: u64,
    /// How long a client may take nothing.
    pub(crate) queue_timeout: Duration,
    /// Bytes that wait for all clients that take nothing.
    pub(crate) queues_size: u64,
}

impl Default for Clients {
    fn default() -> Self {
        let egress = weald_transports::EgressConfig::default();
        let limits = weald_wamp::Limits::default();
        let router = weald_router::router::Settings::default();
        Self {
            connections_max: 200_000, // guess: both ports full
            port_connections_max: 100_000,
            handshakes_max: 1_024,
            handshake_timeout: router.handshake_timeout,
            goodbye_timeout: router.goodbye_timeout,
            ping_interval: Duration::from_secs(30), // guess
            rawsocket_pings: false, // measured: autobahn for asyncio fails at a ping
            ping_timeout: Duration::from_secs(20), // guess
            message_size: limits.message_bytes as u64,
            message_depth: limits.depth,
            message_values: limits.elements,
            slow: egress.policy,
            queue_size: egress.queue_bytes_max as u64,
            queue_timeout: egress.stuck_max,
            queues_size: egress.budget_bytes as u64,
        }
    }
}

const SLOW: &[(&str, Policy)] = &[("disconnect", Policy::Disconnect), ("drop", Policy::DropEvents)];
/// RawSocket announces no less than the one and frames no more than the other.
const MESSAGE_SIZES: RangeInclusive<u64> = 512..=(16 << 20);
const QUEUE_SIZES: RangeInclusive<u64> = (4 << 10)..=(1 << 40);
const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;

fn seconds(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

/// From a moment to an hour.
fn moments() -> RangeInclusive<Duration> {
    Duration::from_millis(100)..=Duration::from_secs(3600)
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "clients.connections_max",
        doc: "Connections of all ports together, from 1 to 1000000; one more is refused with the reason.",
        get: |c| count(c.clients.connections_max),
        set: |c, v| v.count(&CONNECTIONS).map(|n| c.clients.connections_max = n),
    },
    Key {
        path: "clients.port_connections_max",
        doc: "Connections of each port, from 1 to 1000000.",
        get: |c| count(c.clients.port_connections_max),
        set: |c, v| v.count(&CONNECTIONS).map(|n| c.clients.port_connections_max = n),
    },
    Key {
        path: "clients.handshakes_max",
        doc: "Connections of each port that are not through their handshake, from 1 to 100000; of more, the\n\
              oldest is cut.",
        get: |c| count(c.clients.handshakes_max),
        set: |c, v| v.count(&(1..=100_000)).map(|n| c.clients.handshakes_max = n),
    },
    Key {
        path: "clients.handshake_timeout",
        doc: "Time for each step of a connection's handshake, and then to join a realm, from 100ms to 1h.",
        get: |c| Value::Text(show_duration(c.clients.handshake_timeout)),
        set: |c, v| v.duration(&moments()).map(|d| c.clients.handshake_timeout = d),
    },
    Key {
        path: "clients.goodbye_timeout",
        doc: "Time a client has to answer GOODBYE when this node stops or its session is ended, from 0s to 1h.\n\
              At most half of node.shutdown_timeout counts. After it the connection is closed all the same.",
        get: |c| Value::Text(show_duration(c.clients.goodbye_timeout)),
        set: |c, v| v.duration(&seconds(0, 3600)).map(|d| c.clients.goodbye_timeout = d),
    },
    Key {
        path: "clients.ping_interval",
        doc: "A client that was silent for so long is asked whether it is there, from 100ms to 1h; 0s: never.\n\
              Its WebSocket is sent a ping, and TCP asks its machine.",
        get: |c| Value::Text(show_duration(c.clients.ping_interval)),
        set: |c, v| v.duration_or_zero(&moments()).map(|d| c.clients.ping_interval = d),
    },
    Key {
        path: "clients.rawsocket_pings",
        doc: "Whether RawSocket clients are sent pings, too. autobahn for asyncio takes none and fails; without\n\
              pings TCP finds out whose machine is gone.",
        get: |c| Value::Bool(c.clients.rawsocket_pings),
        set: |c, v| v.bool().map(|truth| c.clients.rawsocket_pings = truth),
    },
    Key {
        path: "clients.ping_timeout",
        doc: "Time it has to be heard of then, from 100ms to 1h; after it the connection is cut.",
        get: |c| Value::Text(show_duration(c.clients.ping_timeout)),
        set: |c, v| v.duration(&moments()).map(|d| c.clients.ping_timeout = d),
    },
    Key {
        path: "clients.message_size",
        doc: "Size of a message that a client may send, from 512B to 16MiB; a longer one ends the connection.\n\
              RawSocket clients are told the power of two at or below it.",
        get: |c| Value::Text(show_bytes(c.clients.message_size)),
        set: |c, v| v.bytes(&MESSAGE_SIZES).map(|n| c.clients.message_size = n),
    },
    Key {
        path: "clients.message_depth",
        doc: "Levels of lists and maps inside each other in a message, from 8 to 256; more are a violation of\n\
              the protocol.",
        get: |c| count(c.clients.message_depth),
        set: |c, v| v.count(&(8..=256)).map(|n| c.clients.message_depth = n),
    },
    Key {
        path: "clients.message_values",
        doc: "Values in a message, keys, lists and maps counted, from 256 to 16777216; more are a violation.",
        get: |c| count(c.clients.message_values),
        set: |c, v| v.count(&(256..=1 << 24)).map(|n| c.clients.message_values = n),
    },
    Key {
        path: "clients.slow",
        doc: "What to do with a client that does not read what it is sent: \"disconnect\", or \"drop\" events\n\
              until it does (anything else that finds no room ends its connection still).",
        get: |c| Value::Text(word(SLOW, c.clients.slow)),
        set: |c, v| v.choice(SLOW).map(|slow| c.clients.slow = slow),
    },
    Key {
        path: "clients.queue_size",
        doc: "Bytes that may wait for one client, from 4KiB to 1TiB; a single message has always room.",
        get: |c| Value::Text(show_bytes(c.clients.queue_size)),
        set: |c, v| v.bytes(&QUEUE_SIZES).map(|n| c.clients.queue_size = n),
    },
    Key {
        path: "clients.queue_timeout",
        doc: "How long a client may take nothing while something waits for it, from 100ms to 1h.",
        get: |c| Value::Text(show_duration(c.clients.queue_timeout)),
        set: |c, v| v.duration(&moments()).map(|d| c.clients.queue_timeout = d),
    },
    Key {
        path: "clients.queues_size",
        doc: "Bytes that may wait for all clients together that take nothing, from 4KiB to 1TiB; when there are\n\
              more, those with the longest queues are disconnected.",
        get: |c| Value::Text(show_bytes(c.clients.queues_size)),
        set: |c, v| v.bytes(&QUEUE_SIZES).map(|n| c.clients.queues_size = n),
    },
];
