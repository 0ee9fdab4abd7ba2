//! Power cuts: nothing acknowledged is lost, no dot is used twice, and a store that does not sync is found out.
//!
//! Goal: reliability of `durability = "full"` and `"relaxed"` under a power cut at any moment, boots included.
//! Method: a writer is recorded over three lives (clean end, killed, clean end); directories are rebuilt for random cuts and all
//! variants of what the disk may have kept, and opened. `WEALD_POWERLOSS_IMAGES=1000` checks so many per mode (the full form);
//! `SEED` repeats a run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and speaks to whoever runs it"
)]

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use weald_tests::harness::artefacts::Artefacts;
use weald_tests::powerloss::log::{self, Event};
use weald_tests::powerloss::plan::PARTITIONS;
use weald_tests::powerloss::record::{self, Ignore, Recorder};
use weald_tests::powerloss::replay::{Disk, Variant};
use weald_tests::powerloss::verdict::{Ack, Fault, Findings, Truth};
use weald_tests::seed::Seeded;

/// Images per mode in the normal run.
const IMAGES: usize = 60;
/// Batches per partition in each life.
const BATCHES: u64 = 40;
const STORE: &str = env!("CARGO_BIN_EXE_powerloss-store");

/// A recorded run.
struct Recording {
    events: Vec<Event>,
    acks: Vec<(usize, Ack)>,
    truth: Truth,
}

/// How a life of the writer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Kill,
    /// This sync fails, the writer goes on as it can, and is killed.
    Errors(u64),
}

const LIVES: [End; 3] = [End::Clean, End::Kill, End::Clean];

