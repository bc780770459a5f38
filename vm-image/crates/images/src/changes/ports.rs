//! `EXPOSE`.

use super::ChangeError;

/// The ports of `[host:]port[-port][/protocol]`, each as `port/protocol`.
pub(super) fn parse(text: &str) -> Result<Vec<String>, ChangeError> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(ChangeError::Protocol(protocol));
    }
    let ports = ports.rsplit(':').next().unwrap_or(ports);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let bad = || ChangeError::Port(ports.to_owned());
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    match first <= last {
        true => Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect()),
        false => Err(bad()),
    }
}
