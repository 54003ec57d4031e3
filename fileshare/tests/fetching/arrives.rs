//! What arrives: streams, files, directories and parts of them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use por_fileshare::{
    dir::{DirEntry, Directory, TreeOptions, put_tree},
    exit::Exit,
    get::{self, Goal, Want},
    id::{ContentId, Kind},
};
use tokio::io::AsyncReadExt;

use super::providers::{MIB, World, flips_a_bit, make_tree, quick, want};

#[tokio::test]
async fn a_stream_is_in_order_and_bounded() {
    let mut world = World::new().provider(1, 0, None).provider(2, 0, None);
    world.net.delay = Duration::from_millis(1);
    let (id, data) = world.put(20 * MIB + 77);
    let running = world.session(quick(), None);
    let mut asked = want(id);
    asked.range = Some((3 * MIB + 5, Some(17 * MIB + 1)));
    let goal = get::locate(&running.session, &asked).await.unwrap();
    let mut out = Vec::new();
    get::fetch_out(&running.session, &goal, &mut out).await.unwrap();
    assert!(out == data[(3 * MIB + 5) as usize..(17 * MIB + 1) as usize]);
    assert!(running.session_net().most_in_flight.load(Ordering::SeqCst) <= 8);
}

#[tokio::test]
async fn a_slow_reader_keeps_memory_bounded() {
    let world = World::new().provider(1, 0, None);
    let (id, data) = world.put(40 * MIB);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    let (mut writer, reader) = tokio::io::duplex(1024);
    let fetch = get::fetch_out(&running.session, &goal, &mut writer);
    // Nobody reads: only what is in flight is ever asked for.
    assert!(tokio::time::timeout(Duration::from_millis(500), fetch).await.is_err());
    assert!(running.session_net().asked(1) <= 9, "{}", running.session_net().asked(1));
    drop((reader, data));
}

/// What is in flight is paid for, and its time runs: it arrives also while nobody takes what has arrived before.
#[tokio::test]
async fn windows_in_flight_do_not_wait_for_a_slow_reader() {
    let mut world = World::new().provider(1, 0, None);
    world.net.delay = Duration::from_millis(5);
    let (id, data) = world.put(20 * MIB);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    let (mut writer, mut reader) = tokio::io::duplex(1024);
    let session = Arc::clone(&running.session);
    let fetch = tokio::spawn(async move { get::fetch_out(&session, &goal, &mut writer).await });
    let arrived = async {
        while running.session_net().asked(1) < 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("all eight arrive");
    let mut out = Vec::new();
    reader.read_to_end(&mut out).await.unwrap();
    fetch.await.unwrap().unwrap();
    assert!(out == data);
}

#[tokio::test]
async fn absent_content_is_not_found() {
    let world = World::new().provider(1, 0, None);
    let id = ContentId::file(blake3::hash(b"nobody has this"));
    let failed = world.session(quick(), None).get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::NotFound);
    let nobody = World::new().session(quick(), None);
    assert_eq!(nobody.get(id).await.unwrap_err().exit, Exit::NotFound);
}

#[tokio::test]
async fn hex_ids_find_files_and_directories() {
    let world = World::new().provider(1, 0, None);
    let (id, data) = world.put(100);
    let folder = world.folder.path().join("tree");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a"), b"a").unwrap();
    let tree = put_tree(&world.store, &folder, TreeOptions::default(), &mut |_| ()).unwrap();
    let running = world.session(quick(), None);
    let hex = |id: ContentId| {
        let mut want = want(id);
        want.address = hex::encode(id.hash()).parse().unwrap();
        want
    };
    let target = running.want(hex(id)).await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), data);
    fs::remove_file(&target).unwrap();
    let target = running.want(hex(tree.id)).await.unwrap();
    assert_eq!(fs::read(target.join("a")).unwrap(), b"a");
}

/// A listing that does not come along with the answer about it is paid for: nobody is made to by who calls a file a
/// directory, but whoever says that it is one gets it.
#[tokio::test]
async fn a_long_directory_by_its_hex_id_is_one_if_its_user_says_so() {
    let world = World::new().provider(1, 1, None);
    let (file, data) = world.put(10);
    let entry = |n: u32| DirEntry {
        name: format!("{n:0>60}"),
        size: 10,
        hash: file,
        executable: false,
        symlink: None,
    };
    let listing = Directory::new((0..1_000).map(entry).collect()).unwrap().encode().unwrap();
    assert!(listing.len() > 64 << 10);
    let staged = world.store.stage_bytes(Kind::Directory, listing).unwrap();
    let hex = hex::encode(staged.id().hash());
    world.store.commit(vec![staged], &[]).unwrap();
    let running = world.session(quick(), None);
    let locate = async |address: String| {
        let want = Want { address: address.parse().unwrap(), ..want(file) };
        get::locate(&running.session, &want).await.unwrap()
    };
    let Goal::Tree(tree) = locate(format!("{hex}/")).await else { panic!("a directory") };
    assert_eq!(tree.files().len(), 1_000);
    assert!(!running.session.may_be_directory(), "nothing is left to say");
    let Goal::File { span, .. } = locate(format!("{hex}/{:0>60}", 7)).await else { panic!("a file") };
    assert_eq!((span.id, span.size), (file, data.len() as u64));
    assert!(matches!(locate(hex).await, Goal::File { .. }));
    assert!(running.session.may_be_directory(), "its user learns of it");
}

#[tokio::test]
async fn directories_arrive_as_they_were() {
    let world = World::new().provider(1, 1, None).provider(2, 1, flips_a_bit());
    let (top, id) = make_tree(&world);
    let store = world.store.clone();
    let running = world.session(quick(), None);
    let target = running.get(id).await.unwrap();
    let again = put_tree(&store, &target, TreeOptions { only_hash: true, copy: false }, &mut |_| ()).unwrap();
    assert_eq!(again.id, id);
    let names: Vec<_> =
        fs::read_dir(running.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "store, tree and target, no litter: {names:?}");
    drop(top);
}

#[tokio::test]
async fn parts_of_directories() {
    let world = World::new().provider(1, 1, None);
    let (_, id) = make_tree(&world);
    let running = world.session(quick(), None);
    let mut some = want(id);
    some.include = vec!["*.txt".into()];
    let target = running.want(some).await.unwrap();
    assert!(target.join("a.txt").exists() && target.join("sub/deep/b.txt").exists());
    assert!(!target.join("sub/big").exists() && !target.join("empty").exists());
    fs::remove_dir_all(&target).unwrap();
    let mut one = want(id);
    one.address = format!("{id}/sub/deep/b.txt").parse().unwrap();
    let target = running.want(one).await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), vec![8; 40_000]);
    fs::remove_file(&target).unwrap();
    for (path, exit) in [("nothing", Exit::NotFound), ("a.txt/x", Exit::NotFound), ("sub/link", Exit::Usage)]
    {
        let mut wrong = want(id);
        wrong.address = format!("{id}/{path}").parse().unwrap();
        assert_eq!(running.want(wrong).await.unwrap_err().exit, exit, "{path}");
    }
}

#[tokio::test]
async fn goals_tell_their_length() {
    let world = World::new().provider(1, 1, None);
    let (id, _) = world.put(10);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    assert_eq!(goal.len(), 10);
    assert!(matches!(goal, Goal::File { executable: false, .. }));
}