fn record(
    dir: &Path,
    seed: u64,
    durability: &str,
    ignore: Ignore,
    lives: &[End],
) -> Result<Recording> {
    let recorder = Recorder::compile(dir)?;
    let data = dir.canonicalize()?.join("data");
    std::fs::create_dir(&data)?;
    let log = dir.join("recorded");
    for (life, end) in (0..).zip(lives) {
        let (word, fail) = match end {
            End::Clean => ("clean", None),
            End::Kill => ("kill", None),
            End::Errors(number) => ("errors", Some(*number)),
        };
        let mut command = Command::new(STORE);
        command.arg("write").arg(&data);
        command.args([seed, life * BATCHES, BATCHES].map(|n| n.to_string()));
        command.args([durability, word]);
        let out = recorder.run(command, &data, &log, record::Disk { ignore, fail })?;
        assert!(
            out.status.success() == (*end == End::Clean),
            "life {life}: {}\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let events = log::read(&log, &data)?;
    let acks: Vec<_> = events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| match event {
            Event::Ack { text } => Some((at, Ack::parse(text)?)),
            _ => None,
        })
        .collect();
    let all: Vec<_> = acks.iter().map(|(_, ack)| ack.clone()).collect();
    let fails = lives.iter().any(|end| matches!(end, End::Errors(_)));
    let truth = Truth::new(seed, &all, u64::from(fails))?;
    Ok(Recording { events, acks, truth })
}

/// What the boots of the images must have met, or they prove less than they seem to.
const BOOTS: [&str; 3] = ["CleanStart", "UncleanStop", "Checked"];

/// Where to cut: anywhere, right after an acknowledgement, which is when most can be lost, or while a life begins or ends, which
/// is when a node decides who it is.
fn cuts(recording: &Recording, images: usize, rng: &mut Seeded) -> Vec<usize> {
    let life = |ack: &Ack| ack.batch / BATCHES;
    let mut between = vec![(0, recording.acks[0].0)];
    for pair in recording.acks.windows(2) {
        if life(&pair[0].1) != life(&pair[1].1) {
            between.push((pair[0].0, pair[1].0));
        }
    }
    between.push((recording.acks[recording.acks.len() - 1].0, recording.events.len()));
    let mut cuts: Vec<_> = (0..images)
        .map(|n| match n % 3 {
            0 => rng.below(recording.events.len() + 1),
            1 => rng.pick(&recording.acks).0 + 1,
            _ => {
                let (start, end) = between[(n / 3) % between.len()];
                start + rng.below(end - start + 1)
            }
        })
        .collect();
    // Between a clean end and the next life, so that such a start is always met.
    let marker =
        |event: &Event| matches!(event, Event::Remove { path } if path == Path::new("clean"));
    cuts.extend(recording.events.iter().position(marker));
    cuts.sort_unstable();
    cuts
}

/// Faults of so many images, and how many batches were missing that may be.
struct Tally {
    faults: BTreeMap<String, Vec<Fault>>,
    missing: u64,
    images: usize,
    boots: BTreeMap<&'static str, usize>,
}

fn check_images(
    dir: &Path,
    recording: &Recording,
    durability: &str,
    images: usize,
    rng: &mut Seeded,
) -> Result<Tally> {
    let mut disk = Disk::default();
    let mut at = 0;
    let may_lose = u64::from(durability == "relaxed");
    let mut tally =
        Tally { faults: BTreeMap::new(), missing: 0, images: 0, boots: BTreeMap::new() };
    for (number, cut) in cuts(recording, images, rng).into_iter().enumerate() {
        for event in &recording.events[at..cut] {
            disk.apply(event)?;
        }
        at = cut;
        tally.images += 1;
        let variant = Variant::ALL[number % Variant::ALL.len()];
        let image = dir.join(format!("image-{number}"));
        disk.image(&image, variant, rng)?;
        restamp(&image)?;
        let acked: Vec<_> = recording
            .acks
            .iter()
            .take_while(|(event, _)| *event < cut)
            .map(|(_, ack)| ack.clone())
            .collect();
        let what = format!("image {number}, cut {cut} of {}, {variant:?}", recording.events.len());
        let faults = match inspect(&image, durability)? {
            Err(why) => vec![Fault::Unusable(why)],
            Ok(findings) => {
                for event in BOOTS {
                    let met = findings.boot.iter().any(|e| e.starts_with(event));
                    *tally.boots.entry(event).or_default() += usize::from(met);
                }
                let (faults, missing) = recording.truth.judge(&acked, &findings, may_lose)?;
                tally.missing += missing;
                faults
            }
        };
        if faults.is_empty() {
            std::fs::remove_dir_all(&image)?;
        } else {
            tally.faults.insert(what, faults);
        }
    }
    Ok(tally)
}

/// Makes the stamps in a clean marker fit the files of the image where they may have fitted on the disk: an image is a copy, and
/// a store that takes it for one is on its guard.
fn restamp(image: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let marker = image.join("clean");
    let Ok(text) = std::fs::read(&marker) else {
        return Ok(());
    };
    let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(&text) else {
        return Ok(());
    };
    let stamps = json["files"].as_array_mut().context("files in the clean marker")?;
    for (partition, stamp) in stamps.iter_mut().enumerate() {
        let data = image.join(format!("partition-{partition}/data.mdb"));
        let Ok(meta) = std::fs::metadata(data) else {
            continue;
        };
        stamp["inode"] = meta.ino().into();
        stamp["changed_s"] = meta.ctime().into();
        stamp["changed_ns"] = meta.ctime_nsec().into();
    }
    std::fs::write(&marker, serde_json::to_vec(&json)?)?;
    Ok(())
}

fn inspect(image: &Path, durability: &str) -> Result<Result<Findings, String>> {
    let mut command = Command::new(STORE);
    command.arg("inspect").arg(image).arg(durability).env("RUST_BACKTRACE", "0");
    let out = command.output()?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        return Ok(Err(format!("{}: {text}", out.status)));
    }
    Ok(Ok(serde_json::from_slice(&out.stdout)?))
}

fn images_wanted() -> usize {
    match std::env::var("WEALD_POWERLOSS_IMAGES") {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("WEALD_POWERLOSS_IMAGES={text}: {e}")),
        Err(_) => IMAGES,
    }
}

