//! Capability sets, set as runc sets them.
//!
//! A right that the engine's own process does not hold cannot be given (`--privileged` inside another container): it is left out, as runc
//! leaves out what a kernel does not know.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use crate::failure::{Context, Failure};

/// The sets of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sets {
    bounding: CapabilitySet,
    permitted: CapabilitySet,
    effective: CapabilitySet,
    inheritable: CapabilitySet,
    ambient: CapabilitySet,
}

impl Sets {
    pub(crate) fn of(spec: &LinuxCapabilities) -> Self {
        Self {
            bounding: set(spec.bounding().as_ref()),
            permitted: set(spec.permitted().as_ref()),
            effective: set(spec.effective().as_ref()),
            inheritable: set(spec.inheritable().as_ref()),
            ambient: set(spec.ambient().as_ref()),
        }
    }

    /// Without what only root holds from the start; `execve` would take it from anybody else.
    pub(crate) fn for_other_than_root(self) -> Self {
        Self { permitted: self.ambient, effective: self.ambient, ..self }
    }

    /// Before the user changes: dropping from the bounding set takes a right.
    pub(crate) fn bound(self) -> Result<(), Failure> {
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            match capability_is_in_bounding_set(one) {
                Err(Errno::INVAL) => break, // the kernel's last one was before
                Ok(true) if !self.bounding.contains(one) => {
                    remove_capability_from_bounding_set(one).context(|| "unable to apply bounding set")?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// After the user has changed.
    pub(crate) fn apply(self) -> Result<(), Failure> {
        let held = capabilities(None).context(|| "unable to apply caps")?.permitted;
        let sets = CapabilitySets {
            effective: self.effective & held & self.permitted,
            permitted: self.permitted & held,
            inheritable: self.inheritable & held,
        };
        set_capabilities(None, sets).context(|| "unable to apply caps")?;
        clear_ambient_capability_set().context(|| "unable to clear ambient caps")?;
        for one in (self.ambient & sets.permitted & sets.inheritable).iter() {
            configure_capability_in_ambient_set(one, true)
                .context(|| "unable to raise an ambient capability")?;
        }
        Ok(())
    }
}

fn set(capabilities: Option<&Capabilities>) -> CapabilitySet {
    capabilities.into_iter().flatten().fold(CapabilitySet::empty(), |set, capability| set | bit(*capability))
}

fn bit(capability: Capability) -> CapabilitySet {
    use CapabilitySet as Set;
    match capability {
        Capability::AuditControl => Set::AUDIT_CONTROL,
        Capability::AuditRead => Set::AUDIT_READ,
        Capability::AuditWrite => Set::AUDIT_WRITE,
        Capability::BlockSuspend => Set::BLOCK_SUSPEND,
        Capability::Bpf => Set::BPF,
        Capability::CheckpointRestore => Set::CHECKPOINT_RESTORE,
        Capability::Chown => Set::CHOWN,
        Capability::DacOverride => Set::DAC_OVERRIDE,
        Capability::DacReadSearch => Set::DAC_READ_SEARCH,
        Capability::Fowner => Set::FOWNER,
        Capability::Fsetid => Set::FSETID,
        Capability::IpcLock => Set::IPC_LOCK,
        Capability::IpcOwner => Set::IPC_OWNER,
        Capability::Kill => Set::KILL,
        Capability::Lease => Set::LEASE,
        Capability::LinuxImmutable => Set::LINUX_IMMUTABLE,
        Capability::MacAdmin => Set::MAC_ADMIN,
        Capability::MacOverride => Set::MAC_OVERRIDE,
        Capability::Mknod => Set::MKNOD,
        Capability::NetAdmin => Set::NET_ADMIN,
        Capability::NetBindService => Set::NET_BIND_SERVICE,
        Capability::NetBroadcast => Set::NET_BROADCAST,
        Capability::NetRaw => Set::NET_RAW,
        Capability::Perfmon => Set::PERFMON,
        Capability::Setfcap => Set::SETFCAP,
        Capability::Setgid => Set::SETGID,
        Capability::Setpcap => Set::SETPCAP,
        Capability::Setuid => Set::SETUID,
        Capability::SysAdmin => Set::SYS_ADMIN,
        Capability::SysBoot => Set::SYS_BOOT,
        Capability::SysChroot => Set::SYS_CHROOT,
        Capability::SysModule => Set::SYS_MODULE,
        Capability::SysNice => Set::SYS_NICE,
        Capability::SysPacct => Set::SYS_PACCT,
        Capability::SysPtrace => Set::SYS_PTRACE,
        Capability::SysRawio => Set::SYS_RAWIO,
        Capability::SysResource => Set::SYS_RESOURCE,
        Capability::SysTime => Set::SYS_TIME,
        Capability::SysTtyConfig => Set::SYS_TTY_CONFIG,
        Capability::Syslog => Set::SYSLOG,
        Capability::WakeAlarm => Set::WAKE_ALARM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn dockers_default_is_the_number_that_people_know() {
        let wanted = HashSet::from(crate::defaults::CAPABILITIES);
        let sets = Sets::of(&crate::defaults::capability_sets(&wanted, true));
        assert_eq!(sets.effective.bits(), 0xa804_25fb);
        assert_eq!(sets.bounding.bits(), 0xa804_25fb);
        assert_eq!(sets.inheritable.bits() | sets.ambient.bits(), 0);
    }

    #[test]
    fn others_than_root_keep_what_is_ambient() {
        let wanted = HashSet::from([Capability::NetRaw, Capability::Kill]);
        let mut spec = crate::defaults::capability_sets(&wanted, true);
        spec.set_ambient(Some(HashSet::from([Capability::Kill])));
        let sets = Sets::of(&spec).for_other_than_root();
        assert_eq!((sets.permitted, sets.effective), (CapabilitySet::KILL, CapabilitySet::KILL));
        assert_eq!(sets.bounding, CapabilitySet::KILL | CapabilitySet::NET_RAW);
    }
}
