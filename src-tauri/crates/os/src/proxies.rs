//! The proxies that programs of this computer are to use.

#[cfg(any(target_os = "linux", test))]
mod gsettings;
#[cfg(any(windows, test))]
mod internet_settings;
#[cfg(any(target_os = "macos", test))]
mod scutil;

#[cfg_attr(target_os = "linux", path = "proxies/linux.rs")]
#[cfg_attr(target_os = "macos", path = "proxies/macos.rs")]
#[cfg_attr(windows, path = "proxies/windows.rs")]
mod imp;

#[cfg(unix)]
use std::time::Duration;
use std::{env, io};

/// How long a program of the system's may take. It answers at once, or waits for another one that hangs.
#[cfg(unix)]
const LIMIT: Duration = Duration::from_secs(3);

/// Proxies, each as an URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// What is reached without one: names, `.domains`, addresses, ranges as `10.0.0.0/8`, or `*`.
    pub no_proxy: Vec<String>,
    /// A script that says which proxy is whose (PAC). It is told and not run: that takes an interpreter of JavaScript.
    pub script: Option<String>,
}

/// The proxies as they are now: those in this process' environment (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in
/// either case), or else those in the system's settings.
///
/// May start a program of the system's that knows, and wait three seconds for it.
///
/// # Errors
/// That program does not answer, or does not start.
pub fn proxies() -> io::Result<Proxies> {
    of_variables(|name| env::var(name).ok()).map_or_else(imp::proxies, Ok)
}

fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Proxies> {
    let value = |name: &str| {
        let given = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
        given.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let proxy = |name| value(name).or_else(|| value("ALL_PROXY")).map(|url| with_scheme(&url));
    let (http, https) = (proxy("HTTP_PROXY"), proxy("HTTPS_PROXY"));
    http.as_ref().or(https.as_ref())?;
    let no_proxy = value("NO_PROXY").unwrap_or_default().split(',').filter_map(bypass).collect();
    Some(Proxies { http, https, no_proxy, script: None })
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// What is reached without a proxy, as `NO_PROXY` has it; systems have their own ways to write it. `None` for what it cannot
/// say, such as "names without a dot".
fn bypass(entry: &str) -> Option<String> {
    let entry = entry.trim();
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    match entry {
        "" | "<local>" | "<-loopback>" => None,
        "*" => Some("*".to_owned()),
        // `.domain`
        _ if entry.starts_with("*.") => Some(entry[1..].to_owned()),
        _ => Some(range(entry).unwrap_or_else(|| entry.to_owned())),
    }
}

/// `169.254/16` and `10.*` as ranges; `None` for what is neither.
fn range(entry: &str) -> Option<String> {
    let (start, prefix) = match entry.split_once('/') {
        Some((start, prefix)) => (start, Some(prefix.parse::<u8>().ok().filter(|bits| *bits <= 32)?)),
        None => (entry.split_once(".*")?.0, None),
    };
    let mut octets: Vec<u8> = start
        .split('.')
        .map(|octet| octet.parse().ok())
        .collect::<Option<_>>()
        .filter(|all: &Vec<u8>| all.len() <= 4)?;
    let prefix = prefix.unwrap_or(8 * u8::try_from(octets.len()).ok()?);
    octets.resize(4, 0);
    Some(format!("{}.{}.{}.{}/{prefix}", octets[0], octets[1], octets[2], octets[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Proxies> {
        of_variables(|wanted| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_counts_in_either_case() {
        assert_eq!(of(&[("NO_PROXY", "a"), ("HTTP_PROXY", " ")]), None);
        let proxies = of(&[
            ("http_proxy", "proxy:3128"),
            ("HTTPS_PROXY", "http://u:p@secure:1"),
            ("https_proxy", "http://other:1"),
            ("no_proxy", "localhost, .lan,10.0.0.0/8,,::1"),
        ]);
        let expected = Proxies {
            http: Some("http://proxy:3128".into()),
            https: Some("http://u:p@secure:1".into()),
            no_proxy: ["localhost", ".lan", "10.0.0.0/8", "::1"].map(str::to_owned).into(),
            script: None,
        };
        assert_eq!(proxies, Some(expected));
        let all = of(&[("ALL_PROXY", "socks5://s:1"), ("HTTP_PROXY", "http://h:1")]).unwrap();
        assert_eq!((all.http.as_deref(), all.https.as_deref()), (Some("http://h:1"), Some("socks5://s:1")));
    }

    #[test]
    fn what_is_reached_without_a_proxy_is_written_in_one_way() {
        for (entry, expected) in [
            ("*.local", Some(".local")),
            ("169.254/16", Some("169.254.0.0/16")),
            ("10.*", Some("10.0.0.0/8")),
            ("192.168.*.*", Some("192.168.0.0/16")),
            ("192.168.7.*", Some("192.168.7.0/24")),
            ("10.1.2.3", Some("10.1.2.3")),
            ("fe80::/10", Some("fe80::/10")),
            ("http://intra.example", Some("intra.example")),
            (" host ", Some("host")),
            ("*", Some("*")),
            ("<local>", None),
            ("", None),
        ] {
            assert_eq!(bypass(entry).as_deref(), expected, "{entry}");
        }
    }
}
