//! Configuration of the node itself: its name, its data directory, its shutdown.

use super::keys::Key;
use super::value::{Value, show_duration};
use std::path::PathBuf;
use std::time::Duration;

/// Section `node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Name shown to people; empty for the host's name.
    pub(crate) name: String,
    /// Where everything durable lives.
    pub(crate) data_dir: PathBuf,
    /// Time for an ordered shutdown.
    pub(crate) shutdown_timeout: Duration,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: String::new(),
            data_dir: PathBuf::from("./weald-data"),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

const NAME_BYTES_MAX: usize = 64;

fn parse_name(text: &str) -> Result<String, String> {
    let fits = text.len() <= NAME_BYTES_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not up to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'"))
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "node.name",
        doc: "Name of this node in logs, the supervision log and `weald status`.\n\
              Up to 64 letters, digits, '-', '_' or '.'; empty: the name of the host.",
        get: |c| Value::Text(c.node.name.clone()),
        set: |c, v| parse_name(v.text()?).map(|name| c.node.name = name),
    },
    Key {
        path: "node.data_dir",
        doc: "Directory of everything the node keeps, created at the first start. A relative path\n\
              is relative to where the node is started. Flag: --data-dir; variable: WEALD_DATA_DIR.",
        get: |c| Value::Text(c.node.data_dir.to_string_lossy().into_owned()),
        set: |c, v| match v.text()? {
            "" => Err("the path is empty".to_owned()),
            path => {
                c.node.data_dir = PathBuf::from(path);
                Ok(())
            }
        },
    },
    Key {
        path: "node.shutdown_timeout",
        doc: "Time an ordered shutdown may take, from 1s to 1h; what still runs then is killed.\n\
              A second SIGTERM or SIGINT kills at once.",
        get: |c| Value::Text(show_duration(c.node.shutdown_timeout)),
        set: |c, v| {
            v.duration(&(Duration::from_secs(1)..=Duration::from_secs(3600)))
                .map(|d| c.node.shutdown_timeout = d)
        },
    },
];
