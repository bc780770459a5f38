//! Names of volumes, as dockerd's local driver has them.

use crate::error::VolumeError;

/// Refuses what is no name: a letter or digit, and then at least one letter, digit, `_`, `.` or `-`.
pub(crate) fn check(name: &str) -> Result<(), VolumeError> {
    if name.chars().count() == 1 {
        return Err(VolumeError::NameTooShort(name.to_owned()));
    }
    let mut letters = name.bytes();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric());
    let rest = letters.all(|letter| letter.is_ascii_alphanumeric() || b"_.-".contains(&letter));
    // Longer ones are no names of directories.
    if first && rest && name.len() <= 255 { Ok(()) } else { Err(VolumeError::BadName(name.to_owned())) }
}

/// A name for a volume that was given none: 64 digits, as dockerd has it.
pub(crate) fn random() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockerd_s() {
        for good in ["ab", "a.b-c_d", "0x", &random()] {
            assert!(check(good).is_ok(), "{good:?}");
        }
        assert!(check("a").unwrap_err().to_string().contains("too short"));
        for bad in ["", ".a", "_a", "-a", "a/b", "a b", "../x", "a\0", "ä1", &"x".repeat(256)] {
            assert!(matches!(check(bad), Err(VolumeError::BadName(_))), "{bad:?}");
        }
    }
}
