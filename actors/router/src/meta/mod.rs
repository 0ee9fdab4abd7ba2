//! The meta API: what sessions may ask the router, and what the router publishes of itself.
//!
//! What it guarantees: questions about the whole realm are answered for all nodes; those that concern the asking session
//! are answered in its own task. What it refuses: publications and registrations of clients below `wamp.`.

use std::sync::Arc;

use weald_wamp::message::{CallResult, ResultDetails};
use weald_wamp::{Dict, Message, Payload, RequestId, Value};

use crate::dealer::Refusal;
use crate::error;
use crate::realm::Realm;
use crate::session::handle::Handle;
use crate::session::{Work, reply};

pub(crate) mod arguments;
pub(crate) mod ask;
pub(crate) mod events;
mod history;
pub(crate) mod query;
mod session;
mod testament;

use arguments::Arguments;

/// What a meta procedure returns.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Returned {
    pub(crate) args: Vec<Value>,
    pub(crate) kwargs: Dict,
}

impl Returned {
    /// One value.
    pub(crate) fn one(value: impl Into<Value>) -> Self {
        Self { args: vec![value.into()], kwargs: Dict::new() }
    }
}

/// How a meta procedure goes on.
pub(crate) enum Outcome {
    /// It is answered.
    Done(Result<Returned, Refusal>),
    /// All nodes are asked.
    Ask(query::Query),
}

/// Calls a meta procedure. It is answered at once, or when the other nodes have answered.
pub(crate) fn call(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    procedure: &str,
    payload: &Payload,
) -> Result<(), Refusal> {
    let arguments = Arguments::decode(payload, realm.limits())?;
    match dispatch(realm, session, procedure, &arguments)? {
        Outcome::Done(result) => {
            answer(session, work, request, &result?);
            Ok(())
        }
        Outcome::Ask(query) => {
            ask::ask(realm, work, session, request, query);
            Ok(())
        }
    }
}

fn dispatch(
    realm: &Arc<Realm>,
    session: &Handle,
    procedure: &str,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let name = procedure.strip_prefix("wamp.").unwrap_or_default();
    let (group, name) = name.split_once('.').unwrap_or((name, ""));
    let found = match group {
        "session" if matches!(name, "add_testament" | "flush_testaments") => Some(
            testament::call(realm, session, name, arguments)
                .map(|returned| Outcome::Done(Ok(returned))),
        ),
        "session" => session::call(session, name, arguments),
        "subscription" if name == "get_events" => Some(
            history::call(realm, session, arguments).map(|returned| Outcome::Done(Ok(returned))),
        ),
        "registration" | "subscription" => query::call(realm, group, name, arguments),
        _ => None,
    };
    found.unwrap_or_else(|| {
        let message = format!("the router has no procedure {procedure}");
        Err(Refusal::new(error::NO_SUCH_PROCEDURE, message))
    })
}

/// RESULT of a meta procedure.
pub(crate) fn answer(session: &Handle, work: &mut Work, request: RequestId, returned: &Returned) {
    let payload = reply::values(session.serializer(), &returned.args, &returned.kwargs);
    let details = ResultDetails::default();
    session.send(&Message::Result(CallResult { request, details, payload }), &mut work.flushes);
}
