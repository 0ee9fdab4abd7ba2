//! MessagePack, as far as WAMP needs it.

use super::serializer::{as_octets, octets};
use serde_json::{Map, Number, Value};

pub(super) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(no_or_yes) => out.push(0xc2 + u8::from(*no_or_yes)),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => match as_octets(text) {
            Some(bytes) => {
                head(out, bytes.len(), None, [Some(0xc4), Some(0xc5), Some(0xc6)]);
                out.extend(bytes);
            }
            None => {
                head(out, text.len(), Some((0xa0, 32)), [Some(0xd9), Some(0xda), Some(0xdb)]);
                out.extend(text.as_bytes());
            }
        },
        Value::Array(items) => {
            head(out, items.len(), Some((0x90, 16)), [None, Some(0xdc), Some(0xdd)]);
            items.iter().for_each(|item| write(out, item));
        }
        Value::Object(map) => {
            head(out, map.len(), Some((0x80, 16)), [None, Some(0xde), Some(0xdf)]);
            for (key, item) in map {
                head(out, key.len(), Some((0xa0, 32)), [Some(0xd9), Some(0xda), Some(0xdb)]);
                out.extend(key.as_bytes());
                write(out, item);
            }
        }
    }
}

/// Type and length: in the first octet itself below a limit, else after one of three for 1, 2 and 4 octets of length.
fn head(out: &mut Vec<u8>, len: usize, fix: Option<(u8, u8)>, wide: [Option<u8>; 3]) {
    let (small, short) = (u8::try_from(len), u16::try_from(len));
    match (fix, small, short, wide) {
        (Some((base, below)), Ok(len), _, _) if len < below => out.push(base + len),
        (_, Ok(len), _, [Some(code), _, _]) => out.extend([code, len]),
        (_, _, Ok(len), [_, Some(code), _]) => {
            out.push(code);
            out.extend(len.to_be_bytes());
        }
        (_, _, _, [_, _, code]) => {
            let len = u32::try_from(len).expect("values of tests are small");
            out.push(code.expect("each type has a widest form"));
            out.extend(len.to_be_bytes());
        }
    }
}

fn write_number(out: &mut Vec<u8>, number: &Number) {
    if let Some(value) = number.as_u64() {
        if let Ok(small) = u8::try_from(value) {
            if small >= 128 {
                out.push(0xcc);
            }
            out.push(small);
        } else if let Ok(short) = u16::try_from(value) {
            out.push(0xcd);
            out.extend(short.to_be_bytes());
        } else if let Ok(word) = u32::try_from(value) {
            out.push(0xce);
            out.extend(word.to_be_bytes());
        } else {
            out.push(0xcf);
            out.extend(value.to_be_bytes());
        }
    } else if let Some(value) = number.as_i64() {
        if let Ok(small) = i8::try_from(value) {
            if small < -32 {
                out.push(0xd0);
            }
            out.extend(small.to_be_bytes());
        } else if let Ok(short) = i16::try_from(value) {
            out.push(0xd1);
            out.extend(short.to_be_bytes());
        } else if let Ok(word) = i32::try_from(value) {
            out.push(0xd2);
            out.extend(word.to_be_bytes());
        } else {
            out.push(0xd3);
            out.extend(value.to_be_bytes());
        }
    } else {
        let value = number.as_f64().expect("any other number is a float");
        out.push(0xcb);
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

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    take(rest, N)?.try_into().map_err(|_wrong_len| "octets are missing".to_owned())
}

fn length(rest: &mut &[u8], octets: usize) -> Result<usize, String> {
    Ok(take(rest, octets)?.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)))
}

fn read(rest: &mut &[u8]) -> Result<Value, String> {
    let [first] = fixed(rest)?;
    Ok(match first {
        0x00..=0x7f => first.into(),
        0x80..=0x8f => read_map(rest, usize::from(first & 0x0f))?,
        0x90..=0x9f => read_list(rest, usize::from(first & 0x0f))?,
        0xa0..=0xbf => read_text(rest, usize::from(first & 0x1f))?.into(),
        0xc0 => Value::Null,
        0xc2 | 0xc3 => (first == 0xc3).into(),
        0xc4..=0xc6 => {
            let len = length(rest, 1 << (first - 0xc4))?;
            octets(take(rest, len)?)
        }
        0xca => f64::from(f32::from_be_bytes(fixed(rest)?)).into(),
        0xcb => f64::from_be_bytes(fixed(rest)?).into(),
        0xcc => u8::from_be_bytes(fixed(rest)?).into(),
        0xcd => u16::from_be_bytes(fixed(rest)?).into(),
        0xce => u32::from_be_bytes(fixed(rest)?).into(),
        0xcf => u64::from_be_bytes(fixed(rest)?).into(),
        0xd0 => i8::from_be_bytes(fixed(rest)?).into(),
        0xd1 => i16::from_be_bytes(fixed(rest)?).into(),
        0xd2 => i32::from_be_bytes(fixed(rest)?).into(),
        0xd3 => i64::from_be_bytes(fixed(rest)?).into(),
        0xd9..=0xdb => {
            let len = length(rest, 1 << (first - 0xd9))?;
            read_text(rest, len)?.into()
        }
        0xdc | 0xdd => {
            let len = length(rest, 2 << (first - 0xdc))?;
            read_list(rest, len)?
        }
        0xde | 0xdf => {
            let len = length(rest, 2 << (first - 0xde))?;
            read_map(rest, len)?
        }
        0xe0..=0xff => i8::from_be_bytes([first]).into(),
        0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(format!("type {first:#x}")),
    })
}

fn read_text(rest: &mut &[u8], len: usize) -> Result<String, String> {
    String::from_utf8(take(rest, len)?.to_vec()).map_err(|e| e.to_string())
}

fn read_list(rest: &mut &[u8], len: usize) -> Result<Value, String> {
    (0..len).map(|_| read(rest)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn read_map(rest: &mut &[u8], len: usize) -> Result<Value, String> {
    let mut map = Map::new();
    for _ in 0..len {
        let Value::String(key) = read(rest)? else { return Err("a key is no text".to_owned()) };
        if map.insert(key.clone(), read(rest)?).is_some() {
            return Err(format!("two values of {key}"));
        }
    }
    Ok(map.into())
}
