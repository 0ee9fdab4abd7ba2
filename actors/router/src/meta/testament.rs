//! `wamp.session.add_testament` and `wamp.session.flush_testaments`.

use weald_wamp::Payload;
use weald_wamp::message::{MatchPolicy, PublishOptions, Receivers};
use weald_wamp::{ByteString, Dict, Serializer, SessionId, Value, uri};

use super::Returned;
use super::arguments::Arguments;
use crate::dealer::Refusal;
use crate::error;
use crate::realm::Realm;
use crate::session::handle::Handle;
use crate::session::testament::{Testament, When};

/// Calls one of the two.
pub(crate) fn call(
    realm: &Realm,
    session: &Handle,
    name: &str,
    arguments: &Arguments,
) -> Result<Returned, Refusal> {
    if name == "flush_testaments" {
        let when = scope(arguments.text(0, "scope")?.as_ref())?;
        session.testaments().flush(when);
        return Ok(Returned::default());
    }
    let topic = arguments.need_text(0, "topic")?;
    if uri::check(&topic, realm.uri_rules(), MatchPolicy::Exact).is_err()
        || uri::is_reserved(&topic)
    {
        return Err(Refusal::new(error::INVALID_URI, format!("{topic:?} is no topic")));
    }
    let args = arguments.list(1, "args")?;
    let kwargs = arguments.dict(2, "kwargs")?;
    let options = options(&arguments.dict(3, "publish_options")?)?;
    let when = scope(arguments.text(4, "scope")?.as_ref())?;
    // Any serializer will do: what reads it may read another.
    let payload = Payload::from_values(Serializer::MsgPack, &args, &kwargs)
        .map_err(|error| Refusal::new(error::INVALID_ARGUMENT, error.to_string()))?;
    let max = realm.settings().session.testaments;
    if !session.testaments().add(when, Testament { topic, options, payload }, max) {
        let message = format!("a session has at most {max} testaments");
        return Err(Refusal::new(error::LIMIT_EXCEEDED, message));
    }
    Ok(Returned::default())
}

fn scope(scope: Option<&ByteString>) -> Result<When, Refusal> {
    match scope.map(|scope| &**scope) {
        None | Some("destroyed") => Ok(When::Destroyed),
        Some("detached") => Ok(When::Detached),
        Some(other) => {
            let message = format!("scope {other:?} is neither \"destroyed\" nor \"detached\"");
            Err(Refusal::new(error::INVALID_ARGUMENT, message))
        }
    }
}

/// Options of a publication, as a dictionary. `acknowledge` and `exclude_me` have no meaning for one that is gone.
fn options(dict: &Dict) -> Result<PublishOptions, Refusal> {
    let wrong = |key: &str, expected: &str| {
        let message = format!("publish_options.{key} must be {expected}");
        Refusal::new(error::INVALID_ARGUMENT, message)
    };
    let flag = |key: &str| match dict.get(key) {
        None => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| wrong(key, "a boolean")),
    };
    let ids = |key: &str| match dict.get(key) {
        None => Ok(None),
        Some(value) => value
            .as_list()
            .and_then(|list| list.iter().map(|id| SessionId::new(id.as_u64()?)).collect())
            .map(Some)
            .ok_or_else(|| wrong(key, "a list of ids")),
    };
    let names = |key: &str| match dict.get(key) {
        None => Ok(None),
        Some(value) => value
            .as_list()
            .and_then(|list| list.iter().map(Value::as_text).map(Option::<&_>::cloned).collect())
            .map(Some)
            .ok_or_else(|| wrong(key, "a list of strings")),
    };
    let receivers = Receivers {
        exclude: ids("exclude")?,
        exclude_authid: names("exclude_authid")?,
        exclude_authrole: names("exclude_authrole")?,
        eligible: ids("eligible")?,
        eligible_authid: names("eligible_authid")?,
        eligible_authrole: names("eligible_authrole")?,
    };
    Ok(PublishOptions {
        disclose_me: flag("disclose_me")?,
        retain: flag("retain")?.unwrap_or(false),
        receivers: (receivers != Receivers::default()).then(|| Box::new(receivers)),
        ..PublishOptions::default()
    })
}
