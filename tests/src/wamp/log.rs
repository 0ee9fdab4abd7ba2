//! What peers said and heard, for whoever has to find out why a case failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Lines kept; older ones are dropped.
const LINES_MAX: usize = 200;
/// Characters of a line that are kept.
const LINE_CHARS_MAX: usize = 400;

/// A transcript that peers share.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    start: Instant,
    dropped: usize,
    lines: VecDeque<String>,
}

impl Default for Log {
    fn default() -> Self {
        let lines = Lines { start: Instant::now(), dropped: 0, lines: VecDeque::new() };
        Self(Arc::new(Mutex::new(lines)))
    }
}

impl Log {
    /// Notes what happened to a peer.
    pub fn note(&self, peer: &str, what: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.lines.len() == LINES_MAX {
            lines.lines.pop_front();
            lines.dropped += 1;
        }
        let what: String = what.chars().take(LINE_CHARS_MAX).collect();
        let ms = lines.start.elapsed().as_millis();
        lines.lines.push_back(format!("{ms:>6} ms  {peer:<8} {what}"));
    }

    /// The transcript.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let head = match lines.dropped {
            0 => String::new(),
            dropped => format!("({dropped} lines before)\n"),
        };
        let lines: Vec<&str> = lines.lines.iter().map(String::as_str).collect();
        head + &lines.join("\n")
    }
}
