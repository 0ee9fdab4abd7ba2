//! The elements of a message and the keys of its options, one after the other.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Kind, Number, Reader, Seq, values};
use crate::error::DecodeError;
use crate::message::options::{Choice, Names};
use crate::message::{MessageType, Ppt};
use crate::payload::{Parts, Payload};
use crate::serializer::Serializer;
use crate::value::Dict;

/// Capacity reserved for a list of ids or names on its own word.
const RESERVED_MAX: usize = 64;

/// Reads the elements of a message in their order.
#[derive(Debug)]
pub(crate) struct Fields<'a, R> {
    frame: &'a Bytes,
    serializer: Serializer,
    pub(crate) reader: R,
    seq: Seq,
    pub(crate) message: &'static str,
}

impl<'a, R: Reader<'a>> Fields<'a, R> {
    /// Opens the list and reads the type.
    pub(crate) fn open(
        frame: &'a Bytes,
        serializer: Serializer,
        mut reader: R,
    ) -> Result<(Self, MessageType), DecodeError> {
        let not = |expected| DecodeError::Field { message: "message", field: "type", expected };
        let mut seq = reader.open_list()?;
        if !reader.more(&mut seq)? || reader.kind()? != Kind::Number {
            return Err(not("an integer"));
        }
        let code = match reader.number()? {
            Number::Int(code) => {
                u64::try_from(code).ok().ok_or_else(|| not("a positive integer"))?
            }
            Number::Float(_) => return Err(not("an integer")),
        };
        let Some(message_type) = MessageType::from_code(code) else {
            return Err(DecodeError::UnknownType { code });
        };
        let message = message_type.name();
        Ok((Self { frame, serializer, reader, seq, message }, message_type))
    }

    fn wrong(&self, field: &'static str, expected: &'static str) -> DecodeError {
        DecodeError::Field { message: self.message, field, expected }
    }

    /// Whether there is another element.
    pub(crate) fn more(&mut self) -> Result<bool, DecodeError> {
        self.reader.more(&mut self.seq)
    }

    fn next(&mut self) -> Result<Kind, DecodeError> {
        if self.more()? {
            self.reader.kind()
        } else {
            Err(DecodeError::Arity { message: self.message })
        }
    }

    /// An integer that is not negative.
    #[inline]
    pub(crate) fn unsigned(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let expected = "an integer from 0 up";
        if self.next()? != Kind::Number {
            return Err(self.wrong(field, expected));
        }
        match self.reader.number()? {
            Number::Int(number) => {
                u64::try_from(number).ok().ok_or_else(|| self.wrong(field, expected))
            }
            Number::Float(_) => Err(self.wrong(field, expected)),
        }
    }

    /// An id.
    #[inline]
    pub(crate) fn id<T>(
        &mut self,
        field: &'static str,
        new: impl FnOnce(u64) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let number = self.unsigned(field)?;
        new(number).ok_or_else(|| self.wrong(field, "an id from 1 to 2^53"))
    }

    /// A text.
    #[inline]
    pub(crate) fn text(&mut self, field: &'static str) -> Result<ByteString, DecodeError> {
        if self.next()? != Kind::Text {
            return Err(self.wrong(field, "text"));
        }
        self.reader.shared_text()
    }

    /// A text or null.
    pub(crate) fn text_or_null(
        &mut self,
        field: &'static str,
    ) -> Result<Option<ByteString>, DecodeError> {
        match self.next()? {
            Kind::Null => self.reader.null().map(|()| None),
            Kind::Text => self.reader.shared_text().map(Some),
            _ => Err(self.wrong(field, "text or null")),
        }
    }

    /// A map, all of it.
    pub(crate) fn dict(&mut self, field: &'static str) -> Result<Dict, DecodeError> {
        if self.next()? != Kind::Map {
            return Err(self.wrong(field, "a map"));
        }
        values::dict(&mut self.reader)
    }

    /// A map of known keys: each is handed to `take`, which says whether it knows it and then has read its value.
    ///
    /// Keys it does not know are passed over, and so are keys whose value is null: as if they were absent.
    #[inline]
    pub(crate) fn options(
        &mut self,
        field: &'static str,
        mut take: impl FnMut(&str, &mut Key<'_, R>) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if self.next()? != Kind::Map {
            return Err(self.wrong(field, "a map"));
        }
        let mut seq = self.reader.open_map()?;
        while self.reader.more(&mut seq)? {
            if self.reader.kind()? != Kind::Text {
                return Err(self.wrong(field, "a map with keys of text"));
            }
            let name = self.reader.text()?;
            self.reader.after_key()?;
            self.reader.pass_blanks();
            let at = self.reader.at();
            let mut key = Key { reader: &mut self.reader, message: self.message, at };
            if !take(&name, &mut key)? {
                self.reader.skip()?;
            }
        }
        Ok(())
    }

    /// The arguments, and the end of the message.
    #[inline]
    pub(crate) fn payload(&mut self) -> Result<Payload, DecodeError> {
        if !self.more()? {
            self.reader.end()?;
            return Ok(Payload::empty());
        }
        self.reader.pass_blanks();
        let start = self.reader.at();
        if self.reader.kind()? != Kind::List {
            return Err(self.wrong("Arguments", "a list"));
        }
        self.reader.skip()?;
        let mut end = self.reader.at();
        let mut parts = Parts::Args;
        if self.more()? {
            if self.reader.kind()? != Kind::Map {
                return Err(self.wrong("ArgumentsKw", "a map"));
            }
            skip_dict(&mut self.reader)?;
            end = self.reader.at();
            parts = Parts::ArgsKwargs;
            self.finish()?;
        } else {
            self.reader.end()?;
        }
        Ok(Payload::from_raw_trusted(self.serializer, parts, self.frame.slice(start..end)))
    }

    /// The end of the message.
    #[inline]
    pub(crate) fn finish(&mut self) -> Result<(), DecodeError> {
        if self.more()? {
            return Err(DecodeError::Arity { message: self.message });
        }
        self.reader.end()
    }
}

