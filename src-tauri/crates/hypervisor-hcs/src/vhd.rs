//! A fixed VHD: the raw disk, then a footer of 512 bytes.
//!
//! Source: "Virtual Hard Disk Image Format Specification", version 1.0, Microsoft 2006; fields are big-endian.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Fixed VHDs are kept to whole MiB, as Hyper-V wants them.
const ALIGNMENT: u64 = 1 << 20;
const SECTOR: u64 = 512;
const FOOTER: usize = 512;
const CHECKSUM_AT: usize = 64;

/// Writes `raw` as a fixed VHD to `vhd`, padded with zeros to a whole MiB.
pub(crate) fn write_fixed(raw: &Path, vhd: &Path) -> io::Result<()> {
    let mut from = File::open(raw)?;
    let mut to = File::create(vhd)?;
    let copied = io::copy(&mut from, &mut to)?;
    let size = copied.next_multiple_of(ALIGNMENT);
    io::copy(&mut io::Read::take(io::repeat(0), size - copied), &mut to)?;
    to.write_all(&footer(size))?;
    to.sync_all()
}

/// The footer of a fixed disk of `size` bytes.
fn footer(size: u64) -> [u8; FOOTER] {
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    let mut footer = Vec::with_capacity(FOOTER);
    footer.extend(b"conectix");
    footer.extend(2u32.to_be_bytes()); // features: the reserved bit, always set
    footer.extend(0x0001_0000u32.to_be_bytes()); // file format version
    footer.extend(u64::MAX.to_be_bytes()); // data offset: none for fixed disks
    footer.extend(0u32.to_be_bytes()); // time stamp: the same image gives the same bytes
    footer.extend(b"cais"); // creator application
    footer.extend(0x0001_0000u32.to_be_bytes()); // creator version
    footer.extend(b"Wi2k"); // creator host OS
    footer.extend(size.to_be_bytes()); // original size
    footer.extend(size.to_be_bytes()); // current size
    footer.extend(cylinders.to_be_bytes());
    footer.extend([heads, sectors]);
    footer.extend(2u32.to_be_bytes()); // disk type: fixed
    footer.extend(0u32.to_be_bytes()); // checksum, filled in below
    footer.extend(size.rotate_left(17).to_be_bytes()); // unique id, from the size: nothing compares two roots
    footer.extend(size.rotate_left(43).to_be_bytes());
    let mut bytes = [0; FOOTER];
    bytes[..footer.len()].copy_from_slice(&footer);
    let sum = bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

/// Cylinders, heads and sectors a track of a disk with so many sectors: the specification's appendix.
fn geometry(total: u64) -> (u16, u8, u8) {
    let total = total.min(65_535 * 16 * 255);
    if total >= 65_535 * 16 * 63 {
        return (narrow(total / 255 / 16), 16, 255);
    }
    let by_17 = total / 17;
    let heads = by_17.div_ceil(1024).max(4);
    if by_17 < heads * 1024 && heads <= 16 {
        return (narrow(by_17 / heads), heads as u8, 17);
    }
    let by_31 = total / 31;
    match by_31 < 16 * 1024 {
        true => (narrow(by_31 / 16), 16, 31),
        false => (narrow(total / 63 / 16), 16, 63),
    }
}

fn narrow(cylinders: u64) -> u16 {
    u16::try_from(cylinders).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_complement_of_all_other_bytes() {
        let footer = footer(5 << 20);
        let told = u32::from_be_bytes([footer[64], footer[65], footer[66], footer[67]]);
        let sum = footer.iter().enumerate().filter(|(at, _)| !(64..68).contains(at));
        assert_eq!(!told, sum.fold(0u32, |sum, (_, byte)| sum + u32::from(*byte)));
    }

    #[test]
    fn the_geometry_covers_no_more_than_the_disk() {
        for mib in [1u64, 15, 64, 504, 2048, 60_000, 2_000_000] {
            let total = mib * 2048;
            let (cylinders, heads, sectors) = geometry(total);
            let covered = u64::from(cylinders) * u64::from(heads) * u64::from(sectors);
            assert!(covered <= total && covered > 0, "{mib} MiB: {cylinders}/{heads}/{sectors}");
        }
    }

    #[test]
    fn a_fixed_disk_is_the_image_its_padding_and_a_footer() -> io::Result<()> {
        let dir = std::env::temp_dir().join(format!("caisson-vhd-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let (raw, vhd) = (dir.join("raw"), dir.join("vhd"));
        std::fs::write(&raw, b"image")?;
        write_fixed(&raw, &vhd)?;
        let written = std::fs::read(&vhd)?;
        std::fs::remove_dir_all(&dir)?;
        assert_eq!(written.len(), (1 << 20) + FOOTER);
        assert_eq!(&written[..6], b"image\0");
        assert_eq!(&written[1 << 20..(1 << 20) + 8], b"conectix");
        Ok(())
    }
}
