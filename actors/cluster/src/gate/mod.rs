//! The gate: everything that a client or the command line may ask of a node.
//!
//! What it is: the one implementation of [`Service`], used by the Unix socket and by the cluster port alike. It decodes a
//! request, checks the caller's role, and turns it into reads of snapshots or messages to the actor concerned.
//!
//! What it guarantees: one answer per request; an error that names what was wrong and what was expected; no request does
//! anything its caller's role does not allow ([`role_of`] is the whole table); writes are handed on in the order of calls;
//! a node that its cluster does not count on (fenced, evicted, left, or under a name that is another's) takes no writes, and
//! says why. Reads go on there, and what operators need to set it right: they show what this replica has, as any read does.
//!
//! What it refuses: state of its own. It is no actor: a crash of any actor behind it is an error or a retry, not its end.

pub mod clients;
pub mod cluster;
pub mod consistency;
mod data;
pub mod events;
mod names;
mod operations;
mod watch;

use crate::mail::MailHandle;
use crate::registry::RegistryHandle;
use crate::service::{BoxFuture, Caller, Service};
use crate::store::StoreHandle;
use clients::Clients;
use cluster::ClusterOps;
use consistency::Consistency;
use std::sync::Arc;
use std::time::Duration;
use weald_proto::request::{ClientRole, error_frame, reply_frame};
use weald_proto::{ErrorCode, Frame, Reply, Request, WireError, request};
use weald_supervision::Scope;

/// How long a request may take in the node when it brings no time of its own. Clients give up sooner or later than this as
/// they please; it bounds what an abandoned request holds.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// Answers [`request::Status`]: JSON text.
pub type StatusFn = dyn Fn() -> String + Send + Sync;
/// Changes the log level, or says what is wrong with the directives.
pub type LogLevelFn = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// What the gate needs to do its work.
pub struct Deps {
    /// The node's name.
    pub node: String,
    /// The store.
    pub store: StoreHandle,
    /// The names of actors.
    pub registry: RegistryHandle,
    /// The way to actors at other nodes.
    pub mail: MailHandle,
    /// Client credentials.
    pub clients: Clients,
    /// The supervision tree and log.
    pub scope: Scope,
    /// The node's state.
    pub status: Arc<StatusFn>,
    /// The log level.
    pub log_level: Arc<LogLevelFn>,
    /// Operations on the cluster.
    pub cluster: Arc<dyn ClusterOps>,
    /// Sessions and write concerns.
    pub consistency: Arc<dyn Consistency>,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The gate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    deps: Arc<Deps>,
}

/// The least role that may make a request.
#[must_use]
pub fn role_of(request: &Request) -> ClientRole {
    match request {
        Request::Get(_)
        | Request::GetWith(_)
        | Request::CatchUp(_)
        | Request::Scan(_)
        | Request::Watch(_)
        | Request::Tables(_)
        | Request::Whereis(_)
        | Request::Names(_)
        | Request::Tree(_)
        | Request::Log(_)
        | Request::Status(_)
        | Request::Members(_)
        | Request::ClusterStatus(_)
        | Request::ClusterEvents(_)
        | Request::AaeStatus(_) => ClientRole::Reader,
        Request::Put(_)
        | Request::PutIf(_)
        | Request::Delete(_)
        | Request::WriteWith(_)
        | Request::Batch(_)
        | Request::DeclareTable(_)
        | Request::Register(_)
        | Request::Unregister(_)
        | Request::SendTo(_)
        | Request::SendWith(_) => ClientRole::Writer,
        // A request that this table does not name is for operators until it says otherwise.
        _ => ClientRole::Operator,
    }
}

/// Whether a request changes what the cluster shares, or stands for this node before others.
fn is_write(request: &Request) -> bool {
    match request {
        Request::Put(_)
        | Request::PutIf(_)
        | Request::Delete(_)
        | Request::WriteWith(_)
        | Request::Batch(_)
        | Request::DeclareTable(_)
        | Request::Register(_)
        | Request::SendTo(_)
        | Request::SendWith(_)
        | Request::AddClient(_)
        | Request::RemoveClient(_) => true,
        // Reads, what only this process has (names given back, actors killed, its log), and the way back into the cluster.
        _ => false,
    }
}

