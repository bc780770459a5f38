//! The user's Internet settings, or the computer's own (`netsh winhttp`) where the user has none.
#![expect(unsafe_code, reason = "the computer's own settings are read by a foreign function")]

use super::{Proxies, internet_settings};
use std::io;
use windows::{
    Win32::{
        Foundation::{GlobalFree, HGLOBAL},
        Networking::WinHttp::{
            WINHTTP_ACCESS_TYPE_NAMED_PROXY, WINHTTP_PROXY_INFO, WinHttpGetDefaultProxyConfiguration,
        },
    },
    core::PWSTR,
};
use windows_registry::CURRENT_USER;

const SETTINGS: &str = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings";

pub(super) fn proxies() -> io::Result<Proxies> {
    let users = of_user().unwrap_or_default();
    Ok(if users == Proxies::default() { of_computer().unwrap_or_default() } else { users })
}

/// `None` if there are no settings.
fn of_user() -> Option<Proxies> {
    let settings = CURRENT_USER.open(SETTINGS).ok()?;
    let text = |name: &str| settings.get_string(name).unwrap_or_default();
    let is_on = settings.get_u32("ProxyEnable").is_ok_and(|on| on != 0);
    let mut proxies = match is_on {
        true => internet_settings::proxies(&text("ProxyServer"), &text("ProxyOverride")),
        false => Proxies::default(),
    };
    proxies.script = Some(text("AutoConfigURL")).filter(|url| !url.is_empty());
    Some(proxies)
}

/// `None` if it has none.
fn of_computer() -> Option<Proxies> {
    let mut info = WINHTTP_PROXY_INFO::default();
    // SAFETY: the place for the result is ours.
    unsafe { WinHttpGetDefaultProxyConfiguration(&raw mut info) }.ok()?;
    let (servers, bypassed) = (taken(info.lpszProxy), taken(info.lpszProxyBypass));
    (info.dwAccessType == WINHTTP_ACCESS_TYPE_NAMED_PROXY)
        .then(|| internet_settings::proxies(&servers, &bypassed))
}

/// A text of the system's making; empty for none.
fn taken(text: PWSTR) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it ends with a zero; the system made it for us to free so, and it is not used again.
    unsafe {
        let copied = text.to_string().unwrap_or_default();
        // What cannot be freed is a few bytes less.
        let _ = GlobalFree(Some(HGLOBAL(text.0.cast())));
        copied
    }
}
