//! Images: load, import, list, inspect, tag, remove.

use std::ffi::OsStr;

use anyhow::{Result, ensure};

use crate::cases;
use crate::fixtures;
use crate::registry_data::ARCHITECTURE;
use crate::subject::{Case, Subject};

cases![
    the_same_layer_twice_runs,
    load_names_what_it_loaded,
    load_of_a_tar_that_is_no_image_fails,
    a_tag_is_another_name,
    inspect_tells_the_config,
    list_filters_by_reference_and_label,
    import_makes_an_image_of_a_root_file_system,
    an_image_in_use_is_not_removed,
    a_prune_takes_what_nothing_uses,
    history_tells_each_step,
];

fn load_names_what_it_loaded(on: &dyn Subject) -> Result<()> {
    let archive = fixtures::images()?.join("hello-world.tar");
    let out = on.docker().ok([OsStr::new("load"), OsStr::new("-i"), archive.as_os_str()])?;
    ensure!(out.ends_with("Loaded image: hello-world:latest"), "{out}");
    Ok(())
}

/// What the reference cannot do with its classic image store.
pub const OURS: &[Case] = &[Case { name: "load_takes_an_oci_layout", run: load_takes_an_oci_layout }];

fn load_takes_an_oci_layout(on: &dyn Subject) -> Result<()> {
    let archive = fixtures::images()?.join("busybox-oci.tar");
    let out = on.docker().ok([OsStr::new("load"), OsStr::new("-i"), archive.as_os_str()])?;
    ensure!(out.contains("Loaded image"), "{out}");
    Ok(())
}

fn load_of_a_tar_that_is_no_image_fails(on: &dyn Subject) -> Result<()> {
    let before = on.docker().ok(["images", "-aq"])?;
    let answer = on.docker().feed(["load"], b"this is no tar")?;
    ensure!(answer.status == 1 && !answer.err.is_empty(), "{answer:?}");
    ensure!(on.docker().ok(["images", "-aq"])?.lines().count() >= before.lines().count());
    Ok(())
}

fn a_tag_is_another_name(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["tag", "busybox", "tagged/again:v1"])?;
    let id = docker.ok(["image", "inspect", "-f", "{{.Id}}", "busybox"])?;
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", "tagged/again:v1"])? == id);
    ensure!(docker.ok(["rmi", "tagged/again:v1"])? == "Untagged: tagged/again:v1");
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", "busybox"])? == id);
    Ok(())
}

