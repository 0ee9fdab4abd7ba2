//! The node at the other end: over its local socket, or over the network with a credential.
//!
//! Guarantees: connects at the first request and not before, so that a command that repeats its requests also waits for a node
//! that is not up yet.

use crate::api::{Api, ApiError};
use crate::args::Global;
use crate::config::load::DATA_DIR_VARIABLE;
use crate::exit::{Exit, Failure};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::UnixStream;
use weald_client::{Client, Credential, Error};
use weald_proto::request::Call;
use weald_proto::{ErrorCode, WireError};

/// Name of the socket in the data directory.
pub(crate) const SOCKET: &str = "weald.sock";

/// Where the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// On this machine.
    Local(PathBuf),
    /// Somewhere.
    Network {
        /// Its address.
        node: String,
        /// File of the credential.
        key: PathBuf,
        /// File of the authorities to trust; none: no TLS.
        authorities: Option<PathBuf>,
    },
}

impl Target {
    /// What the flags and the environment say.
    pub(crate) fn of(global: &Global) -> Result<Self, Failure> {
        match (&global.node, &global.key_file) {
            (Some(node), Some(key)) => Ok(Self::Network {
                node: node.clone(),
                key: key.clone(),
                authorities: global.authorities.clone(),
            }),
            (Some(_), None) => {
                Err(Failure::new(Exit::Usage, "--node needs --key FILE, a client credential"))
            }
            (None, Some(_)) => Err(Failure::new(Exit::Usage, "--key is for --node HOST:PORT")),
            (None, None) => Ok(Self::Local(data_dir(global))),
        }
    }

    /// The data directory, when the node is on this machine.
    pub(crate) fn data_dir(&self) -> Option<&Path> {
        match self {
            Self::Local(dir) => Some(dir),
            Self::Network { .. } => None,
        }
    }
}

fn data_dir(global: &Global) -> PathBuf {
    let variable = || {
        let key = crate::config::keys::find("node.data_dir").map(|key| key.variable());
        let long = key.and_then(std::env::var_os);
        long.or_else(|| std::env::var_os(DATA_DIR_VARIABLE)).map(PathBuf::from)
    };
    let default = || crate::config::Config::default().node.data_dir;
    global.data_dir.clone().or_else(variable).unwrap_or_else(default)
}

/// The node.
pub(crate) struct Remote {
    target: Target,
    client: OnceLock<Client>,
}

impl Remote {
    /// A node that is not connected to yet.
    pub(crate) fn new(target: Target) -> Self {
        Self { target, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Client, ApiError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let builder = match &self.target {
            Target::Local(dir) => Client::builder().unix(dir.join(SOCKET)),
            Target::Network { node, key, authorities } => {
                let credential = Credential::read(key).map_err(|e| {
                    ApiError::Refused(format!("cannot use the credential {}: {e}", key.display()))
                })?;
                let builder = Client::builder().address(node.as_str()).credential(credential);
                match authorities {
                    Some(file) => builder.tls(file),
                    None => builder,
                }
            }
        };
        let client = builder.start().map_err(api_error)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Says at once that nobody listens on the socket: the client would go on trying until the deadline.
    async fn probe(&self, client: &Client) -> Result<(), ApiError> {
        let Target::Local(dir) = &self.target else { return Ok(()) };
        if client.is_connected() {
            return Ok(());
        }
        match UnixStream::connect(dir.join(SOCKET)).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                let dir = dir.display();
                Err(ApiError::Refused(format!("only the owner of {dir} may use its socket ({e})")))
            }
            Err(e) => Err(ApiError::Unreachable(format!(
                "no node answers in {}; is it running, and is --data-dir right? ({e})",
                dir.display()
            ))),
        }
    }
}

impl Api for Remote {
    async fn request<C: Call>(&self, call: C, deadline: Duration) -> Result<C::Reply, ApiError> {
        let client = self.client()?;
        self.probe(client).await?;
        client.request(call, deadline).await.map_err(api_error)
    }
}

fn api_error(error: Error) -> ApiError {
    let text = error.to_string();
    match error {
        Error::Unreachable { .. } => ApiError::Unreachable(text),
        Error::Refused(_) => ApiError::Refused(text),
        Error::TimedOut(_) => ApiError::Unknown(text),
        other => {
            let code = other.code().unwrap_or(ErrorCode::Internal);
            ApiError::Node(WireError::new(code, text))
        }
    }
}
