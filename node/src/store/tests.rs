mod power_cuts;

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::poll_fn;
use libp2p_por::Store as _;
use por_core::{Row, RowKey, Table, Write};
use por_types::NodeSecret;
use rand::{Rng as _, SeedableRng as _};

use super::journal::Blocks;
use super::*;
use crate::client::ErrorCode;

fn identity(seed: u8) -> StoreIdentity {
    let network = Network { chain_id: "localnet".into(), contract: "por.test".parse().expect("account") };
    StoreIdentity { network, node_key: NodeSecret::from_seed(&[seed; 32]).public() }
}

fn put(key: &[u8], value: &[u8]) -> Write {
    Write { table: Table::Channels, key: key.into(), value: Some(value.to_vec()) }
}

/// Waits until `batch` is durable.
async fn durable(ledger: &mut LedgerStore, batch: u64) -> Result<u64, libp2p_por::StoreError> {
    let wait = async {
        loop {
            let durable = poll_fn(|cx| ledger.poll_durable(cx)).await?;
            if durable >= batch {
                return Ok(durable);
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("a commit takes no 20 s")
}

#[tokio::test]
async fn rows_survive_a_restart() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("store.redb");
    let store = NodeStore::open(&path, &identity(1)).expect("create");
    let mut ledger = store.ledger();
    ledger.submit(1, vec![put(b"a", b"1"), put(b"b", b"2")]);
    ledger.submit(
        2,
        vec![Write { table: Table::Channels, key: b"a"[..].into(), value: None }, put(b"b", b"3")],
    );
    assert_eq!(durable(&mut ledger, 2).await.expect("durable"), 2);
    store.put(AppTable::Intents, b"i", b"intent".to_vec()).await.expect("put");
    store.close().await.expect("close");
    assert_eq!(store.get(AppTable::Intents, b"i"), Err(StoreError::Closed));

    let store = NodeStore::open(&path, &identity(1)).expect("open");
    let rows = store.restored().expect("rows").rows;
    assert_eq!(rows, vec![Row { table: Table::Channels, key: b"b"[..].into(), value: b"3".to_vec() }]);
    assert_eq!(store.get(AppTable::Intents, b"i").expect("get").as_deref(), Some(&b"intent"[..]));
}

#[tokio::test]
async fn a_second_opener_and_a_foreign_one_are_told() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("store.redb");
    let store = NodeStore::open(&path, &identity(1)).expect("create");
    let error = NodeStore::open(&path, &identity(1)).expect_err("open twice");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    store.close().await.expect("close");
    let error = NodeStore::open(&path, &identity(2)).expect_err("another node");
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::CorruptStore);
}

#[tokio::test]
async fn many_batches_share_a_commit() {
    let dir = tempfile::tempdir().expect("directory");
    let store = NodeStore::open(&dir.path().join("store.redb"), &identity(1)).expect("create");
    let mut ledger = store.ledger();
    const BATCHES: u64 = 2000;
    for number in 1..=BATCHES {
        ledger.submit(number, vec![put(&number.to_be_bytes(), b"value")]);
    }
    assert_eq!(durable(&mut ledger, BATCHES).await.expect("durable"), BATCHES);
    let commits = store.shared().commits();
    assert!(commits < BATCHES / 4, "{commits} commits for {BATCHES} batches");
    assert_eq!(store.restored().expect("rows").rows.len() as u64, BATCHES);
}

#[tokio::test]
async fn what_was_submitted_before_is_durable_once_it_is_settled() {
    let dir = tempfile::tempdir().expect("directory");
    let store = NodeStore::open(&dir.path().join("store.redb"), &identity(1)).expect("create");
    // As on a disk that is quick, where nobody summons the thread for a batch.
    store.shared().set_most_in_place(Duration::MAX);
    let mut ledger = store.ledger();
    for number in 1..=100 {
        ledger.submit(number, vec![put(b"a", b"1")]);
        store.settled().await.expect("settled");
        let told = ledger.poll_durable(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(told, Poll::Ready(Ok(durable)) if durable == number), "{told:?}");
    }
    store.close().await.expect("close");
    assert_eq!(store.settled().await, Err(StoreError::Closed));
}

