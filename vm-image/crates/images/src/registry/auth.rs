//! Who asks: what is sent with every request, and how a token is got and renewed.
//!
//! A registry's first answer says what it wants ([`Challenge`]). A password goes to the registry itself or, for a token,
//! to the token server that it names (Docker's token authentication specification). An identity token goes to the token
//! server as OAuth2 has it (RFC 6749, section 6). Tokens run out; a request that is refused for that gets a new one.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::error::with_reason;
use super::{Purpose, RegistryConfig, RegistryError};

/// How this client calls itself before token servers.
const CLIENT_ID: &str = "docker";

/// What a registry is told of who asks.
#[derive(Debug)]
pub(super) struct Auth {
    credentials: Credentials,
    /// What a token is to allow: `repository:library/busybox:pull`.
    scopes: Vec<String>,
    state: Mutex<State>,
    /// One token is asked for at a time.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default, Clone)]
struct State {
    challenge: Option<Challenge>,
    token: Option<String>,
}

/// What a token server answers; some call it by the one name, some by the other.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
}

impl Auth {
    pub(super) fn new(credentials: Credentials, scopes: Vec<String>) -> Self {
        Self { credentials, scopes, state: Mutex::default(), renewing: tokio::sync::Mutex::default() }
    }

    /// Takes note of what an answer asks for.
    pub(super) fn challenged(&self, answer: &reqwest::Response) {
        let headers = answer.headers().get_all(WWW_AUTHENTICATE);
        if let Some(challenge) = Challenge::choose(headers.iter().filter_map(|value| value.to_str().ok())) {
            self.locked().challenge = Some(challenge);
        }
    }

    /// Forgets the token that was refused, if it is still the one in use. Says whether asking again may help.
    pub(super) fn refused(&self, sent: Option<&str>) -> bool {
        let mut state = self.locked();
        match &state.challenge {
            Some(Challenge::Bearer { .. }) => {
                let in_use = state.token.as_deref().map(bearer);
                if in_use.as_deref() == sent {
                    state.token = None;
                }
                self.credentials.registrytoken.is_empty()
            }
            // A password that is refused stays refused; but the first request is sent without.
            Some(Challenge::Basic) => sent.is_none(),
            None => false,
        }
    }

    /// The value of the header, if the registry wants one.
    pub(super) async fn header(&self, http: &reqwest::Client) -> Result<Option<String>, Failure> {
        let state = self.locked().clone();
        match (state.challenge, state.token) {
            (None, _) => Ok(None),
            (Some(Challenge::Basic), _) => self.basic().map(Some).ok_or(Failure::NoCredentials),
            (Some(Challenge::Bearer { .. }), Some(token)) => Ok(Some(bearer(&token))),
            (Some(Challenge::Bearer { realm, service, scope }), None) => {
                let _one_at_a_time = self.renewing.lock().await;
                if let Some(token) = &self.locked().token {
                    return Ok(Some(bearer(token)));
                }
                let asked = self.scopes(scope);
                let answer = self
                    .token(http, &realm, service.as_deref(), &asked, false)
                    .await
                    .map_err(Failure::Token)?;
                self.locked().token = Some(answer.token.clone());
                Ok(Some(bearer(&answer.token)))
            }
        }
    }

    /// What a token is to allow: what the work needs, and what the registry says that a request needs.
    fn scopes(&self, asked: Option<String>) -> Vec<String> {
        let mut scopes = self.scopes.clone();
        scopes.extend(asked.filter(|asked| self.scopes.is_empty() && !asked.is_empty()));
        scopes
    }

