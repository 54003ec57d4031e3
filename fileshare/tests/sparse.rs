//! Sparse files: holes are neither read, sent nor stored, and proven like data.
#![cfg(target_os = "linux")]

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use por_fileshare::{
    budget::Budget,
    exit::{Exit, Failure},
    fetch::{Limits, Session, Stop},
    get::{self, Place, Want},
    holes::Holes,
    id::ContentId,
    net::{Call, Local, Network, Reply},
    outboard::FileOutboard,
    part::{Part, Span, UNIT},
    proto::{Answer, GET_APP, Question},
    slice::{self, SliceError, Window},
    store::{AddOptions, Store},
    tree::hash_reader,
};
use por_types::{NodeKey, Yocto};

/// Units of the file, and those that hold data.
const UNITS: u64 = 96;
const DATA: [u64; 5] = [0, 17, 18, 40, 95];
const SIZE: u64 = UNITS * UNIT - 5000;

fn make(path: &Path, data: &[u64]) -> File {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(SIZE).unwrap();
    for unit in data {
        let mut bytes = vec![0; 300_000];
        blake3::Hasher::new().update(&unit.to_le_bytes()).finalize_xof().fill(&mut bytes);
        file.write_all_at(&bytes, unit * UNIT + 4096).unwrap();
    }
    file.sync_all().unwrap();
    file
}

/// Bytes on disk.
fn stored(path: &Path) -> u64 {
    File::open(path).unwrap().sync_all().unwrap();
    fs::metadata(path).unwrap().blocks() * 512
}

/// A store on this machine that counts what it is asked, and stops a download after a while.
struct Counting {
    net: Local,
    gets: AtomicU64,
    zeros: AtomicU64,
    bytes: AtomicU64,
    /// Questions for zeros on their way, and the most there were.
    at_once: (AtomicU64, AtomicU64),
    stop: Option<(u64, Stop)>,
    lies: bool,
}

impl Counting {
    fn new(store: &Store) -> Counting {
        Counting {
            net: Local::new(store.clone()),
            gets: AtomicU64::new(0),
            zeros: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            at_once: Default::default(),
            stop: None,
            lies: false,
        }
    }

    fn count(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

impl Network for Counting {
    async fn providers(&self, hash: &[u8; 32], most: usize, wait: Duration) -> Result<Vec<NodeKey>, Failure> {
        self.net.providers(hash, most, wait).await
    }

    async fn quote(&self, _: NodeKey, _: &'static str, _: u64, _: u64, own: Yocto) -> Result<Yocto, Failure> {
        Ok(own)
    }

    async fn request(&self, call: Call) -> Result<Reply, Failure> {
        let question = Question::decode(&call.body).unwrap();
        let counter = match question {
            Question::Get { .. } => Some(&self.gets),
            Question::Zeros { .. } => Some(&self.zeros),
            Question::Holes { .. } if self.lies => {
                let all = Answer::Holes { runs: vec![(0, UNITS)], more: None }.encode().unwrap();
                return Ok(Reply { body: all.into(), price: Yocto::ZERO });
            }
            _ => None,
        };
        if call.app == GET_APP
            && let Some((left, stop)) = &self.stop
            && Self::count(&self.gets) + Self::count(&self.zeros) + 1 >= *left
        {
            stop.set();
        }
        if matches!(question, Question::Zeros { .. }) {
            let now = self.at_once.0.fetch_add(1, Ordering::Relaxed) + 1;
            self.at_once.1.fetch_max(now, Ordering::Relaxed);
            // All others that may ask do so meanwhile.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            self.at_once.0.fetch_sub(1, Ordering::Relaxed);
        }
        let reply = self.net.request(call).await?;
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(reply.body.len() as u64, Ordering::Relaxed);
        }
        Ok(reply)
    }
}

fn session(net: Counting, stop: Stop) -> Arc<Session<Counting>> {
    let limits = Limits { in_flight: 1, window: UNIT, ..Limits::default() };
    Arc::new(Session::new(Arc::new(net), Budget::new(None), limits, stop))
}

async fn fetch(session: &Arc<Session<Counting>>, id: ContentId, target: &Path) -> Result<(), Failure> {
    let address = id.to_string().parse().unwrap();
    let want = Want { address, from: vec![Local::KEY], range: None, include: vec![] };
    let goal = get::locate(session, &want).await?;
    let place = Place { target: target.to_owned(), overwrite: false, share: None };
    get::plan(session, &goal, Some(&place)).await?;
    get::fetch_to(session, &goal, &place).await
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
    id: ContentId,
    hash: blake3::Hash,
}

fn world(copy: bool) -> World {
    world_of(copy, &DATA)
}

fn world_of(copy: bool, data: &[u64]) -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let path = folder.path().join("source");
    make(&path, data);
    let mut seen = 0;
    let options = AddOptions { copy, ..AddOptions::default() };
    let added = store.add_file(&path, options, &mut |n| seen += n).unwrap();
    let hash = blake3::hash(&fs::read(&path).unwrap());
    assert_eq!((added.size, seen, added.id.root()), (SIZE, SIZE, hash));
    if copy {
        fs::remove_file(&path).unwrap();
    }
    World { folder, store, id: added.id, hash }
}

