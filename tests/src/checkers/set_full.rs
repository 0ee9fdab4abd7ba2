//! Which elements of a set are lost, and how long the others take to be there for good.
//!
//! # Source
//! The idea of `set-full` of Jepsen's checkers. An element is *known* when its addition is acknowledged, or when it is first
//! read. It is *stable* when no read that began after the last read with it lacks it, *lost* when a read that began after it
//! was known, and after all that had it, lacks it. Additions without an answer may be there or not; those that were refused
//! must not be there, nor anything that nobody added.

use super::history::{Entry, Op, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Smallest.
    pub min: u64,
    /// Half are at most this.
    pub p50: u64,
    /// 95 %.
    pub p95: u64,
    /// 99 %.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

impl Quantiles {
    /// Of any values; all zero without any.
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |percent: usize| {
            let index = (values.len().saturating_sub(1) * percent).div_ceil(100);
            values.get(index).copied().unwrap_or_default()
        };
        Self { min: at(0), p50: at(50), p95: at(95), p99: at(99), max: at(100) }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, p50, p95, p99, max] =
            [self.min, self.p50, self.p95, self.p99, self.max].map(|us| us.div_ceil(1000));
        write!(f, "{min}/{p50}/{p95}/{p99}/{max} ms")
    }
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Elements whose addition was tried.
    pub attempts: usize,
    /// Acknowledged ones.
    pub acknowledged: usize,
    /// There for good.
    pub stable: usize,
    /// Not there any more: must be empty.
    pub lost: Vec<String>,
    /// Read, but added by nobody or only by an addition that was refused: must be empty.
    pub phantom: Vec<String>,
    /// Acknowledged, and no read began afterwards: nothing is known of them.
    pub never_read: Vec<String>,
    /// Stable, but some read that began after they were known did not have them.
    pub stale: usize,
    /// From known to stable.
    pub stable_latency: Quantiles,
    /// From known to lost.
    pub lost_latency: Quantiles,
}

impl Report {
    /// Whether nothing is wrong. An element that was never read is wrong, too: the history ended too early.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.lost.is_empty() && self.phantom.is_empty() && self.never_read.is_empty()
    }
}

#[derive(Debug, Default)]
struct Element {
    known: Option<u64>,
    last_present: Option<u64>,
    last_absent: Option<u64>,
}

impl Element {
    fn know(&mut self, at: u64) {
        self.known = Some(self.known.unwrap_or(at).min(at));
    }
}

/// Judges a history: each `put` adds the element `key=value`, each `scan` reads all.
#[must_use]
pub fn check(history: &[Entry]) -> Report {
    let mut report = Report::default();
    let mut elements: BTreeMap<String, Element> = BTreeMap::new();
    let mut refused: BTreeSet<String> = BTreeSet::new();
    for entry in history.iter().filter(|e| e.op == Op::Put) {
        report.attempts += 1;
        for value in &entry.value {
            let name = format!("{}={value}", entry.key);
            match entry.outcome {
                Outcome::Fail => {
                    refused.insert(name);
                    continue;
                }
                Outcome::Ok => {
                    report.acknowledged += 1;
                    let element = elements.entry(name).or_default();
                    element.know(entry.end());
                }
                Outcome::Info => {
                    elements.entry(name).or_default();
                }
            }
        }
    }
    let mut reads: Vec<_> =
        history.iter().filter(|e| e.op == Op::Scan && e.outcome == Outcome::Ok).collect();
    reads.sort_by_key(|read| read.ts);
    let mut phantom = BTreeSet::new();
    for read in reads {
        let found: BTreeSet<&str> = read.value.iter().map(String::as_str).collect();
        phantom.extend(
            found
                .iter()
                .filter(|name| !elements.contains_key(**name) || refused.contains(**name))
                .map(ToString::to_string),
        );
        for (name, element) in &mut elements {
            if found.contains(name.as_str()) {
                element.know(read.end());
                element.last_present = Some(read.ts);
            } else {
                element.last_absent = Some(read.ts);
            }
        }
    }
    report.phantom = phantom.into_iter().collect();
    judge(elements, &mut report);
    report
}

fn judge(elements: BTreeMap<String, Element>, report: &mut Report) {
    let (mut stable, mut lost) = (Vec::new(), Vec::new());
    for (name, element) in elements {
        // Never acknowledged and never seen: it did not happen.
        let Some(known) = element.known else { continue };
        match (element.last_present, element.last_absent) {
            (Some(present), absent) if absent.is_none_or(|absent| absent < present) => {
                let since = absent.map_or(0, |absent| absent + 1);
                stable.push(since.saturating_sub(known));
                report.stale += usize::from(since > known);
            }
            (present, Some(absent)) if absent > known => {
                lost.push(present.map_or(0, |p| p + 1).saturating_sub(known));
                report.lost.push(name);
            }
            _ => report.never_read.push(name),
        }
    }
    report.stable = stable.len();
    report.stable_latency = Quantiles::of(stable);
    report.lost_latency = Quantiles::of(lost);
}

#[cfg(test)]
mod tests {
    use super::super::history::build::{numbered, put, scan, with};
    use super::*;

    #[test]
    fn elements_that_stay_are_stable_and_late_ones_are_stale() {
        let history = numbered(vec![
            put(1, "a", "1", &[]),
            put(2, "b", "1", &[]),
            scan(&["a=1"]),
            scan(&["a=1", "b=1"]),
        ]);
        let report = check(&history);
        assert!(report.is_good(), "{report:?}");
        assert_eq!((report.acknowledged, report.stable, report.stale), (2, 2, 1));
        // Known at 15, last absent at 20.
        assert_eq!(report.stable_latency.max, 6);
    }

    #[test]
    fn element_that_vanishes_is_lost() {
        let history = numbered(vec![put(1, "a", "1", &[]), scan(&["a=1"]), scan(&[]), scan(&[])]);
        let report = check(&history);
        assert_eq!(report.lost, ["a=1"]);
        assert_eq!(report.lost_latency.max, 6);
        assert!(!report.is_good());
    }

    #[test]
    fn element_without_answer_may_be_missing_but_not_come_and_go() {
        let unknown = || with(put(1, "a", "1", &[]), Outcome::Info);
        assert!(check(&numbered(vec![unknown(), scan(&[])])).is_good());
        assert!(check(&numbered(vec![unknown(), scan(&["a=1"])])).is_good());
        let report = check(&numbered(vec![unknown(), scan(&["a=1"]), scan(&[])]));
        assert_eq!(report.lost, ["a=1"]);
    }

    #[test]
    fn element_that_was_refused_or_that_nobody_added_is_a_phantom() {
        let refused = with(put(1, "a", "1", &[]), Outcome::Fail);
        let report = check(&numbered(vec![refused, scan(&["a=1", "b=2"])]));
        assert_eq!(report.phantom, ["a=1", "b=2"]);
    }

    #[test]
    fn element_that_no_read_could_show_is_never_read() {
        let report = check(&numbered(vec![scan(&[]), put(1, "a", "1", &[])]));
        assert_eq!(report.never_read, ["a=1"]);
        assert!(!report.is_good());
    }

    #[test]
    fn quantiles_of_a_hundred() {
        let quantiles = Quantiles::of((1..=100).rev().collect());
        assert_eq!((quantiles.min, quantiles.p50, quantiles.max), (1, 51, 100));
        assert_eq!((quantiles.p95, quantiles.p99), (96, 100));
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
