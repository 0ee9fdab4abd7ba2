//! The store and the names of the fake node.

use crate::data::{Data, fail};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use weald_cluster::service::{BoxFuture, Caller, PushError, Service};
use weald_proto::error::{Current, ErrorCode, WireError};
use weald_proto::frame::Frame;
use weald_proto::request as r;
use weald_proto::request::{
    Call, Changes, ClientRole, Deliver, Item, LogPage, Named, Page, Reply, Request, SendTo, Status,
    decode_reply, error_frame, reply_frame, request_frame,
};
use weald_supervision::Scope;

/// Executes requests on a map. Some tables are special: what goes to `never` is not answered, what goes to `panic` panics,
/// `big` holds as many bytes as the key says, and `full` takes no writes.
pub struct FakeService {
    data: Data,
    scope: Scope,
    /// Requests handed in so far.
    pub calls: AtomicUsize,
    /// Sessions that were reported closed.
    pub closed: AtomicUsize,
    /// Other members that have each write as soon as it is made.
    pub others: AtomicU8,
}

impl std::fmt::Debug for FakeService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeService").finish_non_exhaustive()
    }
}

impl FakeService {
    /// An empty store.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            data: Data::default(),
            scope,
            calls: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            others: AtomicU8::new(0),
        }
    }

    /// Names held at the moment.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.data.state().names.keys().cloned().collect()
    }

    /// Takes a name away from its client, as if another node had had it for longer.
    pub fn lose(&self, name: &str) {
        let held = self.data.state().names.remove(name);
        if let Some((holder, _)) = held {
            let lost = r::Lost {
                name: name.to_owned(),
                node: "other-node".to_owned(),
                owner: "other".to_owned(),
                since_ms: 1,
            };
            let told = holder.push.request(request_frame(0, &lost), Duration::from_secs(5));
            tokio::spawn(async move { told.await.map(drop) });
        }
    }

    fn scan(&self, scan: &r::Scan) -> Reply<Page> {
        let from = scan.token.clone().or_else(|| scan.from.clone()).unwrap_or_default();
        let state = self.data.state();
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
        let (data, mut changed) = (self.data.clone(), self.data.subscribe());
        let position = watch.position.as_deref().map_or_else(
            || self.data.state().version,
            |bytes| bytes.try_into().map_or(0, u64::from_be_bytes),
        );
        Box::pin(async move {
            let wait = changed.wait_for(|version| *version > position);
            tokio::time::timeout(Duration::from_millis(watch.wait_ms), wait).await.ok();
            let state = data.state();
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

    fn cluster(corr: u64, request: Request) -> BoxFuture<'static, Frame> {
        let members = r#"{"cluster":"fake","own":"n1","members":[
            {"name":"test-node","node":"n1","status":"joined","liveness":"up"}]}"#;
        match request {
            Request::Members(_) => Self::ready::<r::Members>(corr, Ok(members.to_owned())),
            Request::Join(join) if join.addresses == ["nobody:1"] => Self::ready::<r::Join>(
                corr,
                fail(ErrorCode::Unavailable, "nobody answers at nobody:1"),
            ),
            Request::Join(_) => Self::ready::<r::Join>(corr, Ok(members.to_owned())),
            Request::Leave(_) => Self::ready::<r::Leave>(corr, Ok(members.to_owned())),
            Request::Forget(r) if !r.force => {
                Self::ready::<r::Forget>(corr, fail(ErrorCode::Invalid, "it answers"))
            }
            Request::Forget(_) => Self::ready::<r::Forget>(corr, Ok(members.to_owned())),
            Request::ClusterStatus(_) => {
                let status = r#"{"cluster":"fake","name":"test-node","node":"n1","members":1}"#;
                Self::ready::<r::ClusterStatus>(corr, Ok(status.to_owned()))
            }
            Request::ClusterEvents(r) => {
                let event = r#"{"seq":1,"ts_ms":5,"event":"member_up","name":"b","node":"n2",
                    "status":"joined","liveness":"up"}"#;
                let (events, lagged) = match r.position {
                    None => (vec![], false),
                    Some(_) => (vec![event.to_owned()], true),
                };
                let page = r::ClusterChanges { events, position: vec![1], lagged };
                Self::ready::<r::ClusterEvents>(corr, Ok(page))
            }
            Request::AaeStatus(_) => {
                let status = r#"{"enabled":true,"peers":[{"name":"b","node":"n2"}]}"#;
                Self::ready::<r::AaeStatus>(corr, Ok(status.to_owned()))
            }
            Request::AaeRun(run) => {
                let report = format!(r#"{{"peer":"{}","elapsed_ms":3,"objects_in":7}}"#, run.peer);
                Self::ready::<r::AaeRun>(corr, Ok(report))
            }
            Request::AaeDiff(diff) => {
                let report = format!(r#"{{"peer":"{}","equal":true}}"#, diff.peer);
                Self::ready::<r::AaeDiff>(corr, Ok(report))
            }
            other => {
                let why = format!("{} is not faked", other.name());
                let error = WireError::new(ErrorCode::Unsupported, why);
                Box::pin(async move { error_frame(corr, &error) })
            }
        }
    }

    fn register(&self, caller: &Arc<Caller>, name: String) -> Reply<Named> {
        let mut state = self.data.state();
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
        let holder = self.data.state().names.get(&send.name).map(|(holder, _)| Arc::clone(holder));
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
                Self::ready::<r::Get>(corr, Ok(self.data.current(&get.table, &get.key)))
            }
            Request::Put(_) if caller.role < ClientRole::Writer => {
                Self::ready::<r::Put>(corr, fail(ErrorCode::Forbidden, "writing takes a writer"))
            }
            Request::Put(put) => {
                Self::ready::<r::Put>(corr, self.data.put(put.table, put.key, Some(put.value)))
            }
            Request::PutIf(put) => Self::ready::<r::PutIf>(corr, self.data.put_if(put)),
            Request::Delete(delete) => {
                Self::ready::<r::Delete>(corr, self.data.put(delete.table, delete.key, None))
            }
            Request::Batch(batch) => {
                let results = batch.ops.into_iter().map(|op| self.data.execute(op));
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
                let named =
                    self.data.state().names.get(&whereis.name).map(|(_, named)| named.clone());
                Self::ready::<r::Whereis>(corr, Ok(named))
            }
            Request::Register(register) => {
                Self::ready::<r::Register>(corr, self.register(&caller, register.name))
            }
            Request::Unregister(unregister) => {
                let mut state = self.data.state();
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
                let state = self.data.state();
                let found = state.names.iter().filter(|(name, _)| name.starts_with(&names.prefix));
                let found = found.map(|(_, (_, named))| named.clone()).collect();
                Self::ready::<r::Names>(corr, Ok(found))
            }
            Request::SendTo(send) => {
                let answer = self.send_to(send);
                Box::pin(async move { reply_frame::<SendTo>(corr, &answer.await) })
            }
            Request::SendWith(send) => {
                let r::SendWith { name, payload, timeout_ms, delivery } = send;
                let token = match delivery {
                    r::Delivery::Causal { token } => Some(token),
                    _ => None,
                };
                let caught_up = self.data.caught_up(token.as_deref(), timeout_ms);
                let answer = self.send_to(SendTo { name, payload, reply: false, timeout_ms });
                Box::pin(async move {
                    let sent = match caught_up.await {
                        Ok(()) => answer.await.map(drop),
                        Err(e) => Err(e),
                    };
                    reply_frame::<r::SendWith>(corr, &sent)
                })
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
            Request::GetWith(get) => {
                let seen = self.data.get_with(get);
                Box::pin(async move { reply_frame::<r::GetWith>(corr, &seen.await) })
            }
            Request::WriteWith(write) => {
                let others = self.others.load(Ordering::Relaxed);
                let written = self.data.write_with(write, others);
                Box::pin(async move { reply_frame::<r::WriteWith>(corr, &written.await) })
            }
            Request::CatchUp(r) => {
                let waiting = self.data.caught_up(Some(&r.token), r.wait_ms);
                Box::pin(async move { reply_frame::<r::CatchUp>(corr, &waiting.await) })
            }
            other => Self::cluster(corr, other),
        }
    }

    fn closed(&self, session: u64) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.data.state().names.retain(|_, (holder, _)| holder.session != session);
    }
}
