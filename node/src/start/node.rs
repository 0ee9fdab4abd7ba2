//! What each step of the boot does, and how it is undone.

use super::settings::{chain, open_exit, replication_config, store_config, transport_config};
use super::signals::Signals;
use super::status::{Phase, Sources};
use super::wamp::{NoRouter, Wamp};
use super::{banner, check, data_dir, notify, pid_file};
use crate::args::{Global, Start};
use crate::boot::{Entry, Step};
use crate::cmd::remote::SOCKET;
use crate::cmd::supervision::LOG_DIR;
use crate::config::{self, Config, Flags, Loaded};
use crate::credential;
use crate::exit::{Exit, Failure};
use crate::logging::{self, LevelHandle};
use crate::out::{self, Out};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weald_cluster::control;
use weald_cluster::gate::clients::{Clients, LOCAL_CLIENT};
use weald_cluster::gate::{Deps, Gate};
use weald_cluster::mail::{self, MailHandle};
use weald_cluster::node::{self, HashtreeConfig, Storage};
use weald_cluster::registry::{Parts, RegistryError, RegistryHandle};
use weald_cluster::replication::Replication;
use weald_cluster::service::{Credentials, Service};
use weald_cluster::session::Sessions;
use weald_cluster::store::StoreHandle;
use weald_cluster::transport::Transport;
use weald_peers::kind;
use weald_proto::request::ClientRole;
use weald_storage::{BootEvent, CheckVerdict, DataDirLock, LockError, Resolvers, Store};
use weald_supervision::{Event, LogConfig, Record, Root, RootExit, Scope, SupervisionLog};

/// Name of the credential of the first boot.
const CLIENT_KEY: &str = "client.key";
/// Where the members are remembered.
const MEMBERS_FILE: &str = "members";
/// Path of the root in the supervision tree.
const ROOT: &str = "node";

/// What ended the node.
#[derive(Debug)]
pub(super) enum End {
    /// A signal, by name.
    Signal(&'static str),
    /// The root supervisor is gone.
    GaveUp(String),
}

/// A node, as far as it has come.
pub(super) struct Node {
    args: Start,
    global: Global,
    out: Out,
    started: Instant,
    loaded: Option<Loaded>,
    level: Option<LevelHandle>,
    dir: PathBuf,
    lock: Option<DataDirLock>,
    scope: Option<Scope>,
    store: Option<StoreHandle>,
    is_new: bool,
    running: Option<Running>,
    phase: Phase,
    stop_by: Option<Instant>,
}

/// What is there once the tree is up.
struct Running {
    root: Root,
    clients: Clients,
    registry: RegistryHandle,
    sources: Arc<Sources>,
}

impl Node {
    pub(super) fn new(args: Start, global: Global, out: Out) -> Self {
        Self {
            args,
            global,
            out,
            started: Instant::now(),
            loaded: None,
            level: None,
            dir: PathBuf::new(),
            lock: None,
            scope: None,
            store: None,
            is_new: false,
            running: None,
            phase: Phase::default(),
            stop_by: None,
        }
    }

    /// What the node is at.
    pub(super) fn phase(&self) -> Phase {
        self.phase.clone()
    }

