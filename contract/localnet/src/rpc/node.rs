//! What the node says about itself.

use near_jsonrpc_primitives::errors::RpcError;
use near_jsonrpc_primitives::types::gas_price::RpcGasPriceError;
use near_jsonrpc_primitives::types::validator::RpcValidatorError;
use near_primitives::hash::CryptoHash;
use near_primitives::types::{BlockId, MaybeBlockId};
use near_primitives::utils::from_timestamp;
use near_primitives::version::PROTOCOL_VERSION;
use serde_json::{Value, json};

use super::{Answer, Node, internal, parse};
use crate::chain::Block;

fn time(timestamp: u64) -> String {
    from_timestamp(timestamp).format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

pub(super) fn status(node: &Node) -> Answer {
    if let Some(failure) = node.shared.failure() {
        return Err(internal(failure));
    }
    let rules = &node.shared.rules;
    let head = node.shared.head().map_err(internal)?;
    let head = &head.block;
    let first = node.shared.store.first_block().map_err(internal)?;
    let producer = &rules.producer;
    let public_key = producer.secret_key.public_key();
    Ok(json!({
        "version": {
            "version": env!("CARGO_PKG_VERSION"),
            "build": "por-localnet",
            "commit": "",
            "rustc_version": "",
        },
        "chain_id": &*rules.chain_id,
        "protocol_version": PROTOCOL_VERSION,
        "latest_protocol_version": PROTOCOL_VERSION,
        "rpc_addr": node.addr.to_string(),
        "validators": [{ "account_id": producer.account_id }],
        "sync_info": {
            "latest_block_hash": head.hash,
            "latest_block_height": head.height,
            "latest_state_root": head.prev_state_root,
            "latest_block_time": time(head.timestamp),
            "syncing": false,
            "earliest_block_hash": first.as_ref().map(|block| block.hash),
            "earliest_block_height": first.as_ref().map(|block| block.height),
            "earliest_block_time": first.as_ref().map(|block| time(block.timestamp)),
            "epoch_id": head.current_epoch_id(&rules.chain_id),
            "epoch_start_height": rules.epoch_start(head.height),
        },
        "validator_account_id": producer.account_id,
        "validator_public_key": public_key,
        "node_public_key": node.node_key.public_key(),
        "node_key": public_key,
        "uptime_sec": node.shared.started.elapsed().as_secs(),
        "genesis_hash": rules.genesis_hash,
    }))
}

pub(super) fn health(node: &Node) -> Answer {
    match node.shared.failure() {
        Some(failure) => Err(internal(failure)),
        None => Ok(Value::Null),
    }
}

pub(super) fn network_info() -> Value {
    json!({
        "active_peers": [],
        "num_active_peers": 0,
        "peer_max_count": 0,
        "sent_bytes_per_sec": 0,
        "received_bytes_per_sec": 0,
        "known_producers": [],
    })
}

fn known_block(node: &Node, id: &BlockId) -> Result<Option<Block>, RpcError> {
    let height = match id {
        BlockId::Height(height) => Some(*height),
        BlockId::Hash(hash) => node.shared.store.height_of(hash).map_err(internal)?,
    };
    match height {
        Some(height) => node.shared.store.block(height).map_err(internal),
        None => Ok(None),
    }
}

/// The block asked for, or the head.
fn block_or_head(node: &Node, id: Option<&BlockId>) -> Result<Option<Block>, RpcError> {
    match id {
        Some(id) => known_block(node, id),
        None => Ok(Some(node.shared.head().map_err(internal)?.block.clone())),
    }
}

pub(super) fn gas_price(node: &Node, params: Value) -> Answer {
    let id: MaybeBlockId = match params {
        Value::Array(mut list) if !list.is_empty() => parse(list.swap_remove(0))?,
        Value::Object(mut fields) => parse(fields.remove("block_id").unwrap_or(Value::Null))?,
        _ => None,
    };
    let block = block_or_head(node, id.as_ref())?
        .ok_or_else(|| RpcError::from(RpcGasPriceError::UnknownBlock { error_message: format!("{id:?}") }))?;
    Ok(json!({ "gas_price": block.gas_price }))
}

pub(super) fn validators(node: &Node, params: &Value) -> Answer {
    let wanted = match params {
        Value::Array(list) => list.first().cloned(),
        Value::Object(fields) => fields.get("block_id").or_else(|| fields.get("epoch_id")).cloned(),
        _ => None,
    };
    let head = node.shared.head().map_err(internal)?.block.clone();
    let block = match wanted {
        None | Some(Value::Null) => head,
        Some(Value::String(text)) if text == "latest" => head,
        Some(Value::String(text)) if is_epoch(node, &head, &text) => head,
        Some(id) => {
            known_block(node, &parse(id)?)?.ok_or_else(|| RpcError::from(RpcValidatorError::UnknownEpoch))?
        }
    };
    Ok(validator_info(node, &block))
}

fn is_epoch(node: &Node, head: &Block, text: &str) -> bool {
    text.parse::<CryptoHash>().is_ok_and(|hash| hash == head.current_epoch_id(&node.shared.rules.chain_id))
}

fn validator_info(node: &Node, block: &Block) -> Value {
    let rules = &node.shared.rules;
    let producer = &rules.producer;
    let public_key = producer.secret_key.public_key();
    let start = rules.epoch_start(block.height);
    let blocks = block.height - start + 1;
    let next = json!({
        "account_id": producer.account_id,
        "public_key": public_key,
        "stake": rules.stake,
        "shards": [0],
    });
    let mut current = next.clone();
    for (name, value) in [
        ("is_slashed", json!(false)),
        ("num_produced_blocks", json!(blocks)),
        ("num_expected_blocks", json!(blocks)),
        ("num_produced_chunks", json!(blocks)),
        ("num_expected_chunks", json!(blocks)),
        ("num_produced_chunks_per_shard", json!([blocks])),
        ("num_expected_chunks_per_shard", json!([blocks])),
    ] {
        current[name] = value;
    }
    json!({
        "current_validators": [current],
        "next_validators": [next],
        "current_fishermen": [],
        "next_fishermen": [],
        "current_proposals": [],
        "prev_epoch_kickout": [],
        "epoch_start_height": start,
        "epoch_height": block.epoch_height,
        "validator_reward_paid_prev_epoch": {},
    })
}

/// The parameters with which the chain began, without its records.
pub(super) fn genesis_config(node: &Node) -> Value {
    node.shared.rules.genesis_config.clone()
}
