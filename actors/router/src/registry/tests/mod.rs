//! Tests of the tables as a whole.

mod choice;
mod model;
mod rules;

use weald_storage::ids::NodeId;
use weald_wamp::SessionId;
use weald_wamp::message::InvokePolicy;

use super::*;

/// A session that is nothing but its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Session(SessionId);

impl Subscriber for Session {
    fn id(&self) -> SessionId {
        self.0
    }
}

fn session(number: u64) -> Session {
    Session(SessionId::new(number).unwrap())
}

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn tables(number: u8) -> Tables<Session> {
    Tables::new("realm1", node(number))
}

fn callee(procedure: &str, invoke: InvokePolicy, now_ms: u64) -> Register<'_> {
    let (policy, options) = (MatchPolicy::Exact, CalleeOptions::default());
    Register { procedure, policy, invoke, options, force: false, now_ms }
}

fn registration(uri: &str) -> InterestKey {
    InterestKey { kind: Kind::Registration, policy: MatchPolicy::Exact, uri: uri.into() }
}

fn subscription(uri: &str) -> InterestKey {
    InterestKey { kind: Kind::Subscription, policy: MatchPolicy::Exact, uri: uri.into() }
}

fn row(invoke: InvokePolicy, count: u64, oldest_ms: u64, newest_ms: u64) -> Option<Interest> {
    Some(Interest { invoke, count, oldest_ms, newest_ms, cleared_ms: 0 })
}

/// Nothing is left, neither in what is read nor in the books of the writer.
fn assert_empty(tables: &Tables<Session>) {
    assert_eq!(tables.snapshot().len(), (0, 0));
    assert_eq!(tables.sessions_len(), 0);
    assert!(tables.nodes.is_empty(), "{:?}", tables.nodes);
    assert!(tables.shared.is_empty(), "{:?}", tables.shared);
    assert_eq!(tables.state.keys_len(), 0, "ids of rows that are gone");
}
