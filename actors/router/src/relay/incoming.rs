//! Calls of other nodes' sessions, at callees of this node.
//!
//! A call from elsewhere is an invocation like any other; what is kept here is how to find it again when its caller's node
//! cancels it, or is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weald_storage::NodeId;
use weald_wamp::message::CancelMode;
use weald_wamp::{RegistrationId, RequestId};

use super::frames::Message;
use super::{CallKey, NotSent};
use crate::dealer::answer::Reply;
use crate::dealer::invoke::{self, NotInvoked, Target, keeps_time, too_large};
use crate::dealer::{Caller, Refusal, Request, Retry, Tried, cancel, is_busy};
use crate::error;
use crate::realm::Realm;
use crate::registry::Choice;
use crate::session::Work;
use crate::session::handle::Handle;

/// A call from elsewhere.
#[derive(Debug, Clone)]
struct Call {
    callee: Handle,
    invocation: RequestId,
    registration: RegistrationId,
    /// What to send to another callee of this node.
    retry: Option<Arc<Retry>>,
}

/// The calls of all other nodes.
#[derive(Debug, Default)]
pub(super) struct Incoming(Mutex<BTreeMap<NodeId, Calls>>);

/// Those of one node.
type Calls = Arc<Mutex<BTreeMap<CallKey, Call>>>;

fn locked(calls: &Calls) -> MutexGuard<'_, BTreeMap<CallKey, Call>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Incoming {
    fn of(&self, node: NodeId) -> Calls {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(nodes.entry(node).or_default())
    }

    fn get(&self, node: NodeId, key: CallKey) -> Option<Call> {
        locked(&self.of(node)).get(&key).cloned()
    }

    fn remove(&self, node: NodeId, key: CallKey) -> Option<Call> {
        locked(&self.of(node)).remove(&key)
    }

    /// Whether callers of a node wait.
    pub(super) fn is_any_of(&self, node: NodeId) -> bool {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = nodes.get(&node).map(Arc::clone);
        drop(nodes);
        calls.is_some_and(|calls| !locked(&calls).is_empty())
    }

    /// A node is lost: its callers wait no more.
    pub(super) fn lost(&self, node: NodeId, work: &mut Work) {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        let Some(calls) = calls else { return };
        let calls = std::mem::take(&mut *locked(&calls));
        for call in calls.into_values() {
            stop(work, &call, CancelMode::KillNoWait);
        }
    }
}

/// Interrupts a callee that takes it, and forgets the invocation unless its answer is waited for.
fn stop(work: &mut Work, call: &Call, mode: CancelMode) {
    let mode = if invoke::can_interrupt(&call.callee) { mode } else { CancelMode::Skip };
    cancel::interrupt(work, &call.callee, call.invocation, mode);
}

/// A call arrives.
pub(super) fn call(
    realm: &Arc<Realm>,
    work: &mut Work,
    node: NodeId,
    key: CallKey,
    registration: RegistrationId,
    request: Request,
) {
    route(realm, work, node, key, registration, Retry::new(Arc::new(request)));
}

