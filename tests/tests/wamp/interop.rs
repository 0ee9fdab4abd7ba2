//! Clients that others wrote: autobahn (Python) and wampy (JavaScript), in versions that are pinned.
//!
//! They are installed by the test itself, below the directory of what is built, so that a second run finds them. Where the
//! package index cannot be reached this fails: nothing is skipped in silence.

use crate::net::{Doors, REALM};
use crate::nodes;
use crate::run::Run;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use weald_tests::harness::artefacts::Artefacts;
use weald_tests::harness::binary;
use weald_tests::harness::cluster::Options;
use weald_tests::harness::wait::pause;
use weald_tests::harness::wires::Wire;
use weald_tests::wamp::{At, Serializer};

/// Time for an installation: a slow network.
const INSTALL_WITHIN: Duration = Duration::from_secs(600);
/// Time for one run of a client; it has a limit of its own.
const CLIENT_WITHIN: Duration = Duration::from_secs(120);

const REQUIREMENTS: &str = include_str!("clients/requirements.txt");
const AUTOBAHN: &str = include_str!("clients/autobahn_client.py");
const PACKAGE: &str = include_str!("clients/package.json");
const WAMPY: &str = include_str!("clients/wampy_client.js");

pub(crate) fn add(run: &mut Run) {
    run.alone(autobahn_works_on_one_node_and_across_two);
    run.alone(wampy_works_on_one_node_and_across_two);
}

/// Where clients are installed.
fn place(name: &str) -> PathBuf {
    let binary = binary::weald();
    let built = binary.parent().and_then(Path::parent).unwrap();
    let place = built.join("wamp-clients").join(name);
    fs::create_dir_all(&place).unwrap();
    place
}

/// Runs a program to its end; what it said, when it did well.
fn run_to_end(command: &mut Command, within: Duration, hint: &str) -> String {
    let kept = Artefacts::new("client");
    let file = |name: &str| File::create(kept.dir().join(name)).unwrap();
    let text = |name: &str| fs::read_to_string(kept.dir().join(name)).unwrap_or_default();
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}. {hint}"));
    let end = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        pause(Duration::from_millis(50));
    };
    let said = text("out");
    assert!(status.success(), "{status}: {hint}\n{said}\n{}", text("err"));
    said
}

/// Whether what is installed is what is asked for now.
fn is_installed(place: &Path, wanted: &str) -> bool {
    fs::read_to_string(place.join("installed")).is_ok_and(|installed| installed == wanted)
}

/// A Python that has autobahn.
fn python() -> PathBuf {
    let place = place("python");
    let python = place.join("bin/python");
    if !is_installed(&place, REQUIREMENTS) {
        let hint = "Python 3.11 or newer with venv is needed, and its package index";
        let mut venv = Command::new("python3");
        run_to_end(venv.args(["-m", "venv", "--clear"]).arg(&place), INSTALL_WITHIN, hint);
        let requirements = place.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS).unwrap();
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "-r"]).arg(requirements);
        run_to_end(&mut pip, INSTALL_WITHIN, hint);
        fs::write(place.join("installed"), REQUIREMENTS).unwrap();
    }
    python
}

/// A directory from which Node finds wampy.
fn modules() -> PathBuf {
    let place = place("node");
    if !is_installed(&place, PACKAGE) {
        fs::write(place.join("package.json"), PACKAGE).unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]);
        npm.current_dir(&place);
        run_to_end(
            &mut npm,
            INSTALL_WITHIN,
            "Node 20 or newer with npm is needed, and its registry",
        );
        fs::write(place.join("installed"), PACKAGE).unwrap();
    }
    place
}

fn address(at: &At) -> String {
    match at {
        At::Tcp(address) | At::Tls(address, _) | At::Behind(address, _) => address.to_string(),
        At::Unix(path) => path.display().to_string(),
    }
}

fn web(doors: &Doors) -> String {
    format!("ws://{}/ws", address(&doors.web))
}

fn raw(doors: &Doors) -> String {
    format!("rs://{}", address(&doors.raw))
}

/// Each serializer with itself and with the next.
fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let names = Serializer::ALL.map(Serializer::name);
    let same = names.into_iter().map(|name| (name, name));
    let mixed = [(names[0], names[1]), (names[1], names[2]), (names[2], names[0])];
    same.chain(mixed)
}

/// Runs a client with the two sides on one node and on two.
fn both(name: &str, client: impl Fn(&Doors, &Doors) -> usize) -> String {
    // Asked at every pause whether they are there, as in life after half a minute.
    let options = Options::new(Wire::Direct, 2).with("clients.ping_interval", "\"100ms\"");
    let (cluster, doors) = nodes::start(name, options);
    let runs = client(&doors[0], &doors[0]) + client(&doors[0], &doors[1]);
    cluster.finish();
    format!("{runs} runs")
}

fn expect_all_done(said: &str, args: &[&str]) {
    assert_eq!(said.lines().last(), Some("all done"), "{args:?}: {said}");
}

fn autobahn_works_on_one_node_and_across_two(_run: &Run) -> String {
    let python = python();
    both("autobahn", |first, second| {
        let mut runs = 0;
        let (webs, raws) = ([web(first), web(second)], [raw(first), raw(second)]);
        let mixed = [web(first), raw(second)];
        let of_a_kind =
            [&webs, &raws].into_iter().flat_map(|urls| pairs().map(move |names| (urls, names)));
        for (urls, names) in of_a_kind.chain([(&mixed, ("json", "cbor"))]) {
            let args = [REALM, &urls[0], names.0, &urls[1], names.1];
            let mut client = Command::new(&python);
            client.args(["-c", AUTOBAHN]).args(args);
            let said = run_to_end(&mut client, CLIENT_WITHIN, &format!("autobahn {args:?}"));
            expect_all_done(&said, &args);
            runs += 1;
        }
        runs
    })
}

fn wampy_works_on_one_node_and_across_two(_run: &Run) -> String {
    let place = modules();
    fs::write(place.join("client.js"), WAMPY).unwrap();
    both("wampy", |first, second| {
        let mut runs = 0;
        for names in pairs() {
            let args = [REALM, &web(first), names.0, &web(second), names.1];
            let mut client = Command::new("node");
            client.arg("client.js").args(args).current_dir(&place);
            let said = run_to_end(&mut client, CLIENT_WITHIN, &format!("wampy {args:?}"));
            expect_all_done(&said, &args);
            runs += 1;
        }
        runs
    })
}
