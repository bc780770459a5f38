//! `GET /containers/{id}/logs`.

use caisson_docker_api::time::Timestamp;

use crate::containers::logs::LogOptions;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::form::Form;
use crate::http::reply::{self, Reply};
use crate::http::{MULTIPLEXED, RAW};

pub(crate) async fn logs(call: Call) -> Result<Reply, ApiError> {
    let options = options(&call.form)?;
    let handle = call.engine.containers.find(&call.name)?;
    let logs = call.engine.containers.logs(&handle, options)?;
    let content_type =
        if handle.definition().config.tty || !call.version.at_least(42) { RAW } else { MULTIPLEXED };
    Ok(reply::stream(content_type, |to| logs.send(to)))
}

fn options(form: &Form) -> Result<LogOptions, ApiError> {
    let (stdout, stderr) = (form.bool("stdout"), form.bool("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    // Anything but a number of lines is all of them.
    let tail = form.get("tail").parse().ok();
    Ok(LogOptions {
        stdout,
        stderr,
        follow: form.bool("follow"),
        timestamps: form.bool("timestamps"),
        details: form.bool("details"),
        since: time(form.get("since"))?.filter(|at| at.unix_nanos() > 0),
        until: time(form.get("until"))?.filter(|at| at.unix_nanos() > 0),
        tail,
    })
}

/// Reads seconds since the epoch, with a fraction if need be: `1136073600.000000001`.
pub(crate) fn time(text: &str) -> Result<Option<Timestamp>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    // A status 500, as in dockerd.
    let bad = |part: &str| ApiError::internal(format!("strconv.ParseInt: parsing {part:?}: invalid syntax"));
    let seconds: i64 = seconds.parse().map_err(|_| bad(seconds))?;
    let nanos: i64 = match fraction {
        "" => 0,
        digits => format!("{digits:0<9.9}").parse().map_err(|_| bad(digits))?,
    };
    Ok(Some(Timestamp::from_unix_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_a_fraction() {
        let nanos = |text| time(text).unwrap().map(Timestamp::unix_nanos);
        assert_eq!(nanos("1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!(nanos("1700000000.5"), Some(1_700_000_000_500_000_000));
        assert_eq!(nanos("1.000000001"), Some(1_000_000_001));
        assert_eq!(nanos(""), None);
        assert_eq!(time("abc").unwrap_err().message, "strconv.ParseInt: parsing \"abc\": invalid syntax");
    }
}
