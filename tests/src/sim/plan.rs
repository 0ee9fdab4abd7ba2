//! What goes wrong in a run, as data: drawn from the seed before the run, printed when it fails.

use std::fmt;

use super::net::Weather;
use crate::seed::Seeded;

/// One thing that goes wrong. Nodes are named by their slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between these nodes and all others.
    Split {
        /// One side.
        side: Vec<usize>,
    },
    /// Nothing passes between two nodes; all others see both.
    Partial {
        /// The two.
        between: (usize, usize),
    },
    /// Nothing passes from one node to another; the way back is fine.
    OneWay {
        /// From, to.
        path: (usize, usize),
    },
    /// Each node sees its neighbours on a ring only, so that every node sees a majority and no two see the same.
    Ring,
    /// Links are cut one by one and mended in another order.
    Swizzle {
        /// Order of the cuts, and when each is mended, in thousandths of the fault's time.
        links: Vec<(usize, usize, u64)>,
    },
    /// Frames are lost, doubled and reordered everywhere.
    Storm(Weather),
    /// The process ends without warning and comes back with its data.
    Crash {
        /// The node.
        node: usize,
    },
    /// The process ends, its disk is wiped, and it comes back under its name with a new id.
    Wipe {
        /// The node.
        node: usize,
    },
    /// A node is stopped, goes back to its data of some time ago, and comes back.
    Restore {
        /// The node.
        node: usize,
        /// How old the data is.
        age_ms: u64,
        /// Whether it notices and goes on under a new incarnation.
        noticed: bool,
    },
    /// The wall clock of a node jumps.
    ClockJump {
        /// The node.
        node: usize,
        /// How far.
        by_ms: i64,
    },
    /// Writes and merges fail at a node: its disk is full.
    DiskFull {
        /// The node.
        node: usize,
    },
    /// Everything that reaches a node waits until the end of the fault, as if its process was stopped.
    Pause {
        /// The node.
        node: usize,
    },
    /// A row is lost on the disk of a node, silently.
    LoseRow {
        /// The node.
        node: usize,
    },
    /// A node that was not there at first joins.
    Join {
        /// The node.
        node: usize,
    },
    /// A node leaves and ends.
    Leave {
        /// The node.
        node: usize,
    },
    /// A node is removed by an operator at another one.
    Evict {
        /// The node.
        node: usize,
    },
}

/// When something goes wrong, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// When, in virtual ms.
    pub at_ms: u64,
    /// For how long; what happens at one moment has 0.
    pub for_ms: u64,
    /// What.
    pub fault: Fault,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed it was drawn from.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Slots of nodes, those that join later included.
    pub slots: usize,
    /// Whether nodes talk to an overlay of neighbours (`p2p`), not to all others (`full-mesh`).
    pub is_overlay: bool,
    /// Sessions of clients.
    pub sessions: u32,
    /// Keys per place.
    pub keys: u16,
    /// Time between operations of a session, on average.
    pub think_ms: u64,
    /// The weather between faults.
    pub weather: Weather,
    /// When clients and faults end.
    pub safety_ms: u64,
    /// How long the cluster has after that to come to rest.
    pub heal_ms: u64,
    /// How old a tombstone must be to be reaped.
    pub min_age_ms: u64,
    /// How long a member may be away before it is fenced.
    pub max_absence_ms: u64,
    /// What goes wrong, in order.
    pub faults: Vec<Scheduled>,
}

