//! Events kept for later subscribers (advanced profile, event retention).
//!
//! What it is: for each topic the newest event that was for all, and the newest ones that were not, as one value in a
//! [`Shelf`], which a node shares with all others.
//! What it refuses: to promise anything; two nodes that keep an event of one topic at the same time keep one of the two.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use weald_wamp::message::MatchPolicy;
use weald_wamp::{ByteString, uri};

use super::form::Form;
use super::publication::Publication;

/// Events with receivers of their own that are kept besides the newest for all, for each topic. // guess
const RESTRICTED_MAX: usize = 8;

/// Where values are kept by key.
pub trait Shelf: Send + Sync + 'static {
    /// Keeps a value in place of the one there is. Best effort.
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> BoxFuture<'static, ()>;
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// All values whose keys begin with `prefix`, in the order of keys.
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]));
}

/// The events of one realm.
#[derive(Clone)]
pub(crate) struct Retained {
    shelf: Arc<dyn Shelf>,
    /// The realm and a separator that no realm's name has.
    prefix: Vec<u8>,
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
    pub(crate) fn new(shelf: Arc<dyn Shelf>, realm: &str) -> Self {
        let mut prefix = realm.as_bytes().to_vec();
        prefix.push(0);
        Self { shelf, prefix }
    }

    fn key(&self, topic: &str) -> Vec<u8> {
        [self.prefix.as_slice(), topic.as_bytes()].concat()
    }

    /// Keeps an event.
    pub(crate) fn keep(&self, publication: &Publication) -> BoxFuture<'static, ()> {
        let key = self.key(&publication.topic);
        let mut topic = self.shelf.get(&key).map(|value| read(&value)).unwrap_or_default();
        topic.keep(Form::from(publication));
        match postcard::to_stdvec(&topic) {
            Ok(value) => self.shelf.put(key, value),
            Err(error) => {
                tracing::debug!(event = "event_not_retained", %error, "an event was not kept");
                Box::pin(std::future::ready(()))
            }
        }
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
