//! Who asks: the `X-Registry-Auth` header of the Engine API, and the body of `POST /auth`.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use serde::Deserialize;

/// A name with a password or a token. Its `Debug` tells neither.
#[derive(Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
    /// `name:password` in base64, which some clients send instead.
    pub auth: String,
    /// The registry that these are for.
    #[serde(alias = "serverAddress")]
    pub serveraddress: String,
    /// What a token server gave for a password.
    pub identitytoken: String,
    /// A token that is sent to the registry as it is.
    pub registrytoken: String,
}

/// A header that says nothing that can be understood.
#[derive(Debug, thiserror::Error)]
#[error("invalid X-Registry-Auth header: {0}")]
pub struct CredentialsError(String);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the header's text: URL-safe base64 of JSON, padded or not. Nothing, and `{}`, mean nobody.
    pub fn from_header(text: &str) -> Result<Self, CredentialsError> {
        let json = decode(text.trim()).ok_or_else(|| CredentialsError("illegal base64 data".to_owned()))?;
        if json.is_empty() {
            return Ok(Self::default());
        }
        let mut read: Self =
            serde_json::from_slice(&json).map_err(|error| CredentialsError(error.to_string()))?;
        read.unpack_auth();
        Ok(read)
    }

    fn unpack_auth(&mut self) {
        if !self.username.is_empty() || self.auth.is_empty() {
            return;
        }
        let text = decode(&self.auth).and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((name, password)) = text.as_deref().and_then(|text| text.split_once(':')) {
            (self.username, self.password) = (name.to_owned(), password.trim_end_matches('\0').to_owned());
        }
    }

    /// Whether there is a name with a password.
    pub(super) fn has_password(&self) -> bool {
        !self.username.is_empty() && !self.password.is_empty()
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = |alphabet| GeneralPurpose::new(alphabet, config);
    engine(&alphabet::URL_SAFE).decode(text).or_else(|_| engine(&alphabet::STANDARD).decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_in_all_its_forms() {
        for text in [
            "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImI/In0=",
            "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImI_In0",
            "eyJhdXRoIjoiWVRwaVB3PT0ifQ==",
        ] {
            let read = Credentials::from_header(text).unwrap();
            assert_eq!((read.username.as_str(), read.password.as_str()), ("a", "b?"), "{text}");
            assert!(!format!("{read:?}").contains("b?"));
        }
        assert_eq!(Credentials::from_header("").unwrap(), Credentials::default());
        assert_eq!(Credentials::from_header("e30=").unwrap(), Credentials::default());
        assert!(Credentials::from_header("!").is_err() && Credentials::from_header("bm8").is_err());
    }
}
