//! What may pass between a peer and `ractor_cluster`: a state machine over bytes, without I/O and without a clock.
//!
//! # Shape
//! `ractor_cluster` frames are `len: u64 big-endian | protobuf`. One frame is one of:
//!
//! ```text
//! 0A len auth              name, status, challenge, reply, acknowledgement
//! 12 len node              0A cast | 12 call | 1A reply
//! 1A len control           0A spawn | 12 terminate | 1A ping | 22 pong | 2A pg_join | 32 pg_leave
//!                          3A enumerate | 42 node_sessions | 4A ready
//! cast                     08 to | 12 what | 1A variant | 32 metadata
//! ```
//! # Inbound
//! In this order: the authentication frames of the peer's side, as many as the exchange has; one `spawn` of one nameless
//! actor, the peer's link actor; `ready`; then casts to this connection's link actor, with a payload and nothing else.
//! `ping` and `pong` may come after authentication, at a bounded rate. Anything else is a [`Violation`], and nothing of the
//! frame it is in reaches `ractor_cluster` as a whole, so it is never acted on. Only the canonical encoding passes: a field
//! twice, out of order or unknown is a violation, too, as two parsers might read it differently.
//!
//! # Outbound
//! `auth`, `ping`, `pong`, `ready` and casts pass; before `ready` goes a `spawn` naming this connection's link actor. What
//! would tell the peer of other actors, groups or sessions is dropped.
//!
//! Memory: at most [`SMALL_BYTES_MAX`] bytes are held back; the payload of a cast passes as it comes.

use crate::BATCH_BYTES_MAX;
use crate::wire;
use thiserror::Error;

/// Bytes of the length in front of a frame.
const LEN_BYTES: usize = 8;
/// Enough for everything in front of the payload of a cast.
const CAST_HEAD_BYTES: usize = 32;
/// Largest frame that is not a cast.
pub const SMALL_BYTES_MAX: usize = 1024;
/// Largest frame: the largest batch and what is around it.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + 64;
/// Pings and pongs that may come at once. `ractor_cluster` sends one each 1 to 5 s, so this is more than a minute of them.
const PINGS_BURST: u32 = 64;
/// Milliseconds after which one more ping or pong may come.
const PING_REFILL_MS: u64 = 200;

const AUTH: u8 = 0x0A;
const NODE: u8 = 0x12;
const CONTROL: u8 = 0x1A;
const NODE_CAST: u8 = 0x0A;
const CONTROL_SPAWN: u8 = 0x0A;
const CONTROL_TERMINATE: u8 = 0x12;
const CONTROL_PING: u8 = 0x1A;
const CONTROL_PONG: u8 = 0x22;
const CONTROL_READY: u8 = 0x4A;

/// What the peer did that it may not do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A frame longer than its kind may be.
    #[error("frame of {0} bytes is over the limit")]
    TooLarge(u64),
    /// Bytes that are no frame, or not in the canonical form.
    #[error("malformed {0} frame")]
    Malformed(&'static str),
    /// A frame of a kind that a peer may not send.
    #[error("frame kind {outer:#04x}/{inner:#04x} is not allowed")]
    Kind {
        /// Tag of the outer field.
        outer: u8,
        /// Tag of the inner field.
        inner: u8,
    },
    /// A frame that may come, but not now.
    #[error("{0} frame out of order")]
    Order(&'static str),
    /// A cast to another actor than the link actor of this connection.
    #[error("cast to actor {0}, which is not this connection's")]
    Target(u64),
    /// Too many pings.
    #[error("too many pings")]
    Pings,
    /// The peer's link actor is gone.
    #[error("the peer's link actor has ended")]
    LinkEnded,
}

/// Which side of the `ractor_cluster` handshake this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Accepted the connection: the peer sends two authentication frames.
    Server,
    /// Opened it: the peer sends three.
    Client,
}

/// What to do with the bytes gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed to tell.
    More,
    /// Release what was gathered; the frame is complete.
    Frame,
    /// Release what was gathered, then pass the next `left` bytes on as they come: a batch of `batch` bytes.
    Cast {
        /// Bytes of the frame still to come.
        left: usize,
        /// Bytes of the batch, gathered ones included.
        batch: usize,
    },
    /// Outbound only: drop what was gathered and the next `left` bytes.
    Drop {
        /// Bytes of the frame still to come.
        left: usize,
    },
}

