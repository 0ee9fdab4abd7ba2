//! Shape `rpc`: callers keep so many calls under way, callees give back what they got.

use super::args::Wamp;
use super::client::{Client, Options};
use super::crowd::Crowd;
use super::measure::{Measured, Meter, Phase};
use super::template::{Templates, read_stamp};
use crate::exit::{Exit, Failure};
use std::time::{Duration, Instant};
use weald_wamp::message::{Call, CallOptions, Register, RegisterOptions, Yield, YieldOptions};
use weald_wamp::{Dict, Message, Payload, RequestId, Serializer, Value};

/// Time for every procedure to be known where it is called from.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);
/// Pause before a call of a procedure that was not known yet.
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// Time without any result after which the run is given up.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// What the router answers while a registration has not reached it.
const UNKNOWN: [&str; 2] = ["wamp.error.no_such_procedure", "wamp.error.no_eligible_callee"];

/// How many do what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) depth: usize,
    pub(crate) callers: usize,
    pub(crate) callees: usize,
}

/// Runs it.
///
/// # Errors
/// A session does not open, ends early, or a call fails.
pub(crate) fn run(args: &Wamp, size: Size, options: &Options) -> Result<Measured, Failure> {
    let name = |callee: usize| format!("bench.p{}.procedure{callee}", std::process::id());
    let mut clients = Vec::new();
    for _ in 0..size.callers {
        clients.push(Client::open(&args.url, options)?);
    }
    for callee in 0..size.callees {
        let mut client = Client::open(args.to(), options)?;
        register(&mut client, &name(callee))?;
        clients.push(client);
    }
    let templates = |callee| templates(options.serializer, &name(callee), args.payload as usize);
    let mut run = Run {
        size,
        crowd: Crowd::new(clients)?,
        state: State {
            size,
            procedures: (0..size.callees).map(templates).collect::<Result<_, _>>()?,
            requests: vec![0; size.callers],
            results: 0,
            unknown: Vec::new(),
            meter: Meter::new(&args.pids, args.warmup, args.duration),
            stage: Stage::Probing,
        },
    };
    run.probe()?;
    run.measure()?;
    Ok(run.state.meter.measured())
}

fn register(client: &mut Client, procedure: &str) -> Result<(), Failure> {
    let options = RegisterOptions::default();
    let register = Register { request: RequestId::FIRST, options, procedure: procedure.into() };
    match client.request(&Message::Register(register))? {
        Message::Registered(_) => Ok(()),
        other => Err(client.unexpected(&other)),
    }
}

fn templates(
    serializer: Serializer,
    procedure: &str,
    payload_bytes: usize,
) -> Result<Templates, Failure> {
    Templates::new(serializer, payload_bytes, |request, text| {
        let payload = Payload::from_values(serializer, &[Value::from(text)], &Dict::new())?;
        let (options, procedure) = (CallOptions::default(), procedure.into());
        Ok(Message::Call(Call { request, options, procedure, payload }))
    })
}

/// What results are followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// By nothing: the callers only learn whether procedures are known.
    Probing,
    /// By the next call.
    Calling,
}

struct Run {
    size: Size,
    crowd: Crowd,
    state: State,
}

struct State {
    size: Size,
    procedures: Vec<Templates>,
    /// Last request of each caller.
    requests: Vec<u64>,
    results: u64,
    /// Callers whose probe found no procedure.
    unknown: Vec<usize>,
    meter: Meter,
    stage: Stage,
}

impl State {
    fn on(&mut self, number: usize, client: &mut Client, message: Message) -> Result<(), Failure> {
        match message {
            Message::Result(result) if number < self.size.callers => {
                self.results += 1;
                if self.stage == Stage::Calling {
                    self.meter.count(read_stamp(result.payload.raw()), self.meter.now_ns());
                    self.call_next(number, client);
                }
                Ok(())
            }
            Message::Invocation(call) if number >= self.size.callers => {
                let (request, payload) = (call.request, call.payload);
                let options = YieldOptions::default();
                client.queue_message(&Message::Yield(Yield { request, options, payload }))
            }
            Message::Error(error)
                if self.stage == Stage::Probing && UNKNOWN.contains(&&*error.error) =>
            {
                self.unknown.push(number);
                Ok(())
            }
            other => Err(client.unexpected(&other)),
        }
    }

    fn call_next(&mut self, caller: usize, client: &mut Client) {
        // Callers begin with different procedures, so that all callees have something to do from the start.
        let turn = usize::try_from(self.requests[caller]).unwrap_or(0) + caller;
        self.call(caller, turn % self.size.callees, client);
    }

    fn call(&mut self, caller: usize, callee: usize, client: &mut Client) {
        self.requests[caller] += 1;
        let (request, now_ns) = (self.requests[caller], self.meter.now_ns());
        let template = self.procedures[callee].of(request);
        client.queue(|out| template.write(request, now_ns, out));
    }
}

impl Run {
    /// Calls each procedure from each caller until that works.
    fn probe(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let state = &mut self.state;
        self.crowd.begin(&mut |number, client, message| state.on(number, client, message))?;
        for callee in 0..self.size.callees {
            let mut missing: Vec<usize> = (0..self.size.callers).collect();
            while !missing.is_empty() {
                let (asked, before) = (missing.len() as u64, self.state.results);
                for caller in missing.drain(..) {
                    self.state.call(caller, callee, self.crowd.client(caller));
                    self.crowd.flush(caller)?;
                }
                while self.state.results - before + (self.state.unknown.len() as u64) < asked {
                    self.known_in_time(begun)?;
                    self.round(PROBE_PAUSE)?;
                }
                missing.append(&mut self.state.unknown);
                let pause = Instant::now();
                while !missing.is_empty() && pause.elapsed() < PROBE_PAUSE {
                    self.known_in_time(begun)?;
                    self.round(PROBE_PAUSE)?;
                }
            }
        }
        Ok(())
    }

    fn known_in_time(&self, begun: Instant) -> Result<(), Failure> {
        if begun.elapsed() <= KNOWN_WITHIN {
            return Ok(());
        }
        let what = format!("calls do not reach their callees within {KNOWN_WITHIN:?}");
        Err(Failure::new(Exit::TimedOut, what))
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.state.stage = Stage::Calling;
        self.state.meter.begin();
        for caller in 0..self.size.callers {
            for _ in 0..self.size.depth {
                self.state.call_next(caller, self.crowd.client(caller));
            }
            self.crowd.flush(caller)?;
        }
        let mut progress = (Instant::now(), 0);
        while self.state.meter.step()? != Phase::Over {
            self.round(Duration::from_millis(20))?;
            if self.state.results != progress.1 {
                progress = (Instant::now(), self.state.results);
            } else if progress.0.elapsed() > STALLED_AFTER {
                let what = format!("no call was answered for {STALLED_AFTER:?}");
                return Err(Failure::new(Exit::TimedOut, what));
            }
        }
        Ok(())
    }

    fn round(&mut self, limit: Duration) -> Result<(), Failure> {
        let state = &mut self.state;
        self.crowd.round(limit, &mut |number, client, message| state.on(number, client, message))
    }
}
