//! What must be in a directory after a cut.
//!
//! # Source
//! Each partition commits whole batches in order. So a partition must look exactly as after some batch, and with full
//! durability no earlier one than the last that was acknowledged; with relaxed durability the one before may be it.

use super::plan;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The live keys of a partition with their values.
pub type State = BTreeMap<String, String>;

/// Names a write, as text: partition, node, incarnation, counter. Partitions count for themselves.
pub type DotText = String;

/// One acknowledged write, as the writer prints it: `ACK {...}`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Ack {
    /// Partition.
    pub partition: u16,
    /// Batch, from 0, over all boots.
    pub batch: u64,
    /// Position in the batch.
    pub op: usize,
    /// The dot it was given.
    pub dot: DotText,
}

impl Ack {
    /// Reads what the writer printed; none when the text is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text.strip_prefix("ACK ")?).ok()
    }
}

/// What the inspector finds in a directory, and what it did there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Findings {
    /// What the boot reported.
    pub boot: Vec<String>,
    /// Keys and values, per partition.
    pub states: Vec<State>,
    /// Buckets whose digest is not that of their objects.
    pub tree_mismatches: u64,
    /// Dots of new writes.
    pub new_dots: Vec<DotText>,
}

/// What is wrong with a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be opened.
    Unusable(String),
    /// Acknowledged batches are missing, so many.
    Lost(u64),
    /// A partition looks as it never did.
    Mangled(u16),
    /// A hash tree does not fit its objects.
    Tree(u64),
    /// A dot names two writes.
    DotReused(DotText),
}

/// All batches of a run, and the dots they got.
#[derive(Debug)]
pub struct Truth {
    /// Per partition, the state after each batch; the first is the empty one.
    after: Vec<Vec<State>>,
    acked: usize,
    dots: BTreeMap<DotText, (u16, u64, usize)>,
}

impl Truth {
    /// The truth about a run. Up to `beyond` batches after the last acknowledged one of a partition may have happened, too.
    ///
    /// # Errors
    /// A dot that was given twice within the run itself.
    pub fn new(seed: u64, acks: &[Ack], beyond: u64) -> Result<Self> {
        let mut after = Vec::new();
        let mut acked = 0;
        for partition in 0..plan::PARTITIONS {
            let keys = plan::keys(partition)?;
            let batches = acks.iter().filter(|a| a.partition == partition).map(|a| a.batch + 1);
            let batches = batches.max().unwrap_or(0);
            acked += usize::try_from(batches)?;
            let mut states = vec![State::new()];
            for number in 0..batches + beyond {
                let mut state = states.last().cloned().unwrap_or_default();
                plan::apply(&plan::batch(seed, partition, number, &keys), &mut state);
                states.push(state);
            }
            after.push(states);
        }
        let mut dots = BTreeMap::new();
        for ack in acks {
            let write = (ack.partition, ack.batch, ack.op);
            if let Some(other) = dots.insert(ack.dot.clone(), write) {
                bail!("dot {} was given to {other:?} and to {write:?}", ack.dot);
            }
        }
        Ok(Self { after, acked, dots })
    }

    /// Batches acknowledged, over all partitions.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.acked
    }

    /// What is wrong with a directory after a cut before which `acked` was acknowledged. With `may_lose` batches per
    /// partition allowed to be missing, it also says how many are.
    ///
    /// # Errors
    /// Findings that do not fit the run.
    pub fn judge(
        &self,
        acked: &[Ack],
        findings: &Findings,
        may_lose: u64,
    ) -> Result<(Vec<Fault>, u64)> {
        let mut faults = Vec::new();
        let mut missing = 0;
        let mut seen = BTreeMap::new();
        for (partition, states) in (0..).zip(&self.after) {
            let found = findings.states.get(usize::from(partition)).context("a partition")?;
            let last = acked.iter().filter(|a| a.partition == partition).map(|a| a.batch + 1).max();
            let last = last.unwrap_or(0);
            // Later states first: two batches may leave the same state behind.
            let at = states.iter().rposition(|state| state == found);
            let at = at.map(|at| at as u64);
            seen.insert(partition, last.max(at.unwrap_or(0)));
            match at {
                None => faults.push(Fault::Mangled(partition)),
                Some(at) if at + may_lose < last => faults.push(Fault::Lost(last - at)),
                Some(at) => missing += last.saturating_sub(at),
            }
        }
        if findings.tree_mismatches > 0 {
            faults.push(Fault::Tree(findings.tree_mismatches));
        }
        // What somebody may have seen: acknowledged before the cut, or there after it. What came later in the recorded run
        // never happened.
        let is_used = |dot: &&DotText| {
            let write = self.dots.get(*dot);
            write.is_some_and(|(partition, batch, _)| *batch < seen[partition])
        };
        let reused = findings.new_dots.iter().find(is_used);
        faults.extend(reused.map(|dot| Fault::DotReused(dot.clone())));
        Ok((faults, missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(batch: u64) -> Ack {
        Ack { partition: 0, batch, op: 0, dot: format!("0:n:1:{batch}") }
    }

    fn findings(truth: &Truth, at: usize) -> Findings {
        Findings {
            boot: Vec::new(),
            states: vec![truth.after[0][at].clone(), State::new()],
            tree_mismatches: 0,
            new_dots: vec!["0:n:2:1".into()],
        }
    }

    #[test]
    fn lost_mangled_and_reused_are_told_apart() {
        let acks: Vec<Ack> = (0..9).map(ack).collect();
        let truth = Truth::new(3, &acks, 0).unwrap();
        let judge = |findings: &Findings, may| truth.judge(&acks[..6], findings, may).unwrap();
        assert_eq!(judge(&findings(&truth, 6), 0), (vec![], 0));
        assert_eq!(judge(&findings(&truth, 9), 0), (vec![], 0));
        assert_eq!(judge(&findings(&truth, 5), 0), (vec![Fault::Lost(1)], 0));
        assert_eq!(judge(&findings(&truth, 5), 1), (vec![], 1));
        let mut mangled = findings(&truth, 6);
        mangled.states[0].insert("key-00000".into(), "?".into());
        mangled.new_dots.push("0:n:1:4".into());
        let (faults, _) = judge(&mangled, 0);
        assert_eq!(faults, [Fault::Mangled(0), Fault::DotReused("0:n:1:4".into())]);
        assert!(Truth::new(3, &[ack(1), ack(1)], 0).is_err());
    }
}