    /// Does a step of the boot.
    pub(super) async fn enter(&mut self, entry: &Entry) -> Result<(), Failure> {
        let fail = |message: String| Failure::new(entry.exit, message);
        match entry.step {
            Step::Config => self.load_config(),
            Step::Logging => {
                let log = &self.config()?.log;
                self.level = Some(logging::init(&log.level, log.format).map_err(fail)?);
                self.tell_config();
                Ok(())
            }
            Step::DataDir => {
                self.dir = data_dir::prepare(&self.config()?.node.data_dir).map_err(fail)?;
                Ok(())
            }
            Step::Lock => self.take_lock(),
            Step::Ports => self.try_ports(),
            Step::SupervisionLog => {
                let config = &self.config()?.supervision;
                let config = LogConfig {
                    segment_bytes: config.log_segment_bytes,
                    segments_max: usize::try_from(config.log_segments).unwrap_or(usize::MAX),
                    fsync_interval: config.fsync_interval,
                };
                let log = SupervisionLog::open(&self.dir.join(LOG_DIR), config)
                    .map_err(|e| fail(format!("supervision log: {}", chain(&e))))?;
                self.scope = Some(Scope::new(&self.name()?, Some(log)));
                Ok(())
            }
            Step::Store => self.open_store().await,
            Step::Tree => self.start_tree().await,
            Step::Credential => self.write_credential().await,
            Step::Ready => self.tell_ready(),
        }
    }

    /// Undoes a step of the boot.
    pub(super) async fn leave(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Config | Step::Logging | Step::DataDir | Step::Ports | Step::Credential => Ok(()),
            Step::Ready => {
                notify::stopping();
                Ok(())
            }
            Step::Tree => self.stop_tree().await,
            Step::Store => self.close_store().await,
            Step::SupervisionLog => {
                let Some(scope) = self.scope.take() else { return Ok(()) };
                in_thread(move || {
                    if let Some(log) = scope.log() {
                        log.flush();
                    }
                })
                .await
            }
            Step::Lock => {
                let path = self.dir.join(pid_file::NAME);
                std::fs::remove_file(&path).map_err(|e| Failure::file("remove", &path, &e))?;
                self.lock = None;
                Ok(())
            }
        }
    }

    /// Waits for what ends the node, feeding the watchdog meanwhile.
    pub(super) async fn wait(&self, signals: &mut Signals) -> End {
        let Some(running) = &self.running else { return End::GaveUp("nothing runs".to_owned()) };
        let alive = |limit: Duration| is_alive(running.registry.clone(), limit);
        // Biased: a signal first, since an operator who stops a failing node wants it stopped.
        tokio::select! {
            biased;
            name = signals.next() => End::Signal(name),
            exit = running.root.wait() => End::GaveUp(match exit {
                RootExit::Shutdown => "the root supervisor ended by itself".to_owned(),
                RootExit::GaveUp { report } => report,
                RootExit::Killed => "the root supervisor was killed".to_owned(),
            }),
            () = notify::feed_watchdog(alive) => End::GaveUp("the watchdog ended".to_owned()),
        }
    }

    /// From here on the node is stopping.
    pub(super) fn begin_stop(&mut self, end: &End) {
        self.phase.stopping();
        let why = match end {
            End::Signal(name) => (*name).to_owned(),
            End::GaveUp(report) => report.clone(),
        };
        self.stop_by = Some(Instant::now() + self.shutdown_timeout());
        tracing::info!(event = "node_stopping", reason = %why, "node is stopping");
        self.emit(Event::NodeStopping, &why);
    }

    fn config(&self) -> Result<&Config, Failure> {
        let loaded = self.loaded.as_ref();
        loaded.map(|loaded| &loaded.config).ok_or_else(|| out_of_order(Step::Config))
    }

    fn scope(&self) -> Result<Scope, Failure> {
        self.scope.clone().ok_or_else(|| out_of_order(Step::SupervisionLog))
    }

    fn store(&self) -> Result<StoreHandle, Failure> {
        self.store.clone().ok_or_else(|| out_of_order(Step::Store))
    }

    fn shutdown_timeout(&self) -> Duration {
        let loaded = self.loaded.as_ref();
        loaded.map_or_else(
            || Config::default().node.shutdown_timeout,
            |l| l.config.node.shutdown_timeout,
        )
    }

    fn stop_time(&self) -> Duration {
        let whole = self.shutdown_timeout();
        self.stop_by.map_or(whole, |by| by.saturating_duration_since(Instant::now()))
    }

