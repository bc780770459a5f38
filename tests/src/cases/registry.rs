//! Registries: pull, push, login, and what networks do to them. Natively only: the registry is beside the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::bounded::LIMIT;
use crate::cases;
use crate::cli::Docker;
use crate::crafted::{Image, Layer, Packing, digest};
use crate::faults::{Fault, FaultyRegistry};
use crate::registry::{Access, PASSWORD, Registry, USER};
use crate::registry_data::ARCHITECTURE;
use crate::subject::{Case, Subject};

cases![
    what_is_pushed_is_pulled_again,
    a_pull_of_what_is_there_says_so,
    a_base_that_is_there_is_not_pulled_again,
    run_pulls_what_is_missing,
    all_tags_go_and_come,
    a_digest_is_pulled,
    what_is_not_there_is_told,
    a_login_opens_a_private_registry,
    a_token_is_asked_for,
    a_flipped_bit_is_noticed,
    too_many_requests_are_told,
    layers_are_mounted_from_another_repository,
    distribution_tells_of_what_is_not_pulled,
];

/// What only Caisson does, or does without waiting for long.
pub const OURS: &[Case] = &[
    Case { name: "a_token_is_renewed", run: a_token_is_renewed },
    Case { name: "a_pull_survives_cuts", run: a_pull_survives_cuts },
    Case { name: "a_pull_survives_a_busy_registry", run: a_pull_survives_a_busy_registry },
    Case { name: "two_pulls_share_the_work", run: two_pulls_share_the_work },
    Case { name: "a_pull_ends_with_its_client", run: a_pull_ends_with_its_client },
    Case { name: "a_certificate_is_trusted_when_it_is_configured", run: a_certificate_is_trusted },
];

/// An image that nothing else has: one layer with a file of so many bytes that do not compress.
pub fn image(docker: &Docker, name: &str, bytes: usize) -> Result<String> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(bytes).collect();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "noise", &noise[..])?;
    docker.feed(["import", "-", name], &archive.into_inner()?)?.ok()
}

fn id(docker: &Docker, name: &str) -> Result<String> {
    docker.ok(["image", "inspect", "-f", "{{.Id}}", name])
}

/// Puts an image into a registry that the engine itself does not have any more; returns its id.
pub fn only_in_registry(on: &dyn Subject, name: &str, bytes: usize) -> Result<String> {
    let docker = on.docker();
    let made = image(&docker, name, bytes)?;
    docker.ok(["push", "-q", name])?;
    docker.ok(["rmi", name])?;
    ensure!(docker.run(["image", "inspect", &made])?.status == 1, "{name} is still there");
    Ok(made)
}

