use super::*;
use crate::quota::FIRST_PROJECT;

fn named(name: &str) -> NewVolume {
    NewVolume { name: name.to_owned(), ..NewVolume::default() }
}

fn options(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn names(volumes: &Volumes) -> Vec<String> {
    volumes.list().into_iter().map(|volume| volume.name).collect()
}

#[test]
fn a_volume_is_made_once_and_found_again() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    let new = NewVolume { labels: options(&[("a", "b")]), ..named("data") };
    let (made, first) = volumes.create(new, None).unwrap();
    let (same, second) = volumes.create(named("data"), None).unwrap();
    assert!(first && !second);
    assert_eq!(same.labels, options(&[("a", "b")]), "the labels of the first word stay");
    fs::write(made.path.join("file"), "kept").unwrap();
    let again = Volumes::open(root.path()).unwrap().get("data").unwrap();
    assert_eq!((again.created, again.labels, again.options), (made.created, made.labels, None));
    assert_eq!(fs::read_to_string(again.path.join("file")).unwrap(), "kept");
}

#[test]
fn a_volume_without_a_name_gets_one_and_a_label() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    let (volume, _) = volumes.create(NewVolume::default(), Some("c1")).unwrap();
    assert!(volume.is_anonymous() && volume.name.len() == 64);
    assert_eq!(volumes.holders(&volume.name), ["c1"]);
}

#[test]
fn what_is_held_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    volumes.create(named("data"), Some("c2")).unwrap();
    volumes.hold("data", "c1").unwrap();
    let refused = volumes.remove("data").unwrap_err();
    assert_eq!(refused.to_string(), "remove data: volume is in use - [c1, c2]");
    volumes.release("data", "c1");
    volumes.release("data", "c2");
    volumes.remove("data").unwrap();
    assert_eq!(volumes.remove("data").unwrap_err().to_string(), "get data: no such volume");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left on disk");
}

#[test]
fn readers_do_not_wait_for_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    volumes.create(named("slow"), None).unwrap();
    let entry = volumes.entry("slow").unwrap();
    let unmounting = entry.mounted.lock().unwrap();
    let remover = volumes.clone();
    let removing = std::thread::spawn(move || remover.remove("slow"));
    while volumes.0.writer.try_lock().is_ok() {
        std::thread::yield_now();
    }
    let (reader, (answer, answered)) = (volumes.clone(), std::sync::mpsc::channel());
    std::thread::spawn(move || answer.send((names(&reader), reader.get("slow").is_ok())));
    let read = answered.recv_timeout(std::time::Duration::from_secs(30));
    assert_eq!(read, Ok((vec!["slow".to_owned()], true)), "it is there until it is gone from the disk");
    drop(unmounting);
    removing.join().unwrap().unwrap();
    assert!(names(&volumes).is_empty());
}

#[test]
fn a_crash_leaves_whole_volumes_only() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    volumes.create(named("whole"), None).unwrap();
    // A kill while one was being made: before its record was written, and before it got its name.
    fs::create_dir_all(root.path().join(".new-1/_data")).unwrap();
    fs::create_dir_all(root.path().join(".new-2/_data")).unwrap();
    fs::write(root.path().join(".new-2/volume.json"), "{}").unwrap();
    // A kill while one was being removed.
    volumes.create(named("going"), None).unwrap();
    fs::write(volumes.get("going").unwrap().path.join("file"), "x").unwrap();
    record::unname(root.path(), "going").unwrap();
    let again = Volumes::open(root.path()).unwrap();
    assert_eq!(names(&again), ["whole"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "what has no name is removed");
    assert!(again.holders("whole").is_empty(), "who holds it is told again by the engine");
}

