//! What comes from registries and goes to them: layers of every packing, what is refused, what is told, and what networks and
//! busy registries do. Natively only: the registry is beside the engine.

mod credentials;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};

use self::credentials::a_credential_helper_keeps_the_password;
use super::registry::{image, only_in_registry};
use crate::bounded::Bounded;
use crate::cases;
use crate::crafted::{Image, Layer, Packing, digest};
use crate::faults::{Asked, Fault, FaultyRegistry};
use crate::fixtures;
use crate::registry::{Access, PASSWORD, Registry, USER, free_port};
use crate::registry_data::ARCHITECTURE;
use crate::subject::{Case, Subject};

cases![
    layers_of_every_packing_are_pulled,
    a_layer_that_is_not_what_the_image_says_is_refused,
    who_may_not_is_told,
    an_identity_token_stands_for_a_password,
    blobs_that_are_there_are_not_sent,
    a_search_asks_the_registry_that_it_names,
    an_archive_is_imported_from_the_web,
    a_credential_helper_keeps_the_password,
];

/// What only Caisson does, or does without waiting for long.
pub const OURS: &[Case] = &[
    Case { name: "a_manifest_that_is_another_is_refused", run: a_manifest_that_is_another },
    Case { name: "a_manifest_of_the_first_schema_is_refused", run: a_manifest_of_the_first_schema },
    Case { name: "a_configuration_that_is_another_is_refused", run: a_configuration_that_is_another },
    Case { name: "a_layer_larger_than_its_manifest_says_is_refused", run: a_layer_too_large },
    Case { name: "an_upload_goes_on_where_it_broke_off", run: an_upload_goes_on },
    Case { name: "a_registry_says_when_to_come_again", run: a_registry_says_when },
    Case { name: "a_certificate_is_shown_to_who_asks_for_it", run: a_certificate_is_shown },
];

fn id(on: &dyn Subject, name: &str) -> Result<String> {
    on.docker().ok(["image", "inspect", "-f", "{{.Id}}", name])
}

fn layers_of_every_packing_are_pulled(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let mut layers = Vec::new();
    for (name, packing) in [("plain", Packing::Plain), ("gzip", Packing::Gzip), ("zstd", Packing::Zstd)] {
        layers.push(Layer::of_file(name, format!("packed as {name}").as_bytes(), packing)?);
    }
    let made = Image { architecture: ARCHITECTURE, layers };
    let told = made.put(on, &registry, "packings", "v1")?;
    let name = registry.name("packings:v1");
    docker.ok(["pull", "-q", &name])?;
    ensure!(id(on, &name)? == made.id());
    docker.ok(["create", "--name", "packings", &name])?;
    let exported = docker.command(["export", "packings"])?.in_time()?.stdout;
    let mut archive = tar::Archive::new(&exported[..]);
    let mut found = BTreeSet::new();
    for entry in archive.entries()? {
        found.insert(entry?.path()?.display().to_string());
    }
    ensure!(["plain", "gzip", "zstd"].iter().all(|name| found.contains(*name)), "{found:?}");
    docker.ok(["rm", "packings"])?;
    // It goes back as it came.
    let again = registry.name("packings-again:v1");
    docker.ok(["tag", &name, &again])?;
    let pushed = docker.ok(["push", &again])?;
    let digest = told["digest"].as_str().context("no digest")?;
    if on.name() == "caisson" {
        ensure!(pushed.contains(&format!("v1: digest: {digest} ")), "{pushed}");
    }
    docker.ok(["rmi", &name, &again])?;
    Ok(())
}

/// dockerd does not verify a manifest that it asked for by its tag.
fn a_manifest_that_is_another(on: &dyn Subject) -> Result<()> {
    flipped(on, "flipped-manifest", "/manifests/", "manifest verification failed for digest sha256:")
}

/// dockerd fails the same way, which its next attempts hide.
fn a_configuration_that_is_another(on: &dyn Subject) -> Result<()> {
    let config = Image::small("flipped-config", ARCHITECTURE)?.id();
    flipped(on, "flipped-config", &config, "image config verification failed for digest sha256:")
}

