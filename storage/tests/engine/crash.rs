//! Being killed at any moment: what was acknowledged is there, everything fits together, and no
//! dot is used again.
//!
//! The child writes in a loop and tells of each acknowledged write on its standard output; the
//! parent kills it in the middle, several times in the same directory, and keeps the account.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::channel;

use weald_storage::{BootEvent, CheckVerdict, Resolvers, Space, Write, check_env};

use crate::support::{
    Short, assert_tree_is_sound, child, config, delete_op, fast_dir, key, open, open_with, put_op,
    table,
};

const ROUNDS: usize = 8;
const ACKS_PER_ROUND: usize = 300;

/// Writes batches for ever; prints `ack <key> <value or -> <actor> <counter> <partition>` for each
/// acknowledged write, and `sent <key> <value or ->` before a batch is handed over.
pub fn write_for_ever(dir: &Path) {
    let store = open(dir, config(2));
    let t = table("t");
    let mut out = std::io::stdout();
    let seed = u64::from(std::process::id());
    for n in 0_u64.. {
        let (tx, rx) = channel();
        for partition in 0..2 {
            let mut writes = Vec::new();
            for slot in 0..6 {
                let k = key(format!("k{}", (n.wrapping_mul(7) + slot * 31) % 97));
                if store.partition_of(&t, &k) != partition {
                    continue;
                }
                let value = format!("{seed}-{n}-{slot}");
                let delete = (n + slot) % 5 == 0;
                let shown = if delete { "-".to_owned() } else { value.clone() };
                writeln!(out, "sent {} {shown}", String::from_utf8_lossy(k.as_bytes())).unwrap();
                let op = if delete { delete_op(&t, &k) } else { put_op(&t, &k, value.as_bytes()) };
                let tx = tx.clone();
                let reply = move |outcome: Result<weald_storage::Written, _>| {
                    tx.send((k, shown, partition, outcome.unwrap().dot.unwrap())).unwrap();
                };
                writes.push(Write { op, reply: Box::new(reply) });
            }
            out.flush().unwrap();
            store.partition(partition).submit(writes, Box::new(|_| {}));
        }
        drop(tx);
        for (k, shown, partition, dot) in rx {
            let k = String::from_utf8_lossy(k.as_bytes()).into_owned();
            writeln!(out, "ack {k} {shown} {} {} {partition}", dot.actor, dot.counter).unwrap();
        }
        out.flush().unwrap();
    }
}

#[test]
fn killed_in_a_commit_loses_no_acknowledged_write_and_reuses_no_dot() {
    let dir = fast_dir();
    let t = table("t");
    // Per key the last acknowledged value and everything sent since.
    let mut acked: BTreeMap<String, String> = BTreeMap::new();
    let mut pending: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut dots = BTreeSet::new();
    let mut incarnations = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut command = child("write", dir.path());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut seen = 0;
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["sent", k, value] => {
                    pending.entry((*k).to_owned()).or_default().push((*value).to_owned());
                }
                ["ack", k, value, actor, counter, partition] => {
                    acked.insert((*k).to_owned(), (*value).to_owned());
                    // What was sent after it is still open; a batch keeps the order of a key.
                    let sent = pending.entry((*k).to_owned()).or_default();
                    let at = sent.iter().position(|sent| sent == value);
                    sent.drain(..=at.unwrap());
                    let dot = (actor.to_string(), counter.to_string(), partition.to_string());
                    assert!(dots.insert(dot), "used twice: {line}");
                    seen += 1;
                }
                _ => {}
            }
            if seen == ACKS_PER_ROUND + round * 17 {
                process.kill().unwrap();
            }
        }
        assert!(!process.wait().unwrap().success());
        assert!(seen >= ACKS_PER_ROUND, "the child ended by itself after {seen}");

        for index in 0..2 {
            let verdict = check_env(&dir.path().join(format!("partition-{index}")));
            assert!(matches!(verdict, CheckVerdict::Sound { .. }), "{verdict:?}");
        }
        let (store, events) = open_with(dir.path(), config(2), Resolvers::default());
        let store = store.unwrap();
        assert!(events.contains(&BootEvent::UncleanStop));
        assert!(incarnations.insert(store.incarnation()), "each life has its own incarnation");
        assert_tree_is_sound(&store);
        for (k, value) in &mut acked {
            let found = store.value(&t, &key(k.as_str()));
            let found = found.map_or_else(|| "-".to_owned(), |v| String::from_utf8(v).unwrap());
            let open = pending.remove(k).unwrap_or_default();
            assert!(found == *value || open.contains(&found), "{k}: {value} acknowledged, {found}");
            // From here on what is there is the truth.
            *value = found;
        }
        let next = store.put(&t, &key("parent"), b"v").dot.unwrap();
        assert_eq!(next.actor, store.actor(Space::Durable));
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
    assert!(dots.len() >= ROUNDS * ACKS_PER_ROUND);
}
