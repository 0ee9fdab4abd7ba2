//! What a client may ask a node, and what comes back.
//!
//! Each request is a struct of its own with a kind of its own; a changed request is a new struct with a new kind, and old
//! kinds stay. A reply has the kind of its request with the top bit set, an error the kind [`kind::ERROR`]. Bodies are
//! postcard. Two requests are long polls ([`Watch`], [`Log`]): the node answers when there is something new or when the
//! wait is over, so a slow reader is never pushed at and a lost connection loses nothing.

use crate::error::{Current, WireError};
use crate::frame::Frame;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A request: a body with a kind, and the type of its reply.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// The number of this request on the wire; never reused.
    const KIND: u16;
    /// What a node answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $kind:literal -> $reply:ty { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? })*) => {
        /// The kinds, as numbers on the wire.
        pub mod kind {
            /// Set on the kind of a reply.
            pub const REPLY: u16 = 0x8000;
            /// The kind of an error reply; its body is a [`crate::WireError`].
            pub const ERROR: u16 = 0xFFFF;
        }
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
            impl Call for $name {
                const KIND: u16 = $kind;
                type Reply = $reply;
            }
            impl From<$name> for Request {
                fn from(call: $name) -> Self { Self::$name(call) }
            }
        )*
        /// Any request.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Request { $( #[doc = concat!("See [`", stringify!($name), "`].")] $name($name) ),* }
        impl Request {
            /// Its number on the wire.
            #[must_use]
            pub fn kind(&self) -> u16 { match self { $( Self::$name(_) => $kind ),* } }
            /// Its name, for logs and metrics.
            #[must_use]
            pub fn name(&self) -> &'static str { match self { $( Self::$name(_) => stringify!($name) ),* } }
            /// Reads the request in a frame.
            ///
            /// # Errors
            /// [`DecodeError::UnknownKind`] and [`DecodeError::Body`].
            pub fn decode(kind: u16, body: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $( $kind => body_of::<$name>(kind, body).map(Self::$name), )*
                    _ => Err(DecodeError::UnknownKind { kind }),
                }
            }
        }
    };
}

/// Why a frame is not a request or reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A kind that this release does not know.
    #[error("unknown kind {kind:#06x}")]
    UnknownKind {
        /// The number.
        kind: u16,
    },
    /// The body does not fit its kind.
    #[error("malformed body of kind {kind:#06x}: {reason}")]
    Body {
        /// The number.
        kind: u16,
        /// What the decoder said.
        reason: String,
    },
}

fn body_of<T: DeserializeOwned>(kind: u16, body: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes::<T>(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => {
            Err(DecodeError::Body { kind, reason: format!("{} bytes after its end", rest.len()) })
        }
        Err(e) => Err(DecodeError::Body { kind, reason: e.to_string() }),
    }
}

