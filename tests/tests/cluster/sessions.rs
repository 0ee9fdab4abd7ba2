//! Sessions that go from node to node with their tokens, and writes that wait for other members.

use crate::run::{Found, Plan as Line, Run, Stage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use weald_client::{Client, Concern, Error, Session};
use weald_tests::checkers::causal::{self, Model};
use weald_tests::checkers::history::{self, Entry, Op, Outcome, Recorder};
use weald_tests::checkers::sessions;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::traffic::{SHARED, declare};
use weald_tests::harness::wait::pause;
use weald_tests::harness::wires::Wire;
use weald_tests::seed::Seeded;

const ALL: [usize; 3] = [0, 1, 2];
const SESSIONS: u64 = 6;
const KEYS: usize = 4;
const WITHIN: Duration = Duration::from_secs(2);
/// Time for what must work once the network is whole.
const HEALED: Duration = Duration::from_secs(25);

pub(crate) fn run(run: &mut Run) {
    let options = Options::new(Wire::Namespaces, 3).with("cluster.poll_interval", "\"1s\"");
    let mut stage = Stage::new(run, "sessions", options);
    stage.scenario(
        &Line {
            id: "C1",
            fault: "sessions hop between nodes at each call, links cut at random",
            target: "RYW, MR, MW, WFR and causal per key: 0 violations",
        },
        hop,
    );
    stage.scenario(
        &Line {
            id: "C2",
            fault: "write concern 1, the node killed and its disk wiped at once",
            target: "0 acknowledged lost",
        },
        concern,
    );
    stage.scenario(
        &Line {
            id: "C3",
            fault: "written on A, A cut off, read on B with the session, overwritten there",
            target: "NotCaughtUp by the deadline; waits, and is served, once healed",
        },
        behind,
    );
    stage.end();
}

struct Hopper {
    number: u64,
    clients: Vec<Client>,
    session: Session,
    recorder: Recorder,
    rng: Seeded,
    behind: u64,
}

impl Hopper {
    async fn run(mut self, stop: Arc<AtomicBool>) -> u64 {
        for n in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let client = self.rng.pick(&self.clients).clone();
            self.session = Session::resume(&client, self.session.token());
            let key = format!("c1/{}", self.rng.below(KEYS));
            if !self.step(&key, n).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        self.behind
    }

    async fn step(&mut self, key: &str, n: u64) -> bool {
        let (ts, session, key) = (self.recorder.now(), self.number, key.to_owned());
        let entry = Entry {
            ts,
            took: 0,
            session,
            op: Op::Get,
            key,
            ctx: None,
            value: Vec::new(),
            outcome: Outcome::Ok,
        };
        let got = match self.session.get_within(SHARED, entry.key.as_str(), WITHIN).await {
            Ok(got) => got,
            Err(e) => {
                self.behind += u64::from(matches!(e, Error::NotCaughtUp(_)));
                return false;
            }
        };
        let text = |v: &Vec<u8>| String::from_utf8_lossy(v).into_owned();
        let values: Vec<String> = got.values.iter().map(text).collect();
        self.recorder.ended(Entry { value: values.clone(), ..entry.clone() });
        if self.rng.chance(50) {
            return true;
        }
        // Elsewhere again, so that the write meets a node that may lack what was read.
        let client = self.rng.pick(&self.clients).clone();
        self.session = Session::resume(&client, self.session.token());
        let (ts, value) = (self.recorder.now(), format!("{session}-{n}"));
        let put = self.session.put(SHARED, entry.key.as_str(), value.as_str());
        let (outcome, done) = match put.context(&got.context).deadline(WITHIN).await {
            Ok(_) => (Outcome::Ok, true),
            Err(Error::TimedOut(_) | Error::Internal(_)) => (Outcome::Info, false),
            Err(e) => {
                self.behind += u64::from(matches!(e, Error::NotCaughtUp(_)));
                (Outcome::Fail, false)
            }
        };
        self.recorder.ended(Entry {
            ts,
            op: Op::Put,
            ctx: Some(values),
            value: vec![value],
            outcome,
            ..entry
        });
        done
    }
}

fn hop(cluster: &mut Cluster, run: &Run) -> Found {
    let mut rng = Seeded::announced("hop");
    let (recorder, stop) = (Recorder::new(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<Client> = ALL.iter().map(|&node| cluster.client(node)).collect();
    let tasks: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let hopper = Hopper {
                number,
                clients: clients.clone(),
                session: clients[0].session(),
                recorder: recorder.clone(),
                rng: Seeded::new(rng.any()),
                behind: 0,
            };
            cluster.runtime().spawn(hopper.run(Arc::clone(&stop)))
        })
        .collect();
    let (start, time) =
        (Instant::now(), run.form(Duration::from_secs(10), Duration::from_secs(120)));
    while start.elapsed() < time {
        let (a, b) = (rng.below(3), rng.below(3));
        if a != b {
            cluster.wires().cut(a, b);
            pause(Duration::from_millis(500));
            cluster.wires().heal();
        }
        pause(Duration::from_millis(500));
    }
    stop.store(true, Ordering::Relaxed);
    let behind: u64 = tasks.into_iter().map(|task| cluster.block(task).unwrap()).sum();
    cluster.wait_converged(&[SHARED], Duration::from_secs(60));
    let entries = recorder.entries();
    let file = cluster.dir().join("history-c1.jsonl");
    history::write(&file, &entries).unwrap();
    let broken = sessions::check(&entries);
    assert!(broken.is_empty(), "{} broken: {:?}; {}", broken.len(), broken.first(), file.display());
    let mut by_key: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    for entry in &entries {
        by_key.entry(&entry.key).or_default().push(entry.clone());
    }
    for (key, entries) in &by_key {
        let patterns = causal::check(entries, Model::Causal);
        assert!(patterns.is_empty(), "{key}: {:?}; {}", patterns.first(), file.display());
    }
    // Order between keys is more than sessions promise; told, not demanded.
    let between = causal::check(&entries, Model::Causal).len();
    let (reads, writes) = (
        entries.iter().filter(|e| e.is_read()).count(),
        entries.iter().filter(|e| e.is_write()).count(),
    );
    assert!(
        reads > 100 && writes > 50,
        "{reads} reads, {writes} writes: too few to prove anything"
    );
    format!(
        "{reads} reads, {writes} writes of {SESSIONS} sessions, {behind} times NotCaughtUp; 0 violations; between keys {between}"
    )
    .into()
}

fn concern(cluster: &mut Cluster, run: &Run) -> Found {
    let (mut acked, mut rounds) = (0, 0);
    for round in 0..run.form(2, 20) {
        let client = cluster.client(0);
        let keys: Vec<String> = (0..100).map(|n| format!("c2/{round}/{n}")).collect();
        let kept: Vec<&String> = keys
            .iter()
            .filter(|key| {
                let put = client.put(SHARED, key.as_str(), "x").concern(Concern::Members(1));
                cluster.block(async { put.await }).is_ok()
            })
            .collect();
        // At once: nothing but the concern has brought them anywhere.
        cluster.kill(0);
        cluster.wipe(0);
        cluster.start_node(0);
        declare(cluster);
        cluster.wait_formed(Duration::from_secs(60));
        cluster.wait_converged(&[SHARED], Duration::from_secs(60));
        let found = cluster.content(0, SHARED, &format!("c2/{round}/")).unwrap();
        let lost: Vec<_> = kept.iter().filter(|key| !found.contains_key(key.as_bytes())).collect();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), kept.len());
        assert!(kept.len() > 90, "only {} of 100 were acknowledged", kept.len());
        acked += kept.len();
        rounds += 1;
    }
    format!("{acked} acked in {rounds} rounds, 0 lost").into()
}

