//! CBOR, as far as WAMP needs it.

use super::serializer::{as_octets, octets};
use serde_json::{Map, Value};

/// Additional information of a head that says: until a break.
const INDEFINITE: u8 = 31;
const BREAK: u8 = 0xff;

pub(super) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(no_or_yes) => out.push(0xf4 + u8::from(*no_or_yes)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => head(out, 0, value),
            // Minus one minus the number is its bits turned over.
            (None, Some(value)) => head(out, 1, u64::from_be_bytes((!value).to_be_bytes())),
            (None, None) => {
                let value = number.as_f64().expect("any other number is a float");
                out.push(0xfb);
                out.extend(value.to_be_bytes());
            }
        },
        Value::String(text) => match as_octets(text) {
            Some(bytes) => {
                head(out, 2, bytes.len() as u64);
                out.extend(bytes);
            }
            None => write_text(out, text),
        },
        Value::Array(items) => {
            head(out, 4, items.len() as u64);
            items.iter().for_each(|item| write(out, item));
        }
        Value::Object(map) => {
            head(out, 5, map.len() as u64);
            for (key, item) in map {
                write_text(out, key);
                write(out, item);
            }
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    head(out, 3, text.len() as u64);
    out.extend(text.as_bytes());
}

fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    if let Ok(small) = u8::try_from(value) {
        if small < 24 {
            out.push(major | small);
        } else {
            out.extend([major | 24, small]);
        }
    } else if let Ok(short) = u16::try_from(value) {
        out.push(major | 25);
        out.extend(short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        out.push(major | 26);
        out.extend(word.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend(value.to_be_bytes());
    }
}

pub(super) fn decode(octets: &[u8]) -> Result<Value, String> {
    let mut rest = octets;
    let value = read(&mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err(format!("{} octets too many", rest.len())) }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], String> {
    let (taken, left) = rest.split_at_checked(len).ok_or("octets are missing")?;
    *rest = left;
    Ok(taken)
}

fn at_break(rest: &mut &[u8]) -> Result<bool, String> {
    let first = *rest.first().ok_or("octets are missing")?;
    if first == BREAK {
        *rest = &rest[1..];
    }
    Ok(first == BREAK)
}

fn read(rest: &mut &[u8]) -> Result<Value, String> {
    let first = take(rest, 1)?[0];
    let (major, info) = (first >> 5, first & 31);
    if major == 7 {
        return read_simple(rest, info);
    }
    let argument = match info {
        0..24 => Some(u64::from(info)),
        24..28 => {
            let octets = take(rest, 1 << (info - 24))?;
            Some(octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet)))
        }
        INDEFINITE if (2..6).contains(&major) => None,
        _ => return Err(format!("head {first:#x}")),
    };
    let len = || argument.map(|len| usize::try_from(len).map_err(|e| e.to_string())).transpose();
    Ok(match (major, argument) {
        (0, Some(value)) => value.into(),
        (1, Some(value)) => {
            let value = i64::try_from(value).map_err(|e| e.to_string())?;
            (!value).into()
        }
        (2, _) => octets(&read_string(rest, 2, len()?)?),
        (3, _) => read_text(rest, len()?)?.into(),
        (4, _) => {
            let mut items = Vec::new();
            while more(rest, len()?, items.len())? {
                items.push(read(rest)?);
            }
            items.into()
        }
        (5, _) => {
            let mut map = Map::new();
            while more(rest, len()?, map.len())? {
                let Value::String(key) = read(rest)? else {
                    return Err("a key is no text".to_owned());
                };
                if map.insert(key.clone(), read(rest)?).is_some() {
                    return Err(format!("two values of {key}"));
                }
            }
            map.into()
        }
        // A tag: its value is what it is about.
        (6, Some(_)) => read(rest)?,
        _ => return Err(format!("head {first:#x}")),
    })
}

fn more(rest: &mut &[u8], len: Option<usize>, done: usize) -> Result<bool, String> {
    match len {
        Some(len) => Ok(done < len),
        None => Ok(!at_break(rest)?),
    }
}

fn read_string(rest: &mut &[u8], major: u8, len: Option<usize>) -> Result<Vec<u8>, String> {
    if let Some(len) = len {
        return Ok(take(rest, len)?.to_vec());
    }
    let mut whole = Vec::new();
    while !at_break(rest)? {
        match (major, read(rest)?) {
            (3, Value::String(chunk)) if !chunk.starts_with('\0') => whole.extend(chunk.as_bytes()),
            (2, Value::String(chunk)) => {
                whole.extend(as_octets(&chunk).ok_or("a chunk of text in octets")?);
            }
            (_, other) => return Err(format!("a chunk is {other}")),
        }
    }
    Ok(whole)
}

fn read_text(rest: &mut &[u8], len: Option<usize>) -> Result<String, String> {
    String::from_utf8(read_string(rest, 3, len)?).map_err(|e| e.to_string())
}

fn read_simple(rest: &mut &[u8], info: u8) -> Result<Value, String> {
    let wrong = |_| "octets are missing".to_owned();
    Ok(match info {
        20 | 21 => (info == 21).into(),
        22 | 23 => Value::Null,
        25 => half(u16::from_be_bytes(take(rest, 2)?.try_into().map_err(wrong)?)).into(),
        26 => f64::from(f32::from_be_bytes(take(rest, 4)?.try_into().map_err(wrong)?)).into(),
        27 => f64::from_be_bytes(take(rest, 8)?.try_into().map_err(wrong)?).into(),
        _ => return Err(format!("simple value {info}")),
    })
}

/// A float of 16 bits.
fn half(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 0x3ff);
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}