    fn emit(&self, event: Event, text: &str) {
        if let Some(scope) = &self.scope {
            scope.emit(Record::note(event, ROOT, text));
        }
    }

    fn name(&self) -> Result<String, Failure> {
        let name = &self.config()?.node.name;
        if !name.is_empty() {
            return Ok(name.clone());
        }
        let host = rustix::system::uname();
        Ok(host.nodename().to_string_lossy().into_owned())
    }

    fn load_config(&mut self) -> Result<(), Failure> {
        let mut flags = Flags { config: self.args.config.clone(), values: Vec::new() };
        if let Some(dir) = &self.global.data_dir {
            flags.values.push(("node.data_dir", "--data-dir", dir.to_string_lossy().into_owned()));
        }
        if let Some(format) = self.args.log_format {
            flags.values.push(("log.format", "--log-format", format.word()));
        }
        let loaded = config::load(&flags, std::env::vars_os());
        if loaded.problems.is_empty() {
            self.loaded = Some(loaded);
            return Ok(());
        }
        let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        let text = format!("the configuration is wrong:\n{}", problems.join("\n"));
        Err(Failure::new(Exit::Config, text))
    }

    fn tell_config(&self) {
        let Some(loaded) = &self.loaded else { return };
        for warning in &loaded.warnings {
            tracing::warn!(event = "config_warning", warning = %warning, "check the environment");
        }
        if let Some(file) = &loaded.file {
            tracing::info!(event = "config_loaded", file = %file.display(), "configuration read");
        }
    }

    fn take_lock(&mut self) -> Result<(), Failure> {
        let lock = DataDirLock::acquire(&self.dir).map_err(|e| match e {
            LockError::Held { .. } => {
                let hint = "stop it first, or use another directory with --data-dir";
                Failure::new(Exit::Locked, format!("{e}; {hint}"))
            }
            other => Failure::new(Exit::NoDataDir, chain(&other)),
        })?;
        self.lock = Some(lock);
        pid_file::write(&self.dir)
            .map_err(|e| Failure::file("write", &self.dir.join(pid_file::NAME), &e))?;
        Ok(())
    }

    /// Tries the addresses out, for an error that names the key; the listeners bind them again.
    fn try_ports(&self) -> Result<(), Failure> {
        let config = self.config()?;
        self.try_port("cluster.listen", config.cluster.listen)?;
        for (name, address) in config.listeners.ports() {
            if let Some(address) = address {
                self.try_port(&format!("listeners.{name}"), address)?;
            }
        }
        config.listeners.unix_in(&self.dir).map_or(Ok(()), |path| try_unix(&path))
    }

    fn try_port(&self, key: &str, address: SocketAddr) -> Result<(), Failure> {
        if address.port() == 0 {
            return Ok(());
        }
        let Err(e) = TcpListener::bind(address) else { return Ok(()) };
        let source = self.loaded.as_ref().map(|loaded| loaded.source(key));
        let source = source.map_or_else(String::new, ToString::to_string);
        let what = match e.kind() {
            std::io::ErrorKind::AddrInUse => "is taken by another process",
            _ => "cannot be used",
        };
        let variable = config::keys::find(key).map(config::keys::Key::variable).unwrap_or_default();
        let text = format!(
            "{key}: {address} {what} ({e}); it comes from: {source}. Choose another in the \
             configuration or with {variable}=127.0.0.1:PORT"
        );
        Err(Failure::new(Exit::PortTaken, text))
    }

