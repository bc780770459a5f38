//! What every engine must do, by the real CLI. A case takes names that no other takes: cases run side by side.

pub mod containers;
pub mod errors;
pub mod images;
pub mod isolation;
pub mod ports;
pub mod streams;

use crate::subject::Case;

/// Every case, grouped by what it is about.
pub fn all() -> Vec<(&'static str, &'static Case)> {
    let groups = [
        ("images", images::CASES),
        ("containers", containers::CASES),
        ("streams", streams::CASES),
        ("isolation", isolation::CASES),
        ("ports", ports::CASES),
        ("errors", errors::CASES),
    ];
    groups.into_iter().flat_map(|(group, cases)| cases.iter().map(move |case| (group, case))).collect()
}

/// The cases that only Caisson is held to.
pub fn ours() -> Vec<(&'static str, &'static Case)> {
    images::OURS.iter().map(|case| ("images", case)).collect()
}
