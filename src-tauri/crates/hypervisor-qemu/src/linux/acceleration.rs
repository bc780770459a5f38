//! Whether KVM works here, found out by booting the guest's own kernel under it for a moment.
//!
//! `/dev/kvm` that opens proves nothing: in nested machines QEMU may abort on the first register, the firmware may run and
//! a kernel not, or all may run slower than emulation. So the kernel is booted without a root file system, and KVM
//! counts as working when it complains about that within [`PROBE_LIMIT`]. The answer is kept in the user's cache for as
//! long as the host's boot, the guest's kernel and QEMU stay the same; that KVM was too slow, which a busy moment can make
//! it, only for [`TOO_SLOW_HOLDS`].

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use caisson_hypervisor::{Acceleration, Capabilities, Notice};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{arguments, process::Process};

/// Far more than a kernel needs where KVM works (0.5 s), and less than a user's patience.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// When a KVM that was too slow is given another chance: not at the next start, which would have to wait for it, but before
/// a computer that was busy with its own start is taken for slow all day.
const TOO_SLOW_HOLDS: Duration = Duration::from_secs(600);
/// What a kernel says at the end of a boot without a root file system: it has come all the way.
const CAME_ALL_THE_WAY: &str = "Unable to mount root fs";
/// How much of the console's end is looked at, in bytes.
const CONSOLE_END: usize = 16 << 10;
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
    /// It is there, but a kernel did not get through in time. That may be the moment's fault.
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
        match self {
            Self::Works => None,
            Self::Absent => Some(Notice::KvmAbsent),
            Self::Forbidden => Some(Notice::KvmForbidden),
            Self::Broken(why) => Some(Notice::KvmBroken { why: why.clone() }),
            Self::TooSlow => Some(Notice::KvmTooSlow { limit: PROBE_LIMIT }),
        }
    }
}

/// The answer for this kernel and this QEMU: from the cache, or else by trying.
pub(super) async fn find_out(qemu: &Path, kernel: &Path, cache: &Path) -> Kvm {
    if let Some(answer) = without_trying() {
        return answer;
    }
    let question = Question::of(qemu, kernel);
    let kept = cache.join("kvm.json");
    if let Some(answer) = recall(&kept, &question, SystemTime::now()) {
        return answer;
    }
    let answer = probe(qemu, kernel).await;
    tracing::info!(?answer, "tried whether KVM works");
    if let Err(error) = keep(&kept, &Finding { question, answer: answer.clone(), at: SystemTime::now() }) {
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
    at: SystemTime,
}

fn recall(kept: &Path, question: &Question, now: SystemTime) -> Option<Kvm> {
    let finding: Finding = serde_json::from_slice(&fs::read(kept).ok()?).ok()?;
    // A time in the future is a clock that was set back since.
    let is_fresh = || now.duration_since(finding.at).is_ok_and(|age| age < TOO_SLOW_HOLDS);
    let holds = finding.question == *question && (finding.answer != Kvm::TooSlow || is_fresh());
    holds.then_some(finding.answer)
}

fn keep(kept: &Path, finding: &Finding) -> io::Result<()> {
    caisson_os::replace_file(kept, &serde_json::to_vec(finding)?)
}

/// Boots the kernel under KVM until it misses its root file system.
async fn probe(qemu: &Path, kernel: &Path) -> Kvm {
    let (mut process, console) = match Process::spawn(qemu, &arguments::kvm_probe(kernel)).await {
        Ok(started) => started,
        Err(error) => return Kvm::Broken(format!("{} does not start: {error}", qemu.display())),
    };
    let to_the_end = async { tokio::join!(process.exited(), last_of(console)) };
    let Ok((exit, said)) = tokio::time::timeout(PROBE_LIMIT, to_the_end).await else {
        process.kill().await;
        return Kvm::TooSlow;
    };
    if exit.success && String::from_utf8_lossy(&said).contains(CAME_ALL_THE_WAY) {
        return Kvm::Works;
    }
    Kvm::Broken(exit.tail.last().cloned().unwrap_or(exit.how))
}

/// The end of what is said, read to its end. What cannot be read was not said.
async fn last_of(mut output: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; CONSOLE_END]);
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(CONSOLE_END));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_of_a_long_console_is_kept() {
        let said = [vec![b'x'; 5 * CONSOLE_END], CAME_ALL_THE_WAY.into()].concat();
        let kept = last_of(said.as_slice()).await;
        assert_eq!(kept.len(), CONSOLE_END);
        assert!(kept.ends_with(CAME_ALL_THE_WAY.as_bytes()));
    }

    fn question(boot: &str) -> Question {
        Question { boot: boot.into(), host_kernel: "6".into(), qemu: "q".into(), kernel: "k".into() }
    }

    #[test]
    fn an_answer_is_kept_until_anything_it_depends_on_changes() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("new/kvm.json");
        let answer = Kvm::Broken("a, \"b\"".into());
        let recalled = |boot| recall(&kept, &question(boot), SystemTime::now());
        assert_eq!(recalled("one"), None);
        keep(&kept, &Finding { question: question("one"), answer: answer.clone(), at: UNIX_EPOCH }).unwrap();
        assert_eq!(recalled("one"), Some(answer));
        assert_eq!(recalled("two"), None);
        fs::write(&kept, "no json").unwrap();
        assert_eq!(recalled("one"), None);
    }

    #[test]
    fn a_kvm_that_was_too_slow_is_tried_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, at) = (dir.path().join("kvm.json"), SystemTime::now());
        keep(&kept, &Finding { question: question("one"), answer: Kvm::TooSlow, at }).unwrap();
        let recalled = |now| recall(&kept, &question("one"), now);
        assert_eq!(recalled(at + TOO_SLOW_HOLDS / 2), Some(Kvm::TooSlow));
        assert_eq!(recalled(at + TOO_SLOW_HOLDS), None);
        assert_eq!(recalled(at - Duration::from_secs(1)), None);
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
