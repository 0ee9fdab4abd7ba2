//! Tells inboxes of peers, in order and one call at a time, without a lock held: an inbox may use the transport meanwhile.

use super::Inboxes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weald_peers::PeerEvent;

#[derive(Default)]
struct Queue {
    /// As long as the peers that come and go while an inbox is busy, which it must not be.
    events: VecDeque<(Arc<Inboxes>, PeerEvent)>,
    is_delivering: bool,
}

/// What is to be told.
#[derive(Default)]
pub(super) struct Events {
    queue: Mutex<Queue>,
}

/// Whoever delivers; another takes over if it panics.
struct Delivering<'a>(&'a Events);

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        self.0.lock().is_delivering = false;
    }
}

impl Events {
    /// Adds an event for these inboxes.
    pub(super) fn push(&self, inboxes: Arc<Inboxes>, event: PeerEvent) {
        self.lock().events.push_back((inboxes, event));
    }

    /// Tells what is queued, unless somebody does so already.
    pub(super) fn deliver(&self) {
        loop {
            {
                let mut queue = self.lock();
                if queue.is_delivering || queue.events.is_empty() {
                    return;
                }
                queue.is_delivering = true;
            }
            // An event that is added after the queue was found empty, and before the flag is down, is for the next turn.
            let _delivering = Delivering(self);
            while let Some((inboxes, event)) = self.next() {
                for inbox in inboxes.values() {
                    inbox.peer(&event);
                }
            }
        }
    }

    fn next(&self) -> Option<(Arc<Inboxes>, PeerEvent)> {
        self.lock().events.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