/// Bytes of one frame gathered until it can be told what it is.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// Takes what is needed of `data`. The frame's length once its head is complete.
    fn gather(
        &mut self,
        data: &[u8],
        small_max: usize,
    ) -> Result<(usize, Option<usize>), Violation> {
        let mut taken = 0;
        loop {
            let (want, frame_len) = self.want(small_max)?;
            let missing = want.saturating_sub(self.bytes.len());
            if missing == 0 {
                return Ok((taken, frame_len));
            }
            let rest = data.get(taken..).unwrap_or_default();
            let part = rest.get(..missing).unwrap_or(rest);
            if part.is_empty() {
                return Ok((taken, None));
            }
            self.bytes.extend_from_slice(part);
            taken += part.len();
        }
    }

    /// Bytes needed next; with the frame's length when no more than those are needed.
    fn want(&self, small_max: usize) -> Result<(usize, Option<usize>), Violation> {
        let Some((len, body)) = self.bytes.split_first_chunk::<LEN_BYTES>() else {
            return Ok((LEN_BYTES, None));
        };
        let wire_len = u64::from_be_bytes(*len);
        let len = usize::try_from(wire_len).map_err(|_too_wide| Violation::TooLarge(wire_len))?;
        if len == 0 {
            return Err(Violation::Malformed("empty"));
        }
        let Some(outer) = body.first() else {
            if len > FRAME_BYTES_MAX.max(small_max) {
                return Err(Violation::TooLarge(wire_len));
            }
            return Ok((LEN_BYTES + 1, None));
        };
        match *outer {
            NODE if len > FRAME_BYTES_MAX => Err(Violation::TooLarge(wire_len)),
            NODE => Ok((LEN_BYTES + len.min(CAST_HEAD_BYTES), Some(len))),
            AUTH | CONTROL if len > small_max => Err(Violation::TooLarge(wire_len)),
            AUTH | CONTROL if small_max > SMALL_BYTES_MAX => {
                Ok((LEN_BYTES + len.min(CAST_HEAD_BYTES), Some(len)))
            }
            AUTH | CONTROL => Ok((LEN_BYTES + len, Some(len))),
            outer => Err(Violation::Kind { outer, inner: 0 }),
        }
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(LEN_BYTES..).unwrap_or_default()
    }
}

/// Reads what is in front of the payload of a cast: its target and the payload's length, which ends the frame.
fn cast_head(len: usize, body: &[u8]) -> Result<(u64, usize), Violation> {
    let bad = |_| Violation::Malformed("cast");
    let used = |rest: &[u8]| body.len().saturating_sub(rest.len());
    let (node_len, rest) = wire::field(NODE, body).map_err(bad)?;
    if node_len != len.saturating_sub(used(rest)) {
        return Err(Violation::Malformed("node"));
    }
    if let Some(&inner) = rest.first()
        && inner != NODE_CAST
    {
        return Err(Violation::Kind { outer: NODE, inner });
    }
    let (cast_len, mut rest) = wire::field(NODE_CAST, rest).map_err(bad)?;
    if cast_len != len.saturating_sub(used(rest)) {
        return Err(Violation::Malformed("cast"));
    }
    let mut to = 0;
    if let Some((0x08, tail)) = rest.split_first() {
        (to, rest) = wire::varint(tail).map_err(bad)?;
        if to == 0 {
            return Err(Violation::Malformed("cast"));
        }
    }
    let (batch, rest) = wire::field(0x12, rest).map_err(bad)?;
    if batch == 0 || batch != len.saturating_sub(used(rest)) {
        return Err(Violation::Malformed("cast"));
    }
    Ok((to, batch))
}

/// What comes from the peer.
#[derive(Debug)]
pub struct Inbound {
    head: Head,
    link: u64,
    auth_frames_left: u8,
    spawned: bool,
    ready: bool,
    pings_left: u32,
    pings_at_ms: u64,
}

impl Inbound {
    /// A new connection whose own link actor has pid `link`.
    #[must_use]
    pub fn new(side: Side, link: u64) -> Self {
        Self {
            head: Head::default(),
            link,
            auth_frames_left: match side {
                Side::Server => 2,
                Side::Client => 3,
            },
            spawned: false,
            ready: false,
            pings_left: PINGS_BURST,
            pings_at_ms: 0,
        }
    }

    /// Takes bytes; says how many, and what is to be done. `now_ms` counts from any point.
    ///
    /// # Errors
    /// [`Violation`]: the connection must end, and nothing of what was gathered may be released.
    pub fn push(&mut self, data: &[u8], now_ms: u64) -> Result<(usize, Step), Violation> {
        let (taken, len) = self.head.gather(data, SMALL_BYTES_MAX)?;
        let Some(len) = len else {
            return Ok((taken, Step::More));
        };
        let step = self.check(len, now_ms)?;
        Ok((taken, step))
    }

