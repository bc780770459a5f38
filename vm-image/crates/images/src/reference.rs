//! References: the names people give to images, `[domain/]path[:tag][@digest]`.
//!
//! The grammar, the normalisation (`busybox` is `docker.io/library/busybox`) and the errors are those of the
//! `distribution/reference` package that dockerd and its clients use, so that a name means the same to both sides.
//! A bare 64-digit hex string is reserved for ids, and no repository can have such a name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const PATH_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// The name of an image in its normalised form. `Display` writes it in full, [`familiar`](Self::familiar) as
/// people see it. References order as their full text does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A string that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It looks like an id, which no repository may.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The path is longer than a registry takes.
    #[error("repository name must not be more than {PATH_MAX} characters")]
    TooLong,
    /// The digest after `@` is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A tag does not follow the grammar.
    #[error("invalid tag format")]
    Tag,
    /// A digest was given where only a tag can be meant.
    #[error("cannot import digest reference")]
    DigestNotAllowed,
    /// `sha256:x` as a tag could not be told from an id.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    Ambiguous,
}

/// What a client may give to name an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyReference {
    /// A whole image id, with or without `sha256:`.
    Id(Digest),
    /// A name, which may yet turn out to be the beginning of an id.
    Named(Reference),
}

impl AnyReference {
    /// Reads an id or a name.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        match Digest::from_hex(text).or_else(|_| text.parse()) {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => Reference::parse(text).map(Self::Named),
        }
    }
}

impl fmt::Display for AnyReference {
    /// The familiar form, with the default tag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Named(name) => f.write_str(&name.clone().or_latest().familiar()),
        }
    }
}

impl Reference {
    /// Reads a name as people write it, and normalises it. No tag is added: see [`or_latest`](Self::or_latest).
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if Digest::from_hex(text).is_ok() {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let repository = remainder.split(':').next().unwrap_or_default();
        if repository.to_lowercase() != repository {
            return Err(ReferenceError::Uppercase(repository.to_owned()));
        }
        parse_normalised(domain, &remainder)
    }

    /// Makes a tag's name of the `repo` and `tag` that the API takes apart: an empty tag is the one in `repo`,
    /// or else `latest`.
    pub fn from_repo_and_tag(repo: &str, tag: &str) -> Result<Self, ReferenceError> {
        let reference = Self::parse(repo)?;
        if reference.digest.is_some() {
            return Err(ReferenceError::DigestNotAllowed);
        }
        let reference = if tag.is_empty() { reference.or_latest() } else { reference.with_tag(tag)? };
        if reference.familiar_name() == "sha256" {
            return Err(ReferenceError::Ambiguous);
        }
        Ok(reference)
    }

    /// The same with this tag.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        self.tag = Some(tag.to_owned());
        Ok(self)
    }

    /// The same repository with this digest and without a tag.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        (self.tag, self.digest) = (None, Some(digest));
        self
    }

    /// The same with the tag `latest` if it has neither a tag nor a digest.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same without its tag if it has a digest too: the digest says more.
    pub fn favour_digest(mut self) -> Self {
        if self.digest.is_some() {
            self.tag = None;
        }
        self
    }

    /// The registry, `docker.io` unless another is named.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in the registry, `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one is given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository in full, without tag and digest.
    pub fn name(&self) -> String {
        if self.domain.is_empty() { self.path.clone() } else { format!("{}/{}", self.domain, self.path) }
    }

    /// Registry and repository as people see them: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        let short = match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(name) if !name.contains('/') => name,
            _ => &self.path,
        };
        // Docker Hub's `some.host/app` is not what that host has.
        match Self::parse(short) {
            Ok(again) if (&again.domain, &again.path) == (&self.domain, &self.path) => short.to_owned(),
            _ => self.name(),
        }
    }

    /// The whole as people see it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| serde::de::Error::custom(format!("{error}: {text:?}")))
    }
}

/// Tells the registry from the repository: the part before the first slash is a registry if it has a dot, a colon
/// or a capital letter, or is `localhost`.
fn split_domain(text: &str) -> (&str, String) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_DOMAIN, format!("{OFFICIAL_PREFIX}{text}"));
    };
    let (domain, remainder) = if first == LEGACY_DEFAULT_DOMAIN {
        (DEFAULT_DOMAIN, rest)
    } else if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first {
        (first, rest)
    } else {
        (DEFAULT_DOMAIN, text)
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain, format!("{OFFICIAL_PREFIX}{remainder}"));
    }
    (domain, remainder.to_owned())
}

fn parse_normalised(domain: &str, remainder: &str) -> Result<Reference, ReferenceError> {
    let (rest, digest) = match remainder.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (remainder, None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let good = path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(has_digest_form)
        && (is_domain(domain) || is_path_component(domain));
    if !good {
        return Err(ReferenceError::Format);
    }
    // What cannot be a host, such as `my_host.com`, is the beginning of the path.
    let (domain, path) = match is_domain(domain) {
        true => (domain.to_owned(), path.to_owned()),
        false => (String::new(), format!("{domain}/{path}")),
    };
    if path.len() > PATH_MAX {
        return Err(ReferenceError::TooLong);
    }
    let digest = digest.map(str::parse).transpose()?;
    Ok(Reference { domain, path, tag: tag.map(str::to_owned), digest })
}

/// `host[:port]`, where the host is a name, an IPv4 address, or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return !address.is_empty()
            && address.bytes().all(|letter| letter.is_ascii_hexdigit() || letter == b':')
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    host.split('.').all(is_domain_component) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit())
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-')
}

