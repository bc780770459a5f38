//! The columns of `ps`: their names, titles, and what stands in them.

use std::cmp::Ordering;
use std::time::Duration;

use time::OffsetDateTime;

use super::process::{Host, Process};

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    show: fn(&Process, &Host) -> String,
}

impl Column {
    /// The column of this name, as after `-o`.
    pub(super) fn find(name: &str) -> Option<Self> {
        let row = TABLE.iter().find(|(names, ..)| names.split(' ').any(|known| known == name))?;
        Some(Self { title: row.1, show: row.2 })
    }

    pub(super) fn title(self) -> &'static str {
        self.title
    }

    /// What stands in it for a process.
    pub(super) fn show(self, process: &Process, host: &Host) -> String {
        (self.show)(process, host)
    }
}

/// What lines are ordered by.
#[derive(Debug, Clone, Copy)]
pub(super) enum SortKey {
    /// What stands in a column: as numbers, if they are that.
    Column(Column),
    Used,
    Age,
    Began,
}

impl SortKey {
    pub(super) fn find(name: &str) -> Option<Self> {
        match name {
            "time" | "cputime" | "bsdtime" => Some(Self::Used),
            "etime" | "etimes" => Some(Self::Age),
            "start" | "start_time" | "stime" | "lstart" | "bsdstart" => Some(Self::Began),
            name => Column::find(name).map(Self::Column),
        }
    }

    pub(super) fn compare(self, host: &Host, one: &Process, other: &Process) -> Ordering {
        match self {
            Self::Used => one.used(host).cmp(&other.used(host)),
            Self::Age => one.age(host).cmp(&other.age(host)),
            Self::Began => other.age(host).cmp(&one.age(host)),
            Self::Column(column) => {
                let (one, other) = (column.show(one, host), column.show(other, host));
                match (one.parse::<f64>(), other.parse::<f64>()) {
                    (Ok(one), Ok(other)) => one.total_cmp(&other),
                    _ => one.cmp(&other),
                }
            }
        }
    }
}

type Row = (&'static str, &'static str, fn(&Process, &Host) -> String);

/// Names (as `ps` knows them, and those that only its styles use), title, contents.
const TABLE: &[Row] = &[
    ("pid tgid", "PID", |p, _| p.pid.to_string()),
    ("lwp", "LWP", |p, _| p.thread.to_string()),
    ("spid", "SPID", |p, _| p.thread.to_string()),
    ("tid", "TID", |p, _| p.thread.to_string()),
    ("ppid", "PPID", |p, _| p.field(4).to_string()),
    ("pgid pgrp", "PGID", |p, _| p.field(5).to_string()),
    ("sid sess session", "SID", |p, _| p.field(6).to_string()),
    ("tpgid", "TPGID", |p, _| p.field(8).to_string()),
    ("user euser uname", "USER", |p, host| host.user(p.uid)),
    ("ruser", "RUSER", |p, host| host.user(p.real_uid())),
    ("uid_hack", "UID", |p, host| host.user(p.uid)),
    ("uid euid", "UID", |p, _| p.uid.to_string()),
    ("ruid", "RUID", |p, _| p.real_uid().to_string()),
    ("group egroup", "GROUP", |p, host| host.group(p.gid)),
    ("gid egid", "GID", |p, _| p.gid.to_string()),
    ("comm ucomm", "COMMAND", |p, _| name(p)),
    ("ucmd", "CMD", |p, _| name(p)),
    ("args command", "COMMAND", |p, _| p.command()),
    ("cmd", "CMD", |p, _| p.command()),
    ("%cpu pcpu", "%CPU", |p, host| format!("{:.1}", percent(p, host))),
    ("c", "C", |p, host| format!("{:.0}", percent(p, host).floor().min(99.0))),
    ("%mem pmem", "%MEM", |p, host| {
        format!("{:.1}", p.resident_kib(host) as f64 * 100.0 / host.memory_kib.max(1) as f64)
    }),
    ("vsz vsize", "VSZ", |p, _| (p.field(23) / 1024).to_string()),
    ("sz", "SZ", |p, host| (u64::try_from(p.field(23)).unwrap_or_default() / host.page).to_string()),
    ("rss rssize rsz", "RSS", |p, host| p.resident_kib(host).to_string()),
    ("trs", "TRS", |p, _| ((p.field(27) - p.field(26)).max(0) / 1024).to_string()),
    ("drs", "DRS", |p, _| ((p.field(23) - (p.field(27) - p.field(26)).max(0)) / 1024).to_string()),
    ("maj_flt majflt", "MAJFL", |p, _| p.field(12).to_string()),
    ("min_flt minflt", "MINFL", |p, _| p.field(10).to_string()),
    ("tty tt", "TT", |p, _| p.terminal()),
    ("tname", "TTY", |p, _| p.terminal()),
    ("s state", "S", |p, _| p.state().to_owned()),
    ("stat", "STAT", |p, _| stat(p)),
    ("time cputime", "TIME", |p, host| days_clock(p.used(host))),
    ("bsdtime", "TIME", |p, host| {
        let seconds = p.used(host).as_secs();
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }),
    ("etime", "ELAPSED", |p, host| elapsed(p.age(host))),
    ("etimes", "ELAPSED", |p, host| p.age(host).as_secs().to_string()),
    ("stime start_time bsdstart", "STIME", |p, host| began(p, host)),
    ("start", "STARTED", |p, host| {
        let at = moment(p, host);
        if p.age(host).as_secs() < 86_400 {
            format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
        } else {
            format!("{} {:02}", month(at), at.day())
        }
    }),
    ("lstart", "STARTED", |p, host| {
        let at = moment(p, host);
        let (clock, day) = (format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second()), at.weekday());
        format!("{} {} {:>2} {clock} {}", &day.to_string()[..3], month(at), at.day(), at.year())
    }),
    ("ni nice", "NI", |p, _| p.field(19).to_string()),
    ("pri", "PRI", |p, _| (39 - p.field(18)).to_string()),
    ("opri priority", "PRI", |p, _| (60 + p.field(18)).to_string()),
    ("psr", "PSR", |p, _| p.field(39).to_string()),
    ("nlwp thcount", "NLWP", |p, _| p.threads().to_string()),
    ("f flag flags", "F", |p, _| format!("{:o}", (p.field(9) >> 6) & 0x7)),
    ("addr_1", "ADDR", |_, _| "-".into()),
    ("wchan", "WCHAN", |p, _| match p.wchan.as_str() {
        "" | "0" => "-".into(),
        place => place.chars().take(6).collect(),
    }),
    ("cgroup", "CGROUP", |p, _| p.cgroup.clone()),
];