    async fn open_store(&mut self) -> Result<(), Failure> {
        let config = store_config(&self.config()?.storage);
        let limit = self.config()?.storage.check_timeout;
        let (dir, phase) = (self.dir.clone(), self.phase.clone());
        let program = std::env::current_exe()
            .map_err(|e| Failure::new(Exit::Io, format!("cannot find this program: {e}")))?;
        let (result, events) = in_thread(move || {
            let check = move |path: &Path| -> std::io::Result<CheckVerdict> {
                tracing::info!(event = "store_check", path = %path.display(), "checking a partition");
                check::run_child(&program, path, limit, &|| phase.is_stopping())
            };
            let mut events = Vec::new();
            let result = Store::open(&dir, config, Resolvers::default(), &check, &mut events);
            (result, events)
        })
        .await?;
        for event in &events {
            self.tell_boot_event(event);
        }
        let store = result.map_err(|e| Failure::new(open_exit(&e), chain(&e)))?;
        self.is_new = events.iter().any(|event| matches!(event, BootEvent::NewNode { .. }));
        self.store = Some(StoreHandle::new(store, node::wall_ms));
        Ok(())
    }

    fn tell_boot_event(&self, event: &BootEvent) {
        let detail = serde_json::to_string(event).unwrap_or_default();
        match event {
            BootEvent::UncleanStop => self.emit(Event::UncleanStop, "the last stop was not clean"),
            BootEvent::Quarantined { .. } => self.emit(Event::Quarantined, &detail),
            _ => {}
        }
        tracing::info!(event = "store_boot", detail, "{}", describe(event));
    }

    async fn start_tree(&mut self) -> Result<(), Failure> {
        let (scope, store, name) = (self.scope()?, self.store()?, self.name()?);
        let config = self.config()?.clone();
        let fail = |what: &str, e: &dyn std::error::Error| {
            Failure::new(Exit::GaveUp, format!("cannot start {what}: {}", chain(e)))
        };
        let opened = store.clone();
        let clients = in_thread(move || Clients::open(opened)).await?;
        let clients = clients.map_err(|e| fail("the client credentials", &e))?;
        let level = self.level.clone().ok_or_else(|| out_of_order(Step::Logging))?;
        let sessions = Sessions::new();
        let hashtrees =
            HashtreeConfig { timer: config.aae.hashtree_timer, ttl: config.aae.hashtree_ttl };
        let storage = Storage::new(store.clone(), hashtrees, scope.clone());
        // The status tells of the port, which is bound by a part of the tree that needs the gate.
        let status: Arc<std::sync::OnceLock<Arc<Sources>>> = Arc::default();
        let asked = Arc::clone(&status);
        let reached = transport_config(&config, &name, store.store());
        let members = self.dir.join(MEMBERS_FILE);
        let replicating = replication_config(&config, &name, members, reached.advertise.clone());
        let transport = Transport::new(reached);
        let (links, stored, known) = (transport.clone(), store.clone(), clients.clone());
        let replication = in_thread(move || Replication::new(replicating, links, &stored, &known));
        let replication = Arc::new(replication.await?.map_err(|e| fail("replication", &e))?);
        let parts = Parts {
            node: name.clone(),
            sessions: Arc::<Sessions>::clone(&sessions),
            store: store.clone(),
            cluster: replication.membership().watch(),
        };
        let registry = in_thread(move || RegistryHandle::new(parts)).await?;
        let registry = registry.map_err(|e| fail("the registry", &e))?;
        let mail = MailHandle::new(mail::Parts {
            network: Arc::new(transport.clone()),
            registry: registry.clone(),
            consistency: Arc::<Replication>::clone(&replication),
            cluster: replication.membership().watch(),
            begun_ms: node::wall_ms(),
        });
        transport.set_inbox(kind::ACTORS, Arc::new(mail.clone()));
        let (routing, kept, links) = (config.clone(), store.clone(), transport.clone());
        let members = replication.membership().watch();
        let dir = self.dir.clone();
        let wamp = in_thread(move || Wamp::new(&routing, &dir, &kept, &links, members)).await?;
        let wamp = wamp.map_err(|e| match &e {
            NoRouter::Table(_) => fail("the router", &e),
            NoRouter::Origin(_) | NoRouter::Tls(_) => Failure::new(Exit::Config, chain(&e)),
        })?;
        let gate: Arc<dyn Service> = Arc::new(Gate::new(Deps {
            node: name.clone(),
            store: store.clone(),
            registry: registry.clone(),
            mail: mail.clone(),
            clients: clients.clone(),
            scope: scope.clone(),
            status: Arc::new(move || {
                asked.get().map_or_else(|| "{}".to_owned(), |sources| sources.status().to_string())
            }),
            log_level: Arc::new(move |directives| level.set(directives)),
            cluster: Arc::<Replication>::clone(&replication),
            consistency: Arc::<Replication>::clone(&replication),
        }));
        let credentials: Arc<dyn Credentials> = Arc::new(clients.clone());
        let bound = transport.bound();
        let port = transport.child_spec(Arc::clone(&gate), credentials, Arc::clone(&sessions));
        let socket = self.dir.join(SOCKET);
        let control =
            control::child_spec(control::Config::new(&socket), gate, Arc::clone(&sessions));
        let sources = Arc::new(Sources {
            node: name,
            data_dir: self.dir.clone(),
            socket,
            started: self.started,
            store,
            scope: scope.clone(),
            bound,
            wamp: wamp.clone(),
            mail: mail.clone(),
            sessions,
            phase: self.phase.clone(),
        });
        // Set once, a line above: cannot be taken.
        status.set(Arc::clone(&sources)).ok();
        let spec = node::tree(
            &storage,
            vec![node::registry(&registry), node::mail(&mail)],
            port,
            replication.children(),
            control,
            wamp.children(),
            wamp.listeners(),
        );
        let root =
            Root::start(&scope, ROOT, spec).await.map_err(|e| fail("the supervision tree", &e))?;
        self.running = Some(Running { root, clients, registry, sources });
        Ok(())
    }

