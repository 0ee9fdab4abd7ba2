//! Import and export of JSON lines.
//!
//! # Shape
//! One entry per line: `{"table": "packages", "key": "bash", "value": <any JSON>}`; see [`crate::text`] for bytes that are not
//! JSON.
//!
//! Guarantees: a value comes out byte for byte as it went in; an import goes on over restarts of the node, and a second
//! import of the same lines changes nothing but time stamps. Refuses: transforming data.

pub(crate) mod checkpoint;
pub(crate) mod export;
#[cfg(test)]
mod fake;
pub(crate) mod import;
pub(crate) mod line;
pub(crate) mod progress;
pub(crate) mod reader;
