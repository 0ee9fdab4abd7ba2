//! Damaged files: found before they are mapped, moved aside, never a wrong value.
//!
//! Each case works on a copy of one sound directory. The check runs in a child, as in a node, so a
//! signal would end the child and count as damage; the tests also say that this does not happen.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use weald_storage::{
    BootEvent, CheckVerdict, NewLife, OnDamage, OpenError, Resolvers, Store, StoreConfig, check_env,
};

use crate::support::{
    Short, assert_tree_is_sound, check, config, delete_op, fast_dir, key, open, open_with, put_op,
    table,
};

const PAGE: u64 = 4096;

/// A directory with one partition and rows of every sort.
fn sound(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let store = open(dir, config(1));
    let t = table("t");
    let value = |n: u32| format!("value-{n}-").repeat(if n.is_multiple_of(40) { 900 } else { 4 });
    let ops = (0..500).map(|n| put_op(&t, &key(format!("k{n:04}")), value(n).as_bytes()));
    assert!(store.batch(0, ops.collect()).iter().all(Result::is_ok));
    let long = (0..20).map(|n| put_op(&t, &key([vec![b'x'; 600], vec![n]].concat()), b"long"));
    store.batch(0, long.collect());
    store.batch(0, (0..50).map(|n| delete_op(&t, &key(format!("k{n:04}")))).collect());
    let ttl = |n: u32| weald_storage::WriteOp::Put {
        table: table("ttl"),
        key: key(format!("k{n}")),
        value: b"v".to_vec(),
        context: None,
        ttl: Some(std::time::Duration::from_secs(9_999_999)),
    };
    store.batch(0, (0..30).map(ttl).collect());
    let all = store.all(&t);
    store.close().unwrap();
    all
}

struct Case {
    dir: tempfile::TempDir,
    data: PathBuf,
    truth: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        let dir = fast_dir();
        let truth = sound(dir.path());
        let data = dir.path().join("partition-0/data.mdb");
        let bytes = fs::read(&data).unwrap();
        Self { dir, data, truth, bytes }
    }

    /// Puts the sound state back, as an unclean stop would leave it.
    fn reset(&self) {
        fs::create_dir_all(self.data.parent().unwrap()).unwrap();
        fs::write(&self.data, &self.bytes).unwrap();
        drop(fs::remove_file(self.dir.path().join("clean")));
    }

    fn file(&self) -> File {
        OpenOptions::new().write(true).open(&self.data).unwrap()
    }

    fn verdict(&self) -> CheckVerdict {
        check_env(self.data.parent().unwrap())
    }

    /// Whatever was damaged: the directory either opens with the whole truth or is refused.
    fn assert_refused_or_true(&self) -> bool {
        match open_with(self.dir.path(), config(1), Resolvers::default()).0 {
            Ok(store) => {
                assert_eq!(store.all(&table("t")), self.truth);
                assert_tree_is_sound(&store);
                false
            }
            Err(OpenError::Damaged { partition: 0, quarantined_to: Some(to), .. }) => {
                assert!(to.join("data.mdb").is_file() && to.join("REPORT.json").is_file());
                fs::remove_dir_all(to).unwrap();
                true
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn sound_file_passes_in_this_process_and_in_a_child() {
    let case = Case::new();
    assert!(matches!(case.verdict(), CheckVerdict::Sound { rows, .. } if rows >= 550));
    let verdict = check(case.data.parent().unwrap()).unwrap();
    assert!(matches!(verdict, CheckVerdict::Sound { .. }), "{verdict:?}");
    case.file().set_len(0).unwrap();
    assert!(matches!(case.verdict(), CheckVerdict::Sound { rows: 0, .. }));
}

#[test]
fn flipped_bits_are_found_or_harmless() {
    let case = Case::new();
    let pages = case.bytes.len() as u64 / PAGE;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut found, mut opened) = (0, 0);
    for round in 0..240 {
        case.reset();
        // Every page of the file in turn, then anywhere.
        let page = if round < pages { round } else { next() % pages };
        let at = page * PAGE + next() % PAGE;
        let byte = case.bytes[usize::try_from(at).unwrap()];
        case.file().write_all_at(&[byte ^ (1 << (next() % 8))], at).unwrap();
        let damaged = matches!(case.verdict(), CheckVerdict::Damaged { .. });
        found += u32::from(damaged);
        // Opening costs a child; what the check lets pass must be harmless.
        if !damaged || round % 30 == 0 {
            opened += 1;
            assert_eq!(case.assert_refused_or_true(), damaged, "byte {at}");
        }
    }
    assert!(found > 60, "only {found} of 240 were found: the flips miss the data");
    assert!(opened > 10);
}

#[test]
fn zeroed_pages_are_found_or_harmless() {
    let case = Case::new();
    let mut found = 0;
    for page in 0..case.bytes.len() as u64 / PAGE {
        case.reset();
        case.file().write_all_at(&[0; 4096], page * PAGE).unwrap();
        let damaged = matches!(case.verdict(), CheckVerdict::Damaged { .. });
        found += u32::from(damaged);
        if !damaged || page % 60 == 0 {
            assert_eq!(case.assert_refused_or_true(), damaged, "page {page}");
        }
    }
    assert!(found > 10);
}

#[test]
fn cut_files_are_refused_also_after_a_clean_stop() {
    let case = Case::new();
    for keep in [0.5, 0.9, 0.1] {
        case.reset();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rough share"
        )]
        let len = (case.bytes.len() as f64 * keep) as u64;
        case.file().set_len(len).unwrap();
        assert!(case.assert_refused_or_true(), "{keep}");
    }
    // Torn in the middle of a page, and down to less than the two meta pages.
    for len in [case.bytes.len() as u64 / 2 + 1_234, PAGE + 100, 100, 1] {
        case.reset();
        case.file().set_len(len).unwrap();
        assert!(case.assert_refused_or_true(), "{len}");
    }
}

