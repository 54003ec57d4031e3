//! Blocks, chunks and receipts.

use near_jsonrpc_primitives::errors::RpcError;
use near_jsonrpc_primitives::types::blocks::{RpcBlockError, RpcBlockRequest};
use near_jsonrpc_primitives::types::chunks::{ChunkReference, RpcChunkError};
use near_jsonrpc_primitives::types::receipts::{ReceiptReference, RpcReceiptError};
use near_primitives::sharding::ChunkHash;
use near_primitives::types::{BlockId, BlockReference, Finality, ShardId, SyncCheckpoint};
use near_primitives::views::{ChunkView, ReceiptView, SignedTransactionView};
use serde_json::Value;

use super::{Answer, Node, internal, parse, to_value};
use crate::chain::{Block, FINALITY};
use crate::error::Result;

impl Node {
    /// The height a reference means, if such a block exists.
    pub(super) fn resolve(&self, reference: &BlockReference) -> Result<Option<u64>> {
        let behind = |blocks| Ok(Some(self.shared.behind_head(blocks)?.block.height));
        match reference {
            BlockReference::Finality(Finality::None) => behind(0),
            BlockReference::Finality(Finality::DoomSlug) => behind(FINALITY - 1),
            BlockReference::Finality(Finality::Final) => behind(FINALITY),
            BlockReference::BlockId(BlockId::Height(height)) => Ok(Some(*height)),
            BlockReference::BlockId(BlockId::Hash(hash)) => self.shared.store.height_of(hash),
            BlockReference::SyncCheckpoint(SyncCheckpoint::Genesis) => {
                Ok(Some(self.shared.rules.genesis_height))
            }
            BlockReference::SyncCheckpoint(SyncCheckpoint::EarliestAvailable) => {
                Ok(self.shared.store.first_block()?.map(|block| block.height))
            }
        }
    }

    fn find_block(&self, reference: &BlockReference) -> Result<Option<Block>> {
        match self.resolve(reference)? {
            Some(height) => self.shared.store.block(height),
            None => Ok(None),
        }
    }
}

pub(super) fn block(node: &Node, params: Value) -> Answer {
    let request: RpcBlockRequest = match params {
        // The old form: one height or hash.
        Value::Array(mut list) if list.len() == 1 => {
            let id: BlockId = parse(list.swap_remove(0))?;
            RpcBlockRequest { block_reference: BlockReference::BlockId(id) }
        }
        params => parse(params)?,
    };
    let found = node.find_block(&request.block_reference).map_err(internal)?;
    let block = found.ok_or_else(|| {
        let error_message = format!("{:?}", request.block_reference);
        RpcError::from(RpcBlockError::UnknownBlock { error_message })
    })?;
    let rules = &node.shared.rules;
    to_value(&block.view(&rules.chain_id, &rules.producer))
}

pub(super) fn chunk(node: &Node, params: Value) -> Answer {
    let reference: ChunkReference = match params {
        Value::Array(mut list) if list.len() == 1 => {
            ChunkReference::ChunkHash { chunk_id: parse(list.swap_remove(0))? }
        }
        params => parse(params)?,
    };
    let block = match reference {
        ChunkReference::BlockShardId { block_id, shard_id } => {
            if shard_id != ShardId::new(0) {
                return Err(RpcChunkError::InvalidShardId { shard_id }.into());
            }
            let error_message = format!("{block_id:?}");
            node.find_block(&BlockReference::BlockId(block_id))
                .map_err(internal)?
                .ok_or_else(|| RpcError::from(RpcChunkError::UnknownBlock { error_message }))?
        }
        ChunkReference::ChunkHash { chunk_id } => {
            let found = node.find_block(&BlockReference::BlockId(BlockId::Hash(chunk_id)));
            let found = found.map_err(internal)?.filter(|block| block.chunk_hash() == chunk_id);
            let chunk_hash = ChunkHash(chunk_id);
            found.ok_or_else(|| RpcError::from(RpcChunkError::UnknownChunk { chunk_hash }))?
        }
    };
    to_value(&chunk_view(node, &block).map_err(internal)?)
}

fn chunk_view(node: &Node, block: &Block) -> Result<ChunkView> {
    let store = &node.shared.store;
    let producer = &node.shared.rules.producer;
    let mut transactions = Vec::new();
    for hash in &block.transactions {
        transactions.extend(store.transaction(hash)?.map(SignedTransactionView::from));
    }
    let mut receipts = Vec::new();
    for id in &block.receipts {
        receipts.extend(store.receipt(id)?.map(ReceiptView::from));
    }
    Ok(ChunkView {
        author: producer.account_id.clone(),
        header: block.chunk_view(producer),
        transactions,
        receipts,
    })
}

pub(super) fn receipt(node: &Node, params: Value) -> Answer {
    let reference: ReceiptReference = parse(params)?;
    let receipt_id = reference.receipt_id;
    let found = node.shared.store.receipt(&receipt_id).map_err(internal)?;
    let receipt = found.ok_or_else(|| RpcError::from(RpcReceiptError::UnknownReceipt { receipt_id }))?;
    to_value(&ReceiptView::from(receipt))
}
