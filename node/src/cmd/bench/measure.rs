//! What is measured: counts, latencies, processor time and memory.

use crate::exit::{Exit, Failure};
use rustix::param::clock_ticks_per_second;
use std::fs;
use std::time::{Duration, Instant};

/// Buckets of a doubling: latencies are told to 1/64 of their value.
const BUCKETS: u64 = 64;

/// Counts of values in buckets that grow with the values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Adds a value.
    pub(crate) fn add(&mut self, value: u64) {
        let at = bucket(value);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The value that so many thousandths of all do not exceed.
    pub(crate) fn at(&self, thousandths: u64) -> Option<u64> {
        let rank = (self.total * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(largest(found as u64).min(self.max))
    }

    /// The largest value.
    pub(crate) fn max(&self) -> Option<u64> {
        (self.total > 0).then_some(self.max)
    }
}

fn bucket(value: u64) -> usize {
    // Below 64 each value has a bucket; from then on each doubling has 64.
    let shift = u64::from(value.max(BUCKETS).ilog2()) - u64::from(BUCKETS.ilog2());
    let number = shift * BUCKETS + (value >> shift);
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn largest(bucket: u64) -> u64 {
    let shift = (bucket / BUCKETS).saturating_sub(1);
    let (value, _) =
        (bucket - shift * BUCKETS + 1).overflowing_shl(u32::try_from(shift).unwrap_or(63));
    value.wrapping_sub(1)
}

/// What processes have used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// Seconds of processor time.
    pub(crate) cpu_seconds: f64,
    /// Resident memory in bytes.
    pub(crate) rss_bytes: u64,
}

impl Usage {
    /// Of these processes together.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub(crate) fn of(pids: &[u32]) -> Result<Self, Failure> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::in_proc(&pid.to_string())?;
            sum.cpu_seconds += one.cpu_seconds;
            sum.rss_bytes += one.rss_bytes;
        }
        Ok(sum)
    }

    /// Of the driver itself.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) fn own() -> Result<Self, Failure> {
        Self::in_proc("self")
    }

    fn in_proc(pid: &str) -> Result<Self, Failure> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path)
                .map_err(|e| Failure::new(Exit::Io, format!("read {path}: {e}; does it run?")))
        };
        let strange = || Failure::new(Exit::Io, format!("/proc/{pid} is not as expected"));
        let ticks = cpu_ticks(&read("stat")?).ok_or_else(strange)?;
        let rss_bytes = rss(&read("status")?).ok_or_else(strange)?;
        Ok(Self { cpu_seconds: ticks as f64 / clock_ticks_per_second() as f64, rss_bytes })
    }
}

/// utime and stime of `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, other parentheses and spaces included.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// `VmRSS` of `/proc/PID/status`; a process that has ended and was not waited for has none.
fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing counts yet.
    Warmup,
    /// All counts.
    Measuring,
    /// Nothing counts any more.
    Over,
}

/// What was measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    pub(crate) latencies_ns: Histogram,
    pub(crate) driver_cpu_seconds: f64,
    /// Of the processes asked for, if any.
    pub(crate) server: Option<Usage>,
}

/// Counts while the time for it lasts.
#[derive(Debug)]
pub(crate) struct Meter {
    epoch: Instant,
    pids: Vec<u32>,
    phase: Phase,
    warmup: Duration,
    duration: Duration,
    since: Instant,
    driver: Usage,
    server: Usage,
    measured: Measured,
}

impl Meter {
    /// A meter for these processes.
    pub(crate) fn new(pids: &[u32], warmup: Duration, duration: Duration) -> Self {
        let epoch = Instant::now();
        Self {
            epoch,
            pids: pids.to_vec(),
            phase: Phase::Warmup,
            warmup,
            duration,
            since: epoch,
            driver: Usage::default(),
            server: Usage::default(),
            measured: Measured::default(),
        }
    }

