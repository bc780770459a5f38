//! The records on disk, and in memory as they are on disk.
//!
//! Whoever changes them takes the pen. It writes the file first, which takes as long as the disk takes, and only then puts
//! the result where readers look. So a reader waits for no disk, and sees nothing that a crash could take back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use caisson_sys::replace::Survives;

use crate::book::{self, Book, NetworkRecord, NetworksFile, SandboxFile, SandboxRecord, VERSION};
use crate::files::{self, StateError};

/// The records, and where they are.
#[derive(Debug)]
pub(crate) struct Records {
    networks_file: PathBuf,
    sandboxes_dir: PathBuf,
    /// Locked for a moment only.
    book: RwLock<Book>,
    /// Held by the one that changes them.
    turn: Mutex<()>,
}

/// The right to change the records: what its holder reads stays so until it lets go, but for its own changes. All of it
/// blocks for the disk.
pub(crate) struct Pen<'a> {
    records: &'a Records,
    _turn: MutexGuard<'a, ()>,
}

impl Records {
    /// Reads the records. The built-in networks are on it from the first time on.
    pub(crate) fn open(root: &Path, exec_root: &Path) -> Result<Self, StateError> {
        let networks_file = root.join("networks.json");
        let sandboxes_dir = exec_root.join("sandboxes");
        for dir in [root, &sandboxes_dir] {
            fs::create_dir_all(dir).map_err(|error| StateError::Write(dir.to_owned(), error))?;
        }
        let file = files::read::<NetworksFile>(&networks_file, VERSION)?;
        let sandboxes = book::read_sandboxes(&sandboxes_dir)?;
        let ula = file.as_ref().map_or_else(crate::ipam::new_ula, |file| file.ula);
        // What an older version wrote is written anew, so that what it lacked is settled once.
        let is_current = file.as_ref().is_some_and(|file| file.version == VERSION);
        let networks = file.map_or_else(book::built_in, |file| file.networks);
        let book = RwLock::new(Book::new(ula, networks.clone(), sandboxes));
        let records = Self { networks_file, sandboxes_dir, book, turn: Mutex::default() };
        if !is_current {
            records.pen().put_networks(networks)?;
        }
        Ok(records)
    }

