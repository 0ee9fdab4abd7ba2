//! What a change of the tables means to others, as data.
//!
//! What it is: rows of interest, to be told to other nodes, and meta events, to be published to clients.
//!
//! What it refuses: to tell anybody; whoever made the change does.

use weald_storage::ids::NodeId;
use weald_wamp::SessionId;
use weald_wamp::message::InvokePolicy;

use super::id::{Kind, RowId};
use super::pattern::{MatchPolicy, Uri};

/// What a row of interest is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterestKey {
    /// Events or calls.
    pub kind: Kind,
    /// How the URI is compared.
    pub policy: MatchPolicy,
    /// The topic, the procedure, or a pattern of them.
    pub uri: Uri,
}

/// What a node has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// How calls are spread; of subscriptions without meaning.
    pub invoke: InvokePolicy,
    /// Callees; of subscriptions always 1, for nobody else counts subscribers.
    pub count: u64,
    /// When the oldest callee of those there now came, in Unix milliseconds of the node's clock; of subscriptions: when the
    /// topic was first subscribed to.
    pub oldest_ms: u64,
    /// When the newest came; of subscriptions the same as the oldest.
    pub newest_ms: u64,
    /// Whoever has come before then, on any node, was replaced (`force_reregister`); 0: nobody.
    pub cleared_ms: u64,
}

/// A row of interest that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterestChange {
    /// Which one.
    pub key: InterestKey,
    /// What it is now; none: gone.
    pub row: Option<Interest>,
}

/// What the meta API tells of a subscription or a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// Its id.
    pub id: RowId,
    /// When the first subscriber or callee came, in Unix milliseconds. [`iso8601`] writes it.
    pub created_ms: u64,
    /// The topic, the procedure, or a pattern of them.
    pub uri: Uri,
    /// How the URI is compared.
    pub policy: MatchPolicy,
    /// How calls are spread; none of subscriptions.
    pub invoke: Option<InvokePolicy>,
}

/// What happened to a subscription or a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaChange {
    /// It is there now. Comes before [`MetaChange::Joined`].
    Created(Box<Details>),
    /// The session is on it now.
    Joined,
    /// The session is not on it any more.
    Left,
    /// It is gone. Comes after [`MetaChange::Left`].
    Deleted,
}

/// A meta event to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaEvent {
    /// Which row.
    pub id: RowId,
    /// Whose change it was. None: rows of another node came or went with the node; every node sees that by itself, so such
    /// an event is for the node's own clients only.
    pub session: Option<SessionId>,
    /// What happened.
    pub change: MetaChange,
}

impl MetaEvent {
    /// The topic that it is published to.
    pub fn topic(&self) -> &'static str {
        match (self.id.kind(), &self.change) {
            (Kind::Subscription, MetaChange::Created(_)) => "wamp.subscription.on_create",
            (Kind::Subscription, MetaChange::Joined) => "wamp.subscription.on_subscribe",
            (Kind::Subscription, MetaChange::Left) => "wamp.subscription.on_unsubscribe",
            (Kind::Subscription, MetaChange::Deleted) => "wamp.subscription.on_delete",
            (Kind::Registration, MetaChange::Created(_)) => "wamp.registration.on_create",
            (Kind::Registration, MetaChange::Joined) => "wamp.registration.on_register",
            (Kind::Registration, MetaChange::Left) => "wamp.registration.on_unregister",
            (Kind::Registration, MetaChange::Deleted) => "wamp.registration.on_delete",
        }
    }
}

/// What changes of the tables mean to others, in the order they happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Rows of this node's interest that have changed.
    pub interest: Vec<InterestChange>,
    /// Meta events to be published.
    pub meta: Vec<MetaEvent>,
}

impl Effects {
    /// Whether nobody needs to be told anything.
    pub fn is_empty(&self) -> bool {
        self.interest.is_empty() && self.meta.is_empty()
    }
}

/// A registration of this node that yields to another node's, and whose callees are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which one.
    pub id: weald_wamp::RegistrationId,
    /// The procedure.
    pub procedure: Uri,
    /// How it is compared.
    pub policy: MatchPolicy,
    /// The node whose registration stands.
    pub winner: NodeId,
    /// Set if a client of that node has replaced them: all who came before then.
    pub replaced_ms: Option<u64>,
    /// The callees to be revoked here.
    pub callees: Vec<SessionId>,
}

/// A time of the Unix epoch as ISO 8601, in UTC, with milliseconds: `2026-06-14T09:30:00.125Z`.
pub fn iso8601(unix_ms: u64) -> String {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let (days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    let (year, month, day) = civil(days);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, milli) = (ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a day since 1970-01-01. Years are taken to begin in March, so that the leap day is their last;
/// then 400 years are one cycle.
fn civil(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 400 * 365 + 97;
    let days = days + 719_468; // From 0000-03-01 to 1970-01-01.
    let (cycle, day) = (days / CYCLE, days % CYCLE);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (cycle * 400 + year, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso8601_known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_700_000_000_125, "2023-11-14T22:13:20.125Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso8601(ms), text);
        }
    }

    #[test]
    fn civil_every_day_of_a_cycle_follows_the_day_before() {
        let mut before = civil(0);
        for day in 1..=400 * 366 {
            let (year, month, of_month) = civil(day);
            let by = |years: u64| before.0.is_multiple_of(years);
            let leap = by(4) && (!by(100) || by(400));
            let last = match before.1 {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match before {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, day) if day == last => (year, month + 1, 1),
                (year, month, day) => (year, month, day + 1),
            };
            assert_eq!((year, month, of_month), expected);
            before = expected;
        }
    }
}
