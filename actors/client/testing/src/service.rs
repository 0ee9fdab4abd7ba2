//! The store and the names of the fake node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use weald_cluster::service::{BoxFuture, Caller, PushError, Service};
use weald_proto::error::{Current, ErrorCode, WireError};
use weald_proto::frame::Frame;
use weald_proto::request as r;
use weald_proto::request::{
    Call, Change, Changes, ClientRole, Deliver, Item, LogPage, Named, Page, Reply, Request, SendTo,
    Status, Written, decode_reply, error_frame, reply_frame, request_frame,
};
use weald_supervision::Scope;

#[derive(Default)]
struct State {
    version: u64,
    data: BTreeMap<(String, Vec<u8>), (u64, Vec<u8>)>,
    changes: Vec<Change>,
    names: BTreeMap<String, (Arc<Caller>, Named)>,
}

/// Executes requests on a map. Some tables are special: what goes to `never` is not answered, what goes to `panic` panics,
/// `big` holds as many bytes as the key says, and `full` takes no writes.
pub struct FakeService {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    scope: Scope,
    /// Requests handed in so far.
    pub calls: AtomicUsize,
    /// Sessions that were reported closed.
    pub closed: AtomicUsize,
}

impl std::fmt::Debug for FakeService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeService").finish_non_exhaustive()
    }
}

fn fail<T>(code: ErrorCode, why: &str) -> Reply<T> {
    Err(WireError::new(code, why))
}

