//! What the machine is told of this computer: its routes, its proxies, the authorities that it trusts, and its user's settings
//! of registries.
//!
//! They change with every network that comes and goes, and as the user likes. Nothing tells of all of them on all systems, so
//! they are looked at: when a machine starts, and while it runs; routes and registries often, which cost some system calls,
//! and the rest when those have changed, which is how another network shows, and else now and then.

mod registries;

use base64::{Engine, engine::general_purpose::STANDARD};
use caisson_guest_proto::{HostFact, HostProxies, HostRoute, MAX_AUTHORITIES, MAX_ROUTES};
use caisson_machine::{MachineState, MachineStatus};
use caisson_os::{
    Authorities, Proxies, RegistryCertificates, RegistrySettings, RegistrySettingsError, Route,
    UserRegistries,
};
use registries::Registries;
use std::{collections::HashSet, io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

/// How often routes and registries are looked at.
const OFTEN: Duration = Duration::from_secs(10);
/// How often the rest is looked at while those stay as they are.
const ALL_EVERY: Duration = Duration::from_secs(120);

/// The name by which the guest reaches this computer's loopback.
const HOST_NAME: &str = "host.docker.internal";

/// Who knows.
pub(crate) trait Sources: Send + Sync + 'static {
    fn routes(&self) -> io::Result<Vec<Route>>;
    /// May take some seconds.
    fn proxies(&self) -> io::Result<Proxies>;
    fn authorities(&self) -> Authorities;
    fn registry_settings(&self) -> Result<RegistrySettings, RegistrySettingsError>;
    fn registry_certificates(&self) -> RegistryCertificates;
}

/// This computer.
pub(crate) struct System {
    /// There are none without a home directory.
    registries: Option<UserRegistries>,
}

impl System {
    pub(crate) fn new() -> Self {
        Self { registries: UserRegistries::of_user() }
    }
}

impl Sources for System {
    fn routes(&self) -> io::Result<Vec<Route>> {
        caisson_os::routes()
    }

    fn proxies(&self) -> io::Result<Proxies> {
        caisson_os::proxies()
    }

    fn authorities(&self) -> Authorities {
        caisson_os::authorities()
    }

    fn registry_settings(&self) -> Result<RegistrySettings, RegistrySettingsError> {
        self.registries.as_ref().map_or_else(|| Ok(RegistrySettings::default()), UserRegistries::settings)
    }

    fn registry_certificates(&self) -> RegistryCertificates {
        self.registries.as_ref().map(UserRegistries::certificates).unwrap_or_default()
    }
}

/// What was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    routes: Vec<Route>,
    /// None until they were looked at.
    proxies: Option<Proxies>,
    authorities: Authorities,
    registries: Registries,
    problems: Problems,
}

/// Why something was not seen, in words.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Problems {
    routes: Option<String>,
    proxies: Option<String>,
}

/// Keeps the facts up to date for as long as somebody wants them. `in_containers` is whether the user wishes containers to
/// have the proxies in their environment.
pub(crate) async fn keep<S: Sources>(
    sources: S,
    in_containers: bool,
    facts: watch::Sender<Vec<HostFact>>,
    mut machine: watch::Receiver<MachineStatus>,
) {
    // What takes its time, or does not come, keeps nothing else waiting.
    let looks: [fn(&S, Seen) -> Seen; 2] = [look_at_all_but_proxies, look_at_proxies];
    let sources = Arc::new(sources);
    let mut seen = Seen::default();
    loop {
        let before = seen.clone();
        for look in looks {
            let (sources, from) = (sources.clone(), seen);
            let Ok(now) = spawn_blocking(move || look(&*sources, from)).await else { return };
            seen = now;
            tell(&facts, facts_of(&seen, in_containers));
        }
        tell_the_user(&before, &seen);
        if due(&sources, &seen, &mut machine).await.is_none() {
            return;
        }
    }
}

fn tell(facts: &watch::Sender<Vec<HostFact>>, told: Vec<HostFact>) {
    facts.send_if_modified(|known| {
        let changed = *known != told;
        *known = told;
        changed
    });
}

/// Returns when all is to be looked at again; `None` if nobody wants it any more.
async fn due(
    sources: &Arc<impl Sources>,
    seen: &Seen,
    machine: &mut watch::Receiver<MachineStatus>,
) -> Option<()> {
    let all = Instant::now() + ALL_EVERY;
    let mut next = Instant::now() + OFTEN;
    loop {
        if !runs(machine.borrow_and_update().state) {
            // The next one is to have what is true then.
            machine.wait_for(|status| runs(status.state)).await.ok()?;
            return Some(());
        }
        tokio::select! {
            changed = machine.changed() => changed.ok()?,
            () = sleep_until(next) => {
                let (sources, before) = (sources.clone(), seen.clone());
                let look = move || look_at_what_costs_little(&*sources, before.clone()) != before;
                if next >= all || spawn_blocking(look).await.ok()? {
                    return Some(());
                }
                next = all.min(Instant::now() + OFTEN);
            }
        }
    }
}

fn runs(state: MachineState) -> bool {
    !matches!(state, MachineState::Stopped | MachineState::Failed)
}

