mod layout;
mod platforms;
mod removal;

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::archive::{LoadError, LoadOptions};
use crate::digest::Digest;
use crate::image::{ContainerUse, Removed};
use crate::import::ImportOptions;
use crate::reference::Reference;
use crate::testing::{TestImage, chain, count, docker_archive, limits, small_layer, store};

fn image(comment: &'static str, layers: &[&str], tags: &[&'static str]) -> TestImage {
    let layers = layers.iter().map(|name| small_layer(name)).collect();
    TestImage { layers, tags: tags.to_vec(), comment, ..TestImage::default() }
}

fn add(store: &Store, images: &[TestImage]) -> Vec<ImageId> {
    let loaded = store.load(&docker_archive(images)[..], &LoadOptions::default(), &mut |_| {}).unwrap();
    loaded.into_iter().map(|loaded| loaded.id).collect()
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn unused(_: &ImageId) -> Vec<ContainerUse> {
    Vec::new()
}

const FORCE: RemoveOptions = RemoveOptions { force: true, no_prune: false, platforms: Vec::new() };
const PLAIN: RemoveOptions = RemoveOptions { force: false, no_prune: false, platforms: Vec::new() };

fn container(running: bool) -> Vec<ContainerUse> {
    vec![ContainerUse { id: "c0ffee".repeat(11)[..64].to_owned(), running }]
}

fn words(removed: &[Removed]) -> Vec<String> {
    removed.iter().map(|one| format!("{}: {}", one.verb(), one.subject())).collect()
}

#[test]
fn images_are_found_by_name_and_id() {
    let (_dir, store) = store();
    let one = image("one", &["a"], &["busybox:latest", "localhost:5000/b:1"]);
    let id = add(&store, std::slice::from_ref(&one))[0];
    let hex = id.0.hex();
    let by_digest = format!("busybox@{}", Digest::of(b"manifest"));
    let mut change = store.change();
    change.name(&reference(&by_digest), id).unwrap();
    drop(change);
    for name in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "localhost:5000/b:1",
        &by_digest,
        &format!("busybox:whatever@{}", Digest::of(b"manifest")),
        &hex,
        &hex[..12],
        &hex[..1],
        &id.to_string(),
        &id.to_string()[..20],
    ] {
        assert_eq!(
            store.find(name).map(|image| image.id).unwrap_or_else(|error| panic!("{name}: {error}")),
            id
        );
    }
    let image = store.find("busybox").unwrap();
    assert_eq!(image.repo_tags(), ["busybox:latest", "localhost:5000/b:1"]);
    assert_eq!(image.repo_digests(), [by_digest]);
}

#[test]
fn what_is_not_found_is_told_as_docker_tells_it() {
    let (_dir, store) = store();
    for (name, kind, error) in [
        ("nope", ErrorKind::NotFound, "No such image: nope:latest"),
        ("docker.io/library/nope:1", ErrorKind::NotFound, "No such image: nope:1"),
        ("abcdef", ErrorKind::NotFound, "No such image: abcdef:latest"),
        (&"ab".repeat(32), ErrorKind::NotFound, &format!("No such image: sha256:{}", "ab".repeat(32))),
        (
            "Nope",
            ErrorKind::Invalid,
            "invalid reference format: repository name (library/Nope) must be lowercase",
        ),
        ("", ErrorKind::Invalid, "invalid reference format"),
    ] {
        let found = store.find(name).unwrap_err();
        assert_eq!((found.to_string().as_str(), found.kind()), (error, kind), "{name}");
    }
}

