//! What one engine writes, the other reads.

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::Bounded;
use caisson_tests::cases::registry::image;
use caisson_tests::fixtures;
use caisson_tests::registry::{Access, Registry};
use caisson_tests::registry_data::ARCHITECTURE;
use caisson_tests::subject::Subject;
use serde_json::Value;

/// One thing that goes from one engine to the other.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(from: &dyn Subject, to: &dyn Subject) -> Result<()>,
}

pub(crate) const CASES: &[Case] = &[
    Case { name: "push_and_pull", run: push_and_pull },
    Case { name: "save_and_load", run: save_and_load },
    Case { name: "a_whole_image_is_the_same", run: a_whole_image_is_the_same },
    Case { name: "skopeo_reads_what_is_pushed_and_saved", run: skopeo_reads },
];

/// The registry beside the one engine and the registry beside the other have the same data.
fn push_and_pull(from: &dyn Subject, to: &dyn Subject) -> Result<()> {
    let registry = Registry::start(from, Access::Open)?;
    let what = format!("from/{}", from.name());
    let name = registry.name(&what);
    let id = image(&from.docker(), &name, 100_000)?;
    let pushed = from.docker().ok(["push", &name])?;
    let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:")).context("no digest")?;
    from.docker().ok(["rmi", &name])?;
    let other = Registry::start_with(to, &registry.data())?;
    let name = other.name(&what);
    let pulled = to.docker().ok(["pull", &name])?;
    ensure!(
        pulled.contains(": Pull complete\n") && pulled.contains(&format!("Digest: {digest}")),
        "{pulled}"
    );
    ensure!(to.docker().ok(["image", "inspect", "-f", "{{.Id}}", &name])? == id);
    to.docker().ok(["rmi", &name])?;
    Ok(())
}

/// Two images with three names, one of them under two.
fn save_and_load(from: &dyn Subject, to: &dyn Subject) -> Result<()> {
    let of = |what: &str| format!("saved-by-{}/{what}", from.name());
    let (one, again, two) = (of("one:v1"), of("one:v2"), of("two:v1"));
    let ids = [image(&from.docker(), &one, 50_000)?, image(&from.docker(), &two, 60_000)?];
    from.docker().ok(["tag", &one, &again])?;
    let archive = fixtures::scratch()?.join(format!("saved-by-{}.tar", from.name()));
    let file = archive.to_str().context("a path that is no text")?;
    from.docker().ok(["save", "-o", file, &of("one"), &two])?;
    let loaded = to.docker().ok(["load", "-i", file])?;
    for name in [&one, &again, &two] {
        ensure!(loaded.contains(&format!("Loaded image: {name}")), "{name} is missing in {loaded}");
    }
    let id = |name: &str| to.docker().ok(["image", "inspect", "-f", "{{.Id}}", name]);
    ensure!([id(&one)?, id(&two)?] == ids && id(&again)? == ids[0]);
    let nothing = from.docker().run(["save", "-o", file, "no-such-image"])?;
    ensure!(nothing.status == 1 && nothing.err.contains("No such image: no-such-image"), "{nothing:?}");
    for on in [from, to] {
        on.docker().ok(["rmi", &one, &again, &two])?;
    }
    Ok(std::fs::remove_file(&archive)?)
}

/// An image of several layers, with all that a configuration can have.
fn rich(on: &dyn Subject, name: &str) -> Result<String> {
    let docker = on.docker();
    let container = format!("rich-{}", name.replace([':', '/'], "-"));
    let script =
        "mkdir /rich && echo one > /rich/f && ln /rich/f /rich/h && chown 5:6 /rich/f && rm /bin/cal";
    docker.ok(["run", "--name", &container, "busybox", "sh", "-c", script])?;
    docker.ok(["commit", "-m", "first", "-a", "me", &container, name])?;
    docker.ok(["rm", &container])?;
    let script = "rm /rich/h && mkdir /rich/d && echo two > /rich/d/f";
    docker.ok(["run", "--name", &container, name, "sh", "-c", script])?;
    let changes = [
        "ENV A=b",
        "LABEL c=d",
        "EXPOSE 80",
        "VOLUME /v",
        "USER 5",
        "WORKDIR /rich",
        "STOPSIGNAL SIGINT",
        "HEALTHCHECK --interval=5s CMD true",
        "ENTRYPOINT [\"sh\"]",
        "CMD [\"-c\", \"true\"]",
        "ONBUILD RUN x",
    ];
    let changes = changes.iter().flat_map(|change| ["--change", change]);
    docker.ok(["commit", "-m", "second"].into_iter().chain(changes).chain([container.as_str(), name]))?;
    docker.ok(["rm", &container])?;
    docker.ok(["image", "inspect", "-f", "{{.Id}}", name])
}

