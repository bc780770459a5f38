//! caisson: the machine from a terminal.
//!
//! It knows nothing that the window does not: both ask the host daemon over `caisson-app-api`. What it prints goes to
//! standard output, what went wrong to standard error; with `--json` there is one JSON value on standard output and
//! nothing else, an error included.

mod args;
mod commands;
mod logs;
mod progress;
mod report;

use args::Args;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot begin: {error}");
            return ExitCode::FAILURE;
        }
    };
    let json = args.json;
    match runtime.block_on(Box::pin(commands::run(args))) {
        Ok(code) => code,
        Err(error) => {
            report::error(&error, json);
            ExitCode::FAILURE
        }
    }
}
