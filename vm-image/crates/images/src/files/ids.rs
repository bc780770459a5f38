//! Who the owners of files are on this system and in a container, where the two number users differently (user namespaces).

/// A run of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first one in the container.
    pub inside: u32,
    /// What that is on this system.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// What the users and groups of a container are on this system. Without ranges they are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Users.
    pub users: Vec<IdRange>,
    /// Groups.
    pub groups: Vec<IdRange>,
}

/// What the kernel shows in a container for whoever is nobody in there (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

impl Ids {
    /// A container's user and group as this system has them. `None` if the container cannot have such.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let find = |ranges: &[IdRange], id: u32| {
            if ranges.is_empty() {
                return Some(id);
            }
            let found =
                ranges.iter().find(|range| id.checked_sub(range.inside).is_some_and(|n| n < range.count));
            found.map(|range| range.outside + (id - range.inside))
        };
        Some((find(&self.users, uid)?, find(&self.groups, gid)?))
    }

    /// Whom a process of the container sees as the owner.
    pub(super) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let find = |ranges: &[IdRange], id: u32| {
            if ranges.is_empty() {
                return id;
            }
            let found =
                ranges.iter().find(|range| id.checked_sub(range.outside).is_some_and(|n| n < range.count));
            found.map_or(NOBODY, |range| range.inside + (id - range.outside))
        };
        (find(&self.users, uid), find(&self.groups, gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_out_and_come_back() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let ids = Ids {
            users: vec![range(0, 100_000, 1000), range(1000, 500_000, 10)],
            groups: vec![range(0, 200_000, 1000)],
        };
        for (inside, outside) in [((0, 0), (100_000, 200_000)), ((1009, 999), (500_009, 200_999))] {
            assert_eq!(ids.outside(inside.0, inside.1), Some(outside));
            assert_eq!(ids.inside(outside.0, outside.1), inside);
        }
        assert_eq!((ids.outside(1010, 0), ids.outside(0, 1000)), (None, None));
        assert_eq!(ids.inside(0, 200_001), (NOBODY, 1));
        assert_eq!((Ids::default().outside(7, 8), Ids::default().inside(7, 8)), (Some((7, 8)), (7, 8)));
    }
}
