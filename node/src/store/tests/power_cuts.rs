//! Stores whose disk fails or loses its power: what was promised is there afterwards.

use super::journal::Blocks;
use super::*;

/// All files of a store, as they are now.
fn copy_store(from: &Path, to: &Path) {
    for file in [Path::to_owned, journal::file, journal::mark_file] {
        std::fs::copy(file(from), file(to)).expect("copy");
    }
}

/// The files of a store as a power cut would leave them after `groups` commits.
async fn cut(dir: &Path, name: &str, groups: u64) -> PathBuf {
    let path = dir.join("live.redb");
    let store = NodeStore::open(&path, &identity(1)).expect("create");
    let mut ledger = store.ledger();
    for number in 1..=groups {
        let row = put(&number.to_be_bytes(), &[number as u8; 300]);
        let last = number.checked_sub(1).map(|last| RowKey::from(&last.to_be_bytes()[..]));
        let gone = last.map(|key| Write { table: Table::Channels, key, value: None });
        ledger.submit(number, [Some(row), gone].into_iter().flatten().collect());
        durable(&mut ledger, number).await.expect("durable");
    }
    let copy = dir.join(name);
    copy_store(&path, &copy);
    drop(ledger);
    store.close().await.expect("close");
    for file in [path.clone(), journal::file(&path), journal::mark_file(&path)] {
        std::fs::remove_file(file).expect("remove");
    }
    copy
}

fn rows(path: &Path) -> Result<Vec<u64>, StoreError> {
    let restored = NodeStore::open(path, &identity(1))?.restored()?;
    let mut keys = Vec::new();
    for row in restored.rows {
        let number = u64::from_be_bytes(row.key[..].try_into().expect("key"));
        assert_eq!(row.value, [number as u8; 300]);
        keys.push(number);
    }
    Ok(keys)
}

#[tokio::test]
async fn what_the_database_lacks_is_taken_from_the_journal() {
    let dir = tempfile::tempdir().expect("directory");
    let path = cut(dir.path(), "cut.redb", 20).await;
    assert_eq!(rows(&path), Ok(vec![20]));
    assert_eq!(rows(&path), Ok(vec![20]), "again, from the database");
    std::fs::remove_file(journal::file(&path)).expect("remove");
    assert_eq!(rows(&path), Ok(vec![20]), "a store that was closed needs none");
}

#[tokio::test]
async fn a_store_that_was_not_closed_needs_its_own_journal() {
    let dir = tempfile::tempdir().expect("directory");
    let (one, two) = (cut(dir.path(), "one.redb", 5).await, cut(dir.path(), "two.redb", 7).await);
    std::fs::copy(journal::file(&two), journal::file(&one)).expect("copy");
    let error = rows(&one).expect_err("groups of another store are none of this one's");
    assert!(error.to_string().contains("group 1 does not read well, and 5 was durable"), "{error}");
    std::fs::remove_file(journal::mark_file(&one)).expect("remove");
    assert_eq!(rows(&one), Ok(vec![]), "as after a power cut before the first group");
    let three = cut(dir.path(), "three.redb", 5).await;
    std::fs::remove_file(journal::file(&three)).expect("remove");
    let error = rows(&three).expect_err("the journal is missing");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("three.journal"), "{error}");
}

/// What the counterparties have paid is in the journal: a new database must not write over it, nor sign below
/// what was promised.
#[tokio::test]
async fn a_journal_without_its_database_is_no_new_store() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, aside) = (cut(dir.path(), "cut.redb", 5).await, dir.path().join("aside.redb"));
    std::fs::rename(&path, &aside).expect("lost");
    for without in [None, Some(journal::mark_file(&path))] {
        if let Some(file) = without {
            std::fs::remove_file(file).expect("remove");
        }
        let error = rows(&path).expect_err("the database is missing");
        assert_eq!(error.code(), ErrorCode::CorruptStore, "{error}");
        assert!(error.to_string().contains("cut.journal"), "{error}");
    }
    std::fs::rename(&aside, &path).expect("found");
    assert_eq!(rows(&path), Ok(vec![5]), "nothing was written over");
}

