//! How broadcasts behave at a thousand nodes, in the figures of the papers.
//!
//! `cargo bench -p weald-tests --bench scale` prints a table and a plot; the plot is also written as `scale.svg`, whose place
//! is printed. `WEALD_SCALE_NODES=<n>` runs another number of nodes (1,024), `SEED=<n>` another seed (1).
//!
//! Method: nodes join one after the other through a random one (in a full mesh all know all from the start). After a minute,
//! messages of 8 roots build the trees; then 100 messages of these roots are measured. Then 30 % of the nodes fail at once,
//! which the others notice within 2 s as connections break, while messages go on, five a second.
#![expect(clippy::print_stdout, reason = "a bench tells its figures")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use weald_storage::Dot;
use weald_tests::sim::scale::{Fate, Setup, Swarm, ratio};

const ROOTS: usize = 8;
const MEASURED: usize = 100;
const BETWEEN_MS: u64 = 200;
const FAIL_PERCENT: usize = 30;
/// How long messages go on after the failure.
const AFTER_MS: u64 = 40_000;
/// How long a message may take.
const SETTLE_MS: u64 = 10_000;

/// One run.
struct Run {
    name: &'static str,
    steady: Vec<Fate>,
    /// Since the failure, and what became of the message sent then.
    after: Vec<(u64, Fate)>,
    bytes: [u64; 3],
    measured_ms: u64,
    nodes: usize,
    degrees: [(usize, usize, usize); 2],
}

fn main() -> Result<(), Box<dyn Error>> {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse::<u64>().map_err(|e| format!("{name}={text}: {e}")),
        Err(_) => Ok(default),
    };
    let nodes = usize::try_from(number("WEALD_SCALE_NODES", 1_024)?)?;
    let seed = number("SEED", 1)?;
    let mut runs = Vec::new();
    for (name, is_full_mesh) in [("p2p (HyParView)", false), ("full mesh", true)] {
        let begun = Instant::now();
        runs.push(run(name, Setup { nodes, is_full_mesh, seed }));
        println!("{name}: {nodes} nodes simulated in {:.1} s", begun.elapsed().as_secs_f64());
    }
    table(&runs);
    for run in &runs {
        plot(run);
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale.svg");
    std::fs::write(&path, svg(&runs))?;
    println!("\nplot: {}", path.display());
    Ok(())
}

