//! `docker cp` both ways, `diff` and `export`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use hyper::Method;
use serde_json::{Value, json};

use crate::bounded::{Bounded, until};
use crate::cases;
use crate::fixtures;
use crate::subject::Subject;

cases![
    files_come_out_of_a_container_whether_it_runs_or_not,
    files_go_into_a_container_whether_it_runs_or_not,
    copies_reach_volumes,
    links_are_followed_inside_the_container_only,
    what_may_not_be_written_is_refused,
    copies_belong_to_whom_they_should,
    a_directory_is_not_replaced_by_a_file_if_asked,
    what_is_at_a_path_is_told,
    archives_come_in_every_compression,
    changes_are_told,
    export_has_the_whole_file_system_without_mounts,
];

/// Returns when a container has made a file.
pub fn wait_for_file(on: &dyn Subject, container: &str, path: &str) -> Result<()> {
    let asked = format!("/containers/{container}/archive?path={path}");
    until(&format!("{path} in {container}"), || Ok((on.api().get(&asked)?.status == 200).then_some(())))
}

/// The members of an archive: what each is, its mode, its owner, and what is in it or where it leads.
fn members(archive: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let header = entry.header().clone();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        let kind = header.entry_type();
        let (mode, owner) = (header.mode()? & 0o7777, (header.uid()?, header.gid()?));
        let target = entry.link_name()?.map(|path| path.display().to_string()).unwrap_or_default();
        let told = format!("{kind:?} {mode:o} {owner:?} {text:?} {target}");
        members.insert(String::from_utf8(entry.path_bytes().into_owned())?, told);
    }
    Ok(members)
}

fn fetch(on: &dyn Subject, container: &str, path: &str) -> Result<Vec<u8>> {
    let answer = on.api().get(&format!("/containers/{container}/archive?path={path}"))?;
    ensure!(answer.status == 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    Ok(answer.body)
}

/// An archive of files and directories, each a name (a slash at its end for a directory) and what is in it.
fn archive(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o640 });
        header.set_uid(11);
        header.set_gid(12);
        header.set_size(text.len() as u64);
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    Ok(archive.into_inner()?)
}

fn put(on: &dyn Subject, container: &str, path: &str, more: &str, body: Vec<u8>) -> Result<(u16, String)> {
    let path = format!("/containers/{container}/archive?path={path}{more}");
    let answer = on.api().call(Method::PUT, &path, &[("content-type", "application/x-tar")], body)?;
    let message = answer.json()?["message"].as_str().unwrap_or_default().to_owned();
    Ok((answer.status, message))
}

const MAKE: &str = "mkdir -p /srv/d/e && echo one > /srv/d/f && chmod 640 /srv/d/f && chown 5:6 /srv/d/f \
     && ln -s ../f /srv/d/e/l && ln /srv/d/f /srv/d/h && mkfifo /srv/d/p";

fn files_come_out_of_a_container_whether_it_runs_or_not(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "--name", "cp-out", "busybox", "sh", "-c", MAKE])?;
    let look = || -> Result<Value> {
        Ok(json!({
            "directory": members(&fetch(on, "cp-out", "/srv/d")?)?,
            "contents": members(&fetch(on, "cp-out", "/srv/d/.")?)?.keys().collect::<Vec<_>>(),
            "file": members(&fetch(on, "cp-out", "srv/d/f")?)?,
            "link": members(&fetch(on, "cp-out", "/srv/d/e/l")?)?,
        }))
    };
    let stopped = look()?;
    let wanted = json!({
        "directory": {
            "d/": "Directory 755 (0, 0) \"\" ",
            "d/e/": "Directory 755 (0, 0) \"\" ",
            "d/e/l": "Symlink 777 (0, 0) \"\" ../f",
            "d/f": "Regular 640 (5, 6) \"one\\n\" ",
            "d/h": "Link 640 (5, 6) \"\" d/f",
            "d/p": "Fifo 644 (0, 0) \"\" ",
        },
        "contents": ["./", "./e/", "./e/l", "./f", "./h", "./p"],
        "file": {"f": "Regular 640 (5, 6) \"one\\n\" "},
        "link": {"l": "Symlink 777 (0, 0) \"\" ../f"},
    });
    ensure!(stopped == wanted, "{stopped:#}");
    docker.ok(["rm", "cp-out"])?;
    let run = format!("{MAKE} && touch /ready && exec sleep 1000");
    docker.ok(["run", "-d", "--name", "cp-out", "busybox", "sh", "-c", &run])?;
    wait_for_file(on, "cp-out", "/ready")?;
    let running = look()?;
    ensure!(running == wanted, "{running:#}");
    let answer = on.api().get("/containers/cp-out/archive?path=/none")?;
    let told = "Could not find the file /none in container cp-out";
    ensure!(answer.status == 404 && answer.json()?["message"] == told, "{}", answer.json()?);
    docker.ok(["rm", "-f", "cp-out"])?;
    Ok(())
}