#[test]
fn an_ambiguous_beginning_finds_nothing() {
    let (_dir, store) = store();
    let images: Vec<_> = (0..17).map(|_| image("x", &["a"], &[])).collect();
    let comments: Vec<&'static str> = (0..17).map(|n| &*format!("image {n}").leak()).collect();
    let images: Vec<_> =
        images.into_iter().zip(comments).map(|(image, comment)| TestImage { comment, ..image }).collect();
    let ids = add(&store, &images);
    let first = |id: &ImageId| id.0.hex()[..1].to_owned();
    let shared =
        ids.iter().find(|id| ids.iter().filter(|other| first(other) == first(id)).count() > 1).unwrap();
    assert_eq!(store.find(&first(shared)).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_name_goes_before_the_beginning_of_an_id() {
    let (_dir, store) = store();
    let ids = add(&store, &[image("one", &["a"], &["x:1"]), image("two", &["b"], &["y:1"])]);
    let beginning = &ids[0].0.hex()[..6];
    store.tag("y:1", &reference(beginning)).unwrap();
    assert_eq!(store.find(beginning).unwrap().id, ids[1]);
}

#[test]
fn tagging() {
    let (_dir, store) = store();
    let ids = add(&store, &[image("one", &["a"], &["x:1"]), image("two", &["b"], &["y:1"])]);
    let tagged = store.tag("x:1", &reference("y:1")).unwrap();
    assert_eq!((tagged.id, tagged.repo_tags()), (ids[0], vec!["x:1".to_owned(), "y:1".to_owned()]));
    assert!(tagged.last_tagged.is_some());
    assert!(store.find(&ids[1].to_string()).unwrap().is_dangling());
    store.tag(&ids[1].short(), &reference("z")).unwrap();
    assert_eq!(store.find("z:latest").unwrap().id, ids[1]);
    for (source, target, error) in [
        ("nope", "a".to_owned(), "No such image: nope:latest"),
        ("x:1", format!("a@{}", Digest::of(b"")), "refusing to create a tag with a digest reference"),
        ("x:1", "sha256:x".to_owned(), "refusing to create an ambiguous tag using digest algorithm as name"),
    ] {
        assert_eq!(store.tag(source, &reference(&target)).unwrap_err().to_string(), error);
    }
}

#[test]
fn a_container_keeps_its_layers() {
    let (dir, store) = store();
    let id = add(&store, &[image("one", &["a", "b"], &["x:1"])])[0];
    let held = store.hold("c1", &id).unwrap();
    assert_eq!(held, store.layers(&id).unwrap());
    let removed = words(&store.remove("x:1", FORCE, &|_| container(false)).unwrap());
    assert_eq!(removed, ["Untagged: x:1".to_owned(), format!("Deleted: {id}")]);
    assert!(store.list().is_empty());
    drop(store);
    let store = Store::open_with(dir.path(), limits()).unwrap();
    assert_eq!(store.held("c1").unwrap(), held);
    assert!(held.iter().all(|layer| layer.is_dir()));
    store.release("c1").unwrap();
    store.release("c1").unwrap();
    assert_eq!(count(store.root().join("layers")), 0);
    assert_eq!(store.held("c1").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.hold("../c", &id).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.hold("c2", &id).unwrap_err().to_string(), format!("No such image: {id}"));
}

#[test]
fn a_hold_may_be_taken_again() {
    let (dir, store) = store();
    let ids = add(&store, &[image("one", &["a"], &["x:1"]), image("two", &["b"], &["y:1"])]);
    let held = store.hold("kept", &ids[0]).unwrap();
    store.hold("lost", &ids[0]).unwrap();
    drop(store);
    // What a power cut may do.
    fs::remove_file(dir.path().join("holds/lost")).unwrap();
    let store = Store::open_with(dir.path(), limits()).unwrap();
    assert!(store.held("lost").is_err());
    assert_eq!(store.hold("lost", &ids[0]).unwrap(), held);
    store.remove("x:1", FORCE, &|_| container(false)).unwrap();
    for name in ["kept", "lost"] {
        assert_eq!(store.hold(name, &ids[0]).unwrap(), held, "{name} holds it, though the image is gone");
    }
    assert_eq!(store.hold("new", &ids[0]).unwrap_err().kind(), ErrorKind::NotFound);
    let other = store.hold("kept", &ids[1]).unwrap();
    assert_eq!((store.held("kept").unwrap(), other.len()), (other.clone(), 1));
    assert_ne!(other, held);
}

#[test]
fn holds_of_lost_containers_end() {
    let (_dir, store) = store();
    let id = add(&store, &[image("one", &["a"], &["x:1"])])[0];
    store.hold("lives", &id).unwrap();
    store.hold("lost", &id).unwrap();
    store.release_all_but(&|container| container == "lives").unwrap();
    assert!(store.held("lives").is_ok() && store.held("lost").is_err());
}

#[test]
fn what_was_kept_is_there_after_a_restart() {
    let (dir, store) = store();
    let ids = add(&store, &[image("one", &["a"], &["x:1"]), image("two", &["a", "b"], &[])]);
    let before: Vec<_> = store.list().iter().map(|image| format!("{image:?}")).collect();
    drop(store);
    let store = Store::open_with(dir.path(), limits()).unwrap();
    assert_eq!(store.list().iter().map(|image| format!("{image:?}")).collect::<Vec<_>>(), before);
    assert_eq!(store.find("x:1").unwrap().id, ids[0]);
}

#[test]
fn a_store_is_open_once() {
    let (dir, store) = store();
    assert!(matches!(Store::open(dir.path()), Err(OpenError::InUse(_))));
    drop(store);
    assert!(Store::open(dir.path()).is_ok());
}

#[test]
fn what_a_crash_left_is_removed() {
    let (dir, store) = store();
    let ids = add(&store, &[image("one", &["a"], &["x:1"]), image("two", &["b"], &["y:1"])]);
    drop(store);
    let root = dir.path();
    let other = Digest::of(b"other").hex();
    // A file and a layer half written.
    fs::write(root.join("tmp/.tmpX"), "half").unwrap();
    fs::create_dir_all(root.join("tmp/layer-x/diff/deep")).unwrap();
    fs::write(root.join("holds/c1"), "no configuration").unwrap();
    // A layer, and a configuration, that nothing names.
    fs::create_dir_all(root.join("layers").join(&other).join("diff")).unwrap();
    fs::write(root.join("blobs/sha256").join(Digest::of(b"{}").hex()), "{}").unwrap();
    // An image whose layer is gone, and its name.
    fs::remove_dir_all(root.join("layers").join(DiffId(Digest::of(&small_layer("b"))).0.hex())).unwrap();
    let store = Store::open_with(root, limits()).unwrap();
    assert_eq!(store.list().iter().map(|image| image.id).collect::<Vec<_>>(), [ids[0]]);
    assert!(store.find("y:1").is_err());
    // What cannot be read may be a container's, until the engine says which there are.
    store.release_all_but(&|_| false).unwrap();
    for (dir, left) in [("tmp", 0), ("holds", 0), ("layers", 1), ("blobs/sha256", 1), ("images", 1)] {
        assert_eq!(count(root.join(dir)), left, "{dir}");
    }
    // What was lost can come again.
    add(&store, &[image("two", &["b"], &["y:1"])]);
    assert_eq!(store.find("y:1").unwrap().id, ids[1]);
}

#[test]
fn a_newer_store_is_left_alone() {
    let newer = [
        (PathBuf::from("repositories.json"), r#"{"version":9,"references":{}}"#),
        (PathBuf::from("images").join(image("one", &["a"], &[]).id().hex() + ".json"), r#"{"version":9}"#),
        (
            PathBuf::from("layers").join(Digest::of(&small_layer("a")).hex()).join("layer.json"),
            r#"{"version":9,"size":1}"#,
        ),
    ];
    for (path, text) in newer {
        let (dir, store) = store();
        add(&store, &[image("one", &["a"], &["x:1"])]);
        drop(store);
        assert!(dir.path().join(&path).exists());
        fs::write(dir.path().join(&path), text).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(OpenError::Newer { found: 9, .. })), "{path:?}");
        assert!(dir.path().join(&path).exists());
    }
}

/// Reads an archive until it is told to go on; meanwhile others use the store.
struct Gate<'a> {
    archive: &'a [u8],
    open: &'a AtomicBool,
    reached: std::sync::mpsc::Sender<()>,
}

impl io::Read for Gate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.archive.len() < 1024 {
            self.reached.send(()).ok();
            while !self.open.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
        let most = buffer.len().min(512);
        self.archive.read(&mut buffer[..most])
    }
}

