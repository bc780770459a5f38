//! Putting blobs and manifests into a repository (distribution-spec 1.1, "Push").

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode};

use super::client::{header, success};
use super::{Registry, RegistryError};
use crate::digest::Digest;

/// What came of the wish to take a blob from another repository.
pub(crate) enum Mounted {
    /// It is there now.
    Yes,
    /// It has to be uploaded.
    No(Upload),
}

/// An upload under way.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// Where its next bytes go.
    location: String,
}

impl Registry {
    /// The size of a blob, if the repository has it.
    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"));
        let answer = self.send(Method::HEAD, &url, |request| request).await?;
        match answer.status() {
            status if status.is_success() => Ok(Some(
                header(answer.headers(), "content-length").and_then(|text| text.parse().ok()).unwrap_or(0),
            )),
            StatusCode::NOT_FOUND => Ok(None),
            _ => success(answer).await.map(|_| None),
        }
    }

    /// Begins an upload.
    pub(crate) async fn begin_upload(&self) -> Result<Upload, RegistryError> {
        self.begin("").await.map(|(_, upload)| upload)
    }

    /// Takes a blob from another repository of the same registry; if that cannot be, an upload has begun.
    pub(crate) async fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, RegistryError> {
        let query = format!("?mount={}&from={}", escaped(&digest.to_string()), escaped(from));
        let (status, upload) = self.begin(&query).await?;
        Ok(if status == StatusCode::CREATED { Mounted::Yes } else { Mounted::No(upload) })
    }

    async fn begin(&self, query: &str) -> Result<(StatusCode, Upload), RegistryError> {
        let url = self.url(&format!("blobs/uploads/{query}"));
        let empty = |request: reqwest::RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let answer = success(self.send(Method::POST, &url, empty).await?).await?;
        let status = answer.status();
        let location =
            if status == StatusCode::CREATED { Ok(String::new()) } else { location(&url, &answer) }?;
        Ok((status, Upload { location }))
    }

    /// Sends bytes of a blob, from where the upload is on. `length` is told if it is known. The body is made anew if the
    /// request has to be sent again.
    pub(crate) async fn send_bytes(
        &self,
        upload: &Upload,
        body: impl Fn() -> reqwest::Body,
    ) -> Result<Upload, RegistryError> {
        let request = |request: reqwest::RequestBuilder| {
            request.header(CONTENT_TYPE, "application/octet-stream").body(body())
        };
        let answer = success(self.send(Method::PATCH, &upload.location, request).await?).await?;
        Ok(Upload { location: location(&upload.location, &answer)? })
    }

    /// How many bytes of an upload have arrived, and where the next go.
    pub(crate) async fn upload_state(&self, upload: &Upload) -> Result<(u64, Upload), RegistryError> {
        let answer = success(self.send(Method::GET, &upload.location, |request| request).await?).await?;
        let range = header(answer.headers(), "range").unwrap_or_default();
        let arrived = range.rsplit('-').next().and_then(|last| last.parse::<u64>().ok());
        // `0-0` says both that nothing has arrived and that one byte has; no blob is that short.
        let arrived = arrived.map_or(0, |last| if last == 0 { 0 } else { last + 1 });
        let next = location(&upload.location, &answer).unwrap_or_else(|_| upload.location.clone());
        Ok((arrived, Upload { location: next }))
    }

    /// Ends an upload: the registry verifies the digest.
    pub(crate) async fn end_upload(&self, upload: &Upload, digest: &Digest) -> Result<(), RegistryError> {
        let mut url = reqwest::Url::parse(&upload.location)
            .map_err(|error| RegistryError::Invalid(format!("location {:?}: {error}", upload.location)))?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let empty = |request: reqwest::RequestBuilder| request.header(CONTENT_LENGTH, 0);
        success(self.send(Method::PUT, url.as_str(), empty).await?).await.map(drop)
    }

    /// Puts a manifest under a tag or its digest.
    pub(crate) async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let url = self.url(&format!("manifests/{reference}"));
        let request =
            |request: reqwest::RequestBuilder| request.header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        success(self.send(Method::PUT, &url, request).await?).await.map(drop)
    }
}

/// The address of the next step, which may be relative to the last.
fn location(base: &str, answer: &reqwest::Response) -> Result<String, RegistryError> {
    let text = header(answer.headers(), LOCATION.as_str())
        .ok_or_else(|| RegistryError::Invalid("an upload without a location".to_owned()))?;
    let joined = reqwest::Url::parse(base).and_then(|base| base.join(&text));
    joined
        .map(|url| url.to_string())
        .map_err(|error| RegistryError::Invalid(format!("location {text:?}: {error}")))
}

/// A value of a query, with nothing in it that means something there.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use crate::registry::{Credentials, Purpose, RegistryConfig, connect};
    use crate::testing::registry::{Answer, Played};

    #[tokio::test]
    async fn credentials_go_to_the_registry_and_nobody_else() {
        let other = Played::start(|_| Answer::location(202, "/elsewhere"));
        let elsewhere = format!("http://{}/upload", other.address());
        let registry = Played::start(move |asked| match (asked.path.as_str(), asked.method.as_str()) {
            ("/v2/", _) => {
                let wanted = "WWW-Authenticate: Basic realm=\"r\"\r\n".to_owned();
                Answer::Whole(401, wanted, Vec::new())
            }
            (_, "GET") => {
                let next = format!("Link: <{elsewhere}>; rel=\"next\"\r\n");
                Answer::Whole(200, next, br#"{"tags":["a"]}"#.to_vec())
            }
            _ => Answer::location(202, &elsewhere),
        });
        let (username, password) = ("me".to_owned(), "secret".to_owned());
        let credentials = Credentials { username, password, ..Credentials::default() };
        let (config, name) = (RegistryConfig::default(), registry.name("some/thing"));
        let connected = connect(&config, &name, &credentials, Purpose::Push, &[]).await.unwrap();
        let upload = connected.begin_upload().await.unwrap();
        connected.send_bytes(&upload, || "bytes".into()).await.unwrap();
        // What is there is no list of tags.
        assert!(connected.tags().await.is_err());
        let told = |played: &Played| -> Vec<bool> {
            played.asked().iter().map(|asked| asked.head.contains("authorization:")).collect()
        };
        assert_eq!(told(&registry), [false, true, true], "the first request asks whether to");
        assert_eq!(told(&other), [false, false]);
    }
}