#[test]
fn a_record_that_cannot_be_read_costs_no_files() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    let (volume, _) = volumes.create(named("odd"), None).unwrap();
    fs::write(volume.path.join("file"), "kept").unwrap();
    let record = root.path().join("odd/volume.json");
    fs::write(&record, "").unwrap();
    let again = Volumes::open(root.path()).unwrap();
    assert!(again.get("odd").is_err());
    assert!(again.create(named("odd"), None).is_err(), "nor are they given to another volume");
    assert_eq!(fs::read_to_string(volume.path.join("file")).unwrap(), "kept");
    fs::write(&record, r#"{"version":9}"#).unwrap();
    let refused = Volumes::open(root.path()).unwrap_err().to_string();
    assert!(refused.contains("has format 9, newer than the 1"), "{refused}");
}

#[test]
fn there_is_one_driver() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    assert!(volumes.create(NewVolume { driver: "local".into(), ..named("data") }, None).is_ok());
    let refused = volumes.create(NewVolume { driver: "foo".into(), ..named("other") }, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "create other: error looking up volume plugin foo: plugin \"foo\" not found"
    );
}

/// Does its work in a mount namespace of its own, which ends with its thread.
fn where_mounts_are_free(work: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let run = move || {
        caisson_sys::clone::unshare(libc::CLONE_NEWNS).unwrap();
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        work();
    };
    std::thread::spawn(run).join().unwrap();
}

fn tmpfs(name: &str) -> NewVolume {
    let options = options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k")]);
    NewVolume { options, ..named(name) }
}

fn bind(name: &str, of: &std::path::Path) -> NewVolume {
    let device = of.to_str().unwrap();
    let options = options(&[("type", "none"), ("device", device), ("o", "bind")]);
    NewVolume { options, ..named(name) }
}

/// A directory of somebody else's, with a file, beside a data root that is reached by a link.
fn others_and_a_linked_root() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (others, link) = (dir.path().join("src"), dir.path().join("link"));
    fs::create_dir(&others).unwrap();
    fs::write(others.join("file"), "theirs").unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    std::os::unix::fs::symlink("disk", &link).unwrap();
    (dir, others.join("file"), link)
}

#[test]
fn what_a_crash_left_mounted_is_not_removed_behind_a_link() {
    where_mounts_are_free(|| {
        let (dir, file, root) = others_and_a_linked_root();
        let volumes = Volumes::open(&root).unwrap();
        volumes.create(bind("code", file.parent().unwrap()), None).unwrap();
        volumes.mount("code", "c1").unwrap();
        let again = Volumes::open(&root).unwrap();
        assert!(again.get("code").unwrap().path.starts_with(dir.path().join("disk").canonicalize().unwrap()));
        again.remove("code").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    });
}

#[test]
fn what_is_mounted_unknown_to_all_is_not_removed() {
    where_mounts_are_free(|| {
        let (_dir, file, root) = others_and_a_linked_root();
        let volumes = Volumes::open(&root).unwrap();
        let path = volumes.create(bind("code", file.parent().unwrap()), None).unwrap().0.path;
        let device = Device::of(volumes.get("code").unwrap().options.as_ref()).unwrap();
        // Twice, as an engine would that does not know of the first.
        mount::mount(&device, &path).unwrap();
        mount::mount(&device, &path).unwrap();
        volumes.remove("code").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    });
}

#[test]
fn the_start_removes_nothing_that_is_mounted() {
    where_mounts_are_free(|| {
        let (_dir, file, root) = others_and_a_linked_root();
        let device = Device {
            kind: "none".into(),
            device: file.parent().unwrap().to_str().unwrap().into(),
            options: "bind".into(),
        };
        for (gone, at) in [(".gone-1", "_data"), (".gone-2", "_data/deep/down")] {
            let at = root.join(gone).join(at);
            fs::create_dir_all(&at).unwrap();
            mount::mount(&device, &at).unwrap();
        }
        Volumes::open(&root).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        assert!(!root.join(".gone-1").exists(), "what is mounted where a volume's device is, is unmounted");
        assert!(root.join(".gone-2/_data/deep/down/file").exists(), "anything else is left alone");
    });
}

