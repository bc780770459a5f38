//! Registries: the OCI distribution protocol (distribution-spec 1.1, Docker's registry API v2) as a client.
//!
//! A [`Registry`] is one repository at one endpoint. [`connect`] finds the endpoint: mirrors first, then the registry by
//! `https`, then, if it is known to be insecure, by `http`. Whoever is asked for a password is told it ([`auth`]); a token
//! that has run out is asked for again, once for a request.
//!
//! A registry that is busy is asked again ([`patience`]) by those who know that nobody else can be asked.
//!
//! What is deliberately not here: what is done with blobs ([`pull`](crate::pull), [`push`](crate::push)), progress.

mod auth;
mod challenge;
mod client;
mod config;
mod credentials;
mod download;
mod endpoint;
mod error;
mod patience;
mod proxies;
mod search;
mod settings;
mod upload;

pub use client::{Document, Registry};
pub use config::{AtOnce, RegistryConfig};
pub use credentials::{Credentials, CredentialsError};
pub use download::{Download, DownloadError, download};
pub use error::RegistryError;
pub(crate) use patience::{Patience, Pause, patiently};
pub use proxies::Proxies;
pub use search::{SearchResult, search};
pub use settings::Settings;
pub(crate) use upload::{Mounted, Upload};

use crate::reference::Reference;
use endpoint::Endpoint;

/// Says who asks, in every request.
pub(crate) const USER_AGENT: &str = concat!("caisson/", env!("CARGO_PKG_VERSION"), " (linux)");

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reading; mirrors will do.
    Pull,
    /// Writing; only the registry itself will do.
    Push,
}

/// Reaches the registry of `name`. A push may take blobs from the repositories `mount_from` of the same registry.
pub async fn connect(
    config: &RegistryConfig,
    name: &Reference,
    credentials: &Credentials,
    purpose: Purpose,
    mount_from: &[String],
) -> Result<Registry, RegistryError> {
    let asked = Asked { name, credentials, purpose, mount_from, wants_manifest: false };
    first_that_serves(config, &asked, 0).await.map(|found| found.registry)
}

/// A registry that serves.
pub(crate) struct Serving {
    pub(crate) registry: Registry,
    /// The manifest, if that was wanted.
    document: Option<Document>,
    /// Its place among the endpoints.
    pub(crate) at: usize,
}

/// Asks for the manifest of `name`: mirrors first, of which each may be unreachable or may lack it. The first `passed`
/// endpoints have failed already.
pub(crate) async fn find(
    config: &RegistryConfig,
    name: &Reference,
    credentials: &Credentials,
    passed: usize,
) -> Result<(Serving, Document), RegistryError> {
    let asked = Asked { name, credentials, purpose: Purpose::Pull, mount_from: &[], wants_manifest: true };
    let mut found = first_that_serves(config, &asked, passed).await?;
    let document = found.document.take().ok_or(RegistryError::NoEndpoint)?;
    Ok((found, document))
}

/// What an endpoint is wanted for.
struct Asked<'a> {
    name: &'a Reference,
    credentials: &'a Credentials,
    purpose: Purpose,
    mount_from: &'a [String],
    wants_manifest: bool,
}

/// The first endpoint that can be reached, with the manifest if that is wanted; of mirrors the first that gives no error.
async fn first_that_serves(
    config: &RegistryConfig,
    asked: &Asked<'_>,
    passed: usize,
) -> Result<Serving, RegistryError> {
    let Asked { name, credentials, purpose, mount_from, wants_manifest } = *asked;
    let mut failed = None;
    for (at, endpoint) in Endpoint::all(config, name.domain(), purpose)?.into_iter().enumerate().skip(passed)
    {
        let registry = Registry::new(config, endpoint, name, credentials, purpose, mount_from)?;
        match ask(&registry, Some(name).filter(|_| wants_manifest)).await {
            Ok(document) => return Ok(Serving { registry, document, at }),
            Err(error) if error.is_about_reaching() || registry.is_mirror() => {
                tracing::debug!(endpoint = %registry.base(), %error, "registry endpoint does not serve");
                failed = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(failed.unwrap_or(RegistryError::NoEndpoint))
}

async fn ask(registry: &Registry, name: Option<&Reference>) -> Result<Option<Document>, RegistryError> {
    registry.ping().await?;
    let Some(name) = name else { return Ok(None) };
    // Behind a mirror there is somebody else to be asked, at once.
    let document = match registry.is_mirror() {
        true => registry.manifest(name).await,
        false => patiently(|| registry.manifest(name)).await,
    };
    document.map(Some)
}

/// Checks a name and password with a registry, as `docker login` asks for. Returns the identity token that the registry
/// gives instead of the password, if it does.
pub async fn login(
    config: &RegistryConfig,
    credentials: &Credentials,
) -> Result<Option<String>, RegistryError> {
    auth::login(config, credentials).await
}