requests! {
    /// Reads a key.
    Get = 1 -> Current {
        /// Table name.
        table: String,
        /// Key, 1 to 4,096 bytes.
        key: Vec<u8>,
    }
    /// Writes a key.
    Put = 2 -> Written {
        /// Table name; a table never declared is created durable with `lww`.
        table: String,
        /// Key.
        key: Vec<u8>,
        /// Value, at most 4 MiB.
        value: Vec<u8>,
        /// The context read before; none overwrites whatever this node knows.
        context: Option<Vec<u8>>,
        /// Time to live in milliseconds; none takes the table's default.
        ttl_ms: Option<u64>,
    }
    /// Compare-and-set on this node's replica.
    PutIf = 3 -> Written {
        /// Table name.
        table: String,
        /// Key.
        key: Vec<u8>,
        /// Value.
        value: Vec<u8>,
        /// The context that must be stored now; none: the key must be absent.
        expected: Option<Vec<u8>>,
        /// Time to live in milliseconds.
        ttl_ms: Option<u64>,
    }
    /// Deletes a key.
    Delete = 4 -> Written {
        /// Table name.
        table: String,
        /// Key.
        key: Vec<u8>,
        /// The context read before; none deletes whatever this node knows.
        context: Option<Vec<u8>>,
    }
    /// Several writes. Each stands alone: the reply has one result per operation, in order.
    Batch = 5 -> Vec<Result<Written, WireError>> {
        /// At most 1,024 operations.
        ops: Vec<Op>,
    }
    /// One page of a range, in key order.
    Scan = 6 -> Page {
        /// Table name.
        table: String,
        /// Only keys that start with this.
        prefix: Vec<u8>,
        /// First key, included; none: from the start.
        from: Option<Vec<u8>>,
        /// Last key, excluded; none: to the end.
        to: Option<Vec<u8>>,
        /// The token of the page before; overrides `from`.
        token: Option<Vec<u8>>,
        /// Most items, 1 to 1,000.
        limit: u32,
        /// Leave the values out.
        keys_only: bool,
    }
    /// Changes after a position; a long poll.
    Watch = 7 -> Changes {
        /// Only this table; none: all tables.
        table: Option<String>,
        /// Only keys that start with this.
        prefix: Vec<u8>,
        /// The position of the reply before; none: from now on.
        position: Option<Vec<u8>>,
        /// Most changes, 1 to 1,000.
        limit: u32,
        /// How long to wait for the first change, in milliseconds, at most 30,000.
        wait_ms: u64,
    }
    /// Declares a table or reads back its declaration unchanged.
    DeclareTable = 8 -> Table {
        /// The declaration.
        table: Table,
    }
    /// All tables.
    Tables = 9 -> Vec<Table> {}
    /// Reads a key in a session: this replica first catches up with what the session has seen, or says that it has not.
    GetWith = 10 -> Seen {
        /// Table name.
        table: String,
        /// Key.
        key: Vec<u8>,
        /// What the session has seen; none: nothing yet.
        token: Option<Vec<u8>>,
        /// How long to wait for it, in milliseconds, at most 30,000; then [`crate::ErrorCode::NotCaughtUp`].
        wait_ms: u64,
    }
    /// Writes in a session, or until other members have the write, or both.
    WriteWith = 11 -> WrittenWith {
        /// The write.
        op: Op,
        /// What the session has seen; none: nothing yet. The write follows it in causal order.
        token: Option<Vec<u8>>,
        /// How long to wait, in milliseconds, at most 30,000: for the token (then nothing is written and the answer is
        /// [`crate::ErrorCode::NotCaughtUp`]), and for the members of `concern` (then the reply says how many had it).
        wait_ms: u64,
        /// How many other members must have made the write durable before the reply; 0: this node's own disk is enough.
        concern: u8,
    }
    /// Waits until this replica has what a session has seen, for reads that carry no token, such as [`Scan`].
    CatchUp = 12 -> () {
        /// What the session has seen.
        token: Vec<u8>,
        /// How long to wait, in milliseconds, at most 30,000; then [`crate::ErrorCode::NotCaughtUp`].
        wait_ms: u64,
    }
    /// Looks a named actor up.
    Whereis = 16 -> Option<Named> {
        /// Its name.
        name: String,
    }
    /// Registers a name for an actor of this client; the name is free again when the client's connection ends.
    Register = 17 -> Named {
        /// Its name, 1 to 255 bytes.
        name: String,
    }
    /// Gives a name back.
    Unregister = 18 -> () {
        /// Its name.
        name: String,
    }
    /// Names that start with a prefix, at most 1,000.
    Names = 19 -> Vec<Named> {
        /// The prefix; empty for all.
        prefix: String,
    }
    /// Sends a message to a named actor. The reply comes when the actor's process has it in its mailbox (`reply: false`),
    /// or when the actor has answered (`reply: true`).
    SendTo = 20 -> Vec<u8> {
        /// The actor's name.
        name: String,
        /// The message; its encoding is between sender and receiver.
        payload: Vec<u8>,
        /// Wait for an answer.
        reply: bool,
        /// Time for it, in milliseconds.
        timeout_ms: u64,
    }
    /// From node to client: a message for an actor the client has registered. Answered like a request.
    Deliver = 21 -> Vec<u8> {
        /// The name it was sent to.
        name: String,
        /// The message.
        payload: Vec<u8>,
        /// Whether the sender waits for the actor's answer.
        reply: bool,
    }
    /// As [`SendTo`] without an answer, delivered as asked for.
    SendWith = 22 -> () {
        /// The actor's name.
        name: String,
        /// The message; its encoding is between sender and receiver.
        payload: Vec<u8>,
        /// Time for it, in milliseconds.
        timeout_ms: u64,
        /// How it is to be delivered.
        delivery: Delivery,
    }
    /// From node to client: a name that the client had registered is another's now, as that one has had it for longer on a node
    /// that was out of reach. The client need not give it back.
    Lost = 23 -> () {
        /// The name.
        name: String,
        /// The node of the client that keeps it.
        node: String,
        /// That client.
        owner: String,
        /// Since when it has it, unix milliseconds.
        since_ms: u64,
    }
    /// The supervision tree; see [`crate::supervision::TreeNode`]. JSON text.
    Tree = 32 -> String {
        /// The subtree under this path; empty for the whole.
        path: String,
    }
    /// Records of the supervision log, oldest first; a long poll when `wait_ms` is not 0.
    Log = 33 -> LogPage {
        /// Only this path and those below it.
        path: Option<String>,
        /// Only these events; empty for all.
        events: Vec<String>,
        /// Only records at or after this unix time in milliseconds.
        since_ms: Option<u64>,
        /// Only records after this sequence number.
        after_seq: Option<u64>,
        /// At most so many, up to 1,000: with `after_seq` the oldest of those found, so that nothing is left out between two
        /// calls; without it the newest.
        limit: u32,
        /// How long to wait for a record, in milliseconds, at most 30,000.
        wait_ms: u64,
    }
    /// Kills an actor, for drills; its supervisor restarts it.
    Kill = 34 -> () {
        /// Its path in the tree.
        path: String,
    }
    /// The node's state. JSON text.
    Status = 35 -> String {}
    /// Changes the log level at run time.
    SetLogLevel = 36 -> () {
        /// Filter directives, as `info,weald_storage=debug`.
        directives: String,
    }
    /// Creates a client credential. The reply is the only copy of its secret.
    AddClient = 48 -> Credential {
        /// Its name.
        name: String,
        /// What it may do.
        role: ClientRole,
    }
    /// Takes a client credential away and cuts its connections.
    RemoveClient = 49 -> () {
        /// Its name.
        name: String,
    }
    /// All client credentials, without secrets.
    Clients = 50 -> Vec<ClientInfo> {}
    /// The members of the cluster as this node knows them. JSON text; see [`crate::cluster::Members`].
    Members = 64 -> String {}
    /// Makes this node join the cluster of the nodes at these addresses. JSON text as [`Members`], after the join.
    Join = 65 -> String {
        /// Their cluster ports, `host:port`; one that answers is enough.
        addresses: Vec<String>,
        /// How long to wait for it, in milliseconds, at most 30,000.
        wait_ms: u64,
    }
    /// Makes this node leave its cluster: others have its data first. JSON text as [`Members`], after it.
    Leave = 66 -> String {
        /// How long to wait until another member has all of this node's writes, in milliseconds, at most 30,000.
        wait_ms: u64,
    }
    /// Removes another member for good: it is refused from then on. JSON text as [`Members`], after it.
    Forget = 67 -> String {
        /// Its name or node id.
        member: String,
        /// Also when it answers at the moment.
        force: bool,
    }
    /// The cluster and its connections as this node sees them. JSON text; see [`crate::cluster::ClusterStatus`].
    ClusterStatus = 68 -> String {}
    /// What happened to the membership; a long poll.
    ClusterEvents = 69 -> ClusterChanges {
        /// The position of the reply before; none: from now on.
        position: Option<Vec<u8>>,
        /// Most events, 1 to 1,000.
        limit: u32,
        /// How long to wait for the first, in milliseconds, at most 30,000.
        wait_ms: u64,
    }
    /// How far anti-entropy is with each peer. JSON text; see [`crate::cluster::AaeStatus`].
    AaeStatus = 80 -> String {}
    /// Exchanges with a peer now and waits for the end. JSON text; see [`crate::cluster::AaeReport`].
    AaeRun = 81 -> String {
        /// Its name or node id.
        peer: String,
        /// How long it may take, in milliseconds, at most 600,000.
        wait_ms: u64,
    }
    /// Compares with a peer and changes nothing. JSON text; see [`crate::cluster::AaeDiff`].
    AaeDiff = 82 -> String {
        /// Its name or node id.
        peer: String,
        /// How long it may take, in milliseconds, at most 600,000.
        wait_ms: u64,
    }
}

