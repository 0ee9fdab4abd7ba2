//! Importing lines: several batches in flight, repeated until the node has acknowledged them.
//!
//! Guarantees
//! - A line is reported as acknowledged only after the node said so, and the checkpoint covers acknowledged lines only.
//! - Lines of one key take effect in the order of the input: a batch waits for those in flight that share a key with it.
//! - After an unknown outcome (the node went away before it answered) the same lines are written again. That is safe: the
//!   same key gets the same value.
//!
//! Refuses: going on after an error that a repetition cannot mend (storage full, not allowed).

use super::checkpoint::{Checkpoint, Mark};
use super::progress::Progress;
use super::reader::{BadLine, Batch, Limits, Next, Reader};
use crate::api::{self, Api, ApiError, Retry};
use crate::exit::{Exit, Failure};
use crate::out;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weald_proto::request::{Batch as BatchCall, Op, Put};

/// How to import.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Entries in a batch.
    pub(crate) batch_ops: usize,
    /// Batches in flight.
    pub(crate) in_flight: usize,
    /// How long a batch is repeated while the node is away.
    pub(crate) retry_for: Duration,
    /// Time for one request.
    pub(crate) deadline: Duration,
    /// What to do about a bad line.
    pub(crate) on_bad: OnBad,
    /// Checkpoint file.
    pub(crate) resume: Option<PathBuf>,
    /// File of acknowledged line numbers.
    pub(crate) ack_file: Option<PathBuf>,
    /// Whether the input is typed or piped.
    pub(crate) eager: bool,
    /// Size of the input, for the progress bar.
    pub(crate) input_bytes: Option<u64>,
}

/// What to do about a bad line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnBad {
    /// Report it and go on.
    Skip,
    /// Report it and stop.
    Fail,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Lines acknowledged in this run.
    pub(crate) imported: u64,
    /// Lines not imported.
    pub(crate) bad: u64,
    /// Line after which a checkpoint let this run begin.
    pub(crate) resumed_after: u64,
    /// Requests that were repeated.
    pub(crate) retries: u64,
    /// Time it took.
    pub(crate) elapsed_ms: u64,
}

/// What became of a batch.
struct Done {
    seq: u64,
    end: Mark,
    ids: BTreeSet<u64>,
    acked: Vec<u64>,
    refused: Vec<BadLine>,
    retries: u64,
    failed: Option<ApiError>,
}

/// How often the checkpoint is written.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Batches read ahead.
const READ_AHEAD: usize = 8;

/// Imports everything from an input.
pub(crate) async fn run<A: Api, R: Read + Send + 'static>(
    api: Arc<A>,
    input: R,
    options: Options,
) -> Result<Summary, Failure> {
    let started = Instant::now();
    let limits = Limits { batch_ops: options.batch_ops, eager: options.eager };
    let mut reader = Reader::new(input, limits);
    let from = resume(&mut reader, options.resume.as_deref())?;
    let mut importer = Importer::new(api, options, from)?;
    let (feed, next) = mpsc::channel(READ_AHEAD);
    // The thread ends at the end of the input, or when nobody takes its batches any more.
    tokio::task::spawn_blocking(move || feed_all(reader, &feed));
    let result = importer.drive(next).await;
    importer.progress.finish();
    importer.save_checkpoint()?;
    importer.summary.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(()) => Ok(importer.summary),
        Err(mut failure) => {
            failure.message = format!(
                "{}\nimported {} lines; acknowledged without a gap up to line {}",
                failure.message, importer.summary.imported, importer.prefix.line
            );
            Err(failure)
        }
    }
}

fn resume<R: Read>(reader: &mut Reader<R>, path: Option<&Path>) -> Result<Mark, Failure> {
    let Some(path) = path else { return Ok(Mark::default()) };
    let Some(checkpoint) = Checkpoint::read(path)? else { return Ok(Mark::default()) };
    let skipped = reader
        .skip(checkpoint.mark)
        .map_err(|e| Failure::new(Exit::Io, format!("cannot read the input: {e}")))?;
    skipped.map_err(|why| {
        let path = path.display();
        let text = format!("{path} belongs to another input: {why}; remove it to start over");
        Failure::new(Exit::Usage, text)
    })?;
    Ok(checkpoint.mark)
}

type Feed = Result<(Next, Mark), std::io::Error>;

