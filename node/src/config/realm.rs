//! How a realm behaves. There is one, `realm1`, for now; where there are more these keys are what a realm has that says nothing
//! else, which is why none of them names it.

use super::keys::{Key, count, word};
use super::value::{Value, show_bytes, show_duration};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;
use weald_router::auth::Disclosure;
use weald_router::realm::SessionLimits;
use weald_wamp::message::MatchPolicy;
use weald_wamp::uri::{self, Strictness};

/// Section `realm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Realm {
    /// Where anonymous clients may come from.
    pub(crate) anonymous: Anonymous,
    /// Which URIs are accepted.
    pub(crate) uri_rules: Strictness,
    /// Whether request ids must be sequential.
    pub(crate) strict_request_ids: bool,
    /// Who learns who calls and publishes.
    pub(crate) disclosure: Disclosure,
    /// How far clients are trusted.
    pub(crate) trust_level: Option<u64>,
    /// Topics whose events are kept.
    pub(crate) history: Vec<HistoryTopic>,
    /// Events kept of each.
    pub(crate) history_events: usize,
    /// Bytes kept of each.
    pub(crate) history_size: u64,
    /// How long; 0: as long as there is room.
    pub(crate) history_age: Duration,
    /// Topics with retained events.
    pub(crate) retained_topics: usize,
    /// Bytes of a retained event.
    pub(crate) retained_event_size: u64,
    /// How long; 0: for ever.
    pub(crate) retained_age: Duration,
    /// Time of calls that ask for none; 0: any.
    pub(crate) call_timeout: Duration,
    /// Longest time of a call; 0: any.
    pub(crate) call_timeout_max: Duration,
    /// What one session may have.
    pub(crate) session: SessionLimits,
}

/// Where anonymous clients may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anonymous {
    /// The machine of the node.
    Loopback,
    /// Any machine.
    Anywhere,
}

/// A topic or pattern whose events are kept. Written `policy:uri`, or the URI alone for `exact`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryTopic {
    /// How it matches.
    pub(crate) policy: MatchPolicy,
    /// What.
    pub(crate) uri: String,
}

impl fmt::Display for HistoryTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.policy.name(), self.uri)
    }
}

impl HistoryTopic {
    fn parse(text: &str) -> Result<Self, String> {
        let (policy, uri) = text
            .split_once(':')
            .and_then(|(policy, uri)| Some((MatchPolicy::from_name(policy)?, uri)))
            .unwrap_or((MatchPolicy::Exact, text));
        let is_long = weald_router::registry::pattern::check(policy, uri).is_err();
        if uri::check(uri, Strictness::Loose, policy).is_err() || is_long {
            return Err(format!(
                "{text:?} is no topic: a URI, or \"prefix:com.example.\", or \"wildcard:com..state\""
            ));
        }
        Ok(Self { policy, uri: uri.to_owned() })
    }
}

impl Default for Realm {
    fn default() -> Self {
        let settings = weald_router::realm::Settings::default();
        let age = |age: Option<Duration>| age.unwrap_or(Duration::ZERO);
        Self {
            anonymous: Anonymous::Loopback,
            uri_rules: settings.uri_rules,
            strict_request_ids: settings.strict_request_ids,
            disclosure: Disclosure::OnRequest,
            trust_level: None,
            history: Vec::new(),
            history_events: 1_000,                        // guess
            history_size: 16 << 20,                       // guess
            history_age: Duration::from_secs(7 * 86_400), // guess
            retained_topics: settings.retention.topics_max,
            retained_event_size: settings.retention.event_bytes_max as u64,
            retained_age: age(settings.retention.age_max),
            call_timeout: age(settings.calls.default),
            call_timeout_max: age(settings.calls.max),
            session: settings.session,
        }
    }
}

const ANONYMOUS: &[(&str, Anonymous)] =
    &[("loopback", Anonymous::Loopback), ("anywhere", Anonymous::Anywhere)];
const URI_RULES: &[(&str, Strictness)] =
    &[("loose", Strictness::Loose), ("strict", Strictness::Strict)];
const DISCLOSURES: &[(&str, Disclosure)] = &[
    ("on-request", Disclosure::OnRequest),
    ("always", Disclosure::Always),
    ("never", Disclosure::Never),
];
/// The word for no trust level.
const NONE: &str = "none";
const TRUST_LEVELS: RangeInclusive<u64> = 0..=1_000_000;
/// Topics whose history can be kept: each is looked at for each event. // guess
const HISTORY_MAX: usize = 64;
const PER_SESSION: RangeInclusive<u64> = 0..=10_000_000;

