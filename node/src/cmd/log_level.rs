//! `log-level`: what the node logs, until it restarts.

use crate::api::Api;
use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::out::{self, Out};
use serde_json::json;
use std::time::Duration;
use weald_proto::request::SetLogLevel;

pub(crate) async fn run<A: Api>(
    api: &A,
    directives: String,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    // Checked here too: the better message comes without a node.
    logging::parse_directives(&directives).map_err(|e| Failure::new(Exit::Usage, e))?;
    api.request(SetLogLevel { directives: directives.clone() }, deadline).await?;
    if out.is_json() {
        out.json(&json!({ "log_level": directives }))?;
    } else {
        out::note(&format!("the node logs {directives} until it restarts"));
    }
    out.flush()?;
    Ok(Exit::Ok)
}
