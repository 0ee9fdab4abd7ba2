//! The network: what happens to a frame between two nodes, and when connections break.
//!
//! Connections are worse than TCP where the weather says so: frames get lost, come twice or out of order while the
//! connection stands. A cut swallows everything in its direction; a connection that was cut longer than
//! [`BREAKS_AFTER_MS`] breaks at both ends, as it does by keep-alives.

use std::collections::BTreeMap;

use crate::seed::Seeded;

/// How long a connection survives a cut. // guess: ping every second, three missed
pub const BREAKS_AFTER_MS: u64 = 3_000;

/// How frames travel when nothing is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Least time under way.
    pub delay_ms: u64,
    /// Up to so much more.
    pub jitter_ms: u64,
    /// Of a thousand frames, so many get lost.
    pub lost_permille: u64,
    /// Of a thousand frames, so many come twice.
    pub twice_permille: u64,
    /// Of a thousand frames, so many may be overtaken.
    pub overtaken_permille: u64,
}

impl Weather {
    /// As in one data centre, over TCP.
    pub const FAIR: Self = Self {
        delay_ms: 1,
        jitter_ms: 2,
        lost_permille: 0,
        twice_permille: 0,
        overtaken_permille: 0,
    };
}

/// When frames arrive, and over which paths they do not.
#[derive(Debug)]
pub struct Net {
    /// The weather now.
    pub weather: Weather,
    /// How many cuts lie on each direction.
    cuts: BTreeMap<(usize, usize), u32>,
    /// When the last frame of a lane arrives: no later one may overtake it.
    lanes: BTreeMap<(usize, usize, u8), u64>,
    /// Frames that were lost, by cuts and by weather.
    pub lost: u64,
}

impl Net {
    /// A network without cuts.
    #[must_use]
    pub fn new(weather: Weather) -> Self {
        Self { weather, cuts: BTreeMap::new(), lanes: BTreeMap::new(), lost: 0 }
    }

    /// Puts a cut on a direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    /// Takes one cut off a direction.
    pub fn mend(&mut self, from: usize, to: usize) {
        if let Some(cuts) = self.cuts.get_mut(&(from, to)) {
            *cuts -= 1;
            if *cuts == 0 {
                self.cuts.remove(&(from, to));
            }
        }
    }

    /// Whether frames get through in this direction.
    #[must_use]
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains_key(&(from, to))
    }

    /// Whether frames get through in both directions.
    #[must_use]
    pub fn is_whole(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Starts the lanes between two nodes afresh, as a new connection does.
    pub fn connected(&mut self, a: usize, b: usize) {
        self.lanes.retain(|(from, to, _), _| (*from, *to) != (a, b) && (*from, *to) != (b, a));
    }

    /// When a frame sent now arrives: never, once, or twice.
    pub fn send(
        &mut self,
        now_ms: u64,
        path: (usize, usize),
        lane: u8,
        rng: &mut Seeded,
    ) -> [Option<u64>; 2] {
        let weather = self.weather;
        let mut hits = |permille: u64| permille > 0 && rng.any() % 1_000 < permille;
        if !self.passes(path.0, path.1) || hits(weather.lost_permille) {
            self.lost += 1;
            return [None, None];
        }
        let (overtaken, twice) = (hits(weather.overtaken_permille), hits(weather.twice_permille));
        let mut under_way = || weather.delay_ms + rng.any() % (weather.jitter_ms + 1);
        let last = self.lanes.entry((path.0, path.1, lane)).or_default();
        let mut at_ms = now_ms + under_way();
        if overtaken {
            at_ms += 5 * under_way();
        } else {
            at_ms = at_ms.max(*last);
            *last = at_ms;
        }
        let again = twice.then(|| at_ms + under_way() * 10);
        [Some(at_ms), again]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_lane_stay_in_order_in_fair_weather() {
        let mut rng = Seeded::new(1);
        let mut net = Net::new(Weather { jitter_ms: 50, ..Weather::FAIR });
        let at: Vec<u64> =
            (0..200).filter_map(|now| net.send(now, (0, 1), 0, &mut rng)[0]).collect();
        assert!(at.len() == 200 && at.is_sorted());
    }

    #[test]
    fn cuts_of_two_faults_on_one_path_count_twice() {
        let mut rng = Seeded::new(1);
        let mut net = Net::new(Weather::FAIR);
        net.cut(0, 1);
        net.cut(0, 1);
        net.mend(0, 1);
        assert!(!net.passes(0, 1) && net.passes(1, 0) && !net.is_whole(1, 0));
        assert_eq!((net.send(0, (0, 1), 0, &mut rng), net.lost), ([None, None], 1));
        net.mend(0, 1);
        assert!(net.is_whole(0, 1) && net.send(0, (0, 1), 0, &mut rng)[0].is_some());
    }

    #[test]
    fn foul_weather_loses_doubles_and_reorders() {
        let mut rng = Seeded::new(1);
        let weather = Weather {
            jitter_ms: 20,
            lost_permille: 100,
            twice_permille: 100,
            overtaken_permille: 100,
            ..Weather::FAIR
        };
        let mut net = Net::new(weather);
        let sent: Vec<_> = (0..1_000).map(|now| net.send(now, (0, 1), 0, &mut rng)).collect();
        let first: Vec<u64> = sent.iter().filter_map(|arrivals| arrivals[0]).collect();
        assert!((50..200).contains(&net.lost) && !first.is_sorted());
        assert!(sent.iter().filter(|arrivals| arrivals[1].is_some()).count() > 50);
    }
}
