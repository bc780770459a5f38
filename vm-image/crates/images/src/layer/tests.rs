use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;
use crate::testing::{Tarball, chain, count, gzip, is_privileged, limits};

struct Place {
    root: tempfile::TempDir,
    layers: Layers,
}

fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    for dir in ["layers", "tmp", "outside"] {
        fs::create_dir(root.path().join(dir)).unwrap();
    }
    fs::write(root.path().join("outside/secret"), "untouched").unwrap();
    let layers = Layers::new(root.path().join("layers"), root.path().join("tmp"));
    Place { root, layers }
}

impl Place {
    /// Unpacks; what is refused must have left nothing, and what is outside must be as it was.
    fn unpack(&self, tar: &[u8]) -> Result<PathBuf, LayerError> {
        let staged = self.layers.stage(tar, &limits());
        assert_eq!(count(self.root.path().join("outside")), 1);
        assert_eq!(fs::read_to_string(self.root.path().join("outside/secret")).unwrap(), "untouched");
        match staged {
            Err(error) => {
                assert_eq!(count(self.root.path().join("tmp")), 0, "left behind after {error}");
                Err(error)
            }
            Ok(staged) => {
                let path = self.layers.path(&staged.diff_id);
                self.layers.flush(vec![staged]).and_then(|layer| self.layers.publish(layer)).unwrap();
                Ok(path)
            }
        }
    }
}

fn opaque(path: impl AsRef<Path>) -> bool {
    let mut value = [0; 8];
    rustix::fs::lgetxattr(path.as_ref(), "trusted.overlay.opaque", &mut value)
        .is_ok_and(|length| &value[..length] == b"y")
}

