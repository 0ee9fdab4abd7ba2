//! `supervision tree`, `supervision log` and `supervision kill`.
//!
//! Guarantees: the log can be read whether the node is up or down; following goes on over its restarts. Which of the two ways
//! was taken is said on stderr.

use crate::api::{Api, ApiError};
use crate::args::{LogArgs, LogForm, Supervision};
use crate::config::keys::nearest;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use weald_proto::limits::WAIT_MS_MAX;
use weald_proto::request::{self, Kill};
use weald_proto::supervision::{LogRecord, TreeNode};
use weald_supervision::{Event, Filter, SupervisionLog};

/// Folder of the log in a data directory.
pub(crate) const LOG_DIR: &str = "supervision";
/// Pause before a node that is down is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Most records of one look while following; a look comes at least twice a second.
const FOLLOW_RECORDS_MAX: u32 = 1000;

pub(crate) async fn run<A: Api>(
    api: &A,
    args: Supervision,
    data_dir: Option<&Path>,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    match args {
        Supervision::Tree { path, watch, interval } => {
            let again = watch.then_some(interval);
            tree(api, &path, again, deadline, out).await
        }
        Supervision::Log(args) => {
            let log_dir = data_dir.map(|dir| dir.join(LOG_DIR));
            log(api, &args, log_dir.as_deref(), deadline, out).await
        }
        Supervision::Kill { path } => {
            api.request(Kill { path: path.clone() }, deadline).await?;
            if out.is_json() {
                out.json(&json!({ "killed": path }))?;
            } else {
                out::note(&format!("killed {path}; its supervisor restarts it"));
            }
            out.flush()?;
            Ok(Exit::Ok)
        }
    }
}

async fn tree<A: Api>(
    api: &A,
    path: &str,
    again: Option<Duration>,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    loop {
        match look(api, path, deadline, out).await {
            // While watching, a node that restarts is something to see, not an end.
            Err(failure) if again.is_some() && failure.exit == Exit::Unreachable => {
                out::note(&failure.message);
            }
            Err(failure) => return Err(failure),
            Ok(()) => {}
        }
        match again {
            None => return Ok(Exit::Ok),
            Some(interval) => tokio::time::sleep(interval).await,
        }
        if !out.is_json() {
            // On a terminal the new picture takes the place of the old one.
            let between: &[u8] = if out.is_terminal() { b"\x1b[H\x1b[2J" } else { b"\n" };
            out.bytes(between)?;
        }
    }
}

async fn look<A: Api>(
    api: &A,
    path: &str,
    deadline: Duration,
    out: &mut Out,
) -> Result<(), Failure> {
    let text = api.request(request::Tree { path: path.to_owned() }, deadline).await?;
    if out.is_json() {
        out.line(&text)?;
    } else {
        let tree: TreeNode = serde_json::from_str(&text).map_err(|e| {
            Failure::new(Exit::NodeFault, format!("cannot read the tree of the node: {e}"))
        })?;
        let mut rows =
            vec![["TREE", "STATUS", "UPTIME", "RESTARTS", "MAIL"].map(ToOwned::to_owned).to_vec()];
        draw(&tree, "", "", &mut rows);
        out.bytes(out::columns(&rows).as_bytes())?;
    }
    out.flush()
}

fn draw(node: &TreeNode, branch: &str, indent: &str, rows: &mut Vec<Vec<String>>) {
    rows.push(vec![
        format!("{branch}{}", node.id),
        node.status.clone(),
        show_uptime(node.uptime_ms),
        node.restarts.to_string(),
        node.mailbox_depth.to_string(),
    ]);
    for (i, child) in node.children.iter().enumerate() {
        let last = i + 1 == node.children.len();
        let (tee, bar) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(child, &format!("{indent}{tee}"), &format!("{indent}{bar}"), rows);
    }
    // A supervisor of light tasks names the oldest of them only.
    let tasks = node.extra.get("tasks").and_then(Value::as_u64).unwrap_or(0);
    if let Some(more) = tasks.checked_sub(node.children.len() as u64).filter(|more| *more > 0) {
        let empty = std::iter::repeat_n(String::new(), 4);
        rows.push(std::iter::once(format!("{indent}   and {more} more")).chain(empty).collect());
    }
}

