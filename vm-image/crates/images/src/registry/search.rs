//! `docker search`: Docker Hub's old index API (`/v1/search`), which some registries have too.

use serde::{Deserialize, Serialize};

use super::client::small;
use super::endpoint::Endpoint;
use super::settings::is_loopback;
use super::upload::escaped;
use super::{Credentials, Purpose, RegistryConfig, RegistryError};

/// Where Docker Hub's index is.
const INDEX: &str = "https://index.docker.io";

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchResult {
    /// How many like it.
    #[serde(default)]
    pub star_count: i64,
    /// Whether it is one of Docker's own.
    #[serde(default)]
    pub is_official: bool,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Long gone; always `false`.
    #[serde(default)]
    pub is_automated: bool,
    /// What it is.
    #[serde(default)]
    pub description: String,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Vec<SearchResult>,
}

/// Searches the registry that `term` begins with, or Docker Hub.
pub async fn search(
    config: &RegistryConfig,
    term: &str,
    limit: u32,
    credentials: &Credentials,
) -> Result<Vec<SearchResult>, RegistryError> {
    let (domain, words) = match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", term),
    };
    let mut failed = None;
    for endpoint in Endpoint::all(config, domain, Purpose::Push)? {
        let base = if domain == "docker.io" && !is_loopback(domain) { INDEX } else { &endpoint.base };
        let url = format!("{base}/v1/search?q={}&n={limit}", escaped(words));
        let mut request = endpoint.client(config)?.get(&url);
        if credentials.has_password() {
            request = request.basic_auth(&credentials.username, Some(&credentials.password));
        }
        match request.send().await {
            Err(error) => failed = Some(RegistryError::unreachable("GET", &url, &error)),
            Ok(answer) if !answer.status().is_success() => {
                return Err(RegistryError::Search(answer.status().as_u16()));
            }
            Ok(answer) => {
                let body = small(answer, "list of repositories", &url).await?;
                let found: Results = serde_json::from_slice(&body)
                    .map_err(|error| RegistryError::Invalid(error.to_string()))?;
                return Ok(found.results);
            }
        }
    }
    Err(failed.unwrap_or(RegistryError::NoEndpoint))
}
