//! Arguments of messages, kept as they came.

use bytes::Bytes;

use crate::codec::cbor::{CborReader, CborWriter};
use crate::codec::fields::skip_dict;
use crate::codec::json::{JsonReader, JsonWriter};
use crate::codec::msgpack::{MsgPackReader, MsgPackWriter};
use crate::codec::transcode::copy;
use crate::codec::{Kind, Reader, Writer, values};
use crate::error::{DecodeError, EncodeError, TranscodeError};
use crate::limits::Limits;
use crate::serializer::Serializer;
use crate::value::{Dict, Value};

/// Which of the two elements a payload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Parts {
    /// Neither.
    #[default]
    None,
    /// `Arguments|list`.
    Args,
    /// `Arguments|list, ArgumentsKw|dict`.
    ArgsKwargs,
}

/// The elements `Arguments|list` and `ArgumentsKw|dict` of a message, encoded, back to back (in JSON with a comma between).
///
/// A payload is a slice of the frame it came in: cloning it copies nothing, but keeps the frame alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    serializer: Serializer,
    parts: Parts,
    raw: Bytes,
}

impl Default for Payload {
    fn default() -> Self {
        Self::empty()
    }
}

impl Payload {
    /// No arguments at all; fits every serializer.
    #[must_use]
    pub const fn empty() -> Self {
        Self { serializer: Serializer::MsgPack, parts: Parts::None, raw: Bytes::new() }
    }

    /// Whether there is neither element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts == Parts::None
    }

    /// What the elements are encoded with; says nothing when there are none.
    #[must_use]
    pub fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// The encoded elements.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Which elements there are.
    #[must_use]
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// A payload of elements that were checked before, for example by a node that received them from its client.
    ///
    /// Octets that are no such elements are passed on as they are, so this is for what comes from trusted peers only.
    #[must_use]
    pub fn from_raw_trusted(serializer: Serializer, parts: Parts, raw: Bytes) -> Self {
        match parts {
            Parts::None => Self::empty(),
            Parts::Args | Parts::ArgsKwargs => Self { serializer, parts, raw },
        }
    }

    /// A payload of elements that anybody may have made.
    ///
    /// # Errors
    /// [`DecodeError`]: the octets are not the elements that `parts` says, or beyond the limits.
    pub fn from_raw_checked(
        serializer: Serializer,
        parts: Parts,
        raw: Bytes,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        match serializer {
            Serializer::Json => check(JsonReader::new(&raw, limits)?, parts)?,
            Serializer::MsgPack => check(MsgPackReader::new(&raw, limits)?, parts)?,
            Serializer::Cbor => check(CborReader::new(&raw, limits)?, parts)?,
        }
        Ok(Self::from_raw_trusted(serializer, parts, raw))
    }

    /// Encodes arguments; leaves away what is empty at the end.
    ///
    /// # Errors
    /// [`EncodeError`]: a value has no encoding there.
    pub fn from_values(
        serializer: Serializer,
        args: &[Value],
        kwargs: &Dict,
    ) -> Result<Self, EncodeError> {
        let parts = match (args.is_empty(), kwargs.is_empty()) {
            (true, true) => return Ok(Self::empty()),
            (false, true) => Parts::Args,
            (_, false) => Parts::ArgsKwargs,
        };
        let mut out = Vec::new();
        match serializer {
            Serializer::Json => write(&mut JsonWriter::new(&mut out), args, kwargs, parts)?,
            Serializer::MsgPack => write(&mut MsgPackWriter::new(&mut out), args, kwargs, parts)?,
            Serializer::Cbor => write(&mut CborWriter::new(&mut out), args, kwargs, parts)?,
        }
        Ok(Self::from_raw_trusted(serializer, parts, out.into()))
    }

    /// Decodes the arguments; what is absent is empty.
    ///
    /// # Errors
    /// [`DecodeError`]: a value has no place in memory (extension types, integers beyond 64 bits), or the limits are exceeded.
    pub fn decode(&self, limits: &Limits) -> Result<(Vec<Value>, Dict), DecodeError> {
        match self.serializer {
            Serializer::Json => read(JsonReader::new(&self.raw, limits)?, self.parts),
            Serializer::MsgPack => read(MsgPackReader::new(&self.raw, limits)?, self.parts),
            Serializer::Cbor => read(CborReader::new(&self.raw, limits)?, self.parts),
        }
    }

    /// The same arguments for another serializer; a clone where it is the same.
    ///
    /// # Errors
    /// [`TranscodeError`]: there is no equivalent (see there), or not within the limits.
    pub fn to(&self, serializer: Serializer, limits: &Limits) -> Result<Self, TranscodeError> {
        if serializer == self.serializer || self.is_empty() {
            return Ok(self.clone());
        }
        let raw = match self.serializer {
            Serializer::Json => {
                copy_to(JsonReader::new(&self.raw, limits)?, self.parts, serializer, limits)?
            }
            Serializer::MsgPack => {
                copy_to(MsgPackReader::new(&self.raw, limits)?, self.parts, serializer, limits)?
            }
            Serializer::Cbor => {
                copy_to(CborReader::new(&self.raw, limits)?, self.parts, serializer, limits)?
            }
        };
        Ok(Self::from_raw_trusted(serializer, self.parts, raw))
    }
}

fn check<'a, R: Reader<'a>>(mut reader: R, parts: Parts) -> Result<(), DecodeError> {
    if parts != Parts::None {
        let at = reader.at();
        if reader.kind()? != Kind::List {
            return Err(DecodeError::Expected { at, expected: "a list" });
        }
        reader.skip()?;
    }
    if parts == Parts::ArgsKwargs {
        reader.between_parts()?;
        skip_dict(&mut reader)?;
    }
    reader.end()
}

fn read<'a, R: Reader<'a>>(mut reader: R, parts: Parts) -> Result<(Vec<Value>, Dict), DecodeError> {
    reader.budget().allow_values();
    let (mut args, mut kwargs) = (Vec::new(), Dict::new());
    if parts != Parts::None {
        args = values::list(&mut reader)?;
    }
    if parts == Parts::ArgsKwargs {
        reader.between_parts()?;
        kwargs = values::dict(&mut reader)?;
    }
    reader.end()?;
    Ok((args, kwargs))
}

fn write<W: Writer>(
    writer: &mut W,
    args: &[Value],
    kwargs: &Dict,
    parts: Parts,
) -> Result<(), EncodeError> {
    values::write_list(writer, args)?;
    if parts == Parts::ArgsKwargs { values::write_dict(writer, kwargs) } else { Ok(()) }
}

fn copy_to<'a, R: Reader<'a>>(
    reader: R,
    parts: Parts,
    serializer: Serializer,
    limits: &Limits,
) -> Result<Bytes, TranscodeError> {
    let mut out = Vec::new();
    match serializer {
        Serializer::Json => copy_parts(reader, &mut JsonWriter::new(&mut out), parts, limits)?,
        Serializer::MsgPack => {
            copy_parts(reader, &mut MsgPackWriter::new(&mut out), parts, limits)?
        }
        Serializer::Cbor => copy_parts(reader, &mut CborWriter::new(&mut out), parts, limits)?,
    }
    Ok(out.into())
}

fn copy_parts<'a, R: Reader<'a>, W: Writer>(
    mut reader: R,
    writer: &mut W,
    parts: Parts,
    limits: &Limits,
) -> Result<(), TranscodeError> {
    copy(&mut reader, writer, limits.message_bytes)?;
    if parts == Parts::ArgsKwargs {
        reader.between_parts()?;
        copy(&mut reader, writer, limits.message_bytes)?;
    }
    Ok(reader.end()?)
}
