//! Which limits this kernel can hold, asked once: what moby's `sysinfo` knows of cgroup v2.

use std::collections::BTreeSet;
use std::path::Path;

/// Controllers that containers can have, and the processors and memory nodes there are to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Support {
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) cpu: bool,
    pub(crate) io: bool,
    pub(crate) pids: bool,
    /// As the kernel lists them (`0-3,6`); `None` without the controller.
    pub(crate) cpuset: Option<Cpuset>,
    /// How many processors there are.
    pub(crate) processors: usize,
}

/// The lists of the root's `cpuset`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cpuset {
    pub(crate) cpus: String,
    pub(crate) mems: String,
}

impl Support {
    /// Asks the kernel.
    pub(crate) fn probe() -> Self {
        let Some(root) = caisson_runtime::cgroup::mount_point() else {
            return Self { processors: processors(), ..Self::default() };
        };
        let read =
            |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default().trim().to_owned();
        let controllers = read("cgroup.controllers");
        let has = |name: &str| controllers.split_whitespace().any(|known| known == name);
        Self {
            memory: has("memory"),
            // The root has no `memory.swap.max` to look for; with swap compiled in every other cgroup has.
            swap: has("memory") && Path::new("/proc/swaps").exists(),
            cpu: has("cpu"),
            io: has("io"),
            pids: has("pids"),
            cpuset: has("cpuset")
                .then(|| Cpuset { cpus: read("cpuset.cpus.effective"), mems: read("cpuset.mems.effective") }),
            processors: processors(),
        }
    }

    /// A kernel that has everything, for tests.
    #[cfg(test)]
    pub(crate) fn whole() -> Self {
        let cpuset = Some(Cpuset { cpus: "0-3".into(), mems: "0".into() });
        Self { memory: true, swap: true, cpu: true, io: true, pids: true, cpuset, processors: 4 }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Reads a list like `0-3,6`; nothing is an empty one.
///
/// # Errors
/// moby's words (`sysinfo.parseUintList`), also for a number above `maximum`.
pub(crate) fn parse_list(text: &str, maximum: u32) -> Result<BTreeSet<u32>, String> {
    let invalid = || format!("invalid format: {text}");
    let number = |word: &str| word.parse::<u32>().map_err(|_| invalid());
    let mut numbers = BTreeSet::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if last < first {
            return Err(invalid());
        }
        if last > maximum {
            return Err(format!("value of out range, maximum is {maximum}"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_or_refused_in_moby_s_words() {
        assert_eq!(parse_list("0-2,5", 10), Ok([0, 1, 2, 5].into()));
        assert_eq!(parse_list("", 10), Ok(BTreeSet::new()));
        assert_eq!(parse_list("3-1", 10), Err("invalid format: 3-1".into()));
        assert_eq!(parse_list("a", 10), Err("invalid format: a".into()));
        assert_eq!(parse_list("11", 10), Err("value of out range, maximum is 10".into()));
    }
}
