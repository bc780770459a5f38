//! Volumes that take what the machine's kernel and its data disk have: sizes, and the folders of file servers.

mod servers;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::Bounded;
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;

use self::servers::{PASSWORD, SHARE, Server, USER, free_port};
use crate::egress::HOST;

machine_cases![
    a_volume_stops_growing_at_its_size,
    a_size_goes_with_its_volume,
    a_size_goes_with_its_container,
    a_size_is_not_for_what_has_no_quota,
    an_nfs_server_s_folder_is_a_volume,
    an_smb_server_s_folder_is_a_volume,
    file_servers_are_found_by_name,
    file_servers_that_refuse_or_are_not_there_are_told,
];

/// Asks for twice the size of these volumes, and tells how many MiB there are in the end.
const FILL: &str = "dd if=/dev/zero of=$1/full bs=1M count=20 2>&1; sync; du -sm $1/full | cut -f1";

/// Makes a volume of the local driver's options.
fn make(machine: &Machine, name: &str, options: &[&str]) -> Result<()> {
    let options = options.iter().flat_map(|option| ["-o", option]);
    let made = machine.docker().ok(["volume", "create"].into_iter().chain(options).chain([name]))?;
    ensure!(made == name, "{made}");
    Ok(())
}

/// Starts a container of the name of its volume.
fn hold(machine: &Machine, name: &str) -> Result<()> {
    let volume = format!("{name}:/v");
    machine.docker().ok(["run", "-d", "--name", name, "-v", &volume, "busybox", "sleep", "1000"])?;
    Ok(())
}

fn exec(machine: &Machine, name: &str, script: &str) -> Result<String> {
    machine.docker().ok(["exec", name, "sh", "-c", script])
}

/// What a volume's container can put into it.
fn fills(machine: &Machine, name: &str) -> Result<String> {
    machine.docker().ok(["exec", name, "sh", "-c", FILL, "sh", "/v"])
}

fn is_full_at_its_size(machine: &Machine, name: &str) -> Result<()> {
    let told = fills(machine, name)?;
    let refused = told.contains("No space left on device") || told.contains("Disk quota exceeded");
    ensure!(refused && matches!(told.lines().last(), Some("9" | "10")), "{name}: {told}");
    Ok(())
}

fn a_volume_stops_growing_at_its_size(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    for name in ["sized", "sized-too"] {
        make(machine, name, &["size=10m"])?;
        hold(machine, name)?;
    }
    ensure!(docker.ok(["volume", "inspect", "-f", "{{json .Options}}", "sized"])? == r#"{"size":"10m"}"#);
    is_full_at_its_size(machine, "sized")?;
    let room = exec(machine, "sized", "df -k /v | awk 'END { print $2, $4 }'")?;
    ensure!(room == "10240 0", "df says {room}");

    machine.kill_engine()?;

    let more = docker.run(["exec", "sized", "sh", "-c", "echo more >/v/more"])?;
    ensure!(more.status != 0, "{more:?}");
    // Neither another one, which has a size as well, nor the layers of containers have a part in it.
    is_full_at_its_size(machine, "sized-too")?;
    make(machine, "sized-later", &["size=10m"])?;
    docker.ok([
        "run",
        "-d",
        "--name",
        "sized-later",
        "--storage-opt",
        "size=30m",
        "-v",
        "sized-later:/v",
        "busybox",
        "sleep",
        "1000",
    ])?;
    is_full_at_its_size(machine, "sized-later")?;
    ensure!(docker.ok(["exec", "sized-later", "sh", "-c", FILL, "sh", "/tmp"])?.ends_with("20"));
    // What is given back can be used again.
    exec(machine, "sized", "rm /v/full && echo more >/v/more")?;
    docker.ok(["restart", "-t", "0", "sized"])?;
    is_full_at_its_size(machine, "sized")?;
    for name in ["sized", "sized-too", "sized-later"] {
        docker.ok(["rm", "-f", name])?;
        docker.ok(["volume", "rm", name])?;
    }
    Ok(())
}

/// A container may give its volume another number, or its own files one that was a volume's.
fn a_size_goes_with_its_volume(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    make(machine, "sized", &["size=10m"])?;
    hold(machine, "sized")?;
    bring(machine, "sized", "lsattr")?;
    bring(machine, "sized", "chattr")?;
    let project = exec(machine, "sized", "lsattr -pd /v")?;
    let project = project.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(project.parse::<u32>()? >= 1 << 31, "{project}");
    exec(machine, "sized", "chattr -p 7 /v")?;
    docker.ok(["restart", "-t", "0", "sized"])?;
    is_full_at_its_size(machine, "sized")?;
    docker.ok(["rm", "-f", "sized"])?;
    docker.ok(["volume", "rm", "sized"])?;
    nothing_limits(machine, &project)
}

/// The same of a container's own layer, of which the container may have made another number.
fn a_size_goes_with_its_container(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["run", "-d", "--name", "sized", "--storage-opt", "size=10m", "busybox", "sleep", "1000"])?;
    bring(machine, "sized", "lsattr")?;
    bring(machine, "sized", "chattr")?;
    let project = exec(machine, "sized", "lsattr -pd /")?;
    let project = project.split_whitespace().next().unwrap_or_default().to_owned();
    ensure!((1..1 << 31).contains(&project.parse::<u32>()?), "{project}");
    exec(machine, "sized", "chattr -p 7 /")?;
    docker.ok(["rm", "-f", "sized"])?;
    nothing_limits(machine, &project)
}

