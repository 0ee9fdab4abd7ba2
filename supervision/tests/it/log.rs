//! The log on disk: bounded, outliving `kill -9`, readable by anybody at any time.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weald_supervision::{Event, Filter, LogConfig, Record, SupervisionLog};

const SMALL: LogConfig =
    LogConfig { segment_bytes: 4096, segments_max: 3, fsync_interval: Duration::from_millis(20) };

fn note(i: u64) -> Record {
    let mut record =
        Record::note(Event::NodeStarted, &format!("node/{}", i % 3), &format!("number {i}"));
    record.ts_ms = 1000 + i;
    record
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn records_come_back_by_every_filter() {
    let dir = tempfile::tempdir().unwrap();
    let log = SupervisionLog::open(dir.path(), LogConfig::default()).unwrap();
    for i in 0..90 {
        log.append(note(i));
    }
    log.append(Record::note(Event::StorageFull, "node", "no space"));
    log.flush();
    assert_eq!(log.last_seq(), 91);
    let query = |filter: Filter| log.query(&filter).unwrap();
    let all = query(Filter::default());
    assert_eq!(all.iter().map(|r| r.seq).collect::<Vec<_>>(), (1..=91).collect::<Vec<_>>());
    assert_eq!(query(Filter { path: Some("node/1".into()), ..Filter::default() }).len(), 30);
    let full = query(Filter { events: vec![Event::StorageFull], ..Filter::default() });
    assert_eq!(full[0].error.as_deref(), Some("no space"));
    assert!(full[0].ts_ms > 1_600_000_000_000, "the time is filled in");
    assert_eq!(query(Filter { since_ms: Some(1080), ..Filter::default() }).len(), 11);
    assert_eq!(query(Filter { after_seq: Some(88), ..Filter::default() }).len(), 3);
    let newest = query(Filter { limit: Some(5), path: Some("node/2".into()), ..Filter::default() });
    assert_eq!(newest.iter().map(|r| r.seq).collect::<Vec<_>>(), [78, 81, 84, 87, 90]);
    assert!(query(Filter { limit: Some(0), ..Filter::default() }).is_empty());
    assert!(SupervisionLog::read(&dir.path().join("none"), &Filter::default()).unwrap().is_empty());
}

#[test]
fn disk_use_is_bounded_and_the_oldest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let log = SupervisionLog::open(dir.path(), SMALL).unwrap();
    for i in 0..2000 {
        log.append(note(i));
        if i % 500 == 0 {
            log.flush();
        }
    }
    log.flush();
    let files = segments(dir.path());
    assert_eq!(files.len(), 3);
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= SMALL.segment_bytes);
    }
    let kept = log.query(&Filter::default()).unwrap();
    assert_eq!(kept.last().unwrap().seq, 2000);
    assert!(kept.windows(2).all(|w| w[1].seq == w[0].seq + 1), "no gap in what is kept");
    // A limited query over segment borders, and one that resumes.
    let newest = log.query(&Filter { limit: Some(60), ..Filter::default() }).unwrap();
    assert_eq!(newest, kept[kept.len() - 60..]);
    let resumed = log.query(&Filter { after_seq: Some(1990), ..Filter::default() }).unwrap();
    assert_eq!(resumed, kept[kept.len() - 10..]);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn torn_and_altered_lines_are_skipped_counted_and_written_past() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = SupervisionLog::open(dir.path(), LogConfig::default()).unwrap();
        for i in 0..10 {
            log.append(note(i));
        }
        log.flush();
    }
    let file = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let third = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(2).unwrap().0;
    bytes[third - 40] ^= 0x20;
    bytes.extend_from_slice(b"{\"seq\":11,\"ts_ms\":5,\"node\":\"torn");
    fs::write(&file, &bytes).unwrap();
    let (records, stats) = SupervisionLog::read_with_stats(dir.path(), &Filter::default()).unwrap();
    assert_eq!((records.len(), stats.lines, stats.skipped), (9, 9, 2));
    let log = SupervisionLog::open(dir.path(), LogConfig::default()).unwrap();
    assert_eq!(log.last_seq(), 10);
    log.append(note(99));
    log.flush();
    let (records, stats) = SupervisionLog::read_with_stats(dir.path(), &Filter::default()).unwrap();
    assert_eq!((records.last().unwrap().seq, stats.skipped), (11, 2));
    // Garbage instead of a log is no error either.
    let mut noise = fs::OpenOptions::new().append(true).open(&file).unwrap();
    noise.write_all(&[0xFF; 300_000]).unwrap();
    noise.write_all(b"\n{}\n\n").unwrap();
    assert_eq!(SupervisionLog::read(dir.path(), &Filter::default()).unwrap().len(), 10);
}

#[test]
fn reopening_many_times_keeps_history_and_numbers() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..20 {
        let log = SupervisionLog::open(dir.path(), LogConfig::default()).unwrap();
        assert_eq!(log.last_seq(), run);
        log.append(note(run));
        log.flush();
    }
    assert_eq!(segments(dir.path()).len(), 1, "a crash loop does not push history out");
    assert_eq!(SupervisionLog::read(dir.path(), &Filter::default()).unwrap().len(), 20);
}