/// The disk that a link leads to is not there yet.
#[cfg(unix)]
#[tokio::test]
async fn a_link_that_leads_nowhere_is_no_new_store() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("link.redb");
    std::os::unix::fs::symlink(dir.path().join("not-mounted/por.redb"), &path).expect("link");
    let error = rows(&path).expect_err("nothing is there");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(path.is_symlink(), "it stays");
}

/// What was written to a journal, without the zeros ahead of it.
fn groups(journal: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(journal).expect("read");
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end.next_multiple_of(4096));
    bytes
}

/// A write that was cut off loses the last group at most; a flipped byte before it is damage.
#[tokio::test]
async fn a_torn_journal_ends_and_a_damaged_one_is_an_error() {
    let dir = tempfile::tempdir().expect("directory");
    let path = cut(dir.path(), "cut.redb", 40).await;
    let (database, journal) = (std::fs::read(&path).expect("read"), journal::file(&path));
    let good = groups(&journal);
    let group = good.len() / 40;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let mark = std::fs::read(journal::mark_file(&path)).expect("read");
    for round in 0..40 {
        let len = rng.random_range(0..=good.len());
        std::fs::write(&path, &database).expect("write");
        std::fs::write(&journal, &good[..len]).expect("write");
        // Less than its writes; what follows fills up the block.
        if len < good.len() - group + 64 + 300 {
            let error = rows(&path).expect_err("the last group was durable");
            assert!(error.to_string().contains("40 was durable"), "{error}");
        }
        // As a power cut may leave it.
        std::fs::remove_file(journal::mark_file(&path)).expect("remove");
        let found = rows(&path).expect("a shorter journal is an earlier one");
        let last = found.last().copied().unwrap_or(0) as usize;
        assert!(last <= 40 && last + 1 >= len / group, "round {round}: {last} of {len} bytes");

        std::fs::write(journal::mark_file(&path), &mark).expect("write");
        std::fs::write(&path, &database).expect("write");
        let (mut bad, place) = (good.clone(), rng.random_range(0..good.len()));
        bad[place] ^= 1 << rng.random_range(0..8);
        std::fs::write(&journal, &bad).expect("write");
        match rows(&path) {
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
            Ok(found) => {
                assert_eq!(found, [40], "round {round}: byte {place} of {} flipped", good.len());
            }
        }
    }
}

/// Once a group is durable, a mark says so. Only without it, as a power cut may leave the files, is a
/// damaged last group one that was never whole.
#[tokio::test]
async fn a_damaged_last_group_is_told_from_an_interrupted_one() {
    let dir = tempfile::tempdir().expect("directory");
    let path = cut(dir.path(), "cut.redb", 3).await;
    let (database, journal) = (std::fs::read(&path).expect("read"), journal::file(&path));
    let mark = std::fs::read(journal::mark_file(&path)).expect("read");
    let good = groups(&journal);
    let mut flipped = good.clone();
    flipped[2 * good.len() / 3 + 100] ^= 1;
    let restored = |bytes: &[u8], mark: &[u8]| {
        std::fs::write(&path, &database).expect("write");
        std::fs::write(&journal, bytes).expect("write");
        std::fs::write(journal::mark_file(&path), mark).expect("write");
        rows(&path)
    };
    let error = restored(&flipped, &mark).expect_err("it was durable");
    assert!(error.to_string().contains("group 3 does not read well"), "{error}");
    assert_eq!(restored(&flipped, &[]), Ok(vec![2]));
    assert_eq!(restored(&flipped, &mark[..50]), Ok(vec![2]), "a torn mark");
    assert_eq!(restored(&good, &[]), Ok(vec![3]));
    assert_eq!(restored(&good, &mark), Ok(vec![3]));
}

