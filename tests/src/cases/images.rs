//! Images: load, import, list, inspect, tag, remove.

use std::ffi::OsStr;

use anyhow::{Result, ensure};

use crate::cases;
use crate::fixtures;
use crate::subject::{Case, Subject};

cases![
    load_names_what_it_loaded,
    load_of_a_tar_that_is_no_image_fails,
    a_tag_is_another_name,
    inspect_tells_the_config,
    list_filters_by_reference_and_label,
    import_makes_an_image_of_a_root_file_system,
    an_image_in_use_is_not_removed,
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
    ensure!(config == r#"["sh"] linux amd64"#, "{config}");
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
