use super::*;

#[test]
fn the_last_name_takes_the_image_with_it() {
    let (_dir, store) = store();
    let one = image("one", &["a", "b"], &["x:1", "x:2"]);
    let id = add(&store, std::slice::from_ref(&one))[0];
    assert_eq!(words(&store.remove("x:1", PLAIN, &unused).unwrap()), ["Untagged: x:1"]);
    let chain = one_chain(&one);
    let expected = [
        "Untagged: x:2".to_owned(),
        format!("Deleted: {id}"),
        format!("Deleted: {}", chain[1]),
        format!("Deleted: {}", chain[0]),
    ];
    assert_eq!(words(&store.remove("x:2", PLAIN, &unused).unwrap()), expected);
    for dir in ["images", "blobs/sha256", "layers", "tmp"] {
        assert_eq!(count(store.root().join(dir)), 0, "{dir}");
    }
}

fn one_chain(image: &TestImage) -> Vec<crate::ChainId> {
    let layers: Vec<_> = image.layers.iter().map(|layer| DiffId(Digest::of(layer))).collect();
    crate::ChainId::of_stack(&layers)
}

#[test]
fn shared_layers_stay() {
    let (_dir, store) = store();
    // The layer "b" is in both, but on different layers: the chain goes, the files stay.
    let (one, two) = (image("one", &["a", "b"], &["x:1"]), image("two", &["a", "c", "b"], &["y:1"]));
    let ids = add(&store, &[one.clone(), two]);
    let removed = words(&store.remove("x:1", PLAIN, &unused).unwrap());
    assert_eq!(removed[2..], [format!("Deleted: {}", one_chain(&one)[1])]);
    assert_eq!(count(store.root().join("layers")), 3);
    assert!(store.layers(&ids[1]).unwrap().iter().all(|layer| layer.is_dir()));
}

#[test]
fn by_id_an_image_goes_with_its_only_name() {
    let (_dir, store) = store();
    let ids = add(&store, &[image("one", &["a"], &["x:1"]), image("two", &["b"], &["y:1", "z:1"])]);
    let removed = words(&store.remove(&ids[0].short(), PLAIN, &unused).unwrap());
    assert_eq!(removed[..2], ["Untagged: x:1".to_owned(), format!("Deleted: {}", ids[0])]);
    let error = store.remove(&ids[1].to_string(), PLAIN, &unused).unwrap_err();
    let short = ids[1].short();
    assert_eq!(
        chain(&error),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let removed = words(&store.remove(&short, FORCE, &unused).unwrap());
    assert_eq!(
        removed[..3],
        ["Untagged: y:1".to_owned(), "Untagged: z:1".to_owned(), format!("Deleted: {}", ids[1])]
    );
}

#[test]
fn digests_go_with_the_last_tag_of_their_repository() {
    let (_dir, store) = store();
    let id = add(&store, &[image("one", &["a"], &["x:1", "y:1"])])[0];
    let digest = format!("x@{}", Digest::of(b"manifest"));
    store.change().name(&reference(&digest), id).unwrap();
    assert_eq!(
        words(&store.remove("x:1", PLAIN, &unused).unwrap()),
        ["Untagged: x:1".to_owned(), format!("Untagged: {digest}")]
    );
    store.change().name(&reference(&format!("y@{}", Digest::of(b"manifest"))), id).unwrap();
    // One tag and the digests of one repository count as one name.
    assert!(store.remove(&id.short(), PLAIN, &unused).is_ok());
}

#[test]
fn a_removal_that_fails_half_way_tells_what_it_removed() {
    let (dir, store) = store();
    let id = add(&store, &[image("one", &["a"], &["x:1"])])[0];
    let record = state::record_path(dir.path(), &id);
    std::fs::remove_file(&record).unwrap();
    std::fs::create_dir_all(record.join("no file")).unwrap();
    let failed = store.remove("x:1", PLAIN, &unused).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Internal);
    assert_eq!(words(&failed.done), ["Untagged: x:1"]);
    assert!(store.find("x:1").is_err());
    assert!(store.find(&id.to_string()).is_ok());
}

#[test]
fn containers_stand_against_it() {
    let short = |id: &ImageId| id.short();
    let (_dir, store) = store();
    let id = add(&store, &[image("one", &["a"], &["x:1"])])[0];
    let refused = |name: &str, options, running| {
        let error = store.remove(name, options, &|_| container(running)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        chain(&error)
    };
    let image = short(&id);
    for running in [true, false] {
        assert_eq!(
            refused("x:1", PLAIN, running),
            format!(
                "conflict: unable to remove repository reference \"x:1\" (must force) - container c0ffeec0ffee is using its referenced image {image}"
            )
        );
    }
    let running = format!(
        "conflict: unable to delete {image} (cannot be forced) - image is being used by running container c0ffeec0ffee"
    );
    let stopped = format!(
        "conflict: unable to delete {image} (must be forced) - image is being used by stopped container c0ffeec0ffee"
    );
    assert_eq!(refused(&image, PLAIN, true), running);
    assert_eq!(refused(&image, FORCE, true), running);
    assert_eq!(refused(&image, PLAIN, false), stopped);
    assert_eq!(store.find("x:1").unwrap().id, id);
    // With a second name, the first goes whatever runs.
    store.tag("x:1", &reference("y:1")).unwrap();
    assert_eq!(words(&store.remove("x:1", PLAIN, &|_| container(true)).unwrap()), ["Untagged: x:1"]);
    // By force the last name goes, and the image stays for its running container.
    assert_eq!(words(&store.remove("y:1", FORCE, &|_| container(true)).unwrap()), ["Untagged: y:1"]);
    assert_eq!(refused(&image, PLAIN, false), stopped);
    assert_eq!(
        words(&store.remove(&image, FORCE, &|_| container(false)).unwrap())[0],
        format!("Deleted: {id}")
    );
}

#[test]
fn children_stand_against_it_and_parents_go_with_the_last() {
    let (_dir, store) = store();
    let parent = image("parent", &["a"], &[]);
    let child = TestImage { parent: parent.id().to_string(), ..image("child", &["a", "b"], &["c:1"]) };
    let ids = add(&store, &[parent, child]);
    let error = store.remove(&ids[0].short(), FORCE, &unused).unwrap_err();
    assert_eq!(
        chain(&error),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
            ids[0].short()
        )
    );
    let removed = words(&store.remove("c:1", PLAIN, &unused).unwrap());
    assert_eq!(removed[1], format!("Deleted: {}", ids[1]));
    assert_eq!(removed[3], format!("Deleted: {}", ids[0]));
    assert!(store.list().is_empty());
}

#[test]
fn without_pruning_parents_stay() {
    let (_dir, store) = store();
    let parent = image("parent", &["a"], &[]);
    let child = TestImage { parent: parent.id().to_string(), ..image("child", &["a", "b"], &["c:1"]) };
    let ids = add(&store, &[parent, child]);
    store.remove("c:1", RemoveOptions { no_prune: true, ..PLAIN }, &unused).unwrap();
    assert_eq!(store.list()[0].id, ids[0]);
}
