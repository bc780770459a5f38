//! Engines that are told things at their start: how registries are reached (mirrors, networks without TLS, proxies), and whether containers
//! outlive them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use caisson_tests::cases::registry::{image, only_in_registry};
use caisson_tests::engine::{Engine, Kind, Setting, Told};
use caisson_tests::faults::{Fault, FaultyRegistry};
use caisson_tests::fixtures;
use caisson_tests::registry::{Access, OUTSIDE, OUTSIDE_ADDRESS, Registry, free_port};
use caisson_tests::subject::Subject;
use serde_json::{Value, json};

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
    Case { name: "info_tells_how_registries_are_reached", kinds: BOTH, run: info_tells },
    // dockerd reads its file anew when it is told to by a signal.
    Case {
        name: "settings_of_registries_are_read_anew",
        kinds: &[Kind::Caisson],
        run: settings_are_read_anew,
    },
    Case { name: "the_host_gateway_is_the_bridges_or_what_was_told", kinds: BOTH, run: host_gateway },
    Case { name: "system_prune_takes_all_that_is_idle", kinds: BOTH, run: system_prune },
    Case { name: "live_restore_leaves_containers_to_the_next_engine", kinds: BOTH, run: live_restore },
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
    let docker = on.docker();
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
    let docker = on.docker();
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
        let docker = on.docker();
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
        let docker = on.docker();
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

/// The default bridge's address, on whatever network the container is, or those that the engine was told.
fn host_gateway(kind: Kind) -> Result<()> {
    let told_of = ["--host-gateway-ip", "192.0.2.7"].map(str::to_owned);
    for arguments in [&[][..], &told_of] {
        let on = Engine::start_told(kind, Setting::default(), told(arguments, &[]))?;
        let docker = on.docker();
        docker.load_images()?;
        docker.ok(["network", "create", "other"])?;
        let expected = match arguments {
            [] => docker.ok(["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"])?,
            _ => "192.0.2.7".to_owned(),
        };
        for network in ["bridge", "other", "none", "host"] {
            let asks =
                ["--network", network, "--add-host", "the-host:host-gateway", "busybox", "cat", "/etc/hosts"];
            let hosts = docker.ok([&["run", "--rm"], &asks[..]].concat())?;
            let line = format!("{expected}\tthe-host");
            ensure!(hosts.lines().any(|one| one == line), "{network}: no {line} in {hosts}");
        }
    }
    Ok(())
}

/// All the prunes of one command, the builder's among them.
fn system_prune(kind: Kind) -> Result<()> {
    let on = Engine::start_told(kind, Setting::default(), Told::default())?;
    let docker = on.docker();
    docker.load_images()?;
    docker.ok(["run", "--name", "ended", "-v", "/anonymous", "--label", "of=prune", "busybox", "true"])?;
    docker.ok(["network", "create", "idle"])?;
    let pruned = docker.ok(["system", "prune", "-f"])?;
    ensure!(pruned.contains("Deleted Networks:\nidle"), "{pruned}");
    ensure!(pruned.contains("Total reclaimed space: "), "{pruned}");
    ensure!(docker.ok(["ps", "-aq"])?.is_empty() && !docker.ok(["images", "-q", "busybox"])?.is_empty());
    let all = docker.ok(["system", "prune", "-f", "-a", "--volumes"])?;
    ensure!(all.contains("Deleted Volumes:") && all.contains("untagged: busybox:latest"), "{all}");
    ensure!(docker.ok(["images", "-aq"])?.is_empty() && docker.ok(["volume", "ls", "-q"])?.is_empty());
    Ok(())
}

fn settings_are_read_anew(kind: Kind) -> Result<()> {
    let home = tempfile::tempdir_in(fixtures::scratch()?)?;
    let file = home.path().join("settings.json");
    let arguments = ["--registry-settings".to_owned(), file.display().to_string()];
    let on = Engine::start_told(kind, Setting::default(), told(&arguments, &[]))?;
    let (docker, registry) = (on.docker(), Registry::start(&on, Access::OpenOutside)?);
    let name = registry.name("open:v1");
    image(&docker, &name, 1000)?;
    let is_refused = || -> Result<()> {
        let refused = docker.run(["push", "-q", &name])?;
        ensure!(refused.err.contains("http: server gave HTTP response to HTTPS client"), "{refused:?}");
        Ok(())
    };
    is_refused()?;
    std::fs::write(&file, json!({"insecure-registries": [registry.address()]}).to_string())?;
    docker.ok(["push", "-q", &name])?;
    let said = docker.ok(["info", "-f", "{{json .RegistryConfig.IndexConfigs}}"])?;
    ensure!(said.contains(&registry.address()), "{said}");
    std::fs::remove_file(&file)?;
    is_refused()
}

/// In dockerd's order, with what it adds to it.
fn info_tells(kind: Kind) -> Result<()> {
    let arguments = [
        "--registry-mirror",
        "https://mirror.example",
        "--insecure-registry",
        "10.9.0.0/16",
        "--insecure-registry",
        "plain.example:5000",
    ]
    .map(str::to_owned);
    let on = Engine::start_told(kind, Setting::default(), told(&arguments, &[]))?;
    let said: Value = serde_json::from_str(&on.docker().ok(["info", "-f", "{{json .RegistryConfig}}"])?)?;
    let expected = json!({
        "InsecureRegistryCIDRs": ["10.9.0.0/16", "::1/128", "127.0.0.0/8"],
        "IndexConfigs": {
            "docker.io": {"Name": "docker.io", "Mirrors": ["https://mirror.example/"], "Secure": true, "Official": true},
            "plain.example:5000": {"Name": "plain.example:5000", "Mirrors": [], "Secure": false, "Official": false},
        },
        "Mirrors": ["https://mirror.example/"],
    });
    ensure!(said == expected, "{said}");
    Ok(())
}

/// One that serves a port, one that lives in another's network, and one whose end comes after.
fn live_restore(kind: Kind) -> Result<()> {
    let on = Engine::start_told(kind, Setting::default(), told(&["--live-restore".to_owned()], &[]))?;
    let docker = on.docker();
    docker.load_images()?;
    ensure!(docker.ok(["info", "-f", "{{.LiveRestoreEnabled}}"])? == "true");
    docker.ok(["run", "-d", "--name", "web", "-p", "28092:80", "web"])?;
    docker.ok(["run", "-d", "--name", "beside", "--network", "container:web", "busybox", "sleep", "1000"])?;
    let script = "while [ ! -e /host/go ]; do sleep 0.1; done; exit 9";
    let wish = ["run", "-d", "--name", "ends", "-v", "/run:/host", "busybox", "sh", "-c", script];
    docker.ok(wish)?;
    let pids = || docker.ok(["inspect", "-f", "{{.State.Pid}}", "web", "beside"]);
    let before = pids()?;
    on.terminate()?;
    on.start_again()?;
    on.namespaces().shell("touch /run/go")?;
    ensure!(pids()? == before, "{} instead of {before}", pids()?);
    ensure!(docker.ok(["wait", "ends"])? == "9");
    on.fetch("http://127.0.0.1:28092/")?;
    docker.ok(["exec", "beside", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"])?;
    docker.ok(["rm", "-f", "web", "beside", "ends"])?;
    Ok(())
}
