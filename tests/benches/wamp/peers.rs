//! The other routers: where they come from, and how they are started.

use super::lean;
use super::nats::Nats as NatsWire;
use super::processes::{Process, free_port};
use super::redis::Redis as RedisWire;
use super::shape::{Figures, Shape};
use super::weald::{Router, Transport};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The release that is measured.
const CROSSBAR: &str = "crossbar==26.10.1";
/// Packages of the distribution, with the libraries of redis-server that are not on every machine.
const NATS_PACKAGES: [&str; 1] = ["nats-server"];
const REDIS_PACKAGES: [&str; 5] =
    ["redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1"];

/// Something that runs and can be loaded.
pub(crate) trait Server {
    /// What it is.
    fn what(&self) -> String;
    /// Measures a shape; none if it does not have it.
    fn measure(&self, shape: Shape, seconds: u64) -> Result<Option<Figures>>;
}

/// Where what is installed for benches lies: beside what is built.
fn installed() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    // The program lies in TARGET/release/deps.
    let target = program.ancestors().nth(3).context("find the target directory")?;
    let dir = target.join("bench-peers");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        bail!("{:?}: {} {last}", command.get_program(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn python() -> Result<String> {
    if let Ok(python) = std::env::var("WEALD_BENCH_PYTHON") {
        return Ok(python);
    }
    let fits = "import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))";
    ["python3", "python3.13", "python3.12", "python3.11"]
        .into_iter()
        .find(|python| run(Command::new(python).args(["-c", fits])).is_ok())
        .map(ToOwned::to_owned)
        .context("crossbar needs a Python from 3.11 to 3.13 with venv (WEALD_BENCH_PYTHON)")
}

/// A program of `PATH`, or of packages that are unpacked, not installed, beside what is built.
fn program(name: &str, packages: &[&str]) -> Result<Command> {
    if run(Command::new(name).arg("--version")).is_ok() {
        return Ok(Command::new(name));
    }
    let dir = installed()?.join(name);
    let root = dir.join("root");
    let found = |root: &Path| {
        ["usr/bin", "usr/sbin"]
            .iter()
            .map(|bin| root.join(bin).join(name))
            .find(|path| path.is_file())
    };
    if found(&root).is_none() {
        println!("{name}: unpacking the distribution's package");
        fs::create_dir_all(&dir)?;
        run(Command::new("apt-get").arg("download").args(packages).current_dir(&dir))
            .with_context(|| format!("{name} is not installed, nor is its package to be had"))?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("-x").arg(path).arg(&root))?;
            }
        }
    }
    let path = found(&root).with_context(|| format!("no {name} in its package"))?;
    let mut command = Command::new(path);
    let libraries = fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    let libraries: Vec<PathBuf> = libraries.map(|entry| entry.path()).collect();
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
    Ok(command)
}

/// crossbar with one worker, as it is out of the box.
pub(crate) struct Crossbar {
    router: Router,
    _process: Process,
    _dir: TempDir,
}

impl Crossbar {
    pub(crate) fn start(transport: Transport) -> Result<Self> {
        let environment = installed()?.join(CROSSBAR.replace("==", "-"));
        let program = environment.join("bin/crossbar");
        if !program.is_file() {
            println!("crossbar: installing {CROSSBAR}");
            run(Command::new(python()?).args(["-m", "venv"]).arg(&environment))?;
            run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", CROSSBAR]))?;
        }
        let dir = tempfile::Builder::new().prefix("weald-bench-crossbar-").tempdir()?;
        let port = free_port()?;
        fs::write(dir.path().join("config.json"), config(transport, port).to_string())?;
        let mut command = Command::new(program);
        command.args(["start", "--cbdir"]).arg(dir.path()).current_dir(dir.path());
        let log = dir.path().join("log");
        let mut process = Process::start(&mut command, &log)?;
        process.wait_listens(&[port], &log)?;
        let url = match transport {
            Transport::Raw => format!("tcp://127.0.0.1:{port}"),
            Transport::WebSocket => format!("ws://127.0.0.1:{port}/"),
        };
        let router = Router { transport, to: url.clone(), url, pids: process.pids() };
        Ok(Self { router, _process: process, _dir: dir })
    }
}

fn config(transport: Transport, port: u16) -> serde_json::Value {
    let kind = match transport {
        Transport::Raw => "rawsocket",
        Transport::WebSocket => "websocket",
    };
    let all =
        serde_json::json!({"call": true, "register": true, "publish": true, "subscribe": true});
    serde_json::json!({
        "version": 2,
        "controller": {},
        "workers": [{
            "type": "router",
            "realms": [{"name": "realm1", "roles": [{
                "name": "anonymous",
                "permissions": [{"uri": "", "match": "prefix", "allow": all, "cache": true}],
            }]}],
            "transports": [{
                "type": kind,
                "endpoint": {"type": "tcp", "port": port, "interface": "127.0.0.1", "backlog": 1024},
                "serializers": ["json", "msgpack"],
                "auth": {"anonymous": {"type": "static", "role": "anonymous"}},
            }],
        }],
    })
}

impl Server for Crossbar {
    fn what(&self) -> String {
        format!("{CROSSBAR}, {}, {} processes", self.router.url, self.router.pids.len())
    }

    fn measure(&self, shape: Shape, seconds: u64) -> Result<Option<Figures>> {
        self.router.measure(shape, seconds).map(Some)
    }
}

/// A nats-server, as it is out of the box.
pub(crate) struct Nats {
    port: u16,
    version: String,
    process: Process,
    _dir: TempDir,
}

impl Nats {
    pub(crate) fn start() -> Result<Self> {
        let version = run(program("nats-server", &NATS_PACKAGES)?.arg("--version"))?;
        let dir = tempfile::Builder::new().prefix("weald-bench-nats-").tempdir()?;
        let (port, log) = (free_port()?, dir.path().join("log"));
        let mut command = program("nats-server", &NATS_PACKAGES)?;
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
        let mut process = Process::start(command.current_dir(dir.path()), &log)?;
        process.wait_listens(&[port], &log)?;
        Ok(Self { port, version, process, _dir: dir })
    }
}

impl Server for Nats {
    fn what(&self) -> String {
        self.version.clone()
    }

    fn measure(&self, shape: Shape, seconds: u64) -> Result<Option<Figures>> {
        lean::measure::<NatsWire>(self.port, &self.process.pids(), shape, seconds)
    }
}

/// A redis-server that keeps nothing on disk.
pub(crate) struct Redis {
    port: u16,
    version: String,
    process: Process,
    _dir: TempDir,
}

impl Redis {
    pub(crate) fn start() -> Result<Self> {
        let version = run(program("redis-server", &REDIS_PACKAGES)?.arg("--version"))?;
        let dir = tempfile::Builder::new().prefix("weald-bench-redis-").tempdir()?;
        let (port, log) = (free_port()?, dir.path().join("log"));
        let mut command = program("redis-server", &REDIS_PACKAGES)?;
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--appendonly", "no", "--maxclients", "20000"]);
        let mut process = Process::start(command.current_dir(dir.path()), &log)?;
        process.wait_listens(&[port], &log)?;
        Ok(Self { port, version, process, _dir: dir })
    }
}

impl Server for Redis {
    fn what(&self) -> String {
        self.version.split(" sha=").next().unwrap_or_default().to_owned()
    }

    fn measure(&self, shape: Shape, seconds: u64) -> Result<Option<Figures>> {
        lean::measure::<RedisWire>(self.port, &self.process.pids(), shape, seconds)
    }
}