impl FakeService {
    /// An empty store.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            scope,
            calls: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        }
    }

    /// Names held at the moment.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, table: String, key: Vec<u8>, value: Option<Vec<u8>>) -> Reply<Written> {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let current = Current {
            values: value.clone().into_iter().collect(),
            context: version.to_be_bytes().to_vec(),
        };
        state.changes.push(Change {
            partition: 0,
            seq: version,
            table: table.clone(),
            key: key.clone(),
            now: current.clone(),
        });
        match value {
            Some(value) => state.data.insert((table, key), (version, value)),
            None => state.data.remove(&(table, key)),
        };
        drop(state);
        self.changed.send_replace(version);
        Ok(Written { context: current.context })
    }

    fn current(&self, table: &str, key: &[u8]) -> Current {
        match self.state().data.get(&(table.to_owned(), key.to_vec())) {
            Some((version, value)) => {
                Current { values: vec![value.clone()], context: version.to_be_bytes().to_vec() }
            }
            None => Current { values: vec![], context: vec![] },
        }
    }

    fn put_if(&self, put: r::PutIf) -> Reply<Written> {
        let current = self.current(&put.table, &put.key);
        let stored = (!current.values.is_empty()).then(|| current.context.clone());
        if stored != put.expected {
            let message = "the stored state is not the expected one".to_owned();
            return Err(WireError { code: ErrorCode::Conflict, message, current: Some(current) });
        }
        self.put(put.table, put.key, Some(put.value))
    }

    fn scan(&self, scan: &r::Scan) -> Reply<Page> {
        let from = scan.token.clone().or_else(|| scan.from.clone()).unwrap_or_default();
        let state = self.state();
        let mut items: Vec<_> = state
            .data
            .range((scan.table.clone(), from)..)
            .take_while(|((table, key), _)| {
                *table == scan.table && scan.to.as_ref().is_none_or(|to| key < to)
            })
            .filter(|((_, key), _)| key.starts_with(&scan.prefix))
            .map(|((_, key), (version, value))| Item {
                key: key.clone(),
                values: if scan.keys_only { vec![] } else { vec![value.clone()] },
                context: version.to_be_bytes().to_vec(),
            })
            .take(scan.limit as usize + 1)
            .collect();
        let next = (items.len() > scan.limit as usize)
            .then(|| items.pop().map(|item| item.key).unwrap_or_default());
        Ok(Page { items, next, corrupt: 0 })
    }

    fn watch(&self, watch: r::Watch) -> BoxFuture<'static, Reply<Changes>> {
        let (state, mut changed) = (Arc::clone(&self.state), self.changed.subscribe());
        let position = watch.position.as_deref().map_or_else(
            || self.state().version,
            |bytes| bytes.try_into().map_or(0, u64::from_be_bytes),
        );
        Box::pin(async move {
            let wait = changed.wait_for(|version| *version > position);
            tokio::time::timeout(Duration::from_millis(watch.wait_ms), wait).await.ok();
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let events = state.changes.iter().filter(|change| {
                change.seq > position
                    && watch.table.as_ref().is_none_or(|table| *table == change.table)
                    && change.key.starts_with(&watch.prefix)
            });
            Ok(Changes {
                events: events.cloned().collect(),
                position: state.version.to_be_bytes().to_vec(),
                lagged: false,
            })
        })
    }

    fn register(&self, caller: &Arc<Caller>, name: String) -> Reply<Named> {
        let mut state = self.state();
        match state.names.get(&name) {
            Some((holder, _)) if holder.session != caller.session => {
                fail(ErrorCode::Taken, "the name belongs to another")
            }
            _ => {
                let named = Named {
                    name: name.clone(),
                    node: "test-node".to_owned(),
                    owner: caller.name.clone(),
                    since_ms: 1,
                };
                state.names.insert(name, (Arc::clone(caller), named.clone()));
                Ok(named)
            }
        }
    }

    fn send_to(&self, send: SendTo) -> BoxFuture<'static, Reply<Vec<u8>>> {
        let holder = self.state().names.get(&send.name).map(|(holder, _)| Arc::clone(holder));
        let Some(holder) = holder else {
            return Box::pin(async { fail(ErrorCode::NotFound, "nobody has the name") });
        };
        let SendTo { name, payload, reply, timeout_ms } = send;
        let frame = request_frame(0, &Deliver { name, payload, reply });
        let answer = holder.push.request(frame, Duration::from_millis(timeout_ms));
        Box::pin(async move {
            match answer.await {
                Ok(frame) => decode_reply::<Deliver>(&frame)
                    .unwrap_or_else(|e| fail(ErrorCode::Internal, &e.to_string())),
                Err(PushError::Timeout) => fail(ErrorCode::TimedOut, "no answer"),
                Err(e) => fail(ErrorCode::Unavailable, &e.to_string()),
            }
        })
    }

    #[allow(clippy::needless_pass_by_value, reason = "replies are made in place")]
    fn ready<C: Call>(corr: u64, reply: Reply<C::Reply>) -> BoxFuture<'static, Frame> {
        let frame = reply_frame::<C>(corr, &reply);
        Box::pin(async move { frame })
    }
}