fn is_whiteout(path: impl AsRef<Path>) -> bool {
    path.as_ref().symlink_metadata().is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn files_come_out_as_they_went_in() {
    let place = place();
    let long = "n".repeat(200);
    let tar = Tarball::default()
        .dir("./")
        .entry(b'5', "dir", "", b"", |header| header.set_mode(0o1777))
        .entry(b'0', "dir/file", "", b"content", |header| header.set_mode(0o4711))
        .symlink("dir/link", "/etc/passwd")
        .hard_link("hard", "dir/file")
        .entry(b'6', "fifo", "", b"", |_| {})
        .file("implied/deep/file", b"x")
        .pax(&[("path", long.as_bytes()), ("mtime", b"1600000000.25")])
        .file("short", b"y")
        .end();
    let root = place.unpack(&tar).unwrap();
    let meta = |name: &str| root.join(name).symlink_metadata().unwrap();
    assert_eq!(read(root.join("dir/file")), "content");
    assert_eq!(meta("dir/file").permissions().mode() & 0o7777, 0o4711);
    assert_eq!(meta("dir").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(meta("dir").mtime(), 1_700_000_000);
    assert_eq!(meta("implied/deep").permissions().mode() & 0o7777, 0o755);
    assert_eq!(meta("").permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_link(root.join("dir/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(meta("dir/link").mtime(), 1_700_000_000);
    assert_eq!(meta("hard").ino(), meta("dir/file").ino());
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!((meta(&long).mtime(), meta(&long).mtime_nsec()), (1_600_000_000, 250_000_000));
    let sizes: u64 = ["content", "/etc/passwd", "x", "y"].map(str::len).iter().sum::<usize>() as u64;
    assert_eq!(place.layers.record(&DiffId(Digest::of(&tar))).unwrap().unwrap().size, sizes);
}

#[test]
fn any_compression_gives_the_same_layer() {
    let tar = Tarball::default().file("a", &b"text ".repeat(9999)).end();
    for packed in [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 3).unwrap()] {
        let place = place();
        assert_eq!(place.unpack(&packed).unwrap(), place.layers.path(&DiffId(Digest::of(&tar))));
        assert_eq!(place.layers.list().unwrap(), [DiffId(Digest::of(&tar))]);
    }
}

#[test]
fn later_members_replace_earlier_ones() {
    let place = place();
    let tar = Tarball::default()
        .file("a", b"first")
        .file("a", b"second")
        .dir("b")
        .file("b/in", b"")
        .file("b", b"now a file")
        .symlink("c", "nowhere")
        .dir("c")
        .file("c/in", b"in c")
        .dir("d")
        .file("d/in", b"kept")
        .dir("d")
        .end();
    let root = place.unpack(&tar).unwrap();
    assert_eq!(read(root.join("a")), "second");
    assert_eq!(read(root.join("b")), "now a file");
    assert_eq!(read(root.join("c/in")), "in c");
    assert_eq!(read(root.join("d/in")), "kept");
}

#[test]
fn whiteouts_become_what_overlayfs_knows() {
    if !is_privileged() {
        return;
    }
    let place = place();
    let tar = Tarball::default()
        .file(".wh.gone", b"")
        .file("deep/.wh.gone", b"")
        .dir("new")
        .file("new/.wh..wh..opq", b"")
        .file("implied/.wh..wh..opq", b"")
        .file(".wh..wh.plnk", b"")
        .dir("kept-dir")
        .file(".wh.kept-dir", b"")
        .file("kept-file", b"kept")
        .file(".wh.kept-file", b"")
        .file(".wh.back-dir", b"")
        .dir("back-dir")
        .file(".wh.back-file", b"")
        .file("back-file", b"back")
        .file(".wh.back-implied", b"")
        .file("back-implied/file", b"")
        .end();
    let root = place.unpack(&tar).unwrap();
    assert!(is_whiteout(root.join("gone")) && is_whiteout(root.join("deep/gone")));
    assert!(opaque(root.join("new")) && opaque(root.join("implied")) && !opaque(root.join("deep")));
    assert!(opaque(root.join("kept-dir")) && root.join("kept-dir").is_dir());
    assert!(opaque(root.join("back-dir")) && opaque(root.join("back-implied")));
    assert_eq!(
        (read(root.join("kept-file")), read(root.join("back-file"))),
        ("kept".to_owned(), "back".to_owned())
    );
    assert!(
        fs::read_dir(&root).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".wh."))
    );
}

#[test]
fn devices_owners_and_attributes_are_kept() {
    if !is_privileged() {
        return;
    }
    let place = place();
    let device = |header: &mut tar::Header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_mode(0o666);
    };
    let owner = |header: &mut tar::Header| {
        header.set_uid(65534);
        header.set_gid(1234);
        header.set_mode(0o6755);
    };
    // VFS_CAP_REVISION_2, cap_net_raw.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tarball::default()
        .entry(b'3', "null", "", b"", device)
        .entry(b'0', "owned", "", b"x", owner)
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("SCHILY.xattr.user.text", b"a=b\nc")])
        .file("ping", b"x")
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .dir("dir")
        .entry(b'2', "link", "null", b"", owner)
        .end();
    let root = place.unpack(&tar).unwrap();
    let meta = |name: &str| root.join(name).symlink_metadata().unwrap();
    assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(meta("null").permissions().mode() & 0o7777, 0o666);
    assert_eq!((meta("owned").uid(), meta("owned").gid()), (65534, 1234));
    assert_eq!(meta("owned").permissions().mode() & 0o7777, 0o6755);
    assert_eq!((meta("link").uid(), meta("link").gid()), (65534, 1234));
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(root.join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    let length = rustix::fs::lgetxattr(root.join("ping"), "user.text", &mut value).unwrap();
    assert_eq!(&value[..length], b"a=b\nc");
    assert!(!opaque(root.join("dir")));
    assert!(rustix::fs::lgetxattr(root.join("dir"), "trusted.overlay.redirect", &mut value).is_err());
}

#[test]
fn holes_stay_holes() {
    let place = place();
    let map = "1048576,3,8388608,0";
    let tar = Tarball::default()
        .pax(&[("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", b"8388608")])
        .file("sparse", b"abc")
        .file("zeros", &vec![0; 4 << 20])
        .end();
    let root = place.unpack(&tar).unwrap();
    let sparse = fs::read(root.join("sparse")).unwrap();
    assert_eq!((sparse.len(), &sparse[1 << 20..][..4]), (8 << 20, &b"abc\0"[..]));
    for (name, size) in [("sparse", 8 << 20), ("zeros", 4 << 20)] {
        let meta = root.join(name).metadata().unwrap();
        assert_eq!(meta.len(), size);
        assert!(meta.blocks() * 512 < 1 << 20, "{name} has {} blocks", meta.blocks());
    }
}

