//! Reading from a socket into memory that a connection has only while it needs it.
//!
//! What it guarantees: a connection that waits keeps no buffer, only the part of a message that came without its end; the
//! bytes of a message are not moved on their way out, unless it came in parts.
//!
//! What it refuses: to reserve what a peer has announced and not sent.

use crate::socket::ReadHalf;
use bytes::BytesMut;
use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncReadExt as _;

/// Bytes of one read at most. // guess
const CHUNK_BYTES: usize = 64 * 1024;
/// Room for a read below which a new chunk is taken.
const ROOM_BYTES: usize = 16 * 1024;
/// Bytes by which a partial message grows at most at a time, beyond what has come of it.
const GROW_BYTES: usize = 256 * 1024;
/// A rest larger than this is not moved, unless it pins a chunk that others use.
const REST_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where this thread reads to. Messages are slices of it; when the last one is gone it is used again from its start.
    static CHUNK: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What has come of a message whose end has not.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    bytes: BytesMut,
    /// Bytes that the message needs, as far as known.
    need: usize,
    /// What was read last came to memory of its own.
    own: bool,
    /// Nobody has looked at the bytes yet.
    is_unread: bool,
}

impl Partial {
    /// What came with the handshake.
    pub(crate) fn new(bytes: BytesMut) -> Self {
        Self { is_unread: !bytes.is_empty(), bytes, need: 0, own: false }
    }

    /// Reads once: what came before and what comes now, in one piece; empty at the end of the stream.
    pub(crate) fn poll_read(
        &mut self,
        half: &mut ReadHalf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<BytesMut>> {
        self.own = !self.bytes.is_empty();
        if !self.own {
            return CHUNK.with_borrow_mut(|chunk| {
                let tight = chunk.capacity() < CHUNK_BYTES && !chunk.try_reclaim(CHUNK_BYTES);
                if tight && chunk.capacity() < ROOM_BYTES {
                    chunk.reserve(CHUNK_BYTES);
                }
                ready!(pin!(half.read_buf(&mut *chunk)).poll(cx))?;
                Poll::Ready(Ok(chunk.split()))
            });
        }
        let missing = self.need.saturating_sub(self.bytes.len());
        self.bytes.reserve(missing.clamp(ROOM_BYTES / 4, GROW_BYTES));
        let read = ready!(pin!(half.read_buf(&mut self.bytes)).poll(cx))?;
        let mut bytes = std::mem::take(&mut self.bytes);
        if read == 0 {
            // The message will never end.
            bytes.clear();
        }
        Poll::Ready(Ok(bytes))
    }

    /// What came with the handshake, once.
    pub(crate) fn take_unread(&mut self) -> BytesMut {
        if std::mem::take(&mut self.is_unread) {
            std::mem::take(&mut self.bytes)
        } else {
            BytesMut::new()
        }
    }

    /// Keeps what is left after the last whole message; `need` is the length of the one that has begun.
    pub(crate) fn keep(&mut self, rest: BytesMut, need: usize) {
        self.need = need;
        self.bytes =
            if self.own && rest.len() > REST_BYTES { rest } else { BytesMut::from(&rest[..]) };
    }
}
