//! The processes of a container: `docker top`.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cases;
use crate::subject::Subject;

cases![
    the_columns_and_processes_are_those_of_ps,
    what_ps_does_not_know_is_refused,
    a_container_that_does_not_run_has_none,
];

fn the_columns_and_processes_are_those_of_ps(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "topped", "busybox", "sh", "-c", "sleep 1001 & exec sleep 1002"])?;
    // The shell has become its second sleep when there are two.
    while docker.ok(["top", "topped", "-o", "pid,args"])?.matches("sleep 100").count() != 2
        || docker.ok(["top", "topped", "-o", "pid,args"])?.contains("sh -c")
    {}
    for (arguments, titles) in [
        (&[][..], "UID PID PPID C STIME TTY TIME CMD"),
        (&["aux"], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        (&["-eo", "pid,ppid,comm"], "PID PPID COMMAND"),
        (&["-o", "pid,user,args"], "PID USER COMMAND"),
        (&["-eF"], "UID PID PPID C SZ RSS PSR STIME TTY TIME CMD"),
        (&["-o", "pid,nlwp,stat,s,ni,tty"], "PID NLWP STAT S NI TT"),
        (&["-eL"], "PID LWP TTY TIME CMD"),
        (&["-eLf"], "UID PID PPID LWP C NLWP STIME TTY TIME CMD"),
        (&["-eT"], "PID SPID TTY TIME CMD"),
        (&["-eTf"], "UID PID SPID PPID C STIME TTY TIME CMD"),
        (&["axH"], "PID TTY STAT TIME COMMAND"),
        (&["-o", "pid,tid,spid,lwp"], "PID TID SPID LWP"),
    ] {
        let told = docker.ok([&["top", "topped"], arguments].concat())?;
        let mut lines = told.lines();
        let first = lines.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(first == titles, "{arguments:?}: {first}");
        ensure!(lines.count() == 2, "{arguments:?}: {told}");
    }
    let told = on.api().get("/containers/topped/top")?.json()?;
    ensure!(told["Titles"][0] == "UID" && told["Processes"][0][0] == "root", "{told}");
    let commands: Vec<String> =
        told["Processes"].as_array().into_iter().flatten().map(|row| row[7].to_string()).collect();
    ensure!(commands.contains(&json!("sleep 1001").to_string()), "{told}");
    for (order, first) in
        [("pid", "sleep 1002"), ("-pid", "sleep 1001"), ("args", "sleep 1001"), ("-args,pid", "sleep 1002")]
    {
        let told = docker.ok(["top", "topped", "-o", "pid,args", "--sort", order])?;
        ensure!(told.lines().nth(1).is_some_and(|line| line.ends_with(first)), "{order}: {told}");
    }
    let told = on.api().get("/containers/topped/top?ps_args=-o%20pid,stat,tname,psr,args")?.json()?;
    // Between them may be the marks of how it is scheduled, which the tests' own priority decides.
    let stat = told["Processes"][0][1].as_str().unwrap_or_default();
    ensure!(stat.starts_with('S') && stat.ends_with('s') && told["Processes"][0][2] == "?", "{told}");
    docker.ok(["rm", "-f", "topped"])?;
    Ok(())
}

fn what_ps_does_not_know_is_refused(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["run", "-d", "--name", "untopped", "busybox", "sleep", "1000"])?;
    for (arguments, message) in [
        ("-o%20foo", "ps: error: unknown user-defined format specifier \"foo\""),
        ("-o%20comm", "Couldn't find PID field in ps output"),
        ("-Q", "ps: error: unsupported SysV option"),
        ("Q", "ps: error: unsupported option (BSD syntax)"),
        ("--nonsense", "ps: error: unknown gnu long option"),
        ("-o%20pid%20--sort%20foo", "ps: error: unknown sort specifier"),
        ("-o%20uid=PID", "specifying \"uid=PID\" is not allowed"),
    ] {
        let answer = on.api().get(&format!("/containers/untopped/top?ps_args={arguments}"))?;
        let told = answer.json()?["message"].as_str().unwrap_or_default().to_owned();
        ensure!(answer.status == 500 && told == message, "{arguments}: {} {told}", answer.status);
    }
    on.docker().ok(["rm", "-f", "untopped"])?;
    Ok(())
}

fn a_container_that_does_not_run_has_none(on: &dyn Subject) -> Result<()> {
    let id = on.docker().ok(["create", "--name", "idle", "busybox"])?;
    let answer = on.api().get("/containers/idle/top")?;
    ensure!(answer.status == 409, "{}", answer.status);
    ensure!(answer.json()?["message"] == format!("container {id} is not running"), "{}", answer.json()?);
    on.docker().ok(["rm", "idle"])?;
    Ok(())
}
