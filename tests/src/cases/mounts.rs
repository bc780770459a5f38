//! What is mounted into containers: binds, tmpfs, their options and their refusals.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::subject::Subject;

cases![
    a_bind_is_what_it_is_of,
    a_bind_s_missing_source_is_made_for_the_short_form_only,
    read_only_is_all_the_way_down,
    a_mount_travels_to_a_slave,
    a_tmpfs_has_its_options,
    a_mount_covers_a_file,
    mounts_are_told,
    bad_mounts_are_refused,
    the_same_place_twice_is_refused,
    an_image_is_mounted_and_cannot_be_written,
    an_image_that_is_mounted_stays_as_it_is_whoever_mounts_it_anew,
    a_mounted_image_stays_as_long_as_its_container,
    image_mounts_are_refused_in_words,
];

/// Does something in the `/run` of the engine's host, which is `/host` for the script.
fn host(on: &dyn Subject, script: &str) -> Result<String> {
    on.docker().ok(["run", "--rm", "-v", "/run:/host", "busybox", "sh", "-c", script])
}

fn a_bind_is_what_it_is_of(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    host(on, "mkdir -p /host/bound && echo one > /host/bound/f && chmod 700 /host/bound")?;
    let script = "cat /b/f; echo two > /b/g; stat -c %a /b";
    let out = docker.ok(["run", "--rm", "-v", "/run/bound:/b", "busybox", "sh", "-c", script])?;
    ensure!(out == "one\n700", "{out}");
    ensure!(host(on, "cat /host/bound/g")? == "two");
    let out = docker.ok(["run", "--rm", "-v", "/run/bound/f:/etc/f", "busybox", "cat", "/etc/f"])?;
    ensure!(out == "one", "{out}");
    host(on, "rm -r /host/bound")?;
    Ok(())
}

fn a_bind_s_missing_source_is_made_for_the_short_form_only(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let mount = "type=bind,src=/run/missing/d,dst=/b";
    let answer = docker.run(["run", "--rm", "--mount", mount, "busybox", "true"])?;
    let told = "invalid mount config for type \"bind\": bind source path does not exist: /run/missing/d";
    ensure!(answer.status == 125 && answer.err.contains(told), "{answer:?}");
    docker.ok(["run", "--rm", "-v", "/run/missing/d:/b", "busybox", "touch", "/b/f"])?;
    let mount = json!({"Type": "bind", "Source": "/run/missing/e", "Target": "/b", "BindOptions": {"CreateMountpoint": true}});
    let body = json!({"Image": "busybox", "HostConfig": {"Mounts": [mount]}, "Cmd": ["true"]});
    let answer = on.api().post("/containers/create?name=missing", &body)?;
    ensure!(answer.status == 201, "{}", answer.json()?);
    docker.ok(["start", "-a", "missing"])?;
    docker.ok(["rm", "missing"])?;
    let left = host(on, "cd /host/missing && ls . d && rm -r /host/missing")?;
    ensure!(left == ".:\nd\ne\n\nd:\nf", "{left}");
    Ok(())
}

/// A tmpfs that is mounted on the engine's host while a container lives: that container, and where it is mounted.
fn mounted_on_host(on: &dyn Subject, name: &str, options: &str) -> Result<String> {
    let docker = on.docker();
    docker.ok([
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        &format!("o={options}"),
        name,
    ])?;
    docker.ok(["run", "-d", "--name", name, "-v", &format!("{name}:/m"), "busybox", "sleep", "1000"])?;
    docker.ok(["volume", "inspect", "-f", "{{.Mountpoint}}", name])
}

fn read_only_is_all_the_way_down(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let inner = mounted_on_host(on, "readonly", "size=1m")?;
    let outer = inner.strip_suffix("/_data").context("a volume's directory")?;
    let script = "touch /b/f 2>/dev/null && echo top; touch /b/_data/f 2>/dev/null && echo below; true";
    let touch = ["busybox", "sh", "-c", script];
    let written = |mount: &[&str]| docker.ok(["run", "--rm"].iter().chain(mount).chain(&touch));
    ensure!(written(&["-v", &format!("{outer}:/b")])? == "top\nbelow");
    ensure!(written(&["-v", &format!("{outer}:/b:ro")])?.is_empty());
    let long = |options: &str| format!("type=bind,src={outer},dst=/b,{options}");
    ensure!(written(&["--mount", &long("readonly,bind-recursive=writable")])? == "below");
    let answer =
        docker.run(["run", "--rm", "--mount", &long("bind-recursive=readonly"), "busybox", "true"])?;
    ensure!(answer.status != 0, "{answer:?}");
    let shallow = long("bind-recursive=disabled");
    let seen =
        docker.ok(["run", "--rm", "--mount", &shallow, "busybox", "grep", "-c", " /b", "/proc/mounts"])?;
    ensure!(seen == "1", "{seen}");
    docker.ok(["rm", "-f", "readonly"])?;
    docker.ok(["volume", "rm", "readonly"])?;
    Ok(())
}