fn what_is_pushed_is_pulled_again(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let name = registry.name("a/pushed:v1");
    let made = image(&docker, &name, 100_000)?;
    let pushed = docker.ok(["push", &name])?;
    let repository = registry.name("a/pushed");
    ensure!(pushed.starts_with(&format!("The push refers to repository [{repository}]\n")), "{pushed}");
    ensure!(pushed.contains(": Preparing\n") && pushed.contains(": Pushed\n"), "{pushed}");
    let told = pushed.lines().last().context("no last line")?;
    let digest =
        told.strip_prefix("v1: digest: ").and_then(|rest| rest.split(' ').next()).context("no digest")?;
    let again = docker.ok(["push", &name])?;
    ensure!(again.contains(": Layer already exists\n") && again.ends_with(told), "{again}");
    docker.ok(["rmi", &name])?;
    let pulled = docker.ok(["pull", &name])?;
    for line in [
        "v1: Pulling from a/pushed".to_owned(),
        format!("Digest: {digest}"),
        format!("Status: Downloaded newer image for {name}"),
    ] {
        ensure!(pulled.lines().any(|told| told == line), "{line} is missing in {pulled}");
    }
    // dockerd leaves steps out that are over at once.
    let brief: &[&str] = if on.name() == "caisson" { &["Verifying Checksum"] } else { &[] };
    for step in ["Pulling fs layer", "Download complete", "Pull complete"].iter().chain(brief) {
        ensure!(pulled.contains(&format!(": {step}\n")), "{step} is missing in {pulled}");
    }
    ensure!(id(&docker, &name)? == made);
    let digests = docker.ok(["image", "inspect", "-f", "{{json .RepoDigests}}", &name])?;
    ensure!(digests == format!("[\"{repository}@{digest}\"]"), "{digests}");
    // What came from a registry goes back as it came.
    let once_more = docker.ok(["push", &name])?;
    ensure!(once_more.ends_with(told), "{once_more}");
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn a_pull_of_what_is_there_says_so(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let name = registry.name("there");
    image(&docker, &name, 1000)?;
    docker.ok(["push", "-q", &name])?;
    let pulled = docker.ok(["pull", &name])?;
    ensure!(pulled.contains(&format!("Status: Image is up to date for {name}:latest")), "{pulled}");
    ensure!(!pulled.contains("Pulling fs layer"), "{pulled}");
    // Another name of the same is news, without any layer.
    docker.ok(["tag", &name, &registry.name("other:x")])?;
    docker.ok(["push", "-q", &registry.name("other:x")])?;
    docker.ok(["rmi", &registry.name("other:x")])?;
    let pulled = docker.ok(["pull", &registry.name("other:x")])?;
    ensure!(pulled.contains("Status: Downloaded newer image for"), "{pulled}");
    ensure!(!pulled.contains("Pulling fs layer"), "{pulled}");
    docker.ok(["rmi", &name, &registry.name("other:x")])?;
    Ok(())
}

/// Two images on one base: of the second only its own layer comes.
fn a_base_that_is_there_is_not_pulled_again(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let base = Layer::of_file("base", b"what both stand on", Packing::Gzip)?;
    let mut pulls = Vec::new();
    for tag in ["one", "two"] {
        let own = Layer::of_file("own", format!("the base's image {tag}").as_bytes(), Packing::Gzip)?;
        let own_id = short(&own);
        let layers = vec![base.clone(), own];
        Image { architecture: ARCHITECTURE, layers }.put(on, &registry, "based", tag)?;
        pulls.push((docker.ok(["pull", &registry.name(&format!("based:{tag}"))])?, own_id));
    }
    let [(first, own_first), (second, own_second)] = &pulls[..] else { bail!("{pulls:?}") };
    let count = |told: &str, what: &str| told.lines().filter(|line| line.ends_with(what)).count();
    let says = |told: &str, id: &str, what: &str| told.lines().any(|line| line == format!("{id}: {what}"));
    let base = short(&base);
    ensure!(count(first, ": Already exists") == 0 && count(first, ": Pull complete") == 2, "{first}");
    ensure!(says(first, &base, "Pull complete") && says(first, own_first, "Pull complete"), "{first}");
    ensure!(count(second, ": Already exists") == 1 && count(second, ": Pull complete") == 1, "{second}");
    ensure!(says(second, &base, "Already exists") && says(second, own_second, "Pull complete"), "{second}");
    docker.ok(["rmi", &registry.name("based:one")])?;
    // The base stays as long as one image stands on it.
    let left = docker.ok(["create", "--name", "based", &registry.name("based:two")])?;
    docker.ok(["cp", &format!("{left}:/base"), "-"])?;
    docker.ok(["rm", "based"])?;
    docker.ok(["rmi", &registry.name("based:two")])?;
    Ok(())
}

/// What pulls call a layer.
fn short(layer: &Layer) -> String {
    let digest = digest(&layer.blob);
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

fn run_pulls_what_is_missing(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let name = registry.name("run/busybox:v1");
    docker.ok(["tag", "busybox", &name])?;
    docker.ok(["push", "-q", &name])?;
    docker.ok(["rmi", &name])?;
    let answer = docker.run(["run", "--rm", &name, "echo", "it runs"])?;
    ensure!(answer.status == 0 && answer.out == "it runs\n", "{answer:?}");
    ensure!(answer.err.contains(&format!("Unable to find image '{name}' locally")), "{}", answer.err);
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn all_tags_go_and_come(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let (one, two) = (registry.name("all:one"), registry.name("all:two"));
    let ids = [image(&docker, &one, 1000)?, image(&docker, &two, 2000)?];
    let pushed = docker.ok(["push", "-a", &registry.name("all")])?;
    ensure!(pushed.contains("one: digest: ") && pushed.contains("two: digest: "), "{pushed}");
    docker.ok(["rmi", &one, &two])?;
    let pulled = docker.ok(["pull", "-a", &registry.name("all")])?;
    ensure!(
        pulled.contains(&format!("Status: Downloaded newer image for {}\n", registry.name("all"))),
        "{pulled}"
    );
    ensure!([id(&docker, &one)?, id(&docker, &two)?] == ids);
    docker.ok(["rmi", &one, &two])?;
    Ok(())
}

fn a_digest_is_pulled(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let name = registry.name("digest:v1");
    let made = image(&docker, &name, 1000)?;
    let pushed = docker.ok(["push", &name])?;
    let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:")).context("no digest")?;
    docker.ok(["rmi", &name])?;
    let by_digest = format!("{}@{digest}", registry.name("digest"));
    let pulled = docker.ok(["pull", &by_digest])?;
    ensure!(pulled.contains(&format!("Status: Downloaded newer image for {by_digest}")), "{pulled}");
    ensure!(id(&docker, &by_digest)? == made);
    let tags = docker.ok(["image", "inspect", "-f", "{{json .RepoTags}}", &by_digest])?;
    ensure!(tags == "[]", "{tags}");
    docker.ok(["rmi", &by_digest])?;
    Ok(())
}

fn what_is_not_there_is_told(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let name = registry.name("nothing:here");
    let answer = docker.run(["pull", &name])?;
    let told = format!("manifest for {name} not found: manifest unknown: manifest unknown");
    ensure!(answer.status == 1 && answer.err.contains(&told), "{answer:?}");
    let answer = docker.run(["pull", "-a", &registry.name("nothing")])?;
    let told = format!("repository {} not found: name unknown", registry.name("nothing"));
    ensure!(answer.status == 1 && answer.err.contains(&told), "{answer:?}");
    let answer = docker.run(["push", &name])?;
    let told = format!("An image does not exist locally with the tag: {}", registry.name("nothing"));
    ensure!(answer.status == 1 && answer.err.contains(&told), "{answer:?}");
    let answer = docker.run(["pull", "127.0.0.1:9/nobody"])?;
    let told = "Get \"http://127.0.0.1:9/v2/\": dial tcp 127.0.0.1:9: connect: connection refused";
    ensure!(answer.status == 1 && answer.err.contains(told), "{answer:?}");
    Ok(())
}

fn a_login_opens_a_private_registry(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Password)?);
    let name = registry.name("private");
    let made = image(&docker, &name, 1000)?;
    let refused = docker.run(["push", &name])?;
    ensure!(refused.status == 1 && refused.err.contains("no basic auth credentials"), "{refused:?}");
    let login = |password: &str| {
        docker.feed(["login", "-u", USER, "--password-stdin", &registry.address()], password.as_bytes())
    };
    let refused = login("wrong")?;
    let told =
        format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", registry.address());
    ensure!(refused.status == 1 && refused.err.contains(&told), "{refused:?}");
    ensure!(login(PASSWORD)?.ok()?.contains("Login Succeeded"));
    docker.ok(["push", "-q", &name])?;
    docker.ok(["rmi", &name])?;
    docker.ok(["pull", "-q", &name])?;
    ensure!(id(&docker, &name)? == made);
    docker.ok(["logout", &registry.address()])?;
    let refused = docker.run(["pull", &name])?;
    ensure!(refused.status == 1 && refused.err.contains("no basic auth credentials"), "{refused:?}");
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn a_token_is_asked_for(on: &dyn Subject) -> Result<()> {
    ensure!(tokens_for_a_pull(on, usize::MAX)? > 0, "no token was asked for");
    Ok(())
}

/// dockerd trusts what a token says of its end, and fails when a registry does not.
fn a_token_is_renewed(on: &dyn Subject) -> Result<()> {
    ensure!(tokens_for_a_pull(on, 2)? > 1, "no token was renewed");
    Ok(())
}

/// How many tokens a pull asks for, each of which is good for so many requests.
fn tokens_for_a_pull(on: &dyn Subject, good_for: usize) -> Result<usize> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = only_in_registry(on, &registry.name("token:v1"), 1000 + good_for % 1000)?;
    let (given, used) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        if asked.path.starts_with("/token") {
            let is_right = asked.path.contains("scope=repository%3Atoken%3Apull");
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            used.store(0, Ordering::SeqCst);
            let text = if is_right { format!("{{\"token\":\"t{number}\"}}") } else { "{}".to_owned() };
            return Fault::Answer(200, "Content-Type: application/json\r\n".to_owned(), text);
        }
        let right = format!("authorization: bearer t{}", count.load(Ordering::SeqCst));
        if asked.head.lines().any(|line| line == right) && used.fetch_add(1, Ordering::SeqCst) < good_for {
            return Fault::None;
        }
        let host = asked.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:token:pull\"\r\n"
        );
        let text = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Fault::Answer(401, challenge, text.to_owned())
    })?;
    let name = proxy.name("token:v1");
    docker.ok(["pull", "-q", &name])?;
    ensure!(id(&docker, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(given.load(Ordering::SeqCst))
}

fn a_flipped_bit_is_noticed(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = only_in_registry(on, &registry.name("flip:v1"), 300_000)?;
    let proxy = FaultyRegistry::start(on, registry.port(), |asked| match asked.path.contains("/blobs/") {
        true => Fault::Flip(200_000),
        false => Fault::None,
    })?;
    let name = proxy.name("flip:v1");
    let answer = docker.run(["pull", &name])?;
    let told = "filesystem layer verification failed for digest sha256:";
    ensure!(answer.status == 1 && answer.err.contains(told), "{answer:?}");
    ensure!(docker.run(["image", "inspect", &made])?.status == 1, "what was refused is there");
    Ok(())
}

fn too_many_requests_are_told(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let proxy = FaultyRegistry::start(on, registry.port(), |asked| {
        match asked.path.contains("/manifests/") {
            true => {
                let text = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
                Fault::Answer(429, "Content-Type: application/json\r\n".to_owned(), text.to_owned())
            }
            false => Fault::None,
        }
    })?;
    let answer = docker.run(["pull", &proxy.name("limited:v1")])?;
    let told = "toomanyrequests: You have reached your pull rate limit.";
    ensure!(answer.status == 1 && answer.err.contains(told), "{answer:?}");
    Ok(())
}

fn layers_are_mounted_from_another_repository(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let (one, two) = (registry.name("mount/one"), registry.name("mount/two"));
    image(&docker, &one, 1000)?;
    docker.ok(["push", "-q", &one])?;
    docker.ok(["tag", &one, &two])?;
    let pushed = docker.ok(["push", &two])?;
    ensure!(pushed.contains(": Mounted from mount/one\n"), "{pushed}");
    docker.ok(["rmi", &one, &two])?;
    docker.ok(["pull", "-q", &two])?;
    docker.ok(["rmi", &two])?;
    Ok(())
}

fn distribution_tells_of_what_is_not_pulled(on: &dyn Subject) -> Result<()> {
    let registry = Registry::start(on, Access::Open)?;
    let name = registry.name("told:v1");
    only_in_registry(on, &name, 1000)?;
    let answer = on.api().get(&format!("/distribution/{name}/json"))?;
    let told = answer.json()?;
    ensure!(answer.status == 200, "{told}");
    ensure!(
        told["Descriptor"]["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json",
        "{told}"
    );
    ensure!(
        told["Platforms"] == serde_json::json!([{"architecture": ARCHITECTURE, "os": "linux"}]),
        "{told}"
    );
    let answer = on.api().get(&format!("/distribution/{}/json", registry.name("told:none")))?;
    ensure!(answer.status == 404 && answer.json()?["message"] == "manifest unknown: manifest unknown");
    Ok(())
}

/// Every answer with a layer ends after 100 kB.
fn a_pull_survives_cuts(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = only_in_registry(on, &registry.name("cut:v1"), 1_000_000)?;
    let proxy = FaultyRegistry::start(on, registry.port(), |asked| match asked.path.contains("/blobs/") {
        true => Fault::Cut(100_000),
        false => Fault::None,
    })?;
    let name = proxy.name("cut:v1");
    docker.ok(["pull", "-q", &name])?;
    ensure!(id(&docker, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(())
}

/// The first two requests for a layer fail.
fn a_pull_survives_a_busy_registry(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = only_in_registry(on, &registry.name("busy:v1"), 300_000)?;
    let config = made.clone();
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        let is_layer = asked.path.contains("/blobs/") && !asked.path.ends_with(&config);
        match asked.before {
            0 if is_layer => Fault::Answer(503, String::new(), "busy".to_owned()),
            1 if is_layer => Fault::Answer(429, String::new(), String::new()),
            _ => Fault::None,
        }
    })?;
    let name = proxy.name("busy:v1");
    let pulled = docker.ok(["pull", &name])?;
    ensure!(pulled.contains("Retrying in 1 second"), "{pulled}");
    ensure!(id(&docker, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(())
}

/// The layer is fetched once, for both.
fn two_pulls_share_the_work(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = only_in_registry(on, &registry.name("shared:v1"), 300_000)?;
    let fetched = Arc::new(AtomicUsize::new(0));
    let (count, config) = (Arc::clone(&fetched), made.clone());
    // Both have asked for the manifest by the time the layer comes.
    let both = Arc::new(std::sync::Barrier::new(2));
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        if asked.path.ends_with(&config) {
            both.wait();
        } else if asked.path.contains("/blobs/") {
            count.fetch_add(1, Ordering::SeqCst);
            return Fault::Delay(std::time::Duration::from_millis(500));
        }
        Fault::None
    })?;
    let name = proxy.name("shared:v1");
    let pulls = [docker.spawn(["pull", "-q", &name])?, docker.spawn(["pull", "-q", &name])?];
    for pull in pulls {
        ensure!(pull.wait_with_output()?.status.success());
    }
    ensure!(fetched.load(Ordering::SeqCst) == 1, "fetched {} times", fetched.load(Ordering::SeqCst));
    ensure!(id(&docker, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(())
}

/// A client that goes away takes its pull with it; what came is given up, and a later pull is whole.
fn a_pull_ends_with_its_client(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = only_in_registry(on, &registry.name("gone:v1"), 300_000)?;
    let (asked_for, wait) = std::sync::mpsc::channel();
    let (asked_for, config) = (std::sync::Mutex::new(asked_for), made.clone());
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        if asked.path.contains("/blobs/") && !asked.path.ends_with(&config) {
            // Nobody need be waiting.
            let _ = asked_for.lock().map(|to| to.send(asked.before));
            if asked.before == 0 {
                return Fault::Delay(std::time::Duration::from_secs(3600));
            }
        }
        Fault::None
    })?;
    let name = proxy.name("gone:v1");
    let mut pull = docker.spawn(["pull", &name])?;
    ensure!(wait.recv_timeout(LIMIT)? == 0);
    pull.kill()?;
    pull.wait()?;
    // Were the first still there, this one would share its fate.
    docker.ok(["pull", "-q", &name])?;
    ensure!(wait.recv_timeout(LIMIT)? == 1);
    ensure!(id(&docker, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn a_certificate_is_trusted(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Tls)?);
    let name = registry.name("secret/thing:v1");
    let made = image(&docker, &name, 1000)?;
    let refused = docker.run(["push", &name])?;
    let told = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    ensure!(refused.status == 1 && refused.err.contains(told), "{refused:?}");
    let certificates = on.registry_certificates().context("this engine's certificates cannot be reached")?;
    let own = certificates.join(registry.address());
    std::fs::create_dir_all(&own)?;
    std::fs::copy(registry.authority(), own.join("ca.crt"))?;
    docker.ok(["push", "-q", &name])?;
    docker.ok(["rmi", &name])?;
    docker.ok(["pull", "-q", &name])?;
    ensure!(id(&docker, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(())
}
