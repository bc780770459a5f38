//! What a container uses: `GET /containers/{id}/stats`. The names are in the older style of the API, and so is what is left out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::time::Timestamp;

/// One sample.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// The container's name, with a slash in front.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The container's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// When it was taken.
    pub read: Timestamp,
    /// When the one before it was taken.
    pub preread: Timestamp,
    /// Processes.
    pub pids_stats: PidsStats,
    /// Disks.
    pub blkio_stats: BlkioStats,
    /// Of Windows: always 0.
    pub num_procs: u32,
    /// Of Windows: always empty.
    pub storage_stats: StorageStats,
    /// Processors.
    pub cpu_stats: CpuStats,
    /// Processors, in the sample before this.
    pub precpu_stats: CpuStats,
    /// Memory.
    pub memory_stats: MemoryStats,
    /// Interfaces by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, NetworkStats>,
}

/// How many processes, and how many there may be; 0 is without limit.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(missing_docs, reason = "the names are the API's")]
pub struct PidsStats {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Bytes by disk. Only the first list is known to cgroup v2.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(missing_docs, reason = "the names are the API's")]
pub struct BlkioStats {
    pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
    pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
    pub io_queue_recursive: Option<Vec<BlkioEntry>>,
    pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
    pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
    pub io_merged_recursive: Option<Vec<BlkioEntry>>,
    pub io_time_recursive: Option<Vec<BlkioEntry>>,
    pub sectors_recursive: Option<Vec<BlkioEntry>>,
}

/// One count of one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// The disk's number.
    pub major: u64,
    /// The disk's number.
    pub minor: u64,
    /// `read` or `write`.
    pub op: &'static str,
    /// Bytes.
    pub value: u64,
}

/// Of Windows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StorageStats {}

/// Time on processors, in nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CpuStats {
    /// The container's.
    pub cpu_usage: CpuUsage,
    /// The whole system's, of all processors together.
    #[serde(skip_serializing_if = "is_zero")]
    pub system_cpu_usage: u64,
    /// How many processors there are.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub online_cpus: u32,
    /// How it was slowed down.
    pub throttling_data: ThrottlingData,
}

/// Nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(missing_docs, reason = "the names are the API's")]
pub struct CpuUsage {
    pub total_usage: u64,
    pub usage_in_kernelmode: u64,
    pub usage_in_usermode: u64,
}

/// Periods in which a quota was counted, and those in which it was used up; nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(missing_docs, reason = "the names are the API's")]
pub struct ThrottlingData {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryStats {
    /// All of it, the page cache too.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Lines of `memory.stat`; `docker stats` takes `inactive_file` off the usage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, u64>,
    /// How often the limit was in the way.
    #[serde(skip_serializing_if = "is_zero")]
    pub failcnt: u64,
    /// The limit, or the system's memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Counts of one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are the API's")]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}
