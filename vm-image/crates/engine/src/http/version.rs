//! Which API version a request speaks: the `/v1.NN` in front of its path.

use std::fmt;

use crate::error::ApiError;

/// A version of the Engine API, `1.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// The newest version that this engine speaks: that of dockerd 28.5.
pub(crate) const NEWEST: ApiVersion = ApiVersion { major: 1, minor: 51 };
/// The oldest version that this engine speaks.
pub(crate) const OLDEST: ApiVersion = ApiVersion { major: 1, minor: 24 };

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl ApiVersion {
    pub(crate) fn at_least(self, minor: u32) -> bool {
        self >= Self { major: 1, minor }
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse().ok()).flatten();
        Some(Self { major: digits(major)?, minor: digits(minor)? })
    }
}

/// Splits `/v1.41/containers/json` into the version that it names, if any, and the path.
pub(crate) fn split(path: &str) -> (Option<ApiVersion>, &str) {
    let prefixed = path.strip_prefix("/v").and_then(|rest| {
        let end = rest.find('/')?;
        Some((ApiVersion::parse(&rest[..end])?, &rest[end..]))
    });
    match prefixed {
        Some((version, rest)) => (Some(version), rest),
        None => (None, path),
    }
}

/// The version to speak, or dockerd's refusal.
pub(crate) fn negotiate(asked: Option<ApiVersion>) -> Result<ApiVersion, ApiError> {
    match asked {
        None => Ok(NEWEST),
        Some(v) if v < OLDEST => Err(ApiError::invalid(format!(
            "client version {v} is too old. Minimum supported API version is {OLDEST}, please upgrade your client to a newer version"
        ))),
        Some(v) if v > NEWEST => Err(ApiError::invalid(format!(
            "client version {v} is too new. Maximum supported API version is {NEWEST}"
        ))),
        Some(v) => Ok(v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_a_version_or_part_of_the_path() {
        let v141 = ApiVersion { major: 1, minor: 41 };
        for (path, expected) in [
            ("/v1.41/_ping", (Some(v141), "/_ping")),
            ("/_ping", (None, "/_ping")),
            ("/version", (None, "/version")),
            ("/volumes/v1.41/x", (None, "/volumes/v1.41/x")),
            ("/v1.41", (None, "/v1.41")),
            ("/v1.x/_ping", (None, "/v1.x/_ping")),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }

    #[test]
    fn versions_out_of_range_get_dockerd_s_words() {
        let refusal = |minor| negotiate(Some(ApiVersion { major: 1, minor })).unwrap_err().message;
        assert_eq!(refusal(99), "client version 1.99 is too new. Maximum supported API version is 1.51");
        assert_eq!(
            refusal(10),
            "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert_eq!(negotiate(None), Ok(NEWEST));
        assert_eq!(negotiate(Some(OLDEST)), Ok(OLDEST));
    }
}