#[test]
fn followers_see_each_record_once_inside_and_outside() {
    let dir = tempfile::tempdir().unwrap();
    let log = SupervisionLog::open(dir.path(), SMALL).unwrap();
    for i in 0..5 {
        log.append(note(i));
    }
    log.flush();
    let mut follow =
        SupervisionLog::follow(dir.path(), Filter { limit: Some(2), ..Filter::default() });
    let mut seen: Vec<u64> = follow.poll().unwrap().iter().map(|r| r.seq).collect();
    assert_eq!(seen, [4, 5]);
    let from_now = Filter { limit: Some(0), ..Filter::default() };
    let mut later = SupervisionLog::follow(dir.path(), from_now);
    assert_eq!(later.poll().unwrap(), []);
    let mut since_now = 0;
    let subscription = log.subscribe();
    for i in 5..205 {
        log.append(note(i));
        if i % 10 == 0 {
            log.flush();
            seen.extend(follow.poll().unwrap().iter().map(|r| r.seq));
            since_now += later.poll().unwrap().len();
        }
    }
    log.flush();
    seen.extend(follow.poll().unwrap().iter().map(|r| r.seq));
    assert_eq!(seen, (4..=205).collect::<Vec<_>>());
    assert_eq!(since_now + later.poll().unwrap().len(), 200);
    assert!(subscription.has_changed().unwrap());
    assert_eq!(*subscription.borrow(), 205);
}

/// The child process of the test below; does nothing in an ordinary run.
#[test]
fn child_process_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os("SUPERVISION_TEST_APPEND_DIR") else {
        return;
    };
    let log = SupervisionLog::open(Path::new(&dir), SMALL).unwrap();
    for i in 0.. {
        log.append(note(i));
        if i % 7 == 0 {
            log.flush();
        }
    }
}

#[test]
fn records_survive_kill_9_and_can_be_read_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::child_process_that_appends_until_it_is_killed"])
            .env("SUPERVISION_TEST_APPEND_DIR", dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut reads = 0;
        let newest = || {
            let newest = Filter { limit: Some(1), ..Filter::default() };
            SupervisionLog::read(dir.path(), &newest).unwrap().first().map_or(0, |r| r.seq)
        };
        while newest() < last + 200 {
            reads += 1;
            assert!(std::time::Instant::now() < deadline, "no progress");
        }
        let before = newest();
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let (records, stats) =
            SupervisionLog::read_with_stats(dir.path(), &Filter::default()).unwrap();
        last = records.last().unwrap().seq;
        assert!(last >= before, "round {round}: {before} was readable, {last} survived");
        assert!(stats.skipped <= round + 1, "at most one torn line a kill");
        assert!(reads > 0);
        assert!(segments(dir.path()).len() <= 3);
    }
    let log = SupervisionLog::open(dir.path(), SMALL).unwrap();
    assert_eq!(log.last_seq(), last);
}

#[test]
fn refused_records_are_counted_and_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 64 << 20, ..SMALL };
    let log = SupervisionLog::open(dir.path(), config).unwrap();
    // Faster than any disk: the queue fills up, nobody waits.
    let begun = std::time::Instant::now();
    for i in 0..200_000 {
        log.append(note(i));
    }
    let spent = begun.elapsed();
    log.flush();
    log.append(note(0));
    log.flush();
    let kept = log.query(&Filter::default()).unwrap();
    let told: u64 = kept
        .iter()
        .filter(|r| r.event == Event::LogDropped)
        .map(|r| r.error.as_deref().unwrap().split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    let written = kept.iter().filter(|r| r.event == Event::NodeStarted).count() as u64;
    assert_eq!(told, log.dropped());
    assert_eq!(written + told, 200_001, "every record is there or told of");
    assert!(spent < Duration::from_secs(20));
}

/// Bytes that a segment holds on disk beyond its length.
fn reserved(path: &Path) -> u64 {
    let meta = fs::metadata(path).unwrap();
    (meta.blocks() * 512).saturating_sub(meta.len())
}

#[test]
fn current_segment_has_room_ahead_and_older_ones_keep_none() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 1 << 20, ..SMALL };
    let log = SupervisionLog::open(dir.path(), config).unwrap();
    let mut n = 0;
    while segments(dir.path()).len() < 2 {
        (n..n + 100).for_each(|i| log.append(note(i)));
        log.flush();
        n += 100;
        let last = segments(dir.path()).pop().unwrap();
        let room = (1u64 << 20).saturating_sub(fs::metadata(&last).unwrap().len());
        // Half of 256 KiB at least, or what is left of the segment; a page is rounding.
        assert!(reserved(&last) + 4096 >= room.min(128 << 10), "after {n} records");
    }
    let first = segments(dir.path()).swap_remove(0);
    // The room ends where the segment ends: what is left is less than a line, and rounding.
    assert!(reserved(&first) <= 8192, "{} bytes are kept", reserved(&first));
}

#[test]
fn log_outlives_a_folder_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("log");
    let log = SupervisionLog::open(&inside, SMALL).unwrap();
    fs::remove_dir_all(&inside).unwrap();
    for i in 0..300 {
        log.append(note(i));
    }
    log.flush();
    let lost = log.dropped();
    assert!(lost > 0);
    fs::create_dir(&inside).unwrap();
    log.append(note(300));
    log.flush();
    let kept = log.query(&Filter::default()).unwrap();
    assert!(kept.iter().any(|r| r.event == Event::LogDropped), "{kept:?}");
    assert_eq!(kept.last().unwrap().reason.as_deref(), Some("number 300"));
    assert_eq!(log.dropped(), lost);
}