fn files_go_into_a_container_whether_it_runs_or_not(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let files = archive(&[("new/", ""), ("new/a", "one"), ("b", "two")])?;
    docker.ok([
        "create",
        "--name",
        "cp-in",
        "busybox",
        "sh",
        "-c",
        "cat /srv/new/a /srv/b; stat -c '%a %u:%g' /srv/b",
    ])?;
    ensure!(put(on, "cp-in", "/", "", archive(&[("srv/", "")])?)? == (200, String::new()));
    ensure!(put(on, "cp-in", "/srv", "", files.clone())? == (200, String::new()));
    let out = docker.ok(["start", "-a", "cp-in"])?;
    ensure!(out == "onetwo640 11:12", "{out}");
    docker.ok(["rm", "cp-in"])?;
    let script = "mkdir /srv; until [ -e /srv/b ]; do :; done; cat /srv/new/a /srv/b";
    docker.ok(["run", "-d", "--name", "cp-in", "busybox", "timeout", "60", "sh", "-c", script])?;
    wait_for_file(on, "cp-in", "/srv")?;
    ensure!(put(on, "cp-in", "/srv", "", files)? == (200, String::new()));
    ensure!(docker.ok(["wait", "cp-in"])? == "0");
    ensure!(docker.ok(["logs", "cp-in"])? == "onetwo");
    ensure!(put(on, "cp-in", "/none", "", archive(&[])?)?.0 == 404);
    let not = (400, "extraction point is not a directory".to_owned());
    ensure!(put(on, "cp-in", "/srv/b", "", archive(&[("x", "")])?)? == not);
    // By the CLI, as people do it.
    docker.ok(["rm", "cp-in"])?;
    docker.ok(["create", "--name", "cp-in", "busybox", "cat", "/etc/motd"])?;
    docker.feed(["cp", "-", "cp-in:/etc"], &archive(&[("motd", "hello")])?)?.ok()?;
    ensure!(docker.ok(["start", "-a", "cp-in"])? == "hello");
    docker.ok(["rm", "cp-in"])?;
    Ok(())
}

fn copies_reach_volumes(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "cp-vol", "-v", "cp-vol:/v", "busybox"])?;
    ensure!(put(on, "cp-vol", "/v", "", archive(&[("f", "kept")])?)?.0 == 200);
    ensure!(docker.ok(["run", "--rm", "-v", "cp-vol:/v", "busybox", "cat", "/v/f"])? == "kept");
    ensure!(members(&fetch(on, "cp-vol", "/v")?)?.contains_key("v/f"));
    docker.ok(["rm", "cp-vol"])?;
    docker.ok(["run", "-d", "--name", "cp-vol", "-v", "cp-vol:/v", "busybox", "sleep", "1000"])?;
    ensure!(put(on, "cp-vol", "/v", "", archive(&[("g", "too")])?)?.0 == 200);
    ensure!(docker.ok(["run", "--rm", "-v", "cp-vol:/v", "busybox", "cat", "/v/g"])? == "too");
    docker.ok(["rm", "-f", "cp-vol"])?;
    docker.ok(["volume", "rm", "cp-vol"])?;
    Ok(())
}

fn links_are_followed_inside_the_container_only(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "mkdir -p /real/d && ln -s /real /abs && ln -s ../../../../real /up && echo own > /real/hostname \
         && ln -s /etc/nowhere /gone && rm -f /etc/secret && ln -s / /root-link";
    docker.ok(["run", "--name", "cp-link", "busybox", "sh", "-c", script])?;
    for link in ["abs", "up", "root-link/real"] {
        ensure!(put(on, "cp-link", &format!("/{link}"), "", archive(&[("d/f", link)])?)?.0 == 200);
        let found = members(&fetch(on, "cp-link", &format!("/{link}/d/f"))?)?;
        ensure!(found["f"].contains(link), "{found:?}");
        ensure!(members(&fetch(on, "cp-link", "/real/d")?)?.contains_key("d/f"));
    }
    // A link in the archive is no way out either.
    let mut trap = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    trap.append_link(&mut link, "trap", "/real")?;
    let mut file = tar::Header::new_ustar();
    file.set_size(2);
    file.set_mode(0o644);
    trap.append_data(&mut file, "trap/in", &b"in"[..])?;
    put(on, "cp-link", "/", "", trap.into_inner()?)?;
    ensure!(members(&fetch(on, "cp-link", "/real/in")?)?.contains_key("in"), "it went elsewhere");
    docker.ok(["rm", "cp-link"])?;
    Ok(())
}

