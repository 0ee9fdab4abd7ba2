//! Credential files of clients.
//!
//! # Shape
//! One line: `weald-client:<name>:<64 hexadecimal digits of the Ed25519 seed>`.
//!
//! Guarantees: a file is created for its owner only (mode 0600) and never overwritten.

use crate::text;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use weald_proto::request::Credential;

/// The line of a credential.
pub(crate) fn line(credential: &Credential) -> String {
    format!("weald-client:{}:{}", credential.name, text::hex(&credential.secret))
}

/// Writes a line to a new file.
pub(crate) fn write_new(path: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{line}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn file_is_private_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.key");
        let credential = Credential { name: "me".into(), secret: vec![0xAB; 32] };
        write_new(&path, &line(&credential)).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let expected = format!("weald-client:me:{}\n", "ab".repeat(32));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        let again = write_new(&path, "x").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }
}
