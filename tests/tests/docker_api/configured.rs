//! Engines that are told at their start how registries are reached: mirrors, networks without TLS, proxies.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use caisson_tests::cases::registry::{image, only_in_registry};
use caisson_tests::engine::{Engine, Kind, Setting, Told};
use caisson_tests::faults::{Fault, FaultyRegistry};
use caisson_tests::registry::{Access, OUTSIDE, OUTSIDE_ADDRESS, Registry, free_port};

/// One thing that an engine of either kind does as it was told.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kinds: &'static [Kind],
    pub(crate) run: fn(kind: Kind) -> Result<()>,
}

const BOTH: &[Kind] = &[Kind::Caisson, Kind::Dockerd];

pub(crate) const CASES: &[Case] = &[
    Case { name: "a_mirror_serves_what_docker_hub_has", kinds: BOTH, run: a_mirror_serves },
    Case { name: "another_mirror_gives_what_one_gave_wrong", kinds: &[Kind::Caisson], run: another_mirror },
    Case { name: "a_network_may_do_without_tls", kinds: BOTH, run: a_network_without_tls },
    // dockerd does not try without TLS when it is the proxy that has none.
    Case {
        name: "a_proxy_is_used_but_where_it_is_not_wanted",
        kinds: &[Kind::Caisson],
        run: a_proxy_is_used,
    },
];

fn told(arguments: &[String], variables: &[(&str, String)]) -> Told {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Told { arguments: arguments.to_vec(), variables }
}

/// Docker Hub itself cannot be reached from the engine's network.
fn a_mirror_serves(kind: Kind) -> Result<()> {
    let port = free_port();
    let mirror = format!("http://127.0.0.1:{port}/");
    let on =
        Engine::start_told(kind, Setting::default(), told(&["--registry-mirror".to_owned(), mirror], &[]))?;
    let registry = Registry::start_at(&on, Access::Open, port)?;
    let made = only_in_registry(&on, &registry.name("library/mirrored:v1"), 1000)?;
    let docker = caisson_tests::subject::Subject::docker(&on);
    docker.ok(["pull", "-q", "mirrored:v1"])?;
    let id = docker.ok(["image", "inspect", "-f", "{{.Id}} {{index .RepoTags 0}}", "mirrored:v1"])?;
    ensure!(id == format!("{made} mirrored:v1"), "{id}");
    // What it does not have, Docker Hub is asked for.
    let refused = docker.run(["pull", "mirrored:none"])?;
    ensure!(refused.status == 1 && refused.err.contains("registry-1.docker.io"), "{refused:?}");
    Ok(())
}

/// The first mirror flips a bit of each layer. dockerd gives up there.
fn another_mirror(kind: Kind) -> Result<()> {
    let ports = [free_port(), free_port()];
    let mirrors =
        ports.iter().flat_map(|port| ["--registry-mirror".to_owned(), format!("http://127.0.0.1:{port}/")]);
    let on = Engine::start_told(kind, Setting::default(), told(&mirrors.collect::<Vec<_>>(), &[]))?;
    let registry = Registry::start_at(&on, Access::Open, ports[1])?;
    let made = only_in_registry(&on, &registry.name("library/twice:v1"), 100_000)?;
    let config = made.clone();
    let upstream = (Ipv4Addr::LOCALHOST, registry.port());
    let _faulty = FaultyRegistry::start_at(&on, ports[0], upstream, move |asked| {
        match asked.path.contains("/blobs/") && !asked.path.contains(&config) {
            true => Fault::Flip(50_000),
            false => Fault::None,
        }
    })?;
    let docker = caisson_tests::subject::Subject::docker(&on);
    docker.ok(["pull", "-q", "twice:v1"])?;
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", "twice:v1"])? == made);
    Ok(())
}

fn a_network_without_tls(kind: Kind) -> Result<()> {
    for (network, is_in_it) in [("192.0.2.0/24", true), ("192.0.3.0/24", false)] {
        let on = Engine::start_told(
            kind,
            Setting::default(),
            told(&["--insecure-registry".to_owned(), network.to_owned()], &[]),
        )?;
        let registry = Registry::start(&on, Access::OpenOutside)?;
        let docker = caisson_tests::subject::Subject::docker(&on);
        let name = registry.name("open:v1");
        image(&docker, &name, 1000)?;
        let pushed = docker.run(["push", "-q", &name])?;
        ensure!((pushed.status == 0) == is_in_it, "{network}: {pushed:?}");
        let told = "http: server gave HTTP response to HTTPS client";
        ensure!(is_in_it || pushed.err.contains(told), "{network}: {pushed:?}");
    }
    Ok(())
}

fn a_proxy_is_used(kind: Kind) -> Result<()> {
    for without in ["", OUTSIDE] {
        let port = free_port();
        let variables = [
            ("HTTP_PROXY", format!("http://127.0.0.1:{port}")),
            ("HTTPS_PROXY", format!("http://127.0.0.1:{port}")),
            ("NO_PROXY", without.to_owned()),
        ];
        let insecure = ["--insecure-registry".to_owned(), format!("{OUTSIDE}/32")];
        let on = Engine::start_told(kind, Setting::default(), told(&insecure, &variables))?;
        let registry = Registry::start(&on, Access::OpenOutside)?;
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let log = Arc::clone(&seen);
        let upstream: (Ipv4Addr, u16) = (OUTSIDE_ADDRESS, registry.port());
        let _proxy = FaultyRegistry::start_at(&on, port, upstream, move |asked| {
            log.lock().unwrap_or_else(PoisonError::into_inner).insert(asked.path.clone());
            match asked.method == "CONNECT" {
                // It speaks no TLS for others.
                true => Fault::Answer(502, String::new(), String::new()),
                false => Fault::None,
            }
        })?;
        let docker = caisson_tests::subject::Subject::docker(&on);
        let name = registry.name("proxied:v1");
        let made = image(&docker, &name, 1000)?;
        docker.ok(["push", "-q", &name])?;
        docker.ok(["rmi", &name])?;
        docker.ok(["pull", "-q", &name])?;
        ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", &name])? == made);
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = format!("http://{}/v2/proxied/", registry.address());
        ensure!(
            seen.iter().any(|path| path.starts_with(&whole)) == without.is_empty(),
            "{without:?}: {seen:?}"
        );
    }
    Ok(())
}
