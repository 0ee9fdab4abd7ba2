//! Events kept for `wamp.subscription.get_events` (advanced profile, event history).
//!
//! What it is: for each topic or pattern that the configuration names, the latest events that this node has routed. Nodes
//! want the events of these topics whether they have subscribers or not, so each has them all.
//! What it refuses: to outlive the process; events whose receivers were named by session id, as the specification says.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// Bytes of payloads and topics kept, with a charge for each event; older events are forgotten, and one that is larger
    /// is not kept.
    pub bytes_max: usize,
    /// How long an event is kept; none: as long as there is room.
    pub age_max: Option<Duration>,
}

/// An event that was kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// When this node routed it, Unix milliseconds.
    pub(crate) at_ms: u64,
    /// The same on the clock that never goes back: how old it is does not depend on whoever sets the time.
    kept_ms: u64,
    /// What.
    pub(crate) publication: Publication,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.publication.payload.raw().len() + self.publication.topic.len() + EVENT_BYTES
    }
}

/// What an event costs beside its payload and topic. // guess
const EVENT_BYTES: usize = 256;

/// Events, oldest first.
#[derive(Debug, Default)]
struct Events {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Events {
    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes -= oldest.bytes();
        }
    }

    fn forget_old(&mut self, age_max: Option<Duration>, now_ms: u64) {
        let Some(age_max) = age_max else { return };
        let age_max_ms = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        while self.kept.front().is_some_and(|kept| kept.kept_ms.saturating_add(age_max_ms) < now_ms)
        {
            self.forget_oldest();
        }
    }

    fn keep(&mut self, event: Kept, topic: &Topic) {
        let bytes = event.bytes();
        if bytes > topic.bytes_max || topic.events_max == 0 {
            return;
        }
        while self.kept.len() >= topic.events_max || self.bytes + bytes > topic.bytes_max {
            self.forget_oldest();
        }
        self.bytes += bytes;
        self.kept.push_back(event);
    }
}

struct Store {
    id: Option<SubscriptionId>,
    topic: Topic,
    events: Mutex<Events>,
}

impl Store {
    /// The events that are not too old.
    fn events(&self, now_ms: u64) -> MutexGuard<'_, Events> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.forget_old(self.topic.age_max, now_ms);
        events
    }
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
    pub(crate) fn record(&self, publication: &Publication, at_ms: u64, now_ms: u64) {
        let by_id = publication
            .receivers
            .as_deref()
            .is_some_and(|receivers| receivers.exclude.is_some() || receivers.eligible.is_some());
        if by_id {
            return;
        }
        for store in &self.0 {
            let topic = &store.topic;
            if !uri::matches(topic.policy, &topic.uri, &publication.topic) {
                continue;
            }
            let publication = publication.in_memory_of_its_own();
            store.events(now_ms).keep(Kept { at_ms, kept_ms: now_ms, publication }, topic);
        }
    }

    /// The topic of a subscription, and its events, oldest first. None when none are kept for it.
    pub(crate) fn of(&self, id: SubscriptionId, now_ms: u64) -> Option<(&Topic, Vec<Kept>)> {
        let store = self.0.iter().find(|store| store.id == Some(id))?;
        Some((&store.topic, store.events(now_ms).kept.iter().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use weald_wamp::{Dict, Payload, PublicationId, Serializer, Value};

    use super::*;

    fn history(events_max: usize, bytes_max: usize, age_max_ms: Option<u64>) -> History {
        let topic = Topic {
            uri: ByteString::from_static("com.example."),
            policy: MatchPolicy::Prefix,
            events_max,
            bytes_max,
            age_max: age_max_ms.map(Duration::from_millis),
        };
        History::new(&[topic], "realm1")
    }

    fn publication(id: u64, topic: &'static str, payload_bytes: usize) -> Publication {
        let args = [Value::from("x".repeat(payload_bytes))];
        let payload = Payload::from_values(Serializer::Json, &args, &Dict::new()).unwrap();
        Publication::for_all(
            PublicationId::new(id).unwrap(),
            ByteString::from_static(topic),
            payload,
            1,
        )
    }

    /// The ids of what is kept.
    fn kept(history: &History, now_ms: u64) -> Vec<u64> {
        let id = id::expected("realm1", MatchPolicy::Prefix, "com.example.").unwrap();
        let (_, events) = history.of(id, now_ms).unwrap();
        events.iter().map(|event| event.publication.id.get()).collect()
    }

    #[test]
    fn number_bytes_and_age_bound_what_is_kept_and_the_oldest_goes_first() {
        for (events_max, bytes_max, age_max_ms, expected) in [
            (10, 1 << 20, None, vec![1, 2, 3, 4]),
            (2, 1 << 20, None, vec![3, 4]),
            (0, 1 << 20, None, vec![]),
            // Two of them, with what each costs beside its 100 bytes.
            (10, 2 * (100 + 50 + EVENT_BYTES), None, vec![3, 4]),
            (10, 100, None, vec![]),
            (10, 1 << 20, Some(250), vec![3, 4]),
            (10, 1 << 20, Some(0), vec![]),
        ] {
            let history = history(events_max, bytes_max, age_max_ms);
            for n in 1..=4 {
                history.record(&publication(n, "com.example.a", 100), 7, n * 100);
                history.record(&publication(n + 10, "com.other", 100), 7, n * 100);
            }
            let found = kept(&history, 501);
            assert_eq!(found, expected, "{events_max} {bytes_max} {age_max_ms:?}");
        }
    }

    #[test]
    fn event_that_is_too_large_drives_no_other_out() {
        let history = history(10, 2000, None);
        history.record(&publication(1, "com.example.a", 100), 7, 0);
        history.record(&publication(2, "com.example.a", 5000), 7, 0);
        assert_eq!(kept(&history, 0), [1]);
    }
}
