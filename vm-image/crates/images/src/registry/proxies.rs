//! Proxies between this engine and registries.

use std::path::Path;
use std::{env, fs, io};

use reqwest::{ClientBuilder, NoProxy, Proxy};

use super::RegistryError;

/// Proxies as programs know them from their environment; empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`, `HTTP_PROXY`.
    pub http: String,
    /// For `https://`, `HTTPS_PROXY`.
    pub https: String,
    /// What is reached without one, `NO_PROXY`.
    pub no_proxy: String,
}

impl Proxies {
    /// Those of this process' environment, with upper case before lower as Go's programs have it.
    pub(super) fn of_environment() -> Self {
        Self::of(|name| env::var(name).or_else(|_| env::var(name.to_ascii_lowercase())).ok())
    }

    /// Those in a file of variables, one a line: `HTTP_PROXY=http://10.0.0.1:3128`. No file is no proxy.
    pub(super) fn read(file: &Path) -> Result<Self, RegistryError> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(RegistryError::Invalid(format!("{}: {error}", file.display()))),
        };
        Ok(Self::of(|wanted| {
            let mut variables = text.lines().filter_map(|line| line.split_once('='));
            variables.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
        }))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name| variable(name).unwrap_or_default();
        Self { http: value("HTTP_PROXY"), https: value("HTTPS_PROXY"), no_proxy: value("NO_PROXY") }
    }

    /// Makes a client use these and no others.
    pub(super) fn apply(&self, builder: ClientBuilder) -> Result<ClientBuilder, RegistryError> {
        let mut builder = builder.no_proxy();
        for (url, made) in [(&self.http, Proxy::http(&self.http)), (&self.https, Proxy::https(&self.https))] {
            if !url.is_empty() {
                let proxy = made.map_err(|error| RegistryError::Invalid(format!("bad proxy: {error}")))?;
                builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&self.no_proxy)));
            }
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_and_none_is_no_proxy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxies");
        assert_eq!(Proxies::read(&file).unwrap(), Proxies::default());
        fs::write(
            &file,
            "# none\nHTTPS_PROXY=http://u:p=w@p:1\nNO_PROXY=.lan,10.0.0.0/8\nHTTPS_PROXY=second\n",
        )
        .unwrap();
        let read = Proxies::read(&file).unwrap();
        let expected = Proxies {
            http: String::new(),
            https: "http://u:p=w@p:1".into(),
            no_proxy: ".lan,10.0.0.0/8".into(),
        };
        assert_eq!(read, expected);
        assert!(read.apply(reqwest::Client::builder()).is_ok());
        let bad = Proxies { http: "http://[".into(), ..Proxies::default() };
        assert!(bad.apply(reqwest::Client::builder()).is_err());
    }
}