    /// What was gathered; it is empty again afterwards.
    pub fn release(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head.bytes)
    }

    /// Whether the next byte begins a frame.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.head.bytes.is_empty()
    }

    fn check(&mut self, len: usize, now_ms: u64) -> Result<Step, Violation> {
        let body = self.head.body();
        let outer = body.first().copied().unwrap_or_default();
        if outer == AUTH {
            wire::only_field(AUTH, body).map_err(|_bad| Violation::Malformed("auth"))?;
            self.auth_frames_left =
                self.auth_frames_left.checked_sub(1).ok_or(Violation::Order("auth"))?;
            return Ok(Step::Frame);
        }
        if self.auth_frames_left > 0 {
            return Err(Violation::Order("first"));
        }
        if outer == NODE {
            let (to, batch) = cast_head(len, body)?;
            if to != self.link {
                return Err(Violation::Target(to));
            }
            if !self.ready {
                return Err(Violation::Order("cast"));
            }
            return Ok(Step::Cast { left: len.saturating_sub(body.len()), batch });
        }
        self.check_control(now_ms)
    }

    fn check_control(&mut self, now_ms: u64) -> Result<Step, Violation> {
        let malformed = |_| Violation::Malformed("control");
        let control = wire::only_field(CONTROL, self.head.body()).map_err(malformed)?;
        let inner = control.first().copied().ok_or(Violation::Malformed("control"))?;
        let content = wire::only_field(inner, control).map_err(malformed)?;
        match inner {
            CONTROL_PING | CONTROL_PONG => self.take_ping(now_ms)?,
            CONTROL_SPAWN => {
                if self.spawned {
                    return Err(Violation::Order("spawn"));
                }
                spawned_pid(content).ok_or(Violation::Malformed("spawn"))?;
                self.spawned = true;
            }
            CONTROL_READY => {
                if self.ready || !self.spawned {
                    return Err(Violation::Order("ready"));
                }
                if !content.is_empty() {
                    return Err(Violation::Malformed("ready"));
                }
                self.ready = true;
            }
            CONTROL_TERMINATE => return Err(Violation::LinkEnded),
            inner => {
                return Err(Violation::Kind { outer: CONTROL, inner });
            }
        }
        Ok(Step::Frame)
    }

    fn take_ping(&mut self, now_ms: u64) -> Result<(), Violation> {
        let refill = now_ms.saturating_sub(self.pings_at_ms) / PING_REFILL_MS;
        self.pings_at_ms = self.pings_at_ms.saturating_add(refill.saturating_mul(PING_REFILL_MS));
        let refill = u32::try_from(refill).unwrap_or(PINGS_BURST);
        self.pings_left = self.pings_left.saturating_add(refill).min(PINGS_BURST);
        self.pings_left = self.pings_left.checked_sub(1).ok_or(Violation::Pings)?;
        Ok(())
    }
}

/// The pid in a `spawn` of exactly one nameless actor.
fn spawned_pid(content: &[u8]) -> Option<u64> {
    let actor = wire::only_field(0x0A, content).ok()?;
    match actor.split_first() {
        None => Some(0),
        Some((0x08, tail)) => match wire::varint(tail) {
            Ok((pid, [])) if pid != 0 => Some(pid),
            _ => None,
        },
        Some(_) => None,
    }
}

/// What goes to the peer.
#[derive(Debug)]
pub struct Outbound {
    head: Head,
    link: u64,
}

impl Outbound {
    /// A new connection whose own link actor has pid `link`.
    #[must_use]
    pub fn new(link: u64) -> Self {
        Self { head: Head::default(), link }
    }

    /// Takes bytes; says how many, and what is to be done.
    ///
    /// # Errors
    /// [`Violation`] when the bytes are not frames, which only a broken caller can bring about.
    pub fn push(&mut self, data: &[u8]) -> Result<(usize, Step), Violation> {
        // Control frames that are dropped may be long: they name every actor of the process.
        let (taken, len) = self.head.gather(data, usize::MAX)?;
        let Some(len) = len else {
            return Ok((taken, Step::More));
        };
        let left = len.saturating_sub(self.head.body().len());
        let step = match self.head.body() {
            [AUTH, ..] => Step::Cast { left, batch: 0 },
            body @ [NODE, ..] => match cast_head(len, body) {
                Ok((_, batch)) => Step::Cast { left, batch },
                Err(_) => Step::Drop { left },
            },
            _ => self.control(left)?,
        };
        if matches!(step, Step::Drop { .. }) {
            self.head.bytes.clear();
        }
        Ok((taken, step))
    }

    /// What is to be written of what was gathered; it is empty again afterwards.
    pub fn release(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head.bytes)
    }

    fn control(&mut self, left: usize) -> Result<Step, Violation> {
        let (_, inner) = wire::field(CONTROL, self.head.body())
            .map_err(|_bad| Violation::Malformed("control"))?;
        Ok(match inner.first() {
            Some(&(CONTROL_PING | CONTROL_PONG)) => Step::Cast { left, batch: 0 },
            Some(&CONTROL_READY) => {
                let mut bytes = spawn_frame(self.link);
                bytes.append(&mut self.head.bytes);
                self.head.bytes = bytes;
                Step::Cast { left, batch: 0 }
            }
            _ => Step::Drop { left },
        })
    }
}

/// A `spawn` frame that names one actor.
fn spawn_frame(pid: u64) -> Vec<u8> {
    let mut actor = Vec::new();
    if pid != 0 {
        actor.push(0x08);
        wire::put_varint(pid, &mut actor);
    }
    let mut message = actor;
    for tag in [0x0A, CONTROL_SPAWN, CONTROL] {
        let mut outer = vec![tag];
        wire::put_varint(message.len() as u64, &mut outer);
        outer.append(&mut message);
        message = outer;
    }
    let mut frame = (message.len() as u64).to_be_bytes().to_vec();
    frame.append(&mut message);
    frame
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod tests;
