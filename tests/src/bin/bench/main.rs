//! Times both engines natively, in one run, and prints each figure of ours beside dockerd's: scripts/bench.
//!
//! Medians of 30 after a warm-up, unless a row says otherwise. Nothing here passes or fails. With arguments only the parts that they
//! name run.

mod containers;
mod images;
mod logs;
mod many;
mod measure;
mod networks;
mod steps;

use anyhow::{Result, ensure};

use crate::measure::Pair;

/// Measures and prints some rows.
type Part = fn(&Pair) -> Result<()>;

const PARTS: &[(&str, Part)] = &[
    ("containers", containers::run),
    ("steps", steps::run),
    ("many", many::run),
    ("logs", logs::run),
    ("images", images::run),
    ("networks", networks::run),
];

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ended) = networks::end(&wanted) {
        return ended;
    }
    for part in &wanted {
        ensure!(PARTS.iter().any(|(name, _)| name == part), "there is no part {part}");
    }
    let engines = Pair::start()?;
    measure::head();
    for (name, run) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            run(&engines)?;
        }
    }
    Ok(())
}
