//! Moments as users name them, in `--filter until=…`: moby's `timestamp.Parse`.

use caisson_docker_api::time::Timestamp;

use crate::error::ApiError;

const NANOS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// Reads a duration before now (`1h30m`), a date with or without a time and a zone (without: UTC, which the machine's clock shows), or
/// seconds since the epoch with or without a fraction.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    if text != "0"
        && let Some(ago) = duration(text)
    {
        return Ok(Timestamp::from_unix_nanos(now.unix_nanos().saturating_sub(ago)));
    }
    if let Some(moment) = date(text) {
        return Ok(moment);
    }
    if text.contains('-') {
        return Err(ApiError::invalid(format!(
            "parsing time {text:?} as \"2006-01-02\": cannot parse {text:?} as \"2006\""
        )));
    }
    let invalid = || ApiError::invalid(format!("failed to parse value as time or duration: {text:?}"));
    seconds(text).ok_or_else(invalid)
}

/// Go's `time.ParseDuration`, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut nanos = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, length) = NANOS.iter().find(|(name, _)| *name == &rest[..unit])?;
        nanos += number * length;
        rest = &rest[unit..];
    }
    Some((sign * nanos) as i64)
}

/// A date, with what of a time and a zone is there.
fn date(text: &str) -> Option<Timestamp> {
    let (day, rest) = text.split_at_checked(10)?;
    let zone_at = rest.find(['Z', 'z', '+']).or_else(|| rest.rfind('-')).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let time = match time.strip_prefix('T').unwrap_or(time) {
        "" => "00:00:00".to_owned(),
        hour if hour.len() == 2 => format!("{hour}:00:00"),
        minute if minute.len() == 5 => format!("{minute}:00"),
        whole => whole.to_owned(),
    };
    let zone = if zone.is_empty() { "Z" } else { zone };
    Timestamp::parse(&format!("{day}T{time}{zone}"))
}

fn seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9.9}").parse().ok()? };
    Some(Timestamp::from_unix_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_durations_dates_or_seconds() {
        let now = Timestamp::parse("2026-01-02T12:00:00Z").unwrap();
        for (text, moment) in [
            ("1h", "2026-01-02T11:00:00Z"),
            ("1h30m", "2026-01-02T10:30:00Z"),
            ("1.5s", "2026-01-02T11:59:58.5Z"),
            ("-1h", "2026-01-02T13:00:00Z"),
            ("2026-01-01", "2026-01-01T00:00:00Z"),
            ("2026-01-01T10", "2026-01-01T10:00:00Z"),
            ("2026-01-01T10:11", "2026-01-01T10:11:00Z"),
            ("2026-01-01T10:11:12.5", "2026-01-01T10:11:12.5Z"),
            ("2026-01-01T10:11:12+01:00", "2026-01-01T09:11:12Z"),
            ("2026-01-01Z", "2026-01-01T00:00:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("1.000000001", "1970-01-01T00:00:01.000000001Z"),
        ] {
            assert_eq!(parse(text, now).unwrap().to_string(), moment, "{text}");
        }
        for text in ["", "x", "1d", "h", "2026-13-01"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }
}
