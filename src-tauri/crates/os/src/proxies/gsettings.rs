//! What `gsettings list-recursively org.gnome.system.proxy` prints: a schema, a key and a GVariant a line.

use super::{Proxies, bypass};

pub(super) fn proxies(printed: &str) -> Proxies {
    let value = |schema: &str, key: &str| {
        let start = format!("org.gnome.system.proxy{schema} {key} ");
        printed.lines().find_map(|line| line.strip_prefix(&start))
    };
    let text = |schema: &str, key: &str| value(schema, key).map(unquoted).filter(|text| !text.is_empty());
    match text("", "mode") {
        Some("auto") => {
            Proxies { script: text("", "autoconfig-url").map(str::to_owned), ..Proxies::default() }
        }
        Some("manual") => {
            let user = text(".http", "authentication-user")
                .filter(|_| value(".http", "use-authentication") == Some("true"))
                .map(|user| {
                    format!("{user}:{}@", text(".http", "authentication-password").unwrap_or_default())
                });
            let proxy = |schema: &str, scheme: &str, user: &str| {
                let port = value(schema, "port").filter(|port| *port != "0")?;
                Some(format!("{scheme}://{user}{}:{port}", text(schema, "host")?))
            };
            let socks = proxy(".socks", "socks5", "");
            Proxies {
                http: proxy(".http", "http", &user.unwrap_or_default()).or_else(|| socks.clone()),
                https: proxy(".https", "http", "").or(socks),
                no_proxy: value("", "ignore-hosts").map(list).unwrap_or_default(),
                script: None,
            }
        }
        _ => Proxies::default(),
    }
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches('\'')
}

/// `['localhost', '127.0.0.0/8']`, or `@as []`.
fn list(text: &str) -> Vec<String> {
    let inner = text.trim_start_matches("@as").trim().trim_start_matches('[').trim_end_matches(']');
    inner.split(',').filter_map(|entry| bypass(unquoted(entry))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = "org.gnome.system.proxy autoconfig-url ''
org.gnome.system.proxy ignore-hosts ['localhost', '127.0.0.0/8', '*.lan']
org.gnome.system.proxy mode 'manual'
org.gnome.system.proxy use-same-proxy true
org.gnome.system.proxy.ftp host ''
org.gnome.system.proxy.ftp port 0
org.gnome.system.proxy.http authentication-password 'secret'
org.gnome.system.proxy.http authentication-user 'me'
org.gnome.system.proxy.http enabled false
org.gnome.system.proxy.http host 'proxy.example'
org.gnome.system.proxy.http port 3128
org.gnome.system.proxy.http use-authentication true
org.gnome.system.proxy.https host ''
org.gnome.system.proxy.https port 0
org.gnome.system.proxy.socks host '127.0.0.1'
org.gnome.system.proxy.socks port 1080
";

    #[test]
    fn each_mode_is_read() {
        let expected = Proxies {
            http: Some("http://me:secret@proxy.example:3128".into()),
            https: Some("socks5://127.0.0.1:1080".into()),
            no_proxy: ["localhost", "127.0.0.0/8", ".lan"].map(str::to_owned).into(),
            script: None,
        };
        assert_eq!(proxies(MANUAL), expected);
        assert_eq!(proxies(&MANUAL.replace("'manual'", "'none'")), Proxies::default());
        let auto = MANUAL.replace("'manual'", "'auto'").replace("url ''", "url 'http://wpad/p.pac'");
        assert_eq!(
            proxies(&auto),
            Proxies { script: Some("http://wpad/p.pac".into()), ..Proxies::default() }
        );
        assert_eq!(proxies(&MANUAL.replace("true", "false")).http.unwrap(), "http://proxy.example:3128");
        assert_eq!(proxies(""), Proxies::default());
        assert_eq!(list("@as []"), Vec::<String>::new());
    }
}