#[tokio::test]
async fn a_handle_that_goes_leaves_everything_durable() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("store.redb");
    let store = NodeStore::open(&path, &identity(1)).expect("create");
    store.ledger().submit(1, vec![put(b"a", b"1")]);
    drop(store);
    let store = NodeStore::open(&path, &identity(1)).expect("the lock is free");
    assert_eq!(store.restored().expect("rows").rows.len(), 1);
}

/// Whatever happens to the file, opening it is an error or gives rows that were once committed.
#[tokio::test]
async fn a_damaged_file_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("store.redb");
    let store = NodeStore::open(&path, &identity(1)).expect("create");
    let mut ledger = store.ledger();
    for number in 1..=50u64 {
        ledger.submit(number, vec![put(&number.to_be_bytes(), &[number as u8; 300])]);
        durable(&mut ledger, number).await.expect("durable");
    }
    drop(ledger);
    store.close().await.expect("close");
    drop(store);
    let good = std::fs::read(&path).expect("read");

    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let mut errors = 0;
    for round in 0..60 {
        let mut bytes = good.clone();
        if round % 3 == 0 {
            bytes.truncate(rng.random_range(0..bytes.len()));
        } else {
            let start = rng.random_range(0..bytes.len());
            let end = (start + rng.random_range(1..4096)).min(bytes.len());
            rng.fill(&mut bytes[start..end]);
        }
        let copy = dir.path().join(format!("copy-{round}.redb"));
        std::fs::write(&copy, bytes).expect("write");
        match NodeStore::open(&copy, &identity(1)).and_then(|store| store.restored()) {
            Err(error) => {
                errors += 1;
                assert_eq!(error.code(), ErrorCode::CorruptStore, "round {round}: {error}");
                assert!(error.to_string().contains(&copy.display().to_string()), "{error}");
            }
            Ok(restored) => {
                for row in restored.rows {
                    let number = u64::from_be_bytes(row.key[..].try_into().expect("key"));
                    assert_eq!(row.value, [number as u8; 300], "round {round}");
                }
            }
        }
    }
    assert!(errors > 0, "no damage was ever noticed");
}

#[test]
fn a_value_of_another_row_is_noticed() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("store.redb");
    NodeStore::open(&path, &identity(1)).map(drop).expect("create");
    let database = Database::open(&path).expect("open");
    let transaction = database.begin_write().expect("begin");
    {
        let definition = redb::TableDefinition::<&[u8], &[u8]>::new("channels");
        let mut table = transaction.open_table(definition).expect("table");
        table.insert(&b"key"[..], &b"value and no checksum"[..]).expect("insert");
    }
    transaction.commit().expect("commit");
    drop(database);
    let store = NodeStore::open(&path, &identity(1)).expect("pages are sound");
    let error = store.restored().expect_err("the row is not");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// A disk that can be filled up.
#[derive(Debug)]
struct Disk {
    memory: redb::backends::InMemoryBackend,
    full: Arc<AtomicBool>,
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.memory.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.memory.write(offset, data)
    }
}

/// A journal on that disk.
struct Tape {
    memory: std::io::Cursor<Vec<u8>>,
    full: Arc<AtomicBool>,
}

impl std::io::Read for Tape {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.memory.read(out)
    }
}

impl std::io::Seek for Tape {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.memory.seek(to)
    }
}

impl Device for Tape {
    fn write_at(&mut self, place: u64, bytes: &Blocks) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.memory.set_position(place);
        std::io::Write::write_all(&mut self.memory, bytes)
    }
    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn set_len(&mut self, len: u64) -> std::io::Result<()> {
        self.memory.get_mut().truncate(len as usize);
        Ok(())
    }
    fn read_mark(&mut self) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn write_mark(&mut self, _: &[u8; 64]) -> std::io::Result<()> {
        Ok(())
    }
}