fn a_mount_travels_to_a_slave(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let shared = mounted_on_host(on, "peers", "shared")?;
    docker.ok(["run", "--rm", "-v", &format!("{shared}:/p"), "busybox", "mkdir", "/p/in"])?;
    let look = "until grep ' /p/in ' /proc/mounts; do :; done";
    let volume = format!("{shared}:/p:rslave");
    let slave = ["run", "-d", "--name", "slave", "-v", &volume, "busybox", "timeout", "60", "sh", "-c", look];
    docker.ok(slave)?;
    let volume = format!("{shared}:/p:rshared");
    docker.ok([
        "run",
        "--rm",
        "--privileged",
        "-v",
        &volume,
        "busybox",
        "mount",
        "-t",
        "tmpfs",
        "inner",
        "/p/in",
    ])?;
    ensure!(docker.ok(["wait", "slave"])? == "0", "the mount did not travel");
    docker.ok(["run", "--rm", "--privileged", "-v", &volume, "busybox", "umount", "/p/in"])?;
    docker.ok(["rm", "slave"])?;
    docker.ok(["rm", "-f", "peers"])?;
    docker.ok(["volume", "rm", "peers"])?;
    let answer =
        docker.run(["run", "--rm", "--name", "unshared", "-v", "/proc:/p:shared", "busybox", "true"])?;
    docker.run(["rm", "-f", "unshared"])?;
    let told = "path /proc is mounted on /proc but it is not a shared mount";
    ensure!(answer.err.contains(told), "{answer:?}");
    Ok(())
}

fn a_tmpfs_has_its_options(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let look = ["busybox", "grep", " /t ", "/proc/mounts"];
    let seen = |mount: &[&str]| docker.ok(["run", "--rm"].iter().chain(mount).chain(&look));
    let plain = seen(&["--tmpfs", "/t"])?;
    for option in ["rw", "nosuid", "nodev", "noexec"] {
        ensure!(plain.contains(option), "{plain}");
    }
    let asked = seen(&["--tmpfs", "/t:size=2m,exec,mode=1700"])?;
    ensure!(
        asked.contains("size=2048k") && asked.contains("mode=1700") && !asked.contains("noexec"),
        "{asked}"
    );
    let long = seen(&["--mount", "type=tmpfs,dst=/t,tmpfs-size=3m,tmpfs-mode=0711,ro"])?;
    ensure!(long.contains("size=3072k") && long.contains("mode=711") && long.contains("tmpfs ro,"), "{long}");
    Ok(())
}

fn a_mount_covers_a_file(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let answer = docker.run(["run", "--rm", "-v", "/etc/passwd", "busybox", "true"])?;
    ensure!(
        answer.status == 125 && answer.err.contains("cannot mount volume over existing file, file exists"),
        "{answer:?}"
    );
    Ok(())
}

fn mounts_are_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "create",
        "--name",
        "told",
        "-v",
        "/tmp:/a:ro,rslave",
        "--mount",
        "type=tmpfs,dst=/b",
        "-v",
        "told:/c:nocopy",
        "-v",
        "/d",
        "--mount",
        "type=volume,src=told,dst=/e,ro",
        "--tmpfs",
        "/f",
        "busybox",
    ])?;
    let text = docker.ok(["inspect", "-f", "{{json .Mounts}}", "told"])?;
    let Value::Array(mut mounts) = serde_json::from_str(&text)? else { anyhow::bail!("{text}") };
    mounts.sort_by_key(|mount| mount["Destination"].to_string());
    for mount in &mut mounts {
        let fields = mount.as_object_mut().context("an object")?;
        if fields["Type"] == "volume" {
            fields.remove("Source");
        }
        if fields["Destination"] == "/d" {
            fields.remove("Name");
        }
    }
    let wanted = json!([
        {"Type": "bind", "Source": "/tmp", "Destination": "/a", "Mode": "ro,rslave", "RW": false, "Propagation": "rslave"},
        {"Type": "tmpfs", "Source": "", "Destination": "/b", "Mode": "", "RW": true, "Propagation": ""},
        {"Type": "volume", "Name": "told", "Destination": "/c", "Driver": "local", "Mode": "nocopy", "RW": true, "Propagation": ""},
        {"Type": "volume", "Destination": "/d", "Driver": "local", "Mode": "", "RW": true, "Propagation": ""},
        {"Type": "volume", "Name": "told", "Destination": "/e", "Driver": "local", "Mode": "z", "RW": false, "Propagation": ""},
    ]);
    ensure!(Value::Array(mounts.clone()) == wanted, "{:#}", Value::Array(mounts));
    docker.ok(["rm", "-v", "told"])?;
    docker.ok(["volume", "rm", "told"])?;
    Ok(())
}

