//! Finds the programs that the backend runs, and says how to get those that are not there.

use std::{env, path::PathBuf};

use caisson_hypervisor::LaunchError;

/// A program that the backend runs.
#[derive(Debug)]
pub(super) struct Program {
    /// Its file's name.
    pub(super) name: &'static str,
    /// To go on after "which".
    purpose: &'static str,
    /// What installs it.
    install: &'static str,
}

/// QEMU for the processor that this computer has.
pub(super) const QEMU: Program = if cfg!(target_arch = "aarch64") {
    Program {
        name: "qemu-system-aarch64",
        purpose: "runs the machine",
        install: "install it, on Debian and Ubuntu: sudo apt-get install qemu-system-arm",
    }
} else {
    Program {
        name: "qemu-system-x86_64",
        purpose: "runs the machine",
        install: "install it, on Debian and Ubuntu: sudo apt-get install qemu-system-x86",
    }
};

/// Where programs are looked for, in this order.
#[derive(Debug, Clone)]
pub(super) struct Search(Vec<PathBuf>);

impl Search {
    /// `$CAISSON_TOOLS`, `PATH`, `../tools/bin` beside our own program, and the user's cache of tools.
    pub(super) fn of_environment() -> Self {
        let chosen = env::var_os("CAISSON_TOOLS").map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("tools/bin")));
        let cached = directories::BaseDirs::new().map(|dirs| dirs.cache_dir().join("caisson/tools/bin"));
        Self(chosen.into_iter().chain(env::split_paths(&path)).chain(beside).chain(cached).collect())
    }

    /// The first file of that name.
    pub(super) fn find(&self, program: &Program) -> Result<PathBuf, LaunchError> {
        let found = self.0.iter().map(|dir| dir.join(program.name)).find(|file| file.is_file());
        found.ok_or_else(|| LaunchError::ProgramMissing {
            program: program.name.into(),
            purpose: program.purpose,
            install: program.install.into(),
            looked_in: self.0.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_has_the_program_wins() {
        let first = tempfile::tempdir().unwrap();
        let second = tempfile::tempdir().unwrap();
        let search = Search(vec![first.path().into(), second.path().into()]);
        std::fs::write(second.path().join(QEMU.name), "").unwrap();
        assert_eq!(search.find(&QEMU).unwrap(), second.path().join(QEMU.name));
        std::fs::write(first.path().join(QEMU.name), "").unwrap();
        assert_eq!(search.find(&QEMU).unwrap(), first.path().join(QEMU.name));
    }

    #[test]
    fn a_missing_program_says_how_to_install_it() {
        let error = Search(vec!["/nowhere".into()]).find(&QEMU).unwrap_err();
        assert_eq!(error.to_string(), format!("{}, which runs the machine, is not installed", QEMU.name));
        assert!(error.remedy().unwrap().contains("apt-get install"));
    }
}
