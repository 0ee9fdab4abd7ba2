//! Files that make machines nodes of one cluster: the authority, and a directory for each node.
//!
//! # Shape
//! `ca.pem` and `ca.key` beside one directory per node with `node.pem`, `node.key`, `ca.pem` and, unless the caller has a
//! place of its own for it, `weald.toml`. Keys have mode 0600, directories 0700.
//!
//! Guarantees: nothing that is there is overwritten; everything is checked before anything is made; a node's directory
//! appears complete or not at all. Refuses: to go on with half of an authority, or with that of another cluster.

mod node_file;
mod spec;

pub(crate) use node_file::{NodeFile, Tls};
pub(crate) use spec::NodeSpec;

use crate::exit::{Exit, Failure};
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use weald_link::pki::{self, Authority, Bundle, PkiError};

/// The authority's certificate.
pub(crate) const CA_CERTIFICATE: &str = "ca.pem";
/// The authority's private key.
pub(crate) const CA_KEY: &str = "ca.key";
/// A node's certificate.
pub(crate) const NODE_CERTIFICATE: &str = "node.pem";
/// A node's private key.
pub(crate) const NODE_KEY: &str = "node.key";
/// A node's configuration.
pub(crate) const NODE_CONFIG: &str = "weald.toml";

/// Who may read a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    Anybody,
    Owner,
}

/// The authority in a directory, made with the directory if there is none.
pub(crate) fn authority(dir: &Path, cluster: &str) -> Result<Authority, Failure> {
    let (certificate, key) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
    match (is_there(&certificate)?, is_there(&key)?) {
        (true, true) => Ok(Authority { cert_pem: read(&certificate)?, key_pem: read(&key)? }),
        (false, false) => {
            let authority = pki::make_authority(cluster).map_err(|e| pki_failure(&e))?;
            make_dir(dir).map_err(|e| Failure::file("create", dir, &e))?;
            write_new(&key, &authority.key_pem, Access::Owner)?;
            write_new(&certificate, &authority.cert_pem, Access::Anybody)?;
            Ok(authority)
        }
        (has_certificate, _) => {
            let missing = if has_certificate { &key } else { &certificate };
            let text = format!(
                "{} is not there: put back what belongs beside it, or use another directory for a new cluster",
                missing.display()
            );
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

/// Whether a directory may be made for this node.
pub(crate) fn check_free(dir: &Path, node: &str) -> Result<(), Failure> {
    let path = dir.join(node);
    if is_there(&path)? {
        let text = format!(
            "{} is there already; it is not overwritten: remove it to make node {node} anew",
            path.display()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(())
}

/// Issues a node's certificate.
pub(crate) fn issue(
    authority: &Authority,
    cluster: &str,
    node: &str,
    hosts: &[String],
) -> Result<Bundle, Failure> {
    pki::issue(authority, cluster, node, hosts).map_err(|e| pki_failure(&e))
}

/// Writes a node's directory; gives its path.
pub(crate) fn write_node(
    dir: &Path,
    node: &str,
    authority: &Authority,
    bundle: &Bundle,
    config: Option<&str>,
) -> Result<PathBuf, Failure> {
    let path = dir.join(node);
    check_free(dir, node)?;
    let hidden = dir.join(format!(".{node}.{}", std::process::id()));
    let written = fill(&hidden, authority, bundle, config).and_then(|()| {
        // Fails when somebody else has made it meanwhile, as it is not empty then.
        std::fs::rename(&hidden, &path).map_err(|e| Failure::file("create", &path, &e))
    });
    if written.is_err() {
        // What is left of it is hidden, and in nobody's way.
        std::fs::remove_dir_all(&hidden).ok();
    }
    written.map(|()| path)
}

fn fill(
    dir: &Path,
    authority: &Authority,
    bundle: &Bundle,
    config: Option<&str>,
) -> Result<(), Failure> {
    make_dir(dir).map_err(|e| Failure::file("create", dir, &e))?;
    write_new(&dir.join(NODE_KEY), &bundle.key_pem, Access::Owner)?;
    write_new(&dir.join(NODE_CERTIFICATE), &bundle.cert_pem, Access::Anybody)?;
    write_new(&dir.join(CA_CERTIFICATE), &authority.cert_pem, Access::Anybody)?;
    match config {
        Some(config) => write_new(&dir.join(NODE_CONFIG), config, Access::Anybody),
        None => Ok(()),
    }
}

/// Writes a file that must not be there yet, and syncs it.
pub(crate) fn write_new(path: &Path, text: &str, access: Access) -> Result<(), Failure> {
    let mode = match access {
        Access::Anybody => 0o644,
        Access::Owner => 0o600,
    };
    let made = File::options().write(true).create_new(true).mode(mode).open(path);
    let written = made.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|e| Failure::file("write", path, &e))
}

/// Makes a directory with its parents, for its owner only.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::file("read", path, &e))
}

pub(crate) fn is_there(path: &Path) -> Result<bool, Failure> {
    path.try_exists().map_err(|e| Failure::file("look at", path, &e))
}

fn pki_failure(error: &PkiError) -> Failure {
    match error {
        PkiError::Authority { cluster, .. } => Failure::new(
            Exit::Usage,
            format!(
                "{error}; give the name of the authority's cluster with --cluster, or another directory \
                 for cluster {cluster:?}"
            ),
        ),
        PkiError::Make(_) => Failure::new(Exit::Io, error.to_string()),
        _ => Failure::new(Exit::Usage, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn authority_is_made_once_and_half_of_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("pki");
        let first = authority(&dir, "blue").unwrap();
        assert_eq!(authority(&dir, "blue").unwrap(), first);
        assert_eq!(dir.join(CA_KEY).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // That of another cluster is noticed when something is issued.
        let red = issue(&first, "red", "a", &[]).unwrap_err();
        assert!(red.exit == Exit::Usage && red.message.contains("--cluster"), "{red}");
        std::fs::remove_file(dir.join(CA_KEY)).unwrap();
        assert!(authority(&dir, "blue").unwrap_err().message.contains("ca.key is not there"));
    }

    #[test]
    fn node_directory_is_complete_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path(), "blue").unwrap();
        let bundle = issue(&authority, "blue", "a", &[]).unwrap();
        let path = write_node(dir.path(), "a", &authority, &bundle, Some("[node]\n")).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(NODE_KEY))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 4);
        let again = write_node(dir.path(), "a", &authority, &bundle, None).unwrap_err();
        assert!(again.message.contains("not overwritten"), "{again}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left behind");
    }
}
