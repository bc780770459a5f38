//! Names inside a layer.

/// A name inside a layer: components, none of which is empty, `.` or `..`. The root itself has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LayerPath(Vec<Vec<u8>>);

impl LayerPath {
    /// The layer's root.
    pub(crate) const ROOT: Self = Self(Vec::new());

    /// Cleans a name as it stands in an archive: `/a/./b//../c` is `a/c`. Nothing if it leads out of the root.
    ///
    /// This is done on the text, as Docker does, before any symbolic link is looked at.
    pub(crate) fn clean(name: &[u8]) -> Option<Self> {
        let mut components = Vec::new();
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(components.pop()?),
                _ => components.push(component.to_vec()),
            }
        }
        Some(Self(components))
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it is in and its name there; nothing for the root.
    pub(crate) fn split(&self) -> Option<(Self, &[u8])> {
        let (name, parent) = self.0.split_last()?;
        Some((Self(parent.to_vec()), name))
    }

    pub(crate) fn join(&self, name: &[u8]) -> Self {
        Self(self.0.iter().cloned().chain([name.to_vec()]).collect())
    }

    /// As a relative path; `.` for the root.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        if self.is_root() { b".".to_vec() } else { self.0.join(&b'/') }
    }
}

impl std::fmt::Display for LayerPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_never_lead_out() {
        for (name, clean) in [
            ("a/b", Some("a/b")),
            ("./a/b/", Some("a/b")),
            ("/a//b/.", Some("a/b")),
            ("a/../b", Some("b")),
            ("a/..", Some(".")),
            ("", Some(".")),
            ("./", Some(".")),
            ("/", Some(".")),
            ("...", Some("...")),
            ("..", None),
            ("/..", None),
            ("a/../../b", None),
            ("../a", None),
        ] {
            let found = LayerPath::clean(name.as_bytes()).map(|path| path.to_string());
            assert_eq!(found.as_deref(), clean, "{name:?}");
        }
    }
}
