//! What joins the nodes of a cluster under test: loopback, loopback through a proxy, or namespaces.

use crate::netns::Network;
use crate::proxy::source::holder;
use crate::proxy::{Bundle, Fabric, Faults, Flow};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How nodes are to be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// On loopback, no faults.
    Direct,
    /// On loopback through the proxy: every fault of it.
    Proxy,
    /// In namespaces: packets are lost, and nodes slow. Where that is not allowed, through the proxy.
    Namespaces,
}

/// Process ids of nodes, by which the proxy knows them.
type Pids = Arc<Mutex<Vec<Option<u32>>>>;

/// The way between the nodes.
#[derive(Debug)]
pub struct Wires {
    port: u16,
    pids: Pids,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Direct,
    Proxy { fabric: Fabric, doors: Vec<SocketAddr> },
    Namespaces(Network),
}

/// Ports of clusters of this process; addresses on loopback differ from process to process, so that nothing collides.
static PORT: AtomicU16 = AtomicU16::new(18_086);

fn loopback(node: usize) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let last = u8::try_from(node + 1).unwrap_or_else(|e| panic!("node {node}: {e}"));
    Ipv4Addr::new(127, 64 | high & 63, low, last)
}

impl Wires {
    /// For so many nodes. Says on standard error what it does in place of what was asked for.
    #[must_use]
    pub fn new(wire: Wire, nodes: usize, seed: u64) -> Self {
        let pids: Pids = Arc::new(Mutex::new(vec![None; nodes]));
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let proxy = || {
            let known = Arc::clone(&pids);
            let fabric = Fabric::new(
                seed,
                Arc::new(move |peer| {
                    let pids = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let among: Vec<u32> = pids.iter().flatten().copied().collect();
                    let pid = holder(peer, &among)?;
                    pids.iter().position(|one| *one == Some(pid))
                }),
            );
            let doors = (0..nodes).map(|node| fabric.open(node)).collect();
            (0..nodes).for_each(|k| fabric.set_upstream(k, SocketAddr::from((loopback(k), port))));
            Kind::Proxy { fabric, doors }
        };
        let kind = match wire {
            Wire::Direct => Kind::Direct,
            Wire::Proxy => proxy(),
            Wire::Namespaces if std::env::var_os("WEALD_CLUSTER_PROXY").is_some() => {
                eprintln!("NOTE: the proxy on loopback is used, as told");
                proxy()
            }
            Wire::Namespaces => match Network::new(nodes) {
                Ok(network) => Kind::Namespaces(network),
                Err(why) => {
                    eprintln!("NOTE: {why}; the proxy on loopback is used instead");
                    proxy()
                }
            },
        };
        Self { port, pids, kind }
    }

    /// What it is, for the table of results.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Direct => "loopback",
            Kind::Proxy { .. } => "proxy",
            Kind::Namespaces(_) => "namespaces",
        }
    }

    /// Where a node listens.
    #[must_use]
    pub fn listen(&self, node: usize) -> SocketAddr {
        let ip = match &self.kind {
            Kind::Namespaces(network) => network.address(node),
            Kind::Direct | Kind::Proxy { .. } => loopback(node),
        };
        SocketAddr::new(IpAddr::V4(ip), self.port)
    }

    /// Where others reach it.
    #[must_use]
    pub fn reached_at(&self, node: usize) -> SocketAddr {
        match &self.kind {
            Kind::Proxy { doors, .. } => doors[node],
            Kind::Direct | Kind::Namespaces(_) => self.listen(node),
        }
    }

    /// The command that starts a program where a node is.
    #[must_use]
    pub fn enter(&self, node: usize) -> Vec<String> {
        match &self.kind {
            Kind::Namespaces(network) => network.enter(node),
            Kind::Direct | Kind::Proxy { .. } => Vec::new(),
        }
    }

    pub(super) fn started(&self, node: usize, pid: Option<u32>) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)[node] = pid;
    }

    pub(super) fn open_tls(&self, node: usize, bundle: Bundle) {
        if let Kind::Proxy { fabric, .. } = &self.kind {
            fabric.open_tls(node, bundle);
        }
    }

    /// The proxy, if there is one.
    #[must_use]
    pub const fn proxy(&self) -> Option<&Fabric> {
        match &self.kind {
            Kind::Proxy { fabric, .. } => Some(fabric),
            Kind::Direct | Kind::Namespaces(_) => None,
        }
    }

    /// Nothing passes from one node to another; nobody is told.
    ///
    /// # Panics
    /// On plain loopback.
    pub fn cut(&self, from: usize, to: usize) {
        match &self.kind {
            Kind::Direct => panic!("loopback cannot be cut"),
            Kind::Proxy { fabric, .. } => fabric.set(from, to, &Faults::flow(Flow::Stall)),
            Kind::Namespaces(network) => done(network.cut(from, to)),
        }
    }

    /// Ends that.
    pub fn heal_one(&self, from: usize, to: usize) {
        match &self.kind {
            Kind::Direct => {}
            Kind::Proxy { fabric, .. } => fabric.set(from, to, &Faults::default()),
            Kind::Namespaces(network) => done(network.heal_one(from, to)),
        }
    }

    /// Both directions between each of these and each of those.
    pub fn split(&self, these: &[usize], those: &[usize]) {
        for (&a, &b) in these.iter().flat_map(|a| those.iter().map(move |b| (a, b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Limits the speed of a node in both directions, in kbit/s; others are not touched.
    ///
    /// # Panics
    /// On plain loopback.
    pub fn limit(&self, node: usize, kbit: u32) {
        match &self.kind {
            Kind::Direct => panic!("loopback cannot be limited"),
            Kind::Proxy { fabric, doors } => {
                let bytes_per_s = Some(u64::from(kbit) * 125);
                let slow = Faults { bytes_per_s, ..Faults::default() };
                (0..doors.len())
                    .filter(|&k| k != node)
                    .for_each(|k| fabric.set_both(node, k, &slow));
            }
            Kind::Namespaces(network) => done(network.limit(node, Some(kbit))),
        }
    }

    /// Ends all faults.
    pub fn heal(&self) {
        match &self.kind {
            Kind::Direct => {}
            Kind::Proxy { fabric, .. } => fabric.heal(),
            Kind::Namespaces(network) => done(network.heal()),
        }
    }
}

fn done(result: Result<(), crate::netns::Unavailable>) {
    result.unwrap_or_else(|e| panic!("{e}"));
}
