//! Session tokens and write concerns, as the gate asks for them.

use super::Replication;
use crate::gate::consistency::{Consistency, Place};
use crate::service::BoxFuture;
use tokio::time::Instant;
use weald_exchange::SessionToken;
use weald_proto::{ErrorCode, Reply, WireError};
use weald_storage::{Dot, VersionVector};

fn decode(token: &[u8]) -> Reply<SessionToken> {
    SessionToken::decode(token)
        .map_err(|e| WireError::new(ErrorCode::Invalid, format!("{e}: begin a new session")))
}

impl Replication {
    fn covers(&self, token: &SessionToken) -> Reply<bool> {
        let store = self.store.store();
        for (shard, vector) in token.iter() {
            if shard.partition >= store.partitions() {
                return Err(WireError::new(
                    ErrorCode::Invalid,
                    "the session token is of a cluster with more partitions: begin a new session",
                ));
            }
            let clock = store.partition(shard.partition).clock(shard.space);
            // A clock that cannot be read covers nothing; the wait then says so in time.
            if !clock.is_ok_and(|clock| clock.covers(vector)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Consistency for Replication {
    fn is_caught_up(&self, token: &[u8]) -> Reply<bool> {
        self.covers(&decode(token)?)
    }

    fn caught_up(&self, token: Vec<u8>, deadline: Instant) -> BoxFuture<'static, Reply<()>> {
        let exchange = self.exchange.clone();
        Box::pin(async move {
            let token = decode(&token)?;
            exchange
                .caught_up(token, deadline)
                .await
                .map_err(|e| WireError::new(ErrorCode::NotCaughtUp, e.to_string()))
        })
    }

    fn observe(&self, token: Option<&[u8]>, place: Place, seen: &VersionVector) -> Reply<Vec<u8>> {
        let mut token = token.map_or_else(|| Ok(SessionToken::new()), decode)?;
        token.raise_all(place.partition, place.space, seen);
        Ok(token.encode())
    }

    fn acked(
        &self,
        place: Place,
        dots: Vec<Dot>,
        members: u8,
        deadline: Instant,
    ) -> BoxFuture<'static, u8> {
        let exchange = self.exchange.clone();
        Box::pin(async move {
            let needed = usize::from(members);
            let acked = exchange.wait_acked(place.partition, place.space, dots, needed, deadline);
            let (Ok(count) | Err(count)) = acked.await;
            u8::try_from(count).unwrap_or(u8::MAX)
        })
    }
}