impl Gate {
    /// A gate to these.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self { deps: Arc::new(deps) }
    }

    fn dispatch(
        &self,
        caller: &Arc<Caller>,
        corr: u64,
        request: Request,
    ) -> BoxFuture<'static, Frame> {
        let deps = Arc::clone(&self.deps);
        let caller = Arc::clone(caller);
        match request {
            Request::Get(r) => ready::<request::Get>(corr, &data::get(&deps, &r)),
            Request::Put(r) => answer::<request::Put, _>(corr, data::put(&deps, r)),
            Request::PutIf(r) => answer::<request::PutIf, _>(corr, data::put_if(&deps, r)),
            Request::Delete(r) => answer::<request::Delete, _>(corr, data::delete(&deps, &r)),
            Request::Batch(r) => answer::<request::Batch, _>(corr, data::batch(&deps, r)),
            Request::Scan(r) => answer::<request::Scan, _>(corr, data::scan(deps, r)),
            Request::Watch(r) => answer::<request::Watch, _>(corr, watch::watch(deps, r)),
            Request::DeclareTable(r) => {
                answer::<request::DeclareTable, _>(corr, data::declare(deps, r.table))
            }
            Request::Tables(_) => ready::<request::Tables>(corr, &Ok(data::tables(&deps))),
            Request::Whereis(r) => ready::<request::Whereis>(corr, &names::whereis(&deps, &r)),
            Request::Names(r) => ready::<request::Names>(corr, &Ok(names::names(&deps, &r))),
            Request::Register(r) => {
                answer::<request::Register, _>(corr, names::register(deps, caller, r))
            }
            Request::Unregister(r) => {
                answer::<request::Unregister, _>(corr, names::unregister(deps, caller, r))
            }
            Request::SendTo(r) => answer::<request::SendTo, _>(corr, names::send(&deps, r)),
            Request::SendWith(r) => {
                answer::<request::SendWith, _>(corr, names::send_with(&deps, r))
            }
            Request::Tree(r) => ready::<request::Tree>(corr, &operations::tree(&deps, &r)),
            Request::Log(r) => answer::<request::Log, _>(corr, operations::log(deps, r)),
            Request::Kill(r) => ready::<request::Kill>(corr, &operations::kill(&deps, &caller, &r)),
            Request::Status(_) => ready::<request::Status>(corr, &Ok((deps.status)())),
            Request::SetLogLevel(r) => {
                ready::<request::SetLogLevel>(corr, &operations::set_log_level(&deps, &r))
            }
            Request::AddClient(r) => answer::<request::AddClient, _>(corr, clients::add(deps, r)),
            Request::RemoveClient(r) => {
                answer::<request::RemoveClient, _>(corr, clients::remove(deps, r))
            }
            Request::Clients(_) => answer::<request::Clients, _>(corr, clients::list(deps)),
            other => Self::dispatch_cluster(deps, corr, other),
        }
    }

    /// The requests of sessions and of the cluster.
    fn dispatch_cluster(deps: Arc<Deps>, corr: u64, request: Request) -> BoxFuture<'static, Frame> {
        match request {
            Request::GetWith(r) => {
                answer::<request::GetWith, _>(corr, consistency::get_with(deps, r))
            }
            Request::WriteWith(r) => {
                answer::<request::WriteWith, _>(corr, consistency::write_with(deps, r))
            }
            Request::CatchUp(r) => {
                answer::<request::CatchUp, _>(corr, consistency::catch_up(deps, r))
            }
            Request::Members(_) => answer::<request::Members, _>(corr, deps.cluster.members()),
            Request::Join(r) => answer::<request::Join, _>(corr, cluster::join(&deps, r)),
            Request::Leave(r) => answer::<request::Leave, _>(corr, cluster::leave(&deps, &r)),
            Request::Forget(r) => answer::<request::Forget, _>(corr, cluster::forget(&deps, r)),
            Request::ClusterStatus(_) => {
                answer::<request::ClusterStatus, _>(corr, deps.cluster.status())
            }
            Request::ClusterEvents(r) => {
                answer::<request::ClusterEvents, _>(corr, cluster::events(&deps, r))
            }
            Request::AaeStatus(_) => {
                answer::<request::AaeStatus, _>(corr, deps.cluster.aae_status())
            }
            Request::AaeRun(r) => answer::<request::AaeRun, _>(corr, cluster::aae_run(&deps, r)),
            Request::AaeDiff(r) => answer::<request::AaeDiff, _>(corr, cluster::aae_diff(&deps, r)),
            other => {
                let text = format!("{} is not a request of clients", other.name());
                let error = WireError::new(ErrorCode::Unsupported, text);
                Box::pin(std::future::ready(error_frame(corr, &error)))
            }
        }
    }
}

impl Service for Gate {
    fn call(&self, caller: Arc<Caller>, frame: Frame) -> BoxFuture<'static, Frame> {
        let refused = match Request::decode(frame.kind, &frame.body) {
            Ok(request) if caller.role >= role_of(&request) => {
                let refusal = is_write(&request).then(|| self.deps.cluster.refusal()).flatten();
                match refusal {
                    None => return self.dispatch(&caller, frame.corr, request),
                    Some(why) => WireError::new(ErrorCode::NotServing, why),
                }
            }
            Ok(request) => WireError::new(
                ErrorCode::Forbidden,
                format!(
                    "{} needs the role {:?}; client {:?} is {:?}",
                    request.name(),
                    role_of(&request),
                    caller.name,
                    caller.role
                ),
            ),
            Err(e @ request::DecodeError::UnknownKind { .. }) => {
                WireError::new(ErrorCode::Unsupported, e.to_string())
            }
            Err(e) => WireError::new(ErrorCode::Invalid, e.to_string()),
        };
        Box::pin(std::future::ready(error_frame(frame.corr, &refused)))
    }

    fn closed(&self, session: u64) {
        self.deps.registry.closed(session);
    }
}

fn ready<C: request::Call>(corr: u64, reply: &Reply<C::Reply>) -> BoxFuture<'static, Frame> {
    Box::pin(std::future::ready(reply_frame::<C>(corr, reply)))
}

fn answer<C, F>(corr: u64, work: F) -> BoxFuture<'static, Frame>
where
    C: request::Call,
    F: Future<Output = Reply<C::Reply>> + Send + 'static,
{
    Box::pin(async move { reply_frame::<C>(corr, &work.await) })
}

fn invalid(text: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Invalid, text)
}
