//! From one encoding to another in one pass, without values in memory.

use super::{Kind, Number, Reader, Writer};
use crate::error::TranscodeError;

/// Copies one value; stops where more than `end` octets have been written.
pub(crate) fn copy<'a, R: Reader<'a>, W: Writer>(
    reader: &mut R,
    writer: &mut W,
    end: usize,
) -> Result<(), TranscodeError> {
    match reader.kind()? {
        Kind::Null => {
            reader.null()?;
            writer.null();
        }
        Kind::Bool => writer.boolean(reader.boolean()?),
        Kind::Number => match reader.number()? {
            Number::Int(number) => writer.int(number)?,
            Number::Float(number) => writer.float(number)?,
        },
        Kind::Text => writer.text(&reader.text()?)?,
        Kind::Bytes => writer.octets(&reader.octets()?)?,
        Kind::List => copy_list(reader, writer, end)?,
        Kind::Map => copy_map(reader, writer, end)?,
    }
    if writer.written() > end { Err(TranscodeError::TooLarge { max: end }) } else { Ok(()) }
}

fn copy_list<'a, R: Reader<'a>, W: Writer>(
    reader: &mut R,
    writer: &mut W,
    end: usize,
) -> Result<(), TranscodeError> {
    let mut seq = reader.open_list()?;
    let mark = writer.open_list(seq.left)?;
    let mut len = 0;
    while reader.more(&mut seq)? {
        copy(reader, writer, end)?;
        len += 1;
    }
    Ok(writer.close_list(mark, len)?)
}

fn copy_map<'a, R: Reader<'a>, W: Writer>(
    reader: &mut R,
    writer: &mut W,
    end: usize,
) -> Result<(), TranscodeError> {
    let mut seq = reader.open_map()?;
    let mark = writer.open_map(seq.left)?;
    let mut len = 0;
    while reader.more(&mut seq)? {
        let at = reader.at();
        if reader.kind()? != Kind::Text {
            return Err(TranscodeError::KeyNotText { at });
        }
        writer.key(&reader.text()?)?;
        reader.after_key()?;
        copy(reader, writer, end)?;
        len += 1;
    }
    Ok(writer.close_map(mark, len)?)
}
