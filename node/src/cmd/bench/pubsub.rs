//! Shape `pubsub`: some publish to one topic, others count what they get of it.
//!
//! Guarantees: publishers are never further ahead of the slowest subscriber than the window, so a router has no reason to drop
//! anything; whether it did is told.

use super::args::Wamp;
use super::client::{Client, Options};
use super::crowd::Crowd;
use super::measure::{Measured, Meter, Phase};
use super::template::{Template, Templates, read_stamp};
use crate::exit::{Exit, Failure};
use std::time::{Duration, Instant};
use weald_wamp::message::{Publish, PublishOptions, Subscribe, SubscribeOptions};
use weald_wamp::{Dict, Message, Payload, RequestId, Serializer, Value};

/// Time for the first event to reach every subscriber: the subscription may have to travel to another node.
const REACHED_WITHIN: Duration = Duration::from_secs(20);
/// Pause between two events that only look whether subscribers are reached.
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// Time without any progress after which the run is given up.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// What such a probe carries; never counted.
const PROBE: &str = "probe";

/// How many do what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    pub(crate) window: u64,
}

impl Size {
    /// The window that is used unless another one was asked for.
    pub(crate) fn default_window(publishers: u64, subscribers: u64) -> u64 {
        // Deliveries under way stay near 2,048, with at least two publications of each publisher.
        (2048 / subscribers.max(1)).clamp(16, 256).max(2 * publishers)
    }
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) measured: Measured,
    /// Events that should have arrived and did not, over the whole run.
    pub(crate) lost: u64,
}

/// Runs it.
///
/// # Errors
/// A session does not open, ends early, or nothing arrives any more.
pub(crate) fn run(args: &Wamp, size: Size, options: &Options) -> Result<Ran, Failure> {
    let topic = format!("bench.p{}.topic", std::process::id());
    let mut clients = Vec::new();
    for _ in 0..size.publishers {
        clients.push(Client::open(&args.url, options)?);
    }
    for _ in 0..size.subscribers {
        let mut client = Client::open(args.to(), options)?;
        subscribe(&mut client, &topic)?;
        clients.push(client);
    }
    let publishing = Publishing::new(options.serializer, &topic, args.payload as usize)?;
    let mut run = Run {
        size,
        crowd: Crowd::new(clients)?,
        publishing,
        requests: vec![0; size.publishers],
        published: 0,
        tally: Tally {
            publishers: size.publishers,
            received: vec![0; size.subscribers],
            reached: vec![false; size.subscribers],
            meter: Meter::new(&args.pids, args.warmup, args.duration),
        },
    };
    run.reach_everybody()?;
    run.measure()?;
    let lost = run.settle()?;
    Ok(Ran { measured: run.tally.meter.measured(), lost })
}

fn subscribe(client: &mut Client, topic: &str) -> Result<(), Failure> {
    let options = SubscribeOptions::default();
    let subscribe = Subscribe { request: RequestId::FIRST, options, topic: topic.into() };
    match client.request(&Message::Subscribe(subscribe))? {
        Message::Subscribed(_) => Ok(()),
        other => Err(client.unexpected(&other)),
    }
}

/// Messages to publish, encoded.
#[derive(Debug)]
struct Publishing {
    events: Templates,
    probe: Template,
}

impl Publishing {
    fn new(serializer: Serializer, topic: &str, payload_bytes: usize) -> Result<Self, Failure> {
        let publish = |request, text: &str| {
            let payload = Payload::from_values(serializer, &[Value::from(text)], &Dict::new())?;
            let (options, topic) = (PublishOptions::default(), topic.into());
            Ok(Message::Publish(Publish { request, options, topic, payload }))
        };
        let events = Templates::new(serializer, payload_bytes, publish)?;
        let probe = Templates::new(serializer, 0, |request, _| publish(request, PROBE))?;
        Ok(Self { events, probe: probe.of(1).clone() })
    }
}

struct Run {
    size: Size,
    crowd: Crowd,
    publishing: Publishing,
    /// Last request of each publisher.
    requests: Vec<u64>,
    /// Events without the probes.
    published: u64,
    tally: Tally,
}

/// What arrived.
struct Tally {
    publishers: usize,
    received: Vec<u64>,
    reached: Vec<bool>,
    meter: Meter,
}

