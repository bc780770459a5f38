//! What the host tells of itself, in files that the engine reads whenever it needs them (guest-proto's `HostFact`).

mod certificates;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caisson_guest_proto::{
    GUEST_CONTAINER_ENVIRONMENT, GUEST_HOST_AUTHORITIES, GUEST_HOST_PROXIES, GUEST_HOST_ROUTES,
    GUEST_REGISTRY_CERTIFICATES, GUEST_REGISTRY_SETTINGS, HostFact, HostProxies,
};
use caisson_sys::replace::{Survives, replace};
use tokio::sync::watch;
use tokio::time::timeout;

/// Where the files are.
pub(crate) const DIR: &str = "/run/caisson/host";
/// How long the engine waits for a host to tell all. It can do without, but for a network that is in a route's way.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many kinds of facts there are.
const KINDS: usize = 5;

/// The kinds of facts that were told.
type Known = BTreeSet<&'static str>;

/// The host, as far as it told.
pub(crate) struct Host {
    dir: PathBuf,
    known: watch::Sender<Known>,
}

impl Host {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), known: watch::Sender::default() }
    }

    /// What was told so far.
    pub(crate) fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Keeps a fact, in place of what was told before. The engine can do without one that cannot be kept.
    pub(crate) fn learn(&self, fact: &HostFact) {
        for (path, text) in files(fact) {
            let kept = self.place(path).and_then(|place| replace(&place, text.as_bytes(), Survives::Crash));
            complain(path, kept);
        }
        if let HostFact::RegistryCertificates { files } = fact {
            let path = GUEST_REGISTRY_CERTIFICATES;
            complain(path, self.place(path).and_then(|place| certificates::replace(&place, files)));
        }
        self.known.send_if_modified(|known| known.insert(kind(fact)));
    }

    /// Where something is kept: for root alone, there are passwords of proxies and keys among it. Whoever reads it while it is
    /// replaced finds it whole, as it was or as it is.
    fn place(&self, path: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        fs::set_permissions(&self.dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(self.dir.join(Path::new(path).file_name().expect("each has a name")))
    }
}

fn complain(path: &str, kept: io::Result<()>) {
    if let Err(error) = kept {
        tracing::warn!("could not keep what the host tells in {path}: {error}");
    }
}

/// Waits until the host has told all there is, or for as long as an engine should wait for that.
pub(crate) async fn wait_for_all(mut known: watch::Receiver<Known>) {
    let all = known.wait_for(|known| known.len() == KINDS);
    if timeout(DEADLINE, all).await.is_err() {
        tracing::warn!("the host has not told of its routes, proxies, authorities and registries");
    }
}

fn kind(fact: &HostFact) -> &'static str {
    match fact {
        HostFact::Routes { .. } => "routes",
        HostFact::Proxies(_) => "proxies",
        HostFact::Authorities { .. } => "authorities",
        HostFact::Registries(_) => "registries",
        HostFact::RegistryCertificates { .. } => "registry certificates",
    }
}

/// The files that say this fact. Certificates of registries have a directory of their own.
fn files(fact: &HostFact) -> Vec<(&'static str, String)> {
    match fact {
        HostFact::Routes { routes } => {
            let text = routes.iter().fold(String::new(), |mut text, route| {
                writeln!(text, "{route}").expect("a text takes all");
                text
            });
            vec![(GUEST_HOST_ROUTES, text)]
        }
        HostFact::Proxies(proxies) => vec![
            (GUEST_HOST_PROXIES, variables(proxies, str::to_owned)),
            (GUEST_CONTAINER_ENVIRONMENT, container_environment(proxies)),
        ],
        HostFact::Authorities { pem } => vec![(GUEST_HOST_AUTHORITIES, pem.clone())],
        HostFact::Registries(registries) => vec![(GUEST_REGISTRY_SETTINGS, registries.to_json())],
        HostFact::RegistryCertificates { .. } => Vec::new(),
    }
}

/// Programs differ in which case they read, so containers get both, as from `docker run` with proxies in its
/// configuration.
fn container_environment(proxies: &HostProxies) -> String {
    if !proxies.in_containers {
        return String::new();
    }
    variables(proxies, str::to_owned) + &variables(proxies, str::to_ascii_lowercase)
}

/// One variable a line; a value with a line end in it is none that any program could use.
fn variables(proxies: &HostProxies, named: impl Fn(&str) -> String) -> String {
    let usable = proxies.variables().filter(|(_, value)| !value.contains(['\n', '\r', '\0']));
    usable.map(|(name, value)| format!("{}={value}\n", named(name))).collect()
}

#[cfg(test)]
mod tests {
    use caisson_guest_proto::{HostRegistries, HostRoute, RegistryFile};

    use super::*;

    fn proxies(in_containers: bool) -> HostFact {
        HostFact::Proxies(HostProxies {
            http: Some("http://p:1".into()),
            https: None,
            no_proxy: Some("localhost,.lan\nEVIL=1".into()),
            in_containers,
        })
    }

    #[tokio::test]
    async fn facts_are_files_and_the_engine_waits_for_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(&dir.path().join("host"));
        let read = |name: &str| fs::read_to_string(dir.path().join("host").join(name)).unwrap();
        host.learn(&proxies(true));
        assert_eq!(read("proxies"), "HTTP_PROXY=http://p:1\n");
        assert_eq!(read("container-environment"), "HTTP_PROXY=http://p:1\nhttp_proxy=http://p:1\n");
        host.learn(&proxies(false));
        assert_eq!(read("container-environment"), "");
        host.learn(&HostFact::Authorities { pem: "PEM".into() });
        assert_eq!(read("authorities.pem"), "PEM");
        let insecure = vec!["r.lan:5000".to_owned()];
        host.learn(&HostFact::Registries(HostRegistries { insecure, mirrors: Vec::new() }));
        assert_eq!(
            read("registries.json"),
            r#"{"insecure-registries":["r.lan:5000"],"registry-mirrors":[]}"#
        );
        let file = |name: &str| RegistryFile {
            registry: "r.lan:5000".into(),
            name: name.into(),
            text: name.to_uppercase(),
        };
        host.learn(&HostFact::RegistryCertificates { files: vec![file("ca.crt")] });
        assert_eq!(read("certs.d/r.lan:5000/ca.crt"), "CA.CRT");
        host.learn(&HostFact::RegistryCertificates { files: Vec::new() });
        assert_eq!(host.known().borrow().len(), 4);
        let waiting = wait_for_all(host.known());
        let route = |address: &str, prefix| HostRoute { address: address.parse().unwrap(), prefix };
        host.learn(&HostFact::Routes { routes: vec![route("10.0.0.0", 8), route("2001:db8::", 32)] });
        waiting.await;
        assert_eq!(read("routes"), "10.0.0.0/8\n2001:db8::/32\n");
        assert_eq!(fs::read_dir(dir.path().join("host/certs.d")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("host")).unwrap().count(), 6, "nothing else is left");
    }
}
