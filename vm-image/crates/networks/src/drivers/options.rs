//! Reading a network's options, which are texts, as dockerd reads them.

use std::collections::BTreeMap;

use super::Unfit;

/// The size of the largest packet, in bytes, where nothing else is asked; Ethernet's, as dockerd's default.
pub(super) const DEFAULT_MTU: u32 = 1500;

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(options: &BTreeMap<String, String>, name: &str) -> Result<Option<bool>, Unfit> {
    let Some(text) = options.get(name) else { return Ok(None) };
    match text.as_str() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
        _ => Err(unreadable(name, text, &format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    }
}

/// The largest packet that a user asked for.
pub(super) fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u32>, Unfit> {
    const NAME: &str = "com.docker.network.driver.mtu";
    let Some(text) = options.get(NAME) else { return Ok(None) };
    match text.parse::<i64>() {
        Ok(mtu) if mtu < 0 => Err(unreadable(NAME, text, &format!("invalid MTU number: {mtu}"))),
        Ok(mtu) => Ok(u32::try_from(mtu).ok().filter(|mtu| *mtu != 0)),
        Err(_) => Err(unreadable(NAME, text, &format!("strconv.Atoi: parsing {text:?}: invalid syntax"))),
    }
}

pub(super) fn unreadable(name: &str, text: &str, why: &str) -> Unfit {
    Unfit::Invalid(format!("failed to parse {name} value: {text} ({why})"))
}
