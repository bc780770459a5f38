//! One repository at one endpoint: manifests, blobs, tags.

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use super::auth::{Auth, Failure};
use super::endpoint::Endpoint;
use super::{Credentials, Purpose, RegistryConfig, RegistryError, patiently};
use crate::digest::Digest;
use crate::manifest;
use crate::reference::Reference;

/// The header that names a manifest's digest.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// How many pages of tags are read.
const PAGES_MAX: usize = 10_000;

/// One repository of a registry.
#[derive(Debug)]
pub struct Registry {
    pub(super) http: reqwest::Client,
    endpoint: Endpoint,
    path: String,
    auth: Auth,
}

/// A manifest or index, byte for byte.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The media type that it came with.
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// The bytes of a blob, as they come.
pub(crate) struct BlobStream {
    answer: Response,
    /// The bytes of the answer that were not asked for: the registry does not know ranges.
    pub(crate) skip: u64,
    method_and_url: (String, String),
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Registry {
    pub(super) fn new(
        config: &RegistryConfig,
        endpoint: Endpoint,
        name: &Reference,
        credentials: &Credentials,
        purpose: Purpose,
        mount_from: &[String],
    ) -> Result<Self, RegistryError> {
        let actions = if purpose == Purpose::Push { "pull,push" } else { "pull" };
        let mut scopes = vec![format!("repository:{}:{actions}", name.path())];
        scopes.extend(mount_from.iter().map(|path| format!("repository:{path}:pull")));
        // A password is for the registry, not for those who stand in for it.
        let credentials =
            if endpoint.mirror_of.is_some() { Credentials::default() } else { credentials.clone() };
        let http = endpoint.client(config)?;
        Ok(Self { http, endpoint, path: name.path().to_owned(), auth: Auth::new(credentials, scopes) })
    }

    /// `https://registry-1.docker.io`.
    pub fn base(&self) -> &str {
        &self.endpoint.base
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.endpoint.mirror_of.is_some()
    }

    /// Finds out whether somebody answers there, and how they want to know who asks.
    pub(super) async fn ping(&self) -> Result<(), RegistryError> {
        let url = format!("{}/v2/", self.endpoint.base);
        let sent = self.http.get(&url).send().await;
        let answer = sent.map_err(|error| RegistryError::unreachable("GET", &url, &error))?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.auth.challenged(&answer);
        }
        match self.is_mirror() && answer.status().is_server_error() {
            true => Err(RegistryError::of_answer(answer.status(), b"")),
            false => Ok(()),
        }
    }

    /// The address of something in this repository: `manifests/latest`.
    pub(super) fn url(&self, what: &str) -> String {
        let url = format!("{}/v2/{}/{what}", self.endpoint.base, self.path);
        match &self.endpoint.mirror_of {
            Some(registry) => format!("{url}{}ns={registry}", if what.contains('?') { '&' } else { '?' }),
            None => url,
        }
    }

