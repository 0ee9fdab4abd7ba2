//! Who a client is, and its key file.

use ed25519_dalek::{Signer, SigningKey};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use thiserror::Error;

/// First word of a key file.
const PREFIX: &str = "weald-client";
/// Longest key file: a name of 255 bytes and what is around it.
const FILE_BYTES_MAX: u64 = 1024;

/// A client's name and its secret key. The node knows the public half only.
///
/// # Shape
/// A key file is one line, `weald-client:<name>:<64 hex digits of the Ed25519 seed>`, readable by its owner only.
#[derive(Clone)]
pub struct Credential {
    pub(crate) name: String,
    pub(crate) key: SigningKey,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a key file is of no use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It cannot be read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("key file {path} has mode {mode:o}, others may read it: run `chmod 600 {path}`")]
    Mode {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is not a key file.
    #[error("{path} is not a key file: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Credential {
    /// From a name and the 32 bytes of its secret, as the node gave them.
    #[must_use]
    pub fn new(name: impl Into<String>, secret: &[u8; 32]) -> Self {
        Self { name: name.into(), key: SigningKey::from_bytes(secret) }
    }

    /// A new random key: for tests, and for nodes that make one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(name: impl Into<String>) -> io::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self::new(name, &secret))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`CredentialError`], also when the file's mode lets others read it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CredentialError> {
        let path = path.as_ref();
        let shown = || path.display().to_string();
        let failed = |source| CredentialError::Io { path: shown(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(CredentialError::Mode { path: shown(), mode });
        }
        let mut line = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut line).map_err(failed)?;
        Self::parse(line.trim_end())
            .map_err(|reason| CredentialError::Malformed { path: shown(), reason })
    }

    /// Writes a new key file, mode 0600. A file that is there is not overwritten.
    ///
    /// # Errors
    /// [`CredentialError::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), CredentialError> {
        let path = path.as_ref();
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(self.line().as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| CredentialError::Io { path: path.display().to_string(), source })
    }

    /// The client's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half, which the node keeps.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Signs bytes, as the handshake does.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }

    fn line(&self) -> String {
        let seed: String = self.key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}:{}:{seed}\n", self.name)
    }

    fn parse(line: &str) -> Result<Self, &'static str> {
        let rest = line.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(':'));
        let (name, seed) = rest
            .ok_or("it does not begin with `weald-client:`")?
            .rsplit_once(':')
            .ok_or("it has no key")?;
        let digits = seed.as_bytes();
        if name.is_empty() {
            return Err("it has no name");
        }
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("the key is not 64 hex digits");
        }
        let mut secret = [0; 32];
        for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or("the key is not 64 hex digits")?;
        }
        Ok(Self::new(name, &secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_file_round_trips_and_refuses_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.key");
        let credential = Credential::generate("app:1").unwrap();
        credential.write(&path).unwrap();
        let read = Credential::read(&path).unwrap();
        assert_eq!((read.name(), read.public_key()), ("app:1", credential.public_key()));
        assert!(matches!(credential.write(&path), Err(CredentialError::Io { .. })));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Credential::read(&path), Err(CredentialError::Mode { mode: 0o644, .. })));
        for line in ["", "x", "weald-client:a", "weald-client:a:12", "weald-client::"] {
            assert!(Credential::parse(line).is_err(), "{line}");
        }
        assert!(Credential::parse(&format!("weald-client:a:{}", "+1".repeat(32))).is_err());
    }
}