#[test]
fn nothing_leads_out_of_a_layer() {
    let names = ["../evil", "/../evil", "a/../../evil", "..", "../outside/secret", "a/b/../../../evil"];
    for name in names {
        let tar = Tarball::default().file(name, b"evil").end();
        assert!(matches!(place().unpack(&tar), Err(LayerError::Outside(_))), "{name}");
        let whiteout = Tarball::default().file(&format!("../.wh.{}", name.len()), b"").end();
        assert!(matches!(place().unpack(&whiteout), Err(LayerError::Outside(_))), "{name}");
        let link = Tarball::default().hard_link("link", name).end();
        assert!(matches!(place().unpack(&link), Err(LayerError::Outside(_))), "{name}");
    }
    for name in [".wh..", ".wh...", ".wh.", "a/.wh..."] {
        let tar = Tarball::default().file(name, b"").end();
        assert!(matches!(place().unpack(&tar), Err(LayerError::BadWhiteout(_))), "{name}");
    }
}

#[test]
fn links_lead_no_further_than_the_root() {
    let place = place();
    let outside = place.root.path().join("outside");
    let up = "../".repeat(20) + "outside-by-dots";
    let tar = Tarball::default()
        .dir("outside-by-dots")
        .dir("target")
        .symlink("absolute", "/target")
        .file("absolute/file", b"inside")
        .symlink("dots", &up)
        .file("dots/file", b"inside")
        .symlink("last", outside.join("secret").to_str().unwrap())
        .file("last", b"replaced the link")
        .file("/absolute-name", b"inside")
        .end();
    let root = place.unpack(&tar).unwrap();
    for inside in ["target/file", "outside-by-dots/file", "absolute-name"] {
        assert_eq!(read(root.join(inside)), "inside", "{inside}");
    }
    assert_eq!(read(root.join("last")), "replaced the link");
}