/// When the first fault may come: by then the cluster has formed.
const CALM_MS: u64 = 4_000;

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Seeded::new(seed);
        let nodes = *rng.pick(&[2, 3, 3, 3, 4, 5]);
        let joins = rng.below(3) / 2;
        let safety_ms = 20_000 + 1_000 * rng.below(20) as u64;
        let mut plan = Self {
            seed,
            nodes,
            slots: nodes + joins,
            is_overlay: rng.chance(25),
            sessions: 3,
            keys: *rng.pick(&[1, 2, 4, 8]),
            think_ms: *rng.pick(&[150, 300, 600]),
            weather: Weather { jitter_ms: *rng.pick(&[1, 5, 40]), ..Weather::FAIR },
            safety_ms,
            heal_ms: 120_000,
            min_age_ms: *rng.pick(&[0, 1_000, 5_000]),
            max_absence_ms: *rng.pick(&[6_000, 20_000, 600_000]),
            faults: Vec::new(),
        };
        let mut gone = vec![false; plan.slots];
        for node in nodes..plan.slots {
            plan.schedule(&mut rng, Fault::Join { node });
        }
        for _ in 0..rng.below(5) {
            let fault = plan.fault(&mut rng, &mut gone);
            plan.schedule(&mut rng, fault);
        }
        plan.faults.sort_by_key(|scheduled| scheduled.at_ms);
        plan
    }

    fn schedule(&mut self, rng: &mut Seeded, fault: Fault) {
        let span = usize::try_from(self.safety_ms - CALM_MS - 2_000).unwrap_or(1);
        let at_ms = CALM_MS + rng.below(span) as u64;
        let is_instant = matches!(
            fault,
            Fault::ClockJump { .. }
                | Fault::LoseRow { .. }
                | Fault::Join { .. }
                | Fault::Leave { .. }
                | Fault::Evict { .. }
        );
        let longest = self.safety_ms - at_ms;
        let wanted = *rng.pick(&[500_u64, 2_000, 5_000, 12_000]);
        let for_ms = if is_instant { 0 } else { wanted.min(longest) };
        self.faults.push(Scheduled { at_ms, for_ms, fault });
    }

    /// Draws a fault; `gone` are nodes that will leave for good.
    fn fault(&self, rng: &mut Seeded, gone: &mut [bool]) -> Fault {
        let node = rng.below(self.nodes);
        let other = (node + 1 + rng.below(self.nodes - 1)) % self.nodes;
        match rng.below(18) {
            0 | 1 => {
                let side = (0..self.nodes).filter(|n| *n == node || rng.chance(40)).collect();
                Fault::Split { side }
            }
            2 => Fault::Partial { between: (node, other) },
            3 => Fault::OneWay { path: (node, other) },
            4 => Fault::Ring,
            5 => Fault::Swizzle { links: self.swizzle(rng) },
            6 | 7 => Fault::Storm(Weather {
                delay_ms: *rng.pick(&[1, 20, 200]),
                jitter_ms: *rng.pick(&[5, 50, 200]),
                lost_permille: *rng.pick(&[5, 50, 150]),
                twice_permille: *rng.pick(&[0, 50, 200]),
                overtaken_permille: *rng.pick(&[0, 50, 200]),
            }),
            8 | 9 => Fault::Crash { node },
            10 | 11 => Fault::Wipe { node },
            12 | 13 => Fault::Restore {
                node,
                age_ms: 1_000 + rng.below(10_000) as u64,
                noticed: rng.chance(50),
            },
            14 => Fault::ClockJump { node, by_ms: *rng.pick(&[-3_600_000, -600_000, 3_600_000]) },
            15 => match rng.below(3) {
                0 => Fault::LoseRow { node },
                1 => Fault::Pause { node },
                _ => Fault::DiskFull { node },
            },
            16 => Fault::DiskFull { node },
            // The first node stays: others join through it. And a majority of what was there at first stays, too.
            _ => {
                let left = gone.iter().take(self.nodes).filter(|gone| !**gone).count();
                if node == 0 || left <= 2 || gone[node] {
                    return Fault::Pause { node };
                }
                gone[node] = true;
                if rng.chance(50) { Fault::Leave { node } } else { Fault::Evict { node } }
            }
        }
    }

    fn swizzle(&self, rng: &mut Seeded) -> Vec<(usize, usize, u64)> {
        let mut links = Vec::new();
        for a in 0..self.nodes {
            for b in a + 1..self.nodes {
                if rng.chance(70) {
                    links.push((a, b, 300 + rng.below(700) as u64));
                }
            }
        }
        // Fisher-Yates.
        for i in (1..links.len()).rev() {
            links.swap(i, rng.below(i + 1));
        }
        links
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overlay = if self.is_overlay { "p2p" } else { "full-mesh" };
        writeln!(
            f,
            "plan of seed {}: {} nodes in {} slots ({overlay}), {} sessions on {} keys per place, every {} ms, until {} ms",
            self.seed,
            self.nodes,
            self.slots,
            self.sessions,
            self.keys,
            self.think_ms,
            self.safety_ms
        )?;
        writeln!(
            f,
            "  {:?}; tombstones are reaped after {} ms, members fenced after {} ms",
            self.weather, self.min_age_ms, self.max_absence_ms
        )?;
        for Scheduled { at_ms, for_ms, fault } in &self.faults {
            writeln!(f, "  at {at_ms:>6} ms, for {for_ms:>6} ms: {fault:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_functions_of_the_seed_and_cover_all_faults() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let plan = Plan::draw(seed);
            assert_eq!(plan, Plan::draw(seed));
            assert!(plan.faults.iter().all(|s| s.at_ms + s.for_ms <= plan.safety_ms));
            assert!(plan.to_string().lines().count() == plan.faults.len() + 2);
            for scheduled in &plan.faults {
                let text = format!("{:?}", scheduled.fault);
                kinds.insert(text.split([' ', '(']).next().unwrap_or_default().to_owned());
            }
        }
        assert_eq!(kinds.len(), 16, "{kinds:?}");
    }
}