impl Service for FakeService {
    fn call(&self, caller: Arc<Caller>, frame: Frame) -> BoxFuture<'static, Frame> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let corr = frame.corr;
        let request = match Request::decode(frame.kind, &frame.body) {
            Ok(request) => request,
            Err(e) => {
                let error = WireError::new(ErrorCode::Unsupported, e.to_string());
                return Box::pin(async move { error_frame(corr, &error) });
            }
        };
        match request {
            Request::Get(get) if get.table == "never" => Box::pin(std::future::pending()),
            Request::Put(put) if put.table == "never" => Box::pin(std::future::pending()),
            Request::Get(get) if get.table == "panic" => panic!("as asked"),
            Request::Put(put) if put.table == "full" => {
                Self::ready::<r::Put>(corr, fail(ErrorCode::StorageFull, "no space"))
            }
            Request::Get(get) if get.table == "big" => {
                let len = std::str::from_utf8(&get.key).ok().and_then(|key| key.parse().ok());
                let values = vec![vec![7; len.unwrap_or(0)]];
                Self::ready::<r::Get>(corr, Ok(Current { values, context: vec![] }))
            }
            Request::Get(get) => {
                Self::ready::<r::Get>(corr, Ok(self.current(&get.table, &get.key)))
            }
            Request::Put(_) if caller.role < ClientRole::Writer => {
                Self::ready::<r::Put>(corr, fail(ErrorCode::Forbidden, "writing takes a writer"))
            }
            Request::Put(put) => {
                Self::ready::<r::Put>(corr, self.put(put.table, put.key, Some(put.value)))
            }
            Request::PutIf(put) => Self::ready::<r::PutIf>(corr, self.put_if(put)),
            Request::Delete(delete) => {
                Self::ready::<r::Delete>(corr, self.put(delete.table, delete.key, None))
            }
            Request::Batch(batch) => {
                let results = batch.ops.into_iter().map(|op| match op {
                    r::Op::Put(put) => self.put(put.table, put.key, Some(put.value)),
                    r::Op::PutIf(put) => self.put_if(put),
                    r::Op::Delete(delete) => self.put(delete.table, delete.key, None),
                });
                Self::ready::<r::Batch>(corr, Ok(results.collect()))
            }
            Request::Scan(scan) => Self::ready::<r::Scan>(corr, self.scan(&scan)),
            Request::Watch(watch) => {
                let changes = self.watch(watch);
                Box::pin(async move { reply_frame::<r::Watch>(corr, &changes.await) })
            }
            Request::DeclareTable(declare) => {
                Self::ready::<r::DeclareTable>(corr, Ok(declare.table))
            }
            Request::Tables(_) => Self::ready::<r::Tables>(corr, Ok(vec![])),
            Request::Whereis(whereis) => {
                let named = self.state().names.get(&whereis.name).map(|(_, named)| named.clone());
                Self::ready::<r::Whereis>(corr, Ok(named))
            }
            Request::Register(register) => {
                Self::ready::<r::Register>(corr, self.register(&caller, register.name))
            }
            Request::Unregister(unregister) => {
                let mut state = self.state();
                if state
                    .names
                    .get(&unregister.name)
                    .is_some_and(|(holder, _)| holder.session == caller.session)
                {
                    state.names.remove(&unregister.name);
                }
                Self::ready::<r::Unregister>(corr, Ok(()))
            }
            Request::Names(names) => {
                let state = self.state();
                let found = state.names.iter().filter(|(name, _)| name.starts_with(&names.prefix));
                let found = found.map(|(_, (_, named))| named.clone()).collect();
                Self::ready::<r::Names>(corr, Ok(found))
            }
            Request::SendTo(send) => {
                let answer = self.send_to(send);
                Box::pin(async move { reply_frame::<SendTo>(corr, &answer.await) })
            }
            Request::Tree(_) => {
                let tree = self.scope.tree();
                let json = serde_json::to_string(&tree).unwrap_or_default();
                Self::ready::<r::Tree>(corr, Ok(json))
            }
            Request::Log(log) => {
                let after = log.after_seq.unwrap_or(0);
                let records = (1..=3_u64).filter(|seq| *seq > after).map(|seq| {
                    format!(
                        r#"{{"seq":{seq},"ts_ms":{seq},"path":"node","event":"child_started"}}"#
                    )
                });
                Self::ready::<r::Log>(corr, Ok(LogPage { records: records.collect(), last_seq: 3 }))
            }
            Request::Kill(kill) => {
                let killed = self.scope.kill(&kill.path);
                let reply = killed.or_else(|e| fail(ErrorCode::NotFound, &e.to_string()));
                Self::ready::<r::Kill>(corr, reply)
            }
            Request::Status(_) => {
                Self::ready::<Status>(corr, Ok(r#"{"state":"ready"}"#.to_owned()))
            }
            other => {
                let why = format!("{} is not faked", other.name());
                Box::pin(
                    async move { error_frame(corr, &WireError::new(ErrorCode::Unsupported, why)) },
                )
            }
        }
    }

    fn closed(&self, session: u64) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.state().names.retain(|_, (holder, _)| holder.session != session);
    }
}
