//! What every row does: the same work on both engines, in turn, so that a busy machine slows both alike.

use std::time::{Duration, Instant};

use anyhow::Result;
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::subject::Subject;

const ROUNDS: usize = 30;
const WARM_UP: usize = 3;

/// Something whose time is measured.
pub(crate) type Work = fn(&Engine) -> Result<()>;

/// Ours and the reference, both with the tests' images.
pub(crate) struct Pair {
    ours: Engine,
    theirs: Engine,
}

impl Pair {
    pub(crate) fn start() -> Result<Self> {
        let start = |kind| {
            let engine = Engine::start(kind)?;
            engine.docker().load_images()?;
            anyhow::Ok(engine)
        };
        Ok(Self { ours: start(Kind::Caisson)?, theirs: start(Kind::Dockerd)? })
    }

    pub(crate) fn both(&self) -> [&Engine; 2] {
        [&self.ours, &self.theirs]
    }

    /// Prints a figure of each beside the other.
    pub(crate) fn row(&self, name: &str, figure: impl Fn(&Engine) -> Result<f64>) -> Result<()> {
        print(name, figure(&self.ours)?, figure(&self.theirs)?);
        Ok(())
    }
}

/// Prints the head of the columns.
pub(crate) fn head() {
    println!("{:<46} {:>10} {:>10} {:>7}", "median of 30, ms", "caisson", "dockerd", "ratio");
}

pub(crate) fn print(name: &str, ours: f64, theirs: f64) {
    println!("{name:<46} {ours:>10.1} {theirs:>10.1} {:>7.2}", ours / theirs);
}

/// Prints the medians of some work on each, in milliseconds.
pub(crate) fn in_turn(engines: &Pair, name: &str, work: Work) -> Result<()> {
    let mut times = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let pair = (time(work, &engines.ours)?, time(work, &engines.theirs)?);
        if round >= WARM_UP {
            times.0.push(pair.0);
            times.1.push(pair.1);
        }
    }
    print(name, median(times.0), median(times.1));
    Ok(())
}

pub(crate) fn time(work: impl Fn(&Engine) -> Result<()>, on: &Engine) -> Result<Duration> {
    let begin = Instant::now();
    work(on)?;
    Ok(begin.elapsed())
}

/// The median in milliseconds.
pub(crate) fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The median of what is in milliseconds already.
pub(crate) fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Reads the times that `tracing` prints, `1.5ms time.idle=20µs`, as their sum, and plain microseconds.
pub(crate) fn in_milliseconds(text: &str) -> Option<f64> {
    text.split_whitespace().map(|time| one(time.trim_start_matches("time.idle="))).sum()
}

fn one(time: &str) -> Option<f64> {
    let (number, unit) =
        time.split_at(time.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(time.len()));
    let in_unit = match unit {
        "ns" => 1e-6,
        "µs" | "" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * in_unit)
}
