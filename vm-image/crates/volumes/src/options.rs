//! The local driver's options: what is mounted in place of a volume's own directory.

use std::collections::BTreeMap;

use crate::error::VolumeError;

/// What is mounted, as `mount(2)` wants to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// The kind of file system; `none` for binds.
    pub(crate) kind: String,
    pub(crate) device: String,
    /// `mount(8)`'s options.
    pub(crate) options: String,
}

impl Device {
    /// What these options ask to be mounted, if anything.
    pub(crate) fn of(options: Option<&BTreeMap<String, String>>) -> Option<Self> {
        let text = |key: &str| options.and_then(|options| options.get(key)).cloned().unwrap_or_default();
        let (kind, device) = (text("type"), text("device"));
        (!kind.is_empty() || !device.is_empty()).then(|| Self { kind, device, options: text("o") })
    }
}

/// Which options need which others.
const NEEDS: [(&str, &[&str]); 3] =
    [("device", &["type"]), ("type", &["device"]), ("o", &["device", "type"])];

/// Checks options as dockerd does when a volume is made, where volumes can have a size or not.
pub(crate) fn check(
    name: &str,
    options: Option<&BTreeMap<String, String>>,
    has_quota: bool,
) -> Result<(), VolumeError> {
    let Some(options) = options else { return Ok(()) };
    let bad = |why: String| VolumeError::BadOption { name: name.to_owned(), why };
    if let Some(option) = options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device" | "size"))
    {
        return Err(VolumeError::UnknownOption { name: name.to_owned(), option: option.clone() });
    }
    let device = options.get("device").map_or("", String::as_str);
    if options.get("type").is_some_and(|kind| kind == "cifs") && has_port(device) {
        return Err(bad("port not allowed in CIFS device URL, include 'port' in 'o='".into()));
    }
    if let Some(size) = options.get("size")
        && ram_in_bytes(size).map_err(bad)? > 0
        && !has_quota
    {
        return Err(bad("quota size requested but no quota support".into()));
    }
    for (option, needed) in NEEDS {
        if let Some(missing) = needed.iter().find(|key| !options.contains_key(**key))
            && options.contains_key(option)
        {
            return Err(VolumeError::MissingOption { name: name.to_owned(), option: missing });
        }
    }
    Ok(())
}

/// The bytes that checked options allow; 0 is no limit.
pub(crate) fn size(options: Option<&BTreeMap<String, String>>) -> u64 {
    options.and_then(|options| ram_in_bytes(options.get("size")?).ok()).unwrap_or(0)
}

/// Whether a URL names a port: `//server:445/share`.
fn has_port(url: &str) -> bool {
    host(url).and_then(|host| host.rsplit_once(':')).is_some_and(|(name, port)| {
        !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':')
    })
}

/// The host of a URL or of `//host/share`.
pub(crate) fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("//")?;
    let host = rest.split('/').next()?;
    Some(host.rsplit_once('@').map_or(host, |(_, host)| host)).filter(|host| !host.is_empty())
}

/// A size as go-units' `RAMInBytes` reads it: `10m`, `1.5 GiB`, bytes without a unit.
pub(crate) fn ram_in_bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let number_ends =
        text.rfind(|letter: char| letter.is_ascii_digit() || letter == '.').ok_or_else(invalid)? + 1;
    let (number, unit) = text.split_at(number_ends);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None => 0,
        Some('b') if letters.as_str().is_empty() => 0,
        Some(letter) => match ("kmgtp".find(letter), letters.as_str()) {
            (Some(index), "" | "b" | "ib") => index as i32 + 1,
            _ => return Err(format!("invalid suffix: '{unit}'")),
        },
    };
    if number < 0.0 {
        return Err(invalid());
    }
    Ok((number * 1024_f64.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(options: &[(&str, &str)]) -> BTreeMap<String, String> {
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn checked(options: &[(&str, &str)]) -> Result<(), String> {
        check("v1", Some(&map(options)), false).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_dockerd_s() {
        assert_eq!(checked(&[]), Ok(()));
        assert_eq!(checked(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), Ok(()));
        assert_eq!(checked(&[("type", "tmpfs"), ("device", "tmpfs"), ("size", "0")]), Ok(()));
        for (options, said) in [
            (&[("foo", "x")][..], "create v1: invalid option: \"foo\""),
            (&[("type", "tmpfs")], "create v1: missing required option: \"device\""),
            (&[("device", "x")], "create v1: missing required option: \"type\""),
            (&[("o", "x")], "create v1: missing required option: \"device\""),
            (&[("size", "1m")], "create v1: quota size requested but no quota support"),
            (&[("size", "x")], "create v1: invalid size: 'x'"),
            (
                &[("type", "cifs"), ("device", "//host:445/x")],
                "create v1: port not allowed in CIFS device URL, include 'port' in 'o='",
            ),
        ] {
            assert_eq!(checked(options), Err(said.to_owned()));
        }
    }

    #[test]
    fn with_quotas_a_size_needs_no_other_option_and_forbids_none() {
        let checked = |options: &[(&str, &str)]| {
            check("v1", Some(&map(options)), true).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&[("size", "1m")]), Ok(()));
        assert_eq!(checked(&[("size", "1m"), ("type", "none"), ("device", "/x"), ("o", "bind")]), Ok(()));
        assert_eq!(checked(&[("size", "x")]), Err("create v1: invalid size: 'x'".into()));
        assert_eq!(
            checked(&[("size", "1m"), ("o", "bind")]),
            Err("create v1: missing required option: \"device\"".into())
        );
        assert_eq!(size(Some(&map(&[("size", "10m")]))), 10 << 20);
        assert_eq!((size(None), size(Some(&map(&[("type", "none")])))), (0, 0));
    }

    #[test]
    fn hosts_are_found_in_devices() {
        assert_eq!(host("//server/share"), Some("server"));
        assert_eq!(host("cifs://u:p@server/share"), Some("server"));
        assert_eq!(host(":/export"), None);
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("5", 5), ("1k", 1024), ("1.5 MiB", 3 << 19), ("2gb", 2 << 30), ("7B", 7)] {
            assert_eq!(ram_in_bytes(text), Ok(bytes));
        }
        assert_eq!(ram_in_bytes("5x"), Err("invalid suffix: 'x'".into()));
        assert_eq!(ram_in_bytes("-1"), Err("invalid size: '-1'".into()));
    }
}