/// A byte of what has this in its path is another one.
fn flipped(on: &dyn Subject, name: &str, what: &str, told: &str) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = Image::small(name, ARCHITECTURE)?;
    made.put(on, &registry, name, "v1")?;
    let what = what.to_owned();
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        match asked.method == "GET" && asked.path.contains(&what) {
            true => Fault::Flip(40),
            false => Fault::None,
        }
    })?;
    let answer = docker.run(["pull", &proxy.name(&format!("{name}:v1"))])?;
    ensure!(answer.status == 1 && answer.err.contains(told), "{answer:?}");
    ensure!(docker.run(["image", "inspect", &made.id()])?.status == 1, "what was refused is there");
    Ok(())
}

fn a_layer_that_is_not_what_the_image_says_is_refused(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let mut made = Image::small("other-diff", ARCHITECTURE)?;
    let config = made.config();
    made.layers = vec![Layer::of_file("other", b"not what the configuration says", Packing::Gzip)?];
    registry.put_blob(on, "other-diff", &made.layers[0].blob)?;
    registry.put_blob(on, "other-diff", &config)?;
    let mut manifest: Value = serde_json::from_slice(&made.manifest())?;
    manifest["config"]["digest"] = digest(&config).into();
    manifest["config"]["size"] = config.len().into();
    let bytes = manifest.to_string();
    registry.put_manifest(on, "other-diff", "v1", crate::crafted::MANIFEST, bytes.as_bytes())?;
    let answer = docker.run(["pull", &registry.name("other-diff:v1")])?;
    let told = "layers from manifest don't match image configuration";
    ensure!(answer.status == 1 && answer.err.contains(told), "{answer:?}");
    ensure!(docker.run(["image", "inspect", &digest(&config)])?.status == 1, "what was refused is there");
    Ok(())
}

/// dockerd says the same of one with a signature that can be read.
fn a_manifest_of_the_first_schema(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let proxy =
        FaultyRegistry::start(on, registry.port(), |asked| match asked.path.contains("/manifests/") {
            true => {
                let headers = "Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws";
                let manifest = json!({
                    "schemaVersion": 1, "name": "old", "tag": "v1", "architecture": ARCHITECTURE,
                    "fsLayers": [], "history": [], "signatures": [],
                });
                let manifest = manifest.to_string();
                let digest = digest(manifest.as_bytes());
                Fault::Answer(200, format!("{headers}\r\nDocker-Content-Digest: {digest}\r\n"), manifest)
            }
            false => Fault::None,
        })?;
    let answer = docker.run(["pull", &proxy.name("old:v1")])?;
    let told = "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support";
    ensure!(answer.status == 1 && answer.err.contains(told), "{answer:?}");
    Ok(())
}

/// As Docker Hub says it: with a token that is not good for this.
fn who_may_not_is_told(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        let json = "Content-Type: application/json\r\n".to_owned();
        if asked.path.starts_with("/token") {
            return Fault::Answer(200, json, r#"{"token":"for-nothing"}"#.to_owned());
        }
        let host = asked.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let refused = match asked.head.contains("authorization: bearer") {
            true => ",error=\"insufficient_scope\"",
            false => "",
        };
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"test\"{refused}\r\n{json}"
        );
        let text = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Fault::Answer(401, challenge, text.to_owned())
    })?;
    let (name, denied) = (proxy.name("denied:v1"), "denied: requested access to the resource is denied");
    let answer = docker.run(["pull", &name])?;
    let told = format!(
        "pull access denied for {}, repository does not exist or may require 'docker login': {denied}",
        proxy.name("denied")
    );
    ensure!(answer.status == 1 && answer.err.contains(&told), "{answer:?}");
    image(&docker, &name, 100)?;
    let answer = docker.run(["push", &name])?;
    ensure!(answer.status == 1 && answer.err.contains(denied), "{answer:?}");
    docker.ok(["rmi", &name])?;
    Ok(())
}

