//! The store: what was put can be served, what changed cannot, and several processes
//! may use it at once.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use por_fileshare::{
    exit::{Exit, Failure},
    id::{ContentId, Kind},
    slice::{SliceError, Window},
    store::{AddOptions, INLINE, Place, Store, StoreError},
    tree::GROUP,
};

const COPY: AddOptions = AddOptions { copy: true, only_hash: false };

fn content(size: u64) -> Vec<u8> {
    let mut data = vec![0; size as usize];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        World { folder, store }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, data: &[u8], options: AddOptions) -> ContentId {
        fs::write(self.path(name), data).unwrap();
        let mut hashed = 0;
        let added = self.store.add_file(&self.path(name), options, &mut |n| hashed += n).unwrap();
        assert_eq!(hashed, data.len() as u64, "hashed exactly once");
        assert_eq!(added.size, data.len() as u64);
        added.id
    }

    fn read(&self, id: &ContentId) -> Result<Vec<u8>, StoreError> {
        self.store.item(&self.store.need(id)?)?.read_all()
    }
}

fn exit(error: StoreError) -> Exit {
    Failure::from(error).exit
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn what_is_put_is_read() {
    let world = World::new();
    for size in [0, 1, INLINE - 1, INLINE, INLINE + 1, 3 * GROUP, 9 << 20] {
        for (name, options) in [("here", AddOptions::default()), ("copied", COPY)] {
            let data = content(size);
            let id = world.put(name, &data, options);
            assert_eq!(id, ContentId::file(blake3::hash(&data)));
            assert_eq!(world.read(&id).unwrap(), data);
        }
    }
    assert_eq!(count(&world.store.root().join("tmp")), 0);
    let from_reader = world.store.add_reader(&content(5 * GROUP)[..], AddOptions::default(), &mut |_| ());
    let id = from_reader.unwrap().id;
    assert_eq!(world.read(&id).unwrap(), content(5 * GROUP));
    assert_eq!(world.store.need(&id).unwrap().places, [Place::Blob]);
}

#[test]
fn only_hashing_changes_nothing() {
    let world = World::new();
    let before = world.store.generation();
    let options = AddOptions { only_hash: true, copy: true };
    let id = world.put("file", &content(3 * GROUP), options);
    assert_eq!(id.root(), blake3::hash(&content(3 * GROUP)));
    assert_eq!(exit(world.read(&id).unwrap_err()), Exit::NotFound);
    assert_eq!(world.store.generation(), before);
    for folder in ["tmp", "outboard", "blob"] {
        assert_eq!(count(&world.store.root().join(folder)), 0);
    }
}

#[test]
fn a_file_that_changed_is_an_error_and_never_a_wrong_answer() {
    let world = World::new();
    let data = content(5 * GROUP);
    let id = world.put("file", &data, AddOptions::default());
    let item = world.store.item(&world.store.need(&id).unwrap()).unwrap();
    let window = Window::new(4 * GROUP, GROUP, item.size()).unwrap();
    item.encode(window).unwrap();
    // While it is open: other bytes of the same length.
    let mut other = data.clone();
    other[4 * GROUP as usize + 99] ^= 1;
    fs::write(world.path("file"), &other).unwrap();
    let error = item.encode(window).unwrap_err();
    assert!(matches!(error, StoreError::Slice(SliceError::ContentChanged { offset }) if offset == 4 * GROUP));
    assert_eq!(exit(error), Exit::VerificationFailed);
    // What did not change still verifies.
    item.encode(Window::new(0, GROUP, item.size()).unwrap()).unwrap();
    // Cut short while it is open.
    fs::write(world.path("file"), b"short").unwrap();
    assert!(matches!(item.encode(window), Err(StoreError::Changed(_))));
    // Opened anew it is known to be gone.
    let lost = world.read(&id).unwrap_err();
    assert!(matches!(lost, StoreError::Lost { .. }));
    assert_eq!(exit(lost), Exit::NotFound);
    // Put from elsewhere, the same content is there again.
    world.put("elsewhere", &data, AddOptions::default());
    assert_eq!(world.read(&id).unwrap(), data);
}

#[test]
fn a_copy_outlives_the_file() {
    let world = World::new();
    let data = content(2 * GROUP);
    let id = world.put("file", &data, COPY);
    fs::remove_file(world.path("file")).unwrap();
    assert_eq!(world.read(&id).unwrap(), data);
}

#[test]
fn a_flipped_byte_in_the_store_is_found() {
    let world = World::new();
    let id = world.put("file", &content(5 * GROUP), COPY);
    let name = hex::encode(id.hash());
    for (folder, expected) in [("outboard", Exit::CorruptStore), ("blob", Exit::VerificationFailed)] {
        let path = world.store.root().join(folder).join(&name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[17] ^= 4;
        fs::write(&path, &bad).unwrap();
        assert_eq!(exit(world.read(&id).unwrap_err()), expected, "{folder}");
        fs::write(&path, &good).unwrap();
        world.read(&id).unwrap();
    }
    let path = world.store.root().join("outboard").join(&name);
    fs::write(&path, b"cut").unwrap();
    assert_eq!(exit(world.read(&id).unwrap_err()), Exit::CorruptStore);
    fs::remove_file(&path).unwrap();
    assert_eq!(exit(world.read(&id).unwrap_err()), Exit::CorruptStore);
}

#[test]
fn a_corrupt_database_is_a_typed_error() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("nonsense", |bytes| *bytes = b"this was never a database".repeat(400)),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("header", |bytes| bytes[..64].fill(0xa5)),
        ("zeros", |bytes| bytes.fill(0)),
    ];
    for (name, damage) in damages {
        let world = World::new();
        world.put("file", &content(100), AddOptions::default());
        let path = world.store.root().join("meta.redb");
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let reading = world.store.entries().unwrap_err();
        assert_eq!(exit(reading), Exit::CorruptStore, "{name}: reading");
        let writing = world.store.add_reader(&b"x"[..], AddOptions::default(), &mut |_| ());
        assert_eq!(exit(writing.unwrap_err()), Exit::CorruptStore, "{name}: writing");
        assert_eq!(fs::read(&path).unwrap().len(), bytes.len(), "{name}: left as it is");
    }
}

