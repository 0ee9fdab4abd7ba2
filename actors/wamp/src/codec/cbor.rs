//! CBOR (RFC 8949).
//!
//! Tags say how to take a value; here the value is taken as it is, except for integers beyond 64 bits, which have no
//! equivalent elsewhere. Strings and containers of indefinite length are read, none are written.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use minicbor::Decoder;
use minicbor::data::{Tag, Type};

use super::budget::Budget;
use super::{Kind, Mark, Number, Reader, Seq, Writer};
use crate::error::{DecodeError, EncodeError};
use crate::limits::Limits;

/// Tags of integers beyond 64 bits, positive and negative.
const BIGNUMS: [u64; 2] = [2, 3];

/// Reads CBOR.
#[derive(Debug)]
pub(crate) struct CborReader<'a> {
    frame: &'a Bytes,
    tokens: Decoder<'a>,
    budget: Budget,
}

impl<'a> CborReader<'a> {
    /// What the error of a token at `at` means.
    fn fault(at: usize, error: &minicbor::decode::Error) -> DecodeError {
        if error.is_end_of_input() {
            DecodeError::Truncated { at }
        } else if error.is_type_mismatch() {
            DecodeError::Expected { at, expected: "another type" }
        } else {
            DecodeError::Malformed { at, what: "not a token of CBOR" }
        }
    }

    fn token<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, minicbor::decode::Error>,
    ) -> Result<T, DecodeError> {
        let at = self.tokens.position();
        read(&mut self.tokens).map_err(|error| Self::fault(at, &error))
    }

    /// The kind of value its first octet tells, where one octet tells it all: the way of most values.
    #[inline]
    fn plain(&self) -> Option<Kind> {
        let octet = self.frame.get(self.tokens.position())?;
        // Lengths 24 to 27 follow in octets of their own; 28 to 31 are malformed or indefinite.
        match (octet & KINDS, octet & !KINDS) {
            (_, 28..) => None,
            (UNSIGNED | NEGATIVE, _) => Some(Kind::Number),
            (BYTES, _) => Some(Kind::Bytes),
            (TEXT, _) => Some(Kind::Text),
            (ARRAY, _) => Some(Kind::List),
            (MAP, _) => Some(Kind::Map),
            _ => None,
        }
    }

    fn integer(&mut self, at: usize) -> Result<Number, DecodeError> {
        let number = i128::from(self.token(Decoder::int)?);
        if number < i64::MIN.into() {
            return Err(DecodeError::Unsupported { at, what: "an integer beyond 64 bits" });
        }
        Ok(Number::Int(number))
    }

    fn datatype(&self) -> Result<Type, DecodeError> {
        let at = self.tokens.position();
        self.tokens.datatype().map_err(|error| Self::fault(at, &error))
    }

    /// The type of the value after any tags; integers beyond 64 bits are refused where they cannot just be passed.
    fn untagged(&mut self, refuse_bignums: bool) -> Result<Type, DecodeError> {
        loop {
            let at = self.tokens.position();
            match self.datatype()? {
                Type::Tag => {
                    let tag: Tag = self.token(Decoder::tag)?;
                    if refuse_bignums && BIGNUMS.contains(&tag.as_u64()) {
                        let what = "an integer beyond 64 bits";
                        return Err(DecodeError::Unsupported { at, what });
                    }
                }
                other => return Ok(other),
            }
        }
    }

    fn open(&mut self, map: bool) -> Result<Seq, DecodeError> {
        let at = self.tokens.position();
        let plain = self.plain();
        if plain == Some(if map { Kind::Map } else { Kind::List }) {
            let len = if map { self.token(Decoder::map) } else { self.token(Decoder::array) }?;
            return self.enter(at, len, map);
        }
        let len = match (self.untagged(true)?, map) {
            (Type::Array | Type::ArrayIndef, false) => self.token(Decoder::array)?,
            (Type::Map | Type::MapIndef, true) => self.token(Decoder::map)?,
            (_, false) => return Err(DecodeError::Expected { at, expected: "a list" }),
            (_, true) => return Err(DecodeError::Expected { at, expected: "a map" }),
        };
        self.enter(at, len, map)
    }

    fn enter(&mut self, at: usize, len: Option<u64>, map: bool) -> Result<Seq, DecodeError> {
        let left = match len {
            None => {
                self.budget.enter(at)?;
                None
            }
            Some(len) => {
                let each = if map { 2 } else { 1 };
                let rest = self.frame.len() - self.tokens.position();
                let elements = self.budget.enter_counted(at, len.saturating_mul(each), rest)?;
                Some(if map { elements / 2 } else { elements })
            }
        };
        Ok(Seq { left, started: false, map })
    }

    fn skip_items(&mut self, mut seq: Seq) -> Result<(), DecodeError> {
        while self.more(&mut seq)? {
            self.skip()?;
            if seq.map {
                self.skip()?;
            }
        }
        Ok(())
    }

    /// Passes a string of pieces, each handed to `take`.
    fn pieces(&mut self, text: bool, mut take: impl FnMut(&'a [u8])) -> Result<(), DecodeError> {
        let at = self.tokens.position();
        // The octet that opens it, whose meaning was looked at.
        self.tokens.set_position(at + 1);
        loop {
            match (self.datatype()?, text) {
                (Type::Break, _) => {
                    self.tokens.set_position(self.tokens.position() + 1);
                    return Ok(());
                }
                (Type::String, true) => take(self.token(Decoder::str)?.as_bytes()),
                (Type::Bytes, false) => take(self.token(Decoder::bytes)?),
                _ => {
                    let at = self.tokens.position();
                    return Err(DecodeError::Malformed { at, what: "not a piece of a string" });
                }
            }
        }
    }
}