/// Passes a map whose keys have to be text.
pub(crate) fn skip_dict<'a, R: Reader<'a>>(reader: &mut R) -> Result<(), DecodeError> {
    let mut seq = reader.open_map()?;
    while reader.more(&mut seq)? {
        reader.text()?;
        reader.after_key()?;
        reader.skip()?;
    }
    Ok(())
}

/// The value of a known key.
#[derive(Debug)]
pub(crate) struct Key<'r, R> {
    pub(crate) reader: &'r mut R,
    message: &'static str,
    at: usize,
}

impl<'a, R: Reader<'a>> Key<'_, R> {
    fn wrong<T>(&self, key: &'static str, expected: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError::Option { message: self.message, key, expected })
    }

    /// Whether the value is there; null is as if it were not.
    fn present(
        &mut self,
        key: &'static str,
        kind: Kind,
        expected: &'static str,
    ) -> Result<bool, DecodeError> {
        match self.reader.kind()? {
            Kind::Null => self.reader.null().map(|()| false),
            found if found == kind => Ok(true),
            _ => self.wrong(key, expected),
        }
    }

    /// A boolean, if there is one.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, DecodeError> {
        if self.present(key, Kind::Bool, "a boolean")? {
            self.reader.boolean().map(Some)
        } else {
            Ok(None)
        }
    }

    /// A boolean that is false where it is absent.
    pub(crate) fn flag(&mut self, key: &'static str) -> Result<bool, DecodeError> {
        self.boolean(key).map(Option::unwrap_or_default)
    }

    /// A text, if there is one.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<ByteString>, DecodeError> {
        if self.present(key, Kind::Text, "text")? {
            self.reader.shared_text().map(Some)
        } else {
            Ok(None)
        }
    }

    /// An integer that is not negative, if there is one.
    pub(crate) fn unsigned(&mut self, key: &'static str) -> Result<Option<u64>, DecodeError> {
        let expected = "an integer from 0 up";
        if !self.present(key, Kind::Number, expected)? {
            return Ok(None);
        }
        match self.reader.number()? {
            Number::Int(number) => match u64::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => self.wrong(key, expected),
            },
            Number::Float(_) => self.wrong(key, expected),
        }
    }

    /// An id, if there is one.
    pub(crate) fn id<T>(
        &mut self,
        key: &'static str,
        new: impl FnOnce(u64) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        match self.unsigned(key)? {
            None => Ok(None),
            Some(number) => match new(number) {
                Some(id) => Ok(Some(id)),
                None => self.wrong(key, "an id from 1 to 2^53"),
            },
        }
    }

    /// One of some names.
    pub(crate) fn choice<T: Names>(&mut self, key: &'static str) -> Result<Choice<T>, DecodeError> {
        let Some(name) = self.text(key)? else {
            return Ok(Choice::Absent);
        };
        Ok(match T::NAMES.iter().find(|(known, _)| name == *known) {
            Some((_, choice)) => Choice::Known(*choice),
            None => Choice::Unknown(name),
        })
    }

    /// A map, all of it.
    pub(crate) fn dict(&mut self, key: &'static str) -> Result<Option<Dict>, DecodeError> {
        if self.present(key, Kind::Map, "a map")? {
            values::dict(self.reader).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A list of texts.
    pub(crate) fn texts(
        &mut self,
        key: &'static str,
    ) -> Result<Option<Vec<ByteString>>, DecodeError> {
        self.list(key, "a list of texts", |key| match key.reader.kind()? {
            Kind::Text => key.reader.shared_text().map(Some),
            _ => Ok(None),
        })
    }

    /// A list of ids.
    pub(crate) fn ids<T>(
        &mut self,
        key: &'static str,
        new: impl Fn(u64) -> Option<T>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        self.list(key, "a list of ids", |key| {
            if key.reader.kind()? != Kind::Number {
                return Ok(None);
            }
            Ok(match key.reader.number()? {
                Number::Int(number) => u64::try_from(number).ok().and_then(&new),
                Number::Float(_) => None,
            })
        })
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<Option<T>, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        if !self.present(key, Kind::List, expected)? {
            return Ok(None);
        }
        let mut seq = self.reader.open_list()?;
        let mut items = Vec::with_capacity(seq.left.unwrap_or_default().min(RESERVED_MAX));
        while self.reader.more(&mut seq)? {
            self.reader.budget().spend_value(self.at)?;
            match item(self)? {
                Some(item) => items.push(item),
                None => return self.wrong(key, expected),
            }
        }
        Ok(Some(items))
    }

    /// An attribute of payload passthru mode; says whether `name` is one.
    pub(crate) fn ppt(
        &mut self,
        name: &str,
        ppt: &mut Option<Box<Ppt>>,
    ) -> Result<bool, DecodeError> {
        match name {
            "ppt_scheme" => {
                if let Some(scheme) = self.text("ppt_scheme")? {
                    ppt.get_or_insert_default().scheme = scheme;
                }
            }
            "ppt_serializer" => {
                let text = self.text("ppt_serializer")?;
                ppt.get_or_insert_default().serializer = text;
            }
            "ppt_cipher" => {
                let text = self.text("ppt_cipher")?;
                ppt.get_or_insert_default().cipher = text;
            }
            "ppt_keyid" => {
                let text = self.text("ppt_keyid")?;
                ppt.get_or_insert_default().keyid = text;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
