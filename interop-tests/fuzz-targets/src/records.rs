//! What a store or a peer holds in borsh: any bytes, and damaged rows of real nodes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;

use borsh::{BorshDeserialize, BorshSerialize};
use por_core::testing::{CHAIN_TIME_MS, Options, World};
use por_core::wire::{Hello, Lane};
use por_core::{
    ConnId, CoreConfig, ExchangeId, Input, MyChannel, Node, Output, RejectReason, RestoreError, Restored,
    Row, RowKey, Table, Time,
};
use por_types::{
    ChannelState, CooperativeClose, Draw, FlushProof, Hop, Items, Network, NewTerms, NodeKey, NodeSecret,
    RequestHead, ResponseReceipt, SeverOrder, Signed, SignedInvalid, SignedReceipt, SignedRequest, Terms,
};

/// Statements and their parts, by the first byte.
const STATEMENTS: [fn(&[u8]); 19] = [
    canonical::<RequestHead>,
    canonical::<SignedRequest>,
    canonical::<Signed<ChannelState>>,
    canonical::<FlushProof>,
    canonical::<ResponseReceipt>,
    canonical::<SignedReceipt>,
    canonical::<Signed<SeverOrder>>,
    canonical::<SignedInvalid>,
    canonical::<Items>,
    canonical::<Hop>,
    canonical::<Vec<Hop>>,
    canonical::<Terms>,
    canonical::<Network>,
    canonical::<CooperativeClose>,
    canonical::<Draw>,
    canonical::<NewTerms>,
    canonical::<Option<Signed<ChannelState>>>,
    canonical::<ExchangeId>,
    canonical::<RejectReason>,
];

/// What the first byte stands for beyond [`STATEMENTS`].
pub(crate) const ROWS: u8 = 0x40;
pub(crate) const DAMAGE: u8 = 0x80;

/// A statement has one form. Rows are refused with an error that names one of them, or make a
/// node which works on and whose rows make a node again.
pub fn records(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    match kind {
        DAMAGE..=u8::MAX => {
            let (store, edits) = (usize::from(kind & 0x3f) % snapshots().len(), rest);
            let snapshot = &snapshots()[store];
            restart(snapshot, damaged(&snapshot.rows, edits));
        }
        ROWS..DAMAGE => restart(&snapshots()[usize::from(kind & 0x3f) % snapshots().len()], read_rows(rest)),
        _ => STATEMENTS[usize::from(kind) % STATEMENTS.len()](rest),
    }
}

fn canonical<T: BorshDeserialize + BorshSerialize + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = T::try_from_slice(bytes) {
        assert_eq!(borsh::to_vec(&value).ok().as_deref(), Some(bytes), "{value:?}");
    }
}

/// Rows of a node at one moment.
pub(crate) struct Snapshot {
    secret: NodeSecret,
    channels: Vec<MyChannel>,
    graph: Vec<por_core::GraphEdge>,
    pub(crate) rows: Vec<Row>,
}

/// Rows of author, relay and server at several moments of a busy time, the fullest of each.
pub(crate) fn snapshots() -> &'static [Snapshot] {
    static SNAPSHOTS: OnceLock<Vec<Snapshot>> = OnceLock::new();
    SNAPSHOTS.get_or_init(|| {
        let mut world = World::line(Options::new(11), 3);
        world.run(300);
        let mut fullest: BTreeMap<(usize, u64), Snapshot> = BTreeMap::new();
        for round in 0..4 {
            for (body, reply) in [(20, 40), (17_000, 30), (30, 18_000), (40_000, 50_000)] {
                world.request(&[0, 1, 2], body, reply);
                world.request(&[2, 1], 100, 30);
            }
            for _ in 0..40 {
                world.run(2);
                for host in 0..3 {
                    let snapshot = Snapshot {
                        secret: world.secret(host).clone(),
                        channels: world.channels_of(host),
                        graph: world.graph(host),
                        rows: world.hosts[host].rows(),
                    };
                    let best = fullest.get(&(host, round)).map_or(0, |best| best.rows.len());
                    if snapshot.rows.len() > best {
                        fullest.insert((host, round), snapshot);
                    }
                }
            }
            world.run(2_000);
        }
        fullest.into_values().collect()
    })
}

fn table(byte: u8) -> Table {
    [Table::Channels, Table::Exchanges, Table::Meta][usize::from(byte) % 3]
}

