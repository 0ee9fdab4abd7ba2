//! MessagePack.
//!
//! Extension types pass where payloads are passed on as they are; nothing else can be made of them.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use rmp::Marker;

use super::budget::Budget;
use super::{Kind, Mark, Number, Reader, Seq, Writer};
use crate::error::{DecodeError, EncodeError};
use crate::limits::Limits;

/// What JavaScript's `undefined` is made of in MessagePack by common encoders: an extension of one octet, type and octet 0.
/// Such an option is absent, as one that is null.
const UNDEFINED: [u8; 2] = [0, 0];

/// Reads MessagePack.
#[derive(Debug)]
pub(crate) struct MsgPackReader<'a> {
    frame: &'a Bytes,
    data: &'a [u8],
    at: usize,
    budget: Budget,
}

impl<'a> MsgPackReader<'a> {
    #[inline]
    fn marker(&mut self) -> Result<Marker, DecodeError> {
        match self.data.get(self.at) {
            Some(byte) => {
                self.at += 1;
                Ok(Marker::from_u8(*byte))
            }
            None => Err(DecodeError::Truncated { at: self.at }),
        }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        match rest.get(..len) {
            Some(slice) => {
                self.at += len;
                Ok(slice)
            }
            None => Err(DecodeError::Truncated { at: self.at }),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        self.take(N)?.try_into().ok().ok_or(DecodeError::Truncated { at })
    }

    fn len8(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(self.array::<1>()?[0]))
    }

    fn len16(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn len32(&mut self) -> Result<usize, DecodeError> {
        let at = self.at;
        usize::try_from(u32::from_be_bytes(self.array()?)).ok().ok_or(DecodeError::Truncated { at })
    }

    /// The octets of a text whose marker was read; `None` if the marker is of something else.
    #[inline]
    fn text_of(&mut self, marker: Marker) -> Result<Option<&'a [u8]>, DecodeError> {
        let len = match marker {
            Marker::FixStr(len) => usize::from(len),
            Marker::Str8 => self.len8()?,
            Marker::Str16 => self.len16()?,
            Marker::Str32 => self.len32()?,
            _ => return Ok(None),
        };
        self.take(len).map(Some)
    }

    fn octets_of(&mut self, marker: Marker) -> Result<Option<&'a [u8]>, DecodeError> {
        let len = match marker {
            Marker::Bin8 => self.len8()?,
            Marker::Bin16 => self.len16()?,
            Marker::Bin32 => self.len32()?,
            _ => return Ok(None),
        };
        self.take(len).map(Some)
    }

    /// The length of a list, or twice that of a map; `None` if the marker is of something else.
    #[inline]
    fn elements_of(&mut self, marker: Marker, map: bool) -> Result<Option<u64>, DecodeError> {
        let len = match (marker, map) {
            (Marker::FixArray(len), false) | (Marker::FixMap(len), true) => usize::from(len),
            (Marker::Array16, false) | (Marker::Map16, true) => self.len16()?,
            (Marker::Array32, false) | (Marker::Map32, true) => self.len32()?,
            _ => return Ok(None),
        };
        Ok(Some(if map { 2 * len as u64 } else { len as u64 }))
    }

    fn open(&mut self, map: bool) -> Result<Seq, DecodeError> {
        let at = self.at;
        let marker = self.marker()?;
        let Some(elements) = self.elements_of(marker, map)? else {
            let expected = if map { "a map" } else { "a list" };
            return Err(DecodeError::Expected { at, expected });
        };
        let rest = self.data.len() - self.at;
        let elements = self.budget.enter_counted(at, elements, rest)?;
        let left = if map { elements / 2 } else { elements };
        Ok(Seq { left: Some(left), started: false, map })
    }

    fn skip_elements(&mut self, at: usize, elements: u64) -> Result<(), DecodeError> {
        let rest = self.data.len() - self.at;
        for _ in 0..self.budget.enter_counted(at, elements, rest)? {
            self.skip()?;
        }
        self.budget.leave();
        Ok(())
    }
}

