//! `/sbin/modprobe`, as the kernel calls it (`modprobe -q -- NAME`) when something needs a module that is not loaded:
//! a network driver, a filesystem, a netfilter expression. So nothing is loaded before it is used.

use std::path::Path;
use std::process::ExitCode;

use crate::modules::{DIR, Found, load_by_name};

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let mut result = ExitCode::SUCCESS;
    for name in arguments.iter().filter(|argument| !argument.starts_with('-')) {
        match load_by_name(Path::new(DIR), name) {
            Ok(Found::Loaded) => {}
            // The kernel asks for many names on the chance that there is something; the exit status is the answer.
            Ok(Found::Nothing) => result = ExitCode::FAILURE,
            Err(error) => {
                eprintln!("modprobe: {name}: {:#}", anyhow::Error::new(error));
                result = ExitCode::FAILURE;
            }
        }
    }
    result
}
