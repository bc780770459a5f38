//! Who may open our pipes.
//!
//! A pipe that is made without saying so lets everybody on this computer, and anonymous clients, open it for reading
//! ("Named Pipe Security and Access Rights", Microsoft). They could say nothing, but to come is enough to start the machine.
#![expect(unsafe_code, reason = "security descriptors are made by foreign functions")]

use std::{ffi::c_void, io, path::Path};
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use windows::{
    Win32::{
        Foundation::{HLOCAL, LocalFree},
        Security::{
            Authorization::{ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1},
            PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES,
        },
    },
    core::{PCWSTR, w},
};

/// All rights for the system, administrators and the pipe's owner (S-1-3-4), and none for others (SDDL).
const OURS: PCWSTR = w!("D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;S-1-3-4)");

/// Makes a pipe as `options` say, which nobody but this user, the system and administrators can open.
pub(super) fn create(options: &ServerOptions, name: &Path) -> io::Result<NamedPipeServer> {
    let descriptor = Descriptor::new()?;
    let mut attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor.0.0,
        bInheritHandle: false.into(),
    };
    // SAFETY: the attributes are whole, and they and their descriptor outlive the call.
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast::<c_void>()) }
}

/// A descriptor of the system's making.
struct Descriptor(PSECURITY_DESCRIPTOR);

impl Descriptor {
    fn new() -> io::Result<Self> {
        let mut made = PSECURITY_DESCRIPTOR::default();
        // SAFETY: the text ends with a zero, and the place for the result is ours.
        unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(OURS, SDDL_REVISION_1, &raw mut made, None)
        }?;
        Ok(Self(made))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the system allocated it for us to free so, and it is not used again.
        unsafe { LocalFree(Some(HLOCAL(self.0.0))) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::windows::io::AsRawHandle;
    use windows::{
        Win32::{
            Foundation::HANDLE,
            Security::{
                Authorization::{
                    ConvertSecurityDescriptorToStringSecurityDescriptorW, GetSecurityInfo, SE_KERNEL_OBJECT,
                },
                DACL_SECURITY_INFORMATION,
            },
        },
        core::PWSTR,
    };

    /// The rights that a pipe has, as text.
    fn rights(pipe: &NamedPipeServer) -> String {
        let (mut descriptor, mut text) = (PSECURITY_DESCRIPTOR::default(), PWSTR::null());
        let (what, pipe) = (DACL_SECURITY_INFORMATION, HANDLE(pipe.as_raw_handle()));
        // SAFETY: the handle is open, and the places for the results are ours; the little that leaks ends with the test.
        unsafe {
            GetSecurityInfo(pipe, SE_KERNEL_OBJECT, what, None, None, None, None, Some(&raw mut descriptor))
                .ok()
                .unwrap();
            ConvertSecurityDescriptorToStringSecurityDescriptorW(
                descriptor,
                SDDL_REVISION_1,
                what,
                &raw mut text,
                None,
            )
            .unwrap();
            text.to_string().unwrap()
        }
    }

    #[tokio::test]
    async fn a_pipe_is_the_owners_the_systems_and_the_administrators() {
        let name = format!(r"\\.\pipe\caisson-test-rights-{}", std::process::id());
        let pipe = create(ServerOptions::new().first_pipe_instance(true), Path::new(&name)).unwrap();
        let rights = rights(&pipe);
        assert_eq!(rights.matches("(A;").count(), 3, "{rights}");
        assert!(!rights.contains(";WD)") && !rights.contains(";AN)"), "{rights}");
    }
}
