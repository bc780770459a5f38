//! The data disk: everything that the user's containers and images are.
//!
//! So the one rule is that nothing is ever formatted over: only a disk on which nothing was ever kept is. What is found
//! decides what is done ([`decide`]); a format that was cut off is known by a mark in the boot sector, which is cleared
//! when the format is safely on disk.
//!
//! The filesystem counts what projects take of it, by which the engine holds containers to their size (`--storage-opt size=`). A disk that was
//! formatted before that learns it at its next boot; where that fails it goes on without.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use caisson_guest_proto::FromGuest;
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, mount};

use crate::children::{Children, Exit};
use crate::link::Outbox;

/// Where the data disk is mounted.
pub(crate) const MOUNTED_AT: &str = "/var/lib/caisson";

/// What the boot sector says while the disk is formatted.
const MARK: [u8; 512] = mark();
const MARK_TEXT: &[u8; 24] = b"caisson: formatting this";
/// Where a BSD disk label says that it is one. mke2fs clears the boot sector unless it finds this there (`zap_sector` of its
/// misc/mke2fs.c), so the mark says it too.
const BSD_LABEL_AT: usize = 64;
const BSD_LABEL: [u8; 4] = 0x8256_4557_u32.to_le_bytes();
/// Where an ext4 filesystem says that it is one (`s_magic` of Documentation/filesystems/ext4/globals.rst).
const MAGIC_AT: usize = 1024 + 0x38;
const MAGIC: [u8; 2] = [0x53, 0xef];
/// The first copy of the superblock in a filesystem of 4 KiB blocks: block 32768, there at its start.
const COPY_OF_MAGIC_AT: u64 = 32768 * 4096 + 0x38;
/// How much of a disk must be zero for it to count as empty. Partition tables, LVM, LUKS, other filesystems and their
/// beginnings all lie within.
const EMPTY: usize = 1 << 20;

const fn mark() -> [u8; 512] {
    let mut mark = [0; 512];
    mark.split_at_mut(MARK_TEXT.len()).0.copy_from_slice(MARK_TEXT);
    mark.split_at_mut(BSD_LABEL_AT).1.split_at_mut(BSD_LABEL.len()).0.copy_from_slice(&BSD_LABEL);
    mark
}

/// What is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing.
    Empty,
    /// A format that was cut off before anything was kept in it.
    Formatting,
    /// An ext4 filesystem.
    Ext4,
    /// What is left of an ext4 filesystem that has lost its beginning.
    Headless,
    /// Something else.
    Foreign,
}

/// What is done with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Format,
    Check,
    Refuse(&'static str),
}

fn decide(found: Found) -> Step {
    match found {
        Found::Empty | Found::Formatting => Step::Format,
        Found::Ext4 => Step::Check,
        Found::Headless => Step::Refuse(
            "it has lost its first superblock; a copy is there, so e2fsck may be able to save it",
        ),
        Found::Foreign => Step::Refuse("it holds something that is not an ext4 filesystem"),
    }
}

/// Looks at a disk without changing it.
fn look(disk: &mut (impl Read + Seek)) -> io::Result<Found> {
    let start = read_up_to(disk, 0, EMPTY)?;
    if start.starts_with(MARK_TEXT) {
        return Ok(Found::Formatting);
    }
    if start.get(MAGIC_AT..MAGIC_AT + 2) == Some(&MAGIC) {
        return Ok(Found::Ext4);
    }
    if start.iter().any(|byte| *byte != 0) {
        return Ok(Found::Foreign);
    }
    let copy = read_up_to(disk, COPY_OF_MAGIC_AT, 2)?;
    Ok(if copy == MAGIC { Found::Headless } else { Found::Empty })
}

