//! Shape `idle`: sessions that do nothing.

use super::args::Wamp;
use super::client::{Client, Options};
use super::crowd::Crowd;
use super::measure::{Measured, Meter, Phase, Usage};
use crate::exit::Failure;
use std::time::{Duration, Instant};

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `count` is the number of sessions; the processor time is that of holding them.
    pub(crate) measured: Measured,
    /// How long it took to open them.
    pub(crate) opened_in: Duration,
    /// Memory of the processes before the first.
    pub(crate) rss_before: Option<u64>,
}

/// Opens the sessions, and holds them.
///
/// # Errors
/// A session does not open, or ends early.
pub(crate) fn run(args: &Wamp, sessions: usize, options: &Options) -> Result<Ran, Failure> {
    let before = Usage::of(&args.pids)?;
    let begun = Instant::now();
    let mut clients = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        clients.push(Client::open(&args.url, options)?);
    }
    let opened_in = begun.elapsed();
    let mut crowd = Crowd::new(clients)?;
    let mut meter = Meter::new(&args.pids, args.warmup, args.duration);
    // Pings are answered; any message is one that nobody asked for.
    let mut none = |_, client: &mut Client, message| Err(client.unexpected(&message));
    crowd.begin(&mut none)?;
    meter.begin();
    while meter.step()? != Phase::Over {
        crowd.round(Duration::from_millis(20), &mut none)?;
    }
    let mut measured = meter.measured();
    measured.count = sessions as u64;
    let rss_before = (!args.pids.is_empty()).then_some(before.rss_bytes);
    Ok(Ran { measured, opened_in, rss_before })
}
