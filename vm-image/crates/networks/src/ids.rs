//! Names that nothing else has.

use std::fmt::Write;

/// 64 hexadecimal digits, as Docker names networks and endpoints.
pub(crate) fn new_id() -> String {
    hex(&rand::random::<[u8; 32]>())
}

/// 12 hexadecimal digits, for the file of a namespace.
pub(crate) fn short_id() -> String {
    hex(&rand::random::<[u8; 6]>())
}

/// A device name of Docker's form (`veth` and seven digits), within the kernel's limit of 15 bytes.
pub(crate) fn device_name(prefix: &str) -> String {
    format!("{prefix}{:07x}", rand::random::<u32>() >> 4)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_length_and_the_digits_that_clients_expect() {
        for (id, length) in [(new_id(), 64), (short_id(), 12), (device_name("veth"), 11)] {
            assert_eq!(id.len(), length, "{id}");
            assert!(id.strip_prefix("veth").unwrap_or(&id).bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
        assert_ne!(new_id(), new_id());
    }
}