    async fn stop_tree(&mut self) -> Result<(), Failure> {
        let Some(running) = &self.running else { return Ok(()) };
        running.sources.wamp.drain();
        let report = running.root.shutdown(self.stop_time()).await;
        tracing::info!(
            event = "tree_stopped",
            in_order = report.in_order,
            elapsed_ms = report.elapsed_ms,
            "supervision tree stopped"
        );
        if report.deadline_passed || !report.unkillable.is_empty() {
            let text = format!(
                "not all stopped within node.shutdown_timeout; killed: {:?}, still there: {:?}",
                report.killed, report.unkillable
            );
            return Err(Failure::new(Exit::GaveUp, text));
        }
        Ok(())
    }

    async fn close_store(&mut self) -> Result<(), Failure> {
        let Some(handle) = self.store.take() else { return Ok(()) };
        // What was promised is on disk already; closing marks the stop as clean.
        let limit = self.stop_time().max(Duration::from_secs(1));
        let closing = in_thread(move || handle.store().close());
        let closed = tokio::time::timeout(limit, closing).await.map_err(|_elapsed| {
            Failure::new(Exit::GaveUp, "the store did not close within node.shutdown_timeout")
        })??;
        closed.map_err(|e| Failure::new(Exit::Io, chain(&e)))?;
        tracing::info!(event = "node_stopped", "node has stopped, all data is on disk");
        self.emit(Event::NodeStopped, "");
        Ok(())
    }

