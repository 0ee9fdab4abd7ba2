//! What is remembered over restarts.
//!
//! # Shape
//! `"WMEM" | version: u8 = 1 | crc32c of the rest: u32 big-endian | postcard of [`Saved`]`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::view::Record;

const MAGIC: &[u8; 5] = b"WMEM\x01";
/// Bytes before the postcard.
const HEAD: usize = MAGIC.len() + 4;

/// The members file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Milliseconds that this node has been running, over all its lives.
    pub run_ms: u64,
    /// All records, this node's, too.
    pub rows: Vec<SavedRow>,
}

/// A remembered record; see [`crate::view::Row`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRow {
    /// The record.
    pub record: Record,
    /// Last sign of life by the wall clock.
    pub seen_ms: u64,
    /// Last sign of life by the running time.
    pub seen_run_ms: u64,
    /// When it was gone by the running time.
    pub gone_run_ms: u64,
}

/// Why a members file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SavedError {
    /// It is no members file, or one of another version.
    #[error("not a members file of this version")]
    Foreign,
    /// Its checksum is wrong.
    #[error("the checksum of the members file is wrong")]
    Checksum,
    /// It does not decode.
    #[error("malformed members file: {0}")]
    Malformed(String),
}

impl Saved {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("writing to memory does not fail");
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads the bytes of the file.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SavedError::Foreign)?;
        let (sum, body) = rest.split_first_chunk::<4>().ok_or(SavedError::Foreign)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
            return Err(SavedError::Checksum);
        }
        postcard::from_bytes(body).map_err(|error| SavedError::Malformed(error.to_string()))
    }
}
