//! Blocks, and how NEAR's RPC shows them.

use borsh::{BorshDeserialize, BorshSerialize};
use near_crypto::{SecretKey, Signature};
use near_primitives::hash::CryptoHash;
use near_primitives::merkle::merklize;
use near_primitives::types::{AccountId, Balance, BlockHeight, Gas, ShardId};
use near_primitives::version::PROTOCOL_VERSION;
use near_primitives::views::{BlockHeaderView, BlockView, ChunkHeaderView};

/// Blocks that follow before a block is final.
pub(crate) const FINALITY: BlockHeight = 2;

/// A block of the chain.
#[derive(BorshSerialize, BorshDeserialize, Clone, Debug)]
pub(crate) struct Block {
    pub(crate) height: BlockHeight,
    pub(crate) hash: CryptoHash,
    pub(crate) prev_height: Option<BlockHeight>,
    pub(crate) prev_hash: CryptoHash,
    /// How many blocks came before.
    pub(crate) ordinal: u64,
    /// Nanoseconds since 1970.
    pub(crate) timestamp: u64,
    pub(crate) epoch_height: u64,
    pub(crate) random_value: CryptoHash,
    pub(crate) gas_price: Balance,
    pub(crate) gas_used: Gas,
    pub(crate) gas_limit: Gas,
    pub(crate) burnt: Balance,
    pub(crate) total_supply: Balance,
    /// A digest of the state before the block.
    pub(crate) prev_state_root: CryptoHash,
    /// A digest of the state after the block: not a Merkle root.
    pub(crate) state_root: CryptoHash,
    pub(crate) outcome_root: CryptoHash,
    /// The block that this one makes final.
    pub(crate) last_final: CryptoHash,
    pub(crate) last_final_height: BlockHeight,
    pub(crate) transactions: Vec<CryptoHash>,
    pub(crate) receipts: Vec<CryptoHash>,
    pub(crate) outcomes: Vec<CryptoHash>,
}

/// Who makes the blocks.
#[derive(Clone)]
pub(crate) struct Producer {
    pub(crate) account_id: AccountId,
    pub(crate) secret_key: SecretKey,
}

impl Block {
    /// Sets the hash, which covers all else.
    pub(crate) fn seal(mut self) -> Self {
        self.hash = CryptoHash::default();
        self.hash = CryptoHash::hash_borsh(&self);
        self
    }

    pub(crate) fn chunk_hash(&self) -> CryptoHash {
        CryptoHash::hash_borsh((b"chunk".as_slice(), self.hash))
    }

    /// The id of an epoch of this chain.
    fn epoch_id(chain_id: &str, epoch: u64) -> CryptoHash {
        CryptoHash::hash_borsh((b"epoch".as_slice(), chain_id, epoch))
    }

    pub(crate) fn current_epoch_id(&self, chain_id: &str) -> CryptoHash {
        Self::epoch_id(chain_id, self.epoch_height)
    }

    pub(crate) fn view(&self, chain_id: &str, producer: &Producer) -> BlockView {
        BlockView {
            author: producer.account_id.clone(),
            header: self.header_view(chain_id, producer),
            chunks: vec![self.chunk_view(producer)],
        }
    }

    fn header_view(&self, chain_id: &str, producer: &Producer) -> BlockHeaderView {
        BlockHeaderView {
            height: self.height,
            prev_height: self.prev_height,
            epoch_id: self.current_epoch_id(chain_id),
            next_epoch_id: Self::epoch_id(chain_id, self.epoch_height + 1),
            hash: self.hash,
            prev_hash: self.prev_hash,
            prev_state_root: self.prev_state_root,
            block_body_hash: None,
            chunk_receipts_root: merklize(&self.receipts).0,
            chunk_headers_root: self.chunk_hash(),
            chunk_tx_root: merklize(&self.transactions).0,
            outcome_root: self.outcome_root,
            chunks_included: 1,
            challenges_root: CryptoHash::default(),
            timestamp: self.timestamp,
            timestamp_nanosec: self.timestamp,
            random_value: self.random_value,
            validator_proposals: Vec::new(),
            chunk_mask: vec![true],
            gas_price: self.gas_price,
            block_ordinal: Some(self.ordinal),
            rent_paid: Balance::ZERO,
            validator_reward: Balance::ZERO,
            total_supply: self.total_supply,
            challenges_result: Vec::new(),
            last_final_block: self.last_final,
            last_ds_final_block: self.prev_hash,
            next_bp_hash: CryptoHash::hash_borsh(producer.account_id.as_str()),
            block_merkle_root: CryptoHash::default(),
            epoch_sync_data_hash: None,
            approvals: Vec::new(),
            signature: self.sign(producer),
            latest_protocol_version: PROTOCOL_VERSION,
            chunk_endorsements: None,
            shard_split: None,
            prev_last_certified_block_epoch_id: None,
            spice_chunk_endorsement_stats: None,
            chunk_execution_root: None,
        }
    }

    /// The header of the block's only chunk.
    pub(crate) fn chunk_view(&self, producer: &Producer) -> ChunkHeaderView {
        ChunkHeaderView {
            chunk_hash: self.chunk_hash(),
            prev_block_hash: self.prev_hash,
            outcome_root: self.outcome_root,
            prev_state_root: self.prev_state_root,
            encoded_merkle_root: CryptoHash::default(),
            encoded_length: 0,
            height_created: self.height,
            height_included: self.height,
            shard_id: ShardId::new(0),
            gas_used: self.gas_used,
            gas_limit: self.gas_limit,
            rent_paid: Balance::ZERO,
            validator_reward: Balance::ZERO,
            balance_burnt: self.burnt,
            outgoing_receipts_root: merklize(&self.receipts).0,
            tx_root: merklize(&self.transactions).0,
            validator_proposals: Vec::new(),
            congestion_info: None,
            bandwidth_requests: None,
            proposed_split: None,
            signature: self.sign(producer),
        }
    }

    fn sign(&self, producer: &Producer) -> Signature {
        producer.secret_key.sign(self.hash.as_ref())
    }
}
