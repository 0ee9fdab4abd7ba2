//! The progress of a transfer, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// A progress bar on stderr, if a person looks at it.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar over so many bytes; a counter when the size is unknown.
    pub(crate) fn bytes(total: Option<u64>) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(
                "{bar:30} {bytes}/{total_bytes}  {msg}  {bytes_per_sec}  {eta} left",
            )),
            None => Self::counter("{spinner} {bytes}  {msg}  {elapsed}"),
        };
        Self::shown(bar)
    }

    /// A counter of entries.
    pub(crate) fn entries() -> Self {
        Self::shown(Self::counter("{spinner} {pos} entries  {msg}  {per_sec}  {elapsed}"))
    }

    fn counter(template: &str) -> ProgressBar {
        ProgressBar::no_length().with_style(style(template))
    }

    fn shown(bar: ProgressBar) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        bar.set_draw_target(target);
        Self(bar)
    }

    /// Where the transfer stands.
    pub(crate) fn at(&self, position: u64, message: String) {
        self.0.set_position(position);
        self.0.set_message(message);
    }

    /// Prints a line above the bar.
    pub(crate) fn note(&self, text: &str) {
        self.0.suspend(|| crate::out::note(text));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a wrong one costs the look only.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
