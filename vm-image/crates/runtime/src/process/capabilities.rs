//! Capability sets, set as runc sets them.
//!
//! A right that the engine's own process does not hold cannot be given (`--privileged` inside another container): it is left out, as runc
//! leaves out what a kernel does not know.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use crate::failure::{Context, Failure};
use crate::spec::Capabilities;

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
    pub(crate) fn of(spec: &Capabilities) -> Self {
        Self {
            bounding: set(&spec.bounding),
            permitted: set(&spec.permitted),
            effective: set(&spec.effective),
            inheritable: set(&spec.inheritable),
            ambient: set(&spec.ambient),
        }
    }

    /// Without what only root holds from the start; `execve` would take it from anybody else.
    pub(crate) fn for_other_than_root(self) -> Self {
        Self { permitted: self.ambient, effective: self.ambient, ..self }
    }

    /// Without `CAP_MKNOD`.
    pub(crate) fn without_making_devices(self) -> Self {
        let take = |set: CapabilitySet| set.difference(CapabilitySet::MKNOD);
        Self {
            bounding: take(self.bounding),
            permitted: take(self.permitted),
            effective: take(self.effective),
            inheritable: take(self.inheritable),
            ambient: take(self.ambient),
        }
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

fn set(names: &[String]) -> CapabilitySet {
    names.iter().fold(CapabilitySet::empty(), |set, name| set | bit(name))
}

/// A name that is unknown here is a right that cannot be given.
fn bit(name: &str) -> CapabilitySet {
    NAMES.iter().find(|(known, _)| *known == name).map_or(CapabilitySet::empty(), |(_, bit)| *bit)
}

const NAMES: [(&str, CapabilitySet); 41] = [
    ("CAP_AUDIT_CONTROL", CapabilitySet::AUDIT_CONTROL),
    ("CAP_AUDIT_READ", CapabilitySet::AUDIT_READ),
    ("CAP_AUDIT_WRITE", CapabilitySet::AUDIT_WRITE),
    ("CAP_BLOCK_SUSPEND", CapabilitySet::BLOCK_SUSPEND),
    ("CAP_BPF", CapabilitySet::BPF),
    ("CAP_CHECKPOINT_RESTORE", CapabilitySet::CHECKPOINT_RESTORE),
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
    ("CAP_FOWNER", CapabilitySet::FOWNER),
    ("CAP_FSETID", CapabilitySet::FSETID),
    ("CAP_IPC_LOCK", CapabilitySet::IPC_LOCK),
    ("CAP_IPC_OWNER", CapabilitySet::IPC_OWNER),
    ("CAP_KILL", CapabilitySet::KILL),
    ("CAP_LEASE", CapabilitySet::LEASE),
    ("CAP_LINUX_IMMUTABLE", CapabilitySet::LINUX_IMMUTABLE),
    ("CAP_MAC_ADMIN", CapabilitySet::MAC_ADMIN),
    ("CAP_MAC_OVERRIDE", CapabilitySet::MAC_OVERRIDE),
    ("CAP_MKNOD", CapabilitySet::MKNOD),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CAP_NET_BROADCAST", CapabilitySet::NET_BROADCAST),
    ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
    ("CAP_SETFCAP", CapabilitySet::SETFCAP),
    ("CAP_SETGID", CapabilitySet::SETGID),
    ("CAP_SETPCAP", CapabilitySet::SETPCAP),
    ("CAP_SETUID", CapabilitySet::SETUID),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_SYS_BOOT", CapabilitySet::SYS_BOOT),
    ("CAP_SYS_CHROOT", CapabilitySet::SYS_CHROOT),
    ("CAP_SYS_MODULE", CapabilitySet::SYS_MODULE),
    ("CAP_SYS_NICE", CapabilitySet::SYS_NICE),
    ("CAP_SYS_PACCT", CapabilitySet::SYS_PACCT),
    ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ("CAP_SYS_RAWIO", CapabilitySet::SYS_RAWIO),
    ("CAP_SYS_RESOURCE", CapabilitySet::SYS_RESOURCE),
    ("CAP_SYS_TIME", CapabilitySet::SYS_TIME),
    ("CAP_SYS_TTY_CONFIG", CapabilitySet::SYS_TTY_CONFIG),
    ("CAP_SYSLOG", CapabilitySet::SYSLOG),
    ("CAP_WAKE_ALARM", CapabilitySet::WAKE_ALARM),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn dockers() -> Capabilities {
        let wanted = crate::defaults::CAPABILITIES.into_iter().collect();
        let sets = crate::defaults::capability_sets(&wanted, true);
        serde_json::from_value(serde_json::to_value(sets).unwrap()).unwrap()
    }

    #[test]
    fn dockers_default_is_the_number_that_people_know() {
        let sets = Sets::of(&dockers());
        assert_eq!(sets.effective.bits(), 0xa804_25fb);
        assert_eq!(sets.bounding.bits(), 0xa804_25fb);
        assert_eq!(sets.inheritable.bits() | sets.ambient.bits(), 0);
    }

    #[test]
    fn every_capability_has_its_number() {
        let all = NAMES.iter().fold(CapabilitySet::empty(), |all, (_, bit)| all | *bit);
        assert_eq!(all.bits(), (1 << 41) - 1, "CAP_CHECKPOINT_RESTORE, the last one, is 40");
    }

    #[test]
    fn others_than_root_keep_what_is_ambient() {
        let sets =
            Sets::of(&Capabilities { ambient: vec!["CAP_KILL".into()], ..dockers() }).for_other_than_root();
        assert_eq!((sets.permitted, sets.effective), (CapabilitySet::KILL, CapabilitySet::KILL));
        assert_eq!(sets.bounding.bits(), 0xa804_25fb);
    }
}
