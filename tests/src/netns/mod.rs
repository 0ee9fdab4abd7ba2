//! A network of its own for each node: namespaces, joined by a switch that is in a namespace, too.
//!
//! What it is: node `k` gets the address 10.77.0.(k+1) in its namespace; nothing is changed outside the namespaces that are
//! made here. One direction is cut by sending its packets to a hardware address that nobody has: they are lost silently, as
//! with a packet filter that drops, and no packet filter is needed. Speed is limited by `tbf` queues.
//!
//! Guarantees: namespaces go when the network is dropped, also by a panic; those that a killed test has left go when the next
//! network is made. Where any of this is not allowed, [`Network::new`] says why.
//!
//! Refuses: delay and loss per packet (not every kernel has `netem`): the proxy does that.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use thiserror::Error;

/// The hardware address that nobody has.
const NOBODY: &str = "02:77:ff:ff:ff:ff";
/// First part of all names here.
const PREFIX: &str = "weald";

/// No namespaces here, and why.
#[derive(Debug, Error)]
#[error("network namespaces cannot be used: {0}")]
pub struct Unavailable(String);

/// Nodes on a switch.
#[derive(Debug)]
pub struct Network {
    tag: String,
    nodes: usize,
}

fn run(program: &str, args: &[&str]) -> Result<String, Unavailable> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|e| Unavailable(format!("run {program}: {e}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Unavailable(format!("{program} {}: {}", args.join(" "), said.trim())))
}

/// Runs commands of `ip` in one go.
fn ip(args: &str) -> Result<String, Unavailable> {
    run("ip", &args.split_whitespace().collect::<Vec<_>>())
}

fn remove_stale() {
    let Ok(names) = ip("netns list") else { return };
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    for name in names {
        let mut parts = name.split('-');
        let ours = parts.next() == Some(PREFIX);
        let Some(pid) = parts.next().and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let gone = matches!(std::fs::exists(format!("/proc/{pid}")), Ok(false));
        if ours && gone {
            // Another test may just do the same.
            ip(&format!("netns del {name}")).ok();
        }
    }
}

impl Network {
    /// So many nodes, all connected.
    ///
    /// # Errors
    /// [`Unavailable`]; nothing is left behind.
    pub fn new(nodes: usize) -> Result<Self, Unavailable> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{PREFIX}-{}-{number}", std::process::id());
        // From here on dropping it cleans up.
        let network = Self { tag, nodes };
        let switch = network.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for node in 0..nodes {
            network.add(node)?;
        }
        for (from, to) in network.pairs() {
            network.heal_one(from, to)?;
        }
        Ok(network)
    }

    fn add(&self, node: usize) -> Result<(), Unavailable> {
        let (switch, name) = (self.switch(), self.name(node));
        let (address, hardware) = (self.address(node), hardware(node));
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add p{node} netns {switch} type veth peer name eth0 netns {name} address {hardware}"
        ))?;
        ip(&format!("-n {switch} link set p{node} master br0 up"))?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        Ok(())
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let nodes = self.nodes;
        (0..nodes).flat_map(move |a| (0..nodes).filter(move |b| *b != a).map(move |b| (a, b)))
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.tag)
    }

    fn name(&self, node: usize) -> String {
        format!("{}-n{node}", self.tag)
    }

    /// Where a node is.
    ///
    /// # Panics
    /// From the 254th node on.
    #[must_use]
    pub fn address(&self, node: usize) -> Ipv4Addr {
        let last = u8::try_from(node + 1).unwrap_or_else(|e| panic!("node {node}: {e}"));
        Ipv4Addr::new(10, 77, 0, last)
    }

    /// The command that runs in the namespace of a node what follows it. The process keeps its id.
    #[must_use]
    pub fn enter(&self, node: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name(node)), "--".to_owned()]
    }

    fn route(&self, from: usize, to: usize, hardware: &str) -> Result<(), Unavailable> {
        let (name, to) = (self.name(from), self.address(to));
        ip(&format!("-n {name} neigh replace {to} lladdr {hardware} dev eth0 nud permanent"))?;
        Ok(())
    }

    /// Loses all packets of one direction.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn cut(&self, from: usize, to: usize) -> Result<(), Unavailable> {
        self.route(from, to, NOBODY)
    }

    /// Ends that.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn heal_one(&self, from: usize, to: usize) -> Result<(), Unavailable> {
        self.route(from, to, &hardware(to))
    }

    /// Ends all cuts and limits.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn heal(&self) -> Result<(), Unavailable> {
        for (from, to) in self.pairs() {
            self.heal_one(from, to)?;
        }
        (0..self.nodes).try_for_each(|node| self.limit(node, None))
    }

    /// Limits the speed of a node in both directions, in kbit/s; or no longer.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn limit(&self, node: usize, kbit: Option<u32>) -> Result<(), Unavailable> {
        let ends = [(self.name(node), "eth0".to_owned()), (self.switch(), format!("p{node}"))];
        for (name, device) in ends {
            let args = match kbit {
                Some(kbit) => format!(
                    "-n {name} qdisc replace dev {device} root tbf rate {kbit}kbit burst 4kb latency 400ms"
                ),
                None => format!("-n {name} qdisc replace dev {device} root noqueue"),
            };
            run("tc", &args.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

fn hardware(node: usize) -> String {
    format!("02:77:00:00:00:{:02x}", node + 1)
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (0..self.nodes).map(|node| self.name(node)).chain([self.switch()]) {
            // It may have failed before this one was made.
            ip(&format!("netns del {name}")).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a ping of `from` is answered by `to`: both directions are needed.
    fn answers(network: &Network, from: usize, to: usize) -> bool {
        let enter = network.enter(from);
        // Not every machine has ping; bash opens connections, and a refusal is an answer, too.
        let script = format!("exec 3<>/dev/tcp/{}/9", network.address(to));
        let out = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["timeout", "0.5", "bash", "-c", &script])
            .output()
            .unwrap();
        out.status.code() != Some(124)
    }

    #[test]
    fn directions_are_cut_and_healed_and_nothing_is_left() {
        let network = match Network::new(3) {
            Ok(network) => network,
            Err(why) => return eprintln!("SKIPPED: {why}"),
        };
        assert!(answers(&network, 0, 1) && answers(&network, 2, 0));
        network.cut(0, 1).unwrap();
        assert!(!answers(&network, 0, 1) && !answers(&network, 1, 0) && answers(&network, 2, 1));
        network.heal().unwrap();
        assert!(answers(&network, 0, 1));
        network.limit(1, Some(64)).unwrap();
        assert!(answers(&network, 0, 1));
        network.limit(1, None).unwrap();
        let tag = network.tag.clone();
        assert!(ip("netns list").unwrap().contains(&tag));
        drop(network);
        assert!(!ip("netns list").unwrap().contains(&tag));
    }

    #[test]
    fn network_goes_with_a_panic() {
        let tag = std::panic::catch_unwind(|| {
            let network = Network::new(1).ok();
            let tag = network.as_ref().map(|network| network.tag.clone());
            std::panic::resume_unwind(Box::new(tag));
        });
        let tag = tag.unwrap_err().downcast::<Option<String>>().unwrap();
        if let Some(tag) = *tag {
            assert!(!ip("netns list").unwrap().contains(&tag));
        }
    }
}
