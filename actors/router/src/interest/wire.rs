//! Messages about interest, and their encoding.
//!
//! # Shape
//! Each is the body of a frame; the low byte of the frame's kind says which. A body is a format byte and postcard. Realms of
//! a delta are named once, and rows carry their versions as distances from the base.
//!
//! What it guarantees: what is decoded keeps the bounds and the order of versions; decoding never panics, and allocates no
//! more than a small multiple of the body.
//!
//! What it refuses: trust in what the rows say.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weald_peers::{Malformed, kind};
use weald_proto::Frame;
use weald_storage::NodeId;

use super::ledger::{Part, Versioned};
use super::row::{self, REALM_BYTES_MAX, Row, URI_BYTES_MAX, Value};

/// Kind of a frame with a [`Message::Digest`].
pub const DIGEST: u16 = kind::of(kind::ROUTING, 0x01);
/// Kind of a frame with a [`Message::Pull`].
pub const PULL: u16 = kind::of(kind::ROUTING, 0x02);
/// Kind of a frame with a [`Message::Delta`].
pub const DELTA: u16 = kind::of(kind::ROUTING, 0x03);

/// Kind of a frame with a [`Message::Prune`].
pub const PRUNE: u16 = kind::of(kind::ROUTING, 0x04);

/// The format of all bodies.
const FORMAT: u8 = 2;
/// Most nodes in one digest.
pub const KNOWN_MAX: usize = 4096;
/// Incarnations and versions are below this, so that counting on from one never overflows.
pub const NUMBER_MAX: u64 = 1 << 62;
/// Least bytes of a row.
const ROW_BYTES_MIN: usize = 9;

/// What a node knows of the rows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Whose rows.
    pub origin: NodeId,
    /// In which life of it.
    pub incarnation: u64,
    /// Up to which version.
    pub version: u64,
    /// Sum of the digests of the rows.
    pub digest: u64,
}

/// Rows of a node, from one version to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Whose rows.
    pub origin: NodeId,
    /// In which life of it.
    pub incarnation: u64,
    /// The newest version that the sender has: beyond the part's there is more.
    pub end: u64,
    /// Sum of the digests of all rows at `end`.
    pub digest: u64,
    /// Why it comes.
    pub reason: Reason,
    /// The rows.
    pub part: Part,
}

/// Why rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// They have changed.
    News,
    /// They have changed, and the next part follows without being asked for.
    NewsWithMore,
    /// They were asked for.
    Answer,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Whose rows.
    pub origin: NodeId,
    /// In which life of it; 0: any.
    pub incarnation: u64,
    /// The version that the sender has; 0: nothing.
    pub from: u64,
    /// The version that the ledger had when its rows were first sent from the beginning, if they are not complete yet; 0
    /// otherwise.
    pub begun: u64,
}

/// A message about interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// What the sender knows.
    Digest {
        /// Whether it is the first on this connection: the sender is ready, and answers.
        is_first: bool,
        /// Of which nodes.
        known: Vec<Known>,
    },
    /// Asks for what follows a version.
    Pull(Pull),
    /// Brings rows.
    Delta(Delta),
    /// Asks not to be sent news of a node: they come another way.
    Prune(NodeId),
}

#[derive(Serialize, Deserialize)]
struct WireDigest {
    is_first: bool,
    known: Vec<Known>,
}

#[derive(Serialize, Deserialize)]
struct WireDelta<'a> {
    origin: NodeId,
    incarnation: u64,
    base: u64,
    version: u64,
    end: u64,
    digest: u64,
    reason: u8,
    #[serde(borrow)]
    realms: Vec<&'a str>,
    rows: Vec<WireRow<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireRow<'a> {
    /// Distance from the row before, the first from the base.
    step: u64,
    realm: u32,
    kind: u8,
    policy: u8,
    invoke: u8,
    uri: &'a str,
    count: u64,
    oldest_ms: u64,
    newest_ms: u64,
    cleared_ms: u64,
}

