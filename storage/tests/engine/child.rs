//! What the children do.

use std::io::Write as _;
use std::path::PathBuf;

use crate::support::{CHILD, CHILD_DIR};

/// The entry of a child; in the parent there is nothing to do.
#[test]
fn entry() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let dir = PathBuf::from(std::env::var_os(CHILD_DIR).unwrap());
    match what.as_str() {
        "check" => {
            let mut out = std::io::stdout();
            let code = weald_storage::check::run_child(&dir, &mut out).unwrap();
            writeln!(out).unwrap();
            leave(i32::from(code));
        }
        "write" => crate::crash::write_for_ever(&dir),
        other => panic!("unknown child {other}"),
    }
}

/// Ends the process at once, past the test runner.
#[expect(clippy::exit, reason = "a child has no other way to give an exit code")]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}
