//! Events kept for later subscribers (advanced profile, event retention).
//!
//! What it is: for each topic the newest event that was for all, and the newest ones that were not, as one value in a
//! [`Shelf`], which a node shares with all others.
//! What it guarantees: neither topics nor events grow beyond their bounds; what a topic has already may be replaced.
//! What it refuses: to promise anything; two nodes that keep an event of one topic at the same time keep one of the two.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use weald_wamp::message::MatchPolicy;
use weald_wamp::{ByteString, uri};

use super::form::Form;
use super::publication::Publication;

/// Events with receivers of their own that are kept besides the newest for all, for each topic. // guess
const RESTRICTED_MAX: usize = 8;

/// How long a count of topics is believed. // guess
const COUNT_TIME_MS: u64 = 5_000;

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Topics with kept events in the whole cluster, about: nodes count for themselves, and not at every event. 0: nothing is kept.
    pub topics_max: usize,
    /// Bytes of the payload of one event; one that is larger is published and not kept.
    pub event_bytes_max: usize,
    /// How long the events of a topic are kept after the newest of them; none: for as long as any node runs.
    pub age_max: Option<Duration>,
}

impl Default for Bounds {
    fn default() -> Self {
        // guess
        Self { topics_max: 100_000, event_bytes_max: 1 << 20, age_max: None }
    }
}

/// Where values are kept by key.
pub trait Shelf: Send + Sync + 'static {
    /// Keeps a value in place of the one there is, for so long if that is said. Best effort.
    fn put(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        age_max: Option<Duration>,
    ) -> BoxFuture<'static, ()>;
    /// How many keys begin with `prefix`, counted up to a limit.
    fn count(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, usize>;
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// All values whose keys begin with `prefix`, in the order of keys.
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]));
}

/// The events of one realm.
pub(crate) struct Retained {
    shelf: Arc<dyn Shelf>,
    /// The realm and a separator that no realm's name has.
    prefix: Vec<u8>,
    bounds: Bounds,
    count: Mutex<Count>,
}

/// Topics, as counted last.
#[derive(Debug, Default)]
struct Count {
    topics: usize,
    /// When, on the clock of the process.
    at_ms: Option<u64>,
}

/// The events of one topic, oldest first: at most one that is for all.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Topic(Vec<Form>);

impl Topic {
    fn keep(&mut self, event: Form) {
        if event.is_for_all() {
            self.0.retain(|kept| !kept.is_for_all());
        } else if self.0.iter().filter(|kept| !kept.is_for_all()).count() >= RESTRICTED_MAX
            && let Some(oldest) = self.0.iter().position(|kept| !kept.is_for_all())
        {
            self.0.remove(oldest);
        }
        self.0.push(event);
    }
}

impl Retained {
    pub(crate) fn new(shelf: Arc<dyn Shelf>, realm: &str, bounds: Bounds) -> Self {
        let mut prefix = realm.as_bytes().to_vec();
        prefix.push(0);
        Self { shelf, prefix, bounds, count: Mutex::default() }
    }

    fn key(&self, topic: &str) -> Vec<u8> {
        [self.prefix.as_slice(), topic.as_bytes()].concat()
    }

    /// Keeps an event, if the bounds allow it.
    pub(crate) async fn keep(&self, publication: &Publication, now_ms: u64) {
        let key = self.key(&publication.topic);
        let before = self.shelf.get(&key);
        let why = if publication.payload.raw().len() > self.bounds.event_bytes_max {
            Some("too large")
        } else if before.is_none() && !self.has_room(now_ms).await {
            Some("too many topics")
        } else {
            None
        };
        if let Some(reason) = why {
            tracing::debug!(event = "event_not_retained", reason, "an event was not kept");
            return;
        }
        let mut topic = before.map(|value| read(&value)).unwrap_or_default();
        topic.keep(Form::from(publication));
        match postcard::to_stdvec(&topic) {
            Ok(value) => self.shelf.put(key, value, self.bounds.age_max).await,
            Err(error) => {
                tracing::debug!(event = "event_not_retained", %error, "an event was not kept");
            }
        }
    }