/// How a message to a named actor is delivered; new ones only at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// Sent once. The reply comes when the actor's process has it in its mailbox.
    BestEffort,
    /// Sent again over links that break, until the time is over, and delivered once. The reply is as for best effort.
    Acknowledged,
    /// Of the messages of a key that wait for their node, the newest is delivered. The reply comes when it is on its way or
    /// waits.
    Monotonic {
        /// What it is about, 1 to 255 bytes.
        key: Vec<u8>,
    },
    /// As acknowledged, after the actor's node has caught up with a session.
    Causal {
        /// What the session has seen.
        token: Vec<u8>,
    },
}

/// What a client may do; each role may do all of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientRole {
    /// Reads, watches, looks up, reads the tree and the log.
    Reader,
    /// Writes, declares tables, registers names, sends to actors.
    Writer,
    /// Kills actors, changes the log level, manages clients.
    Operator,
}

/// A client's credential: the node keeps only the public half.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Name of the client.
    pub name: String,
    /// Ed25519 seed, 32 bytes.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A client as the node lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: ClientRole,
    /// Connections open now.
    pub connections: u32,
}

/// One operation of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// See [`Put`].
    Put(Put),
    /// See [`PutIf`].
    PutIf(PutIf),
    /// See [`Delete`].
    Delete(Delete),
}

