//! Names on the networks that users make, and `/etc/resolv.conf` everywhere.

use anyhow::{Result, ensure};

use crate::cases;
use crate::subject::Subject;

cases![
    containers_find_each_other_by_name_alias_and_short_id,
    names_end_with_their_network,
    an_address_has_a_name,
    links_are_names_of_one_s_own,
    a_rename_is_followed,
    resolv_conf_says_who_is_asked,
    hosts_names_the_container_on_all_its_networks,
];

/// The addresses that `nslookup` prints for a name, from inside a container.
fn addresses(on: &dyn Subject, network: &[&str], name: &str) -> Result<Vec<String>> {
    let answer = on.docker().run([&["run", "--rm"], network, &["busybox", "nslookup", name]].concat())?;
    let told = answer.out.lines().skip_while(|line| !line.starts_with("Name:"));
    Ok(told.filter_map(|line| Some(line.strip_prefix("Address: ")?.to_owned())).collect())
}

fn address(on: &dyn Subject, container: &str, network: &str) -> Result<String> {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    on.docker().ok(["inspect", "-f", &format, container])
}

fn containers_find_each_other_by_name_alias_and_short_id(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "d-names"])?;
    let run = ["run", "-d", "--name", "d-server", "--network", "d-names", "--network-alias", "d-alias"];
    let id = docker.ok(run.iter().chain(&["--hostname", "d-host", "busybox", "sleep", "1000"]))?;
    let expected = vec![address(on, "d-server", "d-names")?];
    for name in ["d-server", "D-Server", "d-alias", "d-host", &id[..12]] {
        let found = addresses(on, &["--network", "d-names"], name)?;
        ensure!(found == expected, "{name}: {found:?}");
    }
    let unknown = addresses(on, &["--network", "d-names"], "d-nobody")?;
    ensure!(unknown.is_empty(), "{unknown:?}");
    docker.ok(["rm", "-f", "d-server"])?;
    docker.ok(["network", "rm", "d-names"])?;
    Ok(())
}

fn names_end_with_their_network(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "d-here"])?;
    docker.ok(["network", "create", "d-there"])?;
    docker.ok(["run", "-d", "--name", "d-far", "--network", "d-there", "busybox", "sleep", "1000"])?;
    ensure!(addresses(on, &["--network", "d-here"], "d-far")?.is_empty(), "found across networks");
    let both = ["--network", "d-here", "--network", "d-there"];
    let expected = vec![address(on, "d-far", "d-there")?];
    ensure!(addresses(on, &both, "d-far")? == expected, "not found on the second network");
    ensure!(addresses(on, &both, "d-far.d-there")? == expected, "not found under its network's name");
    docker.ok(["rm", "-f", "d-far"])?;
    docker.ok(["network", "rm", "d-here", "d-there"])?;
    Ok(())
}

fn an_address_has_a_name(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "d-reverse"])?;
    docker.ok(["run", "-d", "--name", "d-named", "--network", "d-reverse", "busybox", "sleep", "1000"])?;
    let at = address(on, "d-named", "d-reverse")?;
    let told = docker.ok(["run", "--rm", "--network", "d-reverse", "busybox", "nslookup", &at])?;
    ensure!(told.contains("name = d-named.d-reverse"), "{told}");
    docker.ok(["rm", "-f", "d-named"])?;
    docker.ok(["network", "rm", "d-reverse"])?;
    Ok(())
}

fn links_are_names_of_one_s_own(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "d-links"])?;
    docker.ok(["run", "-d", "--name", "d-linked", "--network", "d-links", "busybox", "sleep", "1000"])?;
    let expected = vec![address(on, "d-linked", "d-links")?];
    let found = addresses(on, &["--network", "d-links", "--link", "d-linked:db"], "db")?;
    ensure!(found == expected, "{found:?}");
    ensure!(addresses(on, &["--network", "d-links"], "db")?.is_empty(), "a link of another");
    docker.ok(["rm", "-f", "d-linked"])?;
    docker.ok(["network", "rm", "d-links"])?;
    Ok(())
}

fn a_rename_is_followed(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "d-renames"])?;
    docker.ok(["run", "-d", "--name", "d-before", "--network", "d-renames", "busybox", "sleep", "1000"])?;
    docker.ok(["rename", "d-before", "d-after"])?;
    let expected = vec![address(on, "d-after", "d-renames")?];
    ensure!(addresses(on, &["--network", "d-renames"], "d-after")? == expected, "not under its new name");
    ensure!(addresses(on, &["--network", "d-renames"], "d-before")?.is_empty(), "still under its old name");
    docker.ok(["rm", "-f", "d-after"])?;
    docker.ok(["network", "rm", "d-renames"])?;
    Ok(())
}

fn resolv_conf_says_who_is_asked(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "d-conf"])?;
    let wishes = ["--dns", "1.1.1.1", "--dns-search", "foo.com", "--dns-opt", "timeout:3"];
    let conf = |network: &str, wishes: &[&str]| {
        let run: &[&str] = &["run", "--rm", "--network", network];
        docker.ok([run, wishes, &["busybox", "cat", "/etc/resolv.conf"]].concat())
    };
    const HEADER: &str = "# Generated by Docker Engine.\n\
        # This file can be edited; Docker Engine will not make further changes once it\n\
        # has been modified.\n\n";
    let own = conf("d-conf", &wishes)?;
    let expected = "nameserver 127.0.0.11\nsearch foo.com\noptions timeout:3 ndots:0\n\n\
        # Based on host file: '/etc/resolv.conf' (internal resolver)\n\
        # ExtServers: [1.1.1.1]\n\
        # Overrides: [nameservers search options]\n\
        # Option ndots from: internal";
    ensure!(own == format!("{HEADER}{expected}"), "{own}");
    let bridge = conf("bridge", &wishes)?;
    let expected = "nameserver 1.1.1.1\nsearch foo.com\noptions timeout:3\n\n\
        # Based on host file: '/etc/resolv.conf' (legacy)\n\
        # Overrides: [nameservers search options]";
    ensure!(bridge == format!("{HEADER}{expected}"), "{bridge}");
    docker.ok(["network", "rm", "d-conf"])?;
    Ok(())
}

fn hosts_names_the_container_on_all_its_networks(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["network", "create", "--subnet", "10.97.1.0/24", "d-first"])?;
    docker.ok(["network", "create", "--subnet", "10.97.2.0/24", "d-second"])?;
    docker.ok([
        "run",
        "-d",
        "--name",
        "d-both",
        "--hostname",
        "me",
        "--network",
        "d-first",
        "busybox",
        "sleep",
        "1000",
    ])?;
    docker.ok(["network", "connect", "d-second", "d-both"])?;
    let hosts = docker.ok(["exec", "d-both", "cat", "/etc/hosts"])?;
    ensure!(hosts.ends_with("10.97.1.2\tme\n10.97.2.2\tme"), "{hosts}");
    docker.ok(["network", "disconnect", "d-first", "d-both"])?;
    let hosts = docker.ok(["exec", "d-both", "cat", "/etc/hosts"])?;
    ensure!(hosts.ends_with("ff02::2\tip6-allrouters\n10.97.2.2\tme"), "{hosts}");
    docker.ok(["rm", "-f", "d-both"])?;
    docker.ok(["network", "rm", "d-first", "d-second"])?;
    Ok(())
}
