//! Values in memory, read and written.

use super::{Kind, Number, Reader, Writer};
use crate::error::{DecodeError, EncodeError};
use crate::value::{Dict, Value};

/// Capacity reserved for a container on its own word; the rest comes as the items do.
const RESERVED_MAX: usize = 64;

/// Reads any value.
pub(crate) fn value<'a, R: Reader<'a>>(reader: &mut R) -> Result<Value, DecodeError> {
    let at = reader.at();
    reader.budget().spend_value(at)?;
    Ok(match reader.kind()? {
        Kind::Null => {
            reader.null()?;
            Value::Null
        }
        Kind::Bool => Value::Bool(reader.boolean()?),
        Kind::Number => match reader.number()? {
            Number::Int(number) => Value::Int(number),
            Number::Float(number) => Value::Float(number),
        },
        Kind::Text => Value::Text(reader.shared_text()?),
        Kind::Bytes => Value::Bytes(reader.octets()?),
        Kind::List => Value::List(list(reader)?),
        Kind::Map => Value::Map(dict(reader)?),
    })
}

/// Reads a list.
pub(crate) fn list<'a, R: Reader<'a>>(reader: &mut R) -> Result<Vec<Value>, DecodeError> {
    let mut seq = reader.open_list()?;
    let mut values = Vec::with_capacity(seq.left.unwrap_or_default().min(RESERVED_MAX));
    while reader.more(&mut seq)? {
        values.push(value(reader)?);
    }
    Ok(values)
}

/// Reads a map with keys of text.
pub(crate) fn dict<'a, R: Reader<'a>>(reader: &mut R) -> Result<Dict, DecodeError> {
    let mut seq = reader.open_map()?;
    let mut dict = Dict::new();
    while reader.more(&mut seq)? {
        let key = reader.shared_text()?;
        reader.after_key()?;
        dict.push(key, value(reader)?);
    }
    Ok(dict)
}

/// Writes any value.
pub(crate) fn write_value<W: Writer>(writer: &mut W, value: &Value) -> Result<(), EncodeError> {
    match value {
        Value::Null => writer.null(),
        Value::Bool(value) => writer.boolean(*value),
        Value::Int(value) => writer.int(*value)?,
        Value::Float(value) => writer.float(*value)?,
        Value::Text(value) => writer.text(value)?,
        Value::Bytes(value) => writer.octets(value)?,
        Value::List(values) => write_list(writer, values)?,
        Value::Map(dict) => write_dict(writer, dict)?,
    }
    Ok(())
}

/// Writes a list.
pub(crate) fn write_list<W: Writer>(writer: &mut W, values: &[Value]) -> Result<(), EncodeError> {
    let mark = writer.open_list(Some(values.len()))?;
    for value in values {
        write_value(writer, value)?;
    }
    writer.close_list(mark, values.len())
}

/// Writes a map.
pub(crate) fn write_dict<W: Writer>(writer: &mut W, dict: &Dict) -> Result<(), EncodeError> {
    let mark = writer.open_map(Some(dict.len()))?;
    for (key, value) in dict.iter() {
        writer.key(key)?;
        write_value(writer, value)?;
    }
    writer.close_map(mark, dict.len())
}
