//! The Unix socket of a node, for its command line and for programs on the same machine.
//!
//! What it is: a listener on a socket file of mode 0600. A connection speaks frames, one after another, without a handshake:
//! whoever may open the file is the node's owner, and is the client `local` with the role of an operator.
//!
//! What it guarantees: the socket is bound before the child counts as started; a file that no process listens on is
//! replaced, one in use is not; connections and the memory of each are bounded; a client that does not read is cut.
//!
//! What it refuses: paths longer than a socket address may be (with an error that says so), and other users.

mod connection;

use crate::service::Service;
use crate::session::Sessions;
use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use weald_supervision::{Address, ChildSpec, Shutdown};

/// Longest path of a socket, in bytes: `sun_path` less its final zero.
pub const PATH_BYTES_MAX: usize = 107;
/// Most connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// First and longest pause after `accept` has failed.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Where the socket is, and the bounds of a connection.
#[derive(Debug, Clone)]
pub struct Config {
    /// The socket file.
    pub path: PathBuf,
    /// The bounds of each connection.
    pub limits: weald_link::Limits,
}

impl Config {
    /// A socket at `path` with the default bounds.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), limits: weald_link::Limits::default() }
    }
}

/// The child `control`: a worker that owns the socket and its connections.
#[must_use]
pub fn child_spec(config: Config, service: Arc<dyn Service>, sessions: Arc<Sessions>) -> ChildSpec {
    let address = Address::<Msg>::new("control");
    let ctx = Arc::new(Context { config, service, sessions, socket: Mutex::new(None) });
    ChildSpec::worker("control", &address, move || (Control, Arc::clone(&ctx)))
        .shutdown(Shutdown::Timeout(Duration::from_secs(2)))
}

struct Context {
    config: Config,
    service: Arc<dyn Service>,
    sessions: Arc<Sessions>,
    /// The socket outlives a killed actor: its successor goes on with it.
    socket: Mutex<Option<Arc<UnixListener>>>,
}

struct Control;

/// What the accept loop tells the actor.
enum Msg {
    /// It has ended, which it never should.
    Ended(String),
}

impl Message for Msg {}

struct State {
    accept: JoinHandle<()>,
    ctx: Arc<Context>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Context {
    fn socket(&self) -> MutexGuard<'_, Option<Arc<UnixListener>>> {
        // Nothing panics while it is held.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Actor for Control {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Context>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        ctx: Arc<Context>,
    ) -> Result<State, ActorProcessingErr> {
        let open = ctx.socket().clone();
        let listener = match open {
            Some(listener) => listener,
            None => Arc::new(bind(&ctx.config.path).await?),
        };
        *ctx.socket() = Some(Arc::clone(&listener));
        let path = ctx.config.path.display();
        tracing::info!(event = "control_listening", path = %path, "control socket open");
        let context = Arc::clone(&ctx);
        let accept = tokio::spawn(async move {
            accept(listener, context).await;
            myself.cast(Msg::Ended("the accept loop has ended".to_owned())).ok();
        });
        Ok(State { accept, ctx })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        Msg::Ended(why): Msg,
        _state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Err(why.into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        *state.ctx.socket() = None;
        // A file that is left behind, by a crash or here, is replaced at the next start.
        std::fs::remove_file(&state.ctx.config.path).ok();
        state.accept.abort();
        (&mut state.accept).await.ok();
        Ok(())
    }
}

/// Binds the socket, in place of a file that nobody listens on.
async fn bind(path: &Path) -> Result<UnixListener, String> {
    let len = path.as_os_str().len();
    let shown = path.display();
    if len > PATH_BYTES_MAX {
        return Err(format!(
            "socket path {shown} has {len} bytes, a Unix socket takes at most {PATH_BYTES_MAX}: use a shorter data directory"
        ));
    }
    let describe = |e: io::Error| format!("socket {shown}: {e}");
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(describe(e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(format!("{shown} is in the way: it is not a socket"));
        }
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(format!(
                    "socket {shown} is in use: another node runs on this data directory"
                ));
            }
            std::fs::remove_file(path).map_err(describe)?;
        }
    }
    // Bound under another name and moved: nobody can connect before the mode is set.
    let mut hidden = path.as_os_str().to_owned();
    hidden.push("~");
    let hidden = PathBuf::from(hidden);
    let (bind_path, moved) =
        if hidden.as_os_str().len() > PATH_BYTES_MAX { (path, false) } else { (&*hidden, true) };
    if moved {
        std::fs::remove_file(bind_path).ok();
    }
    let listener = UnixListener::bind(bind_path).map_err(describe)?;
    std::fs::set_permissions(bind_path, std::fs::Permissions::from_mode(0o600))
        .map_err(describe)?;
    if moved {
        std::fs::rename(bind_path, path).map_err(describe)?;
    }
    Ok(listener)
}

async fn accept(listener: Arc<UnixListener>, ctx: Arc<Context>) {
    let mut connections = JoinSet::new();
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = ACCEPT_PAUSE.0;
                let identity = connection::identity(&stream);
                let Some(place) = ctx.sessions.admit(identity.clone(), None, CONNECTIONS_MAX)
                else {
                    tracing::warn!(
                        event = "control_full",
                        max = CONNECTIONS_MAX,
                        "too many control connections"
                    );
                    continue;
                };
                let service = Arc::clone(&ctx.service);
                let limits = ctx.config.limits.clone();
                connections.spawn(connection::serve(stream, place, identity, service, limits));
            }
            Err(e) => {
                tracing::warn!(event = "control_accept_failed", error = %e, pause_ms = pause.as_millis(), "accept failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}