impl<'a> Reader<'a> for CborReader<'a> {
    fn new(frame: &'a Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let budget = Budget::new(frame.len(), limits)?;
        Ok(Self { frame, tokens: Decoder::new(frame), budget })
    }

    fn at(&self) -> usize {
        self.tokens.position()
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    fn kind(&mut self) -> Result<Kind, DecodeError> {
        if let Some(kind) = self.plain() {
            return Ok(kind);
        }
        let kind = self.untagged(true)?;
        let at = self.tokens.position();
        Ok(match kind {
            Type::Null | Type::Undefined => Kind::Null,
            Type::Bool => Kind::Bool,
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int
            | Type::F16
            | Type::F32
            | Type::F64 => Kind::Number,
            Type::String | Type::StringIndef => Kind::Text,
            Type::Bytes | Type::BytesIndef => Kind::Bytes,
            Type::Array | Type::ArrayIndef => Kind::List,
            Type::Map | Type::MapIndef => Kind::Map,
            Type::Simple => {
                return Err(DecodeError::Unsupported {
                    at,
                    what: "a simple value without meaning",
                });
            }
            Type::Tag | Type::Break | Type::Unknown(_) => {
                return Err(DecodeError::Malformed { at, what: "no value" });
            }
        })
    }

    fn null(&mut self) -> Result<(), DecodeError> {
        match self.untagged(true)? {
            Type::Undefined => self.token(Decoder::undefined),
            _ => self.token(Decoder::null),
        }
    }

    fn boolean(&mut self) -> Result<bool, DecodeError> {
        self.untagged(true)?;
        self.token(Decoder::bool)
    }

    fn number(&mut self) -> Result<Number, DecodeError> {
        if self.plain() == Some(Kind::Number) {
            return self.integer(self.at());
        }
        let kind = self.untagged(true)?;
        let at = self.tokens.position();
        Ok(match kind {
            Type::F16 => Number::Float(self.token(Decoder::f16)?.into()),
            Type::F32 => Number::Float(self.token(Decoder::f32)?.into()),
            Type::F64 => Number::Float(self.token(Decoder::f64)?),
            _ => self.integer(at)?,
        })
    }

    fn text(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        if self.plain() == Some(Kind::Text) || self.untagged(true)? != Type::StringIndef {
            return self.token(Decoder::str).map(Cow::Borrowed);
        }
        let at = self.tokens.position();
        let mut octets = Vec::new();
        self.pieces(true, |piece| octets.extend_from_slice(piece))?;
        match String::from_utf8(octets) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(_) => Err(DecodeError::Malformed { at, what: "text is not UTF-8" }),
        }
    }

    fn shared_text(&mut self) -> Result<ByteString, DecodeError> {
        let at = self.tokens.position();
        match self.text()? {
            Cow::Borrowed(text) => ByteString::try_from(self.frame.slice_ref(text.as_bytes()))
                .ok()
                .ok_or(DecodeError::Malformed { at, what: "text is not UTF-8" }),
            Cow::Owned(text) => Ok(text.into()),
        }
    }

    fn octets(&mut self) -> Result<Bytes, DecodeError> {
        if self.plain() == Some(Kind::Bytes) || self.untagged(true)? != Type::BytesIndef {
            let octets = self.token(Decoder::bytes)?;
            return Ok(self.frame.slice_ref(octets));
        }
        let mut octets = Vec::new();
        self.pieces(false, |piece| octets.extend_from_slice(piece))?;
        Ok(octets.into())
    }

    fn open_list(&mut self) -> Result<Seq, DecodeError> {
        self.open(false)
    }

    fn open_map(&mut self) -> Result<Seq, DecodeError> {
        self.open(true)
    }

    fn more(&mut self, seq: &mut Seq) -> Result<bool, DecodeError> {
        let more = match &mut seq.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => {
                let at = self.tokens.position();
                let ended = self.datatype()? == Type::Break;
                if ended {
                    self.tokens.set_position(at + 1);
                } else {
                    self.budget.spend(at, if seq.map { 2 } else { 1 })?;
                }
                !ended
            }
        };
        if !more {
            self.budget.leave();
        }
        Ok(more)
    }

    fn skip(&mut self) -> Result<(), DecodeError> {
        let kind = self.untagged(false)?;
        let at = self.tokens.position();
        match kind {
            Type::Null => self.token(Decoder::null),
            Type::Undefined => self.token(Decoder::undefined),
            Type::Bool => self.token(Decoder::bool).map(|_| ()),
            Type::Simple => self.token(Decoder::simple).map(|_| ()),
            Type::F16 => self.token(Decoder::f16).map(|_| ()),
            Type::F32 => self.token(Decoder::f32).map(|_| ()),
            Type::F64 => self.token(Decoder::f64).map(|_| ()),
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int => self.token(Decoder::int).map(|_| ()),
            Type::String => self.token(Decoder::str).map(|_| ()),
            Type::Bytes => self.token(Decoder::bytes).map(|_| ()),
            Type::StringIndef => self.pieces(true, |_| ()),
            Type::BytesIndef => self.pieces(false, |_| ()),
            Type::Array | Type::ArrayIndef => {
                let len = self.token(Decoder::array)?;
                let seq = self.enter(at, len, false)?;
                self.skip_items(seq)
            }
            Type::Map | Type::MapIndef => {
                let len = self.token(Decoder::map)?;
                let seq = self.enter(at, len, true)?;
                self.skip_items(seq)
            }
            Type::Tag | Type::Break | Type::Unknown(_) => {
                Err(DecodeError::Malformed { at, what: "no value" })
            }
        }
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        let at = self.tokens.position();
        if at == self.frame.len() { Ok(()) } else { Err(DecodeError::Trailing { at }) }
    }
}

