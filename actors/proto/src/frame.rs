//! A frame: one request, reply or push, with its correlation id.
//!
//! # Shape
//! `kind: u16 | flags: u16 | corr: u64 | len: u32 | body: len bytes`, all big-endian. A batch is frames one after another.
//! Flags are zero and reserved. `corr` is chosen by the requester and comes back with the reply.
//!
//! An unknown kind is not an error here: the reader counts it or answers `Unsupported`, and the link stays up.

use crate::limits::FRAME_BYTES_MAX;
use thiserror::Error;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 16;

/// One frame, decoded but for its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; see [`crate::request::kind`].
    pub kind: u16,
    /// Correlates a reply with its request.
    pub corr: u64,
    /// The body, encoded as its kind says.
    pub body: Vec<u8>,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is larger than [`FRAME_BYTES_MAX`].
    #[error("frame body of {len} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Bytes announced.
        len: usize,
    },
    /// The batch ends inside a frame.
    #[error("batch ends inside a frame: {have} bytes of {need}")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Reserved flag bits are set.
    #[error("reserved flags {flags:#06x} are set")]
    Flags {
        /// The flags found.
        flags: u16,
    },
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Kind of the body.
    pub kind: u16,
    /// Correlation id.
    pub corr: u64,
    /// Bytes of the body, at most [`FRAME_BYTES_MAX`].
    pub len: usize,
}

impl Header {
    /// Reads a header, refusing bodies over the limit before anything is allocated.
    ///
    /// # Errors
    /// [`FrameError::Flags`] and [`FrameError::TooLarge`].
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [k0, k1, f0, f1, c0, c1, c2, c3, c4, c5, c6, c7, l0, l1, l2, l3] = *bytes;
        let flags = u16::from_be_bytes([f0, f1]);
        if flags != 0 {
            return Err(FrameError::Flags { flags });
        }
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { len });
        }
        Ok(Self {
            kind: u16::from_be_bytes([k0, k1]),
            corr: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
            len,
        })
    }
}

impl Frame {
    /// Bytes of the frame when encoded.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Appends the frame to a batch.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let len = self.body.len();
        let wire_len = u32::try_from(len).map_err(|_overflow| FrameError::TooLarge { len });
        if len > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { len });
        }
        let wire_len = wire_len?;
        out.reserve(self.encoded_len());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.corr.to_be_bytes());
        out.extend_from_slice(&wire_len.to_be_bytes());
        out.extend_from_slice(&self.body);
        Ok(())
    }

    /// Reads all frames of a batch.
    ///
    /// # Errors
    /// Any [`FrameError`]; frames before the bad one are dropped with it, as the peer cannot be trusted.
    pub fn decode_batch(mut bytes: &[u8]) -> Result<Vec<Self>, FrameError> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
                return Err(FrameError::Truncated { have: bytes.len(), need: HEADER_BYTES });
            };
            let header = Header::decode(head)?;
            let Some((body, rest)) = rest.split_at_checked(header.len) else {
                return Err(FrameError::Truncated { have: rest.len(), need: header.len });
            };
            frames.push(Self { kind: header.kind, corr: header.corr, body: body.to_vec() });
            bytes = rest;
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_round_trips_and_golden_bytes_hold() {
        let a = Frame { kind: 1, corr: 2, body: vec![0xAA] };
        let b = Frame { kind: 0x8001, corr: u64::MAX, body: vec![] };
        let mut out = Vec::new();
        a.encode(&mut out).unwrap();
        assert_eq!(out, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0xAA]);
        b.encode(&mut out).unwrap();
        assert_eq!(Frame::decode_batch(&out).unwrap(), vec![a, b]);
    }

    #[test]
    fn bad_batches_are_refused_with_the_reason() {
        let mut out = Vec::new();
        Frame { kind: 1, corr: 1, body: vec![1, 2, 3] }.encode(&mut out).unwrap();
        assert_eq!(
            Frame::decode_batch(&out[..18]),
            Err(FrameError::Truncated { have: 2, need: 3 })
        );
        assert_eq!(
            Frame::decode_batch(&out[..3]),
            Err(FrameError::Truncated { have: 3, need: HEADER_BYTES })
        );
        let mut huge = out.clone();
        huge[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(Frame::decode_batch(&huge), Err(FrameError::TooLarge { .. })));
        out[2] = 1;
        assert_eq!(Frame::decode_batch(&out), Err(FrameError::Flags { flags: 0x100 }));
    }
}
