//! Names inside a layer.

/// A name inside a layer: components, none of which is empty, `.` or `..`. The root itself has none.
///
/// Kept as one piece of text, whatever the number of components: an archive may have millions of names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LayerPath(Vec<u8>);

impl LayerPath {
    /// The layer's root.
    pub(crate) const ROOT: Self = Self(Vec::new());

    /// Cleans a name as it stands in an archive: `/a/./b//../c` is `a/c`. Nothing if it leads out of the root.
    ///
    /// This is done on the text, as Docker does, before any symbolic link is looked at.
    pub(crate) fn clean(name: &[u8]) -> Option<Self> {
        let mut path = Self::ROOT;
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path.pop()?,
                _ => path.push(component),
            }
        }
        Some(path)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it is in and its name there; nothing for the root.
    pub(crate) fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        let slash = self.last_slash();
        let name = slash.map_or(0, |slash| slash + 1);
        Some((Self(self.0[..slash.unwrap_or(0)].to_vec()), &self.0[name..]))
    }

    fn last_slash(&self) -> Option<usize> {
        self.0.iter().rposition(|byte| *byte == b'/')
    }

    pub(crate) fn join(&self, name: &[u8]) -> Self {
        let mut path = self.clone();
        path.push(name);
        path
    }

    /// A path that begins where this one leads.
    pub(crate) fn join_all(&self, path: &Self) -> Self {
        let mut joined = self.clone();
        if !path.is_root() {
            joined.push(&path.0);
        }
        joined
    }

    fn push(&mut self, name: &[u8]) {
        if !self.is_root() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }

    /// Takes the last component away, if there is one.
    fn pop(&mut self) -> Option<()> {
        if self.is_root() {
            return None;
        }
        self.0.truncate(self.last_slash().unwrap_or(0));
        Some(())
    }

    /// As a relative path; `.` for the root.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        if self.is_root() { b"." } else { &self.0 }
    }
}

impl std::fmt::Display for LayerPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
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
