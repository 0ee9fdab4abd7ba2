//! Every bound of the wire, in one place. A peer that goes over one gets an error that names it.

/// Largest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// Largest value, in bytes (4 MiB).
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Longest table name, in bytes.
pub const TABLE_BYTES_MAX: usize = 64;
/// Longest name of a named actor, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest key of messages of which the newest counts, in bytes.
pub const MONOTONIC_KEY_BYTES_MAX: usize = 255;
/// Largest body of one frame, in bytes (8 MiB).
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Most write operations in one batch request.
pub const BATCH_OPS_MAX: usize = 1024;
/// Most items in one page of a scan, and names in one answer.
pub const PAGE_ITEMS_MAX: usize = 1000;
/// Most bytes of keys and values in one page of a scan (1 MiB); a page holds at least one item.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Most changes in one reply to [`crate::request::Watch`].
pub const CHANGES_MAX: usize = 1000;
/// Longest wait of a long poll, in milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;
/// Longest time of one exchange that a client asks for, in milliseconds.
pub const EXCHANGE_MS_MAX: u64 = 600_000;
/// Largest session token, in bytes: 1,024 partitions, both spaces, a few actors each, about 24 bytes an actor. // guess
pub const TOKEN_BYTES_MAX: usize = 256 << 10;
/// Most addresses in one request to join.
pub const JOIN_ADDRESSES_MAX: usize = 64;
/// Most requests of one client in flight; more are answered `Overloaded`.
pub const IN_FLIGHT_MAX: usize = 1024;
/// Largest handshake message, in bytes.
pub const HELLO_BYTES_MAX: usize = 1024;
/// Largest handshake message of a node, in bytes: it carries addresses and capabilities.
pub const NODE_HELLO_BYTES_MAX: usize = 4096;
/// Most addresses at which a node says it listens.
pub const ADDRESSES_MAX: usize = 8; // guess
/// Longest address, in bytes: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 260;
/// Most capabilities that a node names.
pub const CAPABILITIES_MAX: usize = 32; // guess
/// Longest name of a capability, in bytes.
pub const CAPABILITY_BYTES_MAX: usize = 32; // guess
/// Most lanes of one channel.
pub const LANES_MAX: u8 = 16; // guess
/// Time a peer has for the whole handshake, in milliseconds.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;
