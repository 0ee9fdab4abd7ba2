//! Goal: not one acknowledged record is missing or altered, whatever dies meanwhile.
//!
//! Method: the package records of this machine are imported by the command line, table after table, while actors are killed at
//! random (leaves and supervisors, by the command line too) and the node is shot and started again. After each restart,
//! and at the end, an export is compared with what the importer noted as acknowledged, byte for byte. `SEED` repeats the
//! choice of victims.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use weald_tests::dataset::{self, Record};
use weald_tests::harness::artefacts::Artefacts;
use weald_tests::harness::node::{Node, Running, Site, flatten};
use weald_tests::harness::wait::pause;
use weald_tests::seed::Seeded;

/// How often the node is shot.
const SHOTS: usize = 4;
/// Kills of actors between two shots.
const KILLS_PER_LIFE: usize = 24;

/// One table of the import.
struct Round {
    table: String,
    lines: Vec<String>,
    records: Vec<Record>,
    acks: std::path::PathBuf,
    importer: Option<Running>,
}

impl Round {
    /// Begins to import all records into a table of its own.
    fn start(site: &Site, dir: &Path, jsonl: &str, number: usize) -> Self {
        let table = format!("{}-{number}", dataset::TABLE);
        let from = format!("\"table\": \"{}\"", dataset::TABLE);
        let text = jsonl.replace(&from, &format!("\"table\": \"{table}\""));
        let input = dir.join(format!("{table}.jsonl"));
        let acks = dir.join(format!("{table}.acks"));
        std::fs::write(&input, &text).unwrap();
        let checkpoint = dir.join(format!("{table}.checkpoint"));
        // Small batches, so that the import takes long enough to be disturbed.
        let importer = site.command(&[
            "import",
            input.to_str().unwrap(),
            "--ack-file",
            acks.to_str().unwrap(),
            "--resume",
            checkpoint.to_str().unwrap(),
            "--retry-for",
            "60s",
            "--batch",
            "4",
            "--in-flight",
            "2",
        ]);
        let lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
        let records = lines.iter().map(|line| dataset::parse_line(line).unwrap()).collect();
        Self { table, lines, records, acks, importer: Some(importer) }
    }

    /// Whether the import is done; it must have done well then.
    fn is_done(&mut self) -> bool {
        if let Some(mut importer) = self.importer.take() {
            if importer.is_running() {
                self.importer = Some(importer);
                return false;
            }
            let ended = importer.wait();
            assert_eq!(ended.code, Some(0), "{}: {}", self.table, ended.err);
            assert_eq!(self.acked().len(), self.lines.len(), "{}: lines acknowledged", self.table);
        }
        true
    }

    /// Indexes of the lines that were acknowledged.
    fn acked(&self) -> Vec<usize> {
        let text = std::fs::read_to_string(&self.acks).unwrap_or_default();
        // A line that is being written has no line break yet.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut acked: Vec<usize> =
            complete.lines().map(|line| line.parse::<usize>().unwrap() - 1).collect();
        acked.sort_unstable();
        acked.dedup();
        acked
    }
}

/// Compares what is stored with what was acknowledged before.
fn compare(site: &Site, rounds: &[(&Round, Vec<usize>)]) {
    let exported = site.run_ok(&["export", "--retry-for", "30s"]);
    let mut stored: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for line in exported.lines() {
        let record = dataset::parse_line(line).unwrap();
        stored.entry((record.table, record.key)).or_default().push(record.value);
    }
    let mut wrong = Vec::new();
    for (round, acked) in rounds {
        for line in acked {
            let Record { table, key, value } = &round.records[*line];
            let found = stored.get(&(table.clone(), key.clone()));
            if found.is_none_or(|found| found.as_slice() != [value.as_str()]) {
                wrong.push(format!("{table} {key}: {found:?}"));
            }
        }
    }
    let total: usize = rounds.iter().map(|(_, acked)| acked.len()).sum();
    assert!(wrong.is_empty(), "{} of {total} records lost or altered: {wrong:#?}", wrong.len());
}

