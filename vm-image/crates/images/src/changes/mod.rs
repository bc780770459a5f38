//! `docker import --change`: Dockerfile instructions that change a configuration only, as dockerd's `BuildFromConfig`
//! understands them. The same will serve `docker commit --change`.

mod health;
mod ports;
mod signal;
mod words;

use crate::config::{Empty, RunConfig};
use words::Environment;

/// Why an instruction was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// An instruction that is none, or that does more than change a configuration.
    #[error("{0} is not a valid change command")]
    NotAllowed(String),
    /// It lacks an argument.
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    /// It lacks its argument.
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    /// `ENV name` without a value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// `ENV a=b c`.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoEquals(String),
    /// `ENV =b`.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// `VOLUME [""]`.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// An instruction that a build cannot be triggered with.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    Trigger(String),
    /// `ONBUILD ONBUILD`.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    ChainedOnBuild,
    /// No such port.
    #[error("Invalid containerPort: {0}")]
    Port(String),
    /// No such protocol.
    #[error("Invalid proto: {0}")]
    Protocol(String),
    /// No such signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// `HEALTHCHECK` without a sense.
    #[error("{0}")]
    Health(String),
    /// A `${…}` that does not end or does what is not known.
    #[error("failed to process {word:?}: {why}")]
    Expansion {
        /// The word.
        word: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Applies instructions, one or more to each text, in order.
pub(crate) fn apply(config: &mut RunConfig, changes: &[String]) -> Result<(), ChangeError> {
    let mut change = Change { config, command_set: false };
    words::lines(&changes.join("\n")).iter().try_for_each(|line| change.line(line))
}

struct Change<'a> {
    config: &'a mut RunConfig,
    /// `ENTRYPOINT` forgets the command of before, but not one that came with it.
    command_set: bool,
}

impl Change<'_> {
    fn line(&mut self, line: &str) -> Result<(), ChangeError> {
        let (instruction, rest) = words::first(line);
        match instruction.to_ascii_uppercase().as_str() {
            "CMD" => self.command(rest),
            "ENTRYPOINT" => self.entrypoint(rest),
            "ENV" => self.env(rest)?,
            "EXPOSE" => self.expose(rest)?,
            "HEALTHCHECK" => self.config.healthcheck = Some(health::parse(rest)?),
            "LABEL" => self.label(rest)?,
            "ONBUILD" => self.on_build(rest)?,
            "STOPSIGNAL" => self.stop_signal(rest)?,
            "USER" => self.config.user = self.expand(exactly_one("USER", rest)?)?,
            "VOLUME" => self.volume(rest)?,
            "WORKDIR" => self.work_dir(rest)?,
            _ => return Err(ChangeError::NotAllowed(instruction.to_owned())),
        }
        Ok(())
    }

    fn expand(&self, word: &str) -> Result<String, ChangeError> {
        Environment(&self.config.env).expand(word)
    }

    /// A JSON array as it is, anything else through the shell.
    fn command_line(&self, rest: &str) -> Vec<String> {
        match words::json(rest) {
            Some(words) => words,
            None => {
                let shell = self.config.shell.clone();
                let mut line = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                line.extend(Some(rest.to_owned()).filter(|rest| !rest.is_empty()));
                line
            }
        }
    }

    fn command(&mut self, rest: &str) {
        let line = Some(self.command_line(rest)).filter(|line| !line.is_empty());
        self.command_set |= line.is_some();
        self.config.cmd = line;
    }

    fn entrypoint(&mut self, rest: &str) {
        let line = if rest.is_empty() { Vec::new() } else { self.command_line(rest) };
        self.config.entrypoint = Some(line).filter(|line| !line.is_empty());
        if !self.command_set {
            self.config.cmd = None;
        }
    }

    fn pairs(&self, instruction: &'static str, rest: &str) -> Result<Vec<(String, String)>, ChangeError> {
        let pairs = words::pairs(instruction, rest)?;
        let expanded = pairs.into_iter().map(|(name, value)| Ok((self.expand(&name)?, self.expand(&value)?)));
        let expanded: Vec<(String, String)> = expanded.collect::<Result<_, ChangeError>>()?;
        match expanded.iter().any(|(name, _)| name.is_empty()) {
            true => Err(ChangeError::BlankName(instruction)),
            false => Ok(expanded),
        }
    }

    fn env(&mut self, rest: &str) -> Result<(), ChangeError> {
        for (name, value) in self.pairs("ENV", rest)? {
            let entry = format!("{name}={value}");
            let same = |other: &&mut String| other.split('=').next() == Some(name.as_str());
            match self.config.env.iter_mut().find(same) {
                Some(other) => *other = entry,
                None => self.config.env.push(entry),
            }
        }
        Ok(())
    }

    fn label(&mut self, rest: &str) -> Result<(), ChangeError> {
        let labels = self.pairs("LABEL", rest)?;
        self.config.labels.extend(labels);
        Ok(())
    }

    fn expose(&mut self, rest: &str) -> Result<(), ChangeError> {
        at_least_one("EXPOSE", rest)?;
        for word in rest.split_whitespace() {
            // One variable may hold several ports.
            for port in self.expand(word)?.split_whitespace() {
                self.config.exposed_ports.extend(ports::parse(port)?.into_iter().map(|port| (port, Empty)));
            }
        }
        Ok(())
    }

    fn volume(&mut self, rest: &str) -> Result<(), ChangeError> {
        at_least_one("VOLUME", rest)?;
        let volumes =
            words::json(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
        for volume in volumes {
            let volume = self.expand(&volume)?;
            if volume.trim().is_empty() {
                return Err(ChangeError::EmptyVolume);
            }
            self.config.volumes.insert(volume, Empty);
        }
        Ok(())
    }

    fn work_dir(&mut self, rest: &str) -> Result<(), ChangeError> {
        let wanted = self.expand(exactly_one("WORKDIR", rest)?)?;
        let mut path: Vec<&str> = Vec::new();
        let current = if wanted.starts_with('/') { "" } else { self.config.working_dir.as_str() };
        for component in current.split('/').chain(wanted.split('/')) {
            match component {
                "" | "." => {}
                ".." => drop(path.pop()),
                _ => path.push(component),
            }
        }
        self.config.working_dir = format!("/{}", path.join("/"));
        Ok(())
    }

    fn stop_signal(&mut self, rest: &str) -> Result<(), ChangeError> {
        let signal = self.expand(exactly_one("STOPSIGNAL", rest)?)?;
        if !signal::is_known(&signal) {
            return Err(ChangeError::Signal(signal));
        }
        self.config.stop_signal = signal;
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Result<(), ChangeError> {
        at_least_one("ONBUILD", rest)?;
        let trigger = words::first(rest).0.to_ascii_uppercase();
        match trigger.as_str() {
            "ONBUILD" => return Err(ChangeError::ChainedOnBuild),
            "FROM" | "MAINTAINER" => return Err(ChangeError::Trigger(trigger)),
            _ => self.config.on_build.push(rest.to_owned()),
        }
        Ok(())
    }
}

fn at_least_one(instruction: &'static str, rest: &str) -> Result<(), ChangeError> {
    if rest.is_empty() { Err(ChangeError::AtLeastOne(instruction)) } else { Ok(()) }
}

fn exactly_one<'a>(instruction: &'static str, rest: &'a str) -> Result<&'a str, ChangeError> {
    if rest.is_empty() { Err(ChangeError::ExactlyOne(instruction)) } else { Ok(rest) }
}

#[cfg(test)]
mod tests;
