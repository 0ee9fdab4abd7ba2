//! Turns Debian package records into JSON lines for `weald import`.
//!
//! Usage: `dpkg2jsonl [FILE] > packages.jsonl`; without a file, `/var/lib/dpkg/status`; `-` reads standard input.

use anyhow::{Context, Result};
use std::io::{Read, Write};

fn main() -> Result<()> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "/var/lib/dpkg/status".to_owned());
    let mut bytes = Vec::new();
    if file == "-" {
        std::io::stdin().read_to_end(&mut bytes).context("read standard input")?;
    } else {
        bytes = std::fs::read(&file).with_context(|| format!("read {file}"))?;
    }
    let lines = weald_tests::dataset::jsonl(&String::from_utf8_lossy(&bytes))
        .with_context(|| format!("convert {file}"))?;
    match std::io::stdout().write_all(lines.as_bytes()) {
        // The reader has seen enough, as `head` does.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("write output"),
    }
}
