//! An image that no machine could boot, but that looks whole.

use std::{fs, path::Path};

use caisson_guest_proto::PROTOCOL;

/// Each file holds its own name; the digest is of that.
const FILES: [(&str, &str); 3] = [
    ("kernel", "6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c"),
    ("initrd", "09e6c018d2c8c4903308613dd1b72484d57eadf12ec50ddc8f52e5accce470f2"),
    ("root.erofs", "4dbad6bc77d2530333c602dda97d297d0a2f2bee20e03afcd96ada7e6703c688"),
];

/// Makes the directory an image for this computer: each file holds its own name.
///
/// # Panics
/// If it cannot be written.
pub fn write_image(dir: &Path) {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let files = FILES
        .map(|(name, digest)| format!(r#""{name}": {{ "size": {}, "sha256": "{digest}" }}"#, name.len()));
    let manifest = format!(
        r#"{{ "protocol": {PROTOCOL}, "arch": "{arch}", "cmdline": "quiet", "files": {{ {} }} }}"#,
        files.join(", ")
    );
    fs::create_dir_all(dir).expect("the image's directory can be made");
    for (name, _) in FILES {
        fs::write(dir.join(name), name).expect("the image can be written");
    }
    fs::write(dir.join("manifest.json"), manifest).expect("the image can be written");
}