impl Tally {
    fn on(&mut self, number: usize, client: &Client, message: &Message) -> Result<(), Failure> {
        let (Message::Event(event), Some(at)) = (message, number.checked_sub(self.publishers))
        else {
            return Err(client.unexpected(message));
        };
        let payload = event.payload.raw();
        if payload.len() < PROBE.len() * 2 + 2 && payload.windows(5).any(|w| w == PROBE.as_bytes())
        {
            self.reached[at] = true;
        } else {
            self.received[at] += 1;
            self.meter.count(read_stamp(payload), self.meter.now_ns());
        }
        Ok(())
    }

    fn slowest(&self) -> u64 {
        self.received.iter().copied().min().unwrap_or(0)
    }
}

impl Run {
    /// Publishes until each subscriber got something.
    fn reach_everybody(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let tally = &mut self.tally;
        self.crowd.begin(&mut |number, client, message| tally.on(number, client, &message))?;
        while !self.tally.reached.iter().all(|reached| *reached) {
            if begun.elapsed() > REACHED_WITHIN {
                let missing = self.tally.reached.iter().filter(|reached| !**reached).count();
                let what = format!(
                    "{missing} of {} subscribers got no event within {REACHED_WITHIN:?}",
                    self.size.subscribers
                );
                return Err(Failure::new(Exit::TimedOut, what));
            }
            self.requests[0] += 1;
            let (request, probe) = (self.requests[0], &self.publishing.probe);
            self.crowd.client(0).queue(|out| probe.write(request, 0, out));
            self.crowd.flush(0)?;
            let pause = Instant::now();
            while pause.elapsed() < PROBE_PAUSE {
                self.round(PROBE_PAUSE)?;
            }
        }
        Ok(())
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.tally.meter.begin();
        let mut progress = (Instant::now(), 0);
        while self.tally.meter.step()? != Phase::Over {
            let slowest = self.tally.slowest();
            if slowest != progress.1 {
                progress = (Instant::now(), slowest);
            } else if progress.0.elapsed() > STALLED_AFTER {
                return Err(self.stalled(slowest));
            }
            self.publish(slowest)?;
            self.round(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Fills the window, once half of it is free: many messages in one write.
    fn publish(&mut self, slowest: u64) -> Result<(), Failure> {
        let free = self.size.window.saturating_sub(self.published - slowest);
        if free < self.size.window.div_ceil(2) {
            return Ok(());
        }
        let publishers = self.size.publishers as u64;
        for number in 0..self.size.publishers {
            // Whoever begins gets what does not divide evenly; the next to begin is another.
            let turn = (number as u64 + self.published) % publishers;
            let share = free / publishers + u64::from(turn < free % publishers);
            let client = self.crowd.client(number);
            for _ in 0..share {
                self.requests[number] += 1;
                let request = self.requests[number];
                let template = self.publishing.events.of(request);
                let now_ns = self.tally.meter.now_ns();
                client.queue(|out| template.write(request, now_ns, out));
            }
            self.crowd.flush(number)?;
        }
        self.published += free;
        Ok(())
    }

    /// Waits for what is under way; how much never came.
    fn settle(&mut self) -> Result<u64, Failure> {
        let mut progress = (Instant::now(), 0);
        let mut arrived: u64 = self.tally.received.iter().sum();
        let expected = self.published * self.size.subscribers as u64;
        while arrived < expected && progress.0.elapsed() < STALLED_AFTER / 10 {
            self.round(Duration::from_millis(20))?;
            arrived = self.tally.received.iter().sum();
            if arrived != progress.1 {
                progress = (Instant::now(), arrived);
            }
        }
        Ok(expected.saturating_sub(arrived))
    }

    fn round(&mut self, limit: Duration) -> Result<(), Failure> {
        let tally = &mut self.tally;
        self.crowd.round(limit, &mut |number, client, message| tally.on(number, client, &message))
    }

    fn stalled(&self, slowest: u64) -> Failure {
        let what = format!(
            "nothing arrives any more: the slowest subscriber has {slowest} of {} events, and got none for {STALLED_AFTER:?}",
            self.published
        );
        Failure::new(Exit::TimedOut, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_window_bounds_what_is_under_way() {
        for (publishers, subscribers, window) in
            [(1, 1, 256), (1, 10, 204), (10, 10, 204), (1, 1000, 16), (100, 1000, 200), (1, 0, 256)]
        {
            assert_eq!(Size::default_window(publishers, subscribers), window);
        }
    }
}
