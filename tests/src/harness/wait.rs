//! Waiting for something to become true.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` gives a value, and gives it back. An `Err` is the state as it is now, and is told when the time is over.
///
/// # Panics
/// When `deadline` has passed: with what was waited for, and the last state.
pub fn wait_until<T, S: Display>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, S>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match look() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= end => {
                panic!("waited {deadline:?} for {what}; last state: {state}")
            }
            Err(_) => pause(PAUSE),
        }
    }
}

/// Lets time pass. Only between two looks at something, or to space out what a test does to a node.
#[expect(clippy::disallowed_methods, reason = "threads of a test, not of a runtime")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The last lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
