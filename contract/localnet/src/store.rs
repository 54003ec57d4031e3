//! What the chain keeps: blocks, transactions, outcomes, receipts, and the state.
//!
//! One transaction of the database for each block, so that a chain that was stopped
//! at any moment continues with a whole block.

use std::path::Path;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::Receipt;
use near_primitives::transaction::{ExecutionOutcomeWithIdAndProof, SignedTransaction};
use near_primitives::types::BlockHeight;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use crate::chain::Block;
use crate::error::{Error, Result};
use crate::state::Change;

type Hash = [u8; 32];

const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
/// Heights by hashes of blocks and of their chunks.
const HEIGHTS: TableDefinition<'_, Hash, u64> = TableDefinition::new("heights");
const TRANSACTIONS: TableDefinition<'_, Hash, &[u8]> = TableDefinition::new("transactions");
const OUTCOMES: TableDefinition<'_, Hash, &[u8]> = TableDefinition::new("outcomes");
const RECEIPTS: TableDefinition<'_, Hash, &[u8]> = TableDefinition::new("receipts");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The version of the tables.
const FORMAT: u32 = 1;

/// An outcome and the height of its block.
#[derive(BorshSerialize, BorshDeserialize, Clone)]
pub(crate) struct StoredOutcome {
    pub(crate) height: BlockHeight,
    pub(crate) outcome: ExecutionOutcomeWithIdAndProof,
}

/// What one block adds.
pub(crate) struct Commit<'a> {
    pub(crate) block: &'a Block,
    pub(crate) transactions: &'a [SignedTransaction],
    pub(crate) outcomes: &'a [StoredOutcome],
    pub(crate) receipts: &'a [Receipt],
    pub(crate) changes: &'a [Change],
    /// Nanoseconds by which the chain's clock runs ahead.
    pub(crate) clock_offset: u64,
    /// Blocks with a lower ordinal are forgotten.
    pub(crate) keep_from: u64,
}

