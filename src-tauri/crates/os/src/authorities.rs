//! Whom this computer trusts to say who is who.

/// The certificates of authorities that programs of this computer trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorities {
    /// Each in DER.
    pub certificates: Vec<Vec<u8>>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

/// Reads them from where the system has them: the keychains of macOS with what the user trusts and does not, the
/// certificate store of Windows, the files of OpenSSL on Linux, or `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set.
///
/// May take a moment: there are some hundred of them.
pub fn authorities() -> Authorities {
    let found = rustls_native_certs::load_native_certs();
    Authorities {
        certificates: found.certs.into_iter().map(|certificate| certificate.to_vec()).collect(),
        problems: found.errors.iter().map(ToString::to_string).collect(),
    }
}
