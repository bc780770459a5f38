//! What a container uses, read where the kernel counts it: the files of its cgroup, `/proc/stat`, and `/proc/net/dev` in its network.
//!
//! A count that the kernel does not keep (a controller that is not there) is left out, as it is under dockerd.

use std::collections::BTreeMap;
use std::path::Path;

use caisson_docker_api::container::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, ThrottlingData,
};
use caisson_docker_api::time::Timestamp;
use caisson_runtime::cgroup::Cgroup;
use caisson_sys::netns::{self, Netns};
use tracing::debug;

use super::Handle;
use super::spec::cgroup_path;

/// Lines of `memory.stat` that dockerd shows.
const MEMORY: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

/// `USER_HZ` of every Linux: in what `/proc/stat` counts.
const TICK_NANOS: u64 = 1_000_000_000 / 100;

impl Handle {
    /// A sample; `None` of a container that does not run. Blocks for as long as some small files take.
    pub(crate) fn sample(&self) -> Option<Stats> {
        let state = self.state();
        let running = state.running()?;
        let definition = self.definition();
        let mut stats = Stats { read: Timestamp::now(), ..Stats::default() };
        if let Some(cgroup) = Cgroup::of(Some(&cgroup_path(&definition))) {
            read_cgroup(cgroup.directory(), &mut stats);
        }
        let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        (stats.cpu_stats.system_cpu_usage, stats.cpu_stats.online_cpus) = system_usage(&system);
        if let Some(netns) = &running.sandbox.netns {
            stats.networks = read_networks(netns);
        }
        Some(stats)
    }

    /// What is told of a container that does not run.
    pub(crate) fn no_sample(&self) -> Stats {
        let mut stats = Stats::default();
        self.sign(&mut stats);
        stats
    }

    /// Says whose sample it is.
    pub(crate) fn sign(&self, stats: &mut Stats) {
        let definition = self.definition();
        stats.name = format!("/{}", definition.name);
        stats.id.clone_from(&definition.id);
    }
}

fn read_cgroup(directory: &Path, stats: &mut Stats) {
    let read = |file: &str| std::fs::read_to_string(directory.join(file)).ok();
    let number = |file: &str| read(file).map(|text| text.trim().parse::<u64>().unwrap_or(u64::MAX));
    stats.cpu_stats = read("cpu.stat").map(|text| processors(&text)).unwrap_or_default();
    if let Some(usage) = number("memory.current") {
        stats.memory_stats = MemoryStats {
            usage,
            stats: read("memory.stat").map(|text| memory(&text)).unwrap_or_default(),
            failcnt: read("memory.events")
                .map(|text| pairs(&text).get("oom").copied().unwrap_or(0))
                .unwrap_or(0),
            limit: number("memory.max").unwrap_or(u64::MAX).min(system_memory()),
        };
    }
    let pids = |file: &str| number(file).filter(|number| *number != u64::MAX).unwrap_or(0);
    stats.pids_stats = PidsStats { current: pids("pids.current"), limit: pids("pids.max") };
    stats.blkio_stats = BlkioStats {
        io_service_bytes_recursive: read("io.stat").map(|text| disks(&text)),
        ..BlkioStats::default()
    };
}

fn system_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

