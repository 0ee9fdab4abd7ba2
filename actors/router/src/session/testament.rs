//! What a session wants published when it ends.

use bytestring::ByteString;
use weald_wamp::Payload;
use weald_wamp::message::PublishOptions;

/// When a testament is published. A router without session resumption does both at the session's end, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The connection is gone.
    Detached,
    /// The session is over.
    Destroyed,
}

/// A publication to come.
#[derive(Debug, Clone)]
pub struct Testament {
    /// Where to.
    pub topic: ByteString,
    /// How; acknowledging and excluding the publisher have no meaning here.
    pub options: PublishOptions,
    /// What.
    pub payload: Payload,
}

/// The testaments of one session.
#[derive(Debug, Default)]
pub struct Testaments {
    detached: Vec<Testament>,
    destroyed: Vec<Testament>,
}

impl Testaments {
    /// Adds one, to be published after those there are. False when there are `max` already.
    pub fn add(&mut self, when: When, testament: Testament, max: usize) -> bool {
        if self.detached.len() + self.destroyed.len() >= max {
            return false;
        }
        self.of(when).push(testament);
        true
    }

    /// Forgets those of one kind, and says how many there were.
    pub fn flush(&mut self, when: When) -> usize {
        std::mem::take(self.of(when)).len()
    }

    /// Takes all, in the order of publication.
    pub fn take(&mut self) -> Vec<Testament> {
        let mut all = std::mem::take(&mut self.detached);
        all.append(&mut self.destroyed);
        all
    }

    fn of(&mut self, when: When) -> &mut Vec<Testament> {
        match when {
            When::Detached => &mut self.detached,
            When::Destroyed => &mut self.destroyed,
        }
    }
}