#[test]
fn a_device_is_mounted_from_its_first_user_to_its_last() {
    where_mounts_are_free(|| {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let path = volumes.create(tmpfs("scratch"), None).unwrap().0.path;
        assert_eq!(volumes.mount("scratch", "c1").unwrap(), path);
        fs::write(path.join("shared"), "x").unwrap();
        volumes.mount("scratch", "c2").unwrap();
        volumes.mount("scratch", "c2").unwrap();
        assert!(volumes.remove("scratch").is_err(), "it is in use");
        volumes.unmount("scratch", "c1").unwrap();
        assert!(path.join("shared").exists());
        volumes.unmount("scratch", "c2").unwrap();
        assert!(!mount::is_mounted(&path).unwrap() && !path.join("shared").exists());
        volumes.remove("scratch").unwrap();
    });
}

#[test]
fn after_a_crash_what_is_mounted_is_known_and_what_nobody_uses_goes() {
    where_mounts_are_free(|| {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        for name in ["used", "left"] {
            volumes.create(tmpfs(name), None).unwrap();
            volumes.mount(name, "c1").unwrap();
        }
        let again = Volumes::open(root.path()).unwrap();
        again.hold("used", "c1").unwrap();
        again.found_mounted("used", "c1");
        again.settle();
        let is_mounted = |name: &str| mount::is_mounted(&again.get(name).unwrap().path).unwrap();
        assert!(is_mounted("used") && !is_mounted("left"));
        again.unmount("used", "c1").unwrap();
        assert!(!is_mounted("used"));
    });
}

#[test]
fn a_device_that_cannot_be_mounted_is_told() {
    where_mounts_are_free(|| {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let options = options(&[("type", "none"), ("device", "/no/such"), ("o", "bind,password=x")]);
        let path = volumes.create(NewVolume { options, ..named("lost") }, None).unwrap().0.path;
        let refused = volumes.mount("lost", "c1").unwrap_err().to_string();
        let path = path.display();
        assert_eq!(
            refused,
            format!(
                "error while mounting volume '{path}': failed to mount local volume: mount /no/such:{path}, flags: 0x1000, data: password=********: no such file or directory"
            )
        );
        volumes.remove("lost").unwrap();
    });
}

fn sized(name: &str) -> NewVolume {
    NewVolume { options: options(&[("size", "1m")]), ..named(name) }
}

/// As [`Volumes::open`] does it on a file system with quotas.
fn open_with_quota(root: &std::path::Path) -> Volumes {
    let Volumes(inner) = Volumes::open(root).unwrap();
    let inner = Arc::into_inner(inner).unwrap();
    Volumes(Arc::new(Inner { projects: Projects::unused(), ..inner }))
}

#[test]
fn a_volume_with_a_size_keeps_its_number() {
    let root = tempfile::tempdir().unwrap();
    let project = |volumes: &Volumes, new| volumes.create(new, None).unwrap().0.project;
    let volumes = open_with_quota(root.path());
    assert_eq!(project(&volumes, named("free")), None);
    let number = project(&volumes, sized("one"));
    assert!(number.is_some_and(|number| number >= FIRST_PROJECT));
    assert_eq!(Volumes::open(root.path()).unwrap().get("one").unwrap().project, number);
}

#[test]
fn a_device_that_has_no_projects_is_not_left_mounted() {
    where_mounts_are_free(|| {
        let root = tempfile::tempdir().unwrap();
        let volumes = open_with_quota(root.path());
        let options = options(&[("type", "tmpfs"), ("device", "tmpfs"), ("size", "1m")]);
        let path = volumes.create(NewVolume { options, ..named("both") }, None).unwrap().0.path;
        let refused = volumes.mount("both", "c1").unwrap_err().to_string();
        let told = format!(
            "error while mounting volume '{}': failed to set projid for {}: ",
            path.display(),
            path.display()
        );
        assert!(refused.starts_with(&told), "{refused}");
        assert!(!mount::is_mounted(&path).unwrap());
        volumes.remove("both").unwrap();
    });
}
