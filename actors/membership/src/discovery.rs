//! Where members may be found: fixed addresses and DNS names.
//!
//! What it guarantees: an answer only ever adds addresses to be dialled. An empty or wrong one, a failing lookup, or one's own
//! address change nothing.
//!
//! What it refuses: deciding who is dialled (the core leaves out whoever is reached already).

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;
use weald_storage::NodeId;
use weald_supervision::ChildSpec;

use crate::handle::MembershipHandle;
use crate::rng::Rng;
use crate::srv;

/// Longest wait for one answer. // Partisan
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// Most addresses of one round. // guess
const ADDRESSES_MAX: usize = 64;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Addresses, `host:port`.
    pub addresses: Vec<String>,
    /// Names: `host:port` is looked up as A and AAAA, `_service._proto.domain` as SRV.
    pub dns: Vec<String>,
    /// Time between rounds, give or take a quarter.
    pub period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        // Bondy page: 10 s.
        Self { addresses: Vec::new(), dns: Vec::new(), period: Duration::from_secs(10) }
    }
}

/// Why a name gave no addresses.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The system's resolver failed.
    #[error("look up {name}: {source}")]
    Host {
        /// The name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The query for service records failed.
    #[error("look up {name}: {source}")]
    Service {
        /// The name.
        name: String,
        /// Why.
        source: srv::SrvError,
    },
    /// No answer in time.
    #[error("look up {name}: no answer in time")]
    Timeout {
        /// The name.
        name: String,
    },
}

/// The `discovery` child: a task that looks in every period. Nothing runs when there is nowhere to look.
#[must_use]
pub fn child_spec(handle: &MembershipHandle, config: Config) -> ChildSpec {
    let handle = handle.clone();
    ChildSpec::task("discovery", move |context| {
        let (handle, config) = (handle.clone(), config.clone());
        async move {
            tokio::select! {
                // Whichever ends first: cancelling is the only way out.
                () = context.cancelled() => Ok(()),
                result = run(handle, config) => result.map_err(Into::into),
            }
        }
    })
}

async fn run(handle: MembershipHandle, config: Config) -> std::io::Result<()> {
    let random = NodeId::random()?.0;
    let mut rng = Rng::new(u64::from_be_bytes([
        random[0], random[1], random[2], random[3], random[4], random[5], random[7], random[9],
    ]));
    let period_ms = u64::try_from(config.period.as_millis()).unwrap_or(u64::MAX);
    let mut failing: BTreeSet<String> = BTreeSet::new();
    loop {
        let mut found: BTreeSet<String> = config.addresses.iter().cloned().collect();
        for name in &config.dns {
            match lookup(name).await {
                Ok(addresses) => {
                    failing.remove(name);
                    found.extend(addresses);
                }
                // Once per outage.
                Err(error) if failing.insert(name.clone()) => {
                    tracing::warn!(event = "discovery_failed", %error, "looked up in vain");
                }
                Err(_known) => {}
            }
        }
        if !found.is_empty() {
            handle.discovered(found.into_iter().take(ADDRESSES_MAX).collect());
        }
        tokio::time::sleep(Duration::from_millis(rng.jitter(period_ms.max(100), 25))).await;
    }
}

/// The addresses behind a name of [`Config::dns`].
///
/// # Errors
/// [`LookupError`].
pub async fn lookup(name: &str) -> Result<Vec<String>, LookupError> {
    let looking = async {
        if name.starts_with('_') {
            let targets = srv::resolve(name).await;
            let targets =
                targets.map_err(|source| LookupError::Service { name: name.to_owned(), source })?;
            return Ok(targets.iter().map(ToString::to_string).collect());
        }
        let found = tokio::net::lookup_host(name).await;
        let found = found.map_err(|source| LookupError::Host { name: name.to_owned(), source })?;
        Ok(found.map(|address| address.to_string()).collect())
    };
    let in_time = tokio::time::timeout(LOOKUP_TIME, looking).await;
    in_time.unwrap_or_else(|_late| Err(LookupError::Timeout { name: name.to_owned() }))
}
