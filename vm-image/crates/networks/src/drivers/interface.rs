//! A container's device: its addresses, and the kernel's settings that the user has for it.

use std::fs;
use std::io;
use std::path::PathBuf;

use caisson_sys::netns::{self, Netns};

use super::bridge::{index_of, switch_on_ipv6};
use super::{DriverError, Reason};
use crate::book::EndpointRecord;
use crate::netlink::{self, Netlink};
use crate::{EndpointLink, LinkAddress, Subnet};

/// Sets up the container's end; returns its index.
pub(super) fn configure(
    netns: &Netns,
    inside: &mut Netlink,
    record: &EndpointRecord,
    link: &EndpointLink,
) -> Result<u32, DriverError> {
    let device = &record.endpoint.interface;
    if link.all_addresses().any(|address| address.address.is_ipv6()) {
        // The file of the container's namespace is seen only from within.
        netns::enter(netns, || switch_on_ipv6(device))?;
    }
    set(netns, record)?;
    let index = index_of(inside, device)?;
    let add = |address: LinkAddress| {
        netlink::add_address(index, address.address, Subnet::containing(address.address, address.prefix))
    };
    inside.batch(link.all_addresses().map(add).chain([netlink::set_up(index)]).collect())?;
    Ok(index)
}

/// Applies the settings (`com.docker.network.endpoint.sysctls`).
fn set(netns: &Netns, record: &EndpointRecord) -> Result<(), DriverError> {
    if record.sysctls.is_empty() {
        return Ok(());
    }
    let device = &record.endpoint.interface;
    let refused =
        netns::enter(netns, || Ok(record.sysctls.iter().find_map(|setting| write(setting, device).err())))?;
    match refused {
        None => Ok(()),
        Some(why) => {
            let device = record.device.clone().unwrap_or_else(|| device.clone());
            Err(Reason::Interface { device, why }.into())
        }
    }
}

/// Applies `net.ipv4.conf.IFNAME.log_martians=1`; the error is dockerd's.
fn write(setting: &str, device: &str) -> Result<(), String> {
    let Some((name, value)) = setting.split_once('=') else {
        return Err(format!("expected sysctl '{setting}' to have format name=value"));
    };
    let path = path(name, device);
    if !path.is_file() {
        return Err(format!("{} is not a sysctl file", path.display()));
    }
    fs::write(&path, value)
        .map_err(|error| format!("failed to write {value} to {}: {}", path.display(), in_gos_words(&error)))
}

/// Every dot of a name is a slash, so none leads out of `/proc/sys/net`.
fn path(name: &str, device: &str) -> PathBuf {
    // The CLI turns all of an option into lower case.
    let parts = name.split('.').map(|part| if part.eq_ignore_ascii_case("IFNAME") { device } else { part });
    PathBuf::from("/proc/sys").join(parts.collect::<Vec<_>>().join("/"))
}

/// An error of the system as Go writes it: without its number, in lower case.
pub(super) fn in_gos_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_files_of_the_device() {
        let told = |name: &str| path(name, "eth0").display().to_string();
        assert_eq!(told("net.ipv4.conf.IFNAME.log_martians"), "/proc/sys/net/ipv4/conf/eth0/log_martians");
        assert_eq!(told("net.ipv4.conf.ifname.rp_filter"), "/proc/sys/net/ipv4/conf/eth0/rp_filter");
        assert_eq!(told("net.ipv4.conf.IFNAME...."), "/proc/sys/net/ipv4/conf/eth0////", "no way up");
        assert_eq!(
            write("net.ipv4.conf.IFNAME.log", "eth0").unwrap_err(),
            "expected sysctl 'net.ipv4.conf.IFNAME.log' to have format name=value"
        );
        assert_eq!(in_gos_words(&io::Error::from_raw_os_error(17)), "file exists");
    }
}
