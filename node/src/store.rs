//! The node's store: one redb database per home, and the journal of what came after it.
//!
//! All writes go through one ledger thread that commits in groups: it drains everything that was
//! submitted while the last commit was under way into one durable group. So a busy node pays one
//! disk sync for many messages, and an idle one waits for no timer (protocol section 3,
//! "Durability"). Groups of the ledger go into the journal, and what is left of them into the
//! database every `books::CHECKPOINT_BYTES`; the node's own tables are written at once.
//!
//! Every row carries a checksum over its table, key and value, besides redb's own page checksums:
//! a flipped bit is an error at start, never a wrong balance.

mod books;
mod error;
mod intents;
mod journal;
mod ledger;
mod memory;
mod rows;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use borsh::{BorshDeserialize, BorshSerialize};
use parking_lot::Mutex;
use por_core::Restored;
use por_types::{Network, NodeKey};
use redb::Database;

pub use error::StoreError;
pub use ledger::LedgerStore;
pub use rows::AppTable;

use books::{Books, JournalRow, journal_head};
use journal::{Device, Files};
use ledger::Shared;
use rows::{KeyValue, StoreTable};

/// Version of the layout of the database and its journal.
const FORMAT: u32 = 3;
/// Differs in its journal's groups alone, which are read. It becomes the present one when it is opened, so
/// that no program takes a journal that it cannot read for an empty one.
const FORMAT_OF_SMALL_BLOCKS: u32 = 2;
const IDENTITY_KEY: &[u8] = b"identity";
/// Pages kept in memory.
const CACHE_BYTES: usize = 64 << 20;

/// Whose store it is. Written at creation, checked at every start: rows of another node or
/// network must never be taken for one's own.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StoreIdentity {
    pub network: Network,
    pub node_key: NodeKey,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct IdentityRow {
    format: u32,
    identity: StoreIdentity,
}

/// Handle of the open store; cheap to clone. The database is closed, after everything queued is
/// durable, by [`NodeStore::close`] or when the last handle goes.
#[derive(Clone)]
pub struct NodeStore {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for NodeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeStore").field("path", &self.handle.shared.path).finish_non_exhaustive()
    }
}

impl NodeStore {
    /// Opens the store at `path`, or creates it where there is none.
    ///
    /// Errors: [`StoreError::Damaged`], also for a journal whose database is missing, [`StoreError::Foreign`], [`StoreError::InUse`] if another
    /// process has it open, [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn open(path: &Path, identity: &StoreIdentity) -> Result<NodeStore, StoreError> {
        if !is_there(path)? {
            if let Some(left) = journal::left_behind(path)? {
                let cause = format!(
                    "it is missing, and {} is here; if it is lost for good, move the journal and the mark away",
                    left.display()
                );
                return Err(StoreError::damaged(path, cause));
            }
            create(path, identity)?;
        }
        let database = guarded(path, || open_checked(path))??;
        guarded(path, || check_identity(path, &database, identity))??;
        let head = guarded(path, || journal_head(&database))?.map_err(|error| error.at(path))?;
        // One that was closed needs no journal; so a copy of its database alone will do.
        let journal = Files::open(path, head.is_none_or(|head| head.closed))?;
        NodeStore::start(path, database, head, Box::new(journal))
    }

    fn start(
        path: &Path,
        database: Database,
        head: Option<JournalRow>,
        device: Box<dyn Device>,
    ) -> Result<NodeStore, StoreError> {
        let books = guarded(path, || Books::open(path, &database, head, device))??;
        let shared = Arc::new(Shared::new(path.to_owned(), database, books));
        let thread = ledger::spawn(shared.clone()).map_err(|error| StoreError::io(path, &error))?;
        Ok(NodeStore { handle: Arc::new(Handle { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// The part of the store that the protocol driver writes to.
    pub fn ledger(&self) -> LedgerStore {
        LedgerStore::new(self.clone())
    }

    /// All rows of the ledger's tables.
    pub fn restored(&self) -> Result<Restored, StoreError> {
        self.shared().restored()
    }

    /// Value of a row of the node's own tables.
    pub fn get(&self, table: AppTable, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared().read(|db| rows::get(db, StoreTable::App(table), key))
    }

    /// All rows of one of the node's own tables, in key order.
    pub fn list(&self, table: AppTable) -> Result<Vec<KeyValue>, StoreError> {
        self.shared().read(|db| rows::list(db, StoreTable::App(table)))
    }

    /// Writes a row; resolves when it is durable.
    pub async fn put(&self, table: AppTable, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.shared().write_app(table, key.to_vec(), Some(value)).await
    }

    /// Removes a row; resolves when that is durable.
    pub async fn delete(&self, table: AppTable, key: &[u8]) -> Result<(), StoreError> {
        self.shared().write_app(table, key.to_vec(), None).await
    }

    /// Resolves when everything that was submitted before is durable.
    pub async fn settled(&self) -> Result<(), StoreError> {
        self.shared().settled().await
    }

    /// Commits everything queued and closes the file. Later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        let handle = self.handle.clone();
        let closed = tokio::task::spawn_blocking(move || handle.close()).await;
        closed.map_err(|_| StoreError::Closed)?
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl Handle {
    fn close(&self) -> Result<(), StoreError> {
        self.shared.begin_close();
        if let Some(thread) = self.thread.lock().take() {
            // The thread catches its panics; a failed join has nothing to add to `failure`.
            let _ = thread.join();
        }
        self.shared.drop_database();
        self.shared.failure().map_or(Ok(()), Err)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was closed after a failure");
        }
    }
}

/// Runs `f`, turning a panic of the database (it asserts on some damages) into an error.
fn guarded<T>(path: &Path, f: impl FnOnce() -> T) -> Result<T, StoreError> {
    std::panic::catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let cause = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_else(|| "inconsistent pages".to_owned());
        StoreError::damaged(path, cause)
    })
}

/// A link counts though it leads nowhere: the disk with the store may not be mounted yet.
fn is_there(path: &Path) -> Result<bool, StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(path, &error)),
    }
}