impl Message {
    /// As a frame.
    ///
    /// # Errors
    /// It is larger than a frame may be, which messages of the core are not.
    pub fn encode(&self) -> Result<Frame, Malformed> {
        let (kind, body) = match self {
            Self::Digest { is_first, known } => {
                (DIGEST, to_bytes(&WireDigest { is_first: *is_first, known: known.clone() }))
            }
            Self::Pull(pull) => (PULL, to_bytes(pull)),
            Self::Delta(delta) => (DELTA, to_bytes(&wire_delta(delta))),
            Self::Prune(node) => (PRUNE, to_bytes(node)),
        };
        let body = body.map_err(|e| Malformed::new("message", e.to_string()))?;
        Ok(Frame { kind, corr: 0, body })
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Malformed`], with what is wrong.
    pub fn decode(frame: &Frame) -> Result<Self, Malformed> {
        let body = match frame.body.split_first() {
            Some((&FORMAT, body)) => body,
            Some((format, _)) => {
                return Err(Malformed::new("format", format!("{format} is not known here")));
            }
            None => return Err(Malformed::new("body", "it is empty")),
        };
        match frame.kind {
            DIGEST => digest(body),
            PULL => pull(body),
            DELTA => delta(body).map(Self::Delta),
            PRUNE => of_bytes(body, "prune").map(Self::Prune),
            other => {
                Err(Malformed::new("frame", format!("kind {other:#06x} is not about interest")))
            }
        }
    }
}

/// Whether frames of this kind are about interest.
#[must_use]
pub const fn is_interest(kind: u16) -> bool {
    matches!(kind, DIGEST | PULL | DELTA | PRUNE)
}

fn to_bytes<T: Serialize>(message: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(message, vec![FORMAT])
}

fn of_bytes<'a, T: Deserialize<'a>>(body: &'a [u8], what: &'static str) -> Result<T, Malformed> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(Malformed::new(what, format!("{} bytes are left over", rest.len()))),
        Err(e) => Err(Malformed::new(what, e.to_string())),
    }
}

fn number(what: &'static str, number: u64) -> Result<u64, Malformed> {
    if number < NUMBER_MAX { Ok(number) } else { Err(Malformed::new(what, "it is too large")) }
}

fn wire_delta(delta: &Delta) -> WireDelta<'_> {
    let part = &delta.part;
    let mut realms: Vec<&str> = Vec::new();
    let mut before = part.base;
    let mut rows = Vec::with_capacity(part.rows.len());
    for Versioned { version, row, value } in &part.rows {
        // Neighbours in the order of changes are mostly of one realm, and there are few of them.
        let realm = realms.iter().rposition(|realm| **realm == *row.realm).unwrap_or_else(|| {
            realms.push(&row.realm);
            realms.len() - 1
        });
        rows.push(WireRow {
            step: version.saturating_sub(before),
            realm: u32::try_from(realm).unwrap_or(u32::MAX),
            kind: row::kind::code(row.kind),
            policy: row::policy::code(row.policy),
            invoke: row::invoke::code(value.invoke),
            uri: &row.uri,
            count: value.count,
            oldest_ms: value.oldest_ms,
            newest_ms: value.newest_ms,
            cleared_ms: value.cleared_ms,
        });
        before = *version;
    }
    WireDelta {
        origin: delta.origin,
        incarnation: delta.incarnation,
        base: part.base,
        version: part.version,
        end: delta.end,
        digest: delta.digest,
        reason: match delta.reason {
            Reason::News => 0,
            Reason::NewsWithMore => 1,
            Reason::Answer => 2,
        },
        realms,
        rows,
    }
}

fn digest(body: &[u8]) -> Result<Message, Malformed> {
    let WireDigest { is_first, known } = of_bytes(body, "digest")?;
    if known.len() > KNOWN_MAX {
        return Err(Malformed::new("digest", format!("of {} nodes", known.len())));
    }
    for one in &known {
        number("incarnation", one.incarnation)?;
        number("version", one.version)?;
    }
    Ok(Message::Digest { is_first, known })
}

fn pull(body: &[u8]) -> Result<Message, Malformed> {
    let pull: Pull = of_bytes(body, "pull")?;
    number("incarnation", pull.incarnation)?;
    number("version", pull.from)?;
    number("version", pull.begun)?;
    Ok(Message::Pull(pull))
}

fn delta(body: &[u8]) -> Result<Delta, Malformed> {
    let wire: WireDelta<'_> = of_bytes(body, "delta")?;
    number("incarnation", wire.incarnation)?;
    number("version", wire.end)?;
    if wire.base > wire.version || wire.version > wire.end {
        let order = format!("from {} to {} of {}", wire.base, wire.version, wire.end);
        return Err(Malformed::new("delta", order));
    }
    if wire.version < wire.end && wire.rows.is_empty() {
        return Err(Malformed::new("delta", "it has no rows, and more are to come"));
    }
    let reason = match wire.reason {
        0 => Reason::News,
        1 => Reason::NewsWithMore,
        2 => Reason::Answer,
        other => return Err(Malformed::new("reason", format!("{other} is not known here"))),
    };
    let mut realms: Vec<Arc<str>> = Vec::with_capacity(wire.realms.len());
    for realm in &wire.realms {
        if realm.len() > REALM_BYTES_MAX {
            return Err(Malformed::new("realm", format!("{} bytes", realm.len())));
        }
        realms.push(Arc::from(*realm));
    }
    // What is claimed has been read, so the rows cannot be more than the body has bytes for.
    let mut rows = Vec::with_capacity(wire.rows.len().min(body.len() / ROW_BYTES_MIN));
    let mut before = wire.base;
    for row in wire.rows {
        if row.step == 0 || row.step > wire.version - before {
            let why = format!("row {} is not in the order of versions", rows.len());
            return Err(Malformed::new("delta", why));
        }
        before += row.step;
        rows.push(versioned(before, &row, &realms)?);
    }
    let part = Part { base: wire.base, version: wire.version, rows };
    let WireDelta { origin, incarnation, end, digest, .. } = wire;
    Ok(Delta { origin, incarnation, end, digest, reason, part })
}

fn versioned(
    version: u64,
    wire: &WireRow<'_>,
    realms: &[Arc<str>],
) -> Result<Versioned, Malformed> {
    let unknown = |what, code: u8| Malformed::new(what, format!("{code} is not known here"));
    let realm = usize::try_from(wire.realm).ok().and_then(|index| realms.get(index));
    let realm = realm.ok_or_else(|| Malformed::new("realm", "it is not named"))?;
    if wire.uri.len() > URI_BYTES_MAX {
        return Err(Malformed::new("uri", format!("{} bytes", wire.uri.len())));
    }
    let row = Row {
        realm: Arc::clone(realm),
        kind: row::kind::of(wire.kind).ok_or_else(|| unknown("kind", wire.kind))?,
        uri: Arc::from(wire.uri),
        policy: row::policy::of(wire.policy).ok_or_else(|| unknown("match", wire.policy))?,
    };
    let invoke = row::invoke::of(wire.invoke).ok_or_else(|| unknown("invoke", wire.invoke))?;
    let WireRow { count, oldest_ms, newest_ms, cleared_ms, .. } = *wire;
    let value = Value { invoke, count, oldest_ms, newest_ms, cleared_ms };
    if value.is_gone() && value != Value::GONE {
        return Err(Malformed::new("value", "a row that is gone has more than that"));
    }
    Ok(Versioned { version, row, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Kind;
    use proptest::prelude::*;
    use weald_wamp::message::{InvokePolicy, MatchPolicy};

    fn row() -> impl Strategy<Value = Row> {
        let realm = prop_oneof![Just("r1".to_owned()), "[a-z]{0,9}"];
        (realm, 0..2u8, "[a-z.]{0,20}", 0..3u8).prop_map(|(realm, kind, uri, policy)| Row {
            realm: realm.into(),
            kind: row::kind::of(kind).unwrap(),
            uri: uri.into(),
            policy: row::policy::of(policy).unwrap(),
        })
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::GONE),
            (0..5u8, 1..u64::MAX, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
                |(invoke, count, oldest_ms, newest_ms, cleared_ms)| {
                    let invoke = row::invoke::of(invoke).unwrap();
                    Value { invoke, count, oldest_ms, newest_ms, cleared_ms }
                }
            )
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let node = any::<[u8; 16]>().prop_map(NodeId);
        let known = (node.clone(), 0..NUMBER_MAX, 0..NUMBER_MAX, any::<u64>()).prop_map(
            |(origin, incarnation, version, digest)| Known { origin, incarnation, version, digest },
        );
        let digest = (any::<bool>(), prop::collection::vec(known, 0..9))
            .prop_map(|(is_first, known)| Message::Digest { is_first, known });
        let pull = (node.clone(), 0..NUMBER_MAX, 0..NUMBER_MAX, 0..NUMBER_MAX).prop_map(
            |(origin, incarnation, from, begun)| {
                Message::Pull(Pull { origin, incarnation, from, begun })
            },
        );
        let rows = prop::collection::vec((1..1000u64, row(), value()), 1..20);
        let reason =
            prop_oneof![Just(Reason::News), Just(Reason::NewsWithMore), Just(Reason::Answer)];
        let prune = node.clone().prop_map(Message::Prune);
        let head = (node, 0..NUMBER_MAX, 0..1u64 << 40, any::<u64>(), reason);
        let delta = (head, rows, 0..9u64).prop_map(
            |((origin, incarnation, base, digest, reason), steps, more)| {
                let mut version = base;
                let rows = steps.into_iter().map(|(step, row, value)| {
                    version += step;
                    Versioned { version, row, value }
                });
                let rows = rows.collect();
                let end = version + more;
                let part = Part { base, version, rows };
                Message::Delta(Delta { origin, incarnation, end, digest, reason, part })
            },
        );
        prop_oneof![digest, pull, delta, prune]
    }

    proptest! {
        #[test]
        fn message_round_trips(message in message()) {
            let frame = message.encode().unwrap();
            prop_assert!(is_interest(frame.kind));
            prop_assert_eq!(Message::decode(&frame).unwrap(), message);
        }

        /// What is decoded from damaged bytes keeps the rules, so it can be encoded and decoded again.
        #[test]
        fn decode_of_damaged_bytes_refuses_or_keeps_the_rules(
            message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0..40usize
        ) {
            let mut frame = message.encode().unwrap();
            let index = at.index(frame.body.len());
            frame.body[index] = byte;
            let len = frame.body.len().saturating_sub(cut);
            frame.body.truncate(len);
            if let Ok(decoded) = Message::decode(&frame) {
                let again = decoded.encode().unwrap();
                prop_assert_eq!(Message::decode(&again).unwrap(), decoded);
            }
        }

        #[test]
        fn decode_of_any_bytes_does_not_panic(
            number in 0..5u8, body in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let frame = Frame { kind: kind::of(kind::ROUTING, number), corr: 0, body };
            if let Err(error) = Message::decode(&frame) {
                prop_assert!(!error.why.is_empty());
            }
        }
    }

    #[test]
    fn bytes_of_a_delta_hold() {
        let row = Row {
            realm: "r".into(),
            kind: Kind::Registration,
            uri: "a.b".into(),
            policy: MatchPolicy::Prefix,
        };
        let invoke = InvokePolicy::Last;
        let value = Value { invoke, count: 2, oldest_ms: 3, newest_ms: 200, cleared_ms: 1 };
        let part = Part { base: 7, version: 9, rows: vec![Versioned { version: 9, row, value }] };
        let (origin, reason) = (NodeId([5; 16]), Reason::Answer);
        let delta = Delta { origin, incarnation: 1, end: 9, digest: 4, reason, part };
        let frame = Message::Delta(delta).encode().unwrap();
        let mut bytes = vec![FORMAT];
        bytes.extend([5; 16]);
        bytes.extend([1, 7, 9, 9, 4, 2, 1, 1, b'r', 1]);
        bytes.extend([2, 0, 1, 1, 2, 3, b'a', b'.', b'b', 2, 3, 200, 1, 1]);
        assert_eq!((frame.kind, frame.body), (0x1403, bytes));
    }

    #[test]
    fn what_is_out_of_order_is_refused_with_the_reason() {
        let part = Part { base: 7, version: 9, rows: Vec::new() };
        let (origin, reason) = (NodeId([5; 16]), Reason::Answer);
        let delta = Delta { origin, incarnation: 1, end: 9, digest: 4, reason, part };
        let with = |change: &dyn Fn(&mut Delta)| {
            let mut delta = delta.clone();
            change(&mut delta);
            let frame = Message::Delta(delta).encode().unwrap();
            Message::decode(&frame).map_err(|malformed| malformed.to_string())
        };
        assert!(with(&|_| {}).is_ok());
        let refused = [
            with(&|delta| delta.end = 8),
            with(&|delta| delta.part.base = 10),
            with(&|delta| delta.end = 10),
            with(&|delta| delta.incarnation = NUMBER_MAX),
        ];
        assert_eq!(
            refused.map(Result::unwrap_err),
            [
                "malformed delta: from 7 to 9 of 8",
                "malformed delta: from 10 to 9 of 9",
                "malformed delta: it has no rows, and more are to come",
                "malformed incarnation: it is too large",
            ]
        );
        let frame = Frame { kind: DIGEST, corr: 0, body: vec![9] };
        let error = Message::decode(&frame).unwrap_err().to_string();
        assert_eq!(error, "malformed format: 9 is not known here");
    }
}