/// A store of the version before, whose groups were not padded to blocks, with marks among them.
#[tokio::test]
async fn a_journal_of_small_blocks_is_read() {
    let dir = tempfile::tempdir().expect("directory");
    let path = cut(dir.path(), "cut.redb", 5).await;
    let id = {
        let database = open_checked(&path).expect("a sound database");
        let row = IdentityRow { format: FORMAT_OF_SMALL_BLOCKS, identity: identity(1) };
        let bytes = borsh::to_vec(&row).expect("bytes");
        rows::initialise(&database, IDENTITY_KEY, &bytes).expect("written");
        journal_head(&database).expect("readable").expect("it has a journal").id()
    };
    std::fs::remove_file(journal::mark_file(&path)).expect("remove");
    let groups = journal::in_small_blocks(&groups(&journal::file(&path)), &id);
    let database = std::fs::read(&path).expect("read");
    let restored = |bytes: &[u8]| {
        std::fs::write(&path, &database).expect("write");
        std::fs::write(journal::file(&path), bytes).expect("write");
        rows(&path)
    };
    let mark = groups.len() - 64;
    assert_eq!(restored(&groups[..mark - 64]), Ok(vec![4]), "the last one was interrupted");
    let mut flipped = groups.clone();
    flipped[mark - 100] ^= 1;
    let error = restored(&flipped).expect_err("it was durable");
    assert!(error.to_string().contains("group 5 does not read well"), "{error}");
    assert_eq!(restored(&groups), Ok(vec![5]));
    assert_eq!(restored(&groups), Ok(vec![5]));
    let store = NodeStore::open(&path, &identity(1)).expect("open");
    let row = store.get(AppTable::Metadata, IDENTITY_KEY).expect("get").expect("it is there");
    assert_eq!(borsh::from_slice::<IdentityRow>(&row).expect("a row").format, FORMAT);
    let mut ledger = store.ledger();
    ledger.submit(1, vec![put(&6u64.to_be_bytes(), &[6; 300])]);
    durable(&mut ledger, 1).await.expect("durable");
    let copy = dir.path().join("copy.redb");
    copy_store(&path, &copy);
    assert_eq!(rows(&copy), Ok(vec![5, 6]));
}

/// What a journal's disk does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Half of a write arrives before there is no more space.
    Short,
    /// A write fails.
    Write,
    /// A sync fails, once, and what it was for is not on the disk.
    Sync,
}

/// A disk under a journal, as the process sees it and as a power cut would leave it.
#[derive(Default)]
struct Platter {
    seen: Vec<u8>,
    on_disk: Vec<u8>,
    mark: Vec<u8>,
    fault: Option<Fault>,
    /// Writes and syncs so far.
    accesses: u64,
}

struct Faulty {
    platter: Arc<Mutex<Platter>>,
    position: usize,
}

impl Faulty {
    fn holding(bytes: &[u8]) -> (Faulty, Arc<Mutex<Platter>>) {
        let platter = Platter { seen: bytes.to_vec(), on_disk: bytes.to_vec(), ..Platter::default() };
        let platter = Arc::new(Mutex::new(platter));
        (Faulty { platter: platter.clone(), position: 0 }, platter)
    }
}

impl std::io::Read for Faulty {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let platter = self.platter.lock();
        let mut rest = platter.seen.get(self.position..).unwrap_or_default();
        let read = rest.read(out)?;
        self.position += read;
        Ok(read)
    }
}

impl std::io::Seek for Faulty {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        let end = self.platter.lock().seen.len() as i64;
        let position = match to {
            std::io::SeekFrom::Start(place) => place as i64,
            std::io::SeekFrom::End(offset) => end + offset,
            std::io::SeekFrom::Current(offset) => self.position as i64 + offset,
        };
        self.position = usize::try_from(position).expect("within the file");
        Ok(self.position as u64)
    }
}