fn open_checked(path: &Path) -> Result<Database, StoreError> {
    // redb takes an empty file for a new database; here it is a lost one.
    let length = std::fs::metadata(path).map_err(|error| StoreError::io(path, &error))?.len();
    if length == 0 {
        return Err(StoreError::damaged(path, "the file is empty"));
    }
    let mut database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .open(path)
        .map_err(|error| StoreError::from_redb(path, error.into()))?;
    let sound = database.check_integrity().map_err(|error| StoreError::from_redb(path, error.into()))?;
    if !sound {
        tracing::warn!(path = %path.display(), "the store was not closed cleanly and was repaired");
    }
    Ok(database)
}

/// Creates the database beside its place and moves it there once the identity is durable, so that
/// a crash leaves either no store or a whole one.
fn create(path: &Path, identity: &StoreIdentity) -> Result<(), StoreError> {
    let io = |error: std::io::Error| StoreError::io(path, &error);
    let directory = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    std::fs::create_dir_all(&directory).map_err(io)?;
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    {
        let database = Database::create(&new).map_err(|error| StoreError::from_redb(path, error.into()))?;
        write_identity(path, &database, identity)?;
    }
    restrict(&new).map_err(io)?;
    std::fs::rename(&new, path).map_err(io)?;
    std::fs::File::open(&directory).and_then(|d| d.sync_all()).map_err(io)
}

fn write_identity(path: &Path, database: &Database, identity: &StoreIdentity) -> Result<(), StoreError> {
    let row = IdentityRow { format: FORMAT, identity: identity.clone() };
    let bytes = borsh::to_vec(&row).map_err(|error| StoreError::io(path, &error))?;
    rows::initialise(database, IDENTITY_KEY, &bytes).map_err(|error| StoreError::from_redb(path, error))
}

#[cfg(unix)]
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn restrict(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

fn check_identity(path: &Path, database: &Database, expected: &StoreIdentity) -> Result<(), StoreError> {
    let table = StoreTable::App(AppTable::Metadata);
    let bytes = rows::get(database, table, IDENTITY_KEY)
        .map_err(|error| error.at(path))?
        .ok_or_else(|| StoreError::damaged(path, "it does not say whose it is"))?;
    let row: IdentityRow = borsh::from_slice(&bytes)
        .map_err(|_| StoreError::foreign(path, "it was written by another version"))?;
    if ![FORMAT, FORMAT_OF_SMALL_BLOCKS].contains(&row.format) {
        return Err(StoreError::foreign(path, format!("its format is {}, not {FORMAT}", row.format)));
    }
    let StoreIdentity { network, node_key } = row.identity;
    if node_key != expected.node_key {
        return Err(StoreError::foreign(path, format!("it belongs to node {node_key}")));
    }
    if network != expected.network {
        let Network { chain_id, contract } = network;
        return Err(StoreError::foreign(path, format!("it belongs to {contract} on {chain_id}")));
    }
    if row.format == FORMAT { Ok(()) } else { write_identity(path, database, expected) }
}