fn read_up_to(disk: &mut (impl Read + Seek), from: u64, length: usize) -> io::Result<Vec<u8>> {
    disk.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::with_capacity(length);
    disk.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes the data disk ready and mounts it. `tell` is called with what is being done as it begins.
pub(crate) async fn make_ready(
    children: &Children,
    device: &Path,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    let mut disk = open(device).await.with_context(|| format!("no {}", device.display()))?;
    match decide(look(&mut disk).context("could not be read")?) {
        Step::Format => {
            tell("Formatting the data disk");
            format(children, &disk, device).await?;
        }
        Step::Check => {
            tell("Checking the data disk");
            check(children, device).await?;
        }
        Step::Refuse(why) => bail!("{why}; it was left as it is"),
    }
    let counted = count_projects(children, &mut disk, device, &tell).await;
    // Without is as good as it was; not at all is the worst.
    let held = match counted {
        Ok(()) => mount_at(device, c"discard,errors=remount-ro,prjquota").await,
        Err(error) => Err(error),
    };
    if let Err(error) = held {
        tracing::error!("containers on the data disk cannot be held to a size: {error:#}");
        mount_at(device, c"discard,errors=remount-ro").await?;
    }
    grow(children, &mut disk, device, &tell).await;
    tracing::info!("the data disk is mounted");
    Ok(())
}

async fn mount_at(device: &Path, options: &'static CStr) -> anyhow::Result<()> {
    let source = device.to_owned();
    // Replaying a journal takes its time.
    let mounting = tokio::task::spawn_blocking(move || {
        mount(&source, MOUNTED_AT, "ext4", MountFlags::NOATIME, Some(options))
    });
    mounting.await.context("the mount did not end")?.context("could not be mounted")
}

/// Opens a disk, which may come some time after the root's.
async fn open(device: &Path) -> io::Result<File> {
    const DEADLINE: Duration = Duration::from_secs(5);
    const STEP: Duration = Duration::from_millis(10);
    let give_up_at = tokio::time::Instant::now() + DEADLINE;
    loop {
        match OpenOptions::new().read(true).write(true).open(device) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && tokio::time::Instant::now() < give_up_at =>
            {
                tokio::time::sleep(STEP).await;
            }
            opened => return opened,
        }
    }
}

async fn format(children: &Children, disk: &File, device: &Path) -> anyhow::Result<()> {
    tracing::info!("formatting the data disk");
    disk.write_all_at(&MARK, 0).and_then(|()| disk.sync_all()).context("could not be written to")?;
    // Nothing is discarded or zeroed beforehand: the disk is new. No blocks are set aside for root, who is all there is.
    let options = [
        "-t",
        "ext4",
        "-q",
        "-F",
        "-m",
        "0",
        "-L",
        "caisson",
        "-O",
        PROJECT_FEATURES,
        "-E",
        "nodiscard,lazy_itable_init=1,lazy_journal_init=1,quotatype=prjquota",
    ];
    let mut mke2fs = Command::new("/sbin/mke2fs");
    let (exit, output) =
        children.run(mke2fs.args(options).arg(device)).await.context("could not run mke2fs")?;
    if exit != Exit::Code(0) {
        bail!("mke2fs failed with {exit}: {output}");
    }
    disk.sync_all()
        .and_then(|()| disk.write_all_at(&[0; MARK.len()], 0))
        .and_then(|()| disk.sync_all())
        .context("could not be written to")
}

/// Sees to it that the filesystem counts what projects take of it.
async fn count_projects(
    children: &Children,
    disk: &mut File,
    device: &Path,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    if counts_projects(disk).context("its features could not be read")? {
        return Ok(());
    }
    tell("Teaching the data disk to count what containers take");
    tracing::info!("the data disk learns to count what projects take of it");
    let mut tune2fs = Command::new("/sbin/tune2fs");
    tune2fs.args(["-O", PROJECT_FEATURES, "-Q", "prjquota"]).arg(device);
    let (exit, output) = children.run(&mut tune2fs).await.context("could not run tune2fs")?;
    if exit == Exit::Code(0) { Ok(()) } else { bail!("tune2fs failed with {exit}: {output}") }
}

/// What of ext4 it takes to count what projects take.
const PROJECT_FEATURES: &str = "project,quota";