#[test]
fn concurrent_puts_wait_for_each_other() {
    let world = World::new();
    let same = content(3 * GROUP);
    fs::write(world.path("same"), &same).unwrap();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..8u64 {
            let (world, done) = (&world, &done);
            scope.spawn(move || {
                // As another process would: a store of its own.
                let store = Store::open(world.store.root()).unwrap();
                for round in 0..5 {
                    let add = store.add_file(&world.path("same"), COPY, &mut |_| ());
                    let own = format!("{worker} {round}");
                    let other = store.add_reader(own.as_bytes(), COPY, &mut |_| ());
                    assert!(add.is_ok() && other.is_ok());
                    store.entries().unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 40);
    assert_eq!(world.store.entries().unwrap().len(), 41);
    let id = ContentId::file(blake3::hash(&same));
    assert_eq!(world.read(&id).unwrap(), same);
}

#[test]
fn pins_keep_and_gc_drops() {
    let world = World::new();
    let kept = world.put("kept", &content(3 * GROUP), COPY);
    let dropped = world.put("dropped", &content(4 * GROUP), COPY);
    let generation = world.store.generation();
    assert_eq!(exit(world.store.remove(&kept).unwrap_err()), Exit::Other);
    assert!(world.store.unpin(&dropped).unwrap());
    assert!(!world.store.unpin(&dropped).unwrap());
    assert_ne!(world.store.generation(), generation);
    assert_eq!(world.store.pins().unwrap(), [kept]);
    let collected = world.store.gc().unwrap();
    assert_eq!((collected.items, collected.files), (1, 2));
    assert!(world.store.get(&dropped).unwrap().is_none());
    world.read(&kept).unwrap();
    assert!(world.path("dropped").exists(), "the user's file is the user's");
    assert!(world.store.unpin(&kept).unwrap());
    world.store.remove(&kept).unwrap();
    assert_eq!(exit(world.store.remove(&kept).unwrap_err()), Exit::NotFound);
    assert_eq!(exit(world.store.pin(&kept).unwrap_err()), Exit::NotFound);
    assert_eq!(count(&world.store.root().join("blob")), 0);
    assert_eq!(count(&world.store.root().join("outboard")), 0);
}

#[test]
fn what_is_not_a_file_is_refused() {
    let world = World::new();
    let add = |path: &Path| world.store.add_file(path, AddOptions::default(), &mut |_| ());
    assert_eq!(exit(add(world.folder.path()).unwrap_err()), Exit::Usage);
    assert_eq!(exit(add(&world.path("absent")).unwrap_err()), Exit::NotFound);
    let bytes = world.store.stage_bytes(Kind::File, content(2 * GROUP)).unwrap();
    drop(bytes);
    assert_eq!(count(&world.store.root().join("tmp")), 0);
}

/// Lines that were logged on this thread.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Who asks for a file that has changed since it was put is told that it is not here. Its owner is told
/// what has become of it, once.
#[test]
fn whose_file_has_changed_is_told_so() {
    use por_fileshare::{
        answer::Answerer,
        proto::{Answer, Fault, Pricing, Question, STAT_APP, STAT_LIMIT},
    };
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let file = folder.path().join("of mine");
    fs::write(&file, vec![1; 100_000]).unwrap();
    let id = store.add_file(&file, AddOptions::default(), &mut |_| ()).unwrap().id;
    fs::write(&file, vec![2; 100_000]).unwrap();
    let log = Log::default();
    let writer = log.clone();
    let logged = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(logged, || {
        for _ in 0..3 {
            // Each one tells once, however often it is asked.
            let answerer = Answerer::new(store.clone(), Pricing::default());
            for _ in 0..3 {
                let question = Question::Stat { id, listing: false }.encode().unwrap();
                let answer = answerer.answer(STAT_APP, &question, STAT_LIMIT);
                let refusal = Answer::decode(&answer).unwrap();
                assert!(matches!(refusal, Answer::Refused { fault: Fault::NotFound, .. }), "{refusal:?}");
            }
        }
    });
    let told = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains("of mine has changed since it was put"), "{told}");
}
