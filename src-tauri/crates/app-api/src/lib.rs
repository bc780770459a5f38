//! What the window and the CLI say to the host daemon.
