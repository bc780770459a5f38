use super::*;

fn members(bytes: &[u8]) -> Result<Vec<Member>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut members = Vec::new();
    while let Some(member) = archive.next_member()? {
        members.push(member);
    }
    Ok(members)
}

fn data(bytes: &[u8]) -> Result<(Member, Vec<u8>), TarError> {
    let mut archive = Archive::new(bytes);
    let member = archive.next_member()?.unwrap();
    let mut data = Vec::new();
    let mut buffer = [0; 100];
    loop {
        match archive.read_data(&mut buffer)? {
            0 => return Ok((member, data)),
            read => data.extend_from_slice(&buffer[..read]),
        }
    }
}

fn header(kind: u8, path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_path(path).unwrap();
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(7);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A block, and data filled up to blocks.
fn entry(header: &tar::Header, data: &[u8]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn records(records: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        bytes.extend_from_slice(format!("{length}{rest}").as_bytes());
    }
    bytes
}

fn with_pax(pairs: &[(&str, &str)], header: &tar::Header, data: &[u8]) -> Vec<u8> {
    let pax = records(pairs);
    [entry(&self::header(b'x', "pax", pax.len() as u64), &pax), entry(header, data)].concat()
}

#[test]
fn a_header_says_what_a_file_is() {
    let bytes = [entry(&header(b'0', "a/b", 3), b"abc"), vec![0; 1024]].concat();
    let (member, content) = data(&bytes).unwrap();
    assert_eq!((member.path.as_slice(), member.mode, member.uid, member.gid), (&b"a/b"[..], 0o4755, 1000, 7));
    assert_eq!(member.mtime, Time { seconds: 1_700_000_000, nanoseconds: 0 });
    assert_eq!(content, b"abc");
}

#[test]
fn long_names_of_all_makes_are_read() {
    let long = "d/".repeat(120) + "file";
    let mut builder = tar::Builder::new(Vec::new());
    let mut gnu = tar::Header::new_gnu();
    gnu.set_size(0);
    gnu.set_mode(0o644);
    builder.append_data(&mut gnu, &long, &b""[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "l", &long).unwrap();
    let members = members(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(members[0].path, long.as_bytes());
    assert_eq!((members[1].kind, members[1].target.as_slice()), (Kind::Symlink, long.as_bytes()));
    let pax = with_pax(&[("path", &long), ("linkpath", "to")], &header(b'2', "short", 0), b"");
    let (member, _) = data(&pax).unwrap();
    assert_eq!((member.path, member.target), (long.into_bytes(), b"to".to_vec()));
}

#[test]
fn pax_records_say_over_the_header() {
    let pairs = [
        ("size", "5"),
        ("uid", "70000"),
        ("mtime", "12.5"),
        ("SCHILY.xattr.user.a", "x=\ny"),
        ("comment", ""),
    ];
    let (member, content) = data(&with_pax(&pairs, &header(b'0', "f", 0), b"12345")).unwrap();
    assert_eq!((member.uid, member.gid, content.as_slice()), (70000, 7, &b"12345"[..]));
    assert_eq!(member.mtime, Time { seconds: 12, nanoseconds: 500_000_000 });
    assert_eq!(member.xattrs, [(b"user.a".to_vec(), b"x=\ny".to_vec())]);
}

#[test]
fn links_and_directories_have_no_data() {
    let bytes = [header(b'1', "l", 512).as_bytes().to_vec(), entry(&header(b'0', "f", 1), b"x")].concat();
    assert_eq!(members(&bytes).unwrap().len(), 2);
    let mut old = header(0, "dir/", 0);
    old.as_mut_bytes()[..5].copy_from_slice(b"dir/\0");
    old.as_mut_bytes()[156] = 0;
    old.as_mut_bytes()[257..265].fill(0);
    old.set_cksum();
    assert_eq!(members(&entry(&old, b"")).unwrap()[0].kind, Kind::Directory);
}

#[test]
fn devices_have_numbers() {
    let mut device = header(b'3', "null", 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    device.set_cksum();
    assert_eq!(
        members(&entry(&device, b"")).unwrap()[0].kind,
        Kind::CharDevice(Device { major: 1, minor: 3 })
    );
}

#[test]
fn every_sparse_format_gives_the_same_map() {
    let map = vec![Chunk { offset: 512, length: 3 }, Chunk { offset: 1000, length: 0 }];
    let v00 = [
        ("GNU.sparse.size", "1000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "512"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.offset", "1000"),
        ("GNU.sparse.numbytes", "0"),
    ];
    let v01 = [("GNU.sparse.size", "1000"), ("GNU.sparse.map", "512,3,1000,0"), ("GNU.sparse.name", "real")];
    let v10 = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.realsize", "1000"),
    ];
    let mut in_data = b"2\n512\n3\n1000\n0\n".to_vec();
    in_data.resize(512, 0);
    in_data.extend_from_slice(b"abc");
    let mut gnu = tar::Header::new_gnu();
    gnu.set_path("real").unwrap();
    gnu.set_entry_type(tar::EntryType::GNUSparse);
    gnu.set_size(3);
    gnu.as_mut_bytes()[386..398].copy_from_slice(b"00000001000\0");
    gnu.as_mut_bytes()[398..410].copy_from_slice(b"00000000003\0");
    gnu.as_mut_bytes()[410..422].copy_from_slice(b"00000001750\0");
    gnu.as_mut_bytes()[422..434].copy_from_slice(b"00000000000\0");
    gnu.as_mut_bytes()[483..495].copy_from_slice(b"00000001750\0");
    gnu.set_cksum();
    for (format, bytes) in [
        ("0.0", with_pax(&v00, &header(b'0', "real", 3), b"abc")),
        ("0.1", with_pax(&v01, &header(b'0', "GNUSparseFile.0/f", 3), b"abc")),
        ("1.0", with_pax(&v10, &header(b'0', "GNUSparseFile.0/f", 515), &in_data)),
        ("gnu", entry(&gnu, b"abc")),
    ] {
        let (member, content) = data(&bytes).unwrap_or_else(|error| panic!("{format}: {error}"));
        assert_eq!(member.sparse, Some(Sparse { chunks: map.clone(), size: 1000 }), "{format}");
        assert_eq!((member.path.as_slice(), content.as_slice()), (&b"real"[..], &b"abc"[..]), "{format}");
    }
}

#[test]
fn a_sparse_map_that_contradicts_itself_is_refused() {
    for map in ["512,4", "0,2,1,1", "998,3", "18446744073709551615,3", "1,2,3"] {
        let pairs = [("GNU.sparse.size", "1000"), ("GNU.sparse.map", map)];
        let refused = data(&with_pax(&pairs, &header(b'0', "f", 3), b"abc"));
        assert!(matches!(refused, Err(TarError::Sparse)), "{map}");
    }
}

#[test]
fn an_archive_cut_anywhere_is_truncated_or_ends_between_members() {
    let whole = with_pax(&[("mtime", "1.5")], &header(b'0', "f", 700), &[b'x'; 700]);
    for cut in 1..whole.len() {
        let read = Archive::new(&whole[..cut]);
        let mut archive = read;
        let ended = loop {
            match archive.next_member() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        match cut {
            // The end of the extension header: nothing says that a member had to follow.
            1024 => assert!(ended.is_none(), "{cut}"),
            _ => assert!(matches!(ended, Some(TarError::Truncated)), "{cut}: {ended:?}"),
        }
    }
}

#[test]
fn garbage_is_no_header() {
    assert!(matches!(members(&[b'x'; 512]), Err(TarError::Header)));
    assert!(matches!(members(b"short"), Err(TarError::Truncated)));
    let mut bad = header(b'0', "f", 0);
    bad.as_mut_bytes()[0] ^= 1;
    assert!(matches!(members(bad.as_bytes()), Err(TarError::Header)));
    assert!(matches!(members(header(b'M', "f", 0).as_bytes()), Err(TarError::Kind('M'))));
    assert!(members(b"").unwrap().is_empty());
    assert!(members(&[0; 1024]).unwrap().is_empty());
}

#[test]
fn a_huge_extension_is_refused_before_it_is_read() {
    for kind in [b'x', b'g', b'L', b'K'] {
        let bytes = header(kind, "f", 1 << 33);
        assert!(matches!(members(bytes.as_bytes()), Err(TarError::ExtensionTooLarge(_))), "{kind}");
    }
}

#[test]
fn a_name_that_nothing_could_have_is_refused() {
    for (key, other) in [("path", "linkpath"), ("linkpath", "path")] {
        let of = |length: usize| {
            with_pax(&[(key, &"a/".repeat(length / 2)), (other, "x")], &header(b'2', "l", 0), b"")
        };
        assert!(members(&of(4096)).is_ok());
        assert!(matches!(members(&of(4098)), Err(TarError::ExtensionTooLarge(4098))), "{key}");
    }
}

#[test]
fn numbers_in_base_256_are_read() {
    let mut big = header(b'0', "f", 0);
    big.as_mut_bytes()[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
    big.set_cksum();
    assert_eq!(members(big.as_bytes()).unwrap()[0].uid, 0xffff_fffe);
}