/// What the data takes at most: its units, rounded up.
const MOST: u64 = DATA.len() as u64 * UNIT;

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_not_sent_and_stay_holes() {
    for copy in [false, true] {
        let world = world(copy);
        let target = world.folder.path().join("target");
        let session = session(Counting::new(&world.store), Stop::default());
        fetch(&session, world.id, &target).await.unwrap();
        assert_eq!(blake3::hash(&fs::read(&target).unwrap()), world.hash);
        assert_eq!(fs::metadata(&target).unwrap().len(), SIZE);
        let on_disk = stored(&target);
        assert!(on_disk <= MOST, "{on_disk} bytes on disk");
        let net = session.network();
        assert_eq!(Counting::count(&net.gets), DATA.len() as u64, "windows of data");
        assert_eq!(Counting::count(&net.zeros), 3, "stretches of zeros between them");
        let sent = Counting::count(&net.bytes);
        assert!(sent < MOST + MOST / 50, "{sent} bytes sent");
        assert_eq!(session.meter.get(), (SIZE, SIZE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_with_holes_can_be_served() {
    let world = world(false);
    let target = world.folder.path().join("target");
    let other = Store::open(&world.folder.path().join("other")).unwrap();
    let first = session(Counting::new(&world.store), Stop::default());
    let address = world.id.to_string().parse().unwrap();
    let want = Want { address, from: vec![Local::KEY], range: None, include: vec![] };
    let goal = get::locate(&first, &want).await.unwrap();
    let place = Place { target: target.clone(), overwrite: false, share: Some(other.clone()) };
    get::fetch_to(&first, &goal, &place).await.unwrap();
    // The hash tree is whole: as data, every byte verifies, and as holes.
    let item = other.item(&other.need(&world.id).unwrap()).unwrap();
    assert_eq!(blake3::hash(&item.read_all().unwrap()), world.hash);
    let again = world.folder.path().join("again");
    fetch(&session(Counting::new(&other), Stop::default()), world.id, &again).await.unwrap();
    assert_eq!(blake3::hash(&fs::read(&again).unwrap()), world.hash);
    assert!(stored(&again) <= MOST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_was_interrupted_goes_on_without_hashing() {
    let world = world(false);
    let target = world.folder.path().join("target");
    let stop = Stop::default();
    let mut net = Counting::new(&world.store);
    net.stop = Some((7, stop.clone()));
    let first = session(net, stop);
    let failure = fetch(&first, world.id, &target).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Interrupted);
    assert!(!target.exists());
    let span = Span::whole(world.id, SIZE);
    let part = Part::open(&target, span, false).unwrap();
    let (done, total) = first.meter.get();
    assert!(done > total * 9 / 10, "only {done} of {total} were there");
    assert_eq!((part.done(), part.rehashed()), (done, 0));
    let windows = part.missing(UNIT).unwrap();
    assert!(!windows.is_empty());
    drop(part);
    let second = session(Counting::new(&world.store), Stop::default());
    fetch(&second, world.id, &target).await.unwrap();
    assert_eq!(blake3::hash(&fs::read(&target).unwrap()), world.hash);
    assert!(stored(&target) <= MOST);
    let net = second.network();
    let asked = Counting::count(&net.gets) + Counting::count(&net.zeros);
    assert_eq!(asked, 1, "of eight windows seven were there");
}

/// Whoever checks zeros hashes them, on a core for each window: a Ctrl-C waits for those in flight.
#[tokio::test]
async fn few_windows_of_zeros_are_in_flight_at_once() {
    let data: Vec<u64> = (0..UNITS).step_by(2).collect();
    let world = world_of(false, &data);
    let target = world.folder.path().join("target");
    let limits = Limits { in_flight: 16, zeros_in_flight: 2, window: UNIT, ..Limits::default() };
    let net = Arc::new(Counting::new(&world.store));
    let session = Arc::new(Session::new(net, Budget::new(None), limits, Stop::default()));
    fetch(&session, world.id, &target).await.unwrap();
    assert_eq!(blake3::hash(&fs::read(&target).unwrap()), world.hash);
    let net = session.network();
    assert_eq!(Counting::count(&net.zeros), UNITS / 2);
    assert_eq!(Counting::count(&net.at_once.1), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_map_of_holes_spoils_nothing() {
    let world = world(false);
    let target = world.folder.path().join("target");
    let mut net = Counting::new(&world.store);
    net.lies = true;
    let session = session(net, Stop::default());
    fetch(&session, world.id, &target).await.unwrap();
    assert_eq!(blake3::hash(&fs::read(&target).unwrap()), world.hash);
    let net = session.network();
    assert_eq!((Counting::count(&net.zeros), Counting::count(&net.gets)), (1, UNITS), "all of it as data");
}

#[test]
fn zeros_are_proven() {
    let size = 5 * UNIT + 100;
    let mut data = vec![0; size as usize];
    let outboard_of = |data: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        let root = hash_reader(data, size, &file, &mut |_| ()).unwrap();
        (file, root)
    };
    data[3 * UNIT as usize + 17] = 1;
    let (file, root) = outboard_of(&data);
    let outboard = FileOutboard::new(root, size, Some(&file), 0);
    for (offset, len, honest) in
        [(0, 3 * UNIT, true), (4 * UNIT, UNIT + 100, true), (2 * UNIT, 2 * UNIT, false), (0, size, false)]
    {
        let window = Window::zeros(offset, len, size).unwrap();
        let slice = Bytes::from(slice::encode_zeros(Vec::new(), &outboard, window).unwrap());
        assert_eq!(slice.len() as u64, slice::encoded_len(size, window));
        match slice::decode(root, size, window, &slice) {
            Ok(verified) => {
                assert!(honest, "{offset} {len}");
                let nodes = tempfile::tempfile().unwrap();
                verified.nodes().write_to(&nodes, 0).unwrap();
                let (ours, theirs) = (nodes.metadata().unwrap().len(), file.metadata().unwrap().len());
                let mut bytes = (vec![0; ours as usize], vec![0; theirs as usize]);
                nodes.read_exact_at(&mut bytes.0, 0).unwrap();
                file.read_exact_at(&mut bytes.1, 0).unwrap();
                for (ours, theirs) in bytes.0.chunks(64).zip(bytes.1.chunks(64)) {
                    assert!(ours == theirs || ours.iter().all(|byte| *byte == 0), "a node differs");
                }
            }
            Err(error) => assert!(!honest && matches!(error, SliceError::Mismatch { .. }), "{error}"),
        }
    }
    // One bit of the way changed.
    let window = Window::zeros(0, 3 * UNIT, size).unwrap();
    let mut slice = slice::encode_zeros(Vec::new(), &outboard, window).unwrap();
    slice[40] ^= 1;
    let error = slice::decode(root, size, window, &Bytes::from(slice)).unwrap_err();
    assert!(matches!(error, SliceError::Mismatch { .. }));
    assert!(Window::zeros(0, 0, size).is_err() && Window::zeros(UNIT, size, size).is_err());
    assert!(Window::zeros(5, UNIT, size).is_err() && Window::zeros(0, 2 << 30, u64::MAX >> 1).is_err());
}

#[test]
fn what_garbage_lies_in_a_hole_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let size = 4 * UNIT;
    let file = tempfile::tempfile().unwrap();
    let root = hash_reader(&vec![0; size as usize][..], size, &file, &mut |_| ()).unwrap();
    let outboard = FileOutboard::new(root, size, Some(&file), 0);
    let span = Span::whole(ContentId::file(root), size);
    let target = folder.path().join("zeros");
    let part = Part::open(&target, span, false).unwrap();
    let garbage = OpenOptions::new().write(true).open(folder.path().join("zeros.part")).unwrap();
    garbage.write_all_at(&[9; 8192], UNIT).unwrap();
    let holes = Holes::new(vec![(0, 4)], size);
    let windows = part.missing_but(UNIT, &holes).unwrap();
    assert_eq!(windows.len(), 1, "one stretch");
    let slice = Bytes::from(slice::encode_zeros(Vec::new(), &outboard, windows[0]).unwrap());
    part.write(&slice::decode(root, size, windows[0], &slice).unwrap()).unwrap();
    part.finish(false, None).unwrap();
    assert!(fs::read(&target).unwrap().iter().all(|byte| *byte == 0));
    assert!(stored(&target) < UNIT);
}
