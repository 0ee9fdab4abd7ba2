//! Configuration of the supervision log on disk.

use super::keys::{Key, number};
use super::value::{Value, show_bytes, show_duration};
use std::time::Duration;

/// Section `supervision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Supervision {
    /// Size at which a segment is closed, in bytes.
    pub(crate) log_segment_bytes: u64,
    /// Segments kept.
    pub(crate) log_segments: u32,
    /// How often the log is synced to disk.
    pub(crate) fsync_interval: Duration,
}

impl Default for Supervision {
    fn default() -> Self {
        Self { log_segment_bytes: 4 << 20, log_segments: 8, fsync_interval: Duration::from_secs(1) }
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "supervision.log_segment_bytes",
        doc: "Size at which a file of the supervision log is closed and the next begun, from 64KiB to 1GiB.",
        get: |c| Value::Text(show_bytes(c.supervision.log_segment_bytes)),
        set: |c, v| v.bytes(&((64 << 10)..=(1 << 30))).map(|n| c.supervision.log_segment_bytes = n),
    },
    Key {
        path: "supervision.log_segments",
        doc: "Files of the supervision log that are kept, from 2 to 1000; the oldest goes first.",
        get: |c| number(c.supervision.log_segments.into()),
        set: |c, v| {
            let segments = v.int(&(2..=1000))?;
            c.supervision.log_segments = u32::try_from(segments).map_err(|e| e.to_string())?;
            Ok(())
        },
    },
    Key {
        path: "supervision.fsync_interval",
        doc: "How often the supervision log is synced to disk, from 10ms to 1m. A record is written at\n\
              once, so it survives the process; this bounds what a power cut may take.",
        get: |c| Value::Text(show_duration(c.supervision.fsync_interval)),
        set: |c, v| {
            v.duration(&(Duration::from_millis(10)..=Duration::from_secs(60)))
                .map(|d| c.supervision.fsync_interval = d)
        },
    },
];
