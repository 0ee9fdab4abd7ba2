//! What a supervisor tells the log.
//!
//! Guarantees: every decision and every exit is one record. Refuses: to decide or to wait.

use std::sync::atomic::Ordering;

use super::State;
use crate::core::{Key, Note};
use crate::incarnation::Incarnation;
use crate::probe::Exit;
use crate::record::{Event, Record};
use crate::scope::Status;
use crate::spec::Kind;

impl State {
    pub(super) fn note(&self, note: Note) {
        match note {
            Note::Restarting { key, in_window, delay_ms } => {
                if let Some(slot) = self.slots.get(&key) {
                    self.scope.set_status(&slot.path, Status::Restarting);
                }
                self.emit_child(key, Event::ChildRestarting, |record| {
                    record.restart_in_window = Some(in_window);
                    record.backoff_ms = Some(delay_ms);
                });
            }
            Note::StrategyApplied { key, stops } => {
                self.emit_child(key, Event::StrategyApplied, |r| r.siblings = Some(stops as u64));
            }
            Note::IntensityExceeded { key, in_window } => {
                let mut record = self.own_record(Event::IntensityExceeded);
                record.child = self.slots.get(&key).map(|slot| slot.spec.id.to_string());
                record.restart_in_window = Some(in_window);
                self.scope.emit(record);
            }
            Note::GaveUp { key } => self.emit_child(key, Event::ChildGaveUp, |_| ()),
        }
    }

    pub(super) fn emit_exit(&self, key: Key, live: &Incarnation, exit: Exit) {
        self.emit_with(key, Event::ChildExited, live, |record| {
            record.reason = Some(exit.reason.to_owned());
            record.error = exit.error;
            record.location = exit.location;
            record.message_type = exit.message_type;
            record.mailbox_depth = Some(exit.mailbox_depth);
            if live.drill.load(Ordering::Relaxed) && record.error.is_none() {
                record.error = Some("drill".to_owned());
            }
        });
    }

    /// A record about a child, with what its present incarnation tells.
    pub(super) fn emit_child(&self, key: Key, event: Event, fill: impl FnOnce(&mut Record)) {
        match self.slots.get(&key).and_then(|slot| slot.live.clone()) {
            Some(live) => self.emit_with(key, event, &live, fill),
            None => self.emit_record(key, event, fill),
        }
    }

    pub(super) fn emit_with(
        &self,
        key: Key,
        event: Event,
        live: &Incarnation,
        fill: impl FnOnce(&mut Record),
    ) {
        self.emit_record(key, event, |record| {
            record.actor_id = Some(live.cell.get_id().to_string());
            record.uptime_ms = Some(self.scope.now_ms().saturating_sub(live.started_ms));
            record.actor_type = live.probe.actor_type.get().map(|t| (*t).to_owned());
            fill(record);
        });
    }

    fn emit_record(&self, key: Key, event: Event, fill: impl FnOnce(&mut Record)) {
        let Some(slot) = self.slots.get(&key) else {
            return;
        };
        let mut record = Record::new(event, &slot.path);
        record.child = Some(slot.spec.id.to_string());
        record.kind = Some(slot.spec.kind.name().to_owned());
        record.restart = Some(slot.spec.restart_or(self.plan.default_restart()).name().to_owned());
        record.strategy = Some(self.plan.policy.strategy.name().to_owned());
        record.generation = Some(slot.generation);
        record.restarts = Some(slot.generation.saturating_sub(1));
        record.intensity_max = Some(self.plan.policy.intensity_max);
        record.window_ms = Some(self.plan.policy.window_ms);
        fill(&mut record);
        if !self.is_noise(&record) {
            self.scope.emit(record);
        }
    }

    /// An orderly start or end below a supervisor that keeps these to itself.
    fn is_noise(&self, record: &Record) -> bool {
        let quiet = self.plan.dynamic.as_ref().is_some_and(|(_, spec)| spec.quiet);
        let orderly = record.event != Event::ChildExited
            || matches!(record.reason.as_deref(), Some("normal" | "shutdown"));
        let routine = matches!(
            record.event,
            Event::ChildStarted | Event::ChildExited | Event::ChildStopping | Event::ChildStopped
        );
        quiet && orderly && routine
    }

    fn own_record(&self, event: Event) -> Record {
        let mut record = Record::new(event, &self.path);
        record.kind = Some(Kind::Supervisor.name().to_owned());
        record.strategy = Some(self.plan.policy.strategy.name().to_owned());
        record.intensity_max = Some(self.plan.policy.intensity_max);
        record.window_ms = Some(self.plan.policy.window_ms);
        record
    }

    pub(super) fn emit_own(&self, event: Event, reason: Option<&str>, error: Option<String>) {
        let mut record = self.own_record(event);
        record.reason = reason.map(str::to_owned);
        record.error = error;
        self.scope.emit(record);
    }
}
