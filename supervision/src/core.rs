//! The decisions of one supervisor, as a pure state machine.
//!
//! Guarantees: children start in order and stop in reverse order; a restart touches exactly the
//! children its strategy names; never more than `max_restarts` restarts within the window; at most
//! one start or stop is in flight. Source: OTP `supervisor` (stdlib), deviations are marked.
//! Refuses: tokio, ractor, clocks, disks. Time comes in as milliseconds of one monotonic clock.
//!
//! Protocol: [`Core::handle`] appends actions. After a [`Action::Start`], [`Action::Stop`] or
//! [`Action::StopAll`] (always the last one appended) the caller answers with [`Input::Started`],
//! [`Input::StartFailed`] or [`Input::Stopped`] before it hands in anything else.

use std::collections::{BTreeMap, VecDeque};

mod event;
#[cfg(test)]
mod tests;

pub use event::{Action, BackoffPolicy, ChildPolicy, Close, Input, Key, Note, Policy};

use crate::spec::{AutoShutdown, Restart, Strategy};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Down,
    Up {
        since_ms: u64,
    },
    /// Waits for its `Due`. `counted`: the restart was already taken from the intensity.
    Restarting {
        ticket: u64,
        counted: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Child {
    policy: ChildPolicy,
    status: Status,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Stop(Key),
    StopAll,
    Forget(Key),
    Start(Key),
    Close(Close),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idle,
    Booting,
    Restarting,
    Adding,
    Terminating,
    Closing,
    Closed,
}

/// One supervisor's state. See the module's text for how to drive it.
#[derive(Debug)]
pub struct Core {
    policy: Policy,
    children: BTreeMap<Key, Child>,
    next_key: Key,
    next_ticket: u64,
    restarts_ms: VecDeque<u64>,
    plan: VecDeque<Step>,
    mode: Mode,
    rng: u64,
}

impl Core {
    /// A supervisor with these children, keys 0, 1, 2 ... in start order; nothing is started yet.
    #[must_use]
    pub fn new(policy: Policy, children: &[ChildPolicy]) -> Self {
        let rng = policy.backoff.map_or(0, |b| b.seed);
        let mut core = Self {
            policy,
            children: BTreeMap::new(),
            next_key: 0,
            next_ticket: 0,
            restarts_ms: VecDeque::new(),
            plan: VecDeque::new(),
            mode: Mode::Idle,
            rng,
        };
        for child in children {
            core.insert(*child);
        }
        core
    }

    /// The key that the next [`Input::Add`] gets.
    #[must_use]
    pub const fn next_key(&self) -> Key {
        self.next_key
    }

    /// Whether this child runs, as far as the core was told.
    #[must_use]
    pub fn is_up(&self, key: Key) -> bool {
        self.children.get(&key).is_some_and(Child::is_up)
    }

    /// Whether the supervisor has closed or is about to.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.mode, Mode::Closing | Mode::Closed)
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, now_ms: u64, input: Input, out: &mut Vec<Action>) {
        if self.mode == Mode::Closed {
            return;
        }
        match input {
            Input::Boot => self.on_boot(out),
            Input::Started(key) => self.on_started(now_ms, key, out),
            Input::StartFailed(key) => self.on_start_failed(key, out),
            Input::Stopped(_) => self.advance(out),
            Input::Exited { key, abnormal } => self.on_exited(now_ms, key, abnormal, out),
            Input::Due { key, ticket } => self.on_due(now_ms, key, ticket, out),
            Input::Add(policy) => self.on_add(policy, out),
            Input::Terminate(key) => self.on_terminate(key, out),
            Input::Shutdown => self.close(Close::Shutdown, out),
        }
    }

    /// Checks what must hold between inputs; for tests.
    ///
    /// # Errors
    /// The sentence that does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.restarts_ms.len() > self.policy.intensity_max as usize + 1 {
            return Err("more restarts remembered than the limit needs");
        }
        if self.mode == Mode::Idle && !self.plan.is_empty() {
            return Err("idle with a plan");
        }
        if self.mode == Mode::Closed && self.children.values().any(Child::is_up) {
            return Err("closed with running children");
        }
        Ok(())
    }

    fn insert(&mut self, policy: ChildPolicy) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.children.insert(key, Child { policy, status: Status::Down, failures: 0 });
        key
    }

    fn on_boot(&mut self, out: &mut Vec<Action>) {
        self.mode = Mode::Booting;
        self.plan = self.children.keys().map(|key| Step::Start(*key)).collect();
        self.advance(out);
    }

    fn on_started(&mut self, now_ms: u64, key: Key, out: &mut Vec<Action>) {
        if let Some(child) = self.children.get_mut(&key) {
            child.status = Status::Up { since_ms: now_ms };
        }
        self.advance(out);
    }

    fn on_start_failed(&mut self, key: Key, out: &mut Vec<Action>) {
        match self.mode {
            Mode::Booting => self.close(Close::StartFailed(key), out),
            Mode::Adding => {
                self.forget(key, out);
                self.advance(out);
            }
            Mode::Idle | Mode::Restarting | Mode::Terminating | Mode::Closing | Mode::Closed => {
                // As in OTP, what started before the failed one stays up, what comes after it waits,
                // and the retry takes its turn behind the exits that are queued already.
                self.plan.clear();
                self.mode = Mode::Idle;
                let delay_ms = self.delay_ms(key);
                self.schedule(key, delay_ms, false, out);
            }
        }
    }

    fn on_exited(&mut self, now_ms: u64, key: Key, abnormal: bool, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(&key) else {
            return;
        };
        let Status::Up { since_ms } = child.status else {
            return;
        };
        child.status = Status::Down;
        if self.policy.backoff.is_some_and(|b| now_ms.saturating_sub(since_ms) >= b.reset_after_ms)
        {
            child.failures = 0;
        }
        let policy = child.policy;
        if policy.restart.wants(abnormal) {
            self.restart(now_ms, key, true, out);
            return;
        }
        if abnormal {
            out.push(Action::Note(Note::GaveUp { key }));
        }
        if policy.restart == Restart::Temporary || self.policy.strategy == Strategy::Dynamic {
            self.forget(key, out);
        }
        if policy.significant && self.significant_done() {
            self.close(Close::AutoShutdown(key), out);
        }
    }

    fn significant_done(&self) -> bool {
        match self.policy.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => {
                !self.children.values().any(|c| c.policy.significant && c.status != Status::Down)
            }
        }
    }

    fn on_due(&mut self, now_ms: u64, key: Key, ticket: u64, out: &mut Vec<Action>) {
        let Some(child) = self.children.get(&key) else {
            return;
        };
        let Status::Restarting { ticket: current, counted } = child.status else {
            return;
        };
        // Without delays an older request serves as well as the newer one, as in OTP; with delays
        // it would cut the newer one's delay short.
        if self.policy.backoff.is_some() && ticket != current {
            return;
        }
        if counted {
            self.mode = Mode::Restarting;
            self.plan = self.group(key).into_iter().map(Step::Start).collect();
            self.advance(out);
        } else {
            self.restart(now_ms, key, false, out);
        }
    }

    fn on_add(&mut self, policy: ChildPolicy, out: &mut Vec<Action>) {
        let key = self.insert(policy);
        self.mode = Mode::Adding;
        self.plan.push_back(Step::Start(key));
        self.advance(out);
    }

    fn on_terminate(&mut self, key: Key, out: &mut Vec<Action>) {
        if !self.children.contains_key(&key) {
            return;
        }
        self.mode = Mode::Terminating;
        self.plan.extend([Step::Stop(key), Step::Forget(key)]);
        self.advance(out);
    }

    /// Takes one restart from the intensity and plans it, or closes.
    fn restart(&mut self, now_ms: u64, key: Key, may_delay: bool, out: &mut Vec<Action>) {
        let in_window = self.count_restart(now_ms);
        if in_window > self.policy.intensity_max {
            if let Some(child) = self.children.get_mut(&key) {
                child.status = Status::Down;
            }
            out.push(Action::Note(Note::IntensityExceeded { key, in_window }));
            out.push(Action::Note(Note::GaveUp { key }));
            self.close(Close::Intensity(key), out);
            return;
        }
        let delay_ms = if may_delay { self.delay_ms(key) } else { 0 };
        out.push(Action::Note(Note::Restarting { key, in_window, delay_ms }));
        let group = self.group(key);
        let stops: Vec<Key> = group.iter().rev().copied().filter(|k| self.is_up(*k)).collect();
        if !stops.is_empty() {
            out.push(Action::Note(Note::StrategyApplied { key, stops: stops.len() }));
        }
        // This restart covers those of the group that wait for one of their own.
        for member in &group {
            if let Some(child) = self.children.get_mut(member)
                && !child.is_up()
            {
                child.status = Status::Down;
            }
        }
        self.mode = Mode::Restarting;
        self.plan.clear();
        for stopped in stops {
            self.plan.push_back(Step::Stop(stopped));
            // Temporary children are not brought back by a sibling's restart either.
            if self.is_temporary(stopped) {
                self.plan.push_back(Step::Forget(stopped));
            }
        }
        if delay_ms == 0 {
            self.plan.extend(group.into_iter().map(Step::Start));
        } else {
            self.schedule(key, delay_ms, true, out);
        }
        self.advance(out);
    }

    /// Restarts within the window, the one that happens now included.
    fn count_restart(&mut self, now_ms: u64) -> u32 {
        let window_ms = self.policy.window_ms;
        self.restarts_ms.retain(|then| now_ms <= then.saturating_add(window_ms));
        self.restarts_ms.push_back(now_ms);
        u32::try_from(self.restarts_ms.len()).unwrap_or(u32::MAX)
    }

    /// The children that share the fate of `key`, in start order.
    fn group(&self, key: Key) -> Vec<Key> {
        match self.policy.strategy {
            Strategy::OneForOne | Strategy::Dynamic => vec![key],
            Strategy::RestForOne => self.children.range(key..).map(|(k, _)| *k).collect(),
            Strategy::OneForAll => self.children.keys().copied().collect(),
        }
    }

    fn schedule(&mut self, key: Key, delay_ms: u64, counted: bool, out: &mut Vec<Action>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(child) = self.children.get_mut(&key) {
            child.status = Status::Restarting { ticket, counted };
        }
        out.push(Action::Schedule { key, ticket, delay_ms });
    }

    fn delay_ms(&mut self, key: Key) -> u64 {
        let (Some(backoff), Some(child)) = (self.policy.backoff, self.children.get_mut(&key))
        else {
            return 0;
        };
        let doubled = 1u64.checked_shl(child.failures.min(63)).unwrap_or(u64::MAX);
        child.failures = child.failures.saturating_add(1);
        let full = backoff.initial_ms.saturating_mul(doubled).min(backoff.max_ms);
        let share = full / 100 * u64::from(backoff.jitter_percent.min(100))
            + full % 100 * u64::from(backoff.jitter_percent.min(100)) / 100;
        let cut = if share == 0 { 0 } else { splitmix64(&mut self.rng) % (share + 1) };
        full - cut
    }

    fn is_temporary(&self, key: Key) -> bool {
        self.children.get(&key).is_some_and(|c| c.policy.restart == Restart::Temporary)
    }

    fn close(&mut self, close: Close, out: &mut Vec<Action>) {
        self.mode = Mode::Closing;
        self.plan.clear();
        if self.policy.strategy == Strategy::Dynamic {
            self.plan.push_back(Step::StopAll);
        } else {
            let up = self.children.iter().rev().filter(|(_, c)| c.is_up());
            self.plan.extend(up.map(|(key, _)| Step::Stop(*key)));
        }
        self.plan.push_back(Step::Close(close));
        self.advance(out);
    }

    /// Appends the next step that needs the shell; returns when one is in flight or none is left.
    fn advance(&mut self, out: &mut Vec<Action>) {
        while let Some(step) = self.plan.pop_front() {
            match step {
                Step::Stop(key) => {
                    if self.set_down(key) {
                        out.push(Action::Stop(key));
                        return;
                    }
                }
                Step::Forget(key) => self.forget(key, out),
                Step::StopAll => {
                    let up: Vec<Key> =
                        self.children.iter().filter(|(_, c)| c.is_up()).map(|(k, _)| *k).collect();
                    if !up.is_empty() {
                        for key in &up {
                            self.set_down(*key);
                        }
                        out.push(Action::StopAll(up));
                        return;
                    }
                }
                Step::Start(key) => {
                    if self.children.get(&key).is_some_and(|c| !c.is_up()) {
                        out.push(Action::Start(key));
                        return;
                    }
                }
                Step::Close(close) => {
                    self.mode = Mode::Closed;
                    out.push(Action::Close(close));
                    return;
                }
            }
        }
        self.mode = Mode::Idle;
    }

    fn set_down(&mut self, key: Key) -> bool {
        let Some(child) = self.children.get_mut(&key) else {
            return false;
        };
        let was_up = child.is_up();
        child.status = Status::Down;
        was_up
    }

    fn forget(&mut self, key: Key, out: &mut Vec<Action>) {
        if self.children.remove(&key).is_some() {
            out.push(Action::Forget(key));
        }
    }
}

impl Child {
    const fn is_up(&self) -> bool {
        matches!(self.status, Status::Up { .. })
    }
}

/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