/// A time for people: the two largest units.
pub(crate) fn show_uptime(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// What is asked of the log, and how far it was read.
struct Query {
    path: Option<String>,
    events: Vec<Event>,
    since_ms: Option<u64>,
    after_seq: Option<u64>,
    limit: u32,
}

impl Query {
    fn new(args: &LogArgs) -> Result<Self, Failure> {
        let events = args.events.iter().map(|name| event(name)).collect::<Result<_, _>>()?;
        let since_ms = args.since.as_deref().map(|text| since(text, SystemTime::now()));
        Ok(Self {
            path: args.path.clone(),
            events,
            since_ms: since_ms.transpose().map_err(|e| Failure::new(Exit::Usage, e))?,
            after_seq: None,
            limit: args.limit,
        })
    }

    fn call(&self, wait_ms: u64) -> request::Log {
        request::Log {
            path: self.path.clone(),
            events: self.events.iter().map(|event| event.name().to_owned()).collect(),
            since_ms: self.since_ms,
            after_seq: self.after_seq,
            limit: self.limit,
            wait_ms,
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            path: self.path.clone(),
            events: self.events.clone(),
            since_ms: self.since_ms,
            after_seq: self.after_seq,
            limit: Some(usize::try_from(self.limit).unwrap_or(usize::MAX)),
        }
    }
}

fn event(name: &str) -> Result<Event, Failure> {
    name.parse().map_err(|e: weald_supervision::UnknownEvent| {
        let hint = nearest(name, Event::ALL.iter().map(|event| event.name()));
        let hint = hint.map_or_else(
            || format!("one of {}", Event::ALL.map(Event::name).join(", ")),
            |near| format!("did you mean {near}?"),
        );
        Failure::new(Exit::Usage, format!("{e}; {hint}"))
    })
}

/// A moment, as unix milliseconds: a time ago, or a date.
fn since(text: &str, now: SystemTime) -> Result<u64, String> {
    let moment = match humantime::parse_duration(text) {
        Ok(ago) => now.checked_sub(ago).unwrap_or(UNIX_EPOCH),
        Err(_) => humantime::parse_rfc3339_weak(text).map_err(|_not_a_moment| {
            format!("{text:?} is neither a time ago (10m) nor a moment (2026-01-31T12:00:00Z)")
        })?,
    };
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn log<A: Api>(
    api: &A,
    args: &LogArgs,
    log_dir: Option<&Path>,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let mut query = Query::new(args)?;
    let as_json = out.is_json() || args.format == LogForm::Json;
    let mut from_disk = false;
    let mut first = true;
    loop {
        let wait_ms = if args.follow && !first { WAIT_MS_MAX } else { 0 };
        let time = deadline + Duration::from_millis(wait_ms);
        let records = match api.request(query.call(wait_ms), time).await {
            Ok(page) => {
                if from_disk {
                    from_disk = false;
                    out::note("the node is up again");
                }
                if first || args.follow {
                    // Records that no filter lets through need not be looked at again.
                    let newest = page.records.last().and_then(|text| seq_of(text));
                    query.after_seq = newest.max(query.after_seq).or(Some(page.last_seq));
                }
                page.records
            }
            Err(error @ (ApiError::Unreachable(_) | ApiError::Unknown(_))) => {
                let Some(dir) = log_dir else { return Err(error.into()) };
                if !from_disk {
                    from_disk = true;
                    out::note(&format!("{error}; reading the log in {}", dir.display()));
                }
                let records = read_disk(dir, &mut query)?;
                if args.follow {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                records
            }
            Err(error) => return Err(error.into()),
        };
        for record in &records {
            out.line(&if as_json { record.clone() } else { show(record) })?;
        }
        out.flush()?;
        if !args.follow {
            return Ok(Exit::Ok);
        }
        first = false;
        query.limit = FOLLOW_RECORDS_MAX;
    }
}

fn seq_of(record: &str) -> Option<u64> {
    serde_json::from_str::<Value>(record).ok()?.get("seq")?.as_u64()
}

fn read_disk(dir: &Path, query: &mut Query) -> Result<Vec<String>, Failure> {
    let there = dir.try_exists().map_err(|e| Failure::file("read", dir, &e))?;
    if !there {
        let text = format!("there is no supervision log in {}", dir.display());
        return Err(Failure::new(Exit::Unreachable, text));
    }
    let records = SupervisionLog::read(dir, &query.filter())
        .map_err(|e| Failure::new(Exit::Io, format!("cannot read {}: {e}", dir.display())))?;
    if let Some(last) = records.last() {
        query.after_seq = Some(last.seq);
    }
    let text = |record| serde_json::to_string(record).unwrap_or_default();
    Ok(records.iter().map(text).collect())
}

/// A record for people; one that cannot be read stands as it is.
fn show(text: &str) -> String {
    let Ok(record) = serde_json::from_str::<LogRecord>(text) else { return text.to_owned() };
    let moment = UNIX_EPOCH + Duration::from_millis(record.ts_ms);
    let moment = humantime::format_rfc3339_millis(moment);
    let mut line = format!("{moment}  {:<19} {}", record.event, record.path);
    if let Some(reason) = &record.reason {
        line.push_str(&format!("  {reason}"));
    }
    // The fields that tell the most come first; `node` and `child` say nothing new here.
    for name in ["error", "location", "message_type", "restart_in_window", "restarts", "backoff_ms"]
    {
        match record.extra.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => line.push_str(&format!("  {name}={text:?}")),
            Some(value) => line.push_str(&format!("  {name}={value}")),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_is_drawn_with_branches() {
        let tree: TreeNode = serde_json::from_str(
            r#"{"path":"node","id":"node","kind":"supervisor","status":"running","uptime_ms":61000,"children":[
                {"path":"node/a","id":"a","kind":"supervisor","status":"running","children":[
                    {"path":"node/a/w","id":"w","kind":"worker","status":"restarting","restarts":2}]},
                {"path":"node/b","id":"b","kind":"worker","status":"running","mailbox_depth":7}]}"#,
        )
        .unwrap();
        let mut rows = Vec::new();
        draw(&tree, "", "", &mut rows);
        let expected = "\
node     running     1m 1s  0  0
├─ a     running     0ms    0  0
│  └─ w  restarting  0ms    2  0
└─ b     running     0ms    0  7
";
        assert_eq!(out::columns(&rows), expected);
    }

    #[test]
    fn tree_counts_the_tasks_it_does_not_name() {
        let tree: TreeNode = serde_json::from_str(
            r#"{"path":"s","id":"s","kind":"supervisor","status":"running","tasks":10000,"children":[
                {"path":"s/1","id":"1","kind":"worker","status":"running"}]}"#,
        )
        .unwrap();
        let mut rows = Vec::new();
        draw(&tree, "", "", &mut rows);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2][0], "   and 9999 more");
    }

    #[test]
    fn since_takes_a_time_ago_and_a_moment() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(since("10m", now), Ok(400_000));
        assert_eq!(since("1970-01-01T00:00:07Z", now), Ok(7000));
        assert!(since("yesterday", now).is_err());
    }

    #[test]
    fn unknown_event_gets_a_suggestion() {
        let failure = event("child_exitd").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("did you mean child_exited?"), "{failure}");
    }

    #[test]
    fn record_is_shown_on_one_line() {
        let line = show(
            r#"{"seq":1,"ts_ms":0,"node":"n","path":"node/a","event":"child_exited","reason":"panic","error":"boom\nx"}"#,
        );
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z  child_exited        node/a  panic  error=\"boom\\nx\""
        );
    }
}
