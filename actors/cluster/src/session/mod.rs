//! A client's session, whichever way it came in.
//!
//! What it is: the frames of one client on one side, [`Service`] on the other. Requests are handed to the service in the order
//! in which they came and then run side by side; replies go out as they are ready. [`crate::service::Push`] works the other way round.
//!
//! What it guarantees: every request is answered once, or the session ends; a client has at most [`IN_FLIGHT_MAX`] requests of
//! together [`IN_FLIGHT_BYTES_MAX`] bytes in flight and a bounded number of bytes waiting for it, what goes over is answered
//! `Overloaded` and not done; a panic in a request is answered `Internal`; after [`Service::closed`] no request of the
//! session is handed in.
//!
//! What it refuses: knowing requests. It reads headers only.

mod push;
mod table;

pub(crate) use table::Place;
pub use table::{Entry, Sessions};

use crate::service::{Caller, Service};
use futures::FutureExt;
use push::Pushes;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use tokio::sync::watch;
use weald_link::{Close, Outbound, Receive, SendError};
use weald_proto::error::{ErrorCode, WireError};
use weald_proto::frame::Frame;
use weald_proto::limits::IN_FLIGHT_MAX;
use weald_proto::request::{Call, ClientRole, SendTo, SendWith, error_frame, kind};

/// Bytes of requests that one client may have in flight: four of the largest.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// A reply up to this size ends the session when it does not fit; a larger one is replaced with an error.
const REPLY_SMALL_BYTES: usize = 1 << 10;

/// Who a session is for.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The client's name.
    pub name: String,
    /// What it may do.
    pub role: ClientRole,
    /// Where it is.
    pub peer: String,
}

type Closer = Box<dyn Fn(Close) + Send + Sync>;

/// One session.
pub struct Session {
    caller: Arc<Caller>,
    /// Came in by the control socket.
    is_local: bool,
    service: Arc<dyn Service>,
    outbound: Arc<Outbound>,
    pushes: Arc<Pushes>,
    in_flight: Arc<InFlight>,
    /// Set when the session is over; held while a request is handed in.
    dispatch: Mutex<bool>,
    over: watch::Sender<bool>,
    closer: OnceLock<Closer>,
    place: Mutex<Option<Place>>,
    me: Weak<Self>,
}

#[derive(Debug, Default)]
struct InFlight {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// A request in flight; counts itself out.
struct Permit {
    in_flight: Arc<InFlight>,
    bytes: usize,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Session {
    /// A session that takes this place in the table.
    pub(crate) fn open(
        place: Place,
        identity: Identity,
        service: Arc<dyn Service>,
        outbound: Arc<Outbound>,
    ) -> Arc<Self> {
        let pushes = Arc::new(Pushes::new(Arc::clone(&outbound)));
        let Identity { name, role, peer } = identity;
        let is_local = place.is_local();
        let push = Arc::new(Arc::clone(&pushes));
        let caller = Arc::new(Caller { session: place.id(), name, role, peer, push });
        let session = Arc::new_cyclic(|me| Self {
            caller,
            is_local,
            service,
            outbound,
            pushes,
            in_flight: Arc::default(),
            dispatch: Mutex::new(false),
            over: watch::Sender::new(false),
            closer: OnceLock::new(),
            place: Mutex::new(None),
            me: me.clone(),
        });
        place.fill(&session);
        *session.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        session
    }

    /// The client.
    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.requests.load(Ordering::Relaxed)
    }

    /// Says how the connection below is ended.
    pub fn ends_by(&self, closer: impl Fn(Close) + Send + Sync + 'static) {
        // Set once, by whoever made the session.
        self.closer.set(Box::new(closer)).ok();
    }

    /// Ends the connection below, and so the session.
    pub fn end(&self, why: Close) {
        match self.closer.get() {
            Some(closer) => closer(why),
            None => self.finish(),
        }
    }

    /// The session is over: nothing is handed in any more, what waits is dropped, the service is told. Once.
    pub fn finish(&self) {
        {
            let mut over = self.dispatch.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *over, true) {
                return;
            }
        }
        self.over.send_replace(true);
        self.pushes.close();
        self.outbound.close();
        // First out of the table: a request that is still being carried out then finds the session closed, and what it
        // does after the service was told (registering a name) is refused.
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(place);
        self.service.closed(self.caller.session);
    }