/// Kills one actor at random. The answer may be lost with whoever carried it.
fn kill_one(site: &Site, node: &Node, rng: &mut Seeded) -> Option<String> {
    let tree = node.client().tree().ok()?;
    let paths: Vec<_> = flatten(&tree).iter().skip(1).map(|node| node.path.clone()).collect();
    let path = rng.pick(&paths).clone();
    let ended = site.run(&["supervision", "kill", &path]);
    match ended.code {
        Some(0) => Some(path),
        // Gone already, or busy being restarted.
        Some(1 | 3 | 6 | 8) => None,
        other => panic!("kill {path}: {other:?} {}", ended.err),
    }
}

fn incarnation(node: &Node) -> u64 {
    let status = node.client().status();
    status["incarnation"].as_u64().unwrap_or_else(|| panic!("no incarnation: {status}"))
}

#[test]
fn real_records_survive_kills_of_actors_and_of_the_node() {
    let mut rng = Seeded::announced("real records");
    let dataset = dataset::of_this_machine().unwrap();
    let kept = Artefacts::new("dataset");
    let site = Site::new(kept.dir(), "");
    let mut rounds: Vec<Round> = Vec::new();
    let mut killed = Vec::new();
    let mut incarnations = Vec::new();
    for life in 0..=SHOTS {
        let node = site.start();
        incarnations.push(incarnation(&node));
        if life > 0 {
            let acked: Vec<_> = rounds.iter().map(|round| (round, round.acked())).collect();
            compare(&site, &acked);
        }
        let wanted = killed.len() + KILLS_PER_LIFE;
        while killed.len() < wanted {
            if rounds.last_mut().is_none_or(Round::is_done) {
                let number = rounds.len();
                rounds.push(Round::start(&site, kept.dir(), &dataset.jsonl, number));
            }
            killed.extend(kill_one(&site, &node, &mut rng));
            // Well within what the supervisors tolerate: this is about lost data, not about giving up.
            pause(Duration::from_millis(rng.any() % 150));
        }
        if life < SHOTS {
            node.kill();
            // Read from the directory, while nobody runs.
            let log = site.supervision_log(&["--event", "child_exited"]);
            assert!(!log.is_empty(), "no kill in the log of a dead node");
        } else {
            let importer = rounds.last_mut().unwrap().importer.take();
            if let Some(importer) = importer {
                let ended = importer.wait();
                assert_eq!(ended.code, Some(0), "{}", ended.err);
            }
            let all = |round: &Round| (0..round.lines.len()).collect::<Vec<_>>();
            compare(&site, &rounds.iter().map(|round| (round, all(round))).collect::<Vec<_>>());
            node.stop();
        }
    }

    // Each killed path is in the log, and so is each unclean stop.
    let unclean = site.supervision_log(&["--event", "unclean_stop"]);
    assert_eq!(unclean.len(), SHOTS, "unclean stops in the log");
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for path in &killed {
        *times.entry(path).or_default() += 1;
    }
    for (path, times) in &times {
        let noted = site.supervision_log(&["--path", path, "--event", "child_exited"]);
        let noted = noted.iter().filter(|record| record["path"] == *path).count();
        assert!(noted >= *times, "{path}: killed {times} times, {noted} times in the log");
    }
    assert!(incarnations.windows(2).all(|pair| pair[0] < pair[1]), "{incarnations:?}");
    // A clean stop keeps the incarnation.
    let node = site.start();
    assert_eq!(incarnation(&node), incarnations[SHOTS]);
    node.stop();

    let records: usize = rounds.iter().map(|round| round.lines.len()).sum();
    eprintln!(
        "real records: {records} records of {} in {} tables, {} kills of {} actors, {SHOTS} shots, incarnations {incarnations:?}",
        dataset.source.display(),
        rounds.len(),
        killed.len(),
        times.len(),
    );
}