fn bad_mounts_are_refused(on: &dyn Subject) -> Result<()> {
    for (host, status, told) in [
        (
            json!({"Binds": ["/tmp:rel"]}),
            500,
            "invalid volume specification: '/tmp:rel': invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
        ),
        (json!({"Binds": ["/tmp:/x:zz"]}), 500, "invalid mode: zz"),
        (json!({"Binds": ["/tmp:/x:ro,rw"]}), 500, "invalid mode: ro,rw"),
        (
            json!({"Binds": ["a b:/x"]}),
            400,
            "create a b: \"a b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
        ),
        (json!({"VolumesFrom": ["x:zz"]}), 400, "invalid mode: zz"),
        (
            json!({"Mounts": [{"Type": "volume", "Target": "/"}]}),
            400,
            "invalid mount config for type \"volume\": invalid specification: destination can't be '/'",
        ),
        (
            json!({"Mounts": [{"Type": "nope", "Target": "/x"}]}),
            400,
            "invalid mount config for type \"nope\": mount type unknown",
        ),
        (
            json!({"Mounts": [{"Type": "tmpfs", "Source": "a", "Target": "/x"}]}),
            400,
            "invalid mount config for type \"tmpfs\": field Source must not be specified",
        ),
    ] {
        let answer = on.api().post("/containers/create", &json!({"Image": "busybox", "HostConfig": host}))?;
        ensure!(
            (answer.status, answer.json()?["message"].as_str()) == (status, Some(told)),
            "{host}: {} {}",
            answer.status,
            answer.json()?
        );
    }
    Ok(())
}

fn the_same_place_twice_is_refused(on: &dyn Subject) -> Result<()> {
    for host in [
        json!({"Binds": ["/tmp:/x", "/var:/x"]}),
        json!({"Binds": ["/tmp:/x"], "Mounts": [{"Type": "tmpfs", "Target": "/x"}]}),
        json!({"Binds": ["/tmp:/x"], "Tmpfs": {"/x": ""}}),
    ] {
        let answer = on.api().post("/containers/create", &json!({"Image": "busybox", "HostConfig": host}))?;
        ensure!(
            (answer.status, answer.json()?["message"].as_str()) == (400, Some("Duplicate mount point: /x")),
            "{host}: {} {}",
            answer.status,
            answer.json()?
        );
    }
    Ok(())
}

/// An image of two layers, of which the second changes what is in the first.
fn make_layered(on: &dyn Subject, name: &str) -> Result<()> {
    let docker = on.docker();
    let maker = format!("{name}-maker");
    docker.ok([
        "run",
        "--name",
        &maker,
        "busybox",
        "sh",
        "-c",
        "mkdir /more; echo two > /more/file; rm /etc/group",
    ])?;
    docker.ok(["commit", &maker, name])?;
    docker.ok(["rm", &maker])?;
    Ok(())
}

