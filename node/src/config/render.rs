//! The configuration as text: the annotated default file, and the effective values with their sources.

use super::keys::SECTIONS;
use super::{Config, Loaded};
use std::fmt::Write as _;

const HEAD: &str = "\
# Configuration of a weald node. Every key is listed with its default; all may be left out.
#
# Each key can also be given as an environment variable, which wins over this file: WEALD_ followed by the section,
# two underscores and the key, as WEALD_CLUSTER__LISTEN. Durations have a unit (10s, 1m, 1w), sizes a suffix (64MiB).
";

/// The annotated file of all defaults.
pub(crate) fn default_file() -> String {
    let config = Config::default();
    let mut out = HEAD.to_owned();
    for section in SECTIONS {
        line(&mut out, format_args!("\n# {}\n[{}]", section.doc, section.name));
        for key in section.keys {
            line(&mut out, format_args!(""));
            for doc in key.doc.lines() {
                line(&mut out, format_args!("# {doc}"));
            }
            line(&mut out, format_args!("{} = {}", key.name(), (key.get)(&config).toml()));
        }
    }
    out
}

/// The effective values, as a file that gives the same configuration, with where each came from.
pub(crate) fn effective(loaded: &Loaded) -> String {
    let mut out = String::new();
    for section in SECTIONS {
        if !out.is_empty() {
            line(&mut out, format_args!(""));
        }
        line(&mut out, format_args!("[{}]", section.name));
        for key in section.keys {
            let set = format!("{} = {}", key.name(), (key.get)(&loaded.config).toml());
            line(&mut out, format_args!("{set:<44} # {}", loaded.source(key.path)));
        }
    }
    out
}

/// The effective values as JSON.
pub(crate) fn effective_json(loaded: &Loaded) -> serde_json::Value {
    let keys: Vec<serde_json::Value> = super::keys::all()
        .map(|key| {
            serde_json::json!({
                "key": key.path,
                "value": (key.get)(&loaded.config).json(),
                "source": loaded.source(key.path).to_string(),
            })
        })
        .collect();
    serde_json::json!({ "file": loaded.file, "keys": keys })
}

fn line(out: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(args).ok();
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::{Flags, load};
    use super::*;
    use std::path::Path;

    fn blank() -> Loaded {
        let flags = Flags { config: Some("/dev/null".into()), values: Vec::new() };
        load(&flags, std::iter::empty())
    }

    #[test]
    fn default_file_is_the_snapshot() {
        let expected = include_str!("default.toml");
        let actual = default_file();
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/default.toml");
            std::fs::write(path, &actual).unwrap();
            return;
        }
        assert_eq!(
            actual, expected,
            "run the tests with UPDATE_SNAPSHOTS=1 and read the difference"
        );
    }

    #[test]
    fn default_and_effective_files_read_back_as_the_defaults() {
        for text in [default_file(), effective(&blank())] {
            let mut loaded = blank();
            loaded.read_toml(Path::new("weald.toml"), &text);
            assert_eq!(loaded.problems, []);
            assert_eq!(loaded.config, Config::default());
        }
    }
}