    /// Sends a request; once more if a token has run out. Who asks is told the registry itself, and nobody that it sends
    /// clients to. `build` adds what else is to be sent.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let is_own = self.is_own(url);
        let mut again = is_own;
        loop {
            let header = match is_own {
                true => self
                    .auth
                    .header(&self.http)
                    .await
                    .map_err(|failure| self.failed(failure, &method, url))?,
                false => None,
            };
            let mut request = build(self.http.request(method.clone(), url));
            if let Some(header) = &header {
                request = request.header(AUTHORIZATION, header);
            }
            let sent = request.send().await;
            let answer = sent.map_err(|error| RegistryError::unreachable(method.as_str(), url, &error))?;
            if answer.status() == StatusCode::UNAUTHORIZED && std::mem::take(&mut again) {
                self.auth.challenged(&answer);
                if self.auth.refused(header.as_deref()) {
                    continue;
                }
            }
            return Ok(answer);
        }
    }

    /// Whether an address is one of this registry: of the same scheme, host and port.
    fn is_own(&self, url: &str) -> bool {
        let origin = |url: &str| reqwest::Url::parse(url).map(|url| url.origin()).ok();
        origin(url).is_some_and(|found| Some(found) == origin(&self.endpoint.base))
    }

    fn failed(&self, failure: Failure, method: &Method, url: &str) -> RegistryError {
        let (method, url) = (method.to_string(), url.to_owned());
        match failure {
            Failure::NoCredentials => RegistryError::NoCredentials { method, url },
            Failure::Token(why) => RegistryError::Token { method, url, why: Box::new(why) },
        }
    }

    /// What a tag or digest leads to: a manifest or an index.
    pub async fn manifest(&self, name: &Reference) -> Result<Document, RegistryError> {
        match name.digest() {
            Some(digest) => self.get_manifest(&digest.to_string()).await,
            None => {
                let tag = name.tag().unwrap_or("latest");
                // By digest, so that what comes can be verified.
                let digest = self.head_manifest(tag).await?.map(|digest| digest.to_string());
                self.get_manifest(digest.as_deref().unwrap_or(tag)).await
            }
        }
    }

    /// The digest that a tag leads to, if the registry says it so.
    async fn head_manifest(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let url = self.url(&format!("manifests/{tag}"));
        let answer = self.send(Method::HEAD, &url, accept_manifests).await?;
        // What is wrong is in the body of the answer to a GET.
        let digest = answer.headers().get(CONTENT_DIGEST).filter(|_| answer.status().is_success());
        Ok(digest.and_then(|digest| digest.to_str().ok()?.parse().ok()))
    }

    /// A manifest or index by its tag or digest, verified in the latter case.
    pub(crate) async fn get_manifest(&self, reference: &str) -> Result<Document, RegistryError> {
        let url = self.url(&format!("manifests/{reference}"));
        let answer = success(self.send(Method::GET, &url, accept_manifests).await?).await?;
        let announced = header(answer.headers(), CONTENT_TYPE.as_str());
        let bytes = small(answer, "manifest", &url).await?;
        let digest = Digest::of(&bytes);
        if let Ok(expected) = reference.parse::<Digest>()
            && expected != digest
        {
            return Err(RegistryError::Digest { what: "manifest", digest: expected });
        }
        let media_type = manifest::media_type(&bytes, announced.as_deref());
        Ok(Document { bytes, media_type, digest })
    }

    /// A small blob, whole and verified: a configuration.
    pub(crate) async fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"));
        let answer = success(self.send(Method::GET, &url, |request| request).await?).await?;
        let bytes = small(answer, "image configuration", &url).await?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(RegistryError::Digest { what: "image config", digest: *digest }),
        }
    }

    /// A blob from a byte on.
    pub(crate) async fn blob(&self, digest: &Digest, from: u64) -> Result<BlobStream, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"));
        let ranged = |request: RequestBuilder| match from {
            0 => request,
            from => request.header(RANGE, format!("bytes={from}-")),
        };
        let answer = success(self.send(Method::GET, &url, ranged).await?).await?;
        let begins = match answer.status() {
            StatusCode::PARTIAL_CONTENT => range_begin(answer.headers()).unwrap_or(from),
            _ => 0,
        };
        if begins > from {
            return Err(RegistryError::Invalid(format!(
                "asked for bytes from {from} on, got them from {begins} on"
            )));
        }
        Ok(BlobStream { answer, skip: from - begins, method_and_url: ("GET".to_owned(), url) })
    }

    /// A page of tags, and where the next is.
    async fn tags_at(&self, url: &str) -> Result<(Vec<String>, Option<String>), RegistryError> {
        let answer = success(self.send(Method::GET, url, |request| request).await?).await?;
        let next = header(answer.headers(), "link").and_then(|link| next_page(url, &link));
        let bytes = small(answer, "list of tags", url).await?;
        let page: Tags =
            serde_json::from_slice(&bytes).map_err(|error| RegistryError::Invalid(error.to_string()))?;
        Ok((page.tags.unwrap_or_default(), next))
    }

    /// All tags of the repository.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let mut all = Vec::new();
        let mut url = self.url("tags/list");
        for _ in 0..PAGES_MAX {
            let (tags, next) = patiently(|| self.tags_at(&url)).await?;
            all.extend(tags);
            match next {
                Some(next) => url = next,
                None => break,
            }
        }
        Ok(all)
    }
}

impl BlobStream {
    /// The next bytes; nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>, RegistryError> {
        let (method, url) = &self.method_and_url;
        self.answer.chunk().await.map_err(|error| RegistryError::unreachable(method, url, &error))
    }
}

fn accept_manifests(request: RequestBuilder) -> RequestBuilder {
    manifest::ACCEPTED.iter().fold(request, |request, media_type| request.header(ACCEPT, *media_type))
}

/// The answer, if it is none of an error.
pub(super) async fn success(answer: Response) -> Result<Response, RegistryError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = answer.url().to_string();
    // Docker Hub says so of what is not there, and of what is not for this user.
    let denied = answer
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.contains("error=\"insufficient_scope\"")));
    if denied && status == StatusCode::UNAUTHORIZED {
        return Err(RegistryError::of_answer(StatusCode::FORBIDDEN, b""));
    }
    let retry_after = header(answer.headers(), RETRY_AFTER.as_str());
    // An error without its text is still one.
    let body = small(answer, "error", &url).await.unwrap_or_default();
    Err(RegistryError::of_answer(status, &body).with_retry_after(retry_after.as_deref()))
}

/// A body that is small, or refused.
pub(super) async fn small(
    mut answer: Response,
    what: &'static str,
    url: &str,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let failed = |error| RegistryError::unreachable("GET", url, &error);
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > manifest::DOCUMENT_MAX {
            return Err(RegistryError::TooLarge(what, manifest::DOCUMENT_MAX as u64));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Where a `Content-Range: bytes 5-9/10` begins.
fn range_begin(headers: &HeaderMap) -> Option<u64> {
    let text = header(headers, CONTENT_RANGE.as_str())?;
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// The address in `Link: </v2/a/tags/list?last=b&n=100>; rel="next"`, which may be relative.
fn next_page(base: &str, link: &str) -> Option<String> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    Some(reqwest::Url::parse(base).ok()?.join(address).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let base = "http://r:1/v2/a/tags/list";
        let link = "</v2/a/tags/list?last=b&n=1>; rel=\"next\"";
        assert_eq!(next_page(base, link).as_deref(), Some("http://r:1/v2/a/tags/list?last=b&n=1"));
        assert_eq!(next_page(base, "<x>; rel=\"prev\""), None);
    }
}