#[test]
fn torn_last_write_is_refused_or_true() {
    let case = Case::new();
    let pages = case.bytes.len() as u64 / PAGE;
    // The second half of each of the last pages is what was there before: zeros.
    for page in pages.saturating_sub(24)..pages {
        case.reset();
        case.file().write_all_at(&[0; 2048], page * PAGE + 2048).unwrap();
        let damaged = matches!(case.verdict(), CheckVerdict::Damaged { .. });
        if !damaged || page % 8 == 0 {
            assert_eq!(case.assert_refused_or_true(), damaged);
        }
    }
    // The newer meta page holds an older state. One commit back is what a power cut leaves before
    // the last sync, so it is sound; anything else is damage.
    let txn_of = |meta: usize| {
        let at = meta * 4096 + 16 + 128;
        u64::from_le_bytes(case.bytes[at..at + 8].try_into().unwrap())
    };
    let newer = u64::from(txn_of(1) > txn_of(0));
    for (txn, damaged) in [(0, true), (txn_of(0).min(txn_of(1)) - 1, false)] {
        case.reset();
        case.file().write_all_at(&txn.to_le_bytes(), newer * PAGE + 144).unwrap();
        assert_eq!(matches!(case.verdict(), CheckVerdict::Damaged { .. }), damaged, "{txn}");
    }
}

#[test]
fn page_in_use_that_is_listed_as_free_is_found() {
    let case = Case::new();
    let number = |at: usize| u64::from_le_bytes(case.bytes[at..at + 8].try_into().unwrap());
    let short = |at: usize| usize::from(u16::from_le_bytes([case.bytes[at], case.bytes[at + 1]]));
    let newer = usize::from(number(4096 + 144) > number(144)) * 4096;
    let (free_root, main_root) = (number(newer + 80), number(newer + 128));
    let page = usize::try_from(free_root * PAGE).unwrap();
    assert_eq!(short(page + 10), 2, "the list of free pages is one leaf here");
    // Header of the node, transaction, number of pages, first page.
    let first = page + short(page + 16) + 8 + 8 + 8;
    case.reset();
    case.file().write_all_at(&main_root.to_le_bytes(), first as u64).unwrap();
    let verdict = case.verdict();
    assert!(
        matches!(&verdict, CheckVerdict::Damaged { why } if why.contains("in use and free")),
        "{verdict:?}"
    );
    assert!(case.assert_refused_or_true());
}

