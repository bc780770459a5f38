//! Where a registry is reached, and with which certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::settings::{Settings, is_loopback};
use super::{Purpose, RegistryConfig, RegistryError, USER_AGENT};

/// Where Docker Hub's images really are.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// How long a registry may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may be silent before it counts as broken.
const SILENT_AT_MOST: Duration = Duration::from_secs(60);

/// One way to reach a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `https://registry-1.docker.io`, without a slash at its end.
    pub(super) base: String,
    /// `host[:port]` that certificates are looked up by.
    pub(super) host: String,
    /// The registry that this one stands in for.
    pub(super) mirror_of: Option<String>,
    /// The certificate is not looked at.
    pub(super) unverified: bool,
}

impl Endpoint {
    /// The ways to reach a registry, in the order in which they are tried.
    pub(super) fn all(
        config: &RegistryConfig,
        domain: &str,
        purpose: Purpose,
    ) -> Result<Vec<Self>, RegistryError> {
        let settings = config.settings()?;
        let mut all = Vec::new();
        let is_hub = domain == "docker.io";
        if is_hub && purpose == Purpose::Pull {
            all.extend(settings.mirrors.iter().map(|mirror| Self::mirror(&settings, mirror, domain)));
        }
        let host = if is_hub { DOCKER_HUB } else { domain };
        // Docker Hub has a certificate, whatever is said of its host.
        let unverified = !is_hub && settings.is_insecure(domain);
        let at = |scheme: &str| Self {
            base: format!("{scheme}://{host}"),
            host: if is_hub { domain.to_owned() } else { host.to_owned() },
            mirror_of: None,
            unverified,
        };
        all.push(at("https"));
        if unverified {
            all.push(at("http"));
        }
        Ok(all)
    }

    fn mirror(settings: &Settings, address: &str, domain: &str) -> Self {
        let base = match address.contains("://") {
            true => address.trim_end_matches('/').to_owned(),
            false => format!("https://{}", address.trim_end_matches('/')),
        };
        let host =
            base.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
        Self { unverified: settings.is_insecure(&host), base, host, mirror_of: Some(domain.to_owned()) }
    }

    /// The server of an address that is no registry's.
    pub(super) fn of_address(url: &reqwest::Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let base = format!("{}://{host}", url.scheme());
        Self { base, host, mirror_of: None, unverified: false }
    }

    /// A client for this endpoint and whatever it redirects to.
    pub(super) fn client(&self, config: &RegistryConfig) -> Result<reqwest::Client, RegistryError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(SILENT_AT_MOST)
            .tls_backend_preconfigured(self.tls(config)?);
        if is_loopback(&self.host) {
            builder = builder.no_proxy();
        } else if config.proxies.is_some() {
            builder = config.proxies()?.apply(builder)?;
        }
        builder.build().map_err(|error| RegistryError::Invalid(error.to_string()))
    }

    fn tls(&self, config: &RegistryConfig) -> Result<ClientConfig, RegistryError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = config.certificates_of(&self.host);
        let own = own.as_deref();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| RegistryError::Invalid(error.to_string()))?;
        let builder = if self.unverified {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        } else {
            builder.with_root_certificates(roots(config, own)?)
        };
        match own.map(identity).transpose()?.flatten() {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| RegistryError::Certificate(self.host.clone(), error.to_string())),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

/// Whom to trust: this system's authorities, or Mozilla's where it has none, those that the engine was told of, and the
/// registry's own.
fn roots(config: &RegistryConfig, own: Option<&Path>) -> Result<RootCertStore, RegistryError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = config.authorities.as_deref().filter(|file| file.exists()) {
        // One that rustls cannot use keeps nobody from the others: it has none of the registries that are asked for.
        roots.add_parsable_certificates(read_certificates(file)?);
    }
    for file in own.map(|dir| files(dir, "crt")).transpose()?.unwrap_or_default() {
        for certificate in read_certificates(&file)? {
            roots.add(certificate).map_err(|error| bad(&file, &error))?;
        }
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificate that this engine shows, with its key beside it.
fn identity(own: &Path) -> Result<Option<Identity>, RegistryError> {
    let Some(file) = files(own, "cert")?.into_iter().next() else { return Ok(None) };
    let key_file = file.with_extension("key");
    let key = PrivateKeyDer::from_pem_file(&key_file).map_err(|error| bad(&key_file, &error))?;
    Ok(Some((read_certificates(&file)?, key)))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|error| bad(file, &error))
}

fn files(dir: &Path, extension: &str) -> Result<Vec<std::path::PathBuf>, RegistryError> {
    let entries = std::fs::read_dir(dir).map_err(|error| bad(dir, &error))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    Ok(files)
}

fn bad(path: &Path, error: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Certificate(path.display().to_string(), error.to_string())
}

/// Takes any certificate: for registries that are configured as insecure. What is signed is still checked, so that the
/// other end has the key of the certificate that it shows.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first_and_plain_http_last() {
        let config = RegistryConfig { mirrors: vec!["http://m:1/".into()], ..RegistryConfig::default() };
        let bases = |domain: &str, purpose| -> Vec<String> {
            Endpoint::all(&config, domain, purpose)
                .unwrap()
                .into_iter()
                .map(|endpoint| endpoint.base)
                .collect()
        };
        assert_eq!(bases("docker.io", Purpose::Pull), ["http://m:1", "https://registry-1.docker.io"]);
        assert_eq!(bases("docker.io", Purpose::Push), ["https://registry-1.docker.io"]);
        assert_eq!(bases("r.lan", Purpose::Pull), ["https://r.lan"]);
        assert_eq!(
            bases("localhost:5000", Purpose::Pull),
            ["https://localhost:5000", "http://localhost:5000"]
        );
    }
}