#[test]
fn links_to_what_is_only_outside_are_refused() {
    for through in ["in", "in/deeper"] {
        let place = place();
        let outside = place.root.path().join("outside");
        let tar = Tarball::default()
            .symlink("in", outside.to_str().unwrap())
            .file(&format!("{through}/evil"), b"")
            .end();
        assert_eq!(place.unpack(&tar).unwrap_err().kind(), ErrorKind::Invalid, "{through}");
        let link = Tarball::default()
            .symlink("in", outside.to_str().unwrap())
            .hard_link("stolen", "in/secret")
            .end();
        assert_eq!(place.unpack(&link).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let place = place();
    let secret = place.root.path().join("outside/secret");
    let absolute = Tarball::default().hard_link("stolen", secret.to_str().unwrap()).end();
    assert_eq!(place.unpack(&absolute).unwrap_err().kind(), ErrorKind::Invalid);
    // A hard link to a symbolic link is the link, not what it leads to.
    let link = Tarball::default().symlink("s", secret.to_str().unwrap()).hard_link("h", "s").end();
    let root = place.unpack(&link).unwrap();
    assert!(root.join("h").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_removal_does_not_follow_links() {
    let place = place();
    let outside = place.root.path().join("outside");
    let tar = Tarball::default()
        .dir("d")
        .symlink("d/out", outside.to_str().unwrap())
        .file("d", b"the directory is gone")
        .symlink("s", outside.to_str().unwrap())
        .dir("s")
        .file("s/secret", b"mine")
        .end();
    let root = place.unpack(&tar).unwrap();
    assert_eq!(read(root.join("s/secret")), "mine");
}

#[test]
fn contradictions_are_refused() {
    for (what, tar) in [
        ("a file as a directory", Tarball::default().file("a", b"").file("a/b", b"")),
        ("a link to nothing", Tarball::default().hard_link("a", "b")),
        ("a link to itself", Tarball::default().hard_link("a", "a")),
        ("a link to the root", Tarball::default().hard_link("a", "/")),
        ("links in a circle", Tarball::default().symlink("a", "b").symlink("b", "a").file("a/x", b"")),
        ("a name too long", Tarball::default().pax(&[("path", "n".repeat(256).as_bytes())]).file("x", b"")),
    ] {
        assert_eq!(place().unpack(&tar.end()).unwrap_err().kind(), ErrorKind::Invalid, "{what}");
    }
    for uid in ["4294967295", "99999999999"] {
        let tar = Tarball::default().pax(&[("uid", uid.as_bytes())]).file("x", b"").end();
        assert!(matches!(place().unpack(&tar), Err(LayerError::BadOwner(_))), "{uid}");
    }
}

#[test]
fn bombs_and_broken_streams_leave_nothing() {
    let place = place();
    let tar = Tarball::default().file("zeros", &vec![0; 1 << 20]).file("more", b"x").end();
    let packed = gzip(&tar);
    let refused = |limits: Limits, tar: &[u8]| {
        let error = place.layers.stage(tar, &limits).unwrap_err();
        assert_eq!(count(place.root.path().join("tmp")), 0);
        error
    };
    let few = Limits { layer_bytes: 1 << 20, ..limits() };
    assert!(matches!(refused(few, &packed), LayerError::TooLarge(_)));
    let few = Limits { layer_entries: 1, ..limits() };
    assert!(matches!(refused(few, &packed), LayerError::TooManyEntries(1)));
    let full = Limits { keep_free: u64::MAX, ..limits() };
    assert!(matches!(refused(full, &packed), LayerError::NoSpace));
    for cut in [packed.len() - 1, packed.len() / 2, 20] {
        assert_eq!(refused(limits(), &packed[..cut]).kind(), ErrorKind::Invalid, "{cut}");
    }
    assert!(matches!(refused(limits(), &tar[..tar.len() - 2000]), LayerError::Tar(TarError::Truncated)));
    assert!(matches!(refused(limits(), &[b'x'; 4096]), LayerError::Tar(TarError::Header)));
    // Beyond the end of the archive the stream still counts.
    let endless = std::io::Read::chain(&tar[..], std::io::repeat(0));
    let error = place.layers.stage(endless, &Limits { layer_bytes: 4 << 20, ..limits() }).unwrap_err();
    assert!(matches!(error, LayerError::TooLarge(_)));
}

#[test]
fn a_layer_is_published_once_and_discarded_whole() {
    let place = place();
    let tar = Tarball::default().dir("d").file("d/f", b"x").end();
    let path = place.unpack(&tar).unwrap();
    assert_eq!(place.unpack(&tar).unwrap(), path);
    assert_eq!(count(place.root.path().join("tmp")), 0);
    let id = DiffId(Digest::of(&tar));
    let gone = place.layers.discard(&id).unwrap();
    assert_eq!(place.layers.record(&id).unwrap(), None);
    drop(gone);
    assert_eq!(count(place.root.path().join("tmp")) + count(place.root.path().join("layers")), 0);
}

/// Archives of random members with random, often hostile names: whatever comes of it, nothing outside changes, and a
/// refused one leaves nothing (both asked by `unpack`).
#[test]
fn random_archives_never_leave_the_root() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let place = place();
    let outside = place.root.path().join("outside").to_str().unwrap().to_owned();
    let parts = [
        "a",
        "b",
        "a/b",
        "a/../b",
        "/a",
        "b/c",
        ".",
        "./b",
        ".wh.a",
        ".wh..wh..opq",
        "a/.wh.b",
        "..",
        "b/../../c",
    ];
    let targets = ["a", "b", "/", "..", "../..", "../../../outside", &outside, "/a/b", "a/b/c", "."];
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..if is_privileged() { 400 } else { 0 } {
        let mut tar = Tarball::default();
        for _ in 0..1 + random(8) {
            let (first, second) = (parts[random(parts.len())], parts[random(parts.len() - 2)]);
            let name = if random(2) == 0 { first.to_owned() } else { format!("{second}/{first}") };
            let target = targets[random(targets.len())];
            tar = match random(5) {
                0 => tar.symlink(&name, target),
                1 => tar.hard_link(&name, target),
                2 => tar.dir(&name),
                _ => tar.file(&name, b"data"),
            };
        }
        match place.unpack(&tar.end()) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(!is_privileged() || (taken > 20 && refused > 20), "{taken} taken, {refused} refused");
}

#[test]
fn a_layer_is_kept_as_it_came_or_packed() {
    let tar = Tarball::default().file("f", &b"some text ".repeat(1000)).end();
    let id = DiffId(Digest::of(&tar));
    for (came, compression) in [
        (gzip(&tar), Compression::Gzip),
        (zstd::encode_all(&tar[..], 9).unwrap(), Compression::Zstd),
        (tar.clone(), Compression::Zstd),
    ] {
        let place = place();
        place.unpack(&came).unwrap();
        let record = place.layers.record(&id).unwrap().unwrap();
        let blob = record.blob.unwrap();
        let mut kept = Vec::new();
        place.layers.open_blob(&id).unwrap().read_to_end(&mut kept).unwrap();
        assert_eq!((blob.compression, blob.digest), (compression, Digest::of(&kept)));
        assert_eq!((blob.size, record.tar_bytes), (kept.len() as u64, Some(tar.len() as u64)));
        let mut plain = Vec::new();
        decompressed(&kept[..]).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!((plain == tar, came == tar || kept == came), (true, true));
    }
}

#[test]
fn what_format_1_left_is_made_whole_when_it_comes_again() {
    let place = place();
    let tar = Tarball::default().file("f", b"x").end();
    let id = DiffId(Digest::of(&tar));
    place.unpack(&tar).unwrap();
    let home = place.root.path().join("layers").join(id.0.hex());
    fs::remove_file(home.join("blob")).unwrap();
    fs::write(home.join("layer.json"), r#"{"version":1,"size":1}"#).unwrap();
    let old = place.layers.record(&id).unwrap().unwrap();
    assert_eq!((old.size, old.is_complete()), (1, false));
    place.unpack(&gzip(&tar)).unwrap();
    let blob = place.layers.record(&id).unwrap().unwrap().blob.unwrap();
    assert_eq!(blob.compression, Compression::Gzip);
    assert_eq!(fs::read(home.join("blob")).unwrap(), gzip(&tar));
    // A blob that is told of must be there.
    fs::remove_file(home.join("blob")).unwrap();
    assert_eq!(place.layers.record(&id).unwrap(), None);
}

#[test]
fn names_are_bytes_and_may_be_long() {
    let place = place();
    let latin = b"caf\xe9/\xff\xfe";
    let long = [b"d/".repeat(60), b"\xc3\xa4".repeat(100)].concat();
    let gnu = [b"g/".repeat(60), b"\xff".repeat(120), b"\0".to_vec()].concat();
    let tar = Tarball::default()
        .pax(&[("path", latin)])
        .file("x", b"latin")
        .pax(&[("path", &long)])
        .file("x", b"long")
        .entry(b'L', "././@LongLink", "", &gnu, |_| {})
        .file("x", b"gnu")
        .pax(&[("linkpath", latin)])
        .hard_link("link", "x")
        .end();
    let root = place.unpack(&tar).unwrap();
    let at = |name: &[u8]| root.join(std::ffi::OsStr::from_bytes(name));
    assert_eq!(read(at(latin)), "latin");
    assert_eq!(read(at(&long)), "long");
    assert_eq!(read(at(&gnu[..gnu.len() - 1])), "gnu");
    assert_eq!(root.join("link").metadata().unwrap().ino(), at(latin).metadata().unwrap().ino());
}

/// A layer stands for itself, as in dockerd's classic image store: what it links to must be in it.
#[test]
fn a_link_to_what_only_a_lower_layer_has_is_refused() {
    let place = place();
    place.unpack(&Tarball::default().file("lower", b"x").end()).unwrap();
    let upper = Tarball::default().hard_link("upper", "lower").end();
    let told = chain(&self::place().unpack(&upper).unwrap_err());
    assert_eq!(told, "could not link \"upper\": No such file or directory (os error 2)");
}