/// An acknowledged write: durable as the table promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The context after the write.
    pub context: Vec<u8>,
}

/// The reply to a [`GetWith`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What is stored.
    pub current: Current,
    /// What the session has seen now. Opaque: of use to the nodes of the same cluster only.
    pub token: Vec<u8>,
}

/// The reply to a [`WriteWith`]: the write is durable on this node, whatever `acked` says, and is not undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenWith {
    /// The context after the write.
    pub context: Vec<u8>,
    /// What the session has seen now.
    pub token: Vec<u8>,
    /// How many other members are known to have made it durable. Fewer than asked for: the wait was over first.
    pub acked: u8,
}

/// The reply to [`ClusterEvents`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterChanges {
    /// JSON text, one each; see [`crate::cluster::ClusterEvent`].
    pub events: Vec<String>,
    /// Hand this back to go on.
    pub position: Vec<u8>,
    /// Events before these were lost, or the node has restarted since: look at [`Members`] again.
    pub lagged: bool,
}

/// One page of a [`Scan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The items, ascending by key.
    pub items: Vec<Item>,
    /// The token of the next page; none: this was the last.
    pub next: Option<Vec<u8>>,
    /// Damaged records in the range that are not served.
    pub corrupt: u64,
}

/// A key with what is stored under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Vec<u8>,
    /// Its live values; none with `keys_only`.
    pub values: Vec<Vec<u8>>,
    /// The context to hand back with a write.
    pub context: Vec<u8>,
}

/// The reply to a [`Watch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Changes in the order of each partition; a key changed several times may appear once, with its newest state.
    pub events: Vec<Change>,
    /// Hand this back to go on.
    pub position: Vec<u8>,
    /// Changes before this reply were trimmed from the log unread: scan again to see the state as it is.
    pub lagged: bool,
}

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Partition of the key.
    pub partition: u16,
    /// Sequence number in that partition.
    pub seq: u64,
    /// Table name.
    pub table: String,
    /// The key.
    pub key: Vec<u8>,
    /// What is stored now; no values: deleted or expired.
    pub now: Current,
}

/// A table's declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub kind: TableKind,
    /// How siblings are resolved: `lww`, `siblings`, or `merge:<function>`.
    pub resolver: String,
    /// Time to live of keys written without one, in milliseconds.
    pub ttl_ms: Option<u64>,
}

/// Where a table lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// In LMDB: survives restarts.
    Durable,
    /// In memory: gone with the process.
    Memory,
}

/// A registered name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The node that holds it.
    pub node: String,
    /// The client it belongs to, or `node` for an actor of the node itself.
    pub owner: String,
    /// Since when, unix milliseconds.
    pub since_ms: u64,
}

/// The reply to [`Log`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Records as JSON text, one each; see [`crate::supervision::LogRecord`].
    pub records: Vec<String>,
    /// Where to go on, for `after_seq`: everything up to here is in this reply or does not match.
    pub last_seq: u64,
}

/// A reply as it travels.
pub type Reply<T> = Result<T, WireError>;

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Writing to a Vec fails only for types without a known length, of which there is none here.
    postcard::to_stdvec(value).unwrap_or_default()
}

/// The frame of a request.
#[must_use]
pub fn request_frame<C: Call>(corr: u64, call: &C) -> Frame {
    Frame { kind: C::KIND, corr, body: encode(call) }
}

/// The frame of a reply to a `C`.
#[must_use]
pub fn reply_frame<C: Call>(corr: u64, reply: &Reply<C::Reply>) -> Frame {
    match reply {
        Ok(value) => Frame { kind: C::KIND | kind::REPLY, corr, body: encode(value) },
        Err(e) => error_frame(corr, e),
    }
}

/// The frame of an error.
#[must_use]
pub fn error_frame(corr: u64, error: &WireError) -> Frame {
    Frame { kind: kind::ERROR, corr, body: encode(error) }
}

/// Reads the reply to a `C`.
///
/// # Errors
/// [`DecodeError`] when the frame is neither the reply to a `C` nor an error.
pub fn decode_reply<C: Call>(frame: &Frame) -> Result<Reply<C::Reply>, DecodeError> {
    if frame.kind == kind::ERROR {
        return body_of::<WireError>(frame.kind, &frame.body).map(Err);
    }
    if frame.kind == C::KIND | kind::REPLY {
        return body_of::<C::Reply>(frame.kind, &frame.body).map(Ok);
    }
    Err(DecodeError::UnknownKind { kind: frame.kind })
}

#[cfg(test)]
#[path = "request_test.rs"]
mod tests;