    fn request(&self, frame: Frame) {
        let (request, corr) = (frame.kind, frame.corr);
        let permit = match self.admit(&frame) {
            Ok(permit) => permit,
            Err(why) => return self.refuse(corr, &why),
        };
        let call = {
            // Held while the request is handed in, so that `closed` is the last the service hears of the session.
            let over = self.dispatch.lock().unwrap_or_else(PoisonError::into_inner);
            if *over {
                return;
            }
            let caller = Arc::clone(&self.caller);
            std::panic::catch_unwind(AssertUnwindSafe(|| self.service.call(caller, frame)))
        };
        let Ok(call) = call else {
            return self.refuse(corr, &panicked(request));
        };
        let Some(session) = self.me.upgrade() else {
            return;
        };
        let mut over = self.over.subscribe();
        tokio::spawn(async move {
            let call = AssertUnwindSafe(call).catch_unwind();
            tokio::select! {
                biased; // the end of the session comes before its replies
                _ = over.wait_for(|over| *over) => drop(permit),
                reply = call => {
                    let reply = reply.unwrap_or_else(|_panic| error_frame(corr, &panicked(request)));
                    // Before the reply: who has it may ask again at once.
                    drop(permit);
                    session.reply(request, corr, reply);
                }
            }
        });
    }

    fn admit(&self, frame: &Frame) -> Result<Permit, WireError> {
        let overloaded = |why: String| Err(WireError::new(ErrorCode::Overloaded, why));
        let bytes = frame.encoded_len();
        let permit = Permit::take(&self.in_flight, bytes);
        if self.in_flight.requests.load(Ordering::Acquire) > IN_FLIGHT_MAX {
            return overloaded(format!(
                "{IN_FLIGHT_MAX} requests are in flight, which is the limit; await replies first"
            ));
        }
        if self.in_flight.bytes.load(Ordering::Acquire) > IN_FLIGHT_BYTES_MAX {
            return overloaded(format!(
                "requests of {IN_FLIGHT_BYTES_MAX} bytes are in flight, which is the limit; await replies first"
            ));
        }
        if !self.outbound.has_room() {
            let waiting = self.outbound.bytes();
            return overloaded(format!("{waiting} bytes wait for the client; read replies first"));
        }
        Ok(permit)
    }

    fn refuse(&self, corr: u64, why: &WireError) {
        if let Err(e @ SendError::Full { .. }) = self.outbound.send(&error_frame(corr, why)) {
            self.end(Close::Full(e.to_string()));
        }
    }

    fn reply(&self, request: u16, corr: u64, mut reply: Frame) {
        reply.corr = corr;
        match self.outbound.send(&reply) {
            Ok(()) | Err(SendError::Closed) => {}
            Err(why @ SendError::Full { .. }) if reply.encoded_len() <= REPLY_SMALL_BYTES => {
                self.end(Close::Full(why.to_string()));
            }
            Err(why) => {
                // A request that may have had an effect must not be called undone.
                let code = match why {
                    SendError::Full { .. }
                        if ![SendTo::KIND, SendWith::KIND].contains(&request) =>
                    {
                        ErrorCode::Overloaded
                    }
                    SendError::Full { .. } => ErrorCode::TimedOut,
                    _ => ErrorCode::Internal,
                };
                self.refuse(corr, &WireError::new(code, format!("the reply was dropped: {why}")));
            }
        }
    }
}

fn panicked(request: u16) -> WireError {
    WireError::new(ErrorCode::Internal, format!("the node panicked in request {request}"))
}

impl Permit {
    fn take(in_flight: &Arc<InFlight>, bytes: usize) -> Self {
        in_flight.requests.fetch_add(1, Ordering::AcqRel);
        in_flight.bytes.fetch_add(bytes, Ordering::AcqRel);
        Self { in_flight: Arc::clone(in_flight), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.requests.fetch_sub(1, Ordering::AcqRel);
        self.in_flight.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Receive for Session {
    fn up(&self) {
        let Caller { session, name, peer, .. } = &*self.caller;
        // Every command of the command line is a session: at info they would bury the rest.
        if self.is_local {
            tracing::debug!(event = "session_up", session, client = %name, peer = %peer, "session up");
        } else {
            tracing::info!(event = "session_up", session, client = %name, peer = %peer, "session up");
        }
    }

    fn frame(&self, frame: Frame) {
        if frame.kind & kind::REPLY != 0 {
            self.pushes.answered(frame);
        } else {
            self.request(frame);
        }
    }

    fn closed(&self, why: &Close) {
        let Caller { session, name, peer, .. } = &*self.caller;
        // One line for each session, so it needs no limit of its own: sessions are bounded.
        match why {
            Close::Peer if self.is_local => {
                tracing::debug!(event = "session_down", session, client = %name, peer = %peer, reason = %why, "session down");
            }
            Close::Peer | Close::Io(_) | Close::Local(_) => {
                tracing::info!(event = "session_down", session, client = %name, peer = %peer, reason = %why, "session down");
            }
            why => {
                tracing::warn!(event = "session_cut", session, client = %name, peer = %peer, reason = %why, "session cut");
            }
        }
        self.finish();
    }
}
