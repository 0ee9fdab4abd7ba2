//! What a person sees when the node is up.

use serde_json::Value;
use std::path::Path;

/// A few lines: what runs, where, and what to type next.
pub(crate) fn text(status: &Value, data_dir_given: &Path) -> String {
    let field = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or("-");
    let dir = data_dir_given.display();
    // Commands find the default directory by themselves.
    let default = crate::config::Config::default().node.data_dir;
    let flag = if data_dir_given == default { String::new() } else { format!(" --data-dir {dir}") };
    format!(
        "\
weald {} is up: node {}, process {}
  data          {}
  cluster port  {} (Rust clients; credential {dir}/client.key)

  Next, in another terminal:
    weald{flag} status
    weald{flag} put greetings hello '\"world\"'
    weald{flag} supervision tree
",
        field("/version"),
        field("/node"),
        status["pid"],
        field("/data_dir"),
        field("/listen/cluster"),
    )
}
