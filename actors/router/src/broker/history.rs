//! Events kept for `wamp.subscription.get_events` (advanced profile, event history).
//!
//! What it is: for each topic or pattern that the configuration names, the latest events that this node has routed. Nodes
//! want the events of these topics whether they have subscribers or not, so each has them all.
//! What it refuses: to outlive the process; events whose receivers were named by session id, as the specification says.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use weald_wamp::message::MatchPolicy;
use weald_wamp::{ByteString, SubscriptionId, uri};

use super::publication::Publication;
use crate::registry::id;

/// A topic whose events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The topic, or a pattern.
    pub uri: ByteString,
    /// How it matches.
    pub policy: MatchPolicy,
    /// Events kept; older ones are forgotten.
    pub events_max: usize,
}

/// An event that was kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// When this node routed it, Unix milliseconds.
    pub(crate) at_ms: u64,
    /// What.
    pub(crate) publication: Publication,
}

struct Store {
    id: Option<SubscriptionId>,
    topic: Topic,
    events: Mutex<VecDeque<Kept>>,
}

/// The events of a realm.
pub(crate) struct History(Vec<Store>);

impl History {
    pub(crate) fn new(topics: &[Topic], realm: &str) -> Self {
        let store = |topic: &Topic| Store {
            id: id::expected(realm, topic.policy, &topic.uri),
            topic: topic.clone(),
            events: Mutex::default(),
        };
        Self(topics.iter().map(store).collect())
    }

    /// Whether nothing is to be kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The topics, as the subscriptions they count as.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.0.iter().map(|store| &store.topic)
    }

    /// Keeps an event where it belongs.
    pub(crate) fn record(&self, publication: &Publication, now_ms: u64) {
        let by_id = publication
            .receivers
            .as_deref()
            .is_some_and(|receivers| receivers.exclude.is_some() || receivers.eligible.is_some());
        if by_id {
            return;
        }
        for store in &self.0 {
            let topic = &store.topic;
            if topic.events_max == 0 || !uri::matches(topic.policy, &topic.uri, &publication.topic)
            {
                continue;
            }
            let mut events = store.events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.len() >= topic.events_max {
                events.pop_front();
            }
            events.push_back(Kept { at_ms: now_ms, publication: publication.clone() });
        }
    }

    /// The topic of a subscription, and its events, oldest first. None when none are kept for it.
    pub(crate) fn of(&self, id: SubscriptionId) -> Option<(&Topic, Vec<Kept>)> {
        let store = self.0.iter().find(|store| store.id == Some(id))?;
        let events = store.events.lock().unwrap_or_else(PoisonError::into_inner);
        Some((&store.topic, events.iter().cloned().collect()))
    }
}
