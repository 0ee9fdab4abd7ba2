//! JSON (RFC 8259), strictly.
//!
//! Octets are strings of U+0000 and base64; every string that starts with U+0000 is octets. Integers that 64 bits cannot hold
//! are read as floating point, as everybody else does.

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use bytestring::ByteString;

use super::budget::Budget;
use super::json_text::{scan, unescape, write};
use super::{Kind, Mark, Number, Reader, Seq, Writer};
use crate::error::{DecodeError, EncodeError};
use crate::limits::Limits;

/// With padding when writing, with or without when reading.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a string of octets begins.
const OCTETS: &[u8] = b"\"\\u0000";

/// Reads JSON.
#[derive(Debug)]
pub(crate) struct JsonReader<'a> {
    frame: &'a Bytes,
    data: &'a [u8],
    str: &'a str,
    at: usize,
    budget: Budget,
}

impl<'a> JsonReader<'a> {
    #[inline]
    fn peek(&mut self) -> Result<u8, DecodeError> {
        while let Some(octet) = self.data.get(self.at) {
            if !matches!(*octet, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(*octet);
            }
            self.at += 1;
        }
        Err(DecodeError::Truncated { at: self.at })
    }

    fn expect(&mut self, octet: u8, expected: &'static str) -> Result<(), DecodeError> {
        if self.peek()? == octet {
            self.at += 1;
            Ok(())
        } else {
            Err(DecodeError::Expected { at: self.at, expected })
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), DecodeError> {
        if self.data.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            Ok(())
        } else {
            Err(DecodeError::Malformed { at: self.at, what: "unknown word" })
        }
    }

    /// The string that comes next, without its quotes, and whether it has escapes.
    #[inline]
    fn string(&mut self, expected: &'static str) -> Result<(&'a str, bool), DecodeError> {
        self.expect(b'"', expected)?;
        let from = self.at;
        let (end, escapes) = scan(self.data, from)?;
        self.at = end + 1;
        Ok((self.str.get(from..end).unwrap_or_default(), escapes))
    }

    fn digits(&mut self) -> Result<(), DecodeError> {
        let from = self.at;
        while self.data.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at > from {
            Ok(())
        } else if from == self.data.len() {
            Err(DecodeError::Truncated { at: from })
        } else {
            Err(DecodeError::Malformed { at: from, what: "no digit where a number has one" })
        }
    }

    /// The number that comes next, and whether it is an integer.
    fn scan_number(&mut self) -> Result<(&'a str, bool), DecodeError> {
        let from = self.at;
        if self.data.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.data.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut integer = true;
        if self.data.get(self.at) == Some(&b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.data.get(self.at), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.data.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok((self.str.get(from..self.at).unwrap_or_default(), integer))
    }

    fn open(&mut self, octet: u8, map: bool) -> Result<Seq, DecodeError> {
        self.expect(octet, if map { "a map" } else { "a list" })?;
        self.budget.enter(self.at)?;
        Ok(Seq { left: None, started: false, map })
    }

    fn skip_items(&mut self, map: bool) -> Result<(), DecodeError> {
        let mut seq = if map { self.open(b'{', true)? } else { self.open(b'[', false)? };
        while self.more(&mut seq)? {
            if map {
                self.string("text")?;
                self.after_key()?;
            }
            self.skip()?;
        }
        Ok(())
    }
}

impl<'a> Reader<'a> for JsonReader<'a> {
    fn new(frame: &'a Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let budget = Budget::new(frame.len(), limits)?;
        let str = std::str::from_utf8(frame)
            .map_err(|e| DecodeError::Malformed { at: e.valid_up_to(), what: "not UTF-8" })?;
        Ok(Self { frame, data: frame, str, at: 0, budget })
    }

