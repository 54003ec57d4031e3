//! Directories: canonical listings, and names from strangers.

use std::{fs, os::unix::fs::PermissionsExt};

use por_fileshare::{
    dir::{
        Address, DirEntry, DirError, Directory, TreeOptions, glob_matches, is_name, link_stays_inside,
        put_tree,
    },
    exit::Exit,
    id::{ContentId, Kind},
    store::Store,
    tree::GROUP,
};
use proptest::prelude::*;

fn file(name: &str) -> DirEntry {
    DirEntry {
        name: name.into(),
        size: 3,
        hash: ContentId::file(blake3::hash(b"abc")),
        executable: false,
        symlink: None,
    }
}

#[test]
fn a_listing_has_one_form() {
    let mut run = file("run");
    run.executable = true;
    let link = DirEntry::symlink("link".into(), "sub/run".into());
    let directory = Directory::new(vec![run, link, file("a")]).unwrap();
    let bytes = directory.encode().unwrap();
    assert_eq!(Directory::decode(&bytes).unwrap(), directory);
    let names: Vec<&str> = directory.entries().iter().map(|entry| &entry.name[..]).collect();
    assert_eq!(names, ["a", "link", "run"]);
    assert_eq!(directory.id().unwrap().kind(), Kind::Directory);
    // Fixed bytes: a list of one map, keys by length and then alphabet, the hash as a link.
    let one = Directory::new(vec![file("a")]).unwrap();
    let mut expected = hex::decode("81a36468617368d82a582500015 51e20".replace(' ', "")).unwrap();
    expected.extend_from_slice(blake3::hash(b"abc").as_bytes());
    expected.extend_from_slice(b"\x64name\x61a\x64size\x03");
    assert_eq!(hex::encode(one.encode().unwrap()), hex::encode(expected));
    assert_eq!(Directory::new(vec![]).unwrap().encode().unwrap(), [0x80]);
}

#[test]
fn other_forms_of_a_listing_are_refused() {
    let decode = |bytes: &[u8]| Directory::decode(bytes);
    let good = Directory::new(vec![file("a")]).unwrap().encode().unwrap();
    let mut trailing = good.clone();
    trailing.push(0);
    assert!(decode(&trailing).is_err());
    assert!(decode(b"").is_err());
    assert!(decode(b"\xa0").is_err());
    // The size 3 written in two bytes.
    let mut long = good.clone();
    long.pop();
    long.extend_from_slice(&[0x18, 3]);
    assert!(decode(&long).is_err());
    // A list that claims four billion entries must not make anyone allocate them.
    assert!(decode(b"\x9a\xff\xff\xff\xff").is_err());
    // Deep nesting.
    assert!(decode(&[0x81; 100_000]).is_err());
}

#[test]
fn hostile_names_are_refused() {
    for name in ["", ".", "..", "a/b", "/", "/etc/passwd", "../x", "nul\0", &"x".repeat(256)] {
        assert!(!is_name(name));
        let error = Directory::new(vec![file(name)]).unwrap_err();
        assert!(matches!(error, DirError::Name(_)), "{name:?}");
    }
    let twice = Directory::new(vec![file("a"), file("b"), file("a")]);
    assert_eq!(twice, Err(DirError::Twice("a".into())));
    let mut odd = DirEntry::symlink("l".into(), "x".into());
    odd.size = 7;
    assert!(matches!(Directory::new(vec![odd]), Err(DirError::Inconsistent(_))));
}

#[test]
fn links_stay_inside() {
    for (target, depth) in [("a", 0), ("a/b", 0), ("../a", 1), ("./x", 0), ("../../a/b", 2), (".", 0)] {
        assert!(link_stays_inside(target, depth), "{target}");
    }
    for (target, depth) in
        [("..", 0), ("/etc", 5), ("../..", 1), ("a/../../..", 1), ("a/..", 3), ("", 0), (".//../x", 0)]
    {
        assert!(!link_stays_inside(target, depth), "{target}");
    }
}