#[test]
fn a_long_load_stops_nobody() {
    let (_dir, store) = store();
    add(&store, &[image("one", &["a"], &["x:1"])]);
    let archive = docker_archive(&[image("two", &["a", "b"], &["y:1"])]);
    let (reached, at_gate) = std::sync::mpsc::channel();
    let open = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let gate = Gate { archive: &archive, open: &open, reached };
        let load = scope.spawn(|| store.load(gate, &LoadOptions::default(), &mut |_| {}).map(drop));
        at_gate.recv().unwrap();
        // Reading and writing both go on, even removing the layer that the load will need.
        assert_eq!(store.find("x:1").unwrap().repo_tags(), ["x:1"]);
        store.tag("x:1", &reference("x:2")).unwrap();
        store.remove("x:1", PLAIN, &unused).unwrap();
        store.remove("x:2", PLAIN, &unused).unwrap();
        open.store(true, Ordering::Release);
        load.join().unwrap().unwrap();
    });
    let loaded = store.find("y:1").unwrap();
    assert!(store.layers(&loaded.id).unwrap().iter().all(|layer| layer.is_dir()));
}

#[test]
fn many_at_once_leave_a_true_store() {
    let (dir, store) = store();
    let archives: Vec<_> = ["one", "two", "three", "four"]
        .map(|comment| docker_archive(&[image(comment, &["a", "b", comment], &["x:1"])]))
        .into();
    std::thread::scope(|scope| {
        for archive in &archives {
            scope.spawn(|| {
                for _ in 0..5 {
                    let loaded: Result<_, LoadError> =
                        store.load(&archive[..], &LoadOptions::default(), &mut |_| {});
                    let id = loaded.unwrap()[0].id;
                    drop((store.layers(&id), store.find("x:1"), store.list()));
                    drop(store.remove(&id.to_string(), FORCE, &unused));
                }
            });
        }
    });
    assert!(
        store.list().iter().all(|image| store.layers(&image.id).unwrap().iter().all(|layer| layer.is_dir()))
    );
    for image in store.list() {
        store.remove(&image.id.to_string(), FORCE, &unused).unwrap();
    }
    for sub in ["images", "blobs/sha256", "layers", "tmp"] {
        assert_eq!(count(dir.path().join(sub)), 0, "{sub}");
    }
}

