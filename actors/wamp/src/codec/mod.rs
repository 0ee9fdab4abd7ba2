//! Readers and writers of the three encodings, and what is built on them.
//!
//! What it is: one [`Reader`] and one [`Writer`] for each serializer, which know values only; [`decode`] and [`encode`],
//! which know messages; [`transcode`](mod@transcode), which copies values from any reader to any writer in one pass.
//!
//! What it guarantees: a reader looks at every octet it passes, also of what is skipped, and enters no container before
//! depth, count and the octets at hand have been compared.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

pub(crate) mod budget;
pub(crate) mod cbor;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod json_text;
pub(crate) mod msgpack;
pub(crate) mod transcode;
pub(crate) mod values;

use crate::error::{DecodeError, EncodeError};
use crate::limits::Limits;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    Bytes,
    List,
    Map,
}

/// A number as it was encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// From -2^63 to 2^64-1.
    Int(i128),
    Float(f64),
}

/// A container that is being read.
#[derive(Debug)]
pub(crate) struct Seq {
    /// Items to come, where the encoding says; a pair of a map is one item.
    pub(crate) left: Option<usize>,
    /// Whether an item has been read.
    pub(crate) started: bool,
    pub(crate) map: bool,
}

/// Reads values from a frame, one after the other.
pub(crate) trait Reader<'a>: Sized {
    /// Starts at the frame's first octet.
    fn new(frame: &'a Bytes, limits: &Limits) -> Result<Self, DecodeError>;
    /// The next octet to be read.
    fn at(&self) -> usize;
    /// The limits that are being kept.
    fn budget(&mut self) -> &mut budget::Budget;
    /// Passes what may stand before a value and means nothing.
    fn pass_blanks(&mut self) {}
    /// What comes next; passes what stands before it.
    fn kind(&mut self) -> Result<Kind, DecodeError>;
    fn null(&mut self) -> Result<(), DecodeError>;
    fn boolean(&mut self) -> Result<bool, DecodeError>;
    fn number(&mut self) -> Result<Number, DecodeError>;
    fn text(&mut self) -> Result<Cow<'a, str>, DecodeError>;
    /// The text as a slice of the frame where that is possible.
    fn shared_text(&mut self) -> Result<ByteString, DecodeError>;
    /// The octets as a slice of the frame where that is possible.
    fn octets(&mut self) -> Result<Bytes, DecodeError>;
    fn open_list(&mut self) -> Result<Seq, DecodeError>;
    fn open_map(&mut self) -> Result<Seq, DecodeError>;
    /// Whether the container has another item, which is then next.
    fn more(&mut self, seq: &mut Seq) -> Result<bool, DecodeError>;
    /// Passes what stands between a key and its value.
    fn after_key(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
    /// Passes what stands between two values outside any container.
    fn between_parts(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
    /// Passes a whole value, whatever it is, looking at all of it.
    fn skip(&mut self) -> Result<(), DecodeError>;
    /// Fails if anything follows.
    fn end(&mut self) -> Result<(), DecodeError>;
}

/// Where a container of unknown length begins, for those who have to go back there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(pub(crate) usize);

/// Writes values, one after the other. Separators are the writer's business.
pub(crate) trait Writer {
    fn null(&mut self);
    fn boolean(&mut self, value: bool);
    fn unsigned(&mut self, value: u64);
    fn int(&mut self, value: i128) -> Result<(), EncodeError>;
    fn float(&mut self, value: f64) -> Result<(), EncodeError>;
    fn text(&mut self, value: &str) -> Result<(), EncodeError>;
    fn octets(&mut self, value: &[u8]) -> Result<(), EncodeError>;
    /// Encoded values, as they are.
    fn raw(&mut self, encoded: &[u8]);
    fn key(&mut self, key: &str) -> Result<(), EncodeError>;
    /// Opens a list of a known length, or of one that [`Writer::close_list`] will tell.
    fn open_list(&mut self, len: Option<usize>) -> Result<Mark, EncodeError>;
    fn close_list(&mut self, mark: Mark, len: usize) -> Result<(), EncodeError>;
    fn open_map(&mut self, len: Option<usize>) -> Result<Mark, EncodeError>;
    fn close_map(&mut self, mark: Mark, len: usize) -> Result<(), EncodeError>;
    /// Octets written so far, those before this writer included.
    fn written(&self) -> usize;
}