fn route(
    realm: &Arc<Realm>,
    work: &mut Work,
    node: NodeId,
    key: CallKey,
    registration: RegistrationId,
    mut retry: Retry,
) {
    let request = Arc::clone(&retry.request);
    let is_rerouted = !retry.sessions.is_empty();
    let snapshot = realm.snapshot();
    let Some(found) = snapshot.registration_by_id(registration) else {
        return not_there(realm, node, key);
    };
    let row = found.registration();
    loop {
        let random = work.rng.u64(..);
        let chosen =
            found.choose_local(random, &retry.sessions, |callee| is_busy(registration, callee));
        let refusal = match chosen {
            Choice::Local(callee) => {
                let target = Target::new(row, callee);
                let caller = Caller::Remote { node, key };
                let who = &callee.session;
                let kept = (row.local().len() > 1).then(|| Arc::new(retry.clone()));
                // Known before its answer can come.
                let calls = realm.relay().incoming.of(node);
                let mut calls = locked(&calls);
                match invoke::invoke(
                    who,
                    target,
                    caller,
                    &request,
                    realm.limits(),
                    &mut work.flushes,
                ) {
                    Ok(invoked) => {
                        let invocation = invoked.invocation;
                        let callee = who.clone();
                        calls.insert(key, Call { callee, invocation, registration, retry: kept });
                        drop(calls);
                        let features = who.roles().callee.unwrap_or_default();
                        if request.timeout_ms.is_some() && keeps_time(features, target) {
                            let realm_name = realm.name().clone();
                            let message =
                                Message::Taken { realm: realm_name, key, keeps_time: true };
                            let _lost_or_sent = realm.relay().send(node, who.id().get(), &message);
                        }
                        return;
                    }
                    Err(NotInvoked::Gone) => {
                        retry = retry.without(Tried::Session(who.id()));
                        continue;
                    }
                    Err(NotInvoked::Refused(refusal)) => refusal,
                }
            }
            Choice::Busy => Refusal::new(error::UNAVAILABLE, "all callees are busy"),
            Choice::Nobody | Choice::Node(_) if is_rerouted => {
                Refusal::new(error::UNAVAILABLE, "no callee has time for it")
            }
            Choice::Nobody | Choice::Node(_) => return not_there(realm, node, key),
        };
        let reply = Reply::refused(&refusal);
        let _lost_or_sent =
            realm.relay().answer(node, key.session.get(), realm.name(), key, &reply);
        return;
    }
}

fn not_there(realm: &Arc<Realm>, node: NodeId, key: CallKey) {
    let message = Message::NotThere { realm: realm.name().clone(), key };
    let _lost_or_sent = realm.relay().send(node, key.session.get(), &message);
}

/// Another chunk of a call arrives.
pub(super) fn chunk(
    realm: &Arc<Realm>,
    work: &mut Work,
    node: NodeId,
    key: CallKey,
    request: &Request,
) {
    let Some(call) = realm.relay().incoming.get(node, key) else { return };
    let flushes = &mut work.flushes;
    let sent = invoke::chunk(&call.callee, call.invocation, request, realm.limits(), flushes);
    let Err(refusal) = sent else { return };
    realm.relay().incoming.remove(node, key);
    stop(work, &call, CancelMode::KillNoWait);
    let reply = Reply::refused(&refusal);
    let _lost_or_sent = realm.relay().answer(node, key.session.get(), realm.name(), key, &reply);
}

/// The caller wants no more of a call.
pub(super) fn cancelled(
    realm: &Arc<Realm>,
    work: &mut Work,
    node: NodeId,
    key: CallKey,
    mode: CancelMode,
) {
    let incoming = &realm.relay().incoming;
    let waits = mode == CancelMode::Kill;
    let found = if waits { incoming.get(node, key) } else { incoming.remove(node, key) };
    let Some(call) = found else { return };
    stop(work, &call, mode);
    // A callee that takes no interrupt is not waited for.
    if waits && !invoke::can_interrupt(&call.callee) {
        incoming.remove(node, key);
        let reply = Reply::refused(&Refusal::new(error::CANCELED, "the caller cancelled it"));
        let _lost_or_sent =
            realm.relay().answer(node, key.session.get(), realm.name(), key, &reply);
    }
}

/// A callee has answered, or is gone. With `may_reroute` it may have no time for the call, which another gets then.
pub(crate) fn answered(
    realm: &Arc<Realm>,
    work: &mut Work,
    callee: &Handle,
    node: NodeId,
    key: CallKey,
    reply: &Reply,
    may_reroute: bool,
) {
    let relay = realm.relay();
    if reply.is_last() {
        let call = relay.incoming.remove(node, key);
        if may_reroute
            && reply.is_unavailable()
            && let Some(Call { registration, retry: Some(retry), .. }) = call
        {
            let retry = retry.without(Tried::Session(callee.id()));
            return route(realm, work, node, key, registration, retry);
        }
    }
    let lane = callee.id().get();
    if let Err(NotSent::TooLarge) = relay.answer(node, lane, realm.name(), key, reply) {
        relay.incoming.remove(node, key);
        let reply = Reply::refused(&too_large("the node of the caller"));
        let _lost_or_sent = relay.answer(node, lane, realm.name(), key, &reply);
    }
}
