//! What is done, and what it gave.

use serde::Deserialize;
use std::fmt;

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// So many publish to one topic, so many subscribe to it.
    Pubsub { publishers: usize, subscribers: usize, payload_bytes: usize },
    /// One calls another, with so many calls under way.
    Rpc { depth: usize, payload_bytes: usize },
    /// Sessions that do nothing.
    Idle { sessions: usize },
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pubsub { publishers, subscribers, payload_bytes } => {
                write!(f, "pubsub-{publishers}x{subscribers}-{payload_bytes}B")
            }
            Self::Rpc { depth, payload_bytes } => write!(f, "rpc-{depth}-{payload_bytes}B"),
            Self::Idle { sessions } => write!(f, "idle-{sessions}"),
        }
    }
}

/// The shapes of a run.
pub(crate) fn all(full: bool) -> Vec<Shape> {
    // First, while the server is fresh: memory that was freed after another shape would hide what sessions take.
    let mut shapes = vec![Shape::Idle { sessions: if full { 10_000 } else { 5000 } }];
    for payload_bytes in [16, 1024] {
        for (publishers, subscribers) in [(1, 1), (1, 10), (10, 10), (1, 1000)] {
            if full || payload_bytes == 16 || (publishers, subscribers) == (1, 1) {
                shapes.push(Shape::Pubsub { publishers, subscribers, payload_bytes });
            }
        }
        for depth in [1, 64] {
            if full || payload_bytes == 16 || depth == 64 {
                shapes.push(Shape::Rpc { depth, payload_bytes });
            }
        }
    }
    shapes
}

/// What a shape gave; the names are those of `weald bench wamp --format json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    /// Processor seconds of the server per million events or calls.
    pub(crate) cpu_seconds_per_million: Option<f64>,
    pub(crate) per_second: Option<f64>,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) rss_per_session_bytes: Option<u64>,
    /// Processor seconds of the driver, and of how many.
    pub(crate) driver_cpu_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) lost: u64,
    /// Why there are no others.
    #[serde(skip)]
    pub(crate) failure: Option<String>,
}

impl Figures {
    /// Of a shape that could not be measured.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        let failure = Some(format!("{error:#}"));
        Self { failure, ..Self::default() }
    }

    /// On one line.
    pub(crate) fn line(&self) -> String {
        let mut parts = Vec::new();
        if let Some(bytes) = self.rss_per_session_bytes {
            parts.push(format!("{:>7.1} KiB a session", bytes as f64 / 1024.0));
        }
        if let Some(each) = self.cpu_seconds_per_million {
            parts.push(format!("{each:>7.2} cpu-s/M"));
        }
        if let Some(rate) = self.per_second.filter(|rate| *rate > 0.0) {
            parts.push(format!("{rate:>9.0}/s"));
        }
        if let (Some(p50), Some(p99)) = (self.p50_us, self.p99_us) {
            parts.push(format!("p50 {p50:>7.0} us  p99 {p99:>7.0} us"));
        }
        let share = self.driver_cpu_seconds / self.seconds.max(f64::MIN_POSITIVE);
        parts.push(format!("driver {:>3.0} %", share * 100.0));
        if self.lost > 0 {
            parts.push(format!("LOST {}", self.lost));
        }
        parts.join("  ")
    }

    /// As a cell of the table.
    pub(crate) fn cell(&self) -> String {
        match (&self.failure, self.rss_per_session_bytes, self.cpu_seconds_per_million) {
            (Some(_), _, _) => "failed".to_owned(),
            (None, Some(bytes), _) => format!("{:.1} KiB", bytes as f64 / 1024.0),
            (None, None, Some(each)) => {
                let latency = match (self.p50_us, self.p99_us) {
                    (Some(p50), Some(p99)) => format!(" {p50:.0}/{p99:.0}"),
                    _ => String::new(),
                };
                format!("{each:.2} {}{latency}", rate(self.per_second.unwrap_or(0.0)))
            }
            (None, None, None) => "-".to_owned(),
        }
    }
}

fn rate(per_second: f64) -> String {
    if per_second >= 10_000.0 {
        format!("{:.0}k/s", per_second / 1000.0)
    } else {
        format!("{per_second:.0}/s")
    }
}
