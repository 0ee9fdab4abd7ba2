//! Runs cases, many at a time, and tells which failed in which variants.

use crate::net::{Net, Variant};
use crate::nodes::Nodes;
use std::any::type_name;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use weald_tests::wamp::{Serializer, Transport};

/// Cases at the same time: they wait most of the time.
const WORKERS: usize = 8;

/// In which variants a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Each transport and serializer, mixed ones, too, on one node and across two.
    Everything,
    /// The same on one node.
    OneNode,
    /// One transport and serializer, on one node and across two.
    Nodes,
    /// Each serializer, over RawSocket, on one node.
    RawSocket,
    /// Each serializer, over WebSocket, on one node.
    WebSocket,
    /// One transport and serializer, on one node.
    Once,
}

impl Over {
    fn variants(self) -> Vec<Variant> {
        use Serializer::{Cbor, Json, MsgPack};
        use Transport::{RawSocket, WebSocket};
        let same = |transport| Serializer::ALL.map(|s| [(transport, s); 2]);
        let mixed = [
            [(RawSocket, Json), (WebSocket, Cbor)],
            [(WebSocket, MsgPack), (RawSocket, Json)],
            [(RawSocket, Cbor), (WebSocket, MsgPack)],
        ];
        let one = [(RawSocket, MsgPack); 2];
        let (sides, nodes): (Vec<_>, &[usize]) = match self {
            Self::Everything => {
                ([&same(RawSocket)[..], &same(WebSocket), &mixed].concat(), &[1, 2])
            }
            Self::OneNode => ([&same(RawSocket)[..], &same(WebSocket), &mixed].concat(), &[1]),
            Self::RawSocket => (same(RawSocket).to_vec(), &[1]),
            Self::WebSocket => (same(WebSocket).to_vec(), &[1]),
            Self::Nodes => (vec![one], &[1, 2]),
            Self::Once => (vec![one], &[1]),
        };
        let variant = |nodes, sides| Variant { nodes, sides };
        nodes.iter().flat_map(|&n| sides.iter().map(move |&s| variant(n, s))).collect()
    }
}

type Body = Box<dyn Fn(&mut Net) + Send + Sync>;
type Alone = Box<dyn Fn(&Run) -> String>;

/// Cases asked for, and what became of them.
pub(crate) struct Run {
    wanted: Vec<String>,
    variants: Vec<String>,
    list: bool,
    /// Whether the long forms are run.
    pub(crate) full: bool,
    cases: Vec<(String, Over, Body)>,
    alone: Vec<(String, Alone)>,
}

struct Failure {
    variant: Variant,
    what: String,
    transcript: String,
}

