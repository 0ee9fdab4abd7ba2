//! Questions whose answer takes all nodes.

use std::sync::Arc;

use weald_wamp::RequestId;
use weald_wamp::message::RequestType;

use super::query::{Query, answer, merge};
use crate::dealer::Refusal;
use crate::dealer::calls::Call;
use crate::error;
use crate::realm::Realm;
use crate::session::handle::Handle;
use crate::session::{Work, reply};

/// Asks this node and all others, and answers the session's call when they have answered, or died, or time is over. The
/// call is one in flight meanwhile: it can be cancelled, and ends with its session.
pub(crate) fn ask(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    query: Query,
) {
    let own = answer(realm, &query);
    let others = realm.relay().ask(realm.name(), &query);
    session.calls().begin(request, Call::new(), 0);
    let Some(others) = others else {
        answered(realm, work, session, request, &query, vec![own]);
        return;
    };
    let (asker, asking) = (Arc::clone(realm), session.clone());
    let is_asking = realm.run("ask", async move {
        let mut parts = others.await;
        parts.push(own);
        answered(&asker, &mut Work::new(), &asking, request, &query, parts);
    });
    if !is_asking && session.calls().finish(request).is_some() {
        let refusal = Refusal::new(error::NETWORK_FAILURE, "other nodes cannot be asked now");
        reply::error(realm, work, session, RequestType::Call, request, &refusal);
    }
}

fn answered(
    realm: &Arc<Realm>,
    work: &mut Work,
    session: &Handle,
    request: RequestId,
    query: &Query,
    parts: Vec<super::query::Part>,
) {
    if session.calls().finish(request).is_none() {
        return;
    }
    match merge(query, parts) {
        Ok(returned) => super::answer(session, work, request, &returned),
        Err(refusal) => {
            reply::error(realm, work, session, RequestType::Call, request, &refusal);
        }
    }
}
