use super::*;

#[test]
fn ext4_lays_layers_out_apart() {
    const EXT4: i64 = 0xef53;
    let (_dir, store) = store();
    let tmp = std::fs::File::open(store.tmp()).unwrap();
    if rustix::fs::fstatfs(&tmp).unwrap().f_type != EXT4 {
        eprintln!("skipped: the directory for temporary files is not on ext4");
        return;
    }
    assert!(rustix::fs::ioctl_getflags(&tmp).unwrap().contains(IFlags::TOPDIR));
}
