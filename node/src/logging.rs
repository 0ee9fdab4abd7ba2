//! The log on stderr.
//!
//! Guarantees: one line per event, for people on a terminal and as JSON elsewhere; the level changes at run time. Refuses:
//! files and rotation, which belong to the service manager.

use crate::config::log::Format;
use std::io::IsTerminal;
use std::sync::Arc;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// The actor library opens a span per actor and tells of every start, which the supervision events say better. Directives of
/// the user for the same targets win, since they come later.
const QUIET: &str = "ractor=error,ractor_cluster=error";

/// Changes what is logged while the node runs.
#[derive(Debug, Clone)]
pub(crate) struct LevelHandle(Arc<reload::Handle<EnvFilter, Registry>>);

impl LevelHandle {
    /// Puts other directives in force.
    pub(crate) fn set(&self, directives: &str) -> Result<(), String> {
        let filter = parse_directives(directives)?;
        self.0.reload(filter).map_err(|e| e.to_string())
    }
}

/// Reads filter directives, as `info,weald_storage=debug`.
pub(crate) fn parse_directives(text: &str) -> Result<EnvFilter, String> {
    let refused = |why: String| {
        format!(
            "{text:?} is not a log level such as \"info\" or \"info,weald_storage=debug\": {why}"
        )
    };
    if text.trim().is_empty() {
        return Err(refused("it is empty".to_owned()));
    }
    for directive in text.split(',').map(str::trim) {
        // A bare word that is no level would be taken for the name of a module: a slip in a level must not pass as one.
        let is_word = !directive.contains(['=', '[', ':']);
        let is_level = !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
        if is_word && !is_level && !directive.contains('_') {
            return Err(refused(format!("{directive:?} is not a level")));
        }
    }
    EnvFilter::builder().parse(format!("{QUIET},{text}")).map_err(|e| refused(e.to_string()))
}

/// Starts logging.
pub(crate) fn init(directives: &str, format: Format) -> Result<LevelHandle, String> {
    let (filter, handle) = reload::Layer::new(parse_directives(directives)?);
    let terminal = std::io::stderr().is_terminal();
    let human = match format {
        Format::Auto => terminal,
        Format::Human => true,
        Format::Json => false,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = if human {
        lines.with_ansi(terminal).with_target(true).boxed()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_ansi(false)
            .boxed()
    };
    Registry::default().with(filter).with(lines).try_init().map_err(|e| e.to_string())?;
    Ok(LevelHandle(Arc::new(handle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_checked() {
        for text in
            ["info", "off", "DEBUG", "info,weald_storage=debug", "warn,weald_cluster::gate=trace"]
        {
            assert!(parse_directives(text).is_ok(), "{text}");
        }
        for text in ["", "inof", "info,weald_storage=loud", "info,,"] {
            assert!(parse_directives(text).is_err(), "{text}");
        }
    }
}
