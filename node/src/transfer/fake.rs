//! A node of a few lines, for the tests of import and export.

use crate::api::{Api, ApiError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;
use weald_proto::request::{
    self, Call, Item, Op, Page, Request, Table, TableKind, Written, decode_reply, request_frame,
};
use weald_proto::{ErrorCode, Frame, WireError};

#[derive(Default)]
struct State {
    tables: BTreeMap<String, BTreeMap<Vec<u8>, Vec<Vec<u8>>>>,
    failures: VecDeque<ApiError>,
    full_after: Option<usize>,
    writes: usize,
}

/// The node.
#[derive(Default)]
pub(super) struct Fake(Mutex<State>);

impl Fake {
    pub(super) fn fail_next(&self, failures: impl IntoIterator<Item = ApiError>) {
        self.0.lock().unwrap().failures.extend(failures);
    }

    pub(super) fn full_after(&self, writes: usize) {
        self.0.lock().unwrap().full_after = Some(writes);
    }

    pub(super) fn value(&self, table: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.0.lock().unwrap().tables.get(table)?.get(key)?.first().cloned()
    }

    pub(super) fn store(&self, table: &str, key: &[u8], values: &[&[u8]]) {
        let values = values.iter().map(|value| value.to_vec()).collect();
        let mut state = self.0.lock().unwrap();
        state.tables.entry(table.to_owned()).or_default().insert(key.to_vec(), values);
    }
}

impl State {
    fn answer(&mut self, request: Request) -> Frame {
        match request {
            Request::Batch(batch) => {
                let results = batch.ops.into_iter().map(|op| self.write(op)).collect();
                request::reply_frame::<request::Batch>(0, &Ok(results))
            }
            Request::Tables(_) => {
                let tables = self.tables.keys().map(|name| Table {
                    name: name.clone(),
                    kind: TableKind::Durable,
                    resolver: "lww".to_owned(),
                    ttl_ms: None,
                });
                request::reply_frame::<request::Tables>(0, &Ok(tables.rev().collect()))
            }
            Request::Scan(scan) => request::reply_frame::<request::Scan>(0, &Ok(self.page(&scan))),
            other => panic!("unexpected {}", other.name()),
        }
    }

    fn write(&mut self, op: Op) -> Result<Written, WireError> {
        let Op::Put(put) = op else { panic!("unexpected operation") };
        self.writes += 1;
        if self.full_after.is_some_and(|most| self.writes > most) {
            return Err(WireError::new(ErrorCode::StorageFull, "no space"));
        }
        self.tables.entry(put.table).or_default().insert(put.key, vec![put.value]);
        Ok(Written { context: vec![1] })
    }

    fn page(&self, scan: &request::Scan) -> Page {
        let none = BTreeMap::new();
        let table = self.tables.get(&scan.table).unwrap_or(&none);
        let mut items = table
            .iter()
            .filter(|(key, _)| key.starts_with(&scan.prefix))
            .filter(|(key, _)| scan.token.as_ref().is_none_or(|token| *key > token));
        let page: Vec<Item> = items
            .by_ref()
            .take(3)
            .map(|(key, values)| Item {
                key: key.clone(),
                values: values.clone(),
                context: vec![1],
            })
            .collect();
        let more = items.next().is_some();
        let next = page.last().filter(|_| more).map(|item| item.key.clone());
        Page { items: page, next, corrupt: 0 }
    }
}

impl Api for Fake {
    async fn request<C: Call>(&self, call: C, _: Duration) -> Result<C::Reply, ApiError> {
        tokio::task::yield_now().await;
        let mut state = self.0.lock().unwrap();
        if let Some(failure) = state.failures.pop_front() {
            return Err(failure);
        }
        let frame = request_frame(0, &call);
        let request = Request::decode(frame.kind, &frame.body).unwrap();
        let reply = state.answer(request);
        Ok(decode_reply::<C>(&reply).unwrap()?)
    }
}
