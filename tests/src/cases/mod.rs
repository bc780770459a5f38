//! What every engine must do, by the real CLI. A case takes names that no other takes: cases run side by side.

pub mod bridges;
pub mod commands;
pub mod commit;
pub mod compose;
pub mod containers;
pub mod copy;
pub mod dns;
pub mod errors;
pub mod events;
pub mod exec;
pub mod health;
pub mod image_list;
pub mod image_removal;
pub mod images;
pub mod isolation;
pub mod lifecycle;
pub mod links;
pub mod list;
pub mod live;
pub mod logs;
pub mod modes;
pub mod mounts;
pub mod networks;
pub mod options;
pub mod platforms;
pub mod ports;
pub mod registry;
pub mod restart;
pub mod security;
pub mod stats;
pub mod streams;
pub mod top;
pub mod transfers;
pub mod volumes;

use crate::subject::Case;

/// Every case, grouped by what it is about.
pub fn all() -> Vec<(&'static str, &'static Case)> {
    let groups = [
        ("images", images::CASES),
        ("image_list", image_list::CASES),
        ("image_removal", image_removal::CASES),
        ("containers", containers::CASES),
        ("lifecycle", lifecycle::CASES),
        ("list", list::CASES),
        ("logs", logs::CASES),
        ("restart", restart::CASES),
        ("exec", exec::CASES),
        ("health", health::CASES),
        ("streams", streams::CASES),
        ("live", live::CASES),
        ("top", top::CASES),
        ("isolation", isolation::CASES),
        ("modes", modes::CASES),
        ("security", security::CASES),
        ("stats", stats::CASES),
        ("ports", ports::CASES),
        ("networks", networks::CASES),
        ("bridges", bridges::CASES),
        ("dns", dns::CASES),
        ("links", links::CASES),
        ("options", options::CASES),
        ("compose", compose::CASES),
        ("errors", errors::CASES),
        ("events", events::CASES),
        ("volumes", volumes::CASES),
        ("mounts", mounts::CASES),
        ("copy", copy::CASES),
        ("commit", commit::CASES),
        ("commands", commands::CASES),
    ];
    groups.into_iter().flat_map(|(group, cases)| cases.iter().map(move |case| (group, case))).collect()
}

/// The cases that only Caisson is held to.
pub fn ours() -> Vec<(&'static str, &'static Case)> {
    let groups = [
        ("images", images::OURS),
        ("exec", exec::OURS),
        ("logs", logs::OURS),
        ("modes", modes::OURS),
        ("security", security::OURS),
        ("compose", compose::OURS),
        ("options", options::OURS),
        ("ports", ports::OURS),
        ("networks", networks::OURS),
        ("links", links::OURS),
        ("commands", commands::OURS),
    ];
    groups.into_iter().flat_map(|(group, cases)| cases.iter().map(move |case| (group, case))).collect()
}

/// The cases that take an engine in namespaces that the test can enter: on both engines, natively.
pub fn native() -> Vec<(&'static str, &'static Case)> {
    let groups = [
        ("registry", registry::CASES),
        ("platforms", platforms::CASES),
        ("transfers", transfers::CASES),
        ("bridges", bridges::NATIVE),
    ];
    groups.into_iter().flat_map(|(group, cases)| cases.iter().map(move |case| (group, case))).collect()
}

/// The same that only Caisson is held to.
pub fn ours_native() -> Vec<(&'static str, &'static Case)> {
    let groups =
        [("registry", registry::OURS), ("platforms", platforms::OURS), ("transfers", transfers::OURS)];
    groups.into_iter().flat_map(|(group, cases)| cases.iter().map(move |case| (group, case))).collect()
}
