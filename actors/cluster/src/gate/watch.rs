//! The change feed: a long poll over the change logs of all partitions.
//!
//! A position is two sequence numbers per partition: of its durable and of its memory tables. The node keeps nothing for a watcher: a slow one lags in the log, and
//! when the log was trimmed past its position it is told so.

use super::data::{blocking, read_error, table_name};
use super::{Deps, invalid};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use weald_proto::error::Current;
use weald_proto::limits::{CHANGES_MAX, PAGE_BYTES_MAX, WAIT_MS_MAX};
use weald_proto::{Reply, WireError, request};
use weald_storage::{Space, TableName};

/// Version byte of a position.
const POSITION_VERSION: u8 = 1;
/// Entries of the log read per partition in one go; a filter that matches little goes through the log in such steps.
const STEP: usize = 2000;

/// What a watcher wants, and where it is.
#[derive(Debug)]
struct Poll {
    table: Option<TableName>,
    prefix: Vec<u8>,
    position: Vec<u64>,
    memory_incarnation: u32,
    limit: usize,
    events: Vec<request::Change>,
    bytes: usize,
    lagged: bool,
    more: bool,
}

pub(super) async fn watch(deps: Arc<Deps>, r: request::Watch) -> Reply<request::Changes> {
    let deadline = Instant::now() + Duration::from_millis(r.wait_ms.min(WAIT_MS_MAX));
    let mut commits = deps.store.commits();
    let mut poll = Poll::new(&deps, r)?;
    loop {
        // Mark before reading, so that a commit between the read and the wait is not slept through.
        commits.mark_unchanged();
        let reader = Arc::clone(&deps);
        poll = blocking(move || poll.advance(&reader)).await?;
        if !poll.events.is_empty() || poll.lagged || Instant::now() >= deadline {
            return Ok(poll.reply());
        }
        if !poll.more {
            match timeout_at(deadline, commits.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(poll.reply()),
            }
        }
    }
}

impl Poll {
    fn new(deps: &Deps, r: request::Watch) -> Result<Self, WireError> {
        let store = deps.store.store();
        let memory_incarnation = store.partition(0).actor(Space::Memory).incarnation;
        let mut lagged = false;
        let position = match r.position {
            Some(bytes) => {
                let (incarnation, mut position) = decode_position(&bytes, logs(deps).count())?;
                if incarnation != memory_incarnation {
                    // The memory tables began anew since: what was seen of them says nothing of them now.
                    for seq in position.iter_mut().skip(1).step_by(2) {
                        lagged |= std::mem::take(seq) > 0;
                    }
                }
                position
            }
            None => {
                logs(deps).map(|(index, space)| store.partition(index).last_seq(space)).collect()
            }
        };
        Ok(Self {
            table: r.table.as_deref().map(table_name).transpose()?,
            prefix: r.prefix,
            position,
            limit: (r.limit as usize).clamp(1, CHANGES_MAX),
            events: Vec::new(),
            bytes: 0,
            memory_incarnation,
            lagged,
            more: false,
        })
    }

    /// Reads on from the position in each partition.
    fn advance(mut self, deps: &Deps) -> Reply<Self> {
        self.more = false;
        for (slot, (index, space)) in logs(deps).enumerate() {
            self.advance_log(deps, slot, index, space)?;
        }
        Ok(self)
    }

    fn advance_log(&mut self, deps: &Deps, slot: usize, index: u16, space: Space) -> Reply<()> {
        let partition = deps.store.store().partition(index);
        let position = self.position[slot];
        let last_seq = partition.last_seq(space);
        if last_seq < position {
            // The log began anew: the partition was replaced.
            self.lagged = true;
            self.position[slot] = 0;
        }
        let position = self.position[slot];
        if last_seq == position {
            return Ok(());
        }
        let changes = partition.changes(space, position, STEP).map_err(|e| read_error(&e))?;
        self.lagged |= changes.truncated();
        let mut seen = BTreeSet::new();
        let count = changes.events.len();
        for change in changes.events {
            if self.events.len() >= self.limit || self.bytes >= PAGE_BYTES_MAX {
                self.more = true;
                return Ok(());
            }
            self.position[slot] = change.seq;
            let wanted = self.table.as_ref().is_none_or(|table| *table == change.table)
                && change.key.as_bytes().starts_with(&self.prefix);
            if !wanted || !seen.insert((change.table.clone(), change.key.clone())) {
                continue;
            }
            let got = deps.store.get(&change.table, &change.key).map_err(|e| read_error(&e))?;
            self.bytes += got.values.iter().map(Vec::len).sum::<usize>() + 64;
            self.events.push(request::Change {
                partition: index,
                seq: change.seq,
                table: change.table.to_string(),
                key: change.key.into(),
                now: Current { context: got.context.encode(), values: got.values },
            });
        }
        self.more |= count == STEP;
        Ok(())
    }

    fn reply(self) -> request::Changes {
        let mut position = vec![POSITION_VERSION];
        position.extend_from_slice(&self.memory_incarnation.to_be_bytes());
        for seq in &self.position {
            position.extend_from_slice(&seq.to_be_bytes());
        }
        request::Changes { events: self.events, position, lagged: self.lagged }
    }
}

/// The change logs of the store, in the order of a position.
fn logs(deps: &Deps) -> impl Iterator<Item = (u16, Space)> {
    let partitions = 0..deps.store.store().partitions();
    partitions.flat_map(|index| [(index, Space::Durable), (index, Space::Memory)])
}

fn decode_position(bytes: &[u8], logs: usize) -> Result<(u32, Vec<u64>), WireError> {
    let wrong = || {
        invalid(format!(
            "watch position of {} bytes is not one of this node, which has {logs} change logs",
            bytes.len()
        ))
    };
    let Some((&POSITION_VERSION, rest)) = bytes.split_first() else {
        return Err(wrong());
    };
    let (incarnation, seqs) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let (chunks, rest) = seqs.as_chunks::<8>();
    if chunks.len() != logs || !rest.is_empty() {
        return Err(wrong());
    }
    let position = chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect();
    Ok((u32::from_be_bytes(*incarnation), position))
}
