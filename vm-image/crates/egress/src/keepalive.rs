//! Connections with containers end when their container is gone.
//!
//! A container that is killed takes its network with it, and what its kernel says at the ends of thousands of connections may be lost on
//! the way: nobody is left to say it again, and whoever only waits for it waits for ever. So a peer of whom nothing was heard for
//! a while is asked whether it is there. It is its kernel that answers, so a program that is paused, or reads nothing, keeps its
//! connections; a limit on what was sent and not taken (`TCP_USER_TIMEOUT`) would cut them.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// How long nothing may be heard before a peer is asked, and before it is asked again. Tests do not have that long.
const IDLE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
const INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How many questions in a row may be lost: of thousands that are asked in the same moment some are. So a peer that is gone is noticed
/// within two minutes.
const QUESTIONS: u32 = 6;

/// Ends a connection whose peer is gone. Those that a listener accepts are as the listener is.
pub(crate) fn set(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(QUESTIONS);
    socket.set_tcp_keepalive(&keepalive)
}