fn what_may_not_be_written_is_refused(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "create",
        "--name",
        "cp-ro",
        "--read-only",
        "-v",
        "cp-ro:/rw",
        "-v",
        "/run:/ro:ro",
        "busybox",
    ])?;
    let file = || archive(&[("f", "x")]);
    let refused = put(on, "cp-ro", "/etc", "", file()?)?;
    ensure!(refused == (400, "container rootfs is marked read-only".into()), "{refused:?}");
    let refused = put(on, "cp-ro", "/ro", "", file()?)?;
    ensure!(refused == (400, "mounted volume is marked read-only".into()), "{refused:?}");
    ensure!(put(on, "cp-ro", "/rw", "", file()?)?.0 == 200);
    docker.ok(["rm", "cp-ro"])?;
    docker.ok(["volume", "rm", "cp-ro"])?;
    Ok(())
}

fn copies_belong_to_whom_they_should(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "cp-own", "--user", "77:78", "busybox"])?;
    for (more, owner) in [("", "(11, 12)"), ("&copyUIDGID=1", "(77, 78)")] {
        ensure!(put(on, "cp-own", "/etc", more, archive(&[("owned", "x")])?)?.0 == 200);
        let found = members(&fetch(on, "cp-own", "/etc/owned")?)?;
        ensure!(found["owned"].contains(owner), "{found:?}");
    }
    docker.ok(["rm", "cp-own"])?;
    Ok(())
}

fn a_directory_is_not_replaced_by_a_file_if_asked(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "cp-kind", "busybox"])?;
    ensure!(put(on, "cp-kind", "/", "", archive(&[("d/", ""), ("d/in", "x"), ("f", "x")])?)?.0 == 200);
    for (file, there, new) in [("d", "directory", "non-directory"), ("f/", "non-directory", "directory")] {
        let (status, told) = put(on, "cp-kind", "/", "&noOverwriteDirNonDir=1", archive(&[(file, "")])?)?;
        ensure!(
            status == 500 && told.starts_with(&format!("cannot overwrite {there} ")) && told.contains(new),
            "{told}"
        );
    }
    ensure!(put(on, "cp-kind", "/", "", archive(&[("d", "now a file")])?)?.0 == 200);
    ensure!(members(&fetch(on, "cp-kind", "/d")?)?["d"].contains("now a file"));
    docker.ok(["rm", "cp-kind"])?;
    Ok(())
}

fn what_is_at_a_path_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "mkdir /d && chmod 3771 /d && echo abc > /d/f && chmod 4755 /d/f && ln -s d/f /l && ln -s /none/x /gone \
         && touch -d '2020-01-02 03:04:05' /d/f /d";
    docker.ok(["run", "--name", "cp-stat", "busybox", "sh", "-c", script])?;
    for (path, name, size, mode, target) in [
        ("/d/f", "f", Some(4), 0o755_u32 | 1 << 23, ""),
        ("/d", "d", None, 0o771_u32 | 1 << 31 | 1 << 22 | 1 << 20, ""),
        ("d/", "d", None, 0o771_u32 | 1 << 31 | 1 << 22 | 1 << 20, ""),
        ("/l", "l", Some(3), 0o777_u32 | 1 << 27, "/d/f"),
        ("/gone", "gone", Some(7), 0o777_u32 | 1 << 27, "/none/x"),
    ] {
        let answer = on.api().call(
            Method::HEAD,
            &format!("/containers/cp-stat/archive?path={path}"),
            &[],
            Vec::new(),
        )?;
        let header = answer.headers.get("x-docker-container-path-stat").context("no header")?;
        let stat: Value = serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(header)?)?;
        ensure!(
            stat["name"] == name && stat["mode"] == mode && stat["linkTarget"] == target,
            "{path}: {stat}"
        );
        ensure!(size.is_none_or(|size| stat["size"] == size), "{path}: {stat}");
        if path.contains('d') {
            ensure!(stat["mtime"] == "2020-01-02T03:04:05Z", "{path}: {stat}");
        }
    }
    docker.ok(["rm", "cp-stat"])?;
    Ok(())
}

