//! The `platform` and `platforms` parameters of calls about images: OCI platforms as JSON. Clients whose API version does not
//! have them may send them all the same, and mean nothing by it.

use caisson_images::Platform;
use serde_json::Value;

use crate::error::ApiError;
use crate::http::call::Call;

/// The call's `platform`, which the API has since `1.minor`.
pub(super) fn asked(call: &Call, minor: u32) -> Result<Option<Platform>, ApiError> {
    match call.form.get("platform") {
        text if !text.is_empty() && call.version.at_least(minor) => parse(text).map(Some),
        _ => Ok(None),
    }
}

/// The same of calls that will take several one day.
pub(super) fn only_one_asked(call: &Call, minor: u32) -> Result<Option<Platform>, ApiError> {
    if call.version.at_least(minor) && call.form.all("platform").len() > 1 {
        return Err(ApiError::invalid("multiple platform parameters not supported"));
    }
    asked(call, minor)
}

/// The call's `platforms`, which the API has since `1.minor`.
pub(super) fn all_asked(call: &Call, minor: u32) -> Result<Vec<Platform>, ApiError> {
    match call.version.at_least(minor) {
        true => call.form.all("platforms").iter().map(|text| parse(text)).collect(),
        false => Ok(Vec::new()),
    }
}

/// Reads `{"os":"linux","architecture":"arm64","variant":"v8"}`.
fn parse(text: &str) -> Result<Platform, ApiError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}")))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (os, architecture, variant) = (field("os"), field("architecture"), field("variant"));
    let has_details = !variant.is_empty() || value.get("os.version").is_some();
    match (os.is_empty(), architecture.is_empty()) {
        (true, true) if has_details => {
            Err(ApiError::invalid("optional platform fields provided, but OS and Architecture are missing"))
        }
        (false, false) => Ok(Platform { os, architecture, variant }),
        _ => Err(ApiError::invalid("both OS and Architecture must be provided")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_whole_or_refused() {
        let read = parse(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#).unwrap();
        assert_eq!(read.to_string(), "linux/arm64/v8");
        for (text, why) in [
            ("{}", "both OS and Architecture must be provided"),
            (r#"{"os":"linux"}"#, "both OS and Architecture must be provided"),
            (r#"{"variant":"v8"}"#, "optional platform fields provided, but OS and Architecture are missing"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, why);
        }
        assert!(parse("linux/arm64").unwrap_err().message.starts_with("failed to parse platform: "));
    }
}
