//! What an address gives that is no registry's, reached as registries are: the source of a `docker import`.

use reqwest::{Response, StatusCode, Url};

use super::client::small;
use super::endpoint::Endpoint;
use super::error::with_reason;
use super::{RegistryConfig, RegistryError};
use crate::error::{Classified, ErrorKind};

/// The bytes of an address, as they come.
#[derive(Debug)]
pub struct Download {
    answer: Response,
    size: Option<u64>,
    url: String,
}

/// Why an address gives nothing, in dockerd's words.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// It is none.
    #[error("parse {0:?}: {1}")]
    Address(String, String),
    /// Nothing else is fetched.
    #[error("Get {url:?}: unsupported protocol scheme {scheme:?}")]
    Scheme {
        /// The address.
        url: String,
        /// What it begins with.
        scheme: String,
    },
    /// It could not be reached, or the connection broke.
    #[error(transparent)]
    Unreachable(#[from] RegistryError),
    /// It answered with an error.
    #[error("failed to GET {url} with status {status}: {text}")]
    Refused {
        /// The address.
        url: String,
        /// The status with its reason.
        status: String,
        /// The same as a number.
        code: u16,
        /// What else it said.
        text: String,
    },
}

impl Classified for DownloadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(..) | Self::Refused { code: 400, .. } => ErrorKind::Invalid,
            Self::Refused { code: 401, .. } => ErrorKind::Unauthorized,
            Self::Refused { code: 403, .. } => ErrorKind::Forbidden,
            Self::Refused { code: 404, .. } => ErrorKind::NotFound,
            Self::Unreachable(RegistryError::Unreachable { why, .. }) if why.ends_with("no such host") => {
                ErrorKind::NotFound
            }
            Self::Scheme { .. } | Self::Unreachable(_) | Self::Refused { .. } => ErrorKind::Internal,
        }
    }
}

/// Asks for what is at an address; `http://` is meant if it does not say how. Redirections are followed.
pub async fn download(config: &RegistryConfig, address: &str) -> Result<Download, DownloadError> {
    let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let bad = |error: &dyn std::fmt::Display| DownloadError::Address(address.clone(), error.to_string());
    let url = Url::parse(&address).map_err(|error| bad(&error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(DownloadError::Scheme { url: address.clone(), scheme: url.scheme().to_owned() });
    }
    let http = Endpoint::of_address(&url).client(config)?;
    let sent = http.get(url).send().await;
    let answer = sent.map_err(|error| RegistryError::unreachable("GET", &address, &error))?;
    let status = answer.status();
    if status.is_client_error() || status.is_server_error() {
        return Err(refused(address, status, answer).await);
    }
    Ok(Download { size: answer.content_length(), answer, url: address })
}

async fn refused(url: String, status: StatusCode, answer: Response) -> DownloadError {
    // An error without its text is still one.
    let text = small(answer, "error", &url).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    DownloadError::Refused { url, status: with_reason(status), code: status.as_u16(), text }
}

impl Download {
    /// The whole address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many bytes there will be, if that is told.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, RegistryError> {
        let failed = |error| RegistryError::unreachable("GET", &self.url, &error);
        self.answer.chunk().await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registry::{Answer, Played};

    #[tokio::test]
    async fn an_address_gives_bytes_or_says_why_not() {
        let server = Played::start(|asked| match asked.path.as_str() {
            "/moved" => Answer::location(302, "/root.tar"),
            "/root.tar" => Answer::bytes("application/x-tar", b"some bytes"),
            "/secret" => Answer::Whole(403, String::new(), b" not for you\n".to_vec()),
            _ => Answer::status(404),
        });
        let config = RegistryConfig::default();
        let address = server.address();
        let mut found = download(&config, &format!("{address}/moved")).await.unwrap();
        assert_eq!((found.url(), found.size()), (format!("http://{address}/moved").as_str(), Some(10)));
        assert_eq!(found.next().await.unwrap().as_deref(), Some(&b"some bytes"[..]));
        assert!(found.next().await.unwrap().is_none());
        assert_eq!(found.size(), Some(10), "it is what there was, not what is left");
        for (wanted, kind, why) in [
            (
                format!("http://{address}/secret"),
                ErrorKind::Forbidden,
                format!("failed to GET http://{address}/secret with status 403 Forbidden: not for you"),
            ),
            (
                format!("{address}/none"),
                ErrorKind::NotFound,
                format!("failed to GET http://{address}/none with status 404 Not Found: "),
            ),
            (
                "ftp://x/y".to_owned(),
                ErrorKind::Internal,
                "Get \"ftp://x/y\": unsupported protocol scheme \"ftp\"".to_owned(),
            ),
        ] {
            let error = download(&config, &wanted).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (kind, why));
        }
        assert!(matches!(download(&config, "http://[").await, Err(DownloadError::Address(..))));
    }
}
