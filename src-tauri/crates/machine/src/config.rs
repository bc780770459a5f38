//! What the machine is made of and how long it may take.

use std::{path::PathBuf, time::Duration};

use caisson_hypervisor::Mib;

use crate::Stage;

/// What the machine is made of. Fixed for the life of a [`Machine`](crate::Machine).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineConfig {
    /// The guest's host name.
    pub hostname: String,
    /// The directory with the system image: `kernel`, `initrd`, `root.erofs` (if used), `manifest.json`.
    pub image: PathBuf,
    /// The file that says which image's digests were found right, so that they are not computed again at each start. Made
    /// again if absent, together with its directory.
    pub image_found_whole: PathBuf,
    /// The raw disk image with all of the user's data. Made if absent, together with its directory; grown if smaller
    /// than [`data_size`](Self::data_size); never made smaller and never deleted. Its lock lies beside it (`.lock`).
    pub data_disk: PathBuf,
    /// How big the guest sees the data disk. The file is sparse: it takes what is used.
    pub data_size: Mib,
    /// A directory for sockets, made if absent (0700); its path must be short (socket paths end at about 100 bytes).
    pub runtime_dir: PathBuf,
    /// Where what the guest's console prints goes; its directory is made if absent.
    pub console_log: PathBuf,
    /// Virtual processors.
    pub cpus: u32,
    /// The guest's memory.
    pub memory: Mib,
    /// How long things may take.
    pub limits: Limits,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// [`Stage::Hypervisor`], with the probe of the hardware's acceleration.
    pub hypervisor: Duration,
    /// [`Stage::Kernel`].
    pub kernel: Duration,
    /// [`Stage::Agent`].
    pub agent: Duration,
    /// [`Stage::Disk`]: the check of a big file system after a crash is in here.
    pub disk: Duration,
    /// [`Stage::Engine`]: the engine's recovery after a crash is in here.
    pub engine: Duration,
    /// [`Stage::Socket`].
    pub socket: Duration,
    /// What the engine gets to stop its containers in, when the machine stops; the guest keeps it. Each container has its own
    /// grace before it is killed (10 s if it says nothing else), so this is for those that ask for more, and for an engine that hangs.
    pub stop_grace: Duration,
    /// What the guest gets beyond `stop_grace` to switch itself off, before the power button is pressed.
    pub power_off: Duration,
    /// What the guest gets after the power button, before it is ended by force.
    pub power_button: Duration,
    /// How often the guest is asked whether it is there.
    pub ping_every: Duration,
    /// How long it may stay silent.
    pub silence: Duration,
    /// How long a client waits for an engine that is restarting.
    pub engine_restart: Duration,
}

impl Limits {
    /// The deadline of a stage.
    #[must_use]
    pub const fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Hypervisor => self.hypervisor,
            Stage::Kernel => self.kernel,
            Stage::Agent => self.agent,
            Stage::Disk => self.disk,
            Stage::Engine => self.engine,
            Stage::Socket => self.socket,
        }
    }
}

/// Limits that hold on a busy computer that emulates the guest's processor, where all is 20 times slower.
impl Default for Limits {
    fn default() -> Self {
        Self {
            hypervisor: Duration::from_secs(30),
            kernel: Duration::from_secs(60),
            agent: Duration::from_secs(30),
            disk: Duration::from_secs(300),
            engine: Duration::from_secs(60),
            socket: Duration::from_secs(30),
            // What systemd gives a dockerd.
            stop_grace: Duration::from_secs(90),
            power_off: Duration::from_secs(20),
            power_button: Duration::from_secs(5),
            ping_every: Duration::from_secs(5),
            silence: Duration::from_secs(60),
            engine_restart: Duration::from_secs(30),
        }
    }
}