/// What is told of an image, but for what the engine itself adds.
fn told(on: &dyn Subject, name: &str) -> Result<(Value, String)> {
    let mut image = on.api().get(&format!("/images/{name}/json"))?.json()?;
    for own in ["GraphDriver", "Metadata", "Parent", "RepoDigests", "Descriptor", "Size"] {
        image.as_object_mut().context("no image")?.remove(own);
    }
    let format = "{{.CreatedBy}}|{{.Comment}}|{{.CreatedAt}}|{{.Size}}";
    Ok((image, on.docker().ok(["history", "--no-trunc", "--format", format, name])?))
}

fn a_whole_image_is_the_same(from: &dyn Subject, to: &dyn Subject) -> Result<()> {
    let name = format!("rich/from-{}:v1", from.name());
    rich(from, &name)?;
    let archive = fixtures::scratch()?.join(format!("rich-{}.tar", from.name()));
    let file = archive.to_str().context("a path that is no text")?;
    from.docker().ok(["save", "-o", file, &name])?;
    to.docker().ok(["load", "-i", file])?;
    let (here, there) = (told(from, &name)?, told(to, &name)?);
    ensure!(here == there, "\n  from: {} {}\n  to: {} {}", here.0, here.1, there.0, there.1);
    let look = "cat f d/f; ls /bin/cal h 2>&1 | wc -l; stat -c %u:%g f";
    let ran = to.docker().ok(["run", "--rm", "--user", "0", "--entrypoint", "sh", &name, "-c", look])?;
    ensure!(ran == "one\ntwo\n2\n5:6", "{ran}");
    for on in [from, to] {
        on.docker().ok(["rmi", &name])?;
    }
    Ok(std::fs::remove_file(&archive)?)
}

fn skopeo(on: &dyn Subject, args: &[&str]) -> Result<String> {
    let output = on.on_host("skopeo").arg("--insecure-policy").args(args).in_time()?;
    ensure!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// It inspects and copies what one engine pushed and saved; the other loads what it made of that.
fn skopeo_reads(from: &dyn Subject, to: &dyn Subject) -> Result<()> {
    let registry = Registry::start(from, Access::Open)?;
    let what = format!("skopeo/from-{}", from.name());
    let name = registry.name(&format!("{what}:v1"));
    let id = rich(from, &name)?;
    from.docker().ok(["push", "-q", &name])?;
    let home = tempfile::Builder::new().prefix("skopeo-").tempdir_in(fixtures::scratch()?)?;
    let at = |name: &str| home.path().join(name).display().to_string();
    let pushed = format!("docker://{name}");
    let inspected: Value = serde_json::from_str(&skopeo(from, &["inspect", "--tls-verify=false", &pushed])?)?;
    ensure!(inspected["Layers"].as_array().map(Vec::len) == Some(3), "{inspected}");
    ensure!(inspected["Labels"]["c"] == "d" && inspected["Architecture"] == ARCHITECTURE, "{inspected}");
    let raw = skopeo(from, &["inspect", "--tls-verify=false", "--raw", &pushed])?;
    ensure!(serde_json::from_str::<Value>(&raw)?["config"]["digest"] == id.as_str(), "{raw}");
    from.docker().ok(["save", "-o", &at("saved.tar"), &name])?;
    let saved = format!("docker-archive:{}", at("saved.tar"));
    let inspected: Value = serde_json::from_str(&skopeo(from, &["inspect", "--config", &saved])?)?;
    ensure!(inspected["config"]["Env"].to_string().contains("A=b"), "{inspected}");
    // The same layers come whichever way; a configuration may be written anew on the way to a layout.
    let layers =
        |on: &dyn Subject, name: &str| on.docker().ok(["image", "inspect", "-f", "{{json .RootFS}}", name]);
    let tag = "skopeo/copied:v1";
    for (source, target) in [
        (&pushed, format!("docker-archive:{}:{tag}", at("docker.tar"))),
        (&pushed, format!("oci-archive:{}:{tag}", at("oci.tar"))),
        (&saved, format!("oci-archive:{}:{tag}", at("resaved.tar"))),
    ] {
        skopeo(from, &["copy", "--src-tls-verify=false", source, &target])?;
        let file = target.split(':').nth(1).context("no file")?;
        // dockerd's classic image store reads no layouts.
        if target.starts_with("docker-archive") || to.name() == "caisson" {
            to.docker().ok(["load", "-i", file])?;
            ensure!(layers(to, tag)? == layers(from, &name)?, "{target}");
            to.docker().ok(["rmi", tag])?;
        }
    }
    from.docker().ok(["rmi", &name])?;
    Ok(())
}
