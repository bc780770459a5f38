//! A process as `/proc` tells of it (`proc_pid_stat(5)` and its kin).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// What is the same for all processes.
#[derive(Debug)]
pub(super) struct Host {
    /// Seconds since the epoch.
    pub(super) now: i64,
    pub(super) up: Duration,
    pub(super) memory_kib: u64,
    pub(super) page: u64,
    /// Clock ticks a second.
    pub(super) ticks: u64,
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Host {
    pub(super) fn read() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up = uptime.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(1);
        Self {
            now: i64::try_from(since.as_secs()).unwrap_or_default(),
            up: Duration::from_secs_f64(up),
            memory_kib: kib,
            page: auxiliary(PAGE_SIZE).unwrap_or(4096),
            ticks: auxiliary(CLOCK_TICKS).unwrap_or(100),
            users: names("/etc/passwd"),
            groups: names("/etc/group"),
        }
    }

    /// The name, or the number of a user who has none here.
    pub(super) fn user(&self, id: u32) -> String {
        self.users.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// The same of a group.
    pub(super) fn group(&self, id: u32) -> String {
        self.groups.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

/// `AT_PAGESZ` of `getauxval(3)`.
const PAGE_SIZE: u64 = 6;
/// `AT_CLKTCK`.
const CLOCK_TICKS: u64 = 17;

/// What the kernel has told this process at its start.
fn auxiliary(key: u64) -> Option<u64> {
    let vector = fs::read("/proc/self/auxv").ok()?;
    let (pairs, _) = vector.as_chunks::<16>();
    pairs.iter().find_map(|pair| {
        let number = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
        (number(&pair[..8])? == key).then(|| number(&pair[8..])).flatten()
    })
}

fn names(file: &str) -> HashMap<u32, String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((id.parse().ok()?, name.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

/// One process.
#[derive(Debug, Default, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// The thread that is shown; the process' first, if none in particular.
    pub(super) thread: u32,
    pub(super) name: String,
    /// As it was started; empty for one of the kernel's, or one that has ended.
    pub(super) command: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    stat: Vec<String>,
    pub(super) locked_kib: u64,
    pub(super) cgroup: String,
    pub(super) wchan: String,
}

impl Process {
    /// `None` if it has ended meanwhile.
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::read_in(pid, pid, &format!("/proc/{pid}"))
    }

    /// A line for each of its threads that are left.
    pub(super) fn threads_of(pid: u32) -> Vec<Self> {
        let listed = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut threads: Vec<u32> =
            listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        threads.sort_unstable();
        let read = |thread| Self::read_in(pid, thread, &format!("/proc/{pid}/task/{thread}"));
        threads.into_iter().filter_map(read).collect()
    }

    fn read_in(pid: u32, thread: u32, directory: &str) -> Option<Self> {
        let read = |file: &str| fs::read(format!("{directory}/{file}"));
        let text = |file: &str| read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let status = text("status").ok()?;
        let field = |name: &str, index: usize| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().nth(index)?.parse::<u64>().ok()).unwrap_or_default()
        };
        let words = read("cmdline").unwrap_or_default();
        let words = words.strip_suffix(&[0]).unwrap_or(&words).split(|byte| *byte == 0);
        let words: Vec<String> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let mut process = Self::parse(pid, &text("stat").ok()?)?;
        process.thread = thread;
        process.command = words.join(" ").trim_end().to_owned();
        process.uid = u32::try_from(field("Uid", 1)).ok()?;
        process.gid = u32::try_from(field("Gid", 1)).ok()?;
        process.locked_kib = field("VmLck", 0);
        process.cgroup = text("cgroup").unwrap_or_default().trim().replace('\n', ",");
        process.wchan = text("wchan").unwrap_or_default();
        Some(process)
    }

    /// Reads `/proc/PID/stat`, where the name may have anything in it.
    pub(super) fn parse(pid: u32, stat: &str) -> Option<Self> {
        let (begin, end) = (stat.find('(')?, stat.rfind(')')?);
        let name = stat.get(begin + 1..end)?.to_owned();
        let rest = stat.get(end + 1..)?.split_whitespace().map(str::to_owned).collect();
        Some(Self { pid, thread: pid, name, stat: rest, ..Self::default() })
    }

    /// A field of `/proc/PID/stat` by its number in the manual, from 4 on.
    pub(super) fn field(&self, number: usize) -> i64 {
        self.stat.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    pub(super) fn state(&self) -> &str {
        self.stat.first().map_or("?", String::as_str)
    }

    /// Processor time that it has used.
    pub(super) fn used(&self, host: &Host) -> Duration {
        let ticks = u64::try_from(self.field(14) + self.field(15)).unwrap_or_default();
        Duration::from_millis(ticks * 1000 / host.ticks.max(1))
    }

    /// How long it has run.
    pub(super) fn age(&self, host: &Host) -> Duration {
        let ticks = u64::try_from(self.field(22)).unwrap_or_default();
        host.up.saturating_sub(Duration::from_millis(ticks * 1000 / host.ticks.max(1)))
    }

    pub(super) fn resident_kib(&self, host: &Host) -> u64 {
        u64::try_from(self.field(24)).unwrap_or_default() * host.page / 1024
    }

    /// What it was started as, or its name in brackets.
    pub(super) fn command(&self) -> String {
        match (self.command.is_empty(), self.state()) {
            (false, _) => self.command.clone(),
            (true, "Z") => format!("[{}] <defunct>", self.name),
            (true, _) => format!("[{}]", self.name),
        }
    }

    pub(super) fn terminal(&self) -> String {
        let number = self.field(7);
        if number == 0 {
            return "?".into();
        }
        let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
        match major {
            4 if minor < 64 => format!("tty{minor}"),
            4 => format!("ttyS{}", minor - 64),
            136..=143 => format!("pts/{}", minor + (major - 136) * 256),
            _ => "?".into(),
        }
    }

    /// Threads of it that there are.
    pub(super) fn threads(&self) -> i64 {
        self.field(20)
    }

    /// Whether its terminal shows it.
    pub(super) fn in_foreground(&self) -> bool {
        self.field(8) == self.field(5)
    }

    /// The owner of its directory in `/proc`: whom it runs as.
    pub(super) fn real_uid(&self) -> u32 {
        fs::metadata(format!("/proc/{}", self.pid)).map_or(self.uid, |found| found.uid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_anything_in_it() {
        let process = Process::parse(7, "7 (a) b (c)) S 3 7 7 34816 7 4194560 1 2 3 4 250 50").unwrap();
        assert_eq!((process.name.as_str(), process.state(), process.field(4)), ("a) b (c)", "S", 3));
        assert_eq!(process.terminal(), "pts/0");
    }

    #[test]
    fn this_process_is_read() {
        let process = Process::read(std::process::id()).unwrap();
        assert!(!process.command().is_empty() && process.threads() > 0);
        assert_eq!(auxiliary(CLOCK_TICKS), Some(100));
        assert_eq!(Process::read(u32::MAX).map(|process| process.pid), None);
        assert!(Process::threads_of(std::process::id()).iter().any(|line| line.thread == line.pid));
    }
}