    fn basic(&self) -> Option<String> {
        let Credentials { username, password, .. } = &self.credentials;
        self.credentials
            .has_password()
            .then(|| format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }

    async fn token(
        &self,
        http: &reqwest::Client,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        offline: bool,
    ) -> Result<TokenAnswer, RegistryError> {
        let credentials = &self.credentials;
        if !credentials.registrytoken.is_empty() {
            let token = credentials.registrytoken.clone();
            return Ok(TokenAnswer { token, access_token: String::new(), refresh_token: String::new() });
        }
        let request = match credentials.identitytoken.as_str() {
            "" => self.by_password(http, realm, service, scopes, offline)?,
            identity => {
                let mut form = vec![
                    ("grant_type", "refresh_token".to_owned()),
                    ("refresh_token", identity.to_owned()),
                    ("client_id", CLIENT_ID.to_owned()),
                ];
                form.extend(service.map(|service| ("service", service.to_owned())));
                form.push(("scope", scopes.join(" ")));
                let body = url_with(realm, &[])?
                    .query_pairs_mut()
                    .clear()
                    .extend_pairs(&form)
                    .finish()
                    .query()
                    .unwrap_or_default()
                    .to_owned();
                http.post(url_with(realm, &[])?)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body)
            }
        };
        let method = if credentials.identitytoken.is_empty() { Method::GET } else { Method::POST };
        let failed = |error: reqwest::Error| RegistryError::unreachable(method.as_str(), realm, &error);
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(failed)?;
        if !status.is_success() {
            return Err(RegistryError::of_answer(status, &body));
        }
        let mut token: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|error| RegistryError::Invalid(format!("unable to decode token response: {error}")))?;
        if token.token.is_empty() {
            token.token = std::mem::take(&mut token.access_token);
        }
        match token.token.is_empty() {
            true => Err(RegistryError::Invalid(
                "authorization server did not include a token in the response".into(),
            )),
            false => Ok(token),
        }
    }

    fn by_password(
        &self,
        http: &reqwest::Client,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        offline: bool,
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        let credentials = &self.credentials;
        let mut query: Vec<(&str, &str)> = Vec::new();
        query.extend(service.map(|service| ("service", service)));
        query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        if credentials.has_password() {
            query.push(("account", &credentials.username));
        }
        if offline {
            query.extend([("offline_token", "true"), ("client_id", CLIENT_ID)]);
        }
        let request = http.get(url_with(realm, &query)?);
        Ok(match self.basic() {
            Some(basic) => request.header(AUTHORIZATION, basic),
            None => request,
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is nothing to tell who asks.
#[derive(Debug)]
pub(super) enum Failure {
    /// A password is wanted, and none is known.
    NoCredentials,
    /// No token was given.
    Token(RegistryError),
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn url_with(base: &str, query: &[(&str, &str)]) -> Result<reqwest::Url, RegistryError> {
    let mut url = reqwest::Url::parse(base)
        .map_err(|error| RegistryError::Invalid(format!("token realm {base:?}: {error}")))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

/// See [`login`](super::login).
pub(super) async fn login(
    config: &RegistryConfig,
    credentials: &Credentials,
) -> Result<Option<String>, RegistryError> {
    let domain = registry_of(&credentials.serveraddress);
    let mut failed = None;
    for endpoint in Endpoint::all(config, &domain, Purpose::Push)? {
        match login_at(config, &endpoint, credentials).await {
            Err(error) if error.is_about_reaching() => failed = Some(error),
            done => return done,
        }
    }
    Err(failed.unwrap_or(RegistryError::NoEndpoint))
}

async fn login_at(
    config: &RegistryConfig,
    endpoint: &Endpoint,
    credentials: &Credentials,
) -> Result<Option<String>, RegistryError> {
    let http = endpoint.client(config)?;
    let url = format!("{}/v2/", endpoint.base);
    let ask = async |header: Option<String>| {
        let request = http.get(&url);
        let request = match header {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        };
        request.send().await.map_err(|error| RegistryError::unreachable("GET", &url, &error))
    };
    let auth = Auth::new(credentials.clone(), Vec::new());
    let first = ask(None).await?;
    auth.challenged(&first);
    let challenge = auth.locked().challenge.clone();
    let (answer, identity) = match challenge {
        None => (first, None),
        Some(Challenge::Basic) => match auth.basic() {
            Some(basic) => (ask(Some(basic)).await?, None),
            None => (first, None),
        },
        Some(Challenge::Bearer { realm, service, .. }) => {
            let refused =
                |why| RegistryError::Token { method: "GET".into(), url: url.clone(), why: Box::new(why) };
            let token = auth.token(&http, &realm, service.as_deref(), &[], true).await.map_err(refused)?;
            let identity = (!token.refresh_token.is_empty()).then_some(token.refresh_token);
            (ask(Some(bearer(&token.token))).await?, identity)
        }
    };
    match answer.status().is_success() {
        true => Ok(identity),
        false => Err(RegistryError::Login { url, status: with_reason(answer.status()) }),
    }
}

/// The registry that a server's address names: Docker Hub's old one is an address of its own.
fn registry_of(address: &str) -> String {
    let host = address.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}
