use super::*;

fn applied(changes: &[&str]) -> Result<RunConfig, String> {
    let mut config = RunConfig::default();
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    apply(&mut config, &changes).map_err(|error| error.to_string())?;
    Ok(config)
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn commands_are_lines_or_arrays() {
    for (change, words) in [
        (r#"CMD ["sh", "-l"]"#, &["sh", "-l"][..]),
        ("cmd echo $HOME 'a b'", &["/bin/sh", "-c", "echo $HOME 'a b'"]),
        ("CMD [sh]", &["/bin/sh", "-c", "[sh]"]),
    ] {
        assert_eq!(applied(&[change]).unwrap().cmd, Some(strings(words)), "{change}");
    }
}

#[test]
fn an_entrypoint_forgets_the_command_before_it_only() {
    let mut config = RunConfig { cmd: Some(strings(&["old"])), ..RunConfig::default() };
    apply(&mut config, &strings(&["ENTRYPOINT [\"e\"]"])).unwrap();
    assert_eq!((config.cmd, config.entrypoint), (None, Some(strings(&["e"]))));
    let both = applied(&["CMD [\"c\"]", "ENTRYPOINT e"]).unwrap();
    assert_eq!((both.cmd, both.entrypoint), (Some(strings(&["c"])), Some(strings(&["/bin/sh", "-c", "e"]))));
}

#[test]
fn variables_and_quotes() {
    for (changes, env) in [
        (&["ENV A=1 B=\"x y\" C='$A' D=a\\ b"][..], &["A=1", "B=x y", "C=$A", "D=a b"][..]),
        (&["ENV A some  text"], &["A=some  text"]),
        (&["ENV A=1", "ENV A=2 B=$A"], &["A=2", "B=1"]),
        (
            &["ENV A=x", "ENV B=${A}y C=${N:-d} D=${A:+set} E=\"$A-\\$A\" F=$N"],
            &["A=x", "B=xy", "C=d", "D=set", "E=x-$A", "F="],
        ),
        (&["ENV A=1 \\\n  # remark\n  B=2"], &["A=1", "B=2"]),
        (&["ENV A=b=c"], &["A=b=c"]),
    ] {
        assert_eq!(applied(changes).unwrap().env, strings(env), "{changes:?}");
    }
}

#[test]
fn the_others() {
    let config = applied(&[
        "ENV PORTS=\"80 443\"",
        "EXPOSE $PORTS 53/UDP 8000-8001",
        "LABEL a=b \"c d\"=\"e f\"",
        "USER me:us",
        "VOLUME /a /b",
        "VOLUME [\"/c d\"]",
        "WORKDIR /x/../y",
        "WORKDIR z/.",
        "STOPSIGNAL sigterm",
        "ONBUILD RUN make",
        "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost",
    ])
    .unwrap();
    let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["443/tcp", "53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
    let labels: Vec<_> = config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("a", "b"), ("c d", "e f")]);
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/c d"]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("me:us", "/y/z"));
    assert_eq!((config.stop_signal.as_str(), config.on_build), ("sigterm", strings(&["RUN make"])));
    let health = config.healthcheck.unwrap();
    assert_eq!(health.test, strings(&["CMD-SHELL", "curl -f localhost"]));
    assert_eq!((health.interval, health.retries), (90_000_000_000, 3));
}

#[test]
fn what_cannot_be_is_refused() {
    for (change, error) in [
        ("RUN make", "RUN is not a valid change command"),
        ("nonsense", "nonsense is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
        ("ENV =1", "ENV names can not be blank"),
        ("LABEL ${X:?}=1", "failed to process \"${X:?}\": X: is not allowed to be unset"),
        ("LABEL ${X:!}=1", "failed to process \"${X:!}\": unsupported modifier in substitution"),
        ("HEALTHCHECK --foo=1 CMD x", "unknown flag: --foo"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("USER", "USER requires exactly one argument"),
        ("EXPOSE http", "Invalid containerPort: http"),
        ("EXPOSE 80/icmp", "Invalid proto: icmp"),
        ("EXPOSE 9-8", "Invalid containerPort: 9-8"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("STOPSIGNAL SIGNOT", "invalid signal: SIGNOT"),
        ("STOPSIGNAL 0", "invalid signal: 0"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK CURL x", "Unknown type \"CURL\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --interval=soon CMD x", "time: invalid duration \"soon\""),
        ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
    ] {
        assert_eq!(applied(&[change]).unwrap_err(), error, "{change}");
    }
}

#[test]
fn variables_in_variables_end_somewhere() {
    let nested = |depth| format!("ENV A={}x{}", "${B:-".repeat(depth), "}".repeat(depth));
    assert_eq!(applied(&[&nested(64)]).unwrap().env, strings(&["A=x"]));
    let beside = format!("ENV A={}", "${B:-x}".repeat(100));
    assert_eq!(applied(&[&beside]).unwrap().env, strings(&[&format!("A={}", "x".repeat(100))]));
    for depth in [65, 50_000] {
        assert!(applied(&[&nested(depth)]).unwrap_err().ends_with("variables are nested too deeply"));
    }
}
