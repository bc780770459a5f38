//! Images for several platforms: pulled, told of, saved, pushed and removed. Natively only: the registry is beside the engine.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::crafted::{Image, Layer, Packing, put_index};
use crate::fixtures;
use crate::registry::{Access, Registry};
use crate::subject::{Case, Subject};

cases![
    a_platform_of_an_index_is_pulled,
    a_platform_that_an_index_lacks_is_told,
    distribution_tells_the_platforms_of_an_index,
    platforms_are_read_as_dockerd_reads_them,
];

/// What the reference cannot do with its classic image store, which keeps one platform a name.
pub const OURS: &[Case] = &[
    Case { name: "every_platform_that_was_pulled_is_kept", run: every_platform_is_kept },
    Case { name: "the_manifests_of_an_image_are_told", run: manifests_are_told },
    Case { name: "all_platforms_are_pushed_as_they_came", run: all_platforms_are_pushed },
    Case { name: "all_platforms_are_saved_and_loaded", run: all_platforms_are_saved },
    Case { name: "a_platform_is_removed_alone", run: a_platform_is_removed },
    Case { name: "an_index_of_an_index_is_followed", run: an_index_of_an_index },
    Case { name: "a_newer_index_takes_the_name_from_all_platforms", run: a_newer_index },
];

/// Puts an index for amd64 and s390x with an attestation under `what:v1`; its digest.
fn put_two(on: &dyn Subject, registry: &Registry, what: &str) -> Result<String> {
    let mut manifests = Vec::new();
    for architecture in ["s390x", "amd64"] {
        manifests.push(Image::small(what, architecture)?.put(on, registry, what, architecture)?);
    }
    let statement =
        Image { architecture: "unknown", layers: vec![Layer::of_file(what, b"{}", Packing::Plain)?] };
    let mut attestation = statement.put(on, registry, what, "attestation")?;
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": manifests[1]["digest"],
    });
    manifests.push(attestation);
    let index = put_index(on, registry, what, "v1", &manifests)?;
    Ok(index["digest"].as_str().context("no digest")?.to_owned())
}

fn architecture(on: &dyn Subject, args: &[&str]) -> Result<String> {
    let fixed = ["image", "inspect", "-f", "{{.Architecture}}"];
    on.docker().ok(fixed.iter().chain(args).copied().collect::<Vec<_>>())
}

fn pull(on: &dyn Subject, name: &str, platform: &str) -> Result<String> {
    on.docker().ok(["pull", "--platform", platform, name])
}

fn a_platform_of_an_index_is_pulled(on: &dyn Subject) -> Result<()> {
    let registry = Registry::start(on, Access::Open)?;
    let digest = put_two(on, &registry, "one")?;
    let name = registry.name("one:v1");
    let pulled = pull(on, &name, "linux/s390x")?;
    ensure!(pulled.contains(&format!("Digest: {digest}\nStatus: Downloaded newer image")), "{pulled}");
    ensure!(architecture(on, &[&name])? == "s390x");
    let created = on.docker().run(["create", "--name", "on-s390x", &name])?;
    let told =
        "The requested image's platform (linux/s390x) does not match the detected host platform (linux/amd64";
    ensure!(created.status == 0 && created.err.contains(told), "{created:?}");
    on.docker().ok(["rm", "on-s390x"])?;
    on.docker().ok(["pull", &name])?;
    ensure!(architecture(on, &[&name])? == "amd64");
    on.docker().ok(["rmi", &name])?;
    Ok(())
}

fn a_platform_that_an_index_lacks_is_told(on: &dyn Subject) -> Result<()> {
    let registry = Registry::start(on, Access::Open)?;
    put_two(on, &registry, "lacks")?;
    let name = registry.name("lacks:v1");
    let refused = on.docker().run(["pull", "--platform", "linux/mips64le", &name])?;
    let told = "no matching manifest for linux/mips64le in the manifest list entries";
    ensure!(refused.status == 1 && refused.err.contains(told), "{refused:?}");
    let single = registry.name("lacks:s390x");
    on.docker().ok(["pull", &single])?;
    let refused = on.docker().run(["history", "--platform", "linux/amd64", &single])?;
    let told = format!(
        "image with reference {single} was found but its platform (linux/s390x) does not match the specified platform (linux/amd64)"
    );
    ensure!(refused.status == 1 && refused.err.contains(&told), "{refused:?}");
    let refused = on.docker().run(["push", "--platform", "linux/amd64", &single])?;
    ensure!(refused.status == 1 && refused.err.contains(&told), "{refused:?}");
    on.docker().ok(["rmi", &single])?;
    Ok(())
}