/// The kinds of CBOR's first octet, in its upper three bits.
const KINDS: u8 = 7 << 5;
const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const F64: u8 = 0xfb;

/// The mark of a container whose length was known when it was opened.
const COUNTED: usize = usize::MAX;

/// Writes CBOR, everything in its shortest form; floating point always with 64 bits.
#[derive(Debug)]
pub(crate) struct CborWriter<'o> {
    out: &'o mut Vec<u8>,
}

/// The first octets of a value: at most nine.
#[inline]
fn head(kind: u8, number: u64) -> ([u8; 9], usize) {
    let mut head = [0; 9];
    let len = if let Ok(number) = u8::try_from(number) {
        if number < 24 {
            head[0] = kind | number;
            1
        } else {
            head[0] = kind | 24;
            head[1] = number;
            2
        }
    } else if let Ok(number) = u16::try_from(number) {
        head[0] = kind | 25;
        head[1..3].copy_from_slice(&number.to_be_bytes());
        3
    } else if let Ok(number) = u32::try_from(number) {
        head[0] = kind | 26;
        head[1..5].copy_from_slice(&number.to_be_bytes());
        5
    } else {
        head[0] = kind | 27;
        head[1..9].copy_from_slice(&number.to_be_bytes());
        9
    };
    (head, len)
}

impl<'o> CborWriter<'o> {
    /// Writes at the end of `out`.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    #[inline]
    fn head(&mut self, kind: u8, number: u64) {
        let (head, len) = head(kind, number);
        self.out.extend_from_slice(&head[..len]);
    }

    fn open(&mut self, kind: u8, len: Option<usize>) -> Mark {
        if let Some(len) = len {
            self.head(kind, len as u64);
            Mark(COUNTED)
        } else {
            self.out.push(kind);
            Mark(self.out.len() - 1)
        }
    }

    fn close(&mut self, kind: u8, mark: Mark, count: usize) {
        if mark.0 == COUNTED {
            return;
        }
        let (head, len) = head(kind, count as u64);
        if len == 1 {
            self.out[mark.0] = head[0];
        } else {
            self.out.splice(mark.0..=mark.0, head[..len].iter().copied());
        }
    }
}

impl Writer for CborWriter<'_> {
    fn null(&mut self) {
        self.out.push(NULL);
    }

    fn boolean(&mut self, value: bool) {
        self.out.push(if value { TRUE } else { FALSE });
    }

    #[inline]
    fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    fn int(&mut self, value: i128) -> Result<(), EncodeError> {
        if let Ok(value) = u64::try_from(value) {
            self.unsigned(value);
        } else {
            let value = i64::try_from(value).ok().ok_or(EncodeError::IntegerRange)?;
            self.head(NEGATIVE, value.unsigned_abs() - 1);
        }
        Ok(())
    }

    fn float(&mut self, value: f64) -> Result<(), EncodeError> {
        self.out.push(F64);
        self.out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    #[inline]
    fn text(&mut self, value: &str) -> Result<(), EncodeError> {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn octets(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }

    fn key(&mut self, key: &str) -> Result<(), EncodeError> {
        self.text(key)
    }

    #[inline]
    fn open_list(&mut self, len: Option<usize>) -> Result<Mark, EncodeError> {
        Ok(self.open(ARRAY, len))
    }

    #[inline]
    fn close_list(&mut self, mark: Mark, len: usize) -> Result<(), EncodeError> {
        self.close(ARRAY, mark, len);
        Ok(())
    }

    #[inline]
    fn open_map(&mut self, len: Option<usize>) -> Result<Mark, EncodeError> {
        Ok(self.open(MAP, len))
    }

    #[inline]
    fn close_map(&mut self, mark: Mark, len: usize) -> Result<(), EncodeError> {
        self.close(MAP, mark, len);
        Ok(())
    }

    fn written(&self) -> usize {
        self.out.len()
    }
}