#[test]
fn an_import_makes_an_image_of_one_layer() {
    let (_dir, store) = store();
    let options = ImportOptions {
        reference: Some(reference("imp:1")),
        message: "from a test".to_owned(),
        changes: vec!["CMD [\"sh\"]".to_owned(), "EXPOSE 80".to_owned()],
        ..ImportOptions::default()
    };
    let id = store.import(&crate::testing::gzip(&small_layer("a"))[..], &options).unwrap();
    let image = store.find("imp:1").unwrap();
    assert_eq!((image.id, image.size), (id, 1));
    let config = &image.config;
    assert_eq!((config.run().cmd, config.comment.as_str()), (Some(vec!["sh".to_owned()]), "from a test"));
    assert_eq!(config.history[0].comment, "from a test");
    assert!(config.run().exposed_ports.contains_key("80/tcp"));
    assert!(image.created().is_some());
    assert_eq!(Digest::of(&store.raw_config(&id).unwrap()), id.0);
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let (_dir, store) = store();
    let bad_change = ImportOptions { changes: vec!["RUN x".to_owned()], ..ImportOptions::default() };
    let bad_tag = ImportOptions { reference: Some(reference("sha256:x")), ..ImportOptions::default() };
    let plain = ImportOptions::default();
    for (archive, options, error) in [
        (small_layer("a"), &bad_change, "RUN is not a valid change command"),
        (small_layer("a"), &bad_tag, "refusing to create an ambiguous tag using digest algorithm as name"),
        (b"no tar".repeat(100), &plain, "invalid tar header"),
    ] {
        let found = store.import(&archive[..], options).unwrap_err();
        assert_eq!((chain(&found).as_str(), found.kind()), (error, ErrorKind::Invalid));
        assert_eq!(count(store.root().join("layers")) + count(store.root().join("tmp")), 0);
    }
}

#[test]
fn manifests_stay_as_long_as_their_image() {
    let (dir, store) = store();
    let ids = add(&store, &[image("one", &["a"], &["x:1"]), image("two", &["b"], &["y:1"])]);
    let digest = Digest::of(b"{}");
    let manifest = Manifest { digest, media_type: "m".into(), size: 2, index: Some(Digest::of(b"[]")) };
    let mut change = store.change();
    for id in &ids {
        change.add_manifest(id, manifest.clone(), &[b"{}", b"[]"]).unwrap();
    }
    drop(change);
    let documents = || count(dir.path().join("blobs/sha256"));
    assert_eq!(documents(), 4);
    store.remove("x:1", PLAIN, &unused).unwrap();
    assert_eq!(documents(), 3);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(documents(), 3);
    store.remove("y:1", PLAIN, &unused).unwrap();
    assert_eq!(documents(), 0);
}

#[test]
fn records_of_format_1_are_read() {
    let (dir, store) = store();
    let id = add(&store, &[image("one", &["a"], &["x:1"])])[0];
    drop(store);
    let record = state::record_path(dir.path(), &id);
    std::fs::write(&record, r#"{"version":1}"#).unwrap();
    let layer = DiffId(Digest::of(&small_layer("a")));
    let home = dir.path().join("layers").join(layer.0.hex());
    std::fs::remove_file(home.join("blob")).unwrap();
    std::fs::write(home.join("layer.json"), r#"{"version":1,"size":1}"#).unwrap();
    let store = Store::open_with(dir.path(), limits()).unwrap();
    assert_eq!(store.find("x:1").unwrap().id, id);
    // Loading it again makes it whole.
    add(&store, &[image("one", &["a"], &["x:1"])]);
    assert!(home.join("blob").is_file());
    drop(store);
    std::fs::write(home.join("layer.json"), r#"{"version":3,"size":1}"#).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(OpenError::Newer { found: 3, .. })));
}
