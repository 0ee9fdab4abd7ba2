//! The value of one key, between its text in a file or variable and its type in the program.
//!
//! Guarantees: whatever [`show_duration`] and [`show_bytes`] print is read back as the same value; every refusal says what was
//! expected. Refuses: guessing (a number without a unit is not a duration).

use serde_json::json;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A value as it was given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// Strings.
    List(Vec<String>),
    /// Text of a variable or flag, which may stand for any type.
    Untyped(String),
    /// Something no key takes, by its TOML name.
    Other(&'static str),
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

const TIME_UNITS: &[(&str, u128)] = &[
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl Value {
    /// How it stands in a TOML file.
    pub(crate) fn toml(&self) -> String {
        match self {
            Self::Text(text) | Self::Untyped(text) => toml::Value::String(text.clone()).to_string(),
            Self::Int(number) => number.to_string(),
            Self::Bool(truth) => truth.to_string(),
            Self::List(items) => {
                let items = items.iter().map(|item| toml::Value::String(item.clone()).to_string());
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            }
            Self::Other(kind) => (*kind).to_owned(),
        }
    }

    /// How it stands in JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) | Self::Untyped(text) => json!(text),
            Self::Int(number) => json!(number),
            Self::Bool(truth) => json!(truth),
            Self::List(items) => json!(items),
            Self::Other(kind) => json!(kind),
        }
    }

    fn found(&self) -> String {
        match self {
            Self::Text(text) | Self::Untyped(text) => format!("{text:?}"),
            Self::Int(number) => number.to_string(),
            Self::Bool(truth) => truth.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Other(kind) => format!("a {kind}"),
        }
    }

    fn expected(&self, what: &str) -> String {
        format!("{} is not {what}", self.found())
    }

    /// A string.
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Ok(text),
            Self::Int(_) | Self::Bool(_) | Self::List(_) | Self::Other(_) => {
                Err(self.expected("a string in quotes"))
            }
        }
    }

    /// A whole number in a range.
    pub(crate) fn int(&self, range: &RangeInclusive<u64>) -> Result<u64, String> {
        let what =
            || self.expected(&format!("a whole number from {} to {}", range.start(), range.end()));
        let number = match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Untyped(text) => text.trim().replace('_', "").parse().ok(),
            Self::Text(_) | Self::Bool(_) | Self::List(_) | Self::Other(_) => None,
        };
        number.filter(|n| range.contains(n)).ok_or_else(what)
    }

    /// True or false.
    pub(crate) fn bool(&self) -> Result<bool, String> {
        match self {
            Self::Bool(truth) => Ok(*truth),
            Self::Untyped(text) if text == "true" => Ok(true),
            Self::Untyped(text) if text == "false" => Ok(false),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A duration in a range.
    pub(crate) fn duration(&self, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
        let (low, high) = (show_duration(*range.start()), show_duration(*range.end()));
        let what = || self.expected(&format!("a duration from {low} to {high}, as \"10s\""));
        let (Self::Text(text) | Self::Untyped(text)) = self else { return Err(what()) };
        let parsed = humantime::parse_duration(text).ok();
        parsed.filter(|d| range.contains(d)).ok_or_else(what)
    }

    /// A duration in a range, or 0, which stands for none.
    pub(crate) fn duration_or_zero(
        &self,
        range: &RangeInclusive<Duration>,
    ) -> Result<Duration, String> {
        if self.duration(&(Duration::ZERO..=Duration::ZERO)).is_ok() {
            return Ok(Duration::ZERO);
        }
        self.duration(range).map_err(|why| format!("{why}, or \"0s\""))
    }

    /// A number of things in a range.
    pub(crate) fn count(&self, range: &RangeInclusive<u64>) -> Result<usize, String> {
        usize::try_from(self.int(range)?).map_err(|e| e.to_string())
    }

    /// A number of bytes in a range.
    pub(crate) fn bytes(&self, range: &RangeInclusive<u64>) -> Result<u64, String> {
        let (low, high) = (show_bytes(*range.start()), show_bytes(*range.end()));
        let what = || self.expected(&format!("a size from {low} to {high}, as \"64MiB\""));
        let parsed = match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Text(text) | Self::Untyped(text) => parse_bytes(text),
            Self::Bool(_) | Self::List(_) | Self::Other(_) => None,
        };
        parsed.filter(|n| range.contains(n)).ok_or_else(what)
    }

    /// Strings, each of which `check` lets through; in a variable they are separated by commas.
    pub(crate) fn list(
        &self,
        items_max: usize,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Vec<String>, String> {
        let items = match self {
            Self::List(items) => items.clone(),
            Self::Untyped(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(ToOwned::to_owned).collect()
            }
            Self::Text(_) | Self::Int(_) | Self::Bool(_) | Self::Other(_) => {
                return Err(self.expected("a list of strings, as [\"one\", \"two\"]"));
            }
        };
        if items.len() > items_max {
            return Err(format!("{} entries are more than {items_max}", items.len()));
        }
        items.iter().try_for_each(|item| check(item))?;
        Ok(items)
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let what = || self.expected(&format!("one of {}", words.join(", ")));
        let text = self.text().ok().ok_or_else(what)?;
        choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(what)
    }

    /// An IP address with a port.
    pub(crate) fn addr(&self) -> Result<SocketAddr, String> {
        let what = || self.expected("an IP address and port, as \"127.0.0.1:18086\"");
        self.text().ok().and_then(|text| text.parse().ok()).ok_or_else(what)
    }

    /// An IP address with a port; none if it is empty.
    pub(crate) fn addr_or_none(&self) -> Result<Option<SocketAddr>, String> {
        if self.text().is_ok_and(str::is_empty) {
            return Ok(None);
        }
        self.addr().map(Some).map_err(|why| format!("{why}, or empty"))
    }
}

/// Reads a number of bytes with an optional suffix: `64MiB`, `10 GB`, `4096`.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let unit = unit.trim();
    let factor = match unit {
        "" => 1,
        // A single letter means the binary unit, as in most tools that take sizes.
        "K" | "k" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.checked_mul(factor)
}

/// A number of bytes in the largest binary unit that divides it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let unit = SIZE_UNITS
        .iter()
        .filter(|(name, size)| name.len() != 2 && bytes >= *size)
        .find(|(_, size)| bytes.is_multiple_of(*size));
    match unit {
        Some((name, size)) => format!("{}{name}", bytes / size),
        None => format!("{bytes}B"),
    }
}

