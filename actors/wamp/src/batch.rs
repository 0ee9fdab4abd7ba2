//! Many messages in one WebSocket message.
//!
//! What it is: in JSON every message is followed by a record separator; in the binary encodings every message is preceded
//! by its length in 32 bits, big-endian. A batch of one looks like any other.
//!
//! What it guarantees: messages are slices of the batch, copied nowhere; a length is compared with what is there before it
//! is believed.
//!
//! What it refuses: batches of nothing, messages of nothing, and anything after the last message.

use bytes::Bytes;

use crate::serializer::Serializer;

/// What ends a message in JSON. No JSON text has it unescaped.
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// What one widespread library ends a message with instead: it read the specification's `\30` as octal.
pub const RECORD_SEPARATOR_OCTAL: u8 = 0x18;

/// Octets of a length.
const LENGTH_BYTES: usize = 4;

/// A batch is not well-formed: the connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There is no message in it.
    #[error("empty batch")]
    Empty,
    /// A message of no octets.
    #[error("empty message in a batch")]
    EmptyMessage,
    /// The last message is not whole, or not ended.
    #[error("truncated batch")]
    Truncated,
    /// More messages than the limit.
    #[error("more than {max} messages in a batch")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// Splits a batch into its messages, which are put at the end of `messages`.
///
/// # Errors
/// [`BatchError`]: the batch is malformed, or has more than `messages_max` messages; what was put into `messages` has no
/// meaning then.
pub fn split(
    serializer: Serializer,
    batch: &Bytes,
    messages_max: usize,
    messages: &mut Vec<Bytes>,
) -> Result<(), BatchError> {
    if batch.is_empty() {
        return Err(BatchError::Empty);
    }
    let mut at = 0;
    let mut count = 0;
    while at < batch.len() {
        let (start, end, next) =
            if serializer.is_binary() { counted(batch, at)? } else { separated(batch, at)? };
        if start == end {
            return Err(BatchError::EmptyMessage);
        }
        count += 1;
        if count > messages_max {
            return Err(BatchError::TooMany { max: messages_max });
        }
        messages.push(batch.slice(start..end));
        at = next;
    }
    Ok(())
}

/// Start and end of the message at `at`, and where the next one begins.
fn counted(batch: &[u8], at: usize) -> Result<(usize, usize, usize), BatchError> {
    let start = at + LENGTH_BYTES;
    let length = batch.get(at..start).and_then(|octets| octets.try_into().ok());
    let length = u32::from_be_bytes(length.ok_or(BatchError::Truncated)?);
    let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
    match end {
        Some(end) if end <= batch.len() => Ok((start, end, end)),
        _ => Err(BatchError::Truncated),
    }
}

fn separated(batch: &[u8], at: usize) -> Result<(usize, usize, usize), BatchError> {
    let separator = |octet: &u8| [RECORD_SEPARATOR, RECORD_SEPARATOR_OCTAL].contains(octet);
    let rest = batch.get(at..).unwrap_or_default();
    let end = at + rest.iter().position(separator).ok_or(BatchError::Truncated)?;
    Ok((at, end, end + 1))
}

/// Writes one message of a batch at the end of `out`: `write` writes the message itself.
///
/// # Limits
/// The message has to be shorter than 4 GiB, or no peer can read the batch; messages have far lower limits everywhere.
pub fn frame<T>(
    serializer: Serializer,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> T,
) -> T {
    if !serializer.is_binary() {
        let written = write(out);
        out.push(RECORD_SEPARATOR);
        return written;
    }
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    let written = write(out);
    let length = out.len().saturating_sub(start + LENGTH_BYTES);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(room) = out.get_mut(start..start + LENGTH_BYTES) {
        room.copy_from_slice(&length.to_be_bytes());
    }
    written
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split_all(serializer: Serializer, batch: &[u8]) -> Result<Vec<Bytes>, BatchError> {
        let mut messages = Vec::new();
        split(serializer, &Bytes::copy_from_slice(batch), 8, &mut messages).map(|()| messages)
    }

    #[test]
    fn split_both_separators_accepts() {
        let messages = split_all(Serializer::Json, b"[1]\x1e[2]\x18").unwrap();
        assert_eq!(messages, [&b"[1]"[..], b"[2]"]);
    }

    #[test]
    fn split_malformed_fails() {
        use BatchError::{Empty, EmptyMessage, TooMany, Truncated};
        use Serializer::{Cbor, Json, MsgPack};
        for (serializer, batch, error) in [
            (Json, &b""[..], Empty),
            (Json, b"[1]", Truncated),
            (Json, b"[1]\x1e[2]", Truncated),
            (Json, b"\x1e", EmptyMessage),
            (MsgPack, b"", Empty),
            (MsgPack, b"\0\0\0", Truncated),
            (MsgPack, b"\0\0\0\0", EmptyMessage),
            (Cbor, b"\0\0\0\x02\x80", Truncated),
            (Cbor, b"\xff\xff\xff\xff\x80", Truncated),
            (Cbor, b"\0\0\0\x01\x80\0", Truncated),
        ] {
            assert_eq!(split_all(serializer, batch), Err(error), "{serializer} {batch:?}");
        }
        assert_eq!(split_all(Json, &b"1\x1e".repeat(9)), Err(TooMany { max: 8 }));
    }

    proptest! {
        #[test]
        fn frames_split_into_what_was_framed(
            messages in prop::collection::vec("[ -~]{1,40}", 1..8),
            serializer in prop::sample::select(&Serializer::ALL[..]),
        ) {
            let mut batch = Vec::new();
            for message in &messages {
                frame(serializer, &mut batch, |out| out.extend_from_slice(message.as_bytes()));
            }
            prop_assert_eq!(split_all(serializer, &batch).unwrap(), messages);
        }

        #[test]
        fn split_anything_stays_within_the_batch(
            batch in prop::collection::vec(any::<u8>(), 0..64),
            serializer in prop::sample::select(&Serializer::ALL[..]),
        ) {
            if let Ok(messages) = split_all(serializer, &batch) {
                prop_assert!(messages.iter().map(Bytes::len).sum::<usize>() < batch.len());
            }
        }
    }
}
