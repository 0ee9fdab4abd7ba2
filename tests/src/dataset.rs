//! Debian package records (`/var/lib/dpkg/status`, or a `Packages` file) as JSON lines for `weald import`.
//!
//! # Shape
//! One paragraph of RFC 822-like fields becomes one line `{"table": "packages", "key": "bash", "value": {...}}`. The key is the
//! name of the package, with `:<architecture>` where another architecture of the same name came before. In the value, the
//! fields keep their names and order and are strings; a field with continuation lines keeps its line breaks, the one blank
//! that starts a continuation line removed, and a line of a single `.` stays as it is.
//!
//! Refuses: interpreting fields. What comes out of the store can be compared with what went in, byte for byte.

use anyhow::{Context, Result, bail};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The table that the packages are put in.
pub const TABLE: &str = "packages";

/// One line of an import or export.
#[derive(Debug, Clone)]
pub struct Record {
    /// Table name.
    pub table: String,
    /// Key as JSON text.
    pub key: String,
    /// Value as JSON text, byte for byte.
    pub value: String,
}

/// Turns package records into JSON lines.
///
/// # Errors
/// A line that is neither a field, a continuation nor blank, and a paragraph without a name; both with the line's number.
pub fn jsonl(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut keys = BTreeSet::new();
    let mut fields: Vec<(&str, String)> = Vec::new();
    let lines = text.lines().chain(std::iter::once(""));
    for (number, line) in (1..).zip(lines) {
        if line.trim_end().is_empty() {
            if !fields.is_empty() {
                push_record(&fields, &mut keys, &mut out)
                    .with_context(|| format!("paragraph that ends before line {number}"))?;
                fields.clear();
            }
        } else if let Some(more) = line.strip_prefix([' ', '\t']) {
            let Some((_, value)) = fields.last_mut() else {
                bail!("line {number} continues a field, but there is none");
            };
            value.push('\n');
            value.push_str(more);
        } else {
            let Some((name, value)) = line.split_once(':') else {
                bail!("line {number} is no field: {line:?}");
            };
            fields.push((name, value.trim().to_owned()));
        }
    }
    Ok(out)
}

fn push_record(
    fields: &[(&str, String)],
    keys: &mut BTreeSet<String>,
    out: &mut String,
) -> Result<()> {
    let field = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    let name = field("Package").context("no field Package")?;
    let mut key = name.to_owned();
    if !keys.insert(key.clone()) {
        key = format!("{name}:{}", field("Architecture").unwrap_or("unknown"));
        if !keys.insert(key.clone()) {
            bail!("package {key} is there twice");
        }
    }
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| Ok(format!("{}:{}", json(name)?, json(value)?)))
        .collect::<Result<_>>()?;
    // The very form in which `weald export` writes a line, so that the two files can be compared.
    out.push_str(&format!(
        "{{\"table\": \"{TABLE}\", \"key\": {}, \"value\": {{{}}}}}\n",
        json(&key)?,
        pairs.join(",")
    ));
    Ok(())
}

fn json(text: &str) -> Result<String> {
    serde_json::to_string(text).context("encode a string")
}

/// Reads a line of an import or export; the value keeps its bytes.
///
/// # Errors
/// Anything but an object with table, key and value.
pub fn parse_line(line: &str) -> Result<Record> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        table: String,
        #[serde(borrow)]
        key: &'a RawValue,
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let parsed: Line<'_> = serde_json::from_str(line).with_context(|| format!("line {line:?}"))?;
    Ok(Record {
        table: parsed.table,
        key: parsed.key.get().to_owned(),
        value: parsed.value.get().to_owned(),
    })
}

/// A data set for a test, and where it came from.
#[derive(Debug)]
pub struct Dataset {
    /// Lines for `weald import`.
    pub jsonl: String,
    /// The file.
    pub source: PathBuf,
}

const DPKG_STATUS: &str = "/var/lib/dpkg/status";

/// The records of this machine: the file named by `WEALD_DATASET` (JSON lines when it ends in `.jsonl`, package records
/// otherwise), else the package records of Debian, else, and said loudly, the packages in this workspace's `Cargo.lock`.
///
/// # Errors
/// A file that cannot be read or converted.
pub fn of_this_machine() -> Result<Dataset> {
    if let Some(named) = std::env::var_os("WEALD_DATASET") {
        return of_file(Path::new(&named));
    }
    let status = Path::new(DPKG_STATUS);
    if status.try_exists().unwrap_or(false) {
        return of_file(status);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    eprintln!(
        "NOTE: no {DPKG_STATUS} and no WEALD_DATASET here; the data set is the smaller Cargo.lock"
    );
    let text = read(&source)?;
    Ok(Dataset { jsonl: jsonl(&lock_paragraphs(&text))?, source })
}

fn of_file(source: &Path) -> Result<Dataset> {
    let text = read(source)?;
    let jsonl = if source.extension().is_some_and(|e| e == "jsonl") {
        text
    } else {
        jsonl(&text).with_context(|| format!("convert {}", source.display()))?
    };
    Ok(Dataset { jsonl, source: source.to_owned() })
}

fn read(source: &Path) -> Result<String> {
    let bytes = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The packages of a `Cargo.lock` as paragraphs of fields.
fn lock_paragraphs(lock: &str) -> String {
    let mut out = String::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |name: &str| {
            let prefix = format!("{name} = \"");
            package.lines().find_map(|l| l.strip_prefix(&prefix)?.strip_suffix('"'))
        };
        let (Some(name), Some(version)) = (value("name"), value("version")) else {
            continue;
        };
        let checksum = value("checksum").unwrap_or("none");
        out.push_str(&format!(
            "Package: {name}-{version}\nVersion: {version}\nChecksum: {checksum}\n\n"
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_become_lines_with_fields_in_order() {
        let text = "Package: a\nVersion: 1:2\nDescription: short \"x\"\n long\n .\n  deep é\n\n\n\
                    Package: a\nArchitecture: i386\n\nPackage: b\nVersion:\n";
        assert_eq!(
            jsonl(text).unwrap(),
            "{\"table\": \"packages\", \"key\": \"a\", \"value\": {\"Package\":\"a\",\"Version\":\"1:2\",\
             \"Description\":\"short \\\"x\\\"\\nlong\\n.\\n deep é\"}}\n\
             {\"table\": \"packages\", \"key\": \"a:i386\", \"value\": {\"Package\":\"a\",\"Architecture\":\"i386\"}}\n\
             {\"table\": \"packages\", \"key\": \"b\", \"value\": {\"Package\":\"b\",\"Version\":\"\"}}\n"
        );
    }

    #[test]
    fn text_that_is_no_record_is_refused_with_its_line() {
        for (text, part) in [
            (" x\n", "line 1 continues"),
            ("Package: a\nnonsense\n", "line 2 is no field"),
            ("Version: 1\n", "no field Package"),
            ("Package: a\n\nPackage: a\n\nPackage: a\n", "a:unknown is there twice"),
        ] {
            let error = format!("{:#}", jsonl(text).unwrap_err());
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn lines_keep_the_bytes_of_their_value() {
        let record =
            parse_line(r#"{"table": "t", "key": "k", "value": {"v" : 5.20,"e":"\u00e9"}}"#)
                .unwrap();
        assert_eq!(record.value, r#"{"v" : 5.20,"e":"\u00e9"}"#);
        assert!(parse_line("{}").is_err());
    }
}
