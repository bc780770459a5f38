//! Whether KVM works here, found out by booting the guest's own kernel under it for a moment.
//!
//! `/dev/kvm` that opens proves nothing: in nested machines QEMU may abort on the first register, the firmware may run and
//! a kernel not, or all may run slower than emulation. So the kernel is booted without a root file system, and KVM
//! counts as working when it complains about that within [`PROBE_LIMIT`]. A definite answer is kept in the user's cache
//! for as long as the host's boot, the guest's kernel and QEMU stay the same.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use caisson_hypervisor::{Acceleration, Capabilities, Notice};
use serde::{Deserialize, Serialize};

use super::{arguments, process::Process};

/// Far more than a kernel needs where KVM works (0.5 s), and less than a user's patience.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// What a kernel says at the end of a boot without a root file system: it has come all the way.
const CAME_ALL_THE_WAY: &str = "Unable to mount root fs";
const KVM: &str = "/dev/kvm";
const MAX_CPUS: u32 = 64;

/// Whether KVM can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kvm", content = "why")]
pub(super) enum Kvm {
    /// A kernel booted.
    Works,
    /// There is no `/dev/kvm`.
    Absent,
    /// The user may not open `/dev/kvm`.
    Forbidden,
    /// It is there, but a kernel does not boot.
    Broken(String),
    /// It is there, but a kernel did not get through in time. That may be the moment's fault, so it is not kept.
    TooSlow,
}

impl Kvm {
    /// What the answer means for the machine.
    pub(super) fn capabilities(&self) -> Capabilities {
        let acceleration = match self {
            Self::Works => Acceleration::Hardware { by: "KVM".into() },
            Self::Absent | Self::Forbidden | Self::Broken(_) | Self::TooSlow => Acceleration::Emulated,
        };
        Capabilities { acceleration, max_cpus: MAX_CPUS, notices: self.notice().into_iter().collect() }
    }

    fn notice(&self) -> Option<Notice> {
        let (why, remedy) = match self {
            Self::Works => return None,
            Self::Absent => (
                "there is no /dev/kvm".to_owned(),
                "enable virtualization in the firmware (or nested virtualization, if this is a virtual machine) and load kvm_intel or kvm_amd",
            ),
            Self::Forbidden => {
                ("you may not open /dev/kvm".to_owned(), "sudo usermod -aG kvm $USER, then log in again")
            }
            Self::Broken(why) => (
                format!("/dev/kvm is there but cannot run the machine's kernel ({why})"),
                "if this is a virtual machine, look at its nested virtualization",
            ),
            Self::TooSlow => (
                format!(
                    "with /dev/kvm the machine's kernel did not start within {} s",
                    PROBE_LIMIT.as_secs()
                ),
                "start the machine again when this computer is less busy",
            ),
        };
        let text = format!("the processor is emulated, which is 15 to 20 times slower: {why}");
        Some(Notice { text, remedy: Some(remedy.into()) })
    }
}

/// The answer for this kernel and this QEMU: from the cache, or else by trying.
pub(super) async fn find_out(qemu: &Path, kernel: &Path, cache: &Path) -> Kvm {
    if let Some(answer) = without_trying() {
        return answer;
    }
    let question = Question::of(qemu, kernel);
    let kept = cache.join("kvm.json");
    if let Some(answer) = recall(&kept, &question) {
        return answer;
    }
    let answer = probe(qemu, kernel).await;
    tracing::info!(?answer, "tried whether KVM works");
    if answer == Kvm::TooSlow {
        return answer;
    }
    if let Err(error) = keep(&kept, &Finding { question, answer: answer.clone() }) {
        tracing::warn!(file = %kept.display(), %error, "cannot keep what was found out about KVM");
    }
    answer
}

fn without_trying() -> Option<Kvm> {
    match fs::OpenOptions::new().read(true).write(true).open(KVM) {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Kvm::Forbidden),
        Err(_) => Some(Kvm::Absent),
    }
}

/// All that the answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Question {
    boot: String,
    host_kernel: String,
    qemu: String,
    kernel: String,
}

