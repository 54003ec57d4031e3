//! The tower's store: everything it guards, in one redb database, durable before it is acknowledged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::{ChannelId, Network, NodeKey, Side};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::tower::{Ends, Guarded};

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("guarded");
/// Version of the layout.
const FORMAT: u32 = 1;
const CHECKSUM: usize = 8;
const CACHE_BYTES: usize = 8 << 20;

/// First byte of the keys.
const META: u8 = 0;
const ENDS: u8 = 1;
const STATE: u8 = 2;
const OWN: u8 = 3;
const ORDER: u8 = 4;

/// Why the tower's store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchStoreError {
    #[error("{path}: {cause}")]
    Database { path: PathBuf, cause: String },
    #[error("no space left for {path}")]
    Full { path: PathBuf },
    #[error("{path} is damaged: {cause}")]
    Damaged { path: PathBuf, cause: String },
    #[error("{path} belongs to another network or version")]
    Foreign { path: PathBuf },
}

#[derive(PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Meta {
    format: u32,
    network: Network,
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The open store. Blocks; for a thread that may.
pub(super) struct WatchStore {
    path: PathBuf,
    database: Database,
    /// As committed.
    rows: Rows,
}

impl WatchStore {
    /// Opens the store at `path`, or makes one.
    pub fn open(path: &Path, network: &Network) -> Result<(WatchStore, Guarded), WatchStoreError> {
        let foreign = || WatchStoreError::Foreign { path: path.to_owned() };
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| failed(path, error.into()))?;
        let rows = read(&database, path)?;
        let mut store = WatchStore { path: path.to_owned(), database, rows };
        let meta = Meta { format: FORMAT, network: network.clone() };
        match store.rows.get([META].as_slice()) {
            Some(found) if Meta::try_from_slice(found).is_ok_and(|found| found == meta) => {}
            Some(_) => return Err(foreign()),
            None if store.rows.is_empty() => store.replace(Rows::from([(vec![META], bytes(&meta))]))?,
            None => return Err(foreign()),
        }
        let guarded = decode(&store.rows).map_err(|cause| damaged(path, cause))?;
        Ok((store, guarded))
    }

    /// Makes the store hold exactly this; durable when it returns.
    pub fn save(&mut self, guarded: &Guarded) -> Result<(), WatchStoreError> {
        let mut rows = encode(guarded);
        if let Some(meta) = self.rows.get([META].as_slice()) {
            rows.insert(vec![META], meta.clone());
        }
        self.replace(rows)
    }

    fn replace(&mut self, rows: Rows) -> Result<(), WatchStoreError> {
        let changed: Vec<_> = rows.iter().filter(|(key, value)| self.rows.get(*key) != Some(value)).collect();
        let gone: Vec<_> = self.rows.keys().filter(|key| !rows.contains_key(*key)).collect();
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        write(&self.database, &changed, &gone).map_err(|error| failed(&self.path, error))?;
        self.rows = rows;
        Ok(())
    }
}

pub(super) fn failed(path: &Path, error: redb::Error) -> WatchStoreError {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) => {
            WatchStoreError::Full { path: path.to_owned() }
        }
        other => WatchStoreError::Database { path: path.to_owned(), cause: other.to_string() },
    }
}

fn damaged(path: &Path, cause: &str) -> WatchStoreError {
    WatchStoreError::Damaged { path: path.to_owned(), cause: cause.to_owned() }
}

fn write(
    database: &Database,
    changed: &[(&Vec<u8>, &Vec<u8>)],
    gone: &[&Vec<u8>],
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in changed {
            let mut stored = (*value).clone();
            stored.extend_from_slice(&checksum(key, value));
            table.insert(key.as_slice(), stored.as_slice())?;
        }
        for key in gone {
            table.remove(key.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database, path: &Path) -> Result<Rows, WatchStoreError> {
    let stored = || -> Result<Vec<(Vec<u8>, Vec<u8>)>, redb::Error> {
        let transaction = database.begin_read()?;
        let table = match transaction.open_table(TABLE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(rows)
    };
    let mut rows = Rows::new();
    for (key, mut value) in stored().map_err(|error| failed(path, error))? {
        let sum = value.split_off(value.len().saturating_sub(CHECKSUM));
        if sum != checksum(&key, &value) {
            return Err(damaged(path, "a row does not match its checksum"));
        }
        rows.insert(key, value);
    }
    Ok(rows)
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    sum
}

/// Borsh into memory cannot fail for these types.
fn bytes<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).unwrap_or_default()
}

fn key(kind: u8, channel: ChannelId, side: Option<Side>) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&channel.0.to_be_bytes());
    key.extend(side.map(|side| match side {
        Side::A => 0,
        Side::B => 1,
    }));
    key
}

fn encode(guarded: &Guarded) -> Rows {
    let mut rows = Rows::new();
    for (channel, ends) in &guarded.ends {
        rows.insert(key(ENDS, *channel, None), bytes(&(ends.a, ends.b)));
    }
    for (kind, states) in [(STATE, &guarded.states), (OWN, &guarded.own)] {
        for ((channel, side), state) in states {
            rows.insert(key(kind, *channel, Some(*side)), bytes(state));
        }
    }
    for (channel, order) in &guarded.orders {
        rows.insert(key(ORDER, *channel, None), bytes(order));
    }
    rows
}

fn decode(rows: &Rows) -> Result<Guarded, &'static str> {
    fn value<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, &'static str> {
        T::try_from_slice(bytes).map_err(|_| "a row that cannot be read")
    }
    let mut guarded = Guarded::default();
    for (key, bytes) in rows {
        let (kind, rest) = key.split_first().ok_or("a row without a key")?;
        if *kind == META {
            continue;
        }
        let (id, side) = rest.split_at_checked(8).ok_or("a key that is too short")?;
        let id = ChannelId(u64::from_be_bytes(id.try_into().map_err(|_| "a key")?));
        let side = match side {
            [0] => Some(Side::A),
            [1] => Some(Side::B),
            [] => None,
            _ => return Err("a side that does not exist"),
        };
        match (*kind, side) {
            (ENDS, None) => {
                let (a, b) = value::<(NodeKey, NodeKey)>(bytes)?;
                guarded.ends.insert(id, Ends { a, b });
            }
            (STATE, Some(side)) => drop(guarded.states.insert((id, side), value(bytes)?)),
            (OWN, Some(side)) => drop(guarded.own.insert((id, side), value(bytes)?)),
            (ORDER, None) => drop(guarded.orders.insert(id, value(bytes)?)),
            _ => return Err("a row of an unknown kind"),
        }
    }
    Ok(guarded)
}
