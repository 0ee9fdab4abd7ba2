//! Reads, writes, and comparisons of what nodes hold.

use super::{Cluster, REQUEST_WITHIN};
use crate::harness::wait::{pause, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use weald_client::Error;

/// Pause between two comparisons of all data.
const COMPARE_EVERY: Duration = Duration::from_millis(100);
/// Time for a node that came back to be let in.
const SERVE_WITHIN: Duration = Duration::from_secs(60);

/// What a table holds: the values of each key.
pub type Content = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

impl Cluster {
    /// Writes a key.
    ///
    /// # Panics
    /// When that fails.
    pub fn put(&self, node: usize, table: &str, key: &str, value: &str) {
        let client = &self.places[node].client;
        self.write(node, key, || client.put(table, key, value).into_future());
    }

    /// Deletes a key, whatever it holds.
    ///
    /// # Panics
    /// When that fails.
    pub fn delete(&self, node: usize, table: &str, key: &str) {
        let client = &self.places[node].client;
        self.write(node, key, || client.delete(table, key).into_future());
    }

    /// Does a write; one that a node refuses because of where it stands (it is fenced still, or the others have not noticed
    /// yet that its predecessor is dead) is made again.
    ///
    /// # Panics
    /// When it fails otherwise.
    pub fn write<T, F: Future<Output = Result<T, Error>>>(
        &self,
        node: usize,
        what: &str,
        make: impl Fn() -> F,
    ) -> T {
        wait_until(SERVE_WITHIN, &format!("n{node} to take writes"), || {
            match self.block(async { make().await }) {
                Ok(done) => Ok(done),
                Err(Error::NotServing(why)) => Err(why),
                Err(e) => panic!("write {what} on n{node}: {e}"),
            }
        })
    }

    /// The values of a key.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn get(&self, node: usize, table: &str, key: &str) -> BTreeSet<String> {
        let got = self.block(self.places[node].client.get(table, key));
        let values = got.unwrap_or_else(|e| panic!("get {key} on n{node}: {e}")).values;
        values.into_iter().map(|v| String::from_utf8_lossy(&v).into_owned()).collect()
    }

    /// Waits until a node has exactly this value of a key; how long that took.
    ///
    /// # Panics
    /// When it does not get it in time.
    pub fn wait_value(
        &self,
        node: usize,
        table: &str,
        key: &str,
        value: &str,
        deadline: Duration,
    ) -> Duration {
        let start = Instant::now();
        wait_until(deadline, &format!("{key} to be {value} on n{node}"), || {
            match self.block(self.places[node].client.get(table, key)) {
                Ok(got) if got.values == [value.as_bytes()] => Ok(start.elapsed()),
                Ok(got) => Err(format!("{:?}", got.values)),
                Err(e) => Err(e.to_string()),
            }
        })
    }

    /// Waits until all running nodes hold the same in these tables, also where they cannot ask each other; how long it took.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_same_content(&self, tables: &[&str], deadline: Duration) -> Duration {
        let start = Instant::now();
        wait_until(deadline, "all nodes to hold the same", || {
            match self.unequal_content(tables, "") {
                None => Ok(start.elapsed()),
                Some(what) => Err(what),
            }
        })
    }

    /// What a node holds in a table, below a prefix.
    ///
    /// # Errors
    /// What it said instead.
    pub fn content(&self, node: usize, table: &str, prefix: &str) -> Result<Content, String> {
        let client = self.places[node].client.clone();
        self.block(async {
            let mut content = Content::new();
            let mut scan = client.scan(table).prefix(prefix).page_size(1000);
            while let Some(item) = scan.next().await {
                let item = item.map_err(|e| e.to_string())?;
                content.insert(item.key, item.values.into_iter().collect());
            }
            Ok(content)
        })
    }

    /// Waits until all running nodes hold the same in these tables, and find no difference among themselves; how long it took.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_converged(&self, tables: &[&str], deadline: Duration) -> Duration {
        self.wait_converged_below(tables, "", deadline)
    }

    /// The same, where contents are looked at below a prefix only; digests are of everything.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_converged_below(
        &self,
        tables: &[&str],
        prefix: &str,
        deadline: Duration,
    ) -> Duration {
        let start = Instant::now();
        let end = start + deadline;
        loop {
            match self.difference(tables, prefix) {
                None => return start.elapsed(),
                Some(what) => {
                    assert!(Instant::now() < end, "not converged after {deadline:?}: {what}");
                }
            }
            pause(COMPARE_EVERY);
        }
    }

    /// What differs between running nodes, if anything.
    fn difference(&self, tables: &[&str], prefix: &str) -> Option<String> {
        let running = self.running();
        let (&first, others) = running.split_first()?;
        for &other in others {
            let name = Self::node_name(other);
            match self.block(self.places[first].client.aae_diff(&name, REQUEST_WITHIN)) {
                Ok(diff) if diff.equal => {}
                Ok(diff) => {
                    return Some(format!("n{first} and n{other} differ: {:?}", diff.first));
                }
                Err(e) => return Some(format!("n{first} cannot compare with n{other}: {e}")),
            }
        }
        self.unequal_content(tables, prefix)
    }

    fn unequal_content(&self, tables: &[&str], prefix: &str) -> Option<String> {
        let running = self.running();
        let (&first, others) = running.split_first()?;
        tables.iter().find_map(|table| {
            let content = |node| self.content(node, table, prefix);
            let here = match content(first) {
                Ok(here) => here,
                Err(e) => return Some(format!("n{first}: {e}")),
            };
            others.iter().find_map(|&other| match content(other) {
                Ok(there) if there == here => None,
                Ok(there) => {
                    Some(format!("{table}: n{first}, n{other}: {}", unequal(&here, &there)))
                }
                Err(e) => Some(format!("n{other}: {e}")),
            })
        })
    }
}

fn unequal(here: &Content, there: &Content) -> String {
    let keys: BTreeSet<_> = here.keys().chain(there.keys()).collect();
    let differ: Vec<_> = keys.into_iter().filter(|k| here.get(*k) != there.get(*k)).collect();
    let show = |values: Option<&BTreeSet<Vec<u8>>>| {
        let text = |v: &Vec<u8>| String::from_utf8_lossy(v).into_owned();
        values.map(|values| values.iter().map(text).collect::<Vec<_>>())
    };
    let some: Vec<_> = differ
        .iter()
        .take(5)
        .map(|k| {
            let key = String::from_utf8_lossy(k);
            format!("{key}: {:?} and {:?}", show(here.get(*k)), show(there.get(*k)))
        })
        .collect();
    format!("{} of {} keys: {some:?}", differ.len(), here.len().max(there.len()))
}