impl Question {
    fn of(qemu: &Path, kernel: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            boot: read("/proc/sys/kernel/random/boot_id"),
            host_kernel: read("/proc/sys/kernel/osrelease"),
            qemu: identity(qemu),
            kernel: identity(kernel),
        }
    }
}

/// Tells one version of a file from another without reading it: its place, size and time.
fn identity(file: &Path) -> String {
    let facts = fs::metadata(file).map(|meta| {
        let changed = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        (meta.len(), changed.unwrap_or_default().as_nanos())
    });
    let (size, changed) = facts.unwrap_or_default();
    format!("{} {size} {changed}", file.display())
}

#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    question: Question,
    answer: Kvm,
}

fn recall(kept: &Path, question: &Question) -> Option<Kvm> {
    let finding: Finding = serde_json::from_slice(&fs::read(kept).ok()?).ok()?;
    (finding.question == *question).then_some(finding.answer)
}

fn keep(kept: &Path, finding: &Finding) -> io::Result<()> {
    let dir = kept.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut file, finding)?;
    file.persist(kept)?;
    Ok(())
}

/// Boots the kernel under KVM until it misses its root file system.
async fn probe(qemu: &Path, kernel: &Path) -> Kvm {
    match tempfile::tempdir() {
        Ok(dir) => try_kernel(qemu, kernel, dir.path().join("console")).await,
        Err(error) => Kvm::Broken(format!("cannot make a temporary directory: {error}")),
    }
}

async fn try_kernel(qemu: &Path, kernel: &Path, console: PathBuf) -> Kvm {
    let mut process = match Process::spawn(qemu, &arguments::kvm_probe(kernel, &console)).await {
        Ok(process) => process,
        Err(error) => return Kvm::Broken(format!("{} does not start: {error}", qemu.display())),
    };
    let Ok(exit) = tokio::time::timeout(PROBE_LIMIT, process.exited()).await else {
        process.kill().await;
        return Kvm::TooSlow;
    };
    let said = fs::read(&console).unwrap_or_default();
    if exit.success && String::from_utf8_lossy(&said).contains(CAME_ALL_THE_WAY) {
        return Kvm::Works;
    }
    Kvm::Broken(exit.tail.last().cloned().unwrap_or(exit.how))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(boot: &str) -> Question {
        Question { boot: boot.into(), host_kernel: "6".into(), qemu: "q".into(), kernel: "k".into() }
    }

    #[test]
    fn an_answer_is_kept_until_anything_it_depends_on_changes() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("new/kvm.json");
        let answer = Kvm::Broken("a, \"b\"".into());
        assert_eq!(recall(&kept, &question("one")), None);
        keep(&kept, &Finding { question: question("one"), answer: answer.clone() }).unwrap();
        assert_eq!(recall(&kept, &question("one")), Some(answer));
        assert_eq!(recall(&kept, &question("two")), None);
        fs::write(&kept, "no json").unwrap();
        assert_eq!(recall(&kept, &question("one")), None);
    }

    #[test]
    fn another_kernel_in_the_same_place_is_another_question() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel");
        fs::write(&kernel, "old").unwrap();
        let before = identity(&kernel);
        fs::write(&kernel, "newer").unwrap();
        assert_ne!(identity(&kernel), before);
    }

    #[test]
    fn only_a_working_kvm_comes_without_a_notice() {
        assert!(Kvm::Works.capabilities().notices.is_empty());
        for kvm in [Kvm::Absent, Kvm::Forbidden, Kvm::Broken("it aborts".into()), Kvm::TooSlow] {
            let capabilities = kvm.capabilities();
            assert_eq!(capabilities.acceleration, Acceleration::Emulated);
            assert_eq!(capabilities.notices.len(), 1);
        }
    }

    #[tokio::test]
    async fn a_qemu_that_aborts_makes_kvm_broken_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = dir.path().join("qemu");
        fs::write(&qemu, "#!/bin/sh\necho 'failed to set MSR 0x10a' >&2\nkill -6 $$\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&qemu, mode).unwrap();
        let answer = probe(&qemu, Path::new("/kernel")).await;
        assert_eq!(answer, Kvm::Broken("failed to set MSR 0x10a".into()));
    }
}
