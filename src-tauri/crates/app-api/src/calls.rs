//! The list of all calls, and what is made of it.
//!
//! A new call is a line here and a method in the daemon; the compiler finds the second, and a test writes the TypeScript.

use crate::{
    ApiError, Client, ContainerId, ContainerLogs, ContainerRemove, ContainerSummary, Event, LogChunk,
    MachineLog, MachineLogText, MachineStatus, PortForwardStatus, Subscription, Version,
    server::{ItemStream, Items, items, value},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::future::Future;

macro_rules! calls {
    (
        calls { $($(#[$doc:meta])* $call:ident = $Call:ident ( $($arg:ident : $Args:ty)? ) -> $Reply:ty;)* }
        subscriptions { $($(#[$sdoc:meta])* $sub:ident = $Sub:ident ( $($sarg:ident : $SArgs:ty)? ) -> $Item:ty;)* }
    ) => {
        /// A request that is answered once.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name", content = "args", rename_all = "snake_case")]
        pub enum Call { $($(#[$doc])* $Call $(($Args))?,)* }

        /// A request that is answered with items, until one side hangs up.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name", content = "args", rename_all = "snake_case")]
        pub enum Subscribe { $($(#[$sdoc])* $Sub $(($SArgs))?,)* }

        /// What the daemon must be able to do.
        pub trait Host: Send + Sync + 'static {
            $($(#[$doc])* fn $call(&self $(, $arg: $Args)?)
                -> impl Future<Output = Result<$Reply, ApiError>> + Send;)*
            $($(#[$sdoc])* fn $sub(&self $(, $sarg: $SArgs)?)
                -> impl Future<Output = Result<ItemStream<$Item>, ApiError>> + Send;)*
        }

        /// Lets `host` answer `call`.
        pub(crate) async fn call(host: &impl Host, call: Call) -> Result<Value, ApiError> {
            match call { $(Call::$Call $(($arg))? => value(host.$call($($arg)?).await?),)* }
        }

        /// Lets `host` answer `subscribe`.
        pub(crate) async fn subscribe(host: &impl Host, subscribe: Subscribe) -> Result<Items, ApiError> {
            match subscribe { $(Subscribe::$Sub $(($sarg))? => Ok(items(host.$sub($($sarg)?).await?)),)* }
        }

        impl Client {
            $($(#[$doc])* pub async fn $call(&self $(, $arg: $Args)?) -> Result<$Reply, ApiError> {
                self.call(Call::$Call $(($arg))?).await
            })*
            $($(#[$sdoc])* pub async fn $sub(&self $(, $sarg: $SArgs)?) -> Result<Subscription<$Item>, ApiError> {
                self.subscribe(Subscribe::$Sub $(($sarg))?).await
            })*
        }

        /// The same list, for TypeScript.
        #[cfg(test)]
        #[allow(unused_parens, dead_code, reason = "`()` when a call has no arguments; only its shape is used")]
        pub(crate) mod shapes {
            use super::*;

            #[derive(specta::Type)]
            pub(crate) struct Calls { $(
                $(#[$doc])*
                $call: CallShape<($($Args)?), $Reply>,
            )* }

            #[derive(specta::Type)]
            pub(crate) struct Subscriptions { $(
                $(#[$sdoc])*
                $sub: SubscriptionShape<($($SArgs)?), $Item>,
            )* }

            #[derive(specta::Type)]
            pub(crate) struct CallShape<A, R> { args: A, reply: R }

            #[derive(specta::Type)]
            pub(crate) struct SubscriptionShape<A, I> { args: A, item: I }
        }
    };
}

calls! {
    calls {
        /// The machine's state now.
        machine_status = MachineStatus() -> MachineStatus;
        /// Starts the machine; answers when it runs or failed.
        machine_start = MachineStart() -> MachineStatus;
        /// Stops the machine in order; answers when it is off.
        machine_stop = MachineStop() -> MachineStatus;
        /// Stops and starts the machine; answers when it runs or failed.
        machine_restart = MachineRestart() -> MachineStatus;
        /// The end of one of the machine's logs.
        machine_log = MachineLog(args: MachineLog) -> MachineLogText;
        /// The versions of daemon and engine.
        version = Version() -> Version;
        /// All containers, running or not.
        container_list = ContainerList() -> Vec<ContainerSummary>;
        /// Starts a container; well if it runs already.
        container_start = ContainerStart(args: ContainerId) -> ();
        /// Stops a container, with its own grace; well if it is stopped already.
        container_stop = ContainerStop(args: ContainerId) -> ();
        /// Removes a container.
        container_remove = ContainerRemove(args: ContainerRemove) -> ();
        /// All published ports.
        port_list = PortList() -> Vec<PortForwardStatus>;
        /// Stops the machine in order and ends the daemon; answers when the machine is off.
        shutdown = Shutdown() -> ();
    }
    subscriptions {
        /// Everything that changes, beginning with how it is.
        events = Events() -> Event;
        /// What a container wrote and, if asked, writes.
        container_logs = ContainerLogs(args: ContainerLogs) -> LogChunk;
    }
}