fn run(name: &'static str, setup: Setup) -> Run {
    let mut swarm = Swarm::new(setup);
    swarm.run_until(90_000);
    let roots: Vec<usize> = (0..ROOTS).map(|_| swarm.any_up()).collect();
    let publish = |swarm: &mut Swarm, number: usize| {
        let dot = swarm.publish(roots[number % ROOTS]);
        swarm.run_until(swarm.now_ms() + BETWEEN_MS);
        dot
    };
    // Trees need a few messages of each root to get rid of duplicates.
    for number in 0..ROOTS * 8 {
        publish(&mut swarm, number);
    }
    swarm.run_until(swarm.now_ms() + SETTLE_MS);
    let before = (swarm.now_ms(), swarm.bytes);
    let dots: Vec<Dot> = (0..MEASURED).map(|number| publish(&mut swarm, number)).collect();
    swarm.run_until(swarm.now_ms() + SETTLE_MS);
    let steady = dots.iter().map(|dot| swarm.fate(*dot)).collect();
    let bytes = [0, 1, 2].map(|class| swarm.bytes[class] - before.1[class]);
    let (measured_ms, degrees) = (swarm.now_ms() - before.0, swarm.degrees());
    let failed_ms = swarm.now_ms();
    swarm.fail(FAIL_PERCENT);
    let mut after = Vec::new();
    while swarm.now_ms() < failed_ms + AFTER_MS {
        let root = swarm.any_up();
        after.push((swarm.now_ms() - failed_ms, swarm.publish(root)));
        swarm.run_until(swarm.now_ms() + BETWEEN_MS);
    }
    swarm.run_until(swarm.now_ms() + SETTLE_MS);
    let after = after.into_iter().map(|(at_ms, dot)| (at_ms, swarm.fate(dot))).collect();
    let degrees = [degrees, swarm.degrees()];
    Run { name, steady, after, bytes, measured_ms, nodes: setup.nodes, degrees }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

fn worst(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

fn table(runs: &[Run]) {
    let line = |what: &str, figure: &dyn Fn(&Run) -> String| {
        let figures: Vec<String> = runs.iter().map(|run| format!("{:>22}", figure(run))).collect();
        println!("{what:<46}{}", figures.concat());
    };
    println!();
    line("", &|run| run.name.to_owned());
    let degree = |(up, least, most): (usize, usize, usize)| format!("{least}..{most} of {up}");
    line("neighbours", &|run| degree(run.degrees[0]));
    line("reliability, mean", &|run| percent(mean(run.steady.iter().map(Fate::reliability))));
    line("reliability, worst message", &|run| {
        percent(worst(run.steady.iter().map(Fate::reliability)))
    });
    line("relative message redundancy", &|run| {
        format!("{:.3}", mean(run.steady.iter().map(Fate::redundancy)))
    });
    line("last delivery hop, mean", &|run| {
        format!("{:.1}", mean(run.steady.iter().map(|fate| f64::from(fate.last_hop))))
    });
    line("last delivery hop, worst", &|run| {
        run.steady.iter().map(|fate| fate.last_hop).max().unwrap_or(0).to_string()
    });
    line("time to the last node, mean", &|run| {
        let ms = run.steady.iter().map(|fate| ratio(fate.last_ms - fate.sent_ms, 1));
        format!("{:.0} ms", mean(ms))
    });
    for (class, what) in
        ["payload bytes per node and message", "announcements, grafts, prunes"].iter().enumerate()
    {
        line(what, &|run| {
            format!("{:.0} B", ratio(run.bytes[class], (run.nodes * MEASURED) as u64))
        });
    }
    line("overlay bytes per node and second", &|run| {
        format!("{:.1} B", ratio(run.bytes[2] * 1_000, run.nodes as u64 * run.measured_ms))
    });
    println!("\nafter {FAIL_PERCENT} % of the nodes failed at once (each message of another root)");
    line("neighbours in the end", &|run| degree(run.degrees[1]));
    for (from_ms, to_ms) in [(0, 2_000), (2_000, 5_000), (5_000, 10_000), (10_000, AFTER_MS)] {
        let what =
            format!("reliability of messages sent at {} to {} s", from_ms / 1_000, to_ms / 1_000);
        line(&what, &|run| {
            let sent = run.after.iter().filter(|(at, _)| (from_ms..to_ms).contains(at));
            let figures: Vec<f64> = sent.map(|(_, fate)| fate.reliability()).collect();
            format!(
                "{} (worst {})",
                percent(mean(figures.iter().copied())),
                percent(worst(figures.into_iter()))
            )
        });
    }
    line("time to the last node, worst of the first 5 s", &|run| {
        let sent = run.after.iter().filter(|(at, _)| *at < 5_000);
        let ms = sent.map(|(_, fate)| fate.last_ms - fate.sent_ms).max();
        format!("{} ms", ms.unwrap_or(0))
    });
    line("healed: later messages are as fast as before", &|run| match healed_ms(run) {
        Some(ms) => format!("after {:.1} s", ratio(ms, 1_000)),
        None => "not yet".to_owned(),
    });
}

/// From when on every message reached every node, in no more than twice the worst time of before.
fn healed_ms(run: &Run) -> Option<u64> {
    let usual_ms = run.steady.iter().map(|fate| fate.last_ms - fate.sent_ms).max().unwrap_or(0);
    let is_bad =
        |fate: &Fate| fate.reached < fate.alive || fate.last_ms - fate.sent_ms > 2 * usual_ms;
    match run.after.iter().rposition(|(_, fate)| is_bad(fate)) {
        None => Some(0),
        Some(at) => run.after.get(at + 1).map(|(at_ms, _)| *at_ms),
    }
}

fn percent(part: f64) -> String {
    format!("{:.2}%", part * 100.0)
}

/// Time to the last node by the time of sending, a column per half a second.
fn plot(run: &Run) {
    println!(
        "\n{}: ms to the last node, of messages sent after the failure (x: some were not reached)",
        run.name
    );
    let columns: Vec<(f64, bool)> = (0..AFTER_MS / 500)
        .map(|half| {
            let sent = run.after.iter().filter(|(at, _)| at / 500 == half);
            let slowest = sent.clone().map(|(_, fate)| fate.last_ms - fate.sent_ms).max();
            let reached_all = sent.clone().all(|(_, fate)| fate.reached >= fate.alive);
            (ratio(slowest.unwrap_or(0), 1), reached_all)
        })
        .collect();
    let most = columns.iter().map(|(ms, _)| *ms).fold(1.0, f64::max);
    for level in (1..=10).rev() {
        let least = most * f64::from(level) / 10.0;
        let bar = |(ms, all): &(f64, bool)| match (*ms > least - most / 10.0, all) {
            (true, true) => '#',
            (true, false) => 'x',
            (false, _) => ' ',
        };
        println!("{least:>6.0} |{}", columns.iter().map(bar).collect::<String>());
    }
    println!("       +{} {} s", "-".repeat(columns.len()), AFTER_MS / 1_000);
}

fn svg(runs: &[Run]) -> String {
    let mut out = String::from(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 840 340' font-family='sans-serif' font-size='12'>\n\
         <rect width='840' height='340' fill='white'/>\n\
         <text x='20' y='20'>seconds to the last node, of messages sent after 30 % of the nodes failed at once</text>\n",
    );
    for (row, run) in runs.iter().enumerate() {
        let colour = ["#1f77b4", "#d62728"][row % 2];
        let points = run.after.iter().map(|(at_ms, fate)| {
            let x = 20.0 + ratio(*at_ms * 800, AFTER_MS);
            format!("{x:.1},{:.1}", 320.0 - 0.1 * ratio(fate.last_ms - fate.sent_ms, 1))
        });
        let points = points.collect::<Vec<_>>().join(" ");
        out.push_str(&format!("<polyline fill='none' stroke='{colour}' points='{points}'/>"));
        let y = 300 - 16 * row;
        out.push_str(&format!("<text x='640' y='{y}' fill='{colour}'>{}</text>", run.name));
    }
    out.push_str("</svg>\n");
    out
}