fn store_in_memory(full: Arc<AtomicBool>) -> NodeStore {
    let disk = Disk { memory: redb::backends::InMemoryBackend::new(), full: full.clone() };
    let database = Database::builder().create_with_backend(disk).expect("create");
    let row = IdentityRow { format: FORMAT, identity: identity(1) };
    rows::initialise(&database, IDENTITY_KEY, &borsh::to_vec(&row).expect("borsh")).expect("initialise");
    let journal = Box::new(Tape { memory: std::io::Cursor::default(), full });
    NodeStore::start(Path::new("full.redb"), database, None, journal).expect("start")
}

#[tokio::test]
async fn a_full_disk_is_final_and_names_itself() {
    let full = Arc::new(AtomicBool::new(false));
    let store = store_in_memory(full.clone());
    let mut ledger = store.ledger();
    ledger.submit(1, vec![put(b"a", b"1")]);
    assert_eq!(durable(&mut ledger, 1).await.expect("durable"), 1);
    full.store(true, Ordering::SeqCst);
    ledger.submit(2, vec![put(b"b", b"2")]);
    let error = durable(&mut ledger, 2).await.expect_err("the disk is full");
    let error =
        error.source.and_then(|cause| cause.downcast::<StoreError>().ok()).expect("the store's error");
    assert_eq!(*error, StoreError::DiskFull { path: "full.journal".into() });
    assert_eq!(error.code().exit_code(), 9);
    full.store(false, Ordering::SeqCst);
    // Nothing is written after a failure: batches must not be skipped.
    let late = store.put(AppTable::Intents, b"i", b"late".to_vec()).await;
    assert!(late.is_err());
}

/// What the store says at once.
fn told(ledger: &mut LedgerStore) -> Poll<u64> {
    let told = ledger.poll_durable(&mut Context::from_waker(Waker::noop()));
    told.map(|durable| durable.expect("the disk works"))
}

/// To wake the thread, and to be woken by it, can take half as long as the sync.
#[tokio::test]
async fn a_small_batch_is_durable_when_it_is_asked_for() {
    let store = store_in_memory(Arc::default());
    store.shared().set_most_in_place(Duration::MAX);
    let mut ledger = store.ledger();
    for number in 1..=50u64 {
        ledger.submit(2 * number - 1, vec![put(&number.to_be_bytes(), &[1; 300])]);
        ledger.submit(2 * number, vec![put(&number.to_be_bytes(), &[2; 300])]);
        assert_eq!(told(&mut ledger), Poll::Ready(2 * number));
        assert!(told(&mut ledger).is_pending());
    }
    // Whoever writes something that may rely on a batch finds it written.
    ledger.submit(101, vec![put(b"a", b"1")]);
    store.put(AppTable::Intents, b"i", b"intent".to_vec()).await.expect("put");
    assert_eq!(told(&mut ledger), Poll::Ready(101));
    ledger.submit(102, vec![put(b"a", b"2")]);
    store.close().await.expect("close");
    assert_eq!(told(&mut ledger), Poll::Ready(102), "one that nobody asked for");
}

/// A task must not keep its executor's thread for long.
#[tokio::test]
async fn a_large_batch_and_a_slow_disk_are_for_the_thread() {
    let store = store_in_memory(Arc::default());
    let mut ledger = store.ledger();
    for (number, most, size) in [(1, Duration::MAX, 100 << 10), (2, Duration::ZERO, 1)] {
        store.shared().set_most_in_place(most);
        ledger.submit(number, vec![put(b"a", &vec![7; size])]);
        let by_itself = async {
            while store.shared().commits() < number {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), by_itself).await.expect("nobody asked for it");
        assert_eq!(told(&mut ledger), Poll::Ready(number));
    }
}