fn name(process: &Process) -> String {
    let defunct = if process.state() == "Z" { " <defunct>" } else { "" };
    format!("{}{defunct}", process.name)
}

/// The processor time that it has used of the time that it has had.
fn percent(process: &Process, host: &Host) -> f64 {
    let age = process.age(host).as_secs_f64();
    if age <= 0.0 { 0.0 } else { process.used(host).as_secs_f64() * 100.0 / age }
}

/// The state with what `ps` adds: priority, leader of a session, threads, locked memory, foreground.
fn stat(process: &Process) -> String {
    let nice = process.field(19);
    let marks = [
        (nice < 0, '<'),
        (nice > 0, 'N'),
        (process.locked_kib > 0, 'L'),
        (process.field(6) == i64::from(process.pid), 's'),
        (process.threads() > 1, 'l'),
        (process.in_foreground(), '+'),
    ];
    let marks = marks.into_iter().filter(|(holds, _)| *holds).map(|(_, mark)| mark);
    process.state().chars().chain(marks).collect()
}

/// `[days-]hours:minutes:seconds`.
fn days_clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    if seconds < 86_400 { clock } else { format!("{}-{clock}", seconds / 86_400) }
}

/// `[[days-]hours:]minutes:seconds`.
fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 3600 { format!("{:02}:{:02}", seconds / 60, seconds % 60) } else { days_clock(duration) }
}

fn moment(process: &Process, host: &Host) -> OffsetDateTime {
    let age = i64::try_from(process.age(host).as_secs()).unwrap_or_default();
    OffsetDateTime::from_unix_timestamp(host.now - age).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time of today, a day of this year, or a year.
fn began(process: &Process, host: &Host) -> String {
    let (at, now) = (moment(process, host), OffsetDateTime::from_unix_timestamp(host.now));
    let now = now.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    if at.date() == now.date() {
        format!("{:02}:{:02}", at.hour(), at.minute())
    } else if at.year() == now.year() {
        format!("{}{:02}", month(at), at.day())
    } else {
        at.year().to_string()
    }
}

fn month(at: OffsetDateTime) -> String {
    at.month().to_string()[..3].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_in_ps() {
        let of = Duration::from_secs;
        assert_eq!((days_clock(of(61)), days_clock(of(90_061))), ("00:01:01".into(), "1-01:01:01".into()));
        assert_eq!((elapsed(of(61)), elapsed(of(3661))), ("01:01".into(), "01:01:01".into()));
    }

    #[test]
    fn a_state_carries_its_marks() {
        let of = |stat: &str| super::stat(&Process::parse(7, stat).unwrap());
        let fields = "0 0 0 0 0 0 0 0 0";
        assert_eq!(of(&format!("7 (sh) S 1 7 7 34816 7 {fields} 20 0 1")), "Ss+");
        assert_eq!(of(&format!("7 (sh) R 1 7 3 0 -1 {fields} 30 10 4")), "RNl");
    }
}