    /// Begins the warm-up now.
    pub(crate) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// Nanoseconds since the meter was made.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts something that took from `sent_ns`, if that is known, until `now_ns`.
    pub(crate) fn count(&mut self, sent_ns: Option<u64>, now_ns: u64) {
        if self.phase != Phase::Measuring {
            return;
        }
        self.measured.count += 1;
        if let Some(sent_ns) = sent_ns {
            self.measured.latencies_ns.add(now_ns.saturating_sub(sent_ns));
        }
    }

    /// Goes on to the next phase when it is time.
    ///
    /// # Errors
    /// A process cannot be looked at.
    pub(crate) fn step(&mut self) -> Result<Phase, Failure> {
        let passed = self.since.elapsed();
        match self.phase {
            Phase::Warmup if passed >= self.warmup => {
                self.phase = Phase::Measuring;
                self.driver = Usage::own()?;
                self.server = Usage::of(&self.pids)?;
                self.since = Instant::now();
            }
            Phase::Measuring if passed >= self.duration => {
                self.phase = Phase::Over;
                self.measured.seconds = passed.as_secs_f64();
                let driver = Usage::own()?;
                self.measured.driver_cpu_seconds = driver.cpu_seconds - self.driver.cpu_seconds;
                if !self.pids.is_empty() {
                    let now = Usage::of(&self.pids)?;
                    let cpu_seconds = now.cpu_seconds - self.server.cpu_seconds;
                    self.measured.server = Some(Usage { cpu_seconds, rss_bytes: now.rss_bytes });
                }
            }
            Phase::Warmup | Phase::Measuring | Phase::Over => {}
        }
        Ok(self.phase)
    }

    /// What was measured.
    pub(crate) fn measured(self) -> Measured {
        self.measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_ends_at_most_a_64th_above() {
        let mut values: Vec<u64> = (0..2000).collect();
        values.extend((0..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + 1, power + power / 3]
        }));
        values.push(u64::MAX);
        for value in values {
            let end = largest(bucket(value) as u64);
            assert!(end >= value, "{value} {end}");
            assert!(end - value <= value / 64, "{value} {end}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.at(500), histogram.max()), (None, None));
        for value in 1..=1000 {
            histogram.add(value);
        }
        let near = |thousandths, expected: u64| {
            let value = histogram.at(thousandths).unwrap();
            assert!(value >= expected && value <= expected + expected / 64, "{value}");
        };
        near(0, 1);
        near(500, 500);
        near(990, 990);
        assert_eq!(histogram.at(1000), Some(1000));
        assert_eq!(histogram.max(), Some(1000));
    }

    #[test]
    fn processor_time_is_read_whatever_the_name_of_the_process() {
        let stat = "7 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 25 17 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a) R 1"), None);
        assert_eq!(rss("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 << 10));
        assert_eq!(rss("Name:\tx\n"), None);
    }

    #[test]
    fn own_usage_grows() {
        let before = Usage::own().unwrap();
        assert!(before.rss_bytes > 0);
        let begun = Instant::now();
        let mut sum = 0_u64;
        // Two ticks of the clock that the system counts in.
        while Usage::own().unwrap().cpu_seconds < before.cpu_seconds + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        Usage::of(&[u32::MAX]).unwrap_err();
    }

    #[test]
    fn only_what_happens_while_measuring_counts() {
        let mut meter = Meter::new(&[], Duration::ZERO, Duration::ZERO);
        meter.count(Some(0), 1);
        assert_eq!(meter.step().unwrap(), Phase::Measuring);
        meter.count(Some(5), 25);
        meter.count(None, 25);
        assert_eq!(meter.step().unwrap(), Phase::Over);
        meter.count(Some(0), 1);
        let measured = meter.measured();
        assert_eq!(measured.count, 2);
        assert_eq!(measured.latencies_ns.max(), Some(20));
        assert_eq!(measured.server, None);
    }
}