/// Whether an ext4 filesystem has both (`s_feature_ro_compat` of Documentation/filesystems/ext4/super.rst).
fn counts_projects(disk: &mut (impl Read + Seek)) -> io::Result<bool> {
    const QUOTA: u32 = 0x100;
    const PROJECT: u32 = 0x2000;
    let field = read_up_to(disk, 1024 + 0x64, 4)?;
    let features = field.try_into().map(u32::from_le_bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok(features & (QUOTA | PROJECT) == QUOTA | PROJECT)
}

async fn check(children: &Children, device: &Path) -> anyhow::Result<()> {
    let mut e2fsck = Command::new("/sbin/e2fsck");
    let (exit, output) = children.run(e2fsck.arg("-p").arg(device)).await.context("could not run e2fsck")?;
    match verdict(exit) {
        Verdict::Clean => Ok(()),
        Verdict::Repaired => {
            tracing::warn!("the data disk was repaired: {output}");
            Ok(())
        }
        Verdict::Broken => {
            bail!("its filesystem is damaged and e2fsck cannot repair it by itself ({exit}): {output}")
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Clean,
    Repaired,
    Broken,
}

/// What the exit status of `e2fsck -p` means (e2fsck(8)): 1 and 2 are repairs, the higher bits what went wrong.
fn verdict(exit: Exit) -> Verdict {
    match exit {
        Exit::Code(0) => Verdict::Clean,
        Exit::Code(1..=3) => Verdict::Repaired,
        Exit::Code(_) | Exit::Signal(_) => Verdict::Broken,
    }
}

/// Lets the filesystem fill a disk that was made larger. What fails is logged: the old size still works.
async fn grow(children: &Children, disk: &mut File, device: &Path, tell: impl Fn(&str)) {
    let grown = async {
        let device_size = disk.seek(SeekFrom::End(0)).context("could not find the disk's size")?;
        let filesystem = filesystem_size(disk).context("could not find the filesystem's size")?;
        if !is_worth_growing(device_size, filesystem) {
            return Ok(());
        }
        tell("Growing the data disk");
        tracing::info!("growing the data disk from {filesystem} to {device_size} bytes");
        let (exit, output) = children.run(Command::new("/sbin/resize2fs").arg(device)).await?;
        if exit == Exit::Code(0) { Ok(()) } else { bail!("resize2fs failed with {exit}: {output}") }
    };
    if let Err(error) = grown.await {
        tracing::error!("the data disk could not be grown: {error:#}");
    }
}

/// A filesystem ends at a whole block and may leave out a last group that is too small to be one.
fn is_worth_growing(device: u64, filesystem: u64) -> bool {
    const ONE_GROUP: u64 = 32768 * 4096;
    device >= filesystem + ONE_GROUP
}

/// The size of an ext4 filesystem in bytes, from its superblock (`s_blocks_count_lo/hi`, `s_log_block_size`).
fn filesystem_size(disk: &mut (impl Read + Seek)) -> io::Result<u64> {
    let superblock = read_up_to(disk, 1024, 1024)?;
    let field = |at: usize| {
        let bytes = superblock.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or(io::ErrorKind::UnexpectedEof)
    };
    let (low, log_block_size, high) = (field(0x4)?, field(0x18)?, field(0x150)?);
    let blocks = u64::from(high) << 32 | u64::from(low);
    blocks
        .checked_mul(1024u64.checked_shl(log_block_size).unwrap_or(0))
        .ok_or(io::ErrorKind::InvalidData.into())
}

/// Tells the host when the data disk is full, and when it has room again, once each time it becomes so. A disk that takes no writes is not full.
pub(crate) async fn watch_space(outbox: Arc<Outbox>) {
    const EVERY: Duration = Duration::from_secs(10);
    let mut full = false;
    loop {
        // While the machine stops, what is seen there is the root, which is read-only and has no room by nature.
        let space = rustix::fs::statvfs(MOUNTED_AT).ok();
        if let Some(space) = space.filter(|space| !space.f_flag.contains(StatVfsMountFlags::RDONLY)) {
            let (free, total) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
            let was_full = std::mem::replace(&mut full, is_full(free, total));
            if full && !was_full {
                tracing::warn!("the data disk is full: {free} of {total} bytes are free");
                outbox.send(FromGuest::DiskFull { free, total });
            } else if was_full && !full {
                tracing::info!("the data disk has room again: {free} of {total} bytes are free");
                outbox.send(FromGuest::DiskHasRoom);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Less than a hundredth, or than what an image's layer may take at any moment.
fn is_full(free: u64, total: u64) -> bool {
    const LITTLE: u64 = 64 << 20;
    free < LITTLE.max(total / 100)
}

/// Writes out and unmounts the data disk; if something still holds it, makes it read-only, which is as safe.
pub(crate) fn unmount() -> anyhow::Result<()> {
    use rustix::mount::{UnmountFlags, mount_remount};
    if !fs::read_to_string("/proc/self/mounts").unwrap_or_default().contains(MOUNTED_AT) {
        return Ok(());
    }
    rustix::fs::sync();
    if rustix::mount::unmount(MOUNTED_AT, UnmountFlags::empty()).is_ok() {
        return Ok(());
    }
    mount_remount(MOUNTED_AT, MountFlags::RDONLY, c"").context("the data disk could not be unmounted")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn disk(size: usize) -> Vec<u8> {
        vec![0; size]
    }

    fn put(mut disk: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
        disk[at..at + bytes.len()].copy_from_slice(bytes);
        disk
    }

    #[test]
    fn only_a_disk_on_which_nothing_was_kept_is_formatted() {
        const SIZE: usize = 256 << 20;
        let table: Vec<(Vec<u8>, Found, bool)> = vec![
            (disk(SIZE), Found::Empty, true),
            (disk(0), Found::Empty, true),
            (put(disk(SIZE), 0, &MARK), Found::Formatting, true),
            (put(put(disk(SIZE), 0, &MARK), MAGIC_AT, &MAGIC), Found::Formatting, true),
            (put(disk(SIZE), MAGIC_AT, &MAGIC), Found::Ext4, false),
            (put(disk(SIZE), COPY_OF_MAGIC_AT as usize, &MAGIC), Found::Headless, false),
            (put(disk(SIZE), 510, &[0x55, 0xaa]), Found::Foreign, false),
            (put(disk(SIZE), EMPTY - 1, &[1]), Found::Foreign, false),
            (put(disk(SIZE), 0, b"XFSB"), Found::Foreign, false),
        ];
        for (bytes, found, formatted) in table {
            assert_eq!(look(&mut Cursor::new(bytes)).unwrap(), found);
            assert_eq!(decide(found) == Step::Format, formatted, "{found:?}");
        }
    }

    #[test]
    fn e2fsck_has_the_last_word() {
        for (exit, expected) in [
            (Exit::Code(0), Verdict::Clean),
            (Exit::Code(1), Verdict::Repaired),
            (Exit::Code(3), Verdict::Repaired),
            (Exit::Code(4), Verdict::Broken),
            (Exit::Code(12), Verdict::Broken),
            (Exit::Signal(9), Verdict::Broken),
        ] {
            assert_eq!(verdict(exit), expected, "{exit}");
        }
    }

    #[test]
    fn a_filesystem_knows_its_size_beyond_32_bits() {
        let superblock = put(disk(4096), 1024 + 0x4, &5u32.to_le_bytes());
        let superblock = put(superblock, 1024 + 0x18, &2u32.to_le_bytes());
        let superblock = put(superblock, 1024 + 0x150, &1u32.to_le_bytes());
        assert_eq!(filesystem_size(&mut Cursor::new(superblock)).unwrap(), ((1 << 32) + 5) * 4096);
        assert!(filesystem_size(&mut Cursor::new(disk(1100))).is_err());
    }

    #[test]
    fn a_filesystem_says_whether_it_counts_projects() {
        let with = |features: u32| put(disk(4096), 1024 + 0x64, &features.to_le_bytes());
        let counts = |features: u32| counts_projects(&mut Cursor::new(with(features))).unwrap();
        assert_eq!([0, 0x100, 0x2000, 0x2100, 0xffff].map(counts), [false, false, false, true, true]);
        assert!(counts_projects(&mut Cursor::new(disk(1024))).is_err());
    }

    #[test]
    fn a_disk_is_grown_by_whole_groups_and_never_shrunk() {
        const GIB: u64 = 1 << 30;
        assert!(is_worth_growing(2 * GIB, GIB));
        assert!(!is_worth_growing(GIB + 4095, GIB));
        assert!(!is_worth_growing(GIB, 2 * GIB));
    }

    #[test]
    fn a_disk_is_full_by_share_or_by_size() {
        const GIB: u64 = 1 << 30;
        assert!(is_full(GIB / 2, 64 * GIB));
        assert!(!is_full(GIB, 64 * GIB));
        assert!(is_full(63 << 20, GIB));
        assert!(!is_full(65 << 20, GIB));
    }
}
