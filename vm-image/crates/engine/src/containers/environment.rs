//! The variables that all containers get, such as the proxies of the host's, from a file that somebody else keeps.

use std::io;
use std::path::Path;

use caisson_docker_api::container::Config;
use tracing::warn;

/// Adds the variables in the file that the user has not named. As with `docker run` and proxies in its configuration the
/// container keeps them, whatever becomes of the file.
pub(super) fn add(config: &mut Config, file: &Path) {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return warn!(%error, file = %file.display(), "containers get no variables from here"),
    };
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let named: Vec<String> = config.env.iter().flatten().map(|entry| name(entry)).collect();
    let missing = |line: &&str| line.contains('=') && !named.contains(&name(line));
    let added: Vec<String> = text.lines().filter(missing).map(str::to_owned).collect();
    if !added.is_empty() {
        config.env.get_or_insert_default().extend(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_named_stays_and_the_rest_is_added() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "HTTP_PROXY=http://p:1\nhttp_proxy=http://p:1\nNO_PROXY=a=b\nnonsense\n")
            .unwrap();
        let env = Some(vec!["HTTP_PROXY=".into(), "http_proxy".into()]);
        let mut config = Config { env, ..Config::default() };
        add(&mut config, file.path());
        assert_eq!(config.env.unwrap(), ["HTTP_PROXY=", "http_proxy", "NO_PROXY=a=b"]);
        let mut config = Config::default();
        add(&mut config, Path::new("/nonexistent"));
        assert_eq!(config.env, None);
    }
}