    async fn write_credential(&self) -> Result<(), Failure> {
        let Some(running) = &self.running else { return Err(out_of_order(Step::Tree)) };
        let path = self.dir.join(CLIENT_KEY);
        // Credentials are known to the whole cluster: each node has one of its own.
        let id = self.store()?.store().node_id().to_string();
        let client = format!("{LOCAL_CLIENT}-{}", id.get(..8).unwrap_or(&id));
        if !self.is_new {
            // A boot that was cut short after the node was made has left none; one taken away stays away.
            let there = path.try_exists().map_err(|e| Failure::file("look at", &path, &e))?;
            if there || running.clients.was_removed(&client) {
                return Ok(());
            }
        }
        let credential = running.clients.add(&client, ClientRole::Operator).await;
        let credential =
            credential.map_err(|e| Failure::new(Exit::Io, format!("first credential: {e}")))?;
        // A file that is there already belongs to data that is gone.
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::file("replace", &path, &e));
            }
            Ok(()) | Err(_) => {}
        }
        credential::write_new(&path, &credential::line(&credential))
            .map_err(|e| Failure::file("write", &path, &e))
    }

    fn tell_ready(&mut self) -> Result<(), Failure> {
        let Some(running) = &self.running else { return Err(out_of_order(Step::Tree)) };
        self.phase.ready();
        let status = running.sources.status();
        let listen = status["listen"]["cluster"].as_str().unwrap_or_default().to_owned();
        self.emit(Event::NodeStarted, "");
        tracing::info!(
            event = "node_ready",
            data_dir = %self.dir.display(),
            cluster = %listen,
            boot_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "node is ready"
        );
        notify::ready(&format!("ready, cluster port {listen}"));
        let given = self.config()?.node.data_dir.clone();
        let shown = if self.out.is_json() {
            self.out.json(&status)
        } else if self.out.is_terminal() {
            self.out.bytes(banner::text(&status, &given).as_bytes())
        } else {
            Ok(())
        };
        // A node does not end because nobody reads its banner.
        if let Err(failure) = shown.and_then(|()| self.out.flush()) {
            out::note(&failure.message);
        }
        Ok(())
    }
}

/// Tries the path of a socket out, for an error that names the key.
fn try_unix(path: &Path) -> Result<(), Failure> {
    let fail = |exit, what: &str| {
        Err(Failure::new(exit, format!("listeners.unix: {} {what}", path.display())))
    };
    if path.as_os_str().len() > config::listeners::UNIX_BYTES_MAX {
        let what = format!("is longer than {} bytes", config::listeners::UNIX_BYTES_MAX);
        return fail(Exit::Config, &what);
    }
    if !path.parent().is_some_and(Path::is_dir) {
        return fail(Exit::Config, "is in no folder that is there");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => fail(Exit::PortTaken, "is taken by another process"),
        Err(_) => Ok(()),
    }
}

/// Whether an actor answers. Giving back a name that nobody has is a message that changes nothing.
async fn is_alive(registry: RegistryHandle, limit: Duration) -> bool {
    let asked = registry.unregister(String::new(), 0, limit).await;
    !matches!(asked, Err(RegistryError::Unavailable(_)))
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Failure::new(Exit::GaveUp, format!("a step of the boot failed: {e}")))
}

fn out_of_order(step: Step) -> Failure {
    Failure::new(Exit::GaveUp, format!("the boot plan has a step before {step:?} that needs it"))
}

/// A boot event of the store for people.
fn describe(event: &BootEvent) -> String {
    match event {
        BootEvent::NewNode { id } => format!("new node {id}"),
        BootEvent::CleanStart { incarnation } => {
            format!("the last stop was clean, incarnation {incarnation} goes on")
        }
        BootEvent::UncleanStop => "the last stop was not clean".to_owned(),
        BootEvent::Restored { partitions } => {
            format!(
                "partitions {partitions:?} are not the files that were closed: copied or restored"
            )
        }
        BootEvent::NewIncarnation { from: None, to, .. } => format!("incarnation {to}"),
        BootEvent::NewIncarnation { from: Some(from), to, .. } => {
            format!("incarnation {from} is over, {to} begins")
        }
        BootEvent::Checked { partition, rows, ms } => {
            format!("partition {partition} was checked: {rows} objects are sound ({ms} ms)")
        }
        BootEvent::Quarantined { partition, to, why, .. } => {
            format!("partition {partition} is damaged ({why}), moved to {}", to.display())
        }
        BootEvent::Replaced { partition } => format!("partition {partition} begins afresh"),
    }
}
