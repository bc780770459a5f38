//! The table of the IP Helper.
#![expect(unsafe_code, reason = "the table is read by foreign functions")]

use super::Route;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr, slice,
};
use windows::Win32::{
    NetworkManagement::IpHelper::{
        FreeMibTable, GetIpForwardTable2, IP_ADDRESS_PREFIX, MIB_IPFORWARD_TABLE2,
    },
    Networking::WinSock::{AF_INET, AF_INET6, AF_UNSPEC},
};

pub(super) fn routes() -> io::Result<Vec<Route>> {
    let table = Table::read()?;
    Ok(table.destinations().filter_map(route).collect())
}

/// A table of the system's making.
struct Table(*mut MIB_IPFORWARD_TABLE2);

impl Table {
    fn read() -> io::Result<Self> {
        let mut table = ptr::null_mut();
        // SAFETY: the place for the table's address is ours.
        unsafe { GetIpForwardTable2(AF_UNSPEC, &raw mut table) }.ok()?;
        Ok(Self(table))
    }

    fn destinations(&self) -> impl Iterator<Item = &IP_ADDRESS_PREFIX> {
        // SAFETY: the call that made it succeeded, so it is a table, with as many rows behind one another as it says; both live
        // until it is dropped.
        let rows = unsafe {
            slice::from_raw_parts((&raw const (*self.0).Table).cast(), (*self.0).NumEntries as usize)
        };
        rows.iter().map(|row: &windows::Win32::NetworkManagement::IpHelper::MIB_IPFORWARD_ROW2| {
            &row.DestinationPrefix
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the system made it for us to free so, and it is not used again.
        unsafe { FreeMibTable(self.0.cast()) };
    }
}

fn route(to: &IP_ADDRESS_PREFIX) -> Option<Route> {
    // SAFETY: every member of the union begins with the family, which says which of them it is; all are plain numbers.
    let address: IpAddr = unsafe {
        match to.Prefix.si_family {
            AF_INET => Ipv4Addr::from(to.Prefix.Ipv4.sin_addr.S_un.S_addr.to_ne_bytes()).into(),
            AF_INET6 => Ipv6Addr::from(to.Prefix.Ipv6.sin6_addr.u.Byte).into(),
            _ => return None,
        }
    };
    Route::of(address, to.PrefixLength)
}
