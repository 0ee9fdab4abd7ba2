//! The check of a partition in a process of its own: `weald __check-env PATH`.
//!
//! A damaged LMDB file can end the process that reads it (SIGBUS beyond the end of the file, an assertion in LMDB), so the node
//! does not read one it does not trust: it starts itself again for that. What the child says, and what its end means, is
//! [`weald_storage::check`]'s; here is how it is run, and that it is killed when it takes too long.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use weald_storage::CheckVerdict;
use weald_storage::check;

/// How often it is looked whether the check is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// In the child: checks and reports. Gives the exit code.
pub(crate) fn run_here(path: &Path) -> u8 {
    /// Whatever is no verdict.
    const NO_VERDICT: u8 = 70;
    check::run_child(path, &mut io::stdout().lock()).unwrap_or(NO_VERDICT)
}

/// In the node: runs the child.
///
/// # Errors
/// When the child cannot be run, takes too long, or is ended from outside, all of which says nothing about the data.
pub(crate) fn run_child(
    program: &Path,
    path: &Path,
    limit: Duration,
    is_stopping: &dyn Fn() -> bool,
) -> io::Result<CheckVerdict> {
    let mut child = Command::new(program)
        .arg("__check-env")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let stdout = child.stdout.take();
    let (tell, told) = mpsc::sync_channel(1);
    // The end of its output is the end of the child, and unlike the latter can be waited for with a limit.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut text));
        tell.send(read.map(|_| text)).ok();
    });
    let until = Instant::now() + limit;
    let text = loop {
        match told.recv_timeout(LOOK_EVERY) {
            Ok(text) => break Some(text),
            Err(_) if Instant::now() >= until || is_stopping() => break None,
            Err(_) => {}
        }
    };
    if text.is_none() {
        child.kill()?;
    }
    let status = child.wait()?;
    let Some(text) = text else {
        let text = format!("the check was stopped; storage.check_timeout is {limit:?}");
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    };
    if is_from_outside(status) {
        return Err(io::Error::other(format!("the check was ended from outside: {status}")));
    }
    check::verdict_of_child(status, &text?)
}

/// Signals of the operator, or of the kernel for want of memory: moving data to quarantine over one would be wrong.
fn is_from_outside(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const SIGNALS: [i32; 4] = [1, 2, 9, 15]; // SIGHUP, SIGINT, SIGKILL, SIGTERM
    status.signal().is_some_and(|signal| SIGNALS.contains(&signal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn child(script: &str, limit: Duration) -> io::Result<CheckVerdict> {
        child_while(script, limit, &|| false)
    }

    fn child_while(
        script: &str,
        limit: Duration,
        is_stopping: &dyn Fn() -> bool,
    ) -> io::Result<CheckVerdict> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        run_child(&program, dir.path(), limit, is_stopping)
    }

    #[test]
    fn verdicts_and_ends_of_the_child_are_read() {
        let limit = Duration::from_secs(20);
        let sound = child("echo '{\"verdict\":\"sound\",\"rows\":3,\"ms\":1}'", limit);
        assert_eq!(sound.unwrap(), CheckVerdict::Sound { rows: 3, ms: 1 });
        let damaged = child("echo '{\"verdict\":\"damaged\",\"why\":\"x\"}'; exit 3", limit);
        assert_eq!(damaged.unwrap(), CheckVerdict::Damaged { why: "x".to_owned() });
        assert!(matches!(child("kill -BUS $$", limit).unwrap(), CheckVerdict::Damaged { .. }));
        assert!(child("kill -KILL $$", limit).is_err());
        assert!(child("exit 70", limit).is_err());
    }

    #[test]
    fn endless_check_is_killed() {
        let error = child("exec sleep 600", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
    #[test]
    fn check_of_a_node_that_stops_is_killed() {
        let error = child_while("exec sleep 600", Duration::from_secs(600), &|| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