impl<'a> Reader<'a> for MsgPackReader<'a> {
    fn new(frame: &'a Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        Ok(Self { frame, data: frame, at: 0, budget: Budget::new(frame.len(), limits)? })
    }

    fn at(&self) -> usize {
        self.at
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    #[inline]
    fn kind(&mut self) -> Result<Kind, DecodeError> {
        let at = self.at;
        let Some(byte) = self.data.get(at) else {
            return Err(DecodeError::Truncated { at });
        };
        Ok(match Marker::from_u8(*byte) {
            Marker::Null => Kind::Null,
            Marker::FixExt1 if self.data.get(at + 1..at + 3) == Some(&UNDEFINED) => Kind::Null,
            Marker::True | Marker::False => Kind::Bool,
            Marker::FixPos(_)
            | Marker::FixNeg(_)
            | Marker::U8
            | Marker::U16
            | Marker::U32
            | Marker::U64
            | Marker::I8
            | Marker::I16
            | Marker::I32
            | Marker::I64
            | Marker::F32
            | Marker::F64 => Kind::Number,
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => Kind::Text,
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => Kind::Bytes,
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => Kind::List,
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => Kind::Map,
            Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32 => {
                return Err(DecodeError::Unsupported { at, what: "an extension type" });
            }
            Marker::Reserved => {
                return Err(DecodeError::Malformed { at, what: "octet c1 means nothing" });
            }
        })
    }

    fn null(&mut self) -> Result<(), DecodeError> {
        let at = self.at;
        match self.marker()? {
            Marker::Null => Ok(()),
            Marker::FixExt1 if self.array::<2>()? == UNDEFINED => Ok(()),
            _ => Err(DecodeError::Expected { at, expected: "null" }),
        }
    }

    fn boolean(&mut self) -> Result<bool, DecodeError> {
        let at = self.at;
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            _ => Err(DecodeError::Expected { at, expected: "a boolean" }),
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Number, DecodeError> {
        let at = self.at;
        Ok(match self.marker()? {
            Marker::FixPos(value) => Number::Int(value.into()),
            Marker::FixNeg(value) => Number::Int(value.into()),
            Marker::U8 => Number::Int(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Number::Int(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Number::Int(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Number::Int(u64::from_be_bytes(self.array()?).into()),
            Marker::I8 => Number::Int(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Number::Int(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Number::Int(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Number::Int(i64::from_be_bytes(self.array()?).into()),
            Marker::F32 => Number::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Number::Float(f64::from_be_bytes(self.array()?)),
            _ => return Err(DecodeError::Expected { at, expected: "a number" }),
        })
    }

    #[inline]
    fn text(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let at = self.at;
        let marker = self.marker()?;
        let Some(octets) = self.text_of(marker)? else {
            return Err(DecodeError::Expected { at, expected: "text" });
        };
        match std::str::from_utf8(octets) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => Err(DecodeError::Malformed { at, what: "text is not UTF-8" }),
        }
    }

    #[inline]
    fn shared_text(&mut self) -> Result<ByteString, DecodeError> {
        let at = self.at;
        let marker = self.marker()?;
        let Some(octets) = self.text_of(marker)? else {
            return Err(DecodeError::Expected { at, expected: "text" });
        };
        ByteString::try_from(self.frame.slice(self.at - octets.len()..self.at))
            .ok()
            .ok_or(DecodeError::Malformed { at, what: "text is not UTF-8" })
    }

    fn octets(&mut self) -> Result<Bytes, DecodeError> {
        let at = self.at;
        let marker = self.marker()?;
        match self.octets_of(marker)? {
            Some(octets) => Ok(self.frame.slice(self.at - octets.len()..self.at)),
            None => Err(DecodeError::Expected { at, expected: "octets" }),
        }
    }

    #[inline]
    fn open_list(&mut self) -> Result<Seq, DecodeError> {
        self.open(false)
    }

    #[inline]
    fn open_map(&mut self) -> Result<Seq, DecodeError> {
        self.open(true)
    }

    #[inline]
    fn more(&mut self, seq: &mut Seq) -> Result<bool, DecodeError> {
        match seq.left {
            Some(left) if left > 0 => {
                seq.left = Some(left - 1);
                Ok(true)
            }
            _ => {
                self.budget.leave();
                Ok(false)
            }
        }
    }

    fn skip(&mut self) -> Result<(), DecodeError> {
        let at = self.at;
        let fixed = match self.marker()? {
            Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => {
                0
            }
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::FixExt4 => 5,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::Bin8 => self.len8()?,
            Marker::Bin16 => self.len16()?,
            Marker::Bin32 => self.len32()?,
            Marker::Ext8 => self.len8()? + 1,
            Marker::Ext16 => self.len16()? + 1,
            Marker::Ext32 => self.len32()?.saturating_add(1),
            text @ (Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32) => {
                let octets = self.text_of(text)?.unwrap_or_default();
                return match std::str::from_utf8(octets) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(DecodeError::Malformed { at, what: "text is not UTF-8" }),
                };
            }
            list @ (Marker::FixArray(_) | Marker::Array16 | Marker::Array32) => {
                let elements = self.elements_of(list, false)?.unwrap_or_default();
                return self.skip_elements(at, elements);
            }
            map @ (Marker::FixMap(_) | Marker::Map16 | Marker::Map32) => {
                let elements = self.elements_of(map, true)?.unwrap_or_default();
                return self.skip_elements(at, elements);
            }
            Marker::Reserved => {
                return Err(DecodeError::Malformed { at, what: "octet c1 means nothing" });
            }
        };
        self.take(fixed).map(|_| ())
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        if self.at == self.data.len() { Ok(()) } else { Err(DecodeError::Trailing { at: self.at }) }
    }
}

/// Writes MessagePack, everything in its shortest form.
#[derive(Debug)]
pub(crate) struct MsgPackWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> MsgPackWriter<'o> {
    /// Writes at the end of `out`.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    fn put<const N: usize>(&mut self, marker: Marker, octets: [u8; N]) {
        self.out.push(marker.to_u8());
        self.out.extend_from_slice(&octets);
    }

    fn close(&mut self, mark: Mark, len: usize, map: bool) -> Result<(), EncodeError> {
        if mark.0 == COUNTED {
            return Ok(());
        }
        let (fixed, wide16, wide32) = markers(map, len);
        if let Some(fixed) = fixed {
            self.out[mark.0] = fixed;
        } else if let Ok(len) = u16::try_from(len) {
            let [a, b] = len.to_be_bytes();
            self.out.splice(mark.0..=mark.0, [wide16.to_u8(), a, b]);
        } else {
            let len = u32::try_from(len).ok().ok_or(EncodeError::TooLong)?;
            let [a, b, c, d] = len.to_be_bytes();
            self.out.splice(mark.0..=mark.0, [wide32.to_u8(), a, b, c, d]);
        }
        Ok(())
    }

    fn open(&mut self, len: Option<usize>, map: bool) -> Result<Mark, EncodeError> {
        let Some(len) = len else {
            self.out.push(0);
            return Ok(Mark(self.out.len() - 1));
        };
        let (fixed, wide16, wide32) = markers(map, len);
        if let Some(fixed) = fixed {
            self.out.push(fixed);
        } else if let Ok(len) = u16::try_from(len) {
            self.put(wide16, len.to_be_bytes());
        } else {
            let len = u32::try_from(len).ok().ok_or(EncodeError::TooLong)?;
            self.put(wide32, len.to_be_bytes());
        }
        Ok(Mark(COUNTED))
    }
}

/// The mark of a container whose length was known when it was opened.
const COUNTED: usize = usize::MAX;

/// The ways to begin a container: in one octet if it is short enough, with 16 bits, with 32 bits.
fn markers(map: bool, len: usize) -> (Option<u8>, Marker, Marker) {
    let short = u8::try_from(len).ok().filter(|len| *len < 16);
    if map {
        (short.map(|len| Marker::FixMap(len).to_u8()), Marker::Map16, Marker::Map32)
    } else {
        (short.map(|len| Marker::FixArray(len).to_u8()), Marker::Array16, Marker::Array32)
    }
}

impl Writer for MsgPackWriter<'_> {
    fn null(&mut self) {
        self.out.push(Marker::Null.to_u8());
    }

    fn boolean(&mut self, value: bool) {
        self.out.push(if value { Marker::True } else { Marker::False }.to_u8());
    }

    #[inline]
    fn unsigned(&mut self, value: u64) {
        if let Ok(value) = u8::try_from(value) {
            if value < 128 {
                self.out.push(value);
            } else {
                self.put(Marker::U8, [value]);
            }
        } else if let Ok(value) = u16::try_from(value) {
            self.put(Marker::U16, value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.put(Marker::U32, value.to_be_bytes());
        } else {
            self.put(Marker::U64, value.to_be_bytes());
        }
    }

    fn int(&mut self, value: i128) -> Result<(), EncodeError> {
        if let Ok(value) = u64::try_from(value) {
            self.unsigned(value);
        } else if let Ok(value) = i8::try_from(value) {
            if value >= -32 {
                self.out.push(Marker::FixNeg(value).to_u8());
            } else {
                self.put(Marker::I8, value.to_be_bytes());
            }
        } else if let Ok(value) = i16::try_from(value) {
            self.put(Marker::I16, value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.put(Marker::I32, value.to_be_bytes());
        } else {
            let value = i64::try_from(value).ok().ok_or(EncodeError::IntegerRange)?;
            self.put(Marker::I64, value.to_be_bytes());
        }
        Ok(())
    }

    fn float(&mut self, value: f64) -> Result<(), EncodeError> {
        self.put(Marker::F64, value.to_be_bytes());
        Ok(())
    }

    #[inline]
    fn text(&mut self, value: &str) -> Result<(), EncodeError> {
        if let Ok(len) = u8::try_from(value.len()) {
            if len < 32 {
                self.out.push(Marker::FixStr(len).to_u8());
            } else {
                self.put(Marker::Str8, [len]);
            }
        } else if let Ok(len) = u16::try_from(value.len()) {
            self.put(Marker::Str16, len.to_be_bytes());
        } else {
            let len = u32::try_from(value.len()).ok().ok_or(EncodeError::TooLong)?;
            self.put(Marker::Str32, len.to_be_bytes());
        }
        self.out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn octets(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        if let Ok(len) = u8::try_from(value.len()) {
            self.put(Marker::Bin8, [len]);
        } else if let Ok(len) = u16::try_from(value.len()) {
            self.put(Marker::Bin16, len.to_be_bytes());
        } else {
            let len = u32::try_from(value.len()).ok().ok_or(EncodeError::TooLong)?;
            self.put(Marker::Bin32, len.to_be_bytes());
        }
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
        self.open(len, false)
    }

    #[inline]
    fn close_list(&mut self, mark: Mark, len: usize) -> Result<(), EncodeError> {
        self.close(mark, len, false)
    }

    #[inline]
    fn open_map(&mut self, len: Option<usize>) -> Result<Mark, EncodeError> {
        self.open(len, true)
    }

    #[inline]
    fn close_map(&mut self, mark: Mark, len: usize) -> Result<(), EncodeError> {
        self.close(mark, len, true)
    }

    fn written(&self) -> usize {
        self.out.len()
    }
}
