use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::tar::{Archive, Kind};

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn packed(directory: &Path, called: &str, what: Packed) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(open(directory).as_fd(), OsStr::new("."), called.as_bytes(), what, &Ids::default(), &mut archive)
        .unwrap();
    archive
}

fn names(archive: &[u8]) -> Vec<(String, Kind)> {
    let mut archive = Archive::new(archive);
    let mut names = Vec::new();
    while let Some(member) = archive.next_member().unwrap() {
        names.push((String::from_utf8(member.path).unwrap(), member.kind));
    }
    names
}

#[test]
fn a_tree_is_packed_and_unpacked_as_it_is() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| from.path().join(name);
    fs::create_dir_all(at("d/e")).unwrap();
    fs::write(at("d/f"), "text").unwrap();
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(at("d/f"), at("d/e/h")).unwrap();
    symlink("../nowhere", at("d/l")).unwrap();
    let archive = packed(&at("d"), "", Packed::Files);
    unpack(&archive[..], open(to.path()), Path::new("/x"), &UnpackOptions::default()).unwrap();
    let got = |name: &str| to.path().join("x").join(name);
    assert_eq!(fs::read_to_string(got("e/h")).unwrap(), "text");
    assert_eq!(fs::metadata(got("f")).unwrap().ino(), fs::metadata(got("e/h")).unwrap().ino());
    assert_eq!(fs::metadata(got("f")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(got("l")).unwrap(), Path::new("../nowhere"));
    let mtime = |path: &Path| fs::symlink_metadata(path).unwrap().mtime();
    assert_eq!(mtime(&got("e")), mtime(&at("d/e")));
}

#[test]
fn names_in_an_archive_begin_as_they_are_called() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("d")).unwrap();
    let listed = |called: &str| {
        names(&packed(from.path(), called, Packed::Files))
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(""), ["d/"]);
    assert_eq!(listed("x"), ["x/", "x/d/"]);
    assert_eq!(listed("."), ["./", "./d/"]);
    assert_eq!(listed("/"), ["/", "/d/"]);
}

#[test]
fn what_an_upper_directory_hides_is_told_as_in_a_layer() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name);
    fs::create_dir(at("d")).unwrap();
    rustix::fs::setxattr(at("d"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let whiteout = |name: &str| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, rustix::fs::Mode::empty(), 0).unwrap();
    };
    whiteout("gone");
    whiteout("d/too");
    let found = names(&packed(from.path(), "", Packed::Layer));
    let wanted = [
        ("d/", Kind::Directory),
        ("d/.wh..wh..opq", Kind::File),
        ("d/.wh.too", Kind::File),
        (".wh.gone", Kind::File),
    ];
    assert_eq!(found, wanted.map(|(name, kind)| (name.to_owned(), kind)));
    // And a layer that is unpacked hides the same.
    let to = tempfile::tempdir().unwrap();
    let archive = packed(from.path(), "", Packed::Layer);
    crate::layer::apply::apply(&archive[..], to.path(), &crate::store::Limits::default()).unwrap();
    assert!(fs::symlink_metadata(to.path().join("gone")).unwrap().file_type().is_char_device());
    assert_eq!(names(&packed(to.path(), "", Packed::Layer)), found);
}

/// A container that swaps a directory for a link to somewhere else while files are copied into it, or out of it.
#[test]
fn a_link_that_comes_meanwhile_leads_nowhere_outside() {
    let home = tempfile::tempdir().unwrap();
    let (root, outside) = (home.path().join("root"), home.path().join("outside"));
    for directory in [&root.join("real/d"), &root.join("spare"), &outside.join("d")] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(outside.join("d/secret"), "secret").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    symlink("../../../../../../../../../../../../outside", root.join("link2")).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..40 {
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("d/f{number}"), &b"x"[..]).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = |other: &str| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let (here, there) = (root.join("real"), root.join(other));
                // The unpacking makes what is missing, so that either may be in the way for a moment.
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, here, rustix::fs::CWD, there, flags);
            };
            while !done.load(Ordering::Relaxed) {
                ["link", "link2"].into_iter().for_each(exchange);
            }
        });
        for _ in 0..300 {
            // What fails because of the swapping may fail; what it must not do is to go elsewhere.
            let _ = unpack(&archive[..], open(&root), Path::new("/real"), &UnpackOptions::default());
            let mut out = Vec::new();
            let _ = pack(
                open(&root).as_fd(),
                OsStr::new("real"),
                b"real",
                Packed::Files,
                &Ids::default(),
                &mut out,
            );
            assert!(!String::from_utf8_lossy(&out).contains("secret"), "it was read from outside");
        }
        done.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> =
        fs::read_dir(outside.join("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"], "it was written outside");
}
