//! Taking a batch of messages apart.

use super::Violation;
use bytes::{Buf as _, Bytes};

/// Octets that end a message in JSON: the specification's, and what some clients make of its notation. // DEVIATES (WAMP
/// batched WebSocket transport: 0x1e only): neither occurs within JSON text, so nothing is lost.
const SEPARATORS: [u8; 2] = [0x1e, 0x18];

/// Appends the messages of a batch.
///
/// # Errors
/// The batch is empty, or not made as it should be; nothing of it is to be used.
pub(super) fn split(
    mut batch: Bytes,
    text: bool,
    messages: &mut Vec<Bytes>,
) -> Result<(), Violation> {
    if batch.is_empty() {
        return Err(Violation::Batch);
    }
    while !batch.is_empty() {
        let message = if text {
            let end = batch.iter().position(|octet| SEPARATORS.contains(octet));
            let message = batch.split_to(end.ok_or(Violation::Batch)?);
            batch.advance(1);
            message
        } else {
            let Some((length, _)) = batch.split_first_chunk::<4>() else {
                return Err(Violation::Batch);
            };
            let length = u32::from_be_bytes(*length) as usize;
            batch.advance(4);
            if length > batch.len() {
                return Err(Violation::Batch);
            }
            batch.split_to(length)
        };
        messages.push(message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(batch: &'static [u8], text: bool) -> Result<Vec<Bytes>, Violation> {
        let mut messages = Vec::new();
        split(Bytes::from_static(batch), text, &mut messages).map(|()| messages)
    }

    #[test]
    fn text_ends_with_either_separator() {
        assert_eq!(of(b"[1]\x1e[2]\x18", true), Ok(vec!["[1]".into(), "[2]".into()]));
        assert_eq!(of(b"[1]\x1e[2]", true), Err(Violation::Batch));
        assert_eq!(of(b"", true), Err(Violation::Batch));
    }

    #[test]
    fn binary_begins_with_the_length() {
        assert_eq!(of(b"\0\0\0\x01a\0\0\0\0\0\0\0\x02bc", false).unwrap(), ["a", "", "bc"]);
        for broken in [&b"\0\0\0"[..], b"\0\0\0\x02a", b"\0\0\0\x01ab", b"\xff\xff\xff\xffa", b""] {
            assert_eq!(of(broken, false), Err(Violation::Batch), "{broken:?}");
        }
    }
}