impl Device for Faulty {
    fn write_at(&mut self, place: u64, bytes: &Blocks) -> std::io::Result<()> {
        assert!(
            place.is_multiple_of(4096) && bytes.len().is_multiple_of(4096),
            "{} bytes at {place}",
            bytes.len()
        );
        let place = place as usize;
        let mut platter = self.platter.lock();
        platter.accesses += 1;
        let (part, result) = match platter.fault {
            Some(Fault::Short) => (&bytes[..bytes.len() / 2], Err(std::io::ErrorKind::StorageFull.into())),
            Some(Fault::Write) => (&[][..], Err(std::io::Error::other("the disk does not answer"))),
            _ => (&bytes[..], Ok(())),
        };
        let end = place + part.len();
        let len = platter.seen.len().max(end);
        platter.seen.resize(len, 0);
        platter.seen[place..end].copy_from_slice(part);
        result
    }
    fn sync(&mut self) -> std::io::Result<()> {
        let mut platter = self.platter.lock();
        platter.accesses += 1;
        if platter.fault == Some(Fault::Sync) {
            // As an operating system does it: the next sync knows nothing of what this one lost.
            platter.fault = None;
            return Err(std::io::Error::other("the disk has lost a write"));
        }
        platter.on_disk = platter.seen.clone();
        Ok(())
    }
    fn set_len(&mut self, len: u64) -> std::io::Result<()> {
        self.platter.lock().seen.truncate(len as usize);
        Ok(())
    }
    fn read_mark(&mut self) -> std::io::Result<Vec<u8>> {
        Ok(self.platter.lock().mark.clone())
    }
    fn write_mark(&mut self, mark: &[u8; 64]) -> std::io::Result<()> {
        self.platter.lock().mark = mark.to_vec();
        Ok(())
    }
}

fn start_on(path: &Path, device: Faulty) -> NodeStore {
    let database = open_checked(path).expect("a sound database");
    let head = journal_head(&database).expect("readable");
    NodeStore::start(path, database, head, Box::new(device)).expect("start")
}

/// After a failed write or sync nothing is promised, and nothing is tried again; whatever is left of
/// the journal, everything that was promised before is there.
#[tokio::test]
async fn a_disk_that_fails_once_is_not_written_again() {
    for fault in [Fault::Short, Fault::Write, Fault::Sync] {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("store.redb");
        NodeStore::open(&path, &identity(1)).expect("create").close().await.expect("close");
        let (device, platter) = Faulty::holding(&[]);
        let store = start_on(&path, device);
        let mut ledger = store.ledger();
        for number in 1..=3u64 {
            ledger.submit(number, vec![put(b"last", &number.to_be_bytes())]);
            durable(&mut ledger, number).await.expect("durable");
        }
        let database = std::fs::read(&path).expect("read");
        platter.lock().fault = Some(fault);
        // Of more than a block, so that half of it is not the whole.
        ledger.submit(4, vec![put(b"last", &4u64.to_be_bytes()), put(b"more", &[4; 9000])]);
        let error = durable(&mut ledger, 4).await.expect_err("the disk fails");
        let error = error.source.and_then(|cause| cause.downcast::<StoreError>().ok()).expect("ours");
        let code = if fault == Fault::Short { ErrorCode::DiskFull } else { ErrorCode::Other };
        assert_eq!(error.code(), code, "{fault:?}: {error}");

        platter.lock().fault = None;
        let accesses = platter.lock().accesses;
        ledger.submit(5, vec![put(b"last", &5u64.to_be_bytes())]);
        durable(&mut ledger, 5).await.expect_err("it stays so");
        store.put(AppTable::Intents, b"i", b"late".to_vec()).await.expect_err("for all rows");
        drop(ledger);
        assert_eq!(store.close().await, Err(*error), "{fault:?}");
        assert_eq!(platter.lock().accesses, accesses, "{fault:?}: nothing is tried again");
        drop(store);

        let seen = platter.lock().seen.clone();
        let on_disk = platter.lock().on_disk.clone();
        for (name, journal) in [("crash", seen), ("power cut", on_disk)] {
            let copy = dir.path().join(format!("{name}.redb"));
            std::fs::write(&copy, &database).expect("write");
            let rows = start_on(&copy, Faulty::holding(&journal).0).restored().expect("rows").rows;
            let last = u64::from_be_bytes(rows[0].value.as_slice().try_into().expect("a number"));
            // Of the fourth nobody was told: it may have arrived as a whole.
            let whole = fault == Fault::Sync && name == "crash";
            assert_eq!(last, if whole { 4 } else { 3 }, "{fault:?}, {name}");
        }
    }
}

