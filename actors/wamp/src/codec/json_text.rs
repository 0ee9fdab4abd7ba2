//! The strings of JSON: where they end, what their escapes mean, and how to write them.

use crate::error::{DecodeError, EncodeError};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Whether one of eight octets is a quote, a backslash or a control character.
#[inline]
fn has_special(octets: u64) -> bool {
    // Octets that are zero after the subtraction borrow into their highest bit; octets from 80 up do not count.
    let equal = |wanted: u8| {
        let x = octets ^ (ONES * u64::from(wanted));
        x.wrapping_sub(ONES) & !x
    };
    let below_space = octets.wrapping_sub(ONES * 0x20) & !octets;
    (equal(b'"') | equal(b'\\') | below_space) & HIGHS != 0
}

/// Index of the first quote, backslash or control character from `at` on, or the length.
#[inline]
pub(crate) fn special_from(data: &[u8], mut at: usize) -> usize {
    while let Some(octets) = data.get(at..at + 8).and_then(|eight| eight.try_into().ok()) {
        if has_special(u64::from_le_bytes(octets)) {
            break;
        }
        at += 8;
    }
    while let Some(octet) = data.get(at) {
        if matches!(*octet, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}

/// From the octet after the opening quote to the closing quote: its index, and whether there are escapes.
pub(crate) fn scan(data: &[u8], from: usize) -> Result<(usize, bool), DecodeError> {
    let mut at = from;
    let mut escapes = false;
    loop {
        at = special_from(data, at);
        match data.get(at) {
            Some(b'"') => return Ok((at, escapes)),
            Some(b'\\') => {
                escapes = true;
                at += escape_len(data, at)?;
            }
            Some(_) => {
                return Err(DecodeError::Malformed { at, what: "control character in a string" });
            }
            None => return Err(DecodeError::Truncated { at: from }),
        }
    }
}

/// The length of the escape at `at`.
fn escape_len(data: &[u8], at: usize) -> Result<usize, DecodeError> {
    match data.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => match data.get(at + 2..at + 6) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(6),
            Some(_) => Err(DecodeError::Malformed { at, what: "escape without four digits" }),
            None => Err(DecodeError::Truncated { at }),
        },
        Some(_) => Err(DecodeError::Malformed { at, what: "unknown escape" }),
        None => Err(DecodeError::Truncated { at }),
    }
}

/// The meaning of a scanned string with escapes, which begins at `at` in the frame.
pub(crate) fn unescape(body: &str, at: usize) -> Result<String, DecodeError> {
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let lone = DecodeError::Malformed { at, what: "half a surrogate pair" };
        let mut len = 2;
        let meaning = match escaped.as_bytes().first() {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                len = 6;
                let first = hex(escaped.get(1..5)).ok_or_else(|| lone.clone())?;
                match char::from_u32(first) {
                    Some(meaning) => meaning,
                    None => {
                        len = 12;
                        let low = escaped.get(5..11).filter(|next| next.starts_with("\\u"));
                        let second =
                            hex(low.and_then(|next| next.get(2..))).ok_or_else(|| lone.clone())?;
                        pair(first, second).ok_or(lone)?
                    }
                }
            }
            Some(other) => char::from(*other),
            None => return Err(DecodeError::Truncated { at }),
        };
        text.push(meaning);
        rest = escaped.get(len - 1..).unwrap_or_default();
    }
    text.push_str(rest);
    Ok(text)
}

fn hex(digits: Option<&str>) -> Option<u32> {
    u32::from_str_radix(digits?, 16).ok()
}

fn pair(high: u32, low: u32) -> Option<char> {
    if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
}

/// Writes a string with its quotes.
pub(crate) fn write(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    // It would be taken for octets.
    if text.starts_with('\0') {
        return Err(EncodeError::LeadingNul);
    }
    let data = text.as_bytes();
    out.push(b'"');
    let mut from = 0;
    loop {
        let at = special_from(data, from);
        out.extend_from_slice(data.get(from..at).unwrap_or_default());
        let Some(octet) = data.get(at) else { break };
        escape(out, *octet);
        from = at + 1;
    }
    out.push(b'"');
    Ok(())
}

fn escape(out: &mut Vec<u8>, octet: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match octet {
        b'"' | b'\\' => octet,
        0x8 => b'b',
        0xc => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digit = |nibble: u8| DIGITS[usize::from(nibble & 0xf)];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[digit(octet >> 4), digit(octet)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