    fn at(&self) -> usize {
        self.at
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    fn pass_blanks(&mut self) {
        // An end is not an error here: whoever wants a value there will find out.
        let _end = self.peek();
    }

    #[inline]
    fn kind(&mut self) -> Result<Kind, DecodeError> {
        Ok(match self.peek()? {
            b'n' => Kind::Null,
            b't' | b'f' => Kind::Bool,
            b'-' | b'0'..=b'9' => Kind::Number,
            b'"' if self.data[self.at..].starts_with(OCTETS) => Kind::Bytes,
            b'"' => Kind::Text,
            b'[' => Kind::List,
            b'{' => Kind::Map,
            _ => return Err(DecodeError::Malformed { at: self.at, what: "no value" }),
        })
    }

    fn null(&mut self) -> Result<(), DecodeError> {
        self.peek()?;
        self.word("null")
    }

    fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.peek()? {
            b't' => self.word("true").map(|()| true),
            b'f' => self.word("false").map(|()| false),
            _ => Err(DecodeError::Expected { at: self.at, expected: "a boolean" }),
        }
    }

    fn number(&mut self) -> Result<Number, DecodeError> {
        if !matches!(self.peek()?, b'-' | b'0'..=b'9') {
            return Err(DecodeError::Expected { at: self.at, expected: "a number" });
        }
        let at = self.at;
        let (digits, integer) = self.scan_number()?;
        if integer && let Ok(number) = digits.parse::<u64>() {
            return Ok(Number::Int(number.into()));
        }
        // Minus zero is a floating point number, not an integer.
        if integer
            && digits != "-0"
            && let Ok(number) = digits.parse::<i64>()
        {
            return Ok(Number::Int(number.into()));
        }
        match digits.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Number::Float(number)),
            _ => Err(DecodeError::Unsupported { at, what: "a number beyond floating point" }),
        }
    }

    #[inline]
    fn text(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.peek()?;
        let at = self.at;
        if self.data[at..].starts_with(OCTETS) {
            return Err(DecodeError::Expected { at, expected: "text" });
        }
        let (body, escapes) = self.string("text")?;
        if escapes { unescape(body, at).map(Cow::Owned) } else { Ok(Cow::Borrowed(body)) }
    }

    #[inline]
    fn shared_text(&mut self) -> Result<ByteString, DecodeError> {
        let at = self.at;
        match self.text()? {
            Cow::Borrowed(text) => ByteString::try_from(self.frame.slice_ref(text.as_bytes()))
                .ok()
                .ok_or(DecodeError::Malformed { at, what: "not UTF-8" }),
            Cow::Owned(text) => Ok(text.into()),
        }
    }

    fn octets(&mut self) -> Result<Bytes, DecodeError> {
        self.peek()?;
        let at = self.at;
        if !self.data[at..].starts_with(OCTETS) {
            return Err(DecodeError::Expected { at, expected: "octets" });
        }
        let (body, _) = self.string("octets")?;
        let text = unescape(body, at)?;
        match BASE64.decode(text.get(1..).unwrap_or_default()) {
            Ok(octets) => Ok(octets.into()),
            Err(_) => Err(DecodeError::Malformed { at, what: "octets are not base64" }),
        }
    }

    #[inline]
    fn open_list(&mut self) -> Result<Seq, DecodeError> {
        self.open(b'[', false)
    }

    #[inline]
    fn open_map(&mut self) -> Result<Seq, DecodeError> {
        self.open(b'{', true)
    }

    #[inline]
    fn more(&mut self, seq: &mut Seq) -> Result<bool, DecodeError> {
        let end = if seq.map { b'}' } else { b']' };
        let next = self.peek()?;
        if next == end {
            self.at += 1;
            self.budget.leave();
            return Ok(false);
        }
        if seq.started {
            if next != b',' {
                return Err(DecodeError::Malformed { at: self.at, what: "neither comma nor end" });
            }
            self.at += 1;
            // A value must follow a comma; it is the reader of the value that finds an end there.
            self.pass_blanks();
        }
        seq.started = true;
        self.budget.spend(self.at, if seq.map { 2 } else { 1 })?;
        Ok(true)
    }

    fn after_key(&mut self) -> Result<(), DecodeError> {
        self.expect(b':', "a colon")
    }

    fn between_parts(&mut self) -> Result<(), DecodeError> {
        self.expect(b',', "a comma")
    }

    fn skip(&mut self) -> Result<(), DecodeError> {
        match self.peek()? {
            b'"' => self.string("text").map(|_| ()),
            b'-' | b'0'..=b'9' => self.scan_number().map(|_| ()),
            b'[' => self.skip_items(false),
            b'{' => self.skip_items(true),
            b'n' => self.word("null"),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            _ => Err(DecodeError::Malformed { at: self.at, what: "no value" }),
        }
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        match self.peek() {
            Ok(_) => Err(DecodeError::Trailing { at: self.at }),
            Err(_) => Ok(()),
        }
    }
}

