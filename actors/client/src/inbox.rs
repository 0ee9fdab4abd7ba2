//! The actors of this process that have a name at the node, and the messages that come for them.

use crate::wire::Wire;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use weald_proto::error::{ErrorCode, WireError};
use weald_proto::frame::Frame;
use weald_proto::request::{Deliver, Lost, Reply, Request, error_frame, reply_frame};

/// Messages that are being answered at a time; more are answered `Overloaded`.
const SERVING_MAX: usize = 1024;

/// An answer that is ready, or one that takes a while.
pub(crate) enum Answer {
    Now(Reply<Vec<u8>>),
    Later(Pin<Box<dyn Future<Output = Reply<Vec<u8>>> + Send>>),
}

/// Takes a message; called in the order in which the messages came, so it must not block.
pub(crate) type Handler = Arc<dyn Fn(&[u8], bool) -> Answer + Send + Sync>;

/// A name of a client.
struct Entry {
    handler: Handler,
    /// Told when the name is another's.
    lost: oneshot::Sender<Lost>,
}

/// All names of a client.
#[derive(Default)]
pub(crate) struct Inbox {
    names: Mutex<BTreeMap<String, Entry>>,
    serving: Arc<AtomicUsize>,
}

struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inbox {
    /// Adds a name, and says where its loss will be told; none when it is there already.
    pub(crate) fn add(&self, name: &str, handler: Handler) -> Option<oneshot::Receiver<Lost>> {
        let mut names = self.names();
        if names.contains_key(name) {
            return None;
        }
        let (lost, was_lost) = oneshot::channel();
        names.insert(name.to_owned(), Entry { handler, lost });
        Some(was_lost)
    }

    pub(crate) fn remove(&self, name: &str) {
        let entry = self.names().remove(name);
        drop(entry);
    }

    fn lost(&self, lost: Lost) {
        let entry = self.names().remove(&lost.name);
        if let Some(entry) = entry {
            // Nobody waits for the end of the registration.
            entry.lost.send(lost).ok();
        }
    }

    /// Takes a frame that the node pushed, and answers it.
    pub(crate) fn take(&self, wire: &Arc<Wire>, frame: Frame) {
        let Frame { kind, corr, body } = frame;
        let Deliver { name, payload, reply } = match Request::decode(kind, &body) {
            Ok(Request::Deliver(deliver)) => deliver,
            Ok(Request::Lost(lost)) => {
                self.lost(lost);
                wire.answer(&reply_frame::<Lost>(corr, &Ok(())));
                return;
            }
            Ok(_) | Err(_) => {
                let why = format!("this client does not know request {kind}");
                wire.answer(&error_frame(corr, &WireError::new(ErrorCode::Unsupported, why)));
                return;
            }
        };
        let handler = self.names().get(&name).map(|entry| Arc::clone(&entry.handler));
        let answer = match handler {
            Some(handler) => handler(&payload, reply),
            None => {
                let why = format!("no actor has the name {name:?} here");
                Answer::Now(Err(WireError::new(ErrorCode::NotFound, why)))
            }
        };
        match answer {
            Answer::Now(result) => wire.answer(&reply_frame::<Deliver>(corr, &result)),
            Answer::Later(work) => {
                let serving = Serving(Arc::clone(&self.serving));
                if self.serving.fetch_add(1, Ordering::AcqRel) >= SERVING_MAX {
                    drop(serving);
                    let why = format!("{SERVING_MAX} messages are being answered already");
                    let busy = WireError::new(ErrorCode::Overloaded, why);
                    wire.answer(&error_frame(corr, &busy));
                    return;
                }
                let wire = Arc::clone(wire);
                tokio::spawn(async move {
                    let _serving = serving;
                    let result = work.await;
                    wire.answer(&reply_frame::<Deliver>(corr, &result));
                });
            }
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Nothing in here panics half-way.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