/// A duration in the largest unit that divides it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match TIME_UNITS.iter().find(|(_, size)| ms >= *size && ms.is_multiple_of(*size)) {
        Some((name, size)) => format!("{}{name}", ms / size),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_back_as_printed() {
        for bytes in [0, 1, 1023, 1024, 1000, 64 << 20, 3 << 30, 1 << 40, (1 << 40) + 1] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes), "{}", show_bytes(bytes));
        }
        assert_eq!(show_bytes(64 << 20), "64MiB");
        for (text, ms) in [("10s", 10_000), ("1m", 60_000), ("1w", 604_800_000), ("250ms", 250)] {
            let duration = Duration::from_millis(ms);
            assert_eq!(show_duration(duration), text);
            assert_eq!(humantime::parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn sizes_take_the_usual_suffixes() {
        let cases =
            [("64MiB", 64 << 20), ("64mib", 64 << 20), ("10 MB", 10_000_000), ("8M", 8 << 20)];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "99999999999TiB", "3 parsecs"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn lists_are_read_from_files_and_variables_and_bounded() {
        let list = Value::List(vec!["a".to_owned(), "b\"c".to_owned()]);
        assert_eq!(list.toml(), r#"["a", 'b"c']"#);
        assert_eq!(list.list(2, |_| Ok(())).map(|items| items.len()), Ok(2));
        assert_eq!(list.list(1, |_| Ok(())), Err("2 entries are more than 1".to_owned()));
        let variable = Value::Untyped(" a, b ,,c".to_owned());
        assert_eq!(variable.list(9, |_| Ok(())).unwrap(), ["a", "b", "c"]);
        assert_eq!(Value::Untyped(String::new()).list(9, |_| Ok(())), Ok(vec![]));
        let refuse = |item: &str| if item == "b" { Err("no b".to_owned()) } else { Ok(()) };
        assert_eq!(variable.list(9, refuse), Err("no b".to_owned()));
    }

    #[test]
    fn refusals_say_what_was_expected() {
        let second = Duration::from_secs(1)..=Duration::from_secs(60);
        assert_eq!(
            Value::Int(10).duration(&second),
            Err("10 is not a duration from 1s to 1m, as \"10s\"".to_owned())
        );
        assert!(Value::Text("2m".to_owned()).duration(&second).is_err());
        assert_eq!(Value::Untyped("8".to_owned()).int(&(1..=256)), Ok(8));
        assert_eq!(
            Value::Text("8".to_owned()).int(&(1..=256)),
            Err("\"8\" is not a whole number from 1 to 256".to_owned())
        );
        assert_eq!(
            Value::Text("fast".to_owned()).choice(&[("full", 1), ("relaxed", 2)]),
            Err("\"fast\" is not one of \"full\", \"relaxed\"".to_owned())
        );
        assert!(Value::Other("boolean").addr().is_err());
        assert!(Value::Text("a:1".to_owned()).list(9, |_| Ok(())).is_err());
    }
}