/// `table, length of the key, key, length of the value in two bytes, value`, repeated.
fn read_rows(mut bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    while let [kind, key_len, rest @ ..] = bytes {
        let (key, rest) = rest.split_at(rest.len().min(usize::from(*key_len)));
        let (len, rest) = rest.split_at(rest.len().min(2));
        let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        let (value, rest) = rest.split_at(rest.len().min(len));
        rows.push(Row { table: table(*kind), key: key.into(), value: value.to_vec() });
        bytes = rest;
    }
    rows
}

/// The inverse of [`read_rows`], for the corpus.
pub(crate) fn write_rows(rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        let (Ok(key_len), Ok(len)) = (u8::try_from(row.key.len()), u16::try_from(row.value.len())) else {
            continue;
        };
        bytes.extend([row.table as u8 - 1, key_len]);
        bytes.extend_from_slice(&row.key);
        bytes.extend(len.to_be_bytes());
        bytes.extend_from_slice(&row.value);
    }
    bytes
}

/// Edits of six bytes each: row, what to do, where (two bytes), two bytes to do it with.
fn damaged(rows: &[Row], edits: &[u8]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for edit in edits.chunks_exact(6).take(32) {
        let count = rows.len();
        if count == 0 {
            break;
        }
        let index = usize::from(edit[0]) % count;
        let row = &mut rows[index];
        let at = usize::from(u16::from_be_bytes([edit[2], edit[3]])) % row.value.len().max(1);
        match edit[1] % 8 {
            0..=2 => {
                if let Some(byte) = row.value.get_mut(at) {
                    *byte = edit[4];
                }
            }
            3 => row.value.truncate(at),
            4 => row.value.extend_from_slice(&edit[4..]),
            5 => {
                let mut key = row.key.to_vec();
                let keyed = usize::from(edit[4]) % key.len().max(1);
                if let Some(byte) = key.get_mut(keyed) {
                    *byte = edit[5];
                }
                row.key = key.into();
            }
            6 => row.table = table(edit[4]),
            _ => {
                rows.swap_remove(index);
            }
        }
    }
    rows
}

fn start(snapshot: &Snapshot, rows: Vec<Row>, boot: u8) -> Result<Node, RestoreError> {
    let config = CoreConfig {
        network: World::network(),
        secret: snapshot.secret.clone(),
        limits: Options::new(0).limits,
        policy: Default::default(),
        seed: [boot; 32],
    };
    let node = Node::new(config, Restored { rows });
    if let Err(error) = &node {
        assert!(!error.to_string().is_empty());
    }
    node
}

/// Starts a node from rows, lets it meet its peers and its deadlines, and starts the next one from
/// what it has written.
fn restart(snapshot: &Snapshot, rows: Vec<Row>) {
    let mut disk: BTreeMap<(Table, RowKey), Vec<u8>> =
        rows.iter().map(|row| ((row.table, row.key.clone()), row.value.clone())).collect();
    let Ok(mut node) = start(snapshot, rows, 1) else { return };
    let mut now = 1_000;
    let mut give = |node: &mut Node, now: u64, input: Input| {
        node.handle(Time(now), input);
        while let Some(output) = node.poll() {
            let Output::Persist { batch, writes } = output else { continue };
            for write in writes {
                match write.value {
                    Some(value) => disk.insert((write.table, write.key), value),
                    None => disk.remove(&(write.table, write.key)),
                };
            }
            node.handle(Time(now), Input::Persisted { batch });
        }
    };
    give(&mut node, now, Input::Channels { channels: snapshot.channels.clone() });
    let edges = snapshot.graph.clone();
    give(&mut node, now, Input::Graph { version: 1, chain_time_ms: CHAIN_TIME_MS, edges });
    let peers: Vec<NodeKey> = snapshot.channels.iter().map(|channel| channel.peer).collect();
    for (peer, conn) in peers.into_iter().zip(1..) {
        let hello = Hello::new(World::network(), Lane::Control, &Options::new(0).limits);
        give(&mut node, now, Input::Connected { peer, conn: ConnId(conn), hello });
    }
    for _ in 0..4 {
        now =
            node.next_deadline().map_or(now + 1_000, |deadline| deadline.0.max(now + 1)).min(now + 1_000_000);
        give(&mut node, now, Input::Tick);
    }
    for channel in node.channels() {
        assert!(channel.balance_mine.checked_add(channel.balance_theirs).is_ok(), "{channel:?}");
    }
    let written = disk.into_iter().map(|((table, key), value)| Row { table, key, value }).collect();
    match start(snapshot, written, 2) {
        // Starts are counted, and the count has an end.
        Ok(_) | Err(RestoreError::Foreign { table: Table::Meta, .. }) => {}
        Err(error) => panic!("a node cannot read what it has written: {error}"),
    }
}
