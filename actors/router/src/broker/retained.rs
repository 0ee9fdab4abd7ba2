//! Events kept for later subscribers (advanced profile, event retention).
//!
//! What it is: the seam to wherever they are kept, and one place in memory, for a node alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use weald_wamp::ByteString;
use weald_wamp::message::MatchPolicy;

use super::publication::Publication;
use crate::registry::matches;

/// Events with receivers of their own that are kept besides the newest for all, for each topic. // guess
pub(crate) const RESTRICTED_MAX: usize = 8;

/// Keeps the newest event of each topic that is for all, and the newest ones that are not.
pub(crate) trait Retained: Send + Sync + 'static {
    /// Keeps an event. Best effort: what cannot be kept is not.
    fn keep<'a>(
        &'a self,
        realm: &'a ByteString,
        publication: &'a Publication,
        now_ms: u64,
    ) -> BoxFuture<'a, ()>;

    /// Offers what is kept for each topic that matches, newest first, until one of the topic is taken.
    fn matching(
        &self,
        realm: &ByteString,
        topic: &ByteString,
        policy: MatchPolicy,
        take: &mut dyn FnMut(Publication) -> bool,
    );
}

/// The events kept for one topic, oldest first: at most one that is for all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topic(VecDeque<Publication>);

impl Topic {
    /// Keeps another one.
    pub(crate) fn keep(&mut self, publication: Publication) {
        if publication.receivers.is_none() {
            self.0.retain(|kept| kept.receivers.is_some());
        } else if self.0.len() > RESTRICTED_MAX {
            let oldest = self.0.iter().position(|kept| kept.receivers.is_some());
            oldest.map(|oldest| self.0.remove(oldest));
        }
        self.0.push_back(Publication { retained: true, ..publication });
    }

    /// All, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Publication> {
        self.0.iter().rev()
    }
}