    /// Whether there is room for a topic that has none yet; takes it.
    async fn has_room(&self, now_ms: u64) -> bool {
        let topics_max = self.bounds.topics_max;
        if topics_max == 0 {
            return false;
        }
        let is_fresh =
            self.count().at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < COUNT_TIME_MS);
        if !is_fresh {
            let topics = self.shelf.count(&self.prefix, topics_max).await;
            *self.count() = Count { topics, at_ms: Some(now_ms) };
        }
        let mut count = self.count();
        let has_room = count.topics < topics_max;
        count.topics += usize::from(has_room);
        has_room
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        // Nothing panics while it is held.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers what is kept for each topic that matches, newest first, until one of the topic is taken.
    pub(crate) fn matching(
        &self,
        pattern: &str,
        policy: MatchPolicy,
        mut take: impl FnMut(&Publication) -> bool,
    ) {
        let mut offer = |topic: &str, value: &[u8]| {
            let name = ByteString::from(topic);
            let kept = read(value).0.into_iter().rev();
            let mut publications = kept
                .filter_map(|form| form.publication(name.clone()))
                .map(|publication| Publication { retained: true, ..publication });
            publications.find(|publication| take(publication));
        };
        match policy {
            MatchPolicy::Exact => {
                if let Some(value) = self.shelf.get(&self.key(pattern)) {
                    offer(pattern, &value);
                }
            }
            MatchPolicy::Prefix | MatchPolicy::Wildcard => {
                let begin = match policy {
                    MatchPolicy::Prefix => pattern,
                    // Up to the first component that may be anything.
                    _ => pattern.find("..").map_or("", |at| &pattern[..at]),
                };
                self.shelf.scan(&self.key(begin), &mut |key, value| {
                    let topic = key.get(self.prefix.len()..).unwrap_or_default();
                    if let Ok(topic) = std::str::from_utf8(topic)
                        && uri::matches(policy, pattern, topic)
                    {
                        offer(topic, value);
                    }
                });
            }
        }
    }
}

/// What cannot be read was written by another release, and is as if not there.
fn read(value: &[u8]) -> Topic {
    postcard::from_bytes(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::ready;

    use weald_wamp::{Dict, Payload, PublicationId, Serializer, Value};

    use super::*;

    #[derive(Default)]
    struct Table(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

    impl Shelf for Table {
        fn put(&self, key: Vec<u8>, value: Vec<u8>, _: Option<Duration>) -> BoxFuture<'static, ()> {
            self.0.lock().unwrap().insert(key, value);
            Box::pin(ready(()))
        }

        fn count(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, usize> {
            let table = self.0.lock().unwrap();
            let count = table.keys().filter(|key| key.starts_with(prefix)).take(limit).count();
            Box::pin(ready(count))
        }

        fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
            self.0.lock().unwrap().get(key).cloned()
        }

        fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
            let table = self.0.lock().unwrap();
            let of_prefix = table.iter().filter(|(key, _)| key.starts_with(prefix));
            of_prefix.for_each(|(key, value)| visit(key, value));
        }
    }

    fn publication(id: u64, topic: &str, payload_bytes: usize) -> Publication {
        let args = [Value::from("x".repeat(payload_bytes))];
        let payload = Payload::from_values(Serializer::Json, &args, &Dict::new()).unwrap();
        Publication::for_all(PublicationId::new(id).unwrap(), ByteString::from(topic), payload, 1)
    }

    fn kept(retained: &Retained) -> Vec<u64> {
        let mut ids = Vec::new();
        retained.matching("com.", MatchPolicy::Prefix, |publication| {
            ids.push(publication.id.get());
            true
        });
        ids
    }

    #[tokio::test]
    async fn topics_and_bytes_are_bounded_and_a_topic_that_is_there_stays_writable() {
        for (topics_max, event_bytes_max, expected) in
            [(3, 1000, vec![5, 2, 3]), (2, 1000, vec![5, 2]), (0, 1000, vec![]), (3, 50, vec![])]
        {
            let bounds = Bounds { topics_max, event_bytes_max, age_max: None };
            let retained = Retained::new(Arc::new(Table::default()), "realm1", bounds);
            for (id, topic) in (1..).zip(["com.a", "com.b", "com.c", "com.d", "com.a"]) {
                retained.keep(&publication(id, topic, 100), 0).await;
            }
            assert_eq!(kept(&retained), expected, "{topics_max} {event_bytes_max}");
        }
    }

    #[tokio::test]
    async fn room_that_others_have_made_is_noticed_after_a_while() {
        let table = Arc::new(Table::default());
        let bounds = Bounds { topics_max: 1, ..Bounds::default() };
        let retained = Retained::new(Arc::<Table>::clone(&table), "realm1", bounds);
        retained.keep(&publication(1, "com.a", 1), 0).await;
        table.0.lock().unwrap().clear();
        retained.keep(&publication(2, "com.b", 1), COUNT_TIME_MS - 1).await;
        assert_eq!(kept(&retained), [0; 0]);
        retained.keep(&publication(3, "com.b", 1), COUNT_TIME_MS).await;
        assert_eq!(kept(&retained), [3]);
    }
}
