//! One line of an import or export.

use crate::text;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use weald_proto::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use weald_proto::request::Put;
use weald_storage::TableName;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Reads a line into the write it stands for.
pub(crate) fn parse(line: &[u8]) -> Result<Put, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|e| {
        // A line is one line: the parser's "at line 1" says nothing.
        e.to_string().replace(" at line 1 column ", " at column ")
    })?;
    TableName::parse(&line.table).map_err(|e| e.to_string())?;
    let key = text::decode_key(line.key)?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("key has {} bytes, not 1 to {KEY_BYTES_MAX}", key.len()));
    }
    let value = text::decode_value(line.value)?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("value has {} bytes, over {VALUE_BYTES_MAX}", value.len()));
    }
    Ok(Put { table: line.table.into_owned(), key, value, context: None, ttl_ms: None })
}

/// Writes an entry as a line, with its line break.
pub(crate) fn render(table: &str, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"table\": ");
    // Table names have no character that JSON escapes.
    out.push(b'"');
    out.extend_from_slice(table.as_bytes());
    out.extend_from_slice(b"\", \"key\": ");
    out.extend_from_slice(text::encode_key(key).as_bytes());
    out.extend_from_slice(b", \"value\": ");
    out.extend_from_slice(text::encode_value(value).get().as_bytes());
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_byte_for_byte() {
        let lines: [&[u8]; 4] = [
            b"{\"table\": \"packages\", \"key\": \"bash\", \"value\": {\"v\" : 5.20, \"x\":[1e3,\"\\u00e9\"]}}\n",
            b"{\"table\": \"t\", \"key\": {\"$bytes\": \"/w==\"}, \"value\": {\"$bytes\": \"AP8=\"}}\n",
            b"{\"table\": \"t\", \"key\": \"k\", \"value\": null}\n",
            b"{\"table\": \"t\", \"key\": \"k\", \"value\": {\"$bytes\":1}}\n",
        ];
        for line in lines {
            let put = parse(line).unwrap();
            let mut out = Vec::new();
            render(&put.table, &put.key, &put.value, &mut out);
            assert_eq!(out.escape_ascii().to_string(), line.escape_ascii().to_string());
        }
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        let cases = [
            ("{\"table\": \"t\", \"key\": \"k\"}", "missing field `value`"),
            ("{\"table\": \"t\", \"key\": \"k\", \"value\": 1, \"tll\": 2}", "unknown field `tll`"),
            ("{\"table\": \"t\", \"key\": \"\", \"value\": 1}", "key has 0 bytes"),
            ("{\"table\": \"T T\", \"key\": \"k\", \"value\": 1}", "table name"),
            ("{\"table\": \"t\", \"key\": 5, \"value\": 1}", "neither a string"),
            ("{\"table\": \"t\", \"key\": \"k\", \"value\": {\"$bytes\": \"?\"}}", "base64"),
            ("{\"table\": \"t\", \"key\": \"k\", \"value\": 1} x", "trailing"),
            ("not json", "at column"),
        ];
        for (line, part) in cases {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert!(parse(b"{\"table\": \"t\", \"key\": \"\xff\", \"value\": 1}").is_err());
    }
}
