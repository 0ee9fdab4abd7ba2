//! Operations on the cluster and its anti-entropy.
//!
//! What it is: the seam [`ClusterOps`] behind which membership and exchange answer.
//!
//! # Shape
//! Replies are the JSON of [`weald_proto::cluster`].

use super::{Deps, invalid};
use crate::service::BoxFuture;
use std::time::Duration;
use tokio::time::Instant;
use weald_proto::Reply;
use weald_proto::limits::{EXCHANGE_MS_MAX, JOIN_ADDRESSES_MAX, WAIT_MS_MAX};
use weald_proto::request::{self, ClusterChanges};

/// A reply that takes its time.
pub type Answer<T> = BoxFuture<'static, Reply<T>>;

/// Most events in one reply.
const EVENTS_MAX: usize = 1000;

/// What the parts of a cluster do when an operator asks. JSON text in the replies.
pub trait ClusterOps: Send + Sync {
    /// Why this node takes no writes of clients at the moment, in words for them; none: it does. Asked for each write.
    fn refusal(&self) -> Option<String>;
    /// The members: [`Members`](weald_proto::cluster::Members).
    fn members(&self) -> Answer<String>;
    /// Joins the cluster of whoever answers at one of these addresses: [`Members`](weald_proto::cluster::Members) after it.
    fn join(&self, addresses: Vec<String>, deadline: Instant) -> Answer<String>;
    /// Leaves the cluster: [`Members`](weald_proto::cluster::Members) after it.
    fn leave(&self, deadline: Instant) -> Answer<String>;
    /// Evicts a member by name or id: [`Members`](weald_proto::cluster::Members) after it.
    fn forget(&self, member: String, force: Force) -> Answer<String>;
    /// The cluster and the connections: [`ClusterStatus`](weald_proto::cluster::ClusterStatus).
    fn status(&self) -> Answer<String>;
    /// Changes of the membership after a position; a long poll. [`super::events::Feed`] does it.
    fn events(
        &self,
        position: Option<Vec<u8>>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<ClusterChanges>;
    /// Anti-entropy with each peer: [`AaeStatus`](weald_proto::cluster::AaeStatus).
    fn aae_status(&self) -> Answer<String>;
    /// Exchanges with a peer now: [`weald_proto::cluster::AaeReport`].
    fn aae_run(&self, peer: String, deadline: Instant) -> Answer<String>;
    /// Compares with a peer: [`weald_proto::cluster::AaeDiff`].
    fn aae_diff(&self, peer: String, deadline: Instant) -> Answer<String>;
}

/// Whether a member that answers may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// No: it should leave by itself.
    No,
    /// Yes: the operator has said so.
    Yes,
}

pub(super) fn join(deps: &Deps, r: request::Join) -> Answer<String> {
    let count = r.addresses.len();
    if count == 0 || count > JOIN_ADDRESSES_MAX {
        return refuse(format!(
            "{count} addresses: give 1 to {JOIN_ADDRESSES_MAX} of nodes of the cluster to join, as host:port"
        ));
    }
    if let Some(address) = r.addresses.iter().find(|address| !is_host_port(address)) {
        return refuse(format!("address {address:?} is not of the form host:port"));
    }
    deps.cluster.join(r.addresses, within(r.wait_ms, WAIT_MS_MAX))
}

pub(super) fn leave(deps: &Deps, r: &request::Leave) -> Answer<String> {
    deps.cluster.leave(within(r.wait_ms, WAIT_MS_MAX))
}

pub(super) fn forget(deps: &Deps, r: request::Forget) -> Answer<String> {
    deps.cluster.forget(r.member, if r.force { Force::Yes } else { Force::No })
}

pub(super) fn events(deps: &Deps, r: request::ClusterEvents) -> Answer<ClusterChanges> {
    let limit = (r.limit as usize).clamp(1, EVENTS_MAX);
    deps.cluster.events(r.position, limit, within(r.wait_ms, WAIT_MS_MAX))
}

pub(super) fn aae_run(deps: &Deps, r: request::AaeRun) -> Answer<String> {
    deps.cluster.aae_run(r.peer, within(r.wait_ms, EXCHANGE_MS_MAX))
}

pub(super) fn aae_diff(deps: &Deps, r: request::AaeDiff) -> Answer<String> {
    deps.cluster.aae_diff(r.peer, within(r.wait_ms, EXCHANGE_MS_MAX))
}

fn within(wait_ms: u64, max_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms.min(max_ms))
}

fn refuse<T: Send + 'static>(text: String) -> Answer<T> {
    Box::pin(std::future::ready(Err(invalid(text))))
}

/// Whether it reads as a host and a port, without asking anybody.
#[must_use]
pub fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_bracketed = bare.len() != host.len();
    !bare.is_empty()
        && (is_bracketed || !bare.contains(':'))
        && !bare.contains(char::is_whitespace)
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        for good in ["a:1", "10.0.0.1:18086", "[::1]:18086", "node-2.example.org:65535"] {
            assert!(is_host_port(good), "{good}");
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:18086", "a b:1", "http://a", "[]:1"]
        {
            assert!(!is_host_port(bad), "{bad}");
        }
    }
}