fn feed_all<R: Read>(mut reader: Reader<R>, feed: &mpsc::Sender<Feed>) {
    loop {
        let next = reader.next().map(|next| (next, reader.end()));
        let last = !matches!(next, Ok((Next::Batch(_) | Next::Bad(_), _)));
        if feed.blocking_send(next).is_err() || last {
            return;
        }
    }
}

struct Importer<A> {
    api: Arc<A>,
    options: Options,
    summary: Summary,
    progress: Progress,
    acks: Option<std::io::BufWriter<File>>,
    /// Everything before this is done.
    prefix: Mark,
    next_seq: u64,
    /// Batches done after one that is not.
    ahead: BTreeMap<u64, Mark>,
    saved: Mark,
    saved_at: Instant,
    busy_ids: BTreeSet<u64>,
    tasks: JoinSet<Done>,
}

impl<A: Api> Importer<A> {
    fn new(api: Arc<A>, options: Options, from: Mark) -> Result<Self, Failure> {
        let acks = match &options.ack_file {
            None => None,
            Some(path) => {
                // A resumed import goes on with the file it has begun.
                let file = File::options().create(true).append(true).open(path);
                Some(std::io::BufWriter::new(file.map_err(|e| Failure::file("write", path, &e))?))
            }
        };
        let progress = Progress::bytes(options.input_bytes);
        Ok(Self {
            api,
            options,
            summary: Summary { resumed_after: from.line, ..Summary::default() },
            progress,
            acks,
            prefix: from,
            next_seq: 0,
            ahead: BTreeMap::new(),
            saved: Mark::default(),
            saved_at: Instant::now(),
            busy_ids: BTreeSet::new(),
            tasks: JoinSet::new(),
        })
    }