/// Whether who has this number may take what it likes.
fn nothing_limits(machine: &Machine, project: &str) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["volume", "create", "free"])?;
    hold(machine, "free")?;
    bring(machine, "free", "chattr")?;
    exec(machine, "free", &format!("chattr -p {project} /v && chattr +P /v"))?;
    let told = fills(machine, "free")?;
    ensure!(told.ends_with("20"), "{told}");
    docker.ok(["rm", "-f", "free"])?;
    docker.ok(["volume", "rm", "free"])?;
    Ok(())
}

/// Copies a program of this system, with the libraries that it needs, into a running container.
fn bring(machine: &Machine, name: &str, program: &str) -> Result<()> {
    let program = format!("/usr/bin/{program}");
    let libraries = String::from_utf8(Command::new("ldd").arg(&program).in_time()?.stdout)?;
    for path in libraries.split_whitespace().chain([program.as_str()]).filter(|word| word.starts_with('/')) {
        let (folder, _) = path.rsplit_once('/').context("it is no path")?;
        exec(machine, name, &format!("mkdir -p {folder}"))?;
        machine.docker().ok(["cp", "-qL", path, &format!("{name}:{path}")])?;
    }
    Ok(())
}

fn a_size_is_not_for_what_has_no_quota(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    make(machine, "memory", &["type=tmpfs", "device=tmpfs", "o=uid=7", "size=10m"])?;
    let refused = docker.run(["run", "--name", "memory", "-v", "memory:/v", "busybox", "true"])?;
    ensure!(refused.status != 0 && refused.err.contains("failed to set projid for "), "{refused:?}");
    docker.ok(["rm", "memory"])?;
    docker.ok(["volume", "rm", "memory"])?;
    let refused = docker.run(["volume", "create", "-o", "size=ten", "wrong"])?;
    ensure!(refused.err.contains("create wrong: invalid size: 'ten'"), "{refused:?}");
    Ok(())
}

fn an_nfs_server_s_folder_is_a_volume(machine: &Machine) -> Result<()> {
    let server = Server::nfs()?;
    let options = format!("o=addr={HOST},rw,nfsvers=4,port={}", server.port());
    make(machine, "far", &["type=nfs", &options, "device=:/export"])?;
    is_the_server_s_folder(machine, "far", &server)
}

fn an_smb_server_s_folder_is_a_volume(machine: &Machine) -> Result<()> {
    let server = Server::smb()?;
    // Two that differ in how the connection is: signed, and encrypted.
    for more in ["", ",seal"] {
        let options = smb(&server, PASSWORD) + more;
        make(machine, "far", &["type=cifs", &options, &format!("device=//{HOST}/{SHARE}")])?;
        is_the_server_s_folder(machine, "far", &server)?;
    }
    Ok(())
}

fn smb(server: &Server, password: &str) -> String {
    format!("o=username={USER},password={password},vers=3.0,port={}", server.port())
}