/// What cannot be seen stays as it was before.
fn look_at_what_costs_little(sources: &impl Sources, mut seen: Seen) -> Seen {
    let routes = sources.routes();
    seen.problems.routes = routes.as_ref().err().map(ToString::to_string);
    seen.routes = routes.unwrap_or(seen.routes);
    seen.registries = seen.registries.look(sources);
    seen
}

fn look_at_proxies(sources: &impl Sources, mut seen: Seen) -> Seen {
    let proxies = sources.proxies();
    seen.problems.proxies = proxies.as_ref().err().map(ToString::to_string);
    seen.proxies = Some(proxies.unwrap_or(seen.proxies.unwrap_or_default()));
    seen
}

fn look_at_all_but_proxies(sources: &impl Sources, seen: Seen) -> Seen {
    Seen { authorities: sources.authorities(), ..look_at_what_costs_little(sources, seen) }
}

/// Says what has changed, once.
fn tell_the_user(before: &Seen, now: &Seen) {
    for line in news(before, now) {
        warn!("{line}");
    }
    if before != now {
        let proxies = now.proxies.as_ref();
        info!(
            routes = now.routes.len(),
            proxy = proxies.is_some_and(|proxies| proxies.https.is_some() || proxies.http.is_some()),
            authorities = now.authorities.certificates.len(),
            insecure_registries = now.registries.settings.insecure.len(),
            registry_mirrors = now.registries.settings.mirrors.len(),
            registry_certificates = now.registries.certificates.files.len(),
            "what the machine is told of this computer"
        );
    }
}

/// What the user should know that was not so before.
fn news(before: &Seen, now: &Seen) -> Vec<String> {
    let mut news = Vec::new();
    let problems = [
        ("routes", &before.problems.routes, &now.problems.routes),
        ("proxies", &before.problems.proxies, &now.problems.proxies),
    ];
    for (what, before, now) in problems {
        if let Some(problem) = now.as_ref().filter(|_| before != now) {
            news.push(format!(
                "the system does not tell its {what}, which are taken to be as before: {problem}"
            ));
        }
    }
    let script = |seen: &Seen| seen.proxies.as_ref().and_then(|proxies| proxies.script.clone());
    if let Some(script) = script(now).filter(|_| script(before) != script(now)) {
        news.push(format!(
            "this computer's proxies are told by a script (PAC, {script}), which the machine does not use; \
             start caisson-host with HTTPS_PROXY and HTTP_PROXY set to have it use one"
        ));
    }
    if before.authorities != now.authorities {
        let problems = now.authorities.problems.iter();
        news.extend(
            problems
                .map(|problem| format!("authorities that this computer may trust cannot be read: {problem}")),
        );
        let (all, told) = (now.authorities.certificates.len(), pem(&now.authorities.certificates).1);
        if told < all {
            news.push(format!(
                "of the {all} authorities that this computer trusts the machine can be told only {told}"
            ));
        }
    }
    news.extend(now.registries.news(&before.registries));
    news
}

fn facts_of(seen: &Seen, in_containers: bool) -> Vec<HostFact> {
    let routes = seen.routes.iter().take(MAX_ROUTES);
    let routes = routes.map(|route| HostRoute { address: route.address, prefix: route.prefix }).collect();
    let authorities = HostFact::Authorities { pem: pem(&seen.authorities.certificates).0 };
    let proxies = seen.proxies.as_ref().map(|proxies| proxies_for_guest(proxies, in_containers));
    let registries = seen.registries.facts();
    [HostFact::Routes { routes }, authorities].into_iter().chain(registries).chain(proxies).collect()
}

fn proxies_for_guest(proxies: &Proxies, in_containers: bool) -> HostFact {
    let Proxies { http, https, no_proxy, script: _ } = proxies;
    HostFact::Proxies(HostProxies {
        http: http.as_deref().map(for_guest),
        https: https.as_deref().map(for_guest),
        no_proxy: (!no_proxy.is_empty()).then(|| no_proxy.join(",")),
        in_containers,
    })
}

/// The URL by which the guest reaches a proxy: what is this computer's loopback is not the guest's.
fn for_guest(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, at) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let end_of_host = match at.starts_with('[') {
        true => at.find(']').map_or(at.len(), |end| end + 1),
        false => at.rfind(':').unwrap_or(at.len()),
    };
    let (host, port) = at.split_at(end_of_host);
    let host = if is_loopback(host) { HOST_NAME } else { host };
    format!("{scheme}://{user}{host}{port}{path}")
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let named = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    named || address.is_ok_and(|ip| ip.to_canonical().is_loopback() || ip.is_unspecified())
}

/// Certificates as text (RFC 7468), each once, as many as a message holds; and of how many of them it tells.
fn pem(certificates: &[Vec<u8>]) -> (String, usize) {
    let mut known = HashSet::new();
    let mut text = String::new();
    for (number, certificate) in certificates.iter().enumerate() {
        if !known.insert(certificate.as_slice()) {
            continue;
        }
        let mut block = String::from("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            block.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            block.push('\n');
        }
        block.push_str("-----END CERTIFICATE-----\n");
        if text.len() + block.len() > MAX_AUTHORITIES {
            return (text, number);
        }
        text.push_str(&block);
    }
    (text, certificates.len())
}

#[cfg(test)]
mod tests;