/// What a node that lacks what a session has seen says until `deadline`, and after what time. Anything but an error would be
/// a stale answer.
fn refused_until(
    cluster: &Cluster,
    deadline: Duration,
    ask: impl AsyncFn(Duration) -> Result<(), Error>,
) -> Duration {
    // A machine that is busy elsewhere may bring the node's answer too late for the client; then it is asked again.
    for _ in 0..5 {
        let start = Instant::now();
        match cluster.block(ask(deadline)) {
            Err(Error::NotCaughtUp(_)) => return start.elapsed(),
            Err(Error::TimedOut(_)) => {}
            other => panic!("expected NotCaughtUp, got {other:?}"),
        }
    }
    panic!("no answer within {deadline:?}, five times");
}

fn behind(cluster: &mut Cluster, _run: &Run) -> Found {
    let (here, there) = (cluster.client(0), cluster.client(1));
    cluster.put(0, SHARED, "c3", "old");
    cluster.wait_value(1, SHARED, "c3", "old", Duration::from_secs(30));
    cluster.wires().split(&[0], &[1, 2]);
    let session = here.session();
    cluster.block(async {
        let seen = session.get(SHARED, "c3").await.unwrap();
        session.put(SHARED, "c3", "new").context(&seen.context).await.unwrap();
    });
    // To go on elsewhere is to take the token there, and nothing else.
    let token = session.token();
    let elsewhere = || Session::resume(&there, token.clone());
    let read = refused_until(cluster, WITHIN, async |within| {
        elsewhere().get_within(SHARED, "c3", within).await.map(drop)
    });
    let write = refused_until(cluster, WITHIN, async |within| {
        elsewhere().put(SHARED, "c3-after", "x").deadline(within).await.map(drop)
    });
    assert!(cluster.get(1, SHARED, "c3-after").is_empty(), "a refused write was made");
    // Neither is a context of there: nothing may be written over what is not here.
    let newer = cluster.block(here.get(SHARED, "c3")).unwrap();
    let over = there.put(SHARED, "c3", "newer").context(&newer.context);
    let refused = cluster.block(async move { over.await.unwrap_err() });
    assert!(matches!(refused, Error::NotCaughtUp(_)), "{refused}");
    // Nobody else is held up: without the token the old state is served.
    assert_eq!(cluster.get(1, SHARED, "c3").into_iter().collect::<Vec<_>>(), ["old"]);
    // One that has time is served once the network is whole.
    let session = elsewhere();
    let waiting = cluster.runtime().spawn(async move {
        loop {
            match session.get_within(SHARED, "c3", HEALED).await {
                Err(Error::NotCaughtUp(_)) => {}
                other => break other,
            }
        }
    });
    pause(Duration::from_millis(500));
    assert!(!waiting.is_finished(), "served, or refused, while it is cut off");
    cluster.wires().heal();
    let start = Instant::now();
    let got = cluster.block(async { tokio::time::timeout(3 * HEALED, waiting).await });
    let got = got.expect("it is served once the cut is over").unwrap().unwrap();
    let served = start.elapsed();
    assert_eq!(got.values, [b"new"]);
    cluster.block(async {
        let session = elsewhere();
        session.put(SHARED, "c3-after", "x").deadline(HEALED).await.unwrap();
        there.put(SHARED, "c3", "newer").context(&newer.context).await.unwrap();
    });
    assert_eq!(cluster.get(1, SHARED, "c3").into_iter().collect::<Vec<_>>(), ["newer"]);
    format!(
        "read refused after {read:.1?}, write after {write:.1?}, of {WITHIN:.0?} each; a read that waits is served {served:.1?} after healing"
    )
    .into()
}
