//! What `scutil --proxy` prints: a dictionary, a key and a value a line (SystemConfiguration, `SCSchemaDefinitions.h`).

use super::{Proxies, bypass};

pub(super) fn proxies(printed: &str) -> Proxies {
    let entries: Vec<(&str, &str)> = printed
        .lines()
        .filter_map(|line| line.trim().split_once(" : "))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let value = |wanted: &str| entries.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
    let is_on = |key: &str| value(key) == Some("1");
    let proxy = |kind: &str, scheme: &str, usual: &str| {
        let host = value(&format!("{kind}Proxy")).filter(|_| is_on(&format!("{kind}Enable")))?;
        let port = value(&format!("{kind}Port")).unwrap_or(usual);
        Some(format!("{scheme}://{}:{port}", bracketed(host)))
    };
    let socks = proxy("SOCKS", "socks5", "1080");
    // The elements of an array have numbers for keys, and there is but the one array.
    let is_element = |key: &str| key.bytes().all(|digit| digit.is_ascii_digit());
    Proxies {
        http: proxy("HTTP", "http", "80").or_else(|| socks.clone()),
        https: proxy("HTTPS", "http", "443").or(socks),
        no_proxy: entries
            .iter()
            .filter(|(key, _)| is_element(key))
            .filter_map(|(_, entry)| bypass(entry))
            .collect(),
        script: value("ProxyAutoConfigURLString")
            .filter(|_| is_on("ProxyAutoConfigEnable"))
            .map(str::to_owned),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_read() {
        let printed = "<dictionary> {
  ExceptionsList : <array> {
    0 : *.local
    1 : 169.254/16
    2 : intra.example
  }
  ExcludeSimpleHostnames : 1
  FTPPassive : 1
  HTTPEnable : 1
  HTTPPort : 3128
  HTTPProxy : proxy.example
  HTTPSEnable : 0
  HTTPSPort : 3129
  HTTPSProxy : off.example
  ProxyAutoConfigEnable : 0
  ProxyAutoConfigURLString : http://wpad/p.pac
  SOCKSEnable : 1
  SOCKSPort : 1081
  SOCKSProxy : ::1
}
";
        let expected = Proxies {
            http: Some("http://proxy.example:3128".into()),
            https: Some("socks5://[::1]:1081".into()),
            no_proxy: [".local", "169.254.0.0/16", "intra.example"].map(str::to_owned).into(),
            script: None,
        };
        assert_eq!(proxies(printed), expected);
        let script = proxies(&printed.replace("ConfigEnable : 0", "ConfigEnable : 1")).script;
        assert_eq!(script.as_deref(), Some("http://wpad/p.pac"));
        assert_eq!(proxies("<dictionary> {\n}\n"), Proxies::default());
    }
}