fn distribution_tells_the_platforms_of_an_index(on: &dyn Subject) -> Result<()> {
    let registry = Registry::start(on, Access::Open)?;
    let digest = put_two(on, &registry, "told")?;
    let told = on.api().get(&format!("/distribution/{}/json", registry.name("told:v1")))?.json()?;
    ensure!(told["Descriptor"]["digest"] == digest.as_str(), "{told}");
    ensure!(told["Descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json", "{told}");
    let wanted = json!([
        {"architecture": "s390x", "os": "linux"}, {"architecture": "amd64", "os": "linux"},
        {"architecture": "unknown", "os": "unknown"},
    ]);
    ensure!(told["Platforms"] == wanted, "{told}");
    Ok(())
}

fn platforms_are_read_as_dockerd_reads_them(on: &dyn Subject) -> Result<()> {
    let s390x = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22s390x%22%7D";
    let half = "%7B%22os%22%3A%22linux%22%7D";
    let amd64 = s390x.replace("s390x", "amd64");
    for (path, status, message) in [
        (format!("/images/busybox/json?platform={half}"), 400, "both OS and Architecture must be provided"),
        (
            format!("/images/busybox/history?platform={half}"),
            400,
            "both OS and Architecture must be provided",
        ),
        (
            format!("/images/busybox/json?platform={s390x}"),
            404,
            "image with reference busybox was found but its platform (linux/amd64) does not match the specified platform (linux/s390x)",
        ),
        (
            format!("/images/busybox/json?platform={amd64}&manifests=1"),
            400,
            "conflicting options: manifests and platform options cannot both be set",
        ),
        (
            format!("/images/get?names=busybox&platform={amd64}&platform={s390x}"),
            400,
            "multiple platform parameters not supported",
        ),
    ] {
        let answer = on.api().get(&path)?;
        ensure!(
            answer.status == status && answer.json()?["message"] == message,
            "{path}: {}",
            answer.json()?
        );
    }
    // Versions of the API that had no such parameter have none.
    for path in ["/v1.47/images/busybox/history", "/v1.48/images/busybox/json"] {
        ensure!(on.api().get(&format!("{path}?platform={s390x}"))?.status == 200, "{path}");
    }
    Ok(())
}

fn every_platform_is_kept(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    put_two(on, &registry, "both")?;
    let name = registry.name("both:v1");
    pull(on, &name, "linux/amd64")?;
    let pulled = pull(on, &name, "linux/s390x")?;
    ensure!(pulled.contains("Status: Downloaded newer image"), "{pulled}");
    ensure!(pull(on, &name, "linux/amd64")?.contains("Image is up to date"));
    ensure!(architecture(on, &[&name])? == "amd64");
    ensure!(architecture(on, &["--platform", "linux/s390x", &name])? == "s390x");
    let rows = docker.ok(["images", "-q", "--no-trunc", "--filter", &format!("reference={name}")])?;
    ensure!(rows == Image::small("both", "amd64")?.id(), "{rows}");
    let created = docker.run(["create", "--platform", "linux/s390x", "--name", "other-platform", &name])?;
    ensure!(created.status == 0 && created.err.is_empty(), "{created:?}");
    let image = docker.ok(["inspect", "-f", "{{.Image}}", "other-platform"])?;
    ensure!(image == Image::small("both", "s390x")?.id(), "{image}");
    let listed = docker.ok(["ps", "-a", "--format", "{{.Image}}", "--filter", "name=other-platform"])?;
    ensure!(listed == name, "{listed}");
    let by_ancestor = docker.ok(["ps", "-aq", "--filter", &format!("ancestor={name}")])?;
    ensure!(by_ancestor.lines().count() == 1, "{by_ancestor}");
    let refused = docker.run(["rmi", &name])?;
    ensure!(refused.status == 1 && refused.err.contains("is using its referenced image"), "{refused:?}");
    docker.ok(["rm", "other-platform"])?;
    let removed = docker.ok(["rmi", &name])?;
    ensure!(removed.lines().filter(|line| line.starts_with("Deleted: ")).count() == 4, "{removed}");
    Ok(())
}

fn manifests_are_told(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let digest = put_two(on, &registry, "manifests")?;
    let name = registry.name("manifests:v1");
    docker.ok(["pull", "-q", &name])?;
    let user = docker.ok(["create", "--name", "manifests-user", &name])?;
    let list = format!("/images/json?manifests=1&filters=%7B%22reference%22%3A%5B%22{name}%22%5D%7D");
    let listed = on.api().get(&list)?.json()?;
    let inspected = on.api().get(&format!("/images/{name}/json?manifests=1"))?.json()?;
    ensure!(listed[0]["Manifests"] == inspected["Manifests"], "{listed} {inspected}");
    for told in [&listed[0], &inspected] {
        ensure!(told["Descriptor"]["digest"] == digest.as_str(), "{told}");
        ensure!(told["Descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json", "{told}");
    }
    let manifests = &inspected["Manifests"];
    let shown = |at: usize, field: &str| manifests[at][field].clone();
    ensure!(shown(0, "Available") == false && shown(1, "Available") == true, "{manifests}");
    ensure!(
        shown(1, "ImageData")["Platform"] == json!({"os": "linux", "architecture": "amd64"}),
        "{manifests}"
    );
    ensure!(shown(1, "ImageData")["Containers"] == json!([user]), "{manifests}");
    ensure!(shown(1, "ImageData")["Size"]["Unpacked"] == json!("manifests amd64".len()), "{manifests}");
    let image = Image::small("manifests", "amd64")?;
    let content = image.manifest().len() + image.config().len() + image.layers[0].blob.len();
    ensure!(shown(1, "Size")["Content"] == json!(content), "{manifests}");
    ensure!(shown(1, "Size")["Total"] == json!(content + "manifests amd64".len()), "{manifests}");
    ensure!(shown(2, "Kind") == "attestation", "{manifests}");
    ensure!(shown(2, "AttestationData") == json!({"For": manifests[1]["ID"]}), "{manifests}");
    let platform = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";
    let of_one = on.api().get(&format!("/images/{name}/json?platform={platform}"))?.json()?;
    ensure!(of_one["Descriptor"] == manifests[1]["Descriptor"], "{of_one}");
    let old = on.api().get(&format!("/v1.46{list}"))?.json()?;
    ensure!(old[0].get("Manifests").is_none() && old[0].get("Descriptor").is_none(), "{old}");
    docker.ok(["rm", "manifests-user"])?;
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn all_platforms_are_pushed(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    // An index of images alone goes as it came; of one with more in it, what is here goes.
    let mut manifests = Vec::new();
    for architecture in ["s390x", "amd64"] {
        manifests.push(Image::small("whole", architecture)?.put(on, &registry, "whole", architecture)?);
    }
    let whole = put_index(on, &registry, "whole", "v1", &manifests)?;
    put_two(on, &registry, "more")?;
    for (from, same) in [("whole", true), ("more", false)] {
        let (name, to) = (registry.name(&format!("{from}:v1")), registry.name(&format!("{from}-again:v2")));
        pull(on, &name, "linux/amd64")?;
        pull(on, &name, "linux/s390x")?;
        docker.ok(["tag", &name, &to])?;
        let pushed = docker.ok(["push", &to])?;
        let digest = whole["digest"].as_str().context("no digest")?;
        ensure!(pushed.contains(&format!("v2: digest: {digest} size: ")) == same, "{pushed}");
        let part = "Not all of the image is here, only this was pushed: linux/amd64, linux/s390x";
        ensure!(pushed.contains(part) != same, "{pushed}");
        docker.ok(["rmi", &name, &to])?;
        let told = on.api().get(&format!("/distribution/{to}/json"))?.json()?;
        ensure!(told["Platforms"].as_array().map(Vec::len) == Some(2), "{told}");
        for architecture in ["s390x", "amd64"] {
            pull(on, &to, &format!("linux/{architecture}"))?;
            ensure!(
                self::architecture(on, &["--platform", &format!("linux/{architecture}"), &to])?
                    == architecture
            );
        }
        let one = registry.name(&format!("{from}-one:v3"));
        docker.ok(["tag", &to, &one])?;
        docker.ok(["push", "-q", "--platform", "linux/s390x", &one])?;
        let told = on.api().get(&format!("/distribution/{one}/json"))?.json()?;
        ensure!(told["Platforms"] == json!([{"os": "linux", "architecture": "s390x"}]), "{told}");
        docker.ok(["rmi", &to, &one])?;
    }
    Ok(())
}

fn all_platforms_are_saved(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    put_two(on, &registry, "saved")?;
    let name = registry.name("saved:v1");
    pull(on, &name, "linux/amd64")?;
    pull(on, &name, "linux/s390x")?;
    let archive = fixtures::scratch()?.join("platforms.tar");
    let file = archive.to_str().context("a path that is no text")?;
    for (args, kept) in [(&[][..], 2), (&["--platform", "linux/s390x"][..], 1)] {
        let save = ["save", "-o", file];
        docker.ok(save.iter().chain(args).chain(&[name.as_str()]).copied().collect::<Vec<_>>())?;
        docker.ok(["rmi", &name])?;
        let loaded = docker.ok(["load", "-i", file])?;
        ensure!(loaded == format!("Loaded image: {name}"), "{loaded}");
        ensure!(architecture(on, &["--platform", "linux/s390x", &name])? == "s390x");
        let wanted = if kept == 2 { "amd64" } else { "s390x" };
        ensure!(architecture(on, &[&name])? == wanted);
        docker.ok(["rmi", &name])?;
        docker.ok(["load", "-q", "--platform", "linux/s390x", "-i", file])?;
        ensure!(architecture(on, &[&name])? == "s390x");
        pull(on, &name, "linux/amd64")?;
        pull(on, &name, "linux/s390x")?;
    }
    docker.ok(["rmi", &name])?;
    Ok(std::fs::remove_file(&archive)?)
}

fn a_platform_is_removed(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    put_two(on, &registry, "alone")?;
    let name = registry.name("alone:v1");
    pull(on, &name, "linux/amd64")?;
    pull(on, &name, "linux/s390x")?;
    let platform = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22s390x%22%7D";
    let answer = on.api().delete(&format!("/images/{name}?platforms={platform}"))?;
    ensure!(answer.status == 400, "{}", answer.json()?);
    let answer = on.api().delete(&format!("/images/{name}?platforms={platform}&force=1"))?;
    let removed = answer.json()?;
    ensure!(
        answer.status == 200 && removed[0] == json!({"Deleted": Image::small("alone", "s390x")?.id()}),
        "{removed}"
    );
    ensure!(docker.run(["image", "inspect", "--platform", "linux/s390x", &name])?.status == 1);
    ensure!(architecture(on, &[&name])? == "amd64");
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn an_index_of_an_index(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    let manifests = [Image::small("nested", "amd64")?.put(on, &registry, "nested", "amd64")?];
    let inner = put_index(on, &registry, "nested", "inner", &manifests)?;
    let outer = put_index(on, &registry, "nested", "v1", &[inner])?;
    let name = registry.name("nested:v1");
    docker.ok(["pull", "-q", &name])?;
    ensure!(architecture(on, &[&name])? == "amd64");
    let descriptor: Value =
        serde_json::from_str(&docker.ok(["image", "inspect", "-f", "{{json .Descriptor}}", &name])?)?;
    ensure!(descriptor["digest"] == outer["digest"], "{descriptor}");
    docker.ok(["rmi", &name])?;
    Ok(())
}

fn a_newer_index(on: &dyn Subject) -> Result<()> {
    let (docker, registry) = (on.docker(), Registry::start(on, Access::Open)?);
    put_two(on, &registry, "newer")?;
    let name = registry.name("newer:v1");
    pull(on, &name, "linux/amd64")?;
    pull(on, &name, "linux/s390x")?;
    let newer =
        Image { architecture: "amd64", layers: vec![Layer::of_file("newer", b"newer", Packing::Gzip)?] };
    let manifests = [newer.put(on, &registry, "newer", "amd64")?];
    put_index(on, &registry, "newer", "v1", &manifests)?;
    docker.ok(["pull", "-q", &name])?;
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", &name])? == newer.id());
    // What was there before is there without the tag.
    let gone = docker.run(["image", "inspect", "--platform", "linux/s390x", &name])?;
    ensure!(gone.status == 1, "{gone:?}");
    ensure!(
        docker.ok(["image", "inspect", "-f", "{{.RepoTags}}", &Image::small("newer", "s390x")?.id()])?
            == "[]"
    );
    docker.ok(["rmi", &name])?;
    docker.ok(["rmi", "-f", &Image::small("newer", "amd64")?.id(), &Image::small("newer", "s390x")?.id()])?;
    Ok(())
}