    /// The records. Held for a moment only, and never across an await or while waiting for the kernel.
    pub(crate) fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of those who change the records. Blocks for whoever has it; not to be asked for with the book in hand.
    pub(crate) fn pen(&self) -> Pen<'_> {
        Pen { records: self, _turn: self.turn.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.book.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn sandbox_file(&self, container: &str) -> PathBuf {
        self.sandboxes_dir.join(format!("{container}.json"))
    }
}

impl Pen<'_> {
    /// The records, which nobody else changes.
    pub(crate) fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.records.book()
    }

    /// Puts a network on record, or replaces what is on record of it.
    pub(crate) fn put_network(&self, network: NetworkRecord) -> Result<(), StateError> {
        let mut networks = self.book().networks().to_vec();
        match networks.iter_mut().find(|known| known.id == network.id) {
            Some(known) if *known == network => return Ok(()),
            Some(known) => *known = network,
            None => networks.push(network),
        }
        self.put_networks(networks)
    }

    /// Takes a network off the record.
    pub(crate) fn remove_network(&self, id: &str) -> Result<(), StateError> {
        let others = self.book().networks().iter().filter(|network| network.id != id).cloned().collect();
        self.put_networks(others)
    }

    fn put_networks(&self, networks: Vec<NetworkRecord>) -> Result<(), StateError> {
        let file = NetworksFile { version: VERSION, ula: self.book().ula(), networks };
        files::write(&self.records.networks_file, &file, Survives::PowerFailure)?;
        self.records.change(|book| book.set_networks(file.networks));
        Ok(())
    }

    /// Puts a sandbox on record, or replaces what is on record of it.
    pub(crate) fn put(&self, sandbox: SandboxRecord) -> Result<(), StateError> {
        let path = self.records.sandbox_file(&sandbox.container);
        files::write(&path, &SandboxFile { version: VERSION, sandbox: &sandbox }, Survives::Crash)?;
        self.records.change(|book| book.set_sandbox(sandbox));
        Ok(())
    }

    /// Takes a sandbox off the record.
    pub(crate) fn remove(&self, container: &str) -> Result<(), StateError> {
        files::remove(&self.records.sandbox_file(container))?;
        self.records.change(|book| book.forget_sandbox(container));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::{IpamPool, NoSuchNetwork};

    fn record(container: &str) -> SandboxRecord {
        SandboxRecord {
            container: container.into(),
            name: "web".into(),
            netns: Some("/run/x".into()),
            endpoints: Vec::new(),
            ports: Vec::new(),
            cgroup: None,
            listeners: Vec::new(),
            wishes: Vec::new(),
            name_servers: Vec::new(),
        }
    }

    #[test]
    fn what_was_on_record_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        let records = Records::open(&root, &exec).unwrap();
        let names: Vec<_> = records.book().networks().iter().map(|n| n.name.clone()).collect();
        assert_eq!(names, ["bridge", "host", "none"]);
        let pools = vec![IpamPool::of("172.17.0.0/16".parse().unwrap())];
        let bridge = records.book().find_network("bridge").unwrap().clone();
        let pen = records.pen();
        pen.put_network(NetworkRecord { pools: pools.clone(), ..bridge }).unwrap();
        let mine = NetworkRecord::new("mine", "bridge");
        pen.put_network(mine.clone()).unwrap();
        pen.put_network(NetworkRecord::new("gone", "bridge")).unwrap();
        let gone = pen.book().find_network("gone").unwrap().id.clone();
        pen.remove_network(&gone).unwrap();
        pen.put(record("a")).unwrap();
        pen.put(record("b")).unwrap();
        pen.remove("a").unwrap();

        let again = Records::open(&root, &exec).unwrap();
        let (again, book) = (again.book(), records.book());
        assert_eq!(again.networks(), book.networks());
        assert_eq!(again.ula(), book.ula());
        assert_eq!(again.find_network("bridge").unwrap().pools, pools);
        assert_eq!(again.find_network(&mine.id[..12]).unwrap(), &mine);
        assert!(matches!(again.find_network("gone"), Err(NoSuchNetwork::Unknown(_))));
        assert_eq!(again.sandboxes().cloned().collect::<Vec<_>>(), [record("b")]);
    }

    /// A disk that takes its time: what is written first goes into a pipe that nobody reads yet.
    #[test]
    fn nobody_waits_for_the_disk_to_read_and_nobody_reads_what_is_not_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        let records = Records::open(&root, &exec).unwrap();
        let pipe = exec.join("sandboxes/a.json.new");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| records.pen().put(record("a")));
            while records.turn.try_lock().is_ok() {
                std::thread::yield_now();
            }
            let is_on_record = records.book.try_read().map(|book| book.sandbox("a").is_some());
            // The writer ends before anything is said of it.
            let written = fs::read(&pipe);
            writer.join().unwrap().unwrap();
            assert!(!is_on_record.unwrap());
            assert!(!written.unwrap().is_empty());
        });
        assert!(records.book().sandbox("a").is_some());
    }

    #[test]
    fn networks_of_the_first_format_keep_their_ids() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        fs::create_dir_all(&root).unwrap();
        let old = r#"{"version":1,"networks":[{"id":"ab","name":"bridge","driver":"bridge",
            "created":"2026-01-02T03:04:05Z","ipam":{"subnet":"172.17.0.0/16","gateway":"172.17.0.1"}}]}"#;
        fs::write(root.join("networks.json"), old).unwrap();
        let records = Records::open(&root, &exec).unwrap();
        assert_eq!(records.book().find_network("bridge").unwrap().id, "ab");
        assert_eq!(Records::open(&root, &exec).unwrap().book().ula(), records.book().ula());
    }

    #[test]
    fn half_a_record_is_dropped_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (root, exec) = (dir.path().join("root"), dir.path().join("exec"));
        Records::open(&root, &exec).unwrap().pen().put(record("a")).unwrap();
        fs::write(exec.join("sandboxes/torn.json"), "{").unwrap();
        fs::write(exec.join("sandboxes/a.new"), "").unwrap();
        let records = Records::open(&root, &exec).unwrap();
        assert_eq!(records.book().sandboxes().count(), 1);
        assert_eq!(fs::read_dir(exec.join("sandboxes")).unwrap().count(), 1);

        fs::write(root.join("networks.json"), r#"{"version": 3}"#).unwrap();
        assert!(matches!(Records::open(&root, &exec), Err(StateError::Newer { .. })));
    }
}