#[test]
fn a_tree_is_put_and_kept_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    fs::create_dir_all(top.join("sub/empty")).unwrap();
    fs::write(top.join("small"), b"abc").unwrap();
    fs::write(top.join("sub/large"), vec![7; 3 * GROUP as usize]).unwrap();
    fs::write(top.join("sub/run"), b"#!").unwrap();
    fs::set_permissions(top.join("sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("../small", top.join("sub/link")).unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let put = || put_tree(&store, &top, TreeOptions::default(), &mut |_| ()).unwrap();
    let added = put();
    assert_eq!(added, put(), "the same tree has the same id");
    assert_eq!(store.pins().unwrap(), [added.id]);
    let listing = |id: &ContentId| {
        let item = store.item(&store.need(id).unwrap()).unwrap();
        Directory::decode(&item.read_all().unwrap()).unwrap()
    };
    let root = listing(&added.id);
    assert_eq!(root.total(), added.size);
    let sub = listing(&root.find("sub").unwrap().hash);
    assert!(sub.find("run").unwrap().executable);
    assert!(!sub.find("large").unwrap().executable);
    assert_eq!(sub.find("link").unwrap().symlink.as_deref(), Some("../small"));
    assert_eq!(listing(&sub.find("empty").unwrap().hash).entries(), []);
    // Nothing below a pinned directory is collected; without the pin all of it is.
    assert_eq!(store.gc().unwrap().items, 0);
    store.unpin(&added.id).unwrap();
    assert_eq!(store.gc().unwrap().items, 6);
    assert!(store.entries().unwrap().is_empty());
}

#[test]
fn a_tree_with_a_link_that_leads_out_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    fs::create_dir(&top).unwrap();
    std::os::unix::fs::symlink("../secret", top.join("link")).unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let error = put_tree(&store, &top, TreeOptions::default(), &mut |_| ()).unwrap_err();
    assert_eq!(error.exit, Exit::Usage);
    assert!(store.pins().unwrap().is_empty());
}

#[test]
fn addresses() {
    let id = ContentId::directory(blake3::hash(b"x"));
    let parse = |text: String| text.parse::<Address>();
    assert_eq!(parse(format!("{id}")).unwrap(), Address { id, sure: true, path: vec![] });
    let deep = parse(format!("{id}/a//b/")).unwrap();
    assert_eq!(deep.path, ["a", "b"]);
    assert!(parse(format!("{id}/../b")).is_err());
    let hex = format!("{}/a", hex::encode(id.hash()));
    assert_eq!(parse(hex).unwrap().id, id);
    let hex = format!("{}/", hex::encode(id.hash()));
    assert_eq!(parse(hex).unwrap(), Address { id, sure: true, path: vec![] });
    let file = ContentId::file(blake3::hash(b"x"));
    assert_eq!(parse(format!("{file}/")).unwrap(), Address { id: file, sure: true, path: vec![] });
}

#[test]
fn globs() {
    for (pattern, path) in [
        ("*.txt", "a.txt"),
        ("*.txt", "sub/deep/a.txt"),
        ("sub/*", "sub/a"),
        ("sub/**", "sub/a/b"),
        ("**/b", "b"),
        ("**/b", "x/y/b"),
        ("a?c", "abc"),
        ("*", ""),
        ("a/**/z", "a/z"),
    ] {
        assert!(glob_matches(pattern, path), "{pattern} {path}");
    }
    for (pattern, path) in [
        ("*.txt", "a.txt.gz"),
        ("sub/*", "sub/a/b"),
        ("a?c", "ac"),
        ("sub/*", "other/a"),
        ("**/b", "xb"),
        ("", "a"),
    ] {
        assert!(!glob_matches(pattern, path), "{pattern} {path}");
    }
    let many = "*a".repeat(200);
    assert!(!glob_matches(&many, &"a".repeat(199)), "and quickly");
}

proptest! {
    #[test]
    fn garbage_is_no_listing(bytes: Vec<u8>) {
        if let Ok(directory) = Directory::decode(&bytes) {
            prop_assert_eq!(directory.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn a_damaged_listing_is_refused_or_another_valid_one(at: prop::sample::Index, bit in 0u8..8) {
        let entries = vec![file("a"), file("b"), DirEntry::symlink("c".into(), "a".into())];
        let mut bytes = Directory::new(entries).unwrap().encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(directory) = Directory::decode(&bytes) {
            prop_assert_eq!(directory.encode().unwrap(), bytes);
        }
    }
}

/// Runs work that must not wait for anybody; the failure of a test that does instead of a hang.
fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    ended.recv_timeout(std::time::Duration::from_secs(30)).expect("it waits for nobody")
}

/// Whoever opens a pipe waits until somebody writes to it.
#[test]
fn pipes_are_refused_and_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let make = |path: &std::path::Path| {
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    };
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make(&tree.join("pipe"));
    let putting = (store.clone(), tree.clone());
    let error =
        at_once(move || put_tree(&putting.0, &putting.1, TreeOptions::default(), &mut |_| ())).unwrap_err();
    assert_eq!(error.exit, Exit::Usage, "{error}");
    assert!(error.what.contains("pipe"), "{error}");
    assert_eq!(store.pins().unwrap(), []);

    // A file that was put, and is a pipe now, is gone like any other.
    let file = folder.path().join("file");
    fs::write(&file, vec![7; 100_000]).unwrap();
    let id = store.add_file(&file, TreeOptions::default(), &mut |_| ()).unwrap().id;
    fs::remove_file(&file).unwrap();
    make(&file);
    let entry = store.need(&id).unwrap();
    let found = at_once(move || store.item(&entry).map(drop));
    assert!(matches!(found, Err(por_fileshare::store::StoreError::Lost { .. })), "{found:?}");
}