/// From a moment to a year.
fn ages() -> RangeInclusive<Duration> {
    Duration::from_millis(100)..=Duration::from_secs(52 * 7 * 86_400)
}

/// From a millisecond to a week.
fn times() -> RangeInclusive<Duration> {
    Duration::from_millis(1)..=Duration::from_secs(7 * 86_400)
}

fn trust_level(value: &Value) -> Result<Option<u64>, String> {
    if value.text().is_ok_and(|text| text == NONE) {
        return Ok(None);
    }
    value.int(&TRUST_LEVELS).map(Some).map_err(|why| format!("{why}, or \"{NONE}\""))
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "realm.anonymous",
        doc: "Where clients without credentials may come from: \"loopback\" (this machine, Unix socket\n\
              included) or \"anywhere\". They may do everything: mind who reaches the ports.",
        get: |c| Value::Text(word(ANONYMOUS, c.realm.anonymous)),
        set: |c, v| v.choice(ANONYMOUS).map(|from| c.realm.anonymous = from),
    },
    Key {
        path: "realm.uri_rules",
        doc: "Which URIs are accepted: \"loose\" (no whitespace, no #) or \"strict\" (components of a-z, 0-9\n\
              and _ only).",
        get: |c| Value::Text(word(URI_RULES, c.realm.uri_rules)),
        set: |c, v| v.choice(URI_RULES).map(|rules| c.realm.uri_rules = rules),
    },
    Key {
        path: "realm.strict_request_ids",
        doc: "Whether a client must number its requests 1, 2, 3, as the specification says. Without it\n\
              progressive call invocations do not work.",
        get: |c| Value::Bool(c.realm.strict_request_ids),
        set: |c, v| v.bool().map(|truth| c.realm.strict_request_ids = truth),
    },
    Key {
        path: "realm.disclosure",
        doc: "Whether callees and subscribers learn who calls and publishes: \"on-request\" (the caller's, the\n\
              publisher's, or the callee's), \"always\" or \"never\" (asking for it is an error).",
        get: |c| Value::Text(word(DISCLOSURES, c.realm.disclosure)),
        set: |c, v| v.choice(DISCLOSURES).map(|disclosure| c.realm.disclosure = disclosure),
    },
    Key {
        path: "realm.trust_level",
        doc: "Trust level that invocations and events carry, from 0 to 1000000; \"none\": they carry none.",
        get: |c| c.realm.trust_level.map_or_else(|| Value::Text(NONE.into()), super::keys::number),
        set: |c, v| trust_level(v).map(|level| c.realm.trust_level = level),
    },
    Key {
        path: "realm.history",
        doc: "Topics whose events are kept for wamp.subscription.get_events, at most 64: [\"com.example.news\",\n\
              \"prefix:com.example.log.\", \"wildcard:com..state\"]. In memory; give all nodes the same.",
        get: |c| Value::List(c.realm.history.iter().map(ToString::to_string).collect()),
        set: |c, v| {
            let texts = v.list(HISTORY_MAX, |text| HistoryTopic::parse(text).map(drop))?;
            let topics = texts.iter().map(|text| HistoryTopic::parse(text));
            topics.collect::<Result<_, _>>().map(|topics| c.realm.history = topics)
        },
    },
    Key {
        path: "realm.history_events",
        doc: "Events kept of each entry of realm.history, from 1 to 1000000; the oldest go first.",
        get: |c| count(c.realm.history_events),
        set: |c, v| v.count(&(1..=1_000_000)).map(|n| c.realm.history_events = n),
    },
    Key {
        path: "realm.history_size",
        doc: "Bytes kept of each entry of realm.history, from 1KiB to 1TiB; the oldest events go first.",
        get: |c| Value::Text(show_bytes(c.realm.history_size)),
        set: |c, v| v.bytes(&(1 << 10..=1 << 40)).map(|n| c.realm.history_size = n),
    },
    Key {
        path: "realm.history_age",
        doc: "How long an event is kept there, from 100ms to 52w; 0s: as long as there is room.",
        get: |c| Value::Text(show_duration(c.realm.history_age)),
        set: |c, v| v.duration_or_zero(&ages()).map(|d| c.realm.history_age = d),
    },
    Key {
        path: "realm.retained_topics",
        doc: "Topics that may have a retained event in the cluster, about, from 0 to 10000000; 0: none is kept.",
        get: |c| count(c.realm.retained_topics),
        set: |c, v| v.count(&(0..=10_000_000)).map(|n| c.realm.retained_topics = n),
    },
    Key {
        path: "realm.retained_event_size",
        doc: "Size of the arguments of a retained event, from 0B to 16MiB; a larger one is published and not\n\
              kept.",
        get: |c| Value::Text(show_bytes(c.realm.retained_event_size)),
        set: |c, v| v.bytes(&(0..=16 << 20)).map(|n| c.realm.retained_event_size = n),
    },
    Key {
        path: "realm.retained_age",
        doc: "How long the retained event of a topic is kept, from 100ms to 52w; 0s: as long as any node runs.",
        get: |c| Value::Text(show_duration(c.realm.retained_age)),
        set: |c, v| v.duration_or_zero(&ages()).map(|d| c.realm.retained_age = d),
    },
    Key {
        path: "realm.call_timeout",
        doc: "Time limit of calls that ask for none, from 1ms to 1w; 0s: they may take for ever.",
        get: |c| Value::Text(show_duration(c.realm.call_timeout)),
        set: |c, v| v.duration_or_zero(&times()).map(|d| c.realm.call_timeout = d),
    },
    Key {
        path: "realm.call_timeout_max",
        doc: "Longest time limit of a call, whatever it asks for, from 1ms to 1w; 0s: any.",
        get: |c| Value::Text(show_duration(c.realm.call_timeout_max)),
        set: |c, v| v.duration_or_zero(&times()).map(|d| c.realm.call_timeout_max = d),
    },
    Key {
        path: "realm.session_subscriptions",
        doc: "Subscriptions of one session, from 0 to 10000000; one more is weald.error.limit_exceeded.",
        get: |c| count(c.realm.session.subscriptions),
        set: |c, v| v.count(&PER_SESSION).map(|n| c.realm.session.subscriptions = n),
    },
    Key {
        path: "realm.session_registrations",
        doc: "Registrations of one session, from 0 to 10000000; one more is weald.error.limit_exceeded.",
        get: |c| count(c.realm.session.registrations),
        set: |c, v| v.count(&PER_SESSION).map(|n| c.realm.session.registrations = n),
    },
    Key {
        path: "realm.session_calls",
        doc: "Calls of one session in flight, from 0 to 10000000; one more is weald.error.limit_exceeded.",
        get: |c| count(c.realm.session.calls),
        set: |c, v| v.count(&PER_SESSION).map(|n| c.realm.session.calls = n),
    },
    Key {
        path: "realm.session_testaments",
        doc: "Testaments of one session, from 0 to 10000000; one more is weald.error.limit_exceeded.",
        get: |c| count(c.realm.session.testaments),
        set: |c, v| v.count(&PER_SESSION).map(|n| c.realm.session.testaments = n),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_topics_are_read_as_they_are_shown_and_others_refused() {
        for (text, shown) in [
            ("com.example.news", "exact:com.example.news"),
            ("exact:com.example.news", "exact:com.example.news"),
            ("prefix:com.example.", "prefix:com.example."),
            ("wildcard:com..state", "wildcard:com..state"),
            // A colon is nothing special in a URI.
            ("urn:example", "exact:urn:example"),
        ] {
            let topic = HistoryTopic::parse(text).unwrap();
            assert_eq!(topic.to_string(), shown);
            assert_eq!(HistoryTopic::parse(shown), Ok(topic));
        }
        for text in
            ["", "a b", "com..x", "prefix:a b", "exact:", &format!("prefix:{}", "x".repeat(9_999))]
        {
            assert!(HistoryTopic::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn trust_level_is_a_number_or_none() {
        assert_eq!(trust_level(&Value::Text("none".into())), Ok(None));
        assert_eq!(trust_level(&Value::Untyped("none".into())), Ok(None));
        assert_eq!(trust_level(&Value::Untyped("7".into())), Ok(Some(7)));
        assert_eq!(trust_level(&Value::Int(0)), Ok(Some(0)));
        let why = "-1 is not a whole number from 0 to 1000000, or \"none\"";
        assert_eq!(trust_level(&Value::Int(-1)), Err(why.to_owned()));
    }
}
