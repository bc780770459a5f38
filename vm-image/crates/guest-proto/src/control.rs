//! CONTROL: the machine's own conversation, from hello to power-off.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{HostFact, PROTOCOL};

/// A moment as nanoseconds since 1970-01-01 UTC (good until the year 2554).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// This computer's clock; a clock before 1970 or past 2554 counts as the nearer end.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// The time since 1970.
    pub fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl From<SystemTime> for UnixNanos {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The parts of a boot that the guest itself goes through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootStage {
    /// The agent has been welcomed and readies the machine.
    Agent,
    /// The data disk is formatted, checked, grown, mounted.
    Disk,
    /// The engine is started and has not answered yet.
    Engine,
}

/// What the guest's agent says to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGuest {
    /// Always the first message of a CONTROL stream, also after a reconnect.
    Hello {
        /// The guest's [`PROTOCOL`].
        protocol: u32,
        /// The version of the guest's image, for people.
        version: String,
        /// The kernel's boot id: the same after a reconnect, another after a reboot.
        boot_id: String,
    },
    /// A boot stage was entered. After a reconnect the latest is told again, or [`FromGuest::EngineUp`].
    Stage {
        /// Which one.
        stage: BootStage,
        /// What is being done, in words for a person; may be empty. A stage may be told again with another detail.
        detail: String,
    },
    /// The engine answers on its socket.
    EngineUp,
    /// The engine ended without being asked to; it will be started again.
    EngineDown {
        /// How it ended: `exit status 1`, `signal 9`.
        status: String,
        /// The end of its output.
        tail: String,
    },
    /// The data disk has no room left.
    DiskFull {
        /// Bytes that are still free.
        free: u64,
        /// The size of its filesystem in bytes.
        total: u64,
    },
    /// The data disk has room again.
    DiskHasRoom,
    /// A boot stage failed for good: the machine stays up to be asked and powered off, but will not get further.
    Failed {
        /// Which one.
        stage: BootStage,
        /// Why, with the causes.
        error: String,
    },
    /// A line of the agent's own log.
    Log {
        /// The line, without its end.
        line: String,
    },
    /// The machine is about to be off: engine stopped, disk unmounted.
    PoweringOff,
    /// The answer to [`ToGuest::Ping`].
    Pong {
        /// The number of the ping.
        n: u64,
        /// What the guest's clock says.
        unix_time: UnixNanos,
    },
}

/// What the host says to the guest's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGuest {
    /// The answer to a `Hello` of a guest that this host understands.
    Welcome {
        /// The host's [`PROTOCOL`].
        protocol: u32,
        /// What the guest's clock is to be set to.
        unix_time: UnixNanos,
        /// What the guest is to be called.
        hostname: String,
    },
    /// The answer to a `Hello` of a guest that this host does not understand. The guest powers off.
    Refused {
        /// Why, in words for a person.
        reason: String,
        /// The host's [`PROTOCOL`].
        protocol: u32,
    },
    /// Sets the guest's clock, when a [`FromGuest::Pong`] shows that it is wrong: after the host slept, for instance.
    SetClock {
        /// What the guest's clock is to be set to.
        unix_time: UnixNanos,
    },
    /// Stops the engine and its containers, writes everything to disk and powers off.
    PowerOff {
        /// How long the engine may take before it is killed, in seconds.
        grace_secs: u32,
    },
    /// Tells something of the host; the first of each kind comes right after the welcome.
    Host {
        /// What.
        fact: HostFact,
    },
    /// Asks for a [`FromGuest::Pong`].
    Ping {
        /// Comes back in the answer.
        n: u64,
    },
}

/// The two sides were built from different versions of this contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side speaks protocol {theirs}, this side speaks {ours}")]
pub struct VersionMismatch {
    /// This side's version.
    pub ours: u32,
    /// The other side's version.
    pub theirs: u32,
}

/// Whether a peer that says `theirs` in its hello or welcome can be talked to: only the very same version can.
pub fn check_protocol(theirs: u32) -> Result<(), VersionMismatch> {
    if theirs == PROTOCOL { Ok(()) } else { Err(VersionMismatch { ours: PROTOCOL, theirs }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_version_is_accepted() {
        assert_eq!(check_protocol(PROTOCOL), Ok(()));
        for theirs in [0, PROTOCOL - 1, PROTOCOL + 1, u32::MAX] {
            assert_eq!(check_protocol(theirs), Err(VersionMismatch { ours: PROTOCOL, theirs }));
        }
        let said = VersionMismatch { ours: 1, theirs: 7 }.to_string();
        assert_eq!(said, "the other side speaks protocol 7, this side speaks 1");
    }

    #[test]
    fn a_newer_hello_with_more_fields_is_still_read() {
        let newer = r#"{"type":"hello","protocol":9,"version":"2.0","boot_id":"b","memory":"balloon"}"#;
        let hello: FromGuest = serde_json::from_str(newer).unwrap();
        assert_eq!(hello, FromGuest::Hello { protocol: 9, version: "2.0".into(), boot_id: "b".into() });
    }

    #[test]
    fn the_wire_is_what_other_versions_expect() {
        let table: Vec<(String, &str)> = vec![
            (
                json(&FromGuest::Pong { n: 3, unix_time: UnixNanos(5) }),
                r#"{"type":"pong","n":3,"unix_time":5}"#,
            ),
            (
                json(&FromGuest::Stage { stage: BootStage::Disk, detail: "checking".into() }),
                r#"{"type":"stage","stage":"disk","detail":"checking"}"#,
            ),
            (
                json(&ToGuest::Welcome { protocol: 1, unix_time: UnixNanos(5), hostname: "caisson".into() }),
                r#"{"type":"welcome","protocol":1,"unix_time":5,"hostname":"caisson"}"#,
            ),
            (json(&ToGuest::PowerOff { grace_secs: 10 }), r#"{"type":"power_off","grace_secs":10}"#),
        ];
        for (ours, expected) in table {
            assert_eq!(ours, expected);
        }
    }

    #[test]
    fn a_time_before_1970_is_the_start_of_1970() {
        assert_eq!(UnixNanos::from(UNIX_EPOCH - Duration::from_secs(1)), UnixNanos(0));
        assert_eq!(
            UnixNanos::from(UNIX_EPOCH + Duration::from_micros(2)).since_epoch(),
            Duration::from_nanos(2000)
        );
    }

    fn json<T: Serialize>(message: &T) -> String {
        serde_json::to_string(message).unwrap()
    }
}
