//! The command line.

use clap::{Parser, Subcommand};

/// Runs Linux containers in a small virtual machine that any Docker client can use.
#[derive(Debug, Parser)]
#[command(name = "caisson", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage; `status` also has 3: the machine is not running.

The machine starts by itself when a Docker client needs it, as long as the host daemon runs:
`start` starts both, `stop` ends both.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the machine, and the host daemon if it does not run; returns when the engine answers
    Start {
        /// Also make `caisson` the docker context that docker commands use from now on
        #[arg(long)]
        use_context: bool,
    },
    /// Stop the machine and its containers in order, then end the host daemon
    Stop {
        /// Let the host daemon go on, so that the next Docker client starts the machine again
        #[arg(long)]
        machine_only: bool,
    },
    /// Stop the machine and its containers in order, then start it again
    Restart,
    /// Say what the machine does
    Status,
    /// Print the end of the machine's console, or of the host daemon's log
    Logs {
        /// The host daemon's log
        #[arg(long)]
        daemon: bool,
        /// Go on with what is added, until interrupted
        #[arg(long, short)]
        follow: bool,
        /// How many lines
        #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
        tail: usize,
    },
    /// List the ports of this computer that lead to containers
    Ports,
    /// Print the versions of this program, the host daemon and the engine
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn json_can_be_asked_for_on_either_side_of_the_command() {
        assert!(Args::try_parse_from(["caisson", "--json", "status"]).unwrap().json);
        assert!(Args::try_parse_from(["caisson", "status", "--json"]).unwrap().json);
    }
}