#[test]
fn other_bytes_are_no_store() {
    let case = Case::new();
    for bytes in [&b"not a database"[..], &[0xff; 20_000], &[0; 20_000]] {
        case.reset();
        fs::write(&case.data, bytes).unwrap();
        assert!(case.assert_refused_or_true());
    }
}

#[test]
fn damaged_partition_is_refused_until_the_operator_decides() {
    let dir = fast_dir();
    let t = table("t");
    let keys: Vec<_> = (0..40).map(|n| key(format!("k{n}"))).collect();
    let store = open(dir.path(), config(2));
    for k in &keys {
        store.put(&t, k, b"v");
    }
    let before = store.incarnation();
    store.close().unwrap();
    let backup = fs::read(dir.path().join("partition-1/data.mdb")).unwrap();
    let data = dir.path().join("partition-1/data.mdb");
    OpenOptions::new().write(true).open(&data).unwrap().set_len(3 * PAGE).unwrap();

    let (refused, events) = open_with(dir.path(), config(2), Resolvers::default());
    let Err(OpenError::Damaged { partition: 1, quarantined_to: Some(to), .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(matches!(events.last(), Some(BootEvent::Quarantined { partition: 1, .. })));
    assert!(to.starts_with(dir.path().join("quarantine")));
    for _ in 0..2 {
        let (refused, _) = open_with(dir.path(), config(2), Resolvers::default());
        let Err(OpenError::Damaged { partition: 1, quarantined_to, .. }) = refused else {
            panic!("it must go on refusing: {refused:?}");
        };
        assert_eq!(quarantined_to.as_ref(), Some(&to));
    }
    // The operator puts the backup in place.
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    fs::write(&data, &backup).unwrap();
    let store = open(dir.path(), config(2));
    assert!(store.incarnation() > before);
    assert_eq!(store.all(&t).len(), 40);
    let before = store.incarnation();
    store.close().unwrap();
    // Or goes on without it.
    fs::write(&data, b"garbage").unwrap();
    let go_on = StoreConfig { on_damage: OnDamage::Continue, ..config(2) };
    let (store, events) = open_with(dir.path(), go_on, Resolvers::default());
    let store: Store = store.unwrap();
    assert!(events.contains(&BootEvent::Replaced { partition: 1 }));
    assert!(events.iter().any(|event| matches!(
        event,
        BootEvent::NewIncarnation { why: NewLife::PartitionReplaced, to, .. } if *to > before
    )));
    let kept = keys.iter().filter(|k| store.partition_of(&t, k) == 0).count();
    assert_eq!(store.all(&t).len(), kept);
    store.put(&t, keys.iter().find(|k| store.partition_of(&t, k) == 1).unwrap(), b"new");
    assert_tree_is_sound(&store);
    store.close().unwrap();
    open(dir.path(), config(2));
}

#[test]
fn incarnation_is_not_forgotten_with_the_only_partition() {
    let dir = fast_dir();
    let config = || StoreConfig {
        on_damage: OnDamage::Continue,
        clock: weald_storage::WallClock::new(|| 1_000_000),
        ..config(1)
    };
    let mut last = 0;
    for _ in 0..4 {
        let store = open(dir.path(), config());
        assert!(store.incarnation() > last);
        last = store.incarnation();
        drop(store);
        fs::write(dir.path().join("partition-0/data.mdb"), b"garbage").unwrap();
    }
}

#[test]
fn checker_that_dies_of_a_signal_counts_as_damage() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use weald_storage::check::verdict_of_child;
    let died = verdict_of_child(ExitStatus::from_raw(7), b"");
    assert!(matches!(died, Ok(CheckVerdict::Damaged { why }) if why.contains("signal 7")));
    assert!(verdict_of_child(ExitStatus::from_raw(1 << 8), b"").is_err());
    let sound = b"{\"verdict\":\"sound\",\"rows\":1,\"ms\":2}";
    assert!(verdict_of_child(ExitStatus::from_raw(3 << 8), sound).is_err());
    assert!(verdict_of_child(ExitStatus::from_raw(0), sound).is_ok());
}
