//! One record as one line: JSON with its CRC-32C as the last field.
//!
//! Guarantees: any tool that reads JSON lines reads the log; a line that was torn or altered is
//! noticed. Refuses: to repair lines.

use crate::record::Record;

const CRC_PREFIX: &str = ",\"crc32c\":\"";
/// `,"crc32c":"01234567"}`
const CRC_SUFFIX_BYTES: usize = CRC_PREFIX.len() + 8 + 2;

/// The line of a record with its line feed. The checksum covers what comes before its own field.
///
/// # Errors
/// The record does not serialise (cannot happen with its present fields).
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(record)?;
    line.pop(); // the closing brace comes after the checksum
    let crc = crc32c::crc32c(&line);
    line.extend_from_slice(format!("{CRC_PREFIX}{crc:08x}\"}}\n").as_bytes());
    Ok(line)
}

/// The record of a line without its line feed; `None` when the line is torn or altered.
pub(super) fn decode(line: &[u8]) -> Option<Record> {
    let body_len = line.len().checked_sub(CRC_SUFFIX_BYTES)?;
    let (body, suffix) = line.split_at(body_len);
    let hex = suffix.strip_prefix(CRC_PREFIX.as_bytes())?.strip_suffix(b"\"}")?;
    let crc = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
    if crc32c::crc32c(body) != crc {
        return None;
    }
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Event;

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let mut record =
            Record::note(Event::Quarantined, "node/storage", "a \"text\"\nof two lines");
        record.seq = 7;
        let line = encode(&record).unwrap();
        let line = &line[..line.len() - 1];
        assert_eq!(decode(line), Some(record));
        assert!(!line.contains(&b'\n'));
        for at in 0..line.len() {
            let mut bad = line.to_vec();
            bad[at] ^= 0x01;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&line[..at]), None, "cut {at}");
        }
    }
}
