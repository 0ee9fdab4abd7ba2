//! Putting the layers of a configuration together.

use super::keys::{self, Key};
use super::value::Value;
use super::{Config, RULES};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody set it.
    Default,
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Something wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) source: Source,
    /// The key, if it is about one.
    pub(crate) key: Option<String>,
    /// What is wrong and what was expected.
    pub(crate) message: String,
    /// What was probably meant.
    pub(crate) suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let line = match &self.source {
            Source::File(_, line) => Some(line),
            Source::Default | Source::Variable(_) | Source::Flag(_) => None,
        };
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("source", &self.source.to_string())?;
        map.serialize_entry("line", &line)?;
        map.serialize_entry("key", &self.key)?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("suggestion", &self.suggestion)?;
        map.end()
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// Key, flag and value.
    pub(crate) values: Vec<(&'static str, &'static str, String)>,
}

/// A configuration with where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The values; with problems, the defaults stand where a value was refused.
    pub(crate) config: Config,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// Everything that is wrong. None: the configuration may be used.
    pub(crate) problems: Vec<Problem>,
    /// Variables that look like a slip but may belong to something else.
    pub(crate) warnings: Vec<Problem>,
    sources: BTreeMap<&'static str, Source>,
}

/// The file that is read without `--config`, if it is there.
pub(crate) const DEFAULT_FILE: &str = "weald.toml";
/// The variable that stands for `--config`.
pub(crate) const CONFIG_VARIABLE: &str = "WEALD_CONFIG";
/// The variable that stands for `--data-dir`, for the node and for every command.
pub(crate) const DATA_DIR_VARIABLE: &str = "WEALD_DATA_DIR";
const PREFIX: &str = "WEALD_";

