//! The log of what changed, so that nodes follow the graph through plain views (protocol
//! section 2). A ring of chunks: storage is bounded, writing costs one chunk, and a reader
//! that fell behind the oldest entry reads the pages again.

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::env;
use por_types::ChannelId;
use por_types::interface::ChangeKind;

use crate::Contract;
use crate::store::{self, Table};

const CHUNK: u64 = 64;
const CHUNKS: u64 = 64;

#[derive(BorshSerialize, BorshDeserialize)]
struct Entry {
    height: u64,
    kind: Kind,
}

#[derive(BorshSerialize, BorshDeserialize)]
enum Kind {
    Node(u32),
    Channel(u64),
}

impl From<&Kind> for ChangeKind {
    fn from(kind: &Kind) -> Self {
        match *kind {
            Kind::Node(index) => ChangeKind::Node { index },
            Kind::Channel(id) => ChangeKind::Channel { channel: ChannelId(id) },
        }
    }
}

/// Key of the chunk that holds entry `position` (version minus one).
fn chunk_key(position: u64) -> [u8; 4] {
    // Below CHUNKS, so it fits.
    (((position / CHUNK) % CHUNKS) as u32).to_le_bytes()
}

fn read_chunk(position: u64) -> Vec<Entry> {
    store::read(Table::Log, &chunk_key(position)).unwrap_or_default()
}

impl Contract {
    fn log(&mut self, kinds: impl IntoIterator<Item = Kind>) {
        let mut chunk = Vec::new();
        let mut changed = false;
        for kind in kinds {
            let position = self.graph_version;
            if position.is_multiple_of(CHUNK) {
                chunk = Vec::new();
            } else if !changed {
                chunk = read_chunk(position);
            }
            chunk.push(Entry { height: env::block_height(), kind });
            changed = true;
            self.graph_version += 1;
            if self.graph_version.is_multiple_of(CHUNK) {
                store::write(Table::Log, &chunk_key(position), &chunk);
                changed = false;
            }
        }
        if changed {
            store::write(Table::Log, &chunk_key(self.graph_version - 1), &chunk);
        }
    }

    pub(crate) fn log_node(&mut self, index: u32) {
        self.log([Kind::Node(index)]);
    }

    pub(crate) fn log_nodes(&mut self, nodes: &[u32]) {
        self.log(nodes.iter().map(|index| Kind::Node(*index)));
    }

    pub(crate) fn log_channel(&mut self, id: ChannelId) {
        self.log([Kind::Channel(id.0)]);
    }

    /// Oldest version that the log still holds; 1 if it holds all.
    pub(crate) fn oldest_version(&self) -> u64 {
        let newest_chunk = self.graph_version.saturating_sub(1) / CHUNK;
        newest_chunk.saturating_sub(CHUNKS - 1) * CHUNK + 1
    }

    /// What the versions after `since` up to `upto` changed, each record once.
    pub(crate) fn changed(&self, since: u64, upto: u64) -> Vec<ChangeKind> {
        let mut seen = Vec::new();
        let mut position = since;
        while position < upto {
            let chunk = read_chunk(position);
            let within = (position % CHUNK) as usize;
            let left = (upto - position) as usize;
            let entries = chunk.iter().skip(within).take(left);
            for kind in entries.map(|entry| ChangeKind::from(&entry.kind)) {
                if !seen.contains(&kind) {
                    seen.push(kind);
                }
            }
            position = (position / CHUNK + 1) * CHUNK;
        }
        seen
    }
}
