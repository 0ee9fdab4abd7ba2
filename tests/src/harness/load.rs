//! Writers whose acknowledgements are remembered.
//!
//! # Source
//! An acknowledged write must be read later, unless a later write of the same key replaced it. A write without an answer may
//! or may not have happened. A write that was refused must not have happened. Each writer has keys of its own and awaits each
//! write before the next, so what may be read is known exactly.

use super::node::Remote;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinHandle;
use weald_client::{Client, Error};

/// Keys of each writer.
const KEYS: u64 = 40;

/// What may be read of a key: the last acknowledged value, or one of those without an answer after it.
#[derive(Debug, Clone, Default)]
struct Allowed {
    acked: Option<String>,
    unknown: Vec<String>,
}

/// Writers at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Outcome>>,
}

/// What the writers did.
#[derive(Debug, Default)]
pub struct Outcome {
    keys: BTreeMap<String, Allowed>,
    /// Writes acknowledged.
    pub acked: u64,
    /// Writes without an answer.
    pub unknown: u64,
    /// Writes refused, with what was said.
    pub refused: Vec<String>,
}

/// The table they write to.
pub const TABLE: &str = "load";

impl Load {
    /// Starts so many writers.
    #[must_use]
    pub fn start(remote: &Remote, writers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicU64::new(0));
        let writers = (0..writers)
            .map(|writer| {
                let client = remote.client.clone();
                let (stop, acked) = (Arc::clone(&stop), Arc::clone(&acked));
                remote.runtime.spawn(write(client, writer, stop, acked))
            })
            .collect();
        Self { stop, acked, writers }
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Ends the writers and gives what they did.
    ///
    /// # Panics
    /// When a writer panicked.
    #[must_use]
    pub fn stop(self, remote: &Remote) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for writer in self.writers {
            let one = remote.runtime.block_on(writer).unwrap_or_else(|e| panic!("writer: {e}"));
            all.keys.extend(one.keys);
            all.acked += one.acked;
            all.unknown += one.unknown;
            all.refused.extend(one.refused);
        }
        all
    }
}

async fn write(
    client: Client,
    writer: usize,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
) -> Outcome {
    let mut outcome = Outcome::default();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("writer-{writer}/{}", number % KEYS);
        let value = format!("{number}");
        let allowed = outcome.keys.entry(key.clone()).or_default();
        match client.put(TABLE, key, value.clone()).await {
            Ok(_) => {
                *allowed = Allowed { acked: Some(value), unknown: Vec::new() };
                outcome.acked += 1;
                acked.fetch_add(1, Ordering::Relaxed);
            }
            // What the client says is not known may be read later; what it says was not done may not.
            Err(Error::TimedOut(_) | Error::Internal(_)) => {
                allowed.unknown.push(value);
                outcome.unknown += 1;
            }
            Err(error) => outcome.refused.push(error.to_string()),
        }
    }
    outcome
}

impl Outcome {
    /// Reads every key and compares.
    ///
    /// # Panics
    /// When an acknowledged write is missing, or one that was refused is there: with all such keys.
    pub fn verify(&self, remote: &Remote) {
        let mut wrong = Vec::new();
        for (key, allowed) in &self.keys {
            let found = remote.get(TABLE, key).unwrap_or_else(|e| panic!("get {key}: {e}"));
            let found: Vec<_> = found.iter().map(|v| String::from_utf8_lossy(v)).collect();
            let good = match found.as_slice() {
                [] => allowed.acked.is_none(),
                [one] => {
                    allowed.acked.as_deref() == Some(one)
                        || allowed.unknown.iter().any(|value| value == one)
                }
                _ => false,
            };
            if !good {
                wrong.push(format!("{key}: read {found:?}, may be {allowed:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {} keys: {wrong:#?}", wrong.len(), self.keys.len());
    }
}