/// Lower-case letters and digits, with single dots, one or two underscores, or any number of dashes between them.
fn is_path_component(text: &str) -> bool {
    let is_word = |letter: &u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let mut separators = text.as_bytes().split(is_word);
    let (Some(first), Some(last)) = (text.as_bytes().first(), text.as_bytes().last()) else { return false };
    is_word(first)
        && is_word(last)
        && separators.all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|letter| *letter == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let is_word = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
    text.len() <= TAG_MAX
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|letter| is_word(letter) || letter == b'.' || letter == b'-')
}

/// What the reference grammar takes for a digest; whether it is one is asked later.
fn has_digest_form(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let is_algorithm = algorithm.split(['-', '_', '+', '.']).all(|part| {
        part.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && part.bytes().all(|letter| letter.is_ascii_alphanumeric())
    });
    is_algorithm && hex.len() >= 32 && hex.bytes().all(|letter| letter.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_and_shown_as_people_write_them() {
        let digest = format!("sha256:{HEX}");
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("me/app:v1", "docker.io/me/app:v1", "me/app:v1"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("docker.io/some.host/app", "docker.io/some.host/app", "docker.io/some.host/app"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("localhost:5000/app:t", "localhost:5000/app:t", "localhost:5000/app:t"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("[fe80::1]/app", "[fe80::1]/app", "[fe80::1]/app"),
            ("HOST/app", "HOST/app", "HOST/app"),
            ("Example.com/app", "Example.com/app", "Example.com/app"),
            ("my_host.com/app", "my_host.com/app", "my_host.com/app"),
            ("xn--n3h.com/app", "xn--n3h.com/app", "xn--n3h.com/app"),
            ("a__b", "docker.io/library/a__b", "a__b"),
            ("a---b.c_d", "docker.io/library/a---b.c_d", "a---b.c_d"),
            ("a:B.c-_D", "docker.io/library/a:B.c-_D", "a:B.c-_D"),
            ("a:_x", "docker.io/library/a:_x", "a:_x"),
            (
                &format!("busybox@{digest}"),
                &format!("docker.io/library/busybox@{digest}"),
                &format!("busybox@{digest}"),
            ),
            (
                &format!("busybox:t@{digest}"),
                &format!("docker.io/library/busybox:t@{digest}"),
                &format!("busybox:t@{digest}"),
            ),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(full).as_ref(), Ok(&reference), "{full} again");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_as_docker_refuses_it() {
        let long = "a/".repeat(128) + "a";
        for (text, error) in [
            ("", "invalid reference format"),
            ("/", "invalid reference format"),
            (":", "invalid reference format"),
            (":tag", "invalid reference format"),
            ("@", "invalid reference format"),
            ("busybox:", "invalid reference format"),
            ("busybox@", "invalid reference format"),
            ("busybox:a b", "invalid reference format"),
            (" busybox", "invalid reference format"),
            ("busybox\n", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a-", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a:-x", "invalid reference format"),
            ("a:.x", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("../a", "invalid reference format"),
            ("https://x.com/a", "invalid reference format"),
            ("host:port/a", "invalid reference format"),
            ("[fe80::1%eth0]/a", "invalid reference format"),
            ("é", "invalid reference format"),
            ("a@sha256:abc", "invalid reference format"),
            ("a@b@c", "invalid reference format"),
            ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
            ("Foo:latest", "invalid reference format: repository name (library/Foo) must be lowercase"),
            ("me/App", "invalid reference format: repository name (me/App) must be lowercase"),
            ("host.com/App", "invalid reference format: repository name (App) must be lowercase"),
            (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
            (&long, "repository name must not be more than 255 characters"),
            (&format!("a:{}", "t".repeat(129)), "invalid reference format"),
            (&format!("a@sha256:{}", &HEX[..40]), "invalid checksum digest length"),
            (&format!("a@sha256:{}", HEX.to_uppercase()), "invalid checksum digest format"),
            (&format!("a@md5:{}", &HEX[..32]), "unsupported digest algorithm"),
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().to_string(), error, "{text:?}");
        }
    }

    #[test]
    fn repo_and_tag_make_a_tag() {
        let digest = format!("a@sha256:{HEX}");
        for (repo, tag, made) in [
            ("a", "", Ok("a:latest")),
            ("a:b", "", Ok("a:b")),
            ("a:b", "c", Ok("a:c")),
            ("a", "-", Err("invalid tag format")),
            ("", "x", Err("invalid reference format")),
            (&digest, "x", Err("cannot import digest reference")),
            ("sha256", "x", Err("refusing to create an ambiguous tag using digest algorithm as name")),
        ] {
            let got = Reference::from_repo_and_tag(repo, tag).map(|reference| reference.familiar());
            assert_eq!(
                got.map_err(|error| error.to_string()),
                made.map(str::to_owned).map_err(str::to_owned),
                "{repo}"
            );
        }
    }

    #[test]
    fn a_whole_id_is_no_name() {
        let id = Digest::from_hex(HEX).unwrap();
        assert_eq!(AnyReference::parse(HEX), Ok(AnyReference::Id(id)));
        assert_eq!(AnyReference::parse(&format!("sha256:{HEX}")), Ok(AnyReference::Id(id)));
        assert_eq!(AnyReference::parse("e3b0c44298fc").unwrap().to_string(), "e3b0c44298fc:latest");
    }
}
