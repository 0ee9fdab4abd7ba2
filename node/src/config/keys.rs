//! The table of all configuration keys: the one source of their names, documentation, defaults and limits.
//!
//! Guarantees: the annotated default file, `config check`, `config show` and the environment names are all derived from this
//! table, so that none can say something else than the program does.

use super::value::Value;
use super::{Config, aae, clients, cluster, listeners, log, node, realm, storage, supervision};
use std::path::{Path, PathBuf};

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Section and name, as `storage.partitions`.
    pub(crate) path: &'static str,
    /// What it does, its unit and range; lines of at most 100 characters.
    pub(crate) doc: &'static str,
    /// Its value in a configuration.
    pub(crate) get: fn(&Config) -> Value,
    /// Checks a value and puts it in.
    pub(crate) set: fn(&mut Config, &Value) -> Result<(), String>,
}

/// One section.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) doc: &'static str,
    /// Its keys.
    pub(crate) keys: &'static [Key],
}

/// All sections, in the order of the default file.
pub(crate) const SECTIONS: &[Section] = &[
    Section { name: "node", doc: "The node itself.", keys: node::KEYS },
    Section { name: "log", doc: "The log on stderr.", keys: log::KEYS },
    Section { name: "storage", doc: "The store.", keys: storage::KEYS },
    Section {
        name: "cluster",
        doc: "The cluster, and the port of nodes and Rust clients.",
        keys: cluster::KEYS,
    },
    Section {
        name: "listeners",
        doc: "Ports of WAMP clients and other services.",
        keys: listeners::KEYS,
    },
    Section { name: "clients", doc: "What holds for each WAMP client.", keys: clients::KEYS },
    Section {
        name: "realm",
        doc: "How a realm behaves. In this release there is one, realm1.",
        keys: realm::KEYS,
    },
    Section { name: "aae", doc: "Active anti-entropy.", keys: aae::KEYS },
    Section { name: "supervision", doc: "The supervision log on disk.", keys: supervision::KEYS },
];

/// All keys, in the order of the default file.
pub(crate) fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of that path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path == path)
}

impl Key {
    /// Its name inside its section.
    pub(crate) fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The environment variable that overrides it.
    pub(crate) fn variable(&self) -> String {
        format!("WEALD_{}", self.path.replace('.', "__").to_uppercase())
    }
}

/// The known word that is nearest to `word`, if any is near enough to be meant: one slip in three letters.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let slips_max = (word.chars().count() / 3).max(1);
    known
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// A number as a value.
pub(super) fn number(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A number of things as a value.
pub(super) fn count(count: usize) -> Value {
    number(count as u64)
}

/// A path as a value; none is the empty one.
pub(super) fn path_value(path: Option<&Path>) -> Value {
    Value::Text(path.map_or_else(String::new, |path| path.to_string_lossy().into_owned()))
}

/// The path of a text; the empty one is none.
pub(super) fn path_of(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// The word of a choice.
pub(super) fn word<T: PartialEq + Copy>(choices: &[(&str, T)], choice: T) -> String {
    choices.iter().find(|(_, c)| *c == choice).map_or("", |(word, _)| word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_and_takes_its_own_default() {
        let defaults = Config::default();
        for section in SECTIONS {
            for key in section.keys {
                assert!(key.path.starts_with(&format!("{}.", section.name)), "{}", key.path);
                assert!(key.doc.ends_with('.'), "{}", key.path);
                assert!(key.doc.lines().all(|line| line.len() <= 100), "{}", key.path);
                let mut config = Config::default();
                assert_eq!((key.set)(&mut config, &(key.get)(&defaults)), Ok(()), "{}", key.path);
                assert_eq!(config, defaults, "{}", key.path);
            }
        }
    }

    #[test]
    fn keys_are_unique_and_found() {
        let mut paths: Vec<_> = all().map(|key| key.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), all().count());
        assert_eq!(find("storage.partitions").map(Key::name), Some("partitions"));
        assert_eq!(
            find("cluster.listen").map(Key::variable).as_deref(),
            Some("WEALD_CLUSTER__LISTEN")
        );
    }

    #[test]
    fn nearest_finds_slips_and_nothing_else() {
        let known = || all().map(|key| key.path);
        assert_eq!(nearest("storage.partitons", known()), Some("storage.partitions"));
        assert_eq!(nearest("zzz", known()), None);
    }
}
