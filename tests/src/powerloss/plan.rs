//! What the recorded writer writes: known in advance, so that a directory can be compared with it.
//!
//! Guarantees: the same seed gives the same batches; each value is unlike every other one.

use super::verdict::State;
use crate::seed::Seeded;
use anyhow::Result;
use weald_storage::{Key, TableName, partition_of};

/// The table that is written to.
pub const TABLE: &str = "power";
/// Partitions of the store; more would only make each image slower to check.
pub const PARTITIONS: u16 = 2;
/// Keys of a partition: few, so that most writes replace something.
const KEYS: usize = 60;
/// Operations in a batch, at most.
const BATCH_OPS_MAX: usize = 12;

/// A write or, without a value, a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedOp {
    /// Key.
    pub key: String,
    /// New value.
    pub value: Option<String>,
}

/// The keys of a partition.
///
/// # Errors
/// None: the names are within the limits of the store.
pub fn keys(partition: u16) -> Result<Vec<String>> {
    let table = TableName::parse(TABLE)?;
    let mut keys = Vec::new();
    for number in 0.. {
        let key = format!("key-{number:05}");
        if partition_of(&table, &Key::new(key.as_bytes())?, PARTITIONS) == partition {
            keys.push(key);
        }
        if keys.len() == KEYS {
            break;
        }
    }
    Ok(keys)
}

/// Batch `number` of a partition. Numbers go on over boots.
#[must_use]
pub fn batch(seed: u64, partition: u16, number: u64, keys: &[String]) -> Vec<PlannedOp> {
    let mixed = seed ^ (u64::from(partition) << 48) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut rng = Seeded::new(mixed);
    let ops = 1 + rng.below(BATCH_OPS_MAX);
    (0..ops)
        .map(|op| {
            let key = rng.pick(keys).clone();
            // Mostly small, sometimes over several pages of the store's file.
            let len = if rng.chance(5) { 3000 + rng.below(9000) } else { rng.below(300) };
            let filler = rng.bytes(len).into_iter().map(|byte| char::from(b'a' + byte % 16));
            let text = format!("{partition}/{number}/{op} ").chars().chain(filler).collect();
            let value = (!rng.chance(8)).then_some(text);
            PlannedOp { key, value }
        })
        .collect()
}

/// Applies a batch to the state of its partition.
pub fn apply(batch: &[PlannedOp], state: &mut State) {
    for op in batch {
        match &op.value {
            Some(value) => state.insert(op.key.clone(), value.clone()),
            None => state.remove(&op.key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_plan_and_partitions_are_apart() {
        let (a, b) = (keys(0).unwrap(), keys(1).unwrap());
        assert!(a.iter().all(|key| !b.contains(key)));
        assert_eq!(batch(5, 0, 9, &a), batch(5, 0, 9, &a));
        assert_ne!(batch(5, 0, 9, &a), batch(5, 0, 10, &a));
    }
}
