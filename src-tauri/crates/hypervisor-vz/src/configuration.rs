//! What a [`VmSpec`] is in the framework's words.
#![expect(unsafe_code, reason = "the framework's calls are foreign functions")]

use std::path::Path;

use caisson_hypervisor::{LaunchError, VmSpec};
use objc2::rc::Retained;
use objc2::{AnyThread, ClassType};
use objc2_foundation::{NSArray, NSError, NSString, NSURL};
use objc2_virtualization::{
    VZDiskImageCachingMode, VZDiskImageStorageDeviceAttachment, VZDiskImageSynchronizationMode,
    VZLinuxBootLoader, VZStorageDeviceConfiguration, VZVirtioBlockDeviceConfiguration,
    VZVirtioConsoleDeviceSerialPortConfiguration, VZVirtioEntropyDeviceConfiguration,
    VZVirtioSocketDeviceConfiguration, VZVirtioTraditionalMemoryBalloonDeviceConfiguration,
    VZVirtualMachineConfiguration,
};

use crate::console;

/// The framework's name, as errors say it.
pub(crate) const PART: &str = "Virtualization.framework";

/// An error of the framework's, in its own words.
pub(crate) fn refused(error: &NSError) -> LaunchError {
    LaunchError::Refused {
        part: PART.to_owned(),
        how: error.localizedDescription().to_string(),
        tail: Vec::new(),
    }
}

/// The most virtual processors that a machine may have here.
pub(crate) fn max_cpus() -> usize {
    // SAFETY: a class property without preconditions.
    unsafe { VZVirtualMachineConfiguration::maximumAllowedCPUCount() }
}

/// A configuration that the framework has validated.
pub(crate) fn configuration(spec: &VmSpec) -> Result<Retained<VZVirtualMachineConfiguration>, LaunchError> {
    let disks = disks(spec)?;
    // SAFETY: plain setters on an object of our own, with values of the types that they declare.
    let config = unsafe {
        let config = VZVirtualMachineConfiguration::new();
        config.setBootLoader(Some(boot_loader(spec).as_super()));
        config.setCPUCount((spec.cpus.max(1) as usize).min(max_cpus()));
        config.setMemorySize(spec.memory.bytes());
        config.setStorageDevices(&disks);
        config.setSerialPorts(&NSArray::from_retained_slice(&[Retained::into_super(serial_port(
            &spec.console_log,
        )?)]));
        let vsock = VZVirtioSocketDeviceConfiguration::new();
        config.setSocketDevices(&NSArray::from_retained_slice(&[Retained::into_super(vsock)]));
        let entropy = VZVirtioEntropyDeviceConfiguration::new();
        config.setEntropyDevices(&NSArray::from_retained_slice(&[Retained::into_super(entropy)]));
        let balloon = VZVirtioTraditionalMemoryBalloonDeviceConfiguration::new();
        config.setMemoryBalloonDevices(&NSArray::from_retained_slice(&[Retained::into_super(balloon)]));
        config
    };
    // SAFETY: a check without side effects.
    unsafe { config.validateWithError() }.map_err(|error| refused(&error))?;
    Ok(config)
}

fn url(path: &Path) -> Retained<NSURL> {
    NSURL::fileURLWithPath(&NSString::from_str(&path.to_string_lossy()))
}

fn boot_loader(spec: &VmSpec) -> Retained<VZLinuxBootLoader> {
    let arguments = NSString::from_str(&format!("console=hvc0 {}", spec.cmdline));
    // SAFETY: the initialiser takes any file URL; a file that is none is found by the validation.
    unsafe {
        let loader = VZLinuxBootLoader::initWithKernelURL(VZLinuxBootLoader::alloc(), &url(&spec.kernel));
        loader.setInitialRamdiskURL(Some(&url(&spec.initrd)));
        loader.setCommandLine(&arguments);
        loader
    }
}

/// The disks in the order that [`VmSpec`] promises to the guest.
fn disks(spec: &VmSpec) -> Result<Retained<NSArray<VZStorageDeviceConfiguration>>, LaunchError> {
    let mut disks = Vec::with_capacity(2);
    if let Some(root) = &spec.root {
        disks.push(disk(root, true)?);
    }
    disks.push(disk(&spec.data_disk, false)?);
    Ok(NSArray::from_retained_slice(&disks))
}

fn disk(image: &Path, read_only: bool) -> Result<Retained<VZStorageDeviceConfiguration>, LaunchError> {
    // Cached, because under the automatic mode Linux guests' file systems came out damaged (utmapp/UTM#4840,
    // lima-vm/lima#1957). A guest's flush reaches the drive's cache, as it would on any of the Mac's own files (`fsync`, not
    // `F_FULLFSYNC`): what a crash of the guest or of this program needs.
    // SAFETY: the initialisers take any file URL and any of their enumerations' values.
    unsafe {
        let attachment =
            VZDiskImageStorageDeviceAttachment::initWithURL_readOnly_cachingMode_synchronizationMode_error(
                VZDiskImageStorageDeviceAttachment::alloc(),
                &url(image),
                read_only,
                VZDiskImageCachingMode::Cached,
                VZDiskImageSynchronizationMode::Fsync,
            )
            .map_err(|error| refused(&error))?;
        let device = VZVirtioBlockDeviceConfiguration::initWithAttachment(
            VZVirtioBlockDeviceConfiguration::alloc(),
            &attachment,
        );
        Ok(Retained::into_super(device))
    }
}

fn serial_port(log: &Path) -> Result<Retained<VZVirtioConsoleDeviceSerialPortConfiguration>, LaunchError> {
    let attachment = console::record(log)?;
    // SAFETY: plain setter.
    unsafe {
        let port = VZVirtioConsoleDeviceSerialPortConfiguration::new();
        port.setAttachment(Some(&attachment));
        Ok(port)
    }
}