    async fn drive(&mut self, mut next: mpsc::Receiver<Feed>) -> Result<(), Failure> {
        let mut waiting: Option<Batch> = None;
        let mut end: Option<Mark> = None;
        let mut failure: Option<Failure> = None;
        loop {
            let room = failure.is_none() && self.tasks.len() < self.options.in_flight;
            if let Some(batch) =
                waiting.take_if(|batch| room && batch.ids.is_disjoint(&self.busy_ids))
            {
                self.send(batch);
            }
            let reads = waiting.is_none() && end.is_none() && failure.is_none();
            if !reads && self.tasks.is_empty() && (waiting.is_none() || failure.is_some()) {
                break;
            }
            // Biased: room is made before more is read.
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => failure = failure.or(self.on_done(done)?),
                    Err(e) => return Err(Failure::new(Exit::Io, format!("import task failed: {e}"))),
                },
                fed = next.recv(), if reads => match fed {
                    Some(Ok((Next::Batch(batch), _))) => waiting = Some(batch),
                    Some(Ok((Next::Bad(bad), _))) => failure = self.on_bad(&bad),
                    Some(Ok((Next::End, mark))) => end = Some(mark),
                    Some(Err(e)) => {
                        failure = Some(Failure::new(Exit::Io, format!("cannot read the input: {e}")));
                    }
                    None => end = Some(self.prefix),
                },
            }
        }
        match (failure, end) {
            (Some(failure), _) => Err(failure),
            (None, end) => {
                self.prefix = end.unwrap_or(self.prefix);
                Ok(())
            }
        }
    }

    fn send(&mut self, batch: Batch) {
        self.busy_ids.extend(&batch.ids);
        let api = Arc::clone(&self.api);
        let (deadline, retry_for) = (self.options.deadline, self.options.retry_for);
        self.tasks.spawn(async move { deliver(&*api, batch, deadline, retry_for).await });
    }

    fn on_done(&mut self, done: Done) -> Result<Option<Failure>, Failure> {
        for id in &done.ids {
            self.busy_ids.remove(id);
        }
        self.summary.retries += done.retries;
        self.summary.imported += done.acked.len() as u64;
        self.write_acks(&done.acked)?;
        let mut failure = None;
        for bad in &done.refused {
            let refused = self.on_bad(bad);
            failure = failure.or(refused);
        }
        if let Some(error) = done.failed {
            failure = Some(error.into());
        }
        if failure.is_none() {
            self.ahead.insert(done.seq, done.end);
            while let Some(mark) = self.ahead.remove(&self.next_seq) {
                self.prefix = mark;
                self.next_seq += 1;
            }
        }
        let bad = self.summary.bad;
        let message = match bad {
            0 => format!("{} lines", self.summary.imported),
            _ => format!("{} lines, {bad} bad", self.summary.imported),
        };
        self.progress.at(self.prefix.offset, message);
        if self.saved_at.elapsed() >= CHECKPOINT_EVERY {
            self.save_checkpoint()?;
        }
        Ok(failure)
    }

    fn on_bad(&mut self, bad: &BadLine) -> Option<Failure> {
        self.summary.bad += 1;
        let text = format!("line {}: {}", bad.number, bad.reason);
        match self.options.on_bad {
            OnBad::Skip => {
                self.progress.note(&text);
                None
            }
            OnBad::Fail => Some(Failure::new(Exit::Unhealthy, text)),
        }
    }

    fn write_acks(&mut self, lines: &[u64]) -> Result<(), Failure> {
        let (Some(acks), Some(path)) = (&mut self.acks, &self.options.ack_file) else {
            return Ok(());
        };
        let written = lines.iter().try_for_each(|line| writeln!(acks, "{line}"));
        written.and_then(|()| acks.flush()).map_err(|e| Failure::file("write", path, &e))
    }

    fn save_checkpoint(&mut self) -> Result<(), Failure> {
        self.saved_at = Instant::now();
        match &self.options.resume {
            Some(path) if self.prefix != self.saved => {
                Checkpoint::write(path, self.prefix)?;
                self.saved = self.prefix;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Writes a batch until each of its lines is acknowledged or refused for good.
async fn deliver<A: Api>(api: &A, batch: Batch, deadline: Duration, retry_for: Duration) -> Done {
    let mut done = Done {
        seq: batch.seq,
        end: batch.end,
        ids: batch.ids,
        acked: Vec::with_capacity(batch.puts.len()),
        refused: Vec::new(),
        retries: 0,
        failed: None,
    };
    let mut left = batch.puts;
    let mut retry = Retry::new(retry_for);
    while !left.is_empty() {
        let ops = left.iter().map(|(_, put)| Op::Put(put.clone())).collect();
        let error = match api.request(BatchCall { ops }, deadline).await {
            Ok(results) if results.len() == left.len() => {
                let before = left.len();
                let error = sort_out(results, &mut left, &mut done);
                if left.len() < before {
                    // The node does answer: the time limit is for a node that does not.
                    retry = Retry::new(retry_for);
                }
                error
            }
            Ok(results) => {
                let text = format!("{} results for {} operations", results.len(), left.len());
                Some(ApiError::Node(weald_proto::WireError::new(
                    weald_proto::ErrorCode::Internal,
                    text,
                )))
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            if done.retries == 0 && error.is_transient() {
                tracing::debug!(error = %error, "batch is repeated");
            }
            if let Err(error) = retry.after(error).await {
                done.failed = Some(error);
                break;
            }
            done.retries += 1;
        }
    }
    done
}

/// Takes what is settled out of `left`; gives the error that the rest is left for.
fn sort_out(
    results: Vec<Result<weald_proto::request::Written, weald_proto::WireError>>,
    left: &mut Vec<(u64, Put)>,
    done: &mut Done,
) -> Option<ApiError> {
    let mut worst: Option<ApiError> = None;
    let mut again = Vec::new();
    for ((number, put), result) in std::mem::take(left).into_iter().zip(results) {
        match result {
            Ok(_) => done.acked.push(number),
            Err(e) if e.code == weald_proto::ErrorCode::Invalid => {
                done.refused.push(BadLine { number, reason: e.message });
            }
            Err(e) => {
                let fatal = !api::is_transient(e.code);
                if fatal || worst.is_none() {
                    worst = Some(ApiError::Node(e));
                }
                again.push((number, put));
            }
        }
    }
    *left = again;
    worst
}

/// What to say at the end.
pub(crate) fn report(summary: &Summary, json: bool, out: &mut out::Out) -> Result<Exit, Failure> {
    if json {
        out.json(summary)?;
    } else {
        let seconds = Duration::from_millis(summary.elapsed_ms).as_secs_f64();
        let mut text = format!("imported {} lines in {seconds:.1} s", summary.imported);
        if summary.resumed_after > 0 {
            text.push_str(&format!(", after line {}", summary.resumed_after));
        }
        if summary.bad > 0 {
            text.push_str(&format!("; {} lines were bad", summary.bad));
        }
        out::note(&text);
    }
    out.flush()?;
    Ok(if summary.bad > 0 { Exit::Unhealthy } else { Exit::Ok })
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    fn options(dir: &Path) -> Options {
        Options {
            batch_ops: 4,
            in_flight: 3,
            retry_for: Duration::from_secs(30),
            deadline: Duration::from_secs(5),
            on_bad: OnBad::Skip,
            resume: Some(dir.join("checkpoint")),
            ack_file: Some(dir.join("acks")),
            eager: false,
            input_bytes: None,
        }
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range
            .map(|n| {
                format!("{{\"table\": \"t\", \"key\": \"k{n:03}\", \"value\": {{\"n\" : {n}}}}}\n")
            })
            .collect()
    }

    fn acks(dir: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(dir.join("acks")).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn input(text: String) -> std::io::Cursor<Vec<u8>> {
        std::io::Cursor::new(text.into_bytes())
    }

    // Real time: the reader waits in a blocking thread, during which paused time stands still.
    #[tokio::test]
    async fn import_survives_an_absent_node_and_acknowledges_every_line_once() {
        let dir = tempfile::tempdir().unwrap();
        let api = Arc::new(Fake::default());
        api.fail_next([
            ApiError::Unreachable("down".into()),
            ApiError::Unknown("cut".into()),
            ApiError::Unreachable("down".into()),
        ]);
        let summary =
            run(Arc::clone(&api), input(lines(0..50)), options(dir.path())).await.unwrap();
        assert_eq!((summary.imported, summary.bad, summary.retries), (50, 0, 3));
        let mut acked = acks(dir.path());
        acked.sort_unstable();
        assert_eq!(acked, (1..=50).collect::<Vec<_>>());
        assert_eq!(api.value("t", b"k007").as_deref(), Some(&b"{\"n\" : 7}"[..]));
    }

    #[tokio::test]
    async fn bad_lines_are_skipped_or_stop_the_import() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{}oops\n{}", lines(0..6), lines(6..9));
        let api = Arc::new(Fake::default());
        let summary =
            run(Arc::clone(&api), input(text.clone()), options(dir.path())).await.unwrap();
        assert_eq!((summary.imported, summary.bad), (9, 1));

        let dir = tempfile::tempdir().unwrap();
        let strict = Options { on_bad: OnBad::Fail, ..options(dir.path()) };
        let failure =
            run(Arc::new(Fake::default()), input(text), strict.clone()).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unhealthy);
        assert!(failure.message.starts_with("line 7: "), "{failure}");
        let mark = Checkpoint::read(&dir.path().join("checkpoint")).unwrap().unwrap().mark;
        assert_eq!(mark.line, 6);
    }

    #[tokio::test]
    async fn storage_full_stops_at_once_and_resume_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let api = Arc::new(Fake::default());
        api.full_after(20);
        let one = Options { in_flight: 1, ..options(dir.path()) };
        let failure = run(Arc::clone(&api), input(lines(0..50)), one.clone()).await.unwrap_err();
        assert_eq!(failure.exit, Exit::StorageFull);
        let before = acks(dir.path());
        api.full_after(usize::MAX);
        let summary = run(Arc::clone(&api), input(lines(0..50)), one.clone()).await.unwrap();
        assert_eq!(summary.resumed_after, 20);
        assert_eq!(summary.imported, 30);
        let all = acks(dir.path());
        assert_eq!(all[..before.len()], before);
        let failure = run(api, input(lines(1..60)), one).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }

    // Real time: the reader waits in a blocking thread, during which paused time stands still.
    #[tokio::test]
    async fn last_line_of_a_key_wins_over_repeated_batches() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..40)
            .map(|n| {
                format!(
                    "{{\"table\": \"t\", \"key\": \"same\", \"value\": {n}}}\n{}",
                    lines(n..n + 1)
                )
            })
            .collect();
        let api = Arc::new(Fake::default());
        api.fail_next((0..4).map(|_| ApiError::Unreachable("down".into())));
        run(Arc::clone(&api), input(text), options(dir.path())).await.unwrap();
        assert_eq!(api.value("t", b"same").as_deref(), Some(&b"39"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn import_gives_up_after_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let api = Arc::new(Fake::default());
        api.fail_next((0..1000).map(|_| ApiError::Unreachable("nobody there".into())));
        let failure = run(api, input(lines(0..5)), options(dir.path())).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.contains("up to line 0"), "{failure}");
    }
}