/// The file is written from its start again, and what it held before is not taken for new.
#[tokio::test]
async fn the_journal_goes_round() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("store.redb");
    let store = NodeStore::open(&path, &identity(1)).expect("create");
    let mut ledger = store.ledger();
    let big = vec![7; 4 << 20];
    for number in 1..=20u64 {
        ledger.submit(
            number,
            vec![put(&(number % 3).to_be_bytes(), &big), put(b"last", &number.to_be_bytes())],
        );
        durable(&mut ledger, number).await.expect("durable");
    }
    let copy = dir.path().join("copy.redb");
    copy_store(&path, &copy);
    let size = std::fs::metadata(journal::file(&path)).expect("journal").len();
    assert!(size < 3 * books::CHECKPOINT_BYTES, "the journal has {size} bytes");
    let crashed = NodeStore::open(&copy, &identity(1)).expect("open");
    let size = std::fs::metadata(journal::file(&copy)).expect("journal").len();
    assert!(size <= 2 * books::CHECKPOINT_BYTES, "nothing in it is needed, and it keeps {size} bytes");
    for store in [crashed, store] {
        let rows = store.restored().expect("rows").rows;
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[3].value, 20u64.to_be_bytes());
    }
}

/// At any time a crash leaves what was durable, wherever the ring is: rows that age, that are overtaken
/// while they do, groups that do not fit before what is still needed.
#[tokio::test]
async fn a_crash_anywhere_in_the_ring_loses_nothing() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("directory");
    let (path, copy) = (dir.path().join("store.redb"), dir.path().join("copy.redb"));
    let store = NodeStore::open(&path, &identity(1)).expect("create");
    let mut ledger = store.ledger();
    let mut model = std::collections::BTreeMap::new();
    for number in 1..=90u64 {
        let huge = rng.random_ratio(1, 15);
        let mut writes = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            let key = RowKey::from(&[rng.random_range(0..12u8)][..]);
            let size = if huge { 9 << 20 } else { rng.random_range(0..3 << 20) };
            let value = rng.random_ratio(2, 3).then(|| vec![rng.random(); size]);
            match &value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(&key),
            };
            writes.push(Write { table: Table::Exchanges, key, value });
        }
        ledger.submit(number, writes);
        durable(&mut ledger, number).await.expect("durable");
        if !rng.random_ratio(1, 6) {
            continue;
        }
        // Behind what the ledger's thread does after a commit.
        store.put(AppTable::Intents, b"i", b"quiet".to_vec()).await.expect("stored");
        copy_store(&path, &copy);
        let rows = NodeStore::open(&copy, &identity(1)).expect("open").restored().expect("rows").rows;
        let found: std::collections::BTreeMap<_, _> =
            rows.into_iter().map(|row| (row.key, row.value)).collect();
        assert!(found == model, "seed {seed}: after group {number}");
    }
}

/// A group that reaches into what the database still lacks waits until it does not.
#[tokio::test]
async fn a_large_group_does_not_overrun_what_is_needed() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, copy) = (dir.path().join("store.redb"), dir.path().join("copy.redb"));
    NodeStore::open(&path, &identity(1)).expect("create").close().await.expect("close");
    let database = open_checked(&path).expect("a sound database");
    let head = journal_head(&database).expect("readable");
    let (device, platter) = Faulty::holding(&[]);
    let mut books = Books::open(&path, &database, head, Box::new(device)).expect("open");
    let mib = 1 << 20;
    // Ages, ripens, turns to the start of the file; what was written last before that is needed.
    let sizes = [33 * mib, 9 * mib, 33 * mib, mib, 60 * mib];
    for (number, size) in (1u64..).zip(sizes) {
        books.upkeep(&path, &database).expect("written");
        let batch = vec![put(&number.to_be_bytes(), &vec![number as u8; size])];
        books.commit(&path, &database, vec![batch]).expect("durable");
    }
    std::fs::copy(&path, &copy).expect("copy");
    let on_disk = platter.lock().on_disk.clone();
    assert!(on_disk.len() < 100 * mib, "the start of the file was used again");
    let rows = start_on(&copy, Faulty::holding(&on_disk).0).restored().expect("rows").rows;
    assert_eq!(rows.iter().map(|row| row.value.len()).collect::<Vec<_>>(), sizes);
}
