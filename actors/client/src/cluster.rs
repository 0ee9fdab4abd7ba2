//! Looking after a cluster: its members, its connections, its anti-entropy.

use crate::client::Client;
use crate::error::Error;
use crate::store::millis;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::time::Duration;
use weald_proto::cluster::{AaeDiff, AaeReport, AaeStatus, ClusterEvent, ClusterStatus, Members};
use weald_proto::limits::{EXCHANGE_MS_MAX, WAIT_MS_MAX};
use weald_proto::request;

/// Time for an answer beyond the wait that was asked for.
const SLACK: Duration = Duration::from_secs(10);
/// Most events fetched at once.
const EVENTS_MAX: u32 = 1000;

/// What follows the membership tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MembershipEvent {
    /// Something changed.
    Change(Box<ClusterEvent>),
    /// Changes were missed: look at [`Client::members`] again. More follow.
    Lagged,
}

/// Changes of the membership as they happen. Survives lost connections, and restarts of the node with
/// [`MembershipEvent::Lagged`].
#[derive(Debug)]
pub struct MembershipEvents {
    client: Client,
    position: Option<Vec<u8>>,
    events: VecDeque<MembershipEvent>,
}

impl MembershipEvents {
    /// The next one, however long it takes. May be dropped and called again.
    ///
    /// # Errors
    /// Any [`Error`]; the next call goes on from the same place.
    pub async fn next(&mut self) -> Result<MembershipEvent, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let (position, wait_ms) = (self.position.clone(), WAIT_MS_MAX);
            let poll = request::ClusterEvents { position, limit: EVENTS_MAX, wait_ms };
            let limit = Duration::from_millis(WAIT_MS_MAX) + SLACK;
            let page = self.client.request(poll, limit).await?;
            let events: Result<Vec<ClusterEvent>, Error> =
                page.events.iter().map(|text| parse(text)).collect();
            self.position = Some(page.position);
            self.events.extend(page.lagged.then_some(MembershipEvent::Lagged));
            self.events.extend(events?.into_iter().map(Box::new).map(MembershipEvent::Change));
        }
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|e| Error::Internal(format!("the node's answer: {e}")))
}

impl Client {
    /// The members of the cluster, as the node knows them.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn members(&self) -> Result<Members, Error> {
        parse(&self.request(request::Members {}, self.deadline()).await?)
    }

    /// Makes the node join the cluster of whoever answers at one of these addresses, `host:port`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn join(&self, addresses: &[String]) -> Result<Members, Error> {
        let addresses = addresses.to_vec();
        let join = request::Join { addresses, wait_ms: self.wait_ms() };
        parse(&self.request(join, self.deadline()).await?)
    }

    /// Makes the node leave its cluster.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn leave(&self) -> Result<Members, Error> {
        parse(&self.request(request::Leave { wait_ms: self.wait_ms() }, self.deadline()).await?)
    }

    /// Removes another member for good, by name or node id, when it does not answer.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Invalid`] when it answers.
    pub async fn forget(&self, member: &str) -> Result<Members, Error> {
        let forget = request::Forget { member: member.to_owned(), force: false };
        parse(&self.request(forget, self.deadline()).await?)
    }

    /// As [`Client::forget`], also when it answers.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn forget_by_force(&self, member: &str) -> Result<Members, Error> {
        let forget = request::Forget { member: member.to_owned(), force: true };
        parse(&self.request(forget, self.deadline()).await?)
    }

    /// The cluster and the node's connections.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        parse(&self.request(request::ClusterStatus {}, self.deadline()).await?)
    }

    /// Follows the changes of the membership from now on.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn membership_events(&self) -> Result<MembershipEvents, Error> {
        // "Now" is the moment of this answer.
        let poll = request::ClusterEvents { position: None, limit: 1, wait_ms: 0 };
        let position = self.request(poll, self.deadline()).await?.position;
        let client = self.clone();
        Ok(MembershipEvents { client, position: Some(position), events: VecDeque::new() })
    }

    /// How far anti-entropy is with each peer.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn aae_status(&self) -> Result<AaeStatus, Error> {
        parse(&self.request(request::AaeStatus {}, self.deadline()).await?)
    }

    /// Exchanges with a peer, by name or node id, and waits for the end.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn aae_run(&self, peer: &str, deadline: Duration) -> Result<AaeReport, Error> {
        let run = request::AaeRun { peer: peer.to_owned(), wait_ms: exchange_ms(deadline) };
        parse(&self.request(run, deadline).await?)
    }

    /// Compares with a peer, by name or node id, and changes nothing.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn aae_diff(&self, peer: &str, deadline: Duration) -> Result<AaeDiff, Error> {
        let diff = request::AaeDiff { peer: peer.to_owned(), wait_ms: exchange_ms(deadline) };
        parse(&self.request(diff, deadline).await?)
    }

    fn wait_ms(&self) -> u64 {
        millis(self.deadline()).min(WAIT_MS_MAX)
    }
}

fn exchange_ms(deadline: Duration) -> u64 {
    millis(deadline).min(EXCHANGE_MS_MAX)
}
