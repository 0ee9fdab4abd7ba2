//! Runs scenarios one after another on clusters that they share, and keeps what they found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::results::{Row, Table, Verdict};
use weald_tests::harness::traffic;

/// Scenarios asked for, and results so far.
pub(crate) struct Run {
    wanted: Vec<String>,
    list: bool,
    /// Whether the long forms are run.
    pub(crate) full: bool,
    table: Table,
    start: Instant,
}

/// A line of the plan.
pub(crate) struct Plan {
    pub(crate) id: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) target: &'static str,
}

/// What a scenario found; a panic is a failure.
pub(crate) enum Found {
    Figures(String),
    Skipped(String),
}

impl From<String> for Found {
    fn from(figures: String) -> Self {
        Self::Figures(figures)
    }
}

impl Run {
    pub(crate) fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        // Test runners pass flags of their own.
        let wanted = args.iter().filter(|a| !a.starts_with('-')).cloned().collect();
        let list = args.iter().any(|a| a == "--list");
        let full = std::env::var_os("WEALD_CLUSTER_FULL").is_some();
        Self { wanted, list, full, table: Table::default(), start: Instant::now() }
    }

    pub(crate) fn is_listing(&self) -> bool {
        self.list
    }

    /// The short or the long form of a figure.
    pub(crate) fn form<T>(&self, short: T, full: T) -> T {
        if self.full { full } else { short }
    }

    fn wants(&self, id: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|w| w.eq_ignore_ascii_case(id))
    }

    /// Runs a scenario that makes its own cluster.
    pub(crate) fn alone(&mut self, plan: &Plan, scenario: impl FnOnce(&Self) -> Found) {
        if !self.wants(plan.id) {
            return;
        }
        let start = Instant::now();
        eprintln!("== {}: {}", plan.id, plan.fault);
        let found = catch_unwind(AssertUnwindSafe(|| scenario(self)));
        self.found(plan, start, found);
    }

    fn found(&mut self, plan: &Plan, start: Instant, found: std::thread::Result<Found>) -> bool {
        let (figures, verdict) = match found {
            Ok(Found::Figures(figures)) => (figures, Verdict::Good),
            Ok(Found::Skipped(why)) => (String::new(), Verdict::Skipped(why)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                (String::new(), Verdict::Failed(text.unwrap_or_default()))
            }
        };
        let good = !matches!(verdict, Verdict::Failed(_));
        let shown: String = format!("{verdict:?}").chars().take(2000).collect();
        eprintln!("   {}: {figures} {shown} after {:.1?}", plan.id, start.elapsed());
        let [id, fault, target] = [plan.id, plan.fault, plan.target].map(ToOwned::to_owned);
        self.table.0.push(Row { id, fault, figures, target, verdict });
        good
    }

    /// Prints the table.
    pub(crate) fn report(self) -> ExitCode {
        let form = if self.full { "full" } else { "short" };
        println!("\n{}\n{form} form, {:.0?} in all", self.table, self.start.elapsed());
        let failed = self.table.0.iter().any(|row| matches!(row.verdict, Verdict::Failed(_)));
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Scenarios that share a cluster. One that fails costs the cluster; the next begins with a new one.
pub(crate) struct Stage<'a> {
    pub(crate) run: &'a mut Run,
    name: &'static str,
    options: Options,
    cluster: Option<Cluster>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(run: &'a mut Run, name: &'static str, options: Options) -> Self {
        Self { run, name, options, cluster: None }
    }

    /// Runs a scenario on the cluster, all of whose nodes run and see each other.
    pub(crate) fn scenario(
        &mut self,
        plan: &Plan,
        scenario: impl FnOnce(&mut Cluster, &Run) -> Found,
    ) {
        if !self.run.wants(plan.id) {
            return;
        }
        let start = Instant::now();
        eprintln!("== {}: {}", plan.id, plan.fault);
        let (slot, run) = (&mut self.cluster, &*self.run);
        let found = catch_unwind(AssertUnwindSafe(|| {
            let cluster =
                slot.get_or_insert_with(|| Cluster::start(self.name, self.options.clone()));
            cluster.mend();
            traffic::declare(cluster);
            scenario(cluster, run)
        }));
        if !self.run.found(plan, start, found)
            && let Some(mut cluster) = self.cluster.take()
        {
            cluster.keep();
        }
    }

    /// Ends the cluster; a clean end is a part of the test.
    pub(crate) fn end(mut self) {
        let Some(cluster) = self.cluster.take() else { return };
        let plan = Plan { id: "end", fault: "SIGTERM for all", target: "clean end, no panic" };
        let (start, name) = (Instant::now(), self.name);
        let found = catch_unwind(AssertUnwindSafe(|| {
            cluster.finish();
            Found::Figures(format!("cluster of {name}"))
        }));
        self.run.found(&plan, start, found);
    }
}

/// Fails when a time is over its target.
pub(crate) fn within(what: &str, time: Duration, target: Duration) {
    assert!(time <= target, "{what} took {time:.1?}, more than {target:?}");
}
