//! `HEALTHCHECK`.

use super::{ChangeError, words};
use crate::config::HealthConfig;

/// The shortest time that is not meant as "inherited".
const SHORTEST: i64 = 1_000_000;

pub(super) fn parse(rest: &str) -> Result<HealthConfig, ChangeError> {
    let mut health = HealthConfig::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = words::first(flag);
        set_flag(&mut health, flag)?;
        rest = after;
    }
    let (kind, command) = words::first(rest);
    health.test = match (kind.to_ascii_uppercase().as_str(), command) {
        ("", _) => return Err(ChangeError::AtLeastOne("HEALTHCHECK")),
        ("NONE", "") => vec!["NONE".to_owned()],
        ("NONE", _) => return Err(ChangeError::Health("HEALTHCHECK NONE takes no arguments".to_owned())),
        ("CMD", "") => return Err(ChangeError::Health("Missing command after HEALTHCHECK CMD".to_owned())),
        ("CMD", command) => match words::json(command) {
            Some(words) => [vec!["CMD".to_owned()], words].concat(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        (other, _) => {
            return Err(ChangeError::Health(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")));
        }
    };
    Ok(health)
}

fn set_flag(health: &mut HealthConfig, flag: &str) -> Result<(), ChangeError> {
    let Some((name, value)) = flag.split_once('=') else {
        return Err(ChangeError::Health(format!("Missing a value on flag: {flag}")));
    };
    match name {
        "interval" => health.interval = time(name, value)?,
        "timeout" => health.timeout = time(name, value)?,
        "start-period" => health.start_period = time(name, value)?,
        "start-interval" => health.start_interval = time(name, value)?,
        "retries" => {
            let number = value.parse();
            let number: i64 =
                number.map_err(|_| ChangeError::Health(format!("--retries is no number ({value})")))?;
            if number < 0 {
                return Err(ChangeError::Health(format!("--retries cannot be negative ({number})")));
            }
            health.retries = number;
        }
        _ => return Err(ChangeError::Health(format!("unknown flag: --{name}"))),
    }
    Ok(())
}

fn time(name: &str, text: &str) -> Result<i64, ChangeError> {
    match nanoseconds(text) {
        None => Err(ChangeError::Health(format!("time: invalid duration {text:?}"))),
        Some(time) if time != 0 && time < SHORTEST => {
            Err(ChangeError::Health(format!("Interval {name:?} cannot be less than 1ms")))
        }
        Some(time) => Ok(time),
    }
}

/// A duration as Go writes it: `1m30s`, `1.5h`.
fn nanoseconds(mut text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !text.is_empty() {
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = text[..end].parse().ok()?;
        text = &text[end..];
        let end = text.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(text.len());
        total += number * unit(&text[..end])?;
        text = &text[end..];
    }
    Some(total.round() as i64).filter(|_| total > 0.0 && total < i64::MAX as f64)
}

fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}