fn run(name: &str, durability: &str, ignore: Ignore, images: usize) -> (Tally, PathBuf) {
    let mut rng = Seeded::announced(name);
    let mut kept = Artefacts::new(name);
    let recording = record(kept.dir(), rng.seed(), durability, ignore, &LIVES).unwrap();
    let expected = LIVES.len() as u64 * BATCHES * u64::from(PARTITIONS);
    assert_eq!(recording.truth.batches() as u64, expected, "acknowledged batches");
    let tally = check_images(kept.dir(), &recording, durability, images, &mut rng).unwrap();
    eprintln!(
        "{name}: {} events, {} acknowledged writes, {} images, {} at fault, {} batches missing that may be, boots {:?}",
        recording.events.len(),
        recording.acks.len(),
        tally.images,
        tally.faults.len(),
        tally.missing,
        tally.boots,
    );
    let dir = kept.dir().to_owned();
    if ignore == Ignore::Nothing && !tally.faults.is_empty() {
        kept.keep();
    }
    (tally, dir)
}

fn assert_sound(tally: &Tally, dir: &Path) {
    assert!(tally.faults.is_empty(), "{:#?}\nimages are kept in {}", tally.faults, dir.display());
    for (event, times) in &tally.boots {
        assert!(*times > 0, "no image led to {event}");
    }
}

#[test]
fn full_durability_loses_nothing() {
    let (tally, dir) = run("powerloss-full", "full", Ignore::Nothing, images_wanted());
    assert_sound(&tally, &dir);
    assert_eq!(tally.missing, 0);
}

#[test]
fn relaxed_durability_loses_the_last_transaction_at_most() {
    let (tally, dir) = run("powerloss-relaxed", "relaxed", Ignore::Nothing, images_wanted());
    assert_sound(&tally, &dir);
    // The variants are adversarial: if none took anything, the cuts are not where they hurt.
    assert!(
        tally.missing > 0,
        "no image lost a transaction: the recorder saw a sync that is not there"
    );
}

fn count(tally: &Tally, fault: impl Fn(&Fault) -> bool) -> usize {
    tally.faults.values().filter(|faults| faults.iter().any(&fault)).count()
}

#[test]
fn store_that_does_not_sync_is_found_out() {
    let unsynced = run("powerloss-no-sync", "full", Ignore::DataAndMeta, 30).0;
    let damage = |f: &Fault| matches!(f, Fault::Lost(_) | Fault::Unusable(_) | Fault::Mangled(_));
    assert!(count(&unsynced, damage) >= 10, "{:#?}", unsynced.faults);

    let meta = run("powerloss-no-meta-sync", "full", Ignore::Meta, 30).0;
    assert!(count(&meta, |f| matches!(f, Fault::Lost(1))) >= 3, "{:#?}", meta.faults);
}

#[test]
fn failed_sync_acknowledges_nothing_more_until_the_store_is_opened_anew() {
    let mut rng = Seeded::announced("powerloss-eio");
    let mut kept = Artefacts::new("powerloss-eio");
    let lives = [End::Clean, End::Errors(20 + rng.any() % 30)];
    let recording = record(kept.dir(), rng.seed(), "full", Ignore::Nothing, &lives).unwrap();
    // One partition lost its disk in the second life and acknowledged nothing after that; the other went on.
    let batches = |partition: u16| -> std::collections::BTreeSet<u64> {
        let acks = recording.acks.iter().map(|(_, ack)| ack);
        acks.filter(|ack| ack.partition == partition).map(|ack| ack.batch).collect()
    };
    let acked: Vec<_> = (0..PARTITIONS).map(batches).collect();
    for batches in &acked {
        let last = *batches.last().unwrap();
        assert!(
            batches.iter().copied().eq(0..=last),
            "acknowledged after a failed sync: {batches:?}"
        );
    }
    let mut counts: Vec<_> = acked.iter().map(|batches| batches.len() as u64).collect();
    counts.sort_unstable();
    assert!(counts[0] >= BATCHES && counts[0] < 2 * BATCHES, "{counts:?}");
    assert_eq!(counts[1], 2 * BATCHES);
    let tally = check_images(kept.dir(), &recording, "full", 30, &mut rng).unwrap();
    if !tally.faults.is_empty() {
        kept.keep();
    }
    eprintln!("powerloss-eio: {counts:?} batches acknowledged, {} images", tally.images);
    assert!(tally.faults.is_empty(), "{:#?}", tally.faults);
}