/// The chain as it was when it stopped.
pub(crate) struct Resumed {
    pub(crate) head: Block,
    pub(crate) clock_offset: u64,
    pub(crate) state: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The database: cheap to share.
#[derive(Clone)]
pub(crate) struct Store {
    database: Arc<Database>,
    durable: bool,
}

fn decode<T: BorshDeserialize>(bytes: &[u8]) -> Result<T> {
    T::try_from_slice(bytes).map_err(Error::store)
}

fn encode<T: BorshSerialize>(value: &T) -> Result<Vec<u8>> {
    borsh::to_vec(value).map_err(Error::store)
}

impl Store {
    /// Opens or creates the database in `path`, or one in memory.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let database = match path {
            Some(path) => Database::create(path)
                .map_err(|error| Error::Malformed { path: path.to_owned(), reason: error.to_string() })?,
            None => Database::builder()
                .create_with_backend(redb::backends::InMemoryBackend::new())
                .map_err(Error::store)?,
        };
        let store = Self { database: Arc::new(database), durable: path.is_some() };
        store.create_tables()?;
        Ok(store)
    }

    fn create_tables(&self) -> Result<()> {
        let write = self.database.begin_write().map_err(Error::store)?;
        {
            write.open_table(BLOCKS).map_err(Error::store)?;
            for table in [TRANSACTIONS, OUTCOMES, RECEIPTS] {
                write.open_table(table).map_err(Error::store)?;
            }
            write.open_table(HEIGHTS).map_err(Error::store)?;
            write.open_table(STATE).map_err(Error::store)?;
            let mut meta = write.open_table(META).map_err(Error::store)?;
            let found = meta.get("format").map_err(Error::store)?.map(|v| v.value().to_vec());
            match found {
                None => {
                    let format = FORMAT.to_le_bytes();
                    meta.insert("format", format.as_slice()).map_err(Error::store)?;
                }
                Some(found) if found == FORMAT.to_le_bytes() => {}
                Some(_) => {
                    let reason = "it was written by another version: choose another home";
                    return Err(Error::Store(reason.to_owned()));
                }
            }
        }
        write.commit().map_err(Error::store)
    }

    /// Adds a block with everything it did.
    pub(crate) fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        let write = self.database.begin_write().map_err(Error::store)?;
        {
            let block = commit.block;
            let mut blocks = write.open_table(BLOCKS).map_err(Error::store)?;
            insert_block(&mut blocks, block)?;
            let mut heights = write.open_table(HEIGHTS).map_err(Error::store)?;
            for hash in [block.hash, block.chunk_hash()] {
                heights.insert(hash.0, block.height).map_err(Error::store)?;
            }
            let mut transactions = write.open_table(TRANSACTIONS).map_err(Error::store)?;
            for transaction in commit.transactions {
                insert(&mut transactions, transaction.get_hash(), transaction)?;
            }
            let mut outcomes = write.open_table(OUTCOMES).map_err(Error::store)?;
            for outcome in commit.outcomes {
                insert(&mut outcomes, *outcome.outcome.id(), outcome)?;
            }
            let mut receipts = write.open_table(RECEIPTS).map_err(Error::store)?;
            for receipt in commit.receipts {
                insert(&mut receipts, *receipt.receipt_id(), receipt)?;
            }
            for old in outdated(&blocks, commit.keep_from)? {
                blocks.remove(old.height).map_err(Error::store)?;
                for hash in [old.hash, old.chunk_hash()] {
                    heights.remove(hash.0).map_err(Error::store)?;
                }
                for hash in &old.transactions {
                    transactions.remove(hash.0).map_err(Error::store)?;
                }
                for hash in &old.outcomes {
                    outcomes.remove(hash.0).map_err(Error::store)?;
                }
                for hash in &old.receipts {
                    receipts.remove(hash.0).map_err(Error::store)?;
                }
            }
            if self.durable {
                let mut state = write.open_table(STATE).map_err(Error::store)?;
                apply_changes(&mut state, commit.changes)?;
            }
            let mut meta = write.open_table(META).map_err(Error::store)?;
            let head = block.height.to_le_bytes();
            meta.insert("head", head.as_slice()).map_err(Error::store)?;
            let offset = commit.clock_offset.to_le_bytes();
            meta.insert("clock offset", offset.as_slice()).map_err(Error::store)?;
        }
        write.commit().map_err(Error::store)
    }

    /// The chain to continue, if there is one.
    pub(crate) fn resume(&self) -> Result<Option<Resumed>> {
        let read = self.database.begin_read().map_err(Error::store)?;
        let meta = read.open_table(META).map_err(Error::store)?;
        let number = |name: &str| -> Result<Option<u64>> {
            let Some(value) = meta.get(name).map_err(Error::store)? else {
                return Ok(None);
            };
            let bytes = value.value().try_into().map_err(Error::store)?;
            Ok(Some(u64::from_le_bytes(bytes)))
        };
        let Some(height) = number("head")? else {
            return Ok(None);
        };
        let clock_offset = number("clock offset")?.unwrap_or(0);
        let head =
            self.block(height)?.ok_or_else(|| Error::Store("its latest block is missing".to_owned()))?;
        let table = read.open_table(STATE).map_err(Error::store)?;
        let mut state = Vec::new();
        for entry in table.iter().map_err(Error::store)? {
            let (key, value) = entry.map_err(Error::store)?;
            state.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(Some(Resumed { head, clock_offset, state }))
    }

    pub(crate) fn block(&self, height: BlockHeight) -> Result<Option<Block>> {
        let read = self.database.begin_read().map_err(Error::store)?;
        let table = read.open_table(BLOCKS).map_err(Error::store)?;
        let Some(found) = table.get(height).map_err(Error::store)? else {
            return Ok(None);
        };
        decode(found.value()).map(Some)
    }

    /// The oldest block that is still known.
    pub(crate) fn first_block(&self) -> Result<Option<Block>> {
        let read = self.database.begin_read().map_err(Error::store)?;
        let table = read.open_table(BLOCKS).map_err(Error::store)?;
        let Some((_, found)) = table.first().map_err(Error::store)? else {
            return Ok(None);
        };
        decode(found.value()).map(Some)
    }

    /// The height of a block, by its hash or that of its chunk.
    pub(crate) fn height_of(&self, hash: &CryptoHash) -> Result<Option<BlockHeight>> {
        let read = self.database.begin_read().map_err(Error::store)?;
        let table = read.open_table(HEIGHTS).map_err(Error::store)?;
        Ok(table.get(hash.0).map_err(Error::store)?.map(|height| height.value()))
    }

    fn lookup<T: BorshDeserialize>(
        &self,
        table: TableDefinition<'_, Hash, &'static [u8]>,
        hash: &CryptoHash,
    ) -> Result<Option<T>> {
        let read = self.database.begin_read().map_err(Error::store)?;
        let table = read.open_table(table).map_err(Error::store)?;
        let Some(found) = table.get(hash.0).map_err(Error::store)? else {
            return Ok(None);
        };
        decode(found.value()).map(Some)
    }

    pub(crate) fn transaction(&self, hash: &CryptoHash) -> Result<Option<SignedTransaction>> {
        self.lookup(TRANSACTIONS, hash)
    }

    pub(crate) fn outcome(&self, id: &CryptoHash) -> Result<Option<StoredOutcome>> {
        self.lookup(OUTCOMES, id)
    }

    pub(crate) fn receipt(&self, id: &CryptoHash) -> Result<Option<Receipt>> {
        self.lookup(RECEIPTS, id)
    }
}

fn insert<T: BorshSerialize>(
    table: &mut Table<'_, Hash, &'static [u8]>,
    key: CryptoHash,
    value: &T,
) -> Result<()> {
    let bytes = encode(value)?;
    table.insert(key.0, bytes.as_slice()).map_err(Error::store)?;
    Ok(())
}

fn insert_block(table: &mut Table<'_, u64, &'static [u8]>, block: &Block) -> Result<()> {
    let bytes = encode(block)?;
    table.insert(block.height, bytes.as_slice()).map_err(Error::store)?;
    Ok(())
}

/// Blocks to forget, a few at a time. By their ordinals: after a leap in time heights say nothing of how many
/// blocks there were since.
fn outdated(table: &Table<'_, u64, &'static [u8]>, keep_from: u64) -> Result<Vec<Block>> {
    const AT_ONCE: usize = 16;
    let mut old = Vec::new();
    for entry in table.iter().map_err(Error::store)?.take(AT_ONCE) {
        let (_, block) = entry.map_err(Error::store)?;
        let block: Block = decode(block.value())?;
        if block.ordinal >= keep_from {
            break;
        }
        old.push(block);
    }
    Ok(old)
}

fn apply_changes(table: &mut Table<'_, &'static [u8], &'static [u8]>, changes: &[Change]) -> Result<()> {
    for (key, value) in changes {
        match value {
            Some(value) => {
                table.insert(key.as_ref(), value.as_ref()).map_err(Error::store)?;
            }
            None => {
                table.remove(key.as_ref()).map_err(Error::store)?;
            }
        }
    }
    Ok(())
}
