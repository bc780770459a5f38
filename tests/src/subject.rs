//! What a case is run on, wherever the engine lives.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::api::Api;
use crate::bounded::Bounded;
use crate::cli::Docker;

/// An engine and the host that it publishes ports on.
pub trait Subject: Send + Sync {
    /// The prefix of its tests' names.
    fn name(&self) -> &'static str;

    /// The real CLI, pointed at this engine.
    fn docker(&self) -> Docker;

    /// Raw calls to this engine.
    fn api(&self) -> Api;

    /// A command that runs where the engine's published ports are.
    fn on_host(&self, program: &str) -> Command;

    /// The engine's network namespace, if it can be entered from here.
    fn network(&self) -> Option<PathBuf> {
        None
    }

    /// Where the engine looks for certificates of registries, if that can be reached from here.
    fn registry_certificates(&self) -> Option<PathBuf> {
        None
    }

    /// What a web server answers to a user on the host. One that is still starting is asked again for some time.
    fn fetch(&self, url: &str) -> Result<String> {
        let output = self
            .on_host("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "30",
                "--retry",
                "20",
                "--retry-all-errors",
                // Its pauses grow up to ten minutes.
                "--retry-max-time",
                "60",
                url,
            ])
            .in_time()?;
        ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Whether nothing listens at a URL's port on the host.
    fn is_closed(&self, url: &str) -> Result<bool> {
        const COULD_NOT_CONNECT: i32 = 7;
        let output = self.on_host("curl").args(["--silent", "--max-time", "30", url]).in_time()?;
        Ok(output.status.code() == Some(COULD_NOT_CONNECT))
    }
}

/// One thing that an engine must do, told by its name.
pub struct Case {
    /// A sentence in snake case.
    pub name: &'static str,
    /// Does it and checks it.
    pub run: fn(&dyn Subject) -> Result<()>,
}

/// The cases of a module, each named after its function.
#[macro_export]
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        /// The cases of this module.
        pub const CASES: &[$crate::subject::Case] =
            &[$($crate::subject::Case { name: stringify!($name), run: $name }),+];
    };
}