fn an_image_is_mounted_and_cannot_be_written(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    make_layered(on, "mounted-image")?;
    let script = "cat /i/more/file; ls /i/etc/group /one/bin/busybox; touch /i/x; touch /one/x; true";
    let name = "mounts-images";
    let (layered, single) =
        ("type=image,source=mounted-image,target=/i", "type=image,source=busybox,target=/one");
    let answer = docker
        .run(["run", "--name", name, "--mount", layered, "--mount", single, "busybox", "sh", "-c", script])?;
    ensure!(answer.out == "two\n/one/bin/busybox\n", "{answer:?}");
    for words in [
        "/i/etc/group: No such file",
        "touch: /i/x: Read-only file system",
        "touch: /one/x: Read-only file system",
    ] {
        ensure!(answer.err.contains(words), "{words}: {}", answer.err);
    }
    let format = "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}} {{.Mode}};{{end}}";
    let told = docker.ok(["inspect", "-f", format, name])?;
    ensure!(
        told.contains("image mounted-image /i false ;") && told.contains("image busybox /one false ;"),
        "{told}"
    );
    ensure!(docker.ok(["start", "-a", name])?.starts_with("two\n"), "it starts again");
    // A container that does not run shows them, too.
    ensure!(docker.ok(["cp", &format!("{name}:/i/more/file"), "-"])?.contains("two"));
    docker.ok(["rm", name])?;
    for (part, path) in [("more", "/part/file"), ("more/file", "/part")] {
        let mount = format!("type=image,source=mounted-image,target=/part,image-subpath={part}");
        let out = docker.ok(["run", "--rm", "--mount", &mount, "busybox", "cat", path])?;
        ensure!(out == "two", "{part}: {out}");
    }
    let nowhere = "type=image,source=mounted-image,target=/part,image-subpath=nowhere";
    let answer = docker.run(["run", "--rm", "--mount", nowhere, "busybox", "true"])?;
    ensure!(
        matches!(answer.status, 125..=127) && answer.err.to_lowercase().contains("no such file or directory"),
        "{answer:?}"
    );
    docker.ok(["rmi", "mounted-image"])?;
    Ok(())
}

/// Of one layer, and of two: who may mount makes the mount writable, and yet no other container sees what is written there.
fn an_image_that_is_mounted_stays_as_it_is_whoever_mounts_it_anew(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    make_layered(on, "remounted-image")?;
    for image in ["busybox", "remounted-image"] {
        let mount = format!("type=image,source={image},target=/i");
        let script = "mount -o remount,rw,bind /i && echo remounted; echo evil > /i/written; echo evil >> /i/etc/passwd; true";
        let rights = ["run", "--rm", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"];
        let answer =
            docker.run([&rights[..], &["--mount", &mount, "busybox", "sh", "-c", script]].concat())?;
        ensure!(answer.out == "remounted\n", "{image}: {answer:?}");
        let script = "ls /i/written /written; grep evil /i/etc/passwd /etc/passwd; true";
        let out = docker.ok(["run", "--rm", "--mount", &mount, image, "sh", "-c", script])?;
        ensure!(out.is_empty(), "{image}: {out}");
    }
    docker.ok(["rmi", "remounted-image"])?;
    Ok(())
}

fn a_mounted_image_stays_as_long_as_its_container(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    make_layered(on, "held-image")?;
    let name = "holds-image";
    docker.ok([
        "create",
        "--name",
        name,
        "--mount",
        "type=image,source=held-image,target=/i",
        "busybox",
        "cat",
        "/i/more/file",
    ])?;
    let refused = docker.run(["rmi", "held-image"])?;
    ensure!(
        refused.err.contains("conflict: unable to remove repository reference \"held-image\" (must force)"),
        "{refused:?}"
    );
    ensure!(docker.ok(["start", "-a", name])? == "two");
    docker.ok(["rm", name])?;
    docker.ok(["rmi", "held-image"])?;
    Ok(())
}

fn image_mounts_are_refused_in_words(on: &dyn Subject) -> Result<()> {
    let create = |version: &str, mount: Value| {
        let wish = json!({"Image": "busybox", "HostConfig": {"Mounts": [mount]}});
        let answer = on.api().post(&format!("{version}/containers/create"), &wish)?;
        anyhow::Ok((answer.status, answer.json()?["message"].as_str().unwrap_or_default().to_owned()))
    };
    for (version, mount, status, words) in [
        (
            "",
            json!({"Type": "image", "Source": "no-such", "Target": "/x"}),
            404,
            "No such image: no-such:latest",
        ),
        (
            "",
            json!({"Type": "image", "Target": "/x"}),
            400,
            "invalid mount config for type \"image\": field Source must not be empty",
        ),
        (
            "/v1.47",
            json!({"Type": "image", "Source": "busybox", "Target": "/x"}),
            400,
            "Mount type \"Image\" needs API v1.48 or newer",
        ),
        (
            "",
            json!({"Type": "image", "Source": "busybox", "Target": "/x", "VolumeOptions": {}}),
            400,
            "VolumeOptions must not be specified on mount type \"image\"",
        ),
        (
            "/v1.44",
            json!({"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}),
            400,
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
    ] {
        let told = create(version, mount)?;
        ensure!(told == (status, words.to_owned()), "{words}: {told:?}");
    }
    Ok(())
}