/// To `import`, `load` and `cp`, by the programs that people compress with.
fn archives_come_in_every_compression(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let folder = tempfile::tempdir_in(fixtures::scratch()?)?;
    let [root, saved] = ["root.tar", "saved.tar"].map(|name| folder.path().join(name));
    std::fs::write(&root, archive(&[("told", "inside")])?)?;
    docker.ok(["tag", "busybox", "compressed:saved"])?;
    docker.ok(["save", "-o", saved.to_str().context("a path that is no text")?, "compressed:saved"])?;
    docker.ok(["create", "--name", "compressed", "busybox"])?;
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let packed = |file: &Path| -> Result<Vec<u8>> {
            let output = std::process::Command::new(program).arg("-c").arg(file).in_time()?;
            ensure!(output.status.success(), "{program}: {output:?}");
            Ok(output.stdout)
        };
        let small = packed(&root)?;
        let image = format!("compressed:{program}");
        ensure!(docker.feed(["import", "-", &image], &small)?.status == 0, "import of {program}");
        docker.ok(["rmi", &image])?;
        docker.ok(["rmi", "compressed:saved"])?;
        let loaded = docker.feed(["load"], &packed(&saved)?)?.ok()?;
        ensure!(loaded.contains("compressed:saved"), "load of {program}: {loaded}");
        ensure!(docker.feed(["cp", "-", "compressed:/tmp"], &small)?.status == 0, "cp of {program}");
        ensure!(members(&fetch(on, "compressed", "/tmp/told")?)?["told"].contains("inside"), "{program}");
    }
    docker.ok(["rm", "compressed"])?;
    docker.ok(["rmi", "compressed:saved"])?;
    Ok(())
}

fn changes_are_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "--name",
        "diff-base",
        "busybox",
        "sh",
        "-c",
        "mkdir -p /base/d /base/x/y && echo 1 > /base/d/f && echo 2 > /base/d/g && echo 3 > /base/x/y/z",
    ])?;
    let base = docker.command(["export", "diff-base"])?.in_time()?.stdout;
    docker.feed(["import", "-", "diff-base:1"], &base)?.ok()?;
    let script = "mkdir /new && touch /new/n && rm /base/d/f && echo 22 >> /base/d/g && rm -r /base/x && mkdir /base/x && touch /base/x/o && chmod 700 /base && cat /base/d/g >> /base/d/g2";
    docker.ok(["run", "--name", "diff", "-v", "/vol", "diff-base:1", "/bin/sh", "-c", script])?;
    let mut lines: Vec<String> = docker.ok(["diff", "diff"])?.lines().map(str::to_owned).collect();
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    let wanted = [
        "C /base",
        "C /base/d",
        "D /base/d/f",
        "C /base/d/g",
        "A /base/d/g2",
        "C /base/x",
        "A /base/x/o",
        "D /base/x/y",
        "A /new",
        "A /new/n",
        "A /vol",
    ];
    ensure!(lines == wanted, "{lines:?}");
    docker.ok(["create", "--name", "diff-none", "busybox"])?;
    ensure!(on.api().get("/containers/diff-none/changes")?.json()? == Value::Null);
    docker.ok(["rm", "-v", "diff", "diff-base", "diff-none"])?;
    docker.ok(["rmi", "diff-base:1"])?;
    Ok(())
}

fn export_has_the_whole_file_system_without_mounts(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "echo mine > /mine; touch /v/in /t/in /ready; exec sleep 1000";
    docker
        .ok(["run", "-d", "--name", "export", "-v", "/v", "--tmpfs", "/t", "busybox", "sh", "-c", script])?;
    wait_for_file(on, "export", "/ready")?;
    let export = || -> Result<Vec<String>> {
        let answer = on.api().get("/containers/export/export")?;
        let mut archive = tar::Archive::new(answer.body.as_slice());
        let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            Ok(String::from_utf8(entry?.path_bytes().into_owned())?)
        };
        archive.entries()?.map(name).collect()
    };
    let running = export()?;
    docker.ok(["kill", "export"])?;
    docker.ok(["wait", "export"])?;
    let stopped = export()?;
    for names in [running, stopped] {
        let has = |name: &str| names.iter().any(|other| other == name);
        ensure!(has("mine") && has("bin/busybox") && has("v/") && has("t/"), "{names:?}");
        ensure!(!has("v/in") && !has("t/in") && !has("proc/self"), "{names:?}");
    }
    docker.ok(["rm", "-v", "export"])?;
    Ok(())
}
