//! The little of protobuf that the filter needs: tags, varints and one exact field.

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a varint; the value and the bytes after it. Over-long encodings are refused.
pub(crate) fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        let shift = 7 * u32::try_from(index).map_err(|_too_wide| Malformed)?;
        let part = u64::from(byte & 0x7F);
        if shift == 63 && part > 1 {
            return Err(Malformed);
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            if index > 0 && byte == 0 {
                return Err(Malformed);
            }
            return Ok((value, bytes.get(index + 1..).unwrap_or_default()));
        }
    }
    Err(Malformed)
}

/// Appends a varint.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7F).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// Reads the head of a length-delimited field with this tag: the length it announces, and the bytes after the head.
pub(crate) fn field(tag: u8, bytes: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    match bytes.split_first() {
        Some((&first, rest)) if first == tag => {
            let (len, rest) = varint(rest)?;
            Ok((usize::try_from(len).map_err(|_too_wide| Malformed)?, rest))
        }
        _ => Err(Malformed),
    }
}

/// Reads a message that consists of exactly one length-delimited field with this tag: its content.
pub(crate) fn only_field(tag: u8, bytes: &[u8]) -> Result<&[u8], Malformed> {
    match field(tag, bytes)? {
        (len, rest) if len == rest.len() => Ok(rest),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_refuse_padding() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            assert_eq!(varint(&out), Ok((value, &[][..])));
            assert_eq!(varint(&out[..out.len() - 1]), Err(Malformed));
        }
        assert_eq!(varint(&[0x80, 0]), Err(Malformed));
        assert_eq!(varint(&[0xFF; 10]), Err(Malformed));
    }
}
