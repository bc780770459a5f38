//! Connecting a container to a network, and taking it off, while it runs or not.

use caisson_docker_api::network::EndpointSettings;
use caisson_networks::Network;

use super::{attach_error, check, names, plan, wishes};
use crate::containers::state::{Running, State};
use crate::containers::task::{Request, Task};
use crate::containers::{Handle, files};
use crate::error::{ApiError, chain};

impl Handle {
    /// Connects the container to a network, now if it runs and else with its next start.
    pub(crate) async fn connect(&self, network: Network, wish: EndpointSettings) -> Result<(), ApiError> {
        self.ask(|answer| Request::Connect(Box::new((network, wish)), answer)).await
    }

    /// Takes the container off the network of this name.
    pub(crate) async fn disconnect(&self, network: &str) -> Result<(), ApiError> {
        self.ask(|answer| Request::Disconnect(network.to_owned(), answer)).await
    }
}

impl Task {
    pub(in crate::containers) async fn connect(
        &mut self,
        network: &Network,
        wish: EndpointSettings,
    ) -> Result<(), ApiError> {
        self.refuse_if_going()?;
        check::endpoint(&network.name, Some(network), &wish)?;
        self.check_company(network)?;
        let wish = wishes::as_asked(wish);
        let joined = self.definition.networks.contains_key(&network.name);
        let State::Running(running) = self.state() else {
            let name = network.name.clone();
            return self.redefine(|definition| drop(definition.networks.insert(name, wish))).await;
        };
        if joined && running.sandbox.endpoints.iter().any(|endpoint| endpoint.network_id == network.id) {
            return Err(ApiError::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                self.definition.name, network.name
            )));
        }
        let join = plan::join(&self.definition, &network.name, &wish);
        let sandbox = self.ground.networks.connect(&self.definition.id, join).await;
        let sandbox = sandbox.map_err(|error| attach_error(&error))?;
        let name = network.name.clone();
        self.redefine(|definition| drop(definition.networks.insert(name, wish))).await?;
        if let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.network_id == network.id) {
            self.ground.tell_network(&self.definition.id, endpoint, "connect");
        }
        self.has_other_networks(Running { sandbox, ..running }).await;
        Ok(())
    }

    pub(in crate::containers) async fn disconnect(&mut self, network: &str) -> Result<(), ApiError> {
        self.refuse_if_going()?;
        let id = self.definition.id.clone();
        let known = self.ground.networks.inspect(network);
        let name = known.as_ref().map_or(network.to_owned(), |known| known.name.clone());
        let State::Running(running) = self.state() else {
            if !self.definition.networks.contains_key(&name) {
                let message = format!("container {id} is not connected to the network {name}");
                return Err(ApiError::internal(message));
            }
            return self.redefine(|definition| drop(definition.networks.remove(&name))).await;
        };
        let known = known.map_err(|error| ApiError::not_found(error.to_string()))?;
        if known.driver == "host" && self.definition.host_config.network_mode == "host" {
            return Err(ApiError::forbidden(
                "cannot disconnect container from host network - container was created in host network mode",
            ));
        }
        let joined = running.sandbox.endpoints.iter().any(|endpoint| endpoint.network_id == known.id);
        if !joined {
            let message = format!("container {id} is not connected to network {name}");
            return Err(ApiError::forbidden(message));
        }
        let endpoint = self.ground.networks.disconnect(&id, &known.id).await;
        let endpoint = endpoint.map_err(|error| ApiError::internal(chain(&error)))?;
        self.redefine(|definition| drop(definition.networks.remove(&name))).await?;
        self.ground.tell_network(&id, &endpoint, "disconnect");
        let sandbox = self.ground.networks.sandbox(&id).unwrap_or_else(|| running.sandbox.clone());
        self.has_other_networks(Running { sandbox, ..running }).await;
        Ok(())
    }

    /// Who is found under the container's name, after a rename.
    pub(in crate::containers) async fn tell_names(&mut self) {
        let State::Running(running) = self.state() else { return };
        let definition = &self.definition;
        let named = |network: &str| {
            let wish = definition.networks.get(network)?;
            super::is_user_defined(network).then(|| names::on_network(definition, wish.aliases.as_ref()))
        };
        let renamed = self.ground.networks.rename(&definition.id, &definition.name, &named).await;
        match renamed {
            Ok(Some(sandbox)) => self.has_other_networks(Running { sandbox, ..running }).await,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = %chain(&error), "a container is still found under its old name")
            }
        }
    }

    fn refuse_if_going(&self) -> Result<(), ApiError> {
        match self.state() {
            State::Removing(_) | State::Removed => Err(ApiError::conflict(format!(
                "container {} is marked for removal and cannot be connected or disconnected to the network",
                self.definition.id
            ))),
            _ => Ok(()),
        }
    }

    /// Which networks a container may be on at the same time.
    fn check_company(&self, network: &Network) -> Result<(), ApiError> {
        let mode = self.definition.host_config.network_mode.as_str();
        if mode != "host" && network.driver == "host" {
            return Err(ApiError::invalid(
                "cannot connect container to host network - container must be created in host network mode",
            ));
        }
        if mode.starts_with("container:") || (mode == "host" && network.driver != "host") {
            return Err(ApiError::invalid(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        let others = self.definition.networks.keys().filter(|name| **name != network.name);
        let mut others = others.peekable();
        if others.peek().is_some() && (network.name == "none" || others.any(|name| name == "none")) {
            return Err(ApiError::invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ));
        }
        Ok(())
    }

    /// The container's files and what others see follow its sandbox.
    async fn has_other_networks(&mut self, running: Running) {
        self.rewrite_files(&running).await;
        self.set_state(State::Running(running), false).await;
        self.tell_linking();
    }

    /// The container's files say what is true now.
    pub(in crate::containers) async fn rewrite_files(&self, running: &Running) {
        if !files::are_of(&self.definition) {
            return;
        }
        let (definition, directory) = (self.definition.clone(), self.directory.clone());
        let (sandbox, linked) = (running.sandbox.clone(), self.register.linked_hosts(&definition));
        let ground = self.ground.clone();
        let write = move || {
            let others = files::Others { linked: &linked, host_gateways: &ground.host_gateways() };
            files::rewrite(&definition, &directory, &sandbox, others)
        };
        let written = tokio::task::spawn_blocking(write).await;
        if let Err(error) = written.map_err(std::io::Error::other).flatten() {
            tracing::error!(error = %chain(&error), "could not write the container's /etc/hosts");
        }
    }
}
