//! Space: maps that grow under readers, maps that may not grow, disks that are full.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use weald_storage::{CheckVerdict, Space, Store, StoreConfig, WriteError, check_env};

use crate::support::{
    Short, assert_tree_is_sound, config, delete_op, fast_dir, key, open, put_op, table,
};

const MIB: u64 = 1024 * 1024;

#[test]
fn map_grows_from_8_to_over_100_mib_under_readers() {
    let dir = fast_dir();
    let store = open(dir.path(), StoreConfig { map_size: 8 * MIB, ..config(1) });
    let t = table("t");
    store.put(&t, &key("first"), b"here");
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, stop, t) = (store.clone(), Arc::clone(&stop), t.clone());
            std::thread::spawn(move || {
                let mut reads = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(store.value(&t, &key("first")).unwrap(), b"here");
                    let scan = weald_storage::Scan {
                        limit_items: 20,
                        ..weald_storage::Scan::new(t.clone())
                    };
                    assert!(!store.scan(&scan, 0).unwrap().items.is_empty());
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let value = vec![7; 64 * 1024];
    for batch in 0..50 {
        let ops = (0..33).map(|n| put_op(&t, &key(format!("k{batch}-{n}")), &value)).collect();
        for outcome in store.batch(0, ops) {
            outcome.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    let stats = store.stats().partitions.remove(0);
    assert!(stats.used_bytes > 100 * MIB && stats.map_bytes >= 128 * MIB, "{stats:?}");
    assert!(stats.resizes >= 4 && !stats.full);
    assert!(stats.used_bytes * 4 <= stats.map_bytes * 3 + 16 * MIB);
    store.close().unwrap();
    // The grown size is taken over, so the next start need not grow again.
    let store = open(dir.path(), StoreConfig { map_size: 8 * MIB, ..config(1) });
    assert!(store.stats().partitions[0].map_bytes >= 128 * MIB);
}

#[test]
fn batch_larger_than_the_map_grows_it_as_often_as_needed() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let t = table("t");
    let ops = (0..120).map(|n| put_op(&t, &key(format!("k{n}")), &vec![7; 100_000])).collect();
    for outcome in store.batch(0, ops) {
        outcome.unwrap();
    }
    let stats = store.stats().partitions.remove(0);
    assert!(stats.used_bytes > 12_000_000 && stats.commits == 1, "{stats:?}");
    assert_tree_is_sound(&store);
}

/// Writes until the store says that it is full; the keys that are in.
fn fill(store: &Store, from: u32, bytes: usize) -> (Vec<u32>, WriteError) {
    let t = table("t");
    let mut there = Vec::new();
    for n in from.. {
        let outcomes = store.batch(0, vec![put_op(&t, &key(n.to_be_bytes()), &vec![1; bytes])]);
        match outcomes.into_iter().next().unwrap() {
            Ok(_) => there.push(n),
            Err(error) => return (there, error),
        }
        assert!(n < 100_000, "it never became full");
    }
    unreachable!("the numbers do not end")
}

#[test]
fn full_map_refuses_writes_but_reads_and_deletes_go_on() {
    let dir = fast_dir();
    let limited = StoreConfig { map_size: MIB, map_size_max: 4 * MIB, ..config(1) };
    let store = open(dir.path(), limited.clone());
    let t = table("t");
    for (round, bytes) in [(0, 3_000), (1, 100_000), (2, 200)] {
        let (there, error) = fill(&store, round * 1_000_000 % 90_000, bytes);
        assert!(matches!(error, WriteError::StorageFull { .. }), "{error}");
        assert!(store.stats().partitions[0].full);
        assert!(there.len() > 5, "{round}: {}", there.len());
        // A batch may hold both: the delete passes, the write does not.
        let outcomes = store.batch(
            0,
            vec![
                put_op(&t, &key("new"), &vec![1; bytes]),
                delete_op(&t, &key(there[0].to_be_bytes())),
            ],
        );
        assert!(matches!(outcomes[0], Err(WriteError::StorageFull { .. })), "{:?}", outcomes[0]);
        assert!(outcomes[1].is_ok(), "{:?}", outcomes[1]);
        assert_eq!(store.value(&t, &key(there[1].to_be_bytes())).unwrap(), vec![1; bytes]);
        assert_tree_is_sound(&store);
        // Deleting in large and small batches always works, and makes room.
        for chunk in there[1..].chunks(40) {
            let ops = chunk.iter().map(|n| delete_op(&t, &key(n.to_be_bytes()))).collect();
            for outcome in store.batch(0, ops) {
                outcome.unwrap();
            }
        }
        let used = |store: &Store| store.stats().partitions[0].used_bytes;
        if bytes > 1_000 {
            store.put(&t, &key("new"), &vec![2; bytes.min(4_000)]);
            assert!(!store.stats().partitions[0].full);
        } else {
            // Tombstones of small values take nearly as much; but deleting never takes more.
            assert!(used(&store) < limited.map_size_max - 256 * 1024, "{}", used(&store));
        }
    }
    let there = [50_000_u32, 50_001];
    for n in there {
        store.batch(0, vec![put_op(&t, &key(n.to_be_bytes()), b"small")]);
    }
    let there = there.iter().filter(|n| store.value(&t, &key(n.to_be_bytes())).is_some());
    let there: Vec<u32> = there.copied().collect();
    store.close().unwrap();
    // The limit is raised: writing goes on at once.
    let store = open(dir.path(), StoreConfig { map_size_max: 64 * MIB, ..limited });
    for n in 0..400_u32 {
        store.put(&t, &key((60_000 + n).to_be_bytes()), &vec![3; 3_000]);
    }
    assert!(there.iter().all(|n| store.value(&t, &key(n.to_be_bytes())).is_some()));
    assert_tree_is_sound(&store);
}

/// A small file system in memory, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, when this machine does not let us.
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(out) if out.status.success() => Some(Self(dir)),
            Ok(out) => {
                println!("no small disk: {}", String::from_utf8_lossy(&out.stderr));
                None
            }
            Err(error) => {
                println!("no small disk: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

#[test]
fn full_disk_refuses_writes_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount(12 * MIB) else { return };
    let store = open(disk.path(), StoreConfig { map_size: 64 * MIB, ..config(1) });
    let t = table("t");
    // Something else takes part of the disk, and gives it back later.
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 4 * 1024 * 1024]).unwrap();
    let (there, error) = fill(&store, 0, 20_000);
    let WriteError::StorageFull { cause, .. } = &error else { panic!("{error}") };
    println!("after {} writes: {cause}", there.len());
    assert!(there.len() > 100);
    let stats = store.stats().partitions.remove(0);
    assert!(stats.full && stats.stopped.is_none(), "{stats:?}");
    for n in &there {
        assert_eq!(store.value(&t, &key(n.to_be_bytes())).unwrap(), vec![1; 20_000]);
    }
    let seq = store.partition(0).last_seq(Space::Durable);
    for n in 0..5 {
        let outcomes = store.batch(0, vec![put_op(&t, &key(format!("big{n}")), &vec![1; 900_000])]);
        assert!(matches!(outcomes[0], Err(WriteError::StorageFull { .. })), "{:?}", outcomes[0]);
    }
    assert_eq!(store.partition(0).last_seq(Space::Durable), seq);
    std::fs::remove_file(&ballast).unwrap();
    store.put(&t, &key("again"), &[1; 20_000]);
    assert!(!store.stats().partitions[0].full);
    assert_tree_is_sound(&store);
    store.close().unwrap();
    let verdict = check_env(&disk.path().join("partition-0"));
    assert!(matches!(verdict, CheckVerdict::Sound { .. }), "{verdict:?}");
    let store = open(disk.path(), StoreConfig { map_size: 64 * MIB, ..config(1) });
    assert_eq!(store.value(&t, &key("again")).unwrap(), [1; 20_000]);
}