/// Loads the configuration from all layers.
pub(crate) fn load(
    flags: &Flags,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Loaded {
    let environment: BTreeMap<String, String> = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    let mut loaded = Loaded {
        config: Config::default(),
        file: None,
        problems: Vec::new(),
        warnings: Vec::new(),
        sources: BTreeMap::new(),
    };
    let named = flags.config.clone().or_else(|| environment.get(CONFIG_VARIABLE).map(Into::into));
    loaded.read_file(named.as_deref());
    loaded.read_environment(&environment);
    for (path, flag, value) in &flags.values {
        loaded.set(path, &Value::Untyped(value.clone()), Source::Flag(flag));
    }
    loaded.check_rules();
    loaded
}

impl Loaded {
    /// Where the value of a key came from.
    pub(crate) fn source(&self, path: &str) -> &Source {
        self.sources.get(path).unwrap_or(&Source::Default)
    }

    fn problem(&mut self, source: Source, key: Option<&str>, message: impl Into<String>) {
        let key = key.map(ToOwned::to_owned);
        self.problems.push(Problem { source, key, message: message.into(), suggestion: None });
    }

    fn set(&mut self, path: &str, value: &Value, source: Source) {
        let Some(key) = keys::find(path) else {
            let suggestion = keys::nearest(path, keys::all().map(|key| key.path));
            self.problems.push(Problem {
                source,
                key: Some(path.to_owned()),
                message: "unknown key".to_owned(),
                suggestion: suggestion.map(ToOwned::to_owned),
            });
            return;
        };
        self.set_key(key, value, source);
    }

    fn set_key(&mut self, key: &'static Key, value: &Value, source: Source) {
        match (key.set)(&mut self.config, value) {
            Ok(()) => {
                self.sources.insert(key.path, source);
            }
            Err(message) => self.problem(source, Some(key.path), message),
        }
    }

    fn read_file(&mut self, named: Option<&Path>) {
        let path = named.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => {
                self.read_toml(path, &text);
                self.file = Some(path.to_owned());
            }
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                let source = Source::File(path.to_owned(), 1);
                self.problem(source, None, format!("cannot be read: {e}"));
            }
        }
    }

    /// Reads the text of a file. Goes on after an error, so that all are found.
    pub(super) fn read_toml(&mut self, path: &Path, text: &str) {
        let lines = Lines::new(text);
        let at = |offset: usize| Source::File(path.to_owned(), lines.line_of(offset));
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.problem(at(offset), None, error.message().to_owned());
        }
        let mut sections: Vec<_> = document.get_ref().iter().collect();
        sections.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in sections {
            self.read_section(name, value, &at);
        }
        self.problems.sort_by_key(|problem| match &problem.source {
            Source::File(_, line) => *line,
            Source::Default | Source::Variable(_) | Source::Flag(_) => usize::MAX,
        });
    }

    fn read_section(
        &mut self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        at: &dyn Fn(usize) -> Source,
    ) {
        let section = name.get_ref().as_ref();
        let source = at(name.span().start);
        if !keys::SECTIONS.iter().any(|known| known.name == section) {
            let suggestion = keys::nearest(section, keys::SECTIONS.iter().map(|s| s.name))
                .map(|name| format!("[{name}]"))
                .or_else(|| {
                    // A key without its section: say which section it belongs to.
                    let key = keys::all().find(|key| key.name() == section)?;
                    Some(key.path.to_owned())
                });
            let message = match value.get_ref() {
                DeValue::Table(_) => "unknown section",
                _ => "unknown key outside of any section",
            };
            let key = Some(section.to_owned());
            self.problems.push(Problem { source, key, message: message.to_owned(), suggestion });
            return;
        }
        let DeValue::Table(table) = value.get_ref() else {
            self.problem(
                source,
                Some(section),
                "is a section: write it as a line of its own in []",
            );
            return;
        };
        for (key, value) in table {
            let path = format!("{section}.{}", key.get_ref());
            let source = at(key.span().start);
            let value = beside(plain(value.get_ref()), &path, &source);
            self.set(&path, &value, source);
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        // The plain variable first: the long form of the same key is more explicit and wins.
        if let Some(dir) = environment.get(DATA_DIR_VARIABLE) {
            let source = Source::Variable(DATA_DIR_VARIABLE.to_owned());
            self.set("node.data_dir", &Value::Untyped(dir.clone()), source);
        }
        for (name, value) in environment {
            if name == CONFIG_VARIABLE || name == DATA_DIR_VARIABLE {
                continue;
            }
            let source = Source::Variable(name.clone());
            if let Some(key) = keys::all().find(|key| key.variable() == *name) {
                self.set_key(key, &Value::Untyped(value.clone()), source);
                continue;
            }
            let names: Vec<String> = keys::all().map(Key::variable).collect();
            let nearest = keys::nearest(name, names.iter().map(String::as_str));
            let problem = Problem {
                source,
                key: None,
                message: "names no key".to_owned(),
                suggestion: nearest.map(ToOwned::to_owned),
            };
            // A double underscore is our way of writing a key. Others may be somebody else's: service managers set
            // variables named after a service.
            if name.contains("__") {
                self.problems.push(problem);
            } else if is_near_miss(name, &names) {
                self.warnings.push(problem);
            }
        }
    }

    fn check_rules(&mut self) {
        for rule in RULES {
            if let Some(message) = (rule.check)(&self.config) {
                let set = rule.keys.iter().find(|key| self.sources.contains_key(*key));
                let source = set.map_or(Source::Default, |key| self.source(key).clone());
                self.problem(source, None, message);
            }
        }
    }
}

fn is_near_miss(name: &str, variables: &[String]) -> bool {
    variables.iter().any(|variable| variable.replace("__", "_") == *name)
}

/// Paths that are relative to the file they stand in, so that a bundle of files can be moved as a whole.
const BESIDE_THE_FILE: [&str; 6] = [
    "cluster.tls_certificate",
    "cluster.tls_key",
    "cluster.tls_ca",
    "listeners.tls_certificate",
    "listeners.tls_key",
    "listeners.tls_client_ca",
];

fn beside(value: Value, key: &str, source: &Source) -> Value {
    match (&value, source) {
        (Value::Text(text), Source::File(file, _))
            if !text.is_empty() && BESIDE_THE_FILE.contains(&key) =>
        {
            let dir = file.parent().unwrap_or_else(|| Path::new(""));
            Value::Text(dir.join(text).to_string_lossy().into_owned())
        }
        _ => value,
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("number out of range"), Value::Int),
        DeValue::Float(_) => Value::Other("number with a fraction"),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(_) => Value::Other("date"),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Value::Other("list of other things"), Value::List)
        }
        DeValue::Table(_) => Value::Other("section"),
    }
}

/// Line numbers of byte offsets.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    fn line_of(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

#[cfg(test)]
#[path = "load_test.rs"]
mod tests;
