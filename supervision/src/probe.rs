//! What an incarnation leaves behind for its crash report.
//!
//! Guarantees: readable while the actor runs and after it is gone; the first cause of death stays.
//! Refuses: to know the actor's types.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::panics::Caught;

/// Why an actor ended by a fault of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Panic(Caught),
    Error(String),
    /// A supervisor that exhausted its restarts.
    GaveUp(String),
}

/// How an incarnation ended, as told to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// One of the stable reason names.
    pub(crate) reason: &'static str,
    pub(crate) abnormal: bool,
    pub(crate) error: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) message_type: Option<String>,
    pub(crate) mailbox_depth: u64,
}

/// What an actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Idle = 0,
    PreStart = 1,
    PostStart = 2,
    Message = 3,
    SupervisionEvent = 4,
    PostStop = 5,
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// Shared by an incarnation's guard, its supervisor and its address.
#[derive(Default)]
pub(crate) struct Probe {
    fate: Mutex<Option<Fate>>,
    phase: AtomicU8,
    message_type: OnceLock<&'static str>,
    pub(crate) actor_type: OnceLock<&'static str>,
    depth: AtomicU64,
    handled: AtomicU64,
    stopped_in_order: AtomicBool,
    /// Takes the address down; set by the guard.
    on_close: OnceLock<Hook>,
    /// Tells a task to come to an end.
    on_cancel: OnceLock<Hook>,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("depth", &self.depth()).finish_non_exhaustive()
    }
}

impl Probe {
    pub(crate) fn describe(&self, actor_type: &'static str, message_type: &'static str) {
        self.actor_type.get_or_init(|| actor_type);
        self.message_type.get_or_init(|| message_type);
    }

    pub(crate) fn set_on_close(&self, hook: Hook) {
        self.on_close.get_or_init(|| hook);
    }

    pub(crate) fn set_on_cancel(&self, hook: Hook) {
        self.on_cancel.get_or_init(|| hook);
    }

    /// No message is accepted for this incarnation from here on.
    pub(crate) fn close_address(&self) {
        if let Some(hook) = self.on_close.get() {
            hook();
        }
    }

    pub(crate) fn cancel(&self) {
        if let Some(hook) = self.on_cancel.get() {
            hook();
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        if phase == Phase::Message {
            self.handled.fetch_add(1, Ordering::Relaxed);
            self.take_one();
        }
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.phase.store(Phase::Idle as u8, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, fate: Fate) {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fate);
    }

    pub(crate) fn stopped_in_order(&self) {
        self.stopped_in_order.store(true, Ordering::Release);
    }

    pub(crate) fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Counts a message in, unless `max` are waiting already.
    pub(crate) fn admit(&self, max: u64) -> bool {
        if self.depth.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        self.take_one();
        false
    }

    /// Counts a message out. Messages an actor sends to itself past its address were never counted
    /// in, so this stops at zero, and the count is right again whenever the mailbox was empty.
    pub(crate) fn take_one(&self) {
        self.depth
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |depth| depth.checked_sub(1))
            .ok();
    }

    /// How it ended. `stop_reason` is what the actor gave to `stop`, `cancelled` that its task was
    /// dropped by the runtime.
    pub(crate) fn exit(&self, stop_reason: Option<&str>, cancelled: bool) -> Exit {
        let fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let orderly = self.stopped_in_order.load(Ordering::Acquire);
        let (reason, error, location) = match fate {
            Some(Fate::Panic(caught)) => ("panic", Some(caught.text), caught.location),
            Some(Fate::Error(text)) => ("error", Some(text), None),
            Some(Fate::GaveUp(text)) => ("gave_up", Some(text), None),
            None if orderly => match stop_reason {
                None | Some("normal") => ("normal", None, None),
                Some("shutdown") => ("shutdown", None, None),
                Some(text) => ("normal", Some(text.to_owned()), None),
            },
            None if cancelled => ("cancelled", None, None),
            None => ("killed", None, None),
        };
        let abnormal = !matches!(reason, "normal" | "shutdown");
        let message_type = if abnormal { self.doing() } else { None };
        Exit { reason, abnormal, error, location, message_type, mailbox_depth: self.depth() }
    }

    /// What the actor was at: the message's type, or the callback's name.
    fn doing(&self) -> Option<String> {
        let phase = self.phase.load(Ordering::Relaxed);
        let text = match phase {
            p if p == Phase::PreStart as u8 => "pre_start",
            p if p == Phase::PostStart as u8 => "post_start",
            p if p == Phase::Message as u8 => self.message_type.get()?,
            p if p == Phase::SupervisionEvent as u8 => "ractor::SupervisionEvent",
            p if p == Phase::PostStop as u8 => "post_stop",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl Exit {
    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.reason.to_owned();
        if let Some(error) = &self.error {
            text.push_str(": ");
            text.push_str(error);
        }
        if let Some(location) = &self.location {
            text.push_str(" at ");
            text.push_str(location);
        }
        text
    }
}
