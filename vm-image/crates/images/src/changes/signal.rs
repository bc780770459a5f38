//! `STOPSIGNAL`.

/// Linux's signals without `SIG` (`signal(7)`), and the names that Go's `moby/sys/signal` adds.
const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether it is a signal's number or name.
pub(super) fn is_known(signal: &str) -> bool {
    if let Ok(number) = signal.parse::<u32>() {
        return number != 0;
    }
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    NAMES.contains(&name) || is_real_time(name)
}

/// `RTMIN+1` to `RTMIN+15`, `RTMAX-1` to `RTMAX-14`.
fn is_real_time(name: &str) -> bool {
    let within = |number: &str, most| number.parse().is_ok_and(|number: u32| (1..=most).contains(&number));
    name.strip_prefix("RTMIN+").is_some_and(|number| within(number, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|number| within(number, 14))
}