/// A token server that knows a user by a password and, once it has seen that, by a refresh token.
fn token_server(asked: &Asked, log: &Mutex<Vec<String>>) -> Fault {
    let json = || "Content-Type: application/json\r\n".to_owned();
    let note =
        |what: &str| log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(what.to_owned());
    if asked.path.starts_with("/token") {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let has_password = asked.head.contains(&format!("authorization: basic {}", basic.to_lowercase()));
        let answer = match asked.method.as_str() {
            "GET" if has_password && asked.path.contains("offline_token=true") => {
                note("login");
                json!({"token": "t-login", "refresh_token": "the-identity"})
            }
            "POST"
                if asked.body.contains("refresh_token=the-identity")
                    && asked.body.contains("grant_type=refresh_token") =>
            {
                note(if asked.body.contains("push") { "push" } else { "pull" });
                json!({"access_token": "t-work", "expires_in": 300})
            }
            _ => return Fault::Answer(401, json(), r#"{"details":"who are you"}"#.to_owned()),
        };
        return Fault::Answer(200, json(), answer.to_string());
    }
    if ["t-login", "t-work"]
        .iter()
        .any(|token| asked.head.contains(&format!("authorization: bearer {token}")))
    {
        return Fault::None;
    }
    let host = asked.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let actions = if asked.method == "GET" || asked.method == "HEAD" { "pull" } else { "pull,push" };
    let scope = match asked.path.as_str() {
        "/v2/" => String::new(),
        _ => format!(",scope=\"repository:identity:{actions}\""),
    };
    let challenge =
        format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"test\"{scope}\r\n");
    let text = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    Fault::Answer(401, challenge, text.to_owned())
}

fn an_identity_token_stands_for_a_password(on: &dyn Subject) -> Result<()> {
    let registry = Registry::start(on, Access::Open)?;
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&log);
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| token_server(asked, &seen))?;
    let address = proxy.name("");
    let address = address.trim_end_matches('/');
    let credentials = json!({"username": USER, "password": PASSWORD, "serveraddress": address});
    let answer = on.api().post("/auth", &credentials)?;
    let told = json!({"Status": "Login Succeeded", "IdentityToken": "the-identity"});
    ensure!(answer.status == 200 && answer.json()? == told, "{}", answer.json()?);
    let wrong = json!({"username": USER, "password": "wrong", "serveraddress": address});
    let answer = on.api().post("/auth", &wrong)?;
    ensure!(answer.status == 401 || answer.status == 500, "{} {}", answer.status, answer.json()?);
    let header = json!({"identitytoken": "the-identity", "serveraddress": address}).to_string();
    let header = base64::engine::general_purpose::URL_SAFE.encode(header);
    let name = proxy.name("identity:v1");
    let made = image(&on.docker(), &name, 1000)?;
    let call = |method, path: &str| -> Result<String> {
        let answer = on.api().call(method, path, &[("X-Registry-Auth", header.as_str())], Vec::new())?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    };
    let pushed = call(hyper::Method::POST, &format!("/images/{}/push?tag=v1", proxy.name("identity")))?;
    ensure!(!pushed.contains("errorDetail") && pushed.contains("digest: sha256:"), "{pushed}");
    on.docker().ok(["rmi", &name])?;
    let pulled =
        call(hyper::Method::POST, &format!("/images/create?fromImage={}&tag=v1", proxy.name("identity")))?;
    ensure!(pulled.contains("Downloaded newer image"), "{pulled}");
    ensure!(id(on, &name)? == made);
    on.docker().ok(["rmi", &name])?;
    let seen: BTreeSet<String> =
        log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).drain(..).collect();
    ensure!(seen == BTreeSet::from(["login", "pull", "push"].map(str::to_owned)), "{seen:?}");
    Ok(())
}

/// Two images that have a layer in common: of the second only its own goes.
fn blobs_that_are_there_are_not_sent(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        if asked.method == "PATCH" {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    })?;
    let (one, two) = (proxy.name("sent:one"), proxy.name("sent:two"));
    image(&docker, &one, 1000)?;
    docker.ok(["push", "-q", &one])?;
    let first = sent.swap(0, Ordering::SeqCst);
    docker.ok(["run", "--name", "sent", "--entrypoint", "/noise", &one]).unwrap_or_default();
    docker.ok(["commit", "-m", "nothing", "sent", &two])?;
    let pushed = docker.ok(["push", &two])?;
    ensure!(pushed.contains(": Layer already exists"), "{pushed}");
    // Configurations go as blobs do.
    ensure!(first == 2 && sent.load(Ordering::SeqCst) <= 2, "{first} {}", sent.load(Ordering::SeqCst));
    docker.ok(["rm", "sent"])?;
    docker.ok(["rmi", &one, &two])?;
    Ok(())
}