/// Lines of a name and a number.
fn pairs(text: &str) -> BTreeMap<&str, u64> {
    let pair = |line: &'_ str| -> Option<(usize, u64)> {
        let (name, number) = line.split_once(' ')?;
        Some((name.len(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(|line| pair(line).map(|(end, number)| (&line[..end], number))).collect()
}

fn processors(text: &str) -> CpuStats {
    let counts = pairs(text);
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let nanos = |name: &str| count(name).saturating_mul(1000);
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: nanos("usage_usec"),
            usage_in_kernelmode: nanos("system_usec"),
            usage_in_usermode: nanos("user_usec"),
        },
        throttling_data: ThrottlingData {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: nanos("throttled_usec"),
        },
        ..CpuStats::default()
    }
}

/// A line that this kernel does not have is 0. Newer ones count what was one line in two.
fn memory(text: &str) -> BTreeMap<String, u64> {
    let counts = pairs(text);
    let count = |name: &str| match counts.get(name) {
        Some(count) => *count,
        None => ["_anon", "_file"].iter().filter_map(|of| counts.get(format!("{name}{of}").as_str())).sum(),
    };
    MEMORY.into_iter().map(|name| (name.to_owned(), count(name))).collect()
}

/// Lines like `8:0 rbytes=1 wbytes=2 rios=3 …`.
fn disks(text: &str) -> Vec<BlkioEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|word| word.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else { continue };
        let counts: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        for (op, key) in [("read", "rbytes"), ("write", "wbytes")] {
            let count =
                counts.iter().find(|(name, _)| *name == key).and_then(|(_, count)| count.parse().ok());
            entries.push(BlkioEntry { major, minor, op, value: count.unwrap_or(0) });
        }
    }
    entries
}

/// The time of all processors together, in nanoseconds, and how many they are.
fn system_usage(text: &str) -> (u64, u32) {
    let (mut ticks, mut processors) = (0, 0);
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        match line.strip_prefix("cpu ") {
            Some(counts) => {
                ticks = counts.split_whitespace().take(7).filter_map(|count| count.parse::<u64>().ok()).sum();
            }
            None => processors += 1,
        }
    }
    (ticks * TICK_NANOS, processors)
}

fn read_networks(netns: &Path) -> BTreeMap<String, NetworkStats> {
    let read = || {
        let netns = Netns::open(netns)?;
        // `/proc/net` is the network of the process; this thread's is its own.
        netns::enter(&netns, || std::fs::read_to_string("/proc/thread-self/net/dev"))
    };
    match read() {
        Ok(text) => networks(&text),
        Err(error) => {
            debug!(%error, netns = %netns.display(), "no counts of a container's network");
            BTreeMap::new()
        }
    }
}

/// Lines of a name and sixteen numbers, behind two of headings.
fn networks(text: &str) -> BTreeMap<String, NetworkStats> {
    let interface = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, ..] = counts[..] else { return None };
        let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = counts[counts.len().min(8)..] else {
            return None;
        };
        let stats = NetworkStats {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), stats))
    };
    text.lines().skip(2).filter_map(interface).filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_nanoseconds() {
        let stats = processors(
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
        );
        assert_eq!((stats.cpu_usage.total_usage, stats.cpu_usage.usage_in_usermode), (30_000, 20_000));
        assert_eq!((stats.throttling_data.periods, stats.throttling_data.throttled_time), (5, 7_000));
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
        assert_eq!(system_usage(stat), (28 * TICK_NANOS, 2));
    }

    #[test]
    fn memory_has_the_lines_that_clients_look_for() {
        let found =
            memory("anon 5\ninactive_file 7\nworkingset_refault_anon 1\nworkingset_refault_file 2\nelse 9\n");
        assert_eq!(
            (found["anon"], found["inactive_file"], found["workingset_refault"], found["slab"]),
            (5, 7, 3, 0)
        );
        assert_eq!(found.len(), MEMORY.len());
    }

    #[test]
    fn disks_have_two_entries_each() {
        let entries = disks("8:0 rbytes=1 wbytes=2 rios=3\n\n259:1 wbytes=4\n");
        let told: Vec<_> = entries.iter().map(|entry| (entry.major, entry.op, entry.value)).collect();
        assert_eq!(told, [(8, "read", 1), (8, "write", 2), (259, "read", 0), (259, "write", 4)]);
    }

    #[test]
    fn interfaces_are_counted_but_the_loopback() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
        let found = networks(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found["eth0"].rx_bytes, found["eth0"].tx_bytes, found["eth0"].tx_dropped), (10, 20, 7));
    }
}