thread_local! {
    /// What the panic of this thread said, and where.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Run {
    pub(crate) fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        // Test runners pass flags of their own.
        let (variants, wanted): (Vec<_>, Vec<_>) =
            args.iter().filter(|a| !a.starts_with('-')).cloned().partition(|a| a.starts_with('@'));
        let variants = variants.iter().map(|v| v[1..].to_owned()).collect();
        let list = args.iter().any(|a| a == "--list");
        let full = std::env::var_os("WEALD_CLUSTER_FULL").is_some();
        Self { wanted, variants, list, full, cases: Vec::new(), alone: Vec::new() }
    }

    pub(crate) const fn is_listing(&self) -> bool {
        self.list
    }

    /// The short or the long form of a figure.
    pub(crate) fn form<T>(&self, short: T, full: T) -> T {
        if self.full { full } else { short }
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|w| name.contains(w.as_str()))
    }

    /// Adds a case of the matrix.
    pub(crate) fn case<F: Fn(&mut Net) + Send + Sync + 'static>(&mut self, over: Over, body: F) {
        let name = short_name(type_name::<F>());
        if self.wants(&name) {
            self.cases.push((name, over, Box::new(body)));
        }
    }

    /// Adds a case that has its own nodes and says what it measured.
    pub(crate) fn alone<F: Fn(&Self) -> String + 'static>(&mut self, body: F) {
        let name = short_name(type_name::<F>());
        if self.wants(&name) {
            self.alone.push((name, Box::new(body)));
        }
    }

    /// Runs everything and prints what failed.
    pub(crate) fn finish(mut self) -> ExitCode {
        let start = Instant::now();
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let text = panic.payload_as_str().unwrap_or("(no text)").to_owned();
            PANIC.with_borrow_mut(|kept| *kept = format!("{place}: {text}"));
        }));
        let nodes = Nodes::from_env();
        let failures = self.matrix(&nodes);
        let stopped = caught(|| nodes.finish(!failures.is_empty()));
        println!("the matrix took {:.1?}", start.elapsed());
        let mut failed = stopped.is_err() || !failures.is_empty();
        if let Err(what) = stopped {
            println!("FAILED  the end of the nodes: {what}");
        }
        for (name, body) in std::mem::take(&mut self.alone) {
            eprintln!("== {name}");
            let start = Instant::now();
            match caught(|| body(&self)) {
                Ok(figures) => println!("good    {name}: {figures} ({:.1?})", start.elapsed()),
                Err(what) => {
                    failed = true;
                    println!("FAILED  {name}: {what} ({:.1?})", start.elapsed());
                }
            }
        }
        report(&failures);
        println!("{:.1?} in all", start.elapsed());
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn matrix(&self, nodes: &Nodes) -> BTreeMap<String, Vec<Failure>> {
        let wants = |variant: &Variant| {
            let name = variant.to_string();
            let named = self.variants.is_empty() || self.variants.iter().any(|v| name.contains(v));
            named && (variant.nodes == 1 || !nodes.is_elsewhere())
        };
        let jobs: Vec<_> = self
            .cases
            .iter()
            .flat_map(|case| case.1.variants().into_iter().filter(&wants).map(move |v| (case, v)))
            .collect();
        let (next, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let times = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&((name, _, body), variant)) = jobs.get(number) else { break };
                        let start = Instant::now();
                        let failure = one(nodes, variant, number, body);
                        times.lock().unwrap().push((start.elapsed(), format!("{name} {variant}")));
                        if let Some(failure) = failure {
                            let mut failures = failures.lock().unwrap();
                            let of_case: &mut Vec<_> = failures.entry(name.clone()).or_default();
                            eprintln!("FAILED  {name} {variant}");
                            of_case.push(failure);
                        }
                    }
                });
            }
        });
        let mut times = times.into_inner().unwrap();
        times.sort();
        let slowest = times.iter().rev().take(5);
        let shown: Vec<_> = slowest.map(|(time, name)| format!("{name} {time:.1?}")).collect();
        println!("{} cases, {} runs; slowest: {}", self.cases.len(), jobs.len(), shown.join(", "));
        failures.into_inner().unwrap()
    }
}

fn one(nodes: &Nodes, variant: Variant, number: usize, body: &Body) -> Option<Failure> {
    // The number of the process: another router may be left over from a run before.
    let tag = format!("r{}n{number}", std::process::id());
    let made = caught(|| Net::new(variant, nodes.doors(variant.nodes), tag));
    let mut net = match made {
        Ok(net) => net,
        Err(what) => return Some(Failure { variant, what, transcript: String::new() }),
    };
    let what = caught(|| body(&mut net)).err()?;
    Some(Failure { variant, what, transcript: net.log.text() })
}

fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|_panic| PANIC.with_borrow(Clone::clone))
}

fn short_name(path: &str) -> String {
    path.split("::").skip(1).collect::<Vec<_>>().join("::")
}

fn report(failures: &BTreeMap<String, Vec<Failure>>) {
    for (name, failures) in failures {
        let Some(first) = failures.first() else { continue };
        println!("\nFAILED  {name} in {}", first.variant);
        println!("{}\n    {}", first.what, first.transcript.replace('\n', "\n    "));
    }
    println!();
    for (name, failures) in failures {
        let variants: Vec<_> = failures.iter().map(|f| f.variant.to_string()).collect();
        println!("FAILED  {name}: {} ({})", variants.len(), variants.join(" "));
    }
    println!("{} cases failed", failures.len());
}

/// A moment in which nothing is expected to happen; only where no answer can show that it does not.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);