/// Uses a volume that is a server's folder from two containers, across a kill of the engine, and removes it.
fn is_the_server_s_folder(machine: &Machine, volume: &str, server: &Server) -> Result<()> {
    let docker = machine.docker();
    let folder = server.folder();
    fs::write(folder.join("from-the-host"), "hello\n")?;
    for name in ["near", "nearer"] {
        let at = format!("{volume}:/v");
        docker.ok(["run", "-d", "--name", name, "-v", &at, "busybox", "sleep", "1000"])?;
        ensure!(exec(machine, name, "cat /v/from-the-host")? == "hello");
    }
    ensure!(mounted(machine)?.lines().count() == 1, "{}", mounted(machine)?);
    exec(
        machine,
        "near",
        "mkdir /v/sub && head -c 3000000 /dev/urandom >/v/sub/big && md5sum </v/sub/big >/v/sum",
    )?;
    ensure!(
        exec(machine, "nearer", "md5sum </v/sub/big")? == fs::read_to_string(folder.join("sum"))?.trim_end()
    );
    ensure!(fs::metadata(folder.join("sub/big"))?.len() == 3_000_000);

    machine.kill_engine()?;

    docker.ok(["rm", "-f", "near"])?;
    exec(machine, "nearer", "rm -r /v/sub /v/from-the-host && echo last >/v/sum")?;
    ensure!(fs::read_to_string(folder.join("sum"))? == "last\n" && !folder.join("sub").exists());
    docker.ok(["rm", "-f", "nearer"])?;
    ensure!(mounted(machine)?.is_empty(), "{}", mounted(machine)?);
    docker.ok(["volume", "rm", volume])?;
    ensure!(folder.join("sum").exists(), "the server's files went with the volume");
    Ok(())
}

/// What the engine has mounted of file servers.
fn mounted(machine: &Machine) -> Result<String> {
    let look = "grep -E ' - (nfs4?|cifs) ' /proc/$(pidof caisson-engine)/mountinfo; true";
    machine.docker().ok(["run", "--rm", "--privileged", "--pid", "host", "busybox", "sh", "-c", look])
}

/// The kernel looks no name up.
fn file_servers_are_found_by_name(machine: &Machine) -> Result<()> {
    const NAME: &str = "host.docker.internal";
    let (nfs, smb_server) = (Server::nfs()?, Server::smb()?);
    let options = format!("o=addr={NAME},nfsvers=4,port={}", nfs.port());
    make(machine, "named-nfs", &["type=nfs", &options, "device=:/export"])?;
    let device = format!("device=//{NAME}/{SHARE}");
    make(machine, "named-smb", &["type=cifs", &smb(&smb_server, PASSWORD), &device])?;
    for (name, server) in [("named-nfs", &nfs), ("named-smb", &smb_server)] {
        let volume = format!("{name}:/v");
        machine.docker().ok(["run", "--rm", "-v", &volume, "busybox", "touch", "/v/was-here"])?;
        ensure!(server.folder().join("was-here").exists());
        machine.docker().ok(["volume", "rm", name])?;
    }
    Ok(())
}

fn file_servers_that_refuse_or_are_not_there_are_told(machine: &Machine) -> Result<()> {
    let (nfs, smb_server, nobody) = (Server::nfs()?, Server::smb()?, free_port()?);
    let device = format!("device=//{HOST}/{SHARE}");
    let wrong = smb(&smb_server, "wrong");
    let other = format!("device=//{HOST}/other");
    for (options, told) in [
        (["type=cifs", &wrong, &device], "permission denied"),
        (["type=cifs", &smb(&smb_server, PASSWORD), &other], "no such file or directory"),
        (
            ["type=cifs", &format!("o=username={USER},password=wrong,vers=3.0,port={nobody}"), &device],
            "connection refused",
        ),
        (
            ["type=nfs", &format!("o=addr={HOST},nfsvers=4,port={nobody}"), "device=:/export"],
            "connection refused",
        ),
        (
            ["type=nfs", &format!("o=addr={HOST},nfsvers=4,port={}", nfs.port()), "device=:/other"],
            "no such file or directory",
        ),
    ] {
        is_refused(machine, &options, told)?;
    }
    ensure!(mounted(machine)?.is_empty(), "{}", mounted(machine)?);
    Ok(())
}

fn is_refused(machine: &Machine, options: &[&str], told: &str) -> Result<()> {
    let docker = machine.docker();
    make(machine, "lost", options)?;
    let refused = docker.run(["run", "--name", "lost", "-v", "lost:/v", "busybox", "true"])?;
    ensure!(
        refused.status != 0 && refused.err.contains("failed to mount local volume: mount "),
        "{refused:?}"
    );
    ensure!(
        refused.err.contains(&format!(": {told}")) && !refused.err.contains("wrong"),
        "{options:?}: {refused:?}"
    );
    docker.ok(["rm", "lost"])?;
    docker.ok(["volume", "rm", "lost"])?;
    Ok(())
}
