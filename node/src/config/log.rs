//! Configuration of the log on stderr.

use super::keys::Key;
use super::value::Value;
use crate::logging;

/// Section `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// Filter directives.
    pub(crate) level: String,
    /// How lines look.
    pub(crate) format: Format,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info,supervision=warn,ractor_cluster=warn".to_owned(), format: Format::Auto }
    }
}

const FORMATS: &[(&str, Format)] =
    &[("auto", Format::Auto), ("human", Format::Human), ("json", Format::Json)];

impl Format {
    /// Its word in a file.
    pub(crate) fn word(self) -> String {
        super::keys::word(FORMATS, self)
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "log.level",
        doc: "What is logged: error, warn, info, debug, trace or off, optionally per module, as\n\
              \"info,weald_storage=debug\". Changed at run time by `weald log-level`. The supervision log has\n\
              every start and stop of a process anyway: here, by default, only what went wrong.",
        get: |c| Value::Text(c.log.level.clone()),
        set: |c, v| {
            let text = v.text()?;
            logging::parse_directives(text)?;
            c.log.level = text.to_owned();
            Ok(())
        },
    },
    Key {
        path: "log.format",
        doc: "Form of the lines on stderr: \"human\", \"json\", or \"auto\" (human on a terminal, JSON\n\
              otherwise). Flag: --log-format.",
        get: |c| Value::Text(c.log.format.word()),
        set: |c, v| v.choice(FORMATS).map(|f| c.log.format = f),
    },
];
