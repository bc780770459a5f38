//! How Windows writes proxies down (WinINet and WinHTTP alike).

use super::{Proxies, bypass, with_scheme};

/// `servers` is one for all, `proxy:3128`, or one for each protocol, `http=proxy:3128;https=proxy:3129;socks=proxy:1080`;
/// `bypassed` what is reached without, `*.lan;10.*;<local>`.
pub(super) fn proxies(servers: &str, bypassed: &str) -> Proxies {
    let parts = || servers.split([';', ' ']).map(str::trim).filter(|part| !part.is_empty());
    let of = |protocol: &str| {
        parts().find_map(|part| part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case(protocol)))
    };
    let all = parts().find(|part| !part.contains('=')).map(with_scheme);
    let socks = of("socks").map(|(_, server)| match server.contains("://") {
        true => server.to_owned(),
        false => format!("socks5://{server}"),
    });
    let proxy = |protocol: &str| {
        let own = of(protocol).map(|(_, server)| with_scheme(server));
        own.or_else(|| all.clone()).or_else(|| socks.clone())
    };
    Proxies {
        http: proxy("http"),
        https: proxy("https"),
        no_proxy: bypassed.split([';', ' ']).filter_map(bypass).collect(),
        script: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_all_or_one_for_each() {
        let of = |servers: &str| {
            let proxies = proxies(servers, "");
            (proxies.http.unwrap_or_default(), proxies.https.unwrap_or_default())
        };
        for (servers, http, https) in [
            ("proxy:3128", "http://proxy:3128", "http://proxy:3128"),
            ("http=a:1;https=b:2;ftp=c:3", "http://a:1", "http://b:2"),
            ("http=a:1;socks=s:4", "http://a:1", "socks5://s:4"),
            ("https=https://b:2", "", "https://b:2"),
            ("", "", ""),
        ] {
            assert_eq!(of(servers), (http.to_owned(), https.to_owned()), "{servers}");
        }
        let bypassed = proxies("p:1", "*.lan;10.*; <local>").no_proxy;
        assert_eq!(bypassed, [".lan", "10.0.0.0/8"]);
    }
}
