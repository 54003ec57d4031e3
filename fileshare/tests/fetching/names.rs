//! Directories whose names are those that a download would give to its own files.

use std::{fs, path::Path, sync::atomic::Ordering};

use por_fileshare::{
    dir::{TreeOptions, put_tree},
    exit::Exit,
    get::{self, Place},
};

use super::providers::{MIB, World, failure, fault, make_tree, quick, want};

fn same(a: &Path, b: &Path) {
    let names = |folder: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|found| found.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b), "{}", a.display());
    for name in names(a) {
        let (a, b) = (a.join(&name), b.join(&name));
        if a.is_dir() {
            same(&a, &b);
        } else {
            assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{}", a.display());
        }
    }
}

fn make(top: &Path) {
    fs::create_dir_all(top.join("d.part")).unwrap();
    fs::create_dir_all(top.join("s.part.state")).unwrap();
    // Of one length, which does not tell them apart.
    for (n, name) in ["a", "a.part", "a.part.part", "a.part.state", "d", "s", "d.part/x"].iter().enumerate() {
        fs::write(top.join(name), vec![n as u8 + 1; 3 * MIB as usize]).unwrap();
    }
    fs::write(top.join("n".repeat(255)), vec![9; 2 * MIB as usize]).unwrap();
}

#[tokio::test]
async fn names_of_partial_files_are_names_like_any_other() {
    let world = World::new().provider(1, 0, None);
    let top = world.folder.path().join("tree");
    make(&top);
    let id = put_tree(&world.store, &top, TreeOptions::default(), &mut |_| ()).unwrap().id;
    let running = world.session(quick(), None);
    let got = running.want(want(id)).await.unwrap();
    same(&top, &got);
    assert_eq!(fs::read_dir(running.folder.path()).unwrap().count(), 3, "store, tree and target");
}

#[tokio::test]
async fn they_are_so_over_interruptions_as_well() {
    let world = World::new().provider(1, 0, None);
    let top = world.folder.path().join("tree");
    make(&top);
    let id = put_tree(&world.store, &top, TreeOptions::default(), &mut |_| ()).unwrap().id;
    let mut running = world.session(quick(), None);
    for round in 0.. {
        assert!(round < 50, "each round gets further");
        // A few windows, then the provider is of no use any more; with others than before, as it happens.
        let most = 3 + round % 4;
        let stops = fault(move |n, answer| if n < most { Ok(answer) } else { Err(failure(Exit::Fatal)) });
        let world = World { folder: running.folder, store: running.store, net: Default::default() };
        let world = world.provider(1, 0, stops);
        running = world.session(quick(), None);
        match running.want(want(id)).await {
            Ok(got) => {
                same(&top, &got);
                assert!(round > 1, "it was interrupted");
                break;
            }
            Err(_) => {
                assert!(running.session_net().providers.values().all(|p| p.asked.load(Ordering::Relaxed) > 0))
            }
        }
    }
}

/// What cannot get its name at the end is not fetched, and not paid for.
#[tokio::test]
async fn a_file_in_place_of_a_folder_is_refused_before_it_is_paid_for() {
    let world = World::new().provider(1, 5, None);
    let (id, _) = world.put(3 * MIB);
    let running = world.session(quick(), None);
    let target = running.folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let place = Place { target, overwrite: true, share: None };
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    let failed = get::fetch_to(&running.session, &goal, &place).await.unwrap_err();
    assert_eq!((failed.exit, running.session_net().asked(1)), (Exit::Exists, 0), "{failed}");

    let world = World::new().provider(1, 5, None);
    let (_, id) = make_tree(&world);
    let running = world.session(quick(), None);
    let target = running.folder.path().join("target");
    fs::write(&target, b"a file").unwrap();
    let place = Place { target: target.clone(), overwrite: true, share: None };
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    let failed = get::fetch_to(&running.session, &goal, &place).await.unwrap_err();
    assert_eq!((failed.exit, running.session_net().asked(1)), (Exit::Exists, 0), "{failed}");
    assert_eq!(fs::read(&target).unwrap(), b"a file");
}
