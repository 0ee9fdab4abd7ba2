//! `wamp.session.*`: who is there, and ending sessions.

use weald_wamp::SessionId;
use weald_wamp::message::MatchPolicy;
use weald_wamp::uri;

use super::Outcome;
use super::arguments::Arguments;
use super::query::{Kill, Query, Whom};
use crate::dealer::Refusal;
use crate::error;
use crate::session::handle::Handle;

/// Calls one of them. None when there is no such procedure.
pub(crate) fn call(
    session: &Handle,
    name: &str,
    arguments: &Arguments,
) -> Option<Result<Outcome, Refusal>> {
    Some(match name {
        "count" => roles(arguments).map(|roles| Outcome::Ask(Query::Count { roles })),
        "list" => roles(arguments).map(|roles| Outcome::Ask(Query::List { roles })),
        "get" => id(arguments).map(|id| Outcome::Ask(Query::Get { id })),
        "kill" => kill_one(session, arguments),
        "kill_by_authid" => arguments
            .need_text(0, "authid")
            .and_then(|authid| kill(session, arguments, Whom::Authid(authid.to_string()))),
        "kill_by_authrole" => arguments
            .need_text(0, "authrole")
            .and_then(|authrole| kill(session, arguments, Whom::Authrole(authrole.to_string()))),
        "kill_all" => kill(session, arguments, Whom::All),
        _ => return None,
    })
}

fn id(arguments: &Arguments) -> Result<u64, Refusal> {
    arguments.need_id(0, "session")
}

fn roles(arguments: &Arguments) -> Result<Option<Vec<String>>, Refusal> {
    let roles = arguments.texts(0, "filter_authroles")?;
    Ok(roles.map(|roles| roles.iter().map(ToString::to_string).collect()))
}

fn kill_one(session: &Handle, arguments: &Arguments) -> Result<Outcome, Refusal> {
    let id = id(arguments)?;
    if SessionId::new(id) == Some(session.id()) {
        let message = "a session does not kill itself: say GOODBYE";
        return Err(Refusal::new(error::NO_SUCH_SESSION, message));
    }
    kill(session, arguments, Whom::Session(id))
}

fn kill(session: &Handle, arguments: &Arguments, whom: Whom) -> Result<Outcome, Refusal> {
    let reason = arguments.text(usize::MAX, "reason")?;
    if let Some(reason) = &reason
        && uri::check(reason, uri::Strictness::Loose, MatchPolicy::Exact).is_err()
    {
        return Err(Refusal::new(error::INVALID_URI, format!("{reason:?} is no reason")));
    }
    let message = arguments.text(usize::MAX, "message")?;
    Ok(Outcome::Ask(Query::Kill(Kill {
        whom,
        but: session.id().get(),
        reason: reason.map_or_else(|| error::KILLED.to_owned(), |reason| reason.to_string()),
        message: message.map(|message| message.to_string()),
    })))
}