/// Writes JSON without blanks.
#[derive(Debug)]
pub(crate) struct JsonWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
}

impl<'o> JsonWriter<'o> {
    /// Writes at the end of `out`.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    /// A comma, unless nothing needs to be told apart: no value ends in one of these octets.
    #[inline]
    fn separate(&mut self) {
        if self.out.len() > self.start && !matches!(self.out.last(), Some(b'[' | b'{' | b':')) {
            self.out.push(b',');
        }
    }
}

impl Writer for JsonWriter<'_> {
    fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"null");
    }

    fn boolean(&mut self, value: bool) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    #[inline]
    fn unsigned(&mut self, value: u64) {
        self.separate();
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn int(&mut self, value: i128) -> Result<(), EncodeError> {
        if let Ok(value) = u64::try_from(value) {
            self.unsigned(value);
        } else {
            let value = i64::try_from(value).ok().ok_or(EncodeError::IntegerRange)?;
            self.separate();
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
        Ok(())
    }

    fn float(&mut self, value: f64) -> Result<(), EncodeError> {
        if !value.is_finite() {
            return Err(EncodeError::NotFinite);
        }
        self.separate();
        // The shortest text that reads as the same number, always with a fraction or an exponent.
        write!(self.out, "{value:?}").ok().ok_or(EncodeError::TooLong)
    }

    #[inline]
    fn text(&mut self, value: &str) -> Result<(), EncodeError> {
        self.separate();
        write(self.out, value)
    }

    fn octets(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        self.separate();
        self.out.extend_from_slice(OCTETS);
        let from = self.out.len();
        let room = base64::encoded_len(value.len(), true).ok_or(EncodeError::TooLong)?;
        self.out.resize(from + room, 0);
        let target = self.out.get_mut(from..).unwrap_or_default();
        let len = BASE64.encode_slice(value, target).ok().ok_or(EncodeError::TooLong)?;
        self.out.truncate(from + len);
        self.out.push(b'"');
        Ok(())
    }

    #[inline]
    fn raw(&mut self, encoded: &[u8]) {
        self.separate();
        self.out.extend_from_slice(encoded);
    }

    #[inline]
    fn key(&mut self, key: &str) -> Result<(), EncodeError> {
        self.text(key)?;
        self.out.push(b':');
        Ok(())
    }

    #[inline]
    fn open_list(&mut self, _len: Option<usize>) -> Result<Mark, EncodeError> {
        self.separate();
        self.out.push(b'[');
        Ok(Mark(0))
    }

    #[inline]
    fn close_list(&mut self, _mark: Mark, _len: usize) -> Result<(), EncodeError> {
        self.out.push(b']');
        Ok(())
    }

    #[inline]
    fn open_map(&mut self, _len: Option<usize>) -> Result<Mark, EncodeError> {
        self.separate();
        self.out.push(b'{');
        Ok(Mark(0))
    }

    #[inline]
    fn close_map(&mut self, _mark: Mark, _len: usize) -> Result<(), EncodeError> {
        self.out.push(b'}');
        Ok(())
    }

    fn written(&self) -> usize {
        self.out.len()
    }
}
