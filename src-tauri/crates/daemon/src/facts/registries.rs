//! The user's settings and certificates of registries, as the machine is told them.

use super::Sources;
use caisson_guest_proto::{HostFact, HostRegistries, MAX_REGISTRY_CERTIFICATES, RegistryFile};
use caisson_os::{RegistryCertificates, RegistrySettings};

/// What was seen of registries.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Registries {
    /// Those of `daemon.json`, or of the last one that could be read.
    pub(super) settings: RegistrySettings,
    /// Why they are not what `daemon.json` says now.
    pub(super) problem: Option<String>,
    pub(super) certificates: RegistryCertificates,
}

impl Registries {
    /// What is there now. Settings that cannot be read stay as they were.
    pub(super) fn look(self, sources: &impl Sources) -> Self {
        let certificates = sources.registry_certificates();
        match sources.registry_settings() {
            Ok(settings) => Self { settings, problem: None, certificates },
            Err(error) => {
                let problem = Some(format!("{:#}", anyhow::Error::new(error)));
                Self { settings: self.settings, problem, certificates }
            }
        }
    }

    pub(super) fn facts(&self) -> [HostFact; 2] {
        let RegistrySettings { insecure, mirrors, ignored: _ } = self.settings.clone();
        let files = fitting(&self.certificates).0;
        [HostFact::Registries(HostRegistries { insecure, mirrors }), HostFact::RegistryCertificates { files }]
    }

    /// What the user should know that was not so before.
    pub(super) fn news(&self, before: &Self) -> Vec<String> {
        let mut news = Vec::new();
        if let Some(problem) = self.problem.as_ref().filter(|_| self.problem != before.problem) {
            news.push(format!("the settings of registries stay as they were: {problem}"));
        }
        let ignored = &self.settings.ignored;
        if !ignored.is_empty() && *ignored != before.settings.ignored {
            news.push(format!(
                "of daemon.json the machine takes insecure-registries and registry-mirrors only, and not {}",
                ignored.join(", ")
            ));
        }
        if self.certificates != before.certificates {
            let problems = self.certificates.problems.iter();
            news.extend(
                problems.map(|problem| format!("a registry's certificate cannot be read: {problem}")),
            );
            let left_out = fitting(&self.certificates).1;
            news.extend(left_out.into_iter().map(|registry| {
                format!("the machine is not told the certificates of {registry}: there are too many in all")
            }));
        }
        news
    }
}

/// The files of as many registries as a message holds, and which registries it does not. A registry's files belong together.
fn fitting(certificates: &RegistryCertificates) -> (Vec<RegistryFile>, Vec<&str>) {
    let (mut told, mut left_out) = (Vec::new(), Vec::new());
    let mut room = MAX_REGISTRY_CERTIFICATES;
    for own in certificates.files.chunk_by(|one, next| one.registry == next.registry) {
        let files: Vec<RegistryFile> = own.iter().map(for_guest).collect();
        let length = serde_json::to_string(&files).map_or(usize::MAX, |text| text.len());
        match room.checked_sub(length) {
            Some(rest) => {
                room = rest;
                told.extend(files);
            }
            None => left_out.extend(own.first().map(|file| file.registry.as_str())),
        }
    }
    (told, left_out)
}

fn for_guest(file: &caisson_os::RegistryFile) -> RegistryFile {
    let caisson_os::RegistryFile { registry, name, text } = file.clone();
    RegistryFile { registry, name, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificates(files: &[(&str, &str, &str)]) -> RegistryCertificates {
        let file = |&(registry, name, text): &(&str, &str, &str)| caisson_os::RegistryFile {
            registry: registry.into(),
            name: name.into(),
            text: text.into(),
        };
        RegistryCertificates { files: files.iter().map(file).collect(), problems: Vec::new() }
    }

    #[test]
    fn a_registrys_certificates_are_told_whole_or_not_at_all_and_fit_into_a_frame() {
        // A line's end takes two bytes in JSON, so that two of these are nearly all that fits.
        let half = "\n".repeat(MAX_REGISTRY_CERTIFICATES / 4 - 1000);
        let certificates = certificates(&[
            ("a", "ca.crt", &half),
            ("b", "client.cert", &half),
            ("b", "client.key", &half),
            ("c", "ca.crt", &half),
        ]);
        let registries = Registries { certificates, ..Registries::default() };
        let facts = registries.facts();
        let HostFact::RegistryCertificates { files } = &facts[1] else { panic!("{facts:?}") };
        assert_eq!(format!("{files:?}"), "[a/ca.crt, c/ca.crt]");
        for fact in facts {
            caisson_guest_proto::frame::encode(&caisson_guest_proto::ToGuest::Host { fact }).unwrap();
        }
        let said = registries.news(&Registries::default());
        assert!(matches!(&said[..], [one] if one.contains("certificates of b:")), "{said:?}");
        assert!(registries.news(&registries.clone()).is_empty());
    }

    #[test]
    fn what_is_ignored_and_what_cannot_be_read_is_said_once() {
        let settings = RegistrySettings {
            ignored: vec!["builder".into(), "debug".into()],
            ..RegistrySettings::default()
        };
        let mut now = Registries { settings, ..Registries::default() };
        now.certificates.problems.push("ca.crt: it is no text".into());
        let said = now.news(&Registries::default());
        assert!(said.len() == 2 && said[0].ends_with("and not builder, debug"), "{said:?}");
        assert!(said[1].ends_with("ca.crt: it is no text"), "{said:?}");
        assert!(now.news(&now.clone()).is_empty());
    }
}