/// dockerd takes what has the right digest, however much it is.
fn a_layer_too_large(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let mut layer = Layer::of_file("large", &vec![7; 300_000], Packing::Plain)?;
    layer.told_size = 1000;
    let made = Image { architecture: ARCHITECTURE, layers: vec![layer] };
    made.put(on, &registry, "large", "v1")?;
    let answer = docker.run(["pull", &registry.name("large:v1")])?;
    let told = "filesystem layer verification failed for digest sha256:";
    ensure!(answer.status == 1 && answer.err.contains(told), "{answer:?}");
    ensure!(docker.run(["image", "inspect", &made.id()])?.status == 1, "what was refused is there");
    Ok(())
}

/// The first two requests with the layer's bytes break off after 100 kB each. Debian's registry gives an upload up then, so
/// the proxy plays one that does not.
fn an_upload_goes_on(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let (seen, cuts) = (Arc::clone(&lengths), AtomicUsize::new(0));
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        if asked.method == "GET" && asked.path.contains("/blobs/uploads/") {
            let last = cuts.load(Ordering::SeqCst) * 100_000 - 1;
            let headers = format!("Range: 0-{last}\r\nLocation: {}\r\n", asked.upload);
            return Fault::Answer(204, headers, String::new());
        }
        if asked.method != "PATCH" || asked.length < 10_000 {
            return Fault::None;
        }
        seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(asked.length);
        match cuts.load(Ordering::SeqCst) {
            2 => Fault::None,
            _ => {
                cuts.fetch_add(1, Ordering::SeqCst);
                Fault::CutUpload(100_000)
            }
        }
    })?;
    let name = proxy.name("upload:v1");
    let made = image(&docker, &name, 1_000_000)?;
    docker.ok(["push", "-q", &name])?;
    docker.ok(["rmi", &name])?;
    docker.ok(["pull", "-q", &name])?;
    ensure!(id(on, &name)? == made);
    docker.ok(["rmi", &name])?;
    let lengths = lengths.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let [all, second, third] = lengths[..] else { anyhow::bail!("{lengths:?}") };
    ensure!(second == all - 100_000 && third == all - 200_000, "{lengths:?}");
    Ok(())
}