fn inspect_tells_the_config(on: &dyn Subject) -> Result<()> {
    let config = on.docker().ok([
        "image",
        "inspect",
        "-f",
        "{{json .Config.Cmd}} {{.Os}} {{.Architecture}}",
        "busybox",
    ])?;
    ensure!(config == format!(r#"["sh"] linux {ARCHITECTURE}"#), "{config}");
    Ok(())
}

fn list_filters_by_reference_and_label(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["tag", "busybox", "filtered/one:a"])?;
    let listed =
        docker.ok(["images", "--filter", "reference=filtered/*", "--format", "{{.Repository}}:{{.Tag}}"])?;
    ensure!(listed == "filtered/one:a", "{listed}");
    ensure!(docker.ok(["images", "-q", "--filter", "label=no.such.label"])?.is_empty());
    docker.ok(["rmi", "filtered/one:a"])?;
    Ok(())
}

fn import_makes_an_image_of_a_root_file_system(on: &dyn Subject) -> Result<()> {
    let root = fixtures::root_archive()?;
    let id = on.docker().feed(["import", "--change", "CMD [\"/hello\"]", "-", "imported:v1"], &root)?.ok()?;
    ensure!(id.starts_with("sha256:"), "{id}");
    let out = on.docker().ok([
        "image",
        "inspect",
        "-f",
        "{{json .Config.Cmd}} {{len .RootFS.Layers}}",
        "imported:v1",
    ])?;
    ensure!(out == r#"["/hello"] 1"#, "{out}");
    on.docker().ok(["rmi", "imported:v1"])?;
    Ok(())
}

fn an_image_in_use_is_not_removed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.feed(["import", "-", "used:v1"], &fixtures::root_archive()?)?.ok()?;
    let id = docker.ok(["create", "--name", "uses-image", "used:v1", "/hello"])?;
    let answer = docker.run(["rmi", "used:v1"])?;
    ensure!(answer.status == 1, "{answer:?}");
    let told = format!(
        "unable to remove repository reference \"used:v1\" (must force) - container {} is using its referenced image",
        &id[..12]
    );
    ensure!(answer.err.contains(&told), "{}", answer.err);
    docker.ok(["rm", "uses-image"])?;
    docker.ok(["rmi", "used:v1"])?;
    Ok(())
}

/// Labels keep other cases' images out of it.
fn a_prune_takes_what_nothing_uses(on: &dyn Subject) -> Result<()> {
    let (docker, root) = (on.docker(), fixtures::root_archive()?);
    let import = |label: &str, name: &str| {
        docker.feed(["import", "--change", &format!("LABEL pruned={label}"), "-", name], &root)?.ok()
    };
    let nameless = import("one", "pruned:v1")?;
    let named = import("two", "pruned:v1")?;
    let prune = |args: &[&str]| {
        let fixed = ["image", "prune", "--force", "--filter", "label=pruned"];
        docker.ok(fixed.iter().chain(args).copied().collect::<Vec<_>>())
    };
    ensure!(!prune(&["--filter", "until=1h"])?.contains("deleted"), "what is new was pruned");
    let pruned = prune(&[])?;
    ensure!(pruned.contains(&format!("deleted: {nameless}")) && !pruned.contains(&named), "{pruned}");
    docker.ok(["create", "--name", "spares-image", &named, "/hello"])?;
    ensure!(!prune(&["--all"])?.contains("deleted"), "what is in use was pruned");
    docker.ok(["rm", "spares-image"])?;
    let pruned = prune(&["--all"])?;
    ensure!(
        pruned.contains("untagged: pruned:v1") && pruned.contains(&format!("deleted: {named}")),
        "{pruned}"
    );
    ensure!(pruned.contains("Total reclaimed space: 6B"), "{pruned}");
    Ok(())
}

fn history_tells_each_step(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let history = ["history", "--format", "{{.CreatedBy}} {{.Size}}", "busybox"];
    ensure!(docker.ok(history)?.starts_with("make-images "));
    let id = docker.ok(["image", "inspect", "-f", "{{.Id}}", "busybox"])?;
    ensure!(docker.ok(["history", "--no-trunc", "-q", "busybox"])? == id);
    let none = docker.run(["history", "no-such-image"])?;
    ensure!(none.status == 1 && none.err.contains("No such image: no-such-image:latest"), "{none:?}");
    Ok(())
}

/// Two steps of a build that do the same make the same layer.
fn the_same_layer_twice_runs(on: &dyn Subject) -> Result<()> {
    let archive = doubled(&std::fs::read(fixtures::images()?.join("busybox.tar"))?)?;
    on.docker().feed(["load"], &archive)?.ok()?;
    let layers = on.docker().ok(["image", "inspect", "-f", "{{len .RootFS.Layers}}", "doubled"])?;
    ensure!(layers == "2", "{layers}");
    ensure!(on.docker().ok(["run", "--rm", "doubled", "echo", "runs"])? == "runs");
    on.docker().ok(["rmi", "doubled"]).map(drop)
}

/// The archive of an image, with each layer twice and under another name.
fn doubled(archive: &[u8]) -> Result<Vec<u8>> {
    let mut doubled = tar::Builder::new(Vec::new());
    let mut read = tar::Archive::new(archive);
    for entry in read.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content)?;
        if name.ends_with(".json") {
            let mut value: serde_json::Value = serde_json::from_slice(&content)?;
            if name == "manifest.json" {
                value[0]["RepoTags"] = serde_json::json!(["doubled:latest"]);
                double(&mut value[0]["Layers"]);
            } else {
                double(&mut value["rootfs"]["diff_ids"]);
                double(&mut value["history"]);
            }
            content = value.to_string().into_bytes();
        }
        if !name.is_empty() && entry.header().entry_type().is_file() {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            doubled.append_data(&mut header, &name, &content[..])?;
        }
    }
    Ok(doubled.into_inner()?)
}

fn double(list: &mut serde_json::Value) {
    if let Some(list) = list.as_array_mut() {
        list.extend(list.clone());
    }
}
