//! Signals by name and number, as `docker kill -s` and `STOPSIGNAL` take them.

use crate::error::ApiError;

/// A signal's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignalNumber(pub(crate) i32);

pub(crate) const KILL: SignalNumber = SignalNumber(9);
pub(crate) const TERM: SignalNumber = SignalNumber(15);

const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

impl SignalNumber {
    /// Reads `SIGTERM`, `term`, `15`, `RTMIN+3`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::invalid(format!("invalid signal: {text}"));
        if let Ok(number) = text.parse() {
            return if (1..=64).contains(&number) { Ok(Self(number)) } else { Err(invalid()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let real_time = |prefix: &str, base: i32, sign: i32| {
            let offset: i32 = name.strip_prefix(prefix)?.parse().ok().filter(|n| (1..=30).contains(n))?;
            Some(base + sign * offset)
        };
        let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        known
            .or_else(|| real_time("RTMIN+", 34, 1))
            .or_else(|| real_time("RTMAX-", 64, -1))
            .map(Self)
            .ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("sigusr1", 10), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(SignalNumber::parse(text), Ok(SignalNumber(number)), "{text}");
        }
        for text in ["", "FOO", "0", "65", "-1", "RTMIN+99"] {
            assert_eq!(SignalNumber::parse(text).unwrap_err().message, format!("invalid signal: {text}"));
        }
    }
}