/// The pause that a client is told of is the registry's.
fn a_registry_says_when(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let made = only_in_registry(on, &registry.name("when:v1"), 10_000)?;
    let config = made.clone();
    let proxy = FaultyRegistry::start(on, registry.port(), move |asked| {
        let is_layer = asked.path.contains("/blobs/") && !asked.path.ends_with(&config);
        match asked.before {
            0 if is_layer => Fault::Answer(429, "Retry-After: 3\r\n".to_owned(), String::new()),
            _ => Fault::None,
        }
    })?;
    let name = proxy.name("when:v1");
    let pulled = docker.ok(["pull", &name])?;
    ensure!(pulled.contains("Retrying in 3 seconds"), "{pulled}");
    ensure!(id(on, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn a_certificate_is_shown(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Mutual)?);
    let name = registry.name("mutual/thing:v1");
    let made = image(&docker, &name, 1000)?;
    let certificates = on.registry_certificates().context("this engine's certificates cannot be reached")?;
    let own = certificates.join(registry.address());
    std::fs::create_dir_all(&own)?;
    std::fs::copy(registry.authority(), own.join("ca.crt"))?;
    let refused = docker.run(["push", &name])?;
    ensure!(refused.status == 1 && refused.err.contains("tls: "), "{refused:?}");
    let (certificate, key) = registry.client();
    std::fs::copy(certificate, own.join("client.cert"))?;
    let refused = docker.run(["push", &name])?;
    ensure!(refused.status == 1 && refused.err.contains("client.key"), "{refused:?}");
    std::fs::copy(key, own.join("client.key"))?;
    docker.ok(["push", "-q", &name])?;
    docker.ok(["rmi", &name])?;
    docker.ok(["pull", "-q", &name])?;
    ensure!(id(on, &name)? == made);
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn a_search_asks_the_registry_that_it_names(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let registry = Registry::start(on, Access::Open)?;
    let proxy = FaultyRegistry::start(on, registry.port(), |asked| {
        if !asked.path.starts_with("/v1/search?") {
            return Fault::Answer(200, "X-Docker-Registry-Version: 0.1\r\n".to_owned(), "true".to_owned());
        }
        let is_right = asked.path.contains("q=some%2Fthing") && asked.path.contains("n=25")
            || asked.path.contains("q=some/thing") && asked.path.contains("n=25");
        let found = |name: &str, stars: u32, official: bool| json!({"name": name, "description": "what it is", "star_count": stars, "is_official": official, "is_automated": false});
        let results =
            if is_right { vec![found("some/thing", 7, false), found("thing", 90, true)] } else { Vec::new() };
        let text =
            json!({"query": "some/thing", "num_results": results.len(), "results": results}).to_string();
        Fault::Answer(200, "Content-Type: application/json\r\n".to_owned(), text)
    })?;
    let term = proxy.name("some/thing");
    let all = docker.ok(["search", "--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}", &term])?;
    ensure!(all == "some/thing 7 \nthing 90 [OK]", "{all}");
    let chosen = docker.ok(["search", "--filter", "is-official=true", "--format", "{{.Name}}", &term])?;
    ensure!(chosen == "thing", "{chosen}");
    let chosen = docker.ok(["search", "--filter", "stars=50", "--format", "{{.Name}}", &term])?;
    ensure!(chosen == "thing", "{chosen}");
    let refused = docker.run(["search", &registry.name("x")])?;
    ensure!(refused.status == 1 && !refused.err.is_empty(), "{refused:?}");
    let refused = on.api().get("/images/search?term=x&limit=101")?;
    ensure!(refused.status == 400, "{}", refused.json()?);
    ensure!(
        refused.json()?["message"] == "limit 101 is outside the range of [1, 100]",
        "{}",
        refused.json()?
    );
    Ok(())
}

/// The engine fetches it, from where the engine is.
fn an_archive_is_imported_from_the_web(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let archive = String::from_utf8(fixtures::root_archive()?)?;
    let web = FaultyRegistry::start(on, free_port(), move |asked| match asked.path.as_str() {
        "/root.tar" => Fault::Answer(200, "Content-Type: application/x-tar\r\n".to_owned(), archive.clone()),
        _ => Fault::Answer(404, String::new(), "nothing here".to_owned()),
    })?;
    let url = format!("http://{}", web.name("root.tar"));
    let told = docker.ok(["import", "--change", "CMD [\"/hello\"]", &url, "from-the-web:v1"])?;
    let (downloading, made) = told.split_once('\n').with_context(|| told.clone())?;
    ensure!(downloading == format!("Downloading from {url}"), "{told}");
    let image = "{{.Id}} {{.Comment}} {{json .Config.Cmd}} {{.Size}}";
    let image = docker.ok(["image", "inspect", "-f", image, "from-the-web:v1"])?;
    ensure!(image == format!("{made} Imported from {url} [\"/hello\"] 6"), "{image}");
    docker.ok(["rmi", "from-the-web:v1"])?;
    let refused = docker.run(["import", &format!("http://{}", web.name("none.tar")), "from-nowhere:v1"])?;
    let why = format!("failed to GET http://{} with status 404 ", web.name("none.tar"));
    let is_told = refused.err.contains(&why) && refused.err.contains(": nothing here");
    ensure!(refused.status == 1 && is_told, "{refused:?}");
    let refused = docker.run(["import", "http://127.0.0.1:9/root.tar", "from-nowhere:v1"])?;
    let why = "Get \"http://127.0.0.1:9/root.tar\": dial tcp 127.0.0.1:9: connect: connection refused";
    ensure!(refused.status == 1 && refused.err.contains(why), "{refused:?}");
    ensure!(docker.run(["image", "inspect", "from-nowhere:v1"])?.status == 1, "what was refused is there");
    Ok(())
}
