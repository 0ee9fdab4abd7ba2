//! `wamp.subscription.get_events` (advanced profile, event history).

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use weald_wamp::{ByteString, Dict, PublicationId, SubscriptionId, Value};

use super::Returned;
use super::arguments::Arguments;
use crate::auth::Action;
use crate::broker::history::Kept;
use crate::dealer::Refusal;
use crate::error;
use crate::realm::Realm;
use crate::registry::iso8601;
use crate::session::handle::Handle;

/// Events in one answer at most, whatever limit is asked for. // guess: a thousand events of a kilobyte
const EVENTS_MAX: usize = 1000;

/// Which events are asked for; all conditions hold together. Times are Unix milliseconds; publications are places in the
/// order of events.
#[derive(Debug, Default)]
struct Wanted {
    from_ms: Option<u64>,
    after_ms: Option<u64>,
    before_ms: Option<u64>,
    until_ms: Option<u64>,
    topic: Option<ByteString>,
    from: Option<PublicationId>,
    after: Option<PublicationId>,
    before: Option<PublicationId>,
    until: Option<PublicationId>,
    reverse: bool,
    limit: usize,
}

/// Calls it.
pub(crate) fn call(
    realm: &Arc<Realm>,
    session: &Handle,
    arguments: &Arguments,
) -> Result<Returned, Refusal> {
    let id = arguments.need_id(0, "subscription")?;
    let kept = SubscriptionId::new(id).and_then(|id| realm.history().of(id, realm.now_ms()));
    let Some((topic, events)) = kept else {
        let message = format!("no events are kept for subscription {id}");
        return Err(Refusal::new(error::NO_SUCH_SUBSCRIPTION, message));
    };
    realm.decide(session, Action::Subscribe, &topic.uri, topic.policy)?;
    let wanted = Wanted::from(arguments)?;
    let allowed: Vec<Kept> =
        events.into_iter().filter(|event| event.publication.is_for(session)).collect();
    let chosen = wanted.choose(&allowed)?;
    let events =
        chosen.iter().map(|event| described(realm, id, event)).collect::<Result<_, _>>()?;
    Ok(Returned { args: events, kwargs: Dict::new() })
}

impl Wanted {
    fn from(arguments: &Arguments) -> Result<Self, Refusal> {
        let publication = |name: &str| match arguments.number(usize::MAX, name)? {
            None => Ok(None),
            Some(id) => PublicationId::new(id).map(Some).ok_or_else(|| {
                Refusal::new(error::INVALID_ARGUMENT, format!("{name} must be an id"))
            }),
        };
        let limit = arguments.number(usize::MAX, "limit")?;
        if limit == Some(0) {
            return Err(Refusal::new(error::INVALID_ARGUMENT, "limit must be 1 or more"));
        }
        let limit = limit.map_or(EVENTS_MAX, |limit| usize::try_from(limit).unwrap_or(EVENTS_MAX));
        Ok(Self {
            from_ms: time(arguments, "from_time")?,
            after_ms: time(arguments, "after_time")?,
            before_ms: time(arguments, "before_time")?,
            until_ms: time(arguments, "until_time")?,
            topic: arguments.text(usize::MAX, "topic")?,
            from: publication("from_publication")?,
            after: publication("after_publication")?,
            before: publication("before_publication")?,
            until: publication("until_publication")?,
            reverse: arguments.flag(usize::MAX, "reverse")?,
            limit: limit.min(EVENTS_MAX),
        })
    }

    /// The events that are asked for, of all there are in their order.
    fn choose(&self, events: &[Kept]) -> Result<Vec<Kept>, Refusal> {
        let place = |id: Option<PublicationId>| match id {
            None => Ok(None),
            Some(id) => {
                events.iter().position(|event| event.publication.id == id).map(Some).ok_or_else(
                    || {
                        let message = format!("publication {id} is not kept");
                        Refusal::new(error::INVALID_ARGUMENT, message)
                    },
                )
            }
        };
        let (from, after) = (place(self.from)?, place(self.after)?);
        let (before, until) = (place(self.before)?, place(self.until)?);
        let holds = |at: usize, event: &Kept| {
            from.is_none_or(|from| at >= from)
                && after.is_none_or(|after| at > after)
                && before.is_none_or(|before| at < before)
                && until.is_none_or(|until| at <= until)
                && self.from_ms.is_none_or(|from| event.at_ms >= from)
                && self.after_ms.is_none_or(|after| event.at_ms > after)
                && self.before_ms.is_none_or(|before| event.at_ms < before)
                && self.until_ms.is_none_or(|until| event.at_ms <= until)
                && self.topic.as_ref().is_none_or(|topic| event.publication.topic == *topic)
        };
        let mut chosen: Vec<Kept> = events
            .iter()
            .enumerate()
            .filter(|(at, event)| holds(*at, event))
            .map(|(_, event)| event.clone())
            .collect();
        if self.reverse {
            chosen.reverse();
        }
        chosen.truncate(self.limit);
        Ok(chosen)
    }
}

fn time(arguments: &Arguments, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(text) = arguments.text(usize::MAX, name)? else { return Ok(None) };
    let wrong = || {
        let message = format!("{name} must be a time in UTC, such as 2026-06-14T09:30:00.125Z");
        Refusal::new(error::INVALID_ARGUMENT, message)
    };
    let at = humantime::parse_rfc3339_weak(&text).map_err(|_wrong| wrong())?;
    let since = at.duration_since(UNIX_EPOCH).map_err(|_before| wrong())?;
    Ok(Some(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

fn described(realm: &Arc<Realm>, subscription: u64, event: &Kept) -> Result<Value, Refusal> {
    let publication = &event.publication;
    let (args, kwargs) = publication
        .payload
        .decode(realm.limits())
        .map_err(|error| Refusal::new(error::INVALID_ARGUMENT, error.to_string()))?;
    let mut details = Dict::new().with("topic", publication.topic.clone());
    if let Some(publisher) = &publication.publisher {
        details.insert("publisher", publisher.session.get());
        for (key, value) in
            [("publisher_authid", &publisher.authid), ("publisher_authrole", &publisher.authrole)]
        {
            if let Some(value) = value {
                details.insert(key, value.clone());
            }
        }
    }
    if let Some(level) = publication.trustlevel {
        details.insert("trustlevel", level);
    }
    let mut described = Dict::new()
        .with("timestamp", iso8601(event.at_ms))
        .with("subscription", subscription)
        .with("publication", publication.id.get())
        .with("details", details);
    if !args.is_empty() || !kwargs.is_empty() {
        described.insert("args", args);
    }
    if !kwargs.is_empty() {
        described.insert("kwargs", kwargs);
    }
    Ok(Value::Map(described))
}
