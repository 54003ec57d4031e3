//! The graph over restarts, in a file of the home.
//!
//! To read a large graph anew takes an RPC call for each hundred records, minutes of them; to follow it from where
//! an earlier run was takes one for each hundred changes. The file is of use only, never needed: whatever is wrong
//! with it, the graph is read from the chain.
//!
//! ```text
//! MAGIC, blocks of { length: u32 BE, CBOR }, length 0, BLAKE3 of all before
//! ```
//!
//! The first block is a [`Header`], the others are [`Block`]s.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use por_types::Network;
use por_types::interface::{ChannelView, NodeView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;

use super::{Graph, SharedGraph};
use crate::chain::MAX_RECORDS;
use crate::chain::now_ms;

/// Names the format: what another version has written is left alone and replaced.
const MAGIC: &[u8] = b"por graph 1\n";
const HASH: usize = 32;
/// Records of a block; for as long as they take to be written nobody changes the graph.
const BLOCK: usize = 512;
/// Most bytes that are read, far above what as many records take as a graph may have.
const MAX_FILE: u64 = 1 << 31;
/// What endpoints said that was not so would stay for ever: after this time all is read again.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Written after this many changes, a quarter of what the contract's log holds at least, and at most once in
/// [`OFTEN`]; and if there are any changes, in [`SELDOM`].
const CHANGES: u64 = 1000;
const OFTEN: Duration = Duration::from_secs(600);
const SELDOM: Duration = Duration::from_secs(3600);
/// Times that a copy is begun anew because records were forgotten meanwhile.
const RETRIES: u32 = 10;

#[derive(Serialize, Deserialize)]
struct Header {
    network: Network,
    /// Who has said so: others may be of another chain.
    rpc_urls: Vec<String>,
    /// Of the contract's graph.
    version: u64,
    /// When all of it was read last, milliseconds since 1970.
    read_ms: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Block {
    nodes: Vec<NodeView>,
    channels: Vec<ChannelView>,
}

/// The file, and what of the graph is in it.
pub(crate) struct KeptGraph {
    path: PathBuf,
    network: Network,
    rpc_urls: Vec<String>,
    /// When the graph was read as a whole, by this run or an earlier one.
    read_ms: u64,
    /// The version in the file, and since when.
    written: Option<(u64, Instant)>,
}

impl KeptGraph {
    pub(crate) fn new(path: PathBuf, network: Network, rpc_urls: Vec<String>) -> KeptGraph {
        // Where nothing is kept all is read now.
        KeptGraph { path, network, rpc_urls, read_ms: now_ms(), written: None }
    }

    /// What an earlier run has kept, if that is of use. It has seen no block yet.
    ///
    /// Errors: the runtime is shutting down.
    pub(crate) async fn load(mut self) -> Result<(KeptGraph, Option<Graph>), JoinError> {
        let load = move || {
            let graph = self.read();
            (self, graph)
        };
        tokio::task::spawn_blocking(load).await
    }

    /// Writes the graph if that is due; `reread` if all of it was read from the chain just now. Only those that
    /// forget records may change it meanwhile.
    ///
    /// Errors: as [`KeptGraph::load`]; what cannot be written now is for later.
    pub(crate) async fn keep(mut self, graph: SharedGraph, reread: bool) -> Result<KeptGraph, JoinError> {
        if reread {
            self.read_ms = now_ms();
        }
        if !self.is_due(graph.read().version()) {
            return Ok(self);
        }
        let write = move || {
            self.write(&graph);
            self
        };
        tokio::task::spawn_blocking(write).await
    }

    fn read(&mut self) -> Option<Graph> {
        let (header, graph) = match read(&self.path) {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(%error, "the graph is read from the chain, {} is of no use", self.path.display());
                return None;
            }
        };
        let age = now_ms().checked_sub(header.read_ms);
        let fresh = age.is_some_and(|age| Duration::from_millis(age) < MAX_AGE);
        if !fresh || header.network != self.network || header.rpc_urls != self.rpc_urls {
            return None;
        }
        self.read_ms = header.read_ms;
        self.written = Some((header.version, Instant::now()));
        Some(graph)
    }

    /// Whether the graph at `version` is to be written.
    fn is_due(&self, version: u64) -> bool {
        let Some((written, at)) = self.written else { return true };
        let rest = if version.saturating_sub(written) >= CHANGES { OFTEN } else { SELDOM };
        version != written && at.elapsed() >= rest
    }

    fn write(&mut self, graph: &SharedGraph) {
        let version = graph.read().version();
        if let Err(error) = self.try_write(version, graph) {
            tracing::warn!(%error, "the graph cannot be kept for the next start: {}", self.path.display());
        }
        self.written = Some((version, Instant::now()));
    }

    /// A reader checks the hash, so that a crash may leave half a file: no sync is waited for.
    fn try_write(&self, version: u64, graph: &SharedGraph) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        for _ in 0..RETRIES {
            let file = tempfile::NamedTempFile::new_in(folder)?;
            let mut out = Hashing { out: io::BufWriter::new(file), hasher: blake3::Hasher::new() };
            out.write_all(MAGIC)?;
            let (network, rpc_urls) = (self.network.clone(), self.rpc_urls.clone());
            write_block(&mut out, &Header { network, rpc_urls, version, read_ms: self.read_ms })?;
            if !write_records(&mut out, graph)? {
                continue;
            }
            out.write_all(&0u32.to_be_bytes())?;
            let hash = out.hasher.finalize();
            out.out.write_all(hash.as_bytes())?;
            let file = out.out.into_inner().map_err(io::IntoInnerError::into_error)?;
            return file.persist(&self.path).map(drop).map_err(|error| error.error);
        }
        Err(io::Error::other("records are forgotten all the time"))
    }
}

/// False if records were forgotten meanwhile, and others have moved.
fn write_records(out: &mut impl Write, graph: &SharedGraph) -> io::Result<bool> {
    let forgotten = graph.read().forgotten;
    let mut at = 0;
    loop {
        let block = {
            let graph = graph.read();
            if graph.forgotten != forgotten {
                return Ok(false);
            }
            let nodes = graph.nodes.iter().skip(at).take(BLOCK).filter_map(|node| node.view.clone());
            let channels = graph.edges.iter().skip(at).take(BLOCK).map(|edge| edge.view.clone());
            if at >= graph.nodes.len().max(graph.edges.len()) {
                return Ok(true);
            }
            Block { nodes: nodes.collect(), channels: channels.collect() }
        };
        write_block(out, &block)?;
        at += BLOCK;
    }
}

fn write_block(out: &mut impl Write, block: &impl Serialize) -> io::Result<()> {
    let bytes = cbor4ii::serde::to_vec(Vec::new(), block).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&len.to_be_bytes())?;
    out.write_all(&bytes)
}

/// Passes on what is written, and hashes it.
struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `None` if there is no file, or one of another format.
fn read(path: &Path) -> io::Result<Option<(Header, Graph)>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    if !bytes.starts_with(MAGIC) {
        return Ok(None);
    }
    let (content, hash) = bytes.split_last_chunk::<HASH>().ok_or_else(damaged)?;
    if blake3::hash(content) != *hash {
        return Err(damaged());
    }
    let mut rest = &content[MAGIC.len()..];
    let header: Header = next_block(&mut rest)?.ok_or_else(damaged)?;
    let (mut nodes, mut channels) = (Vec::new(), Vec::new());
    while let Some(block) = next_block::<Block>(&mut rest)? {
        nodes.extend(block.nodes);
        channels.extend(block.channels);
        if nodes.len().max(channels.len()) as u64 > MAX_RECORDS {
            return Err(damaged());
        }
    }
    let graph = Graph::from_pages(header.version, &nodes, &channels);
    Ok(Some((header, graph)))
}

fn next_block<T: DeserializeOwned>(rest: &mut &[u8]) -> io::Result<Option<T>> {
    let (len, after) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(io::Error::other)?;
    if len == 0 {
        return Ok(None);
    }
    let (block, after) = after.split_at_checked(len).ok_or_else(damaged)?;
    *rest = after;
    cbor4ii::serde::from_slice(block).map(Some).map_err(|_| damaged())
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its content is damaged")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::RwLock;
    use por_types::ChannelId;
    use por_types::interface::{ChangeKind, ChannelStatus};

    use super::super::tests::{channel, node, page};
    use super::*;

    fn network(chain: &str) -> Network {
        Network { chain_id: chain.to_owned(), contract: "por.test".parse().expect("account") }
    }

    fn kept(path: &Path) -> KeptGraph {
        KeptGraph::new(path.to_owned(), network("test"), vec!["http://one".to_owned()])
    }

    /// More than a block, with channels in all states, and nodes that are only ends of channels or have left.
    fn graph() -> Graph {
        let id = |n: usize| u64::try_from(n).expect("few");
        let status = |n: usize| match n % 3 {
            0 => ChannelStatus::Open,
            1 => ChannelStatus::Closed {
                paid_a: por_types::Yocto(u128::MAX),
                paid_b: por_types::Yocto(1),
                bonds_until_ms: Some(7),
                severed: true,
            },
            _ => ChannelStatus::Proposed,
        };
        let end = |n: usize| u8::try_from(n % 200).expect("small");
        let channels: Vec<ChannelView> =
            (0..2 * BLOCK + 7).map(|n| channel(id(n), end(n), end(n + 1), status(n))).collect();
        let nodes: Vec<NodeView> = (0..100).map(node).collect();
        let mut graph = Graph::from_pages(40, &nodes, &channels);
        let mut changes = page(50, 41, vec![], vec![]);
        changes.gone = vec![ChangeKind::Node { index: 5 }, ChangeKind::Channel { channel: ChannelId(700) }];
        graph.apply(&changes).expect("applies");
        graph.observe_block(9, 9);
        graph
    }

    fn records(graph: &Graph) -> (u64, Vec<NodeView>, Vec<ChannelView>) {
        let mut nodes: Vec<NodeView> = graph.nodes().cloned().collect();
        nodes.sort_by_key(|node| node.index);
        let mut channels: Vec<ChannelView> = graph.edges.iter().map(|edge| edge.view.clone()).collect();
        channels.sort_by_key(|channel| channel.channel);
        (graph.version(), nodes, channels)
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("graph");
        assert!(kept(&path).read().is_none(), "there is none yet");
        let graph = graph();
        let mut writer = kept(&path);
        assert!(writer.is_due(graph.version()));
        writer.write(&Arc::new(RwLock::new(graph.clone())));
        assert!(!writer.is_due(graph.version()) && !writer.is_due(graph.version() + 1), "not yet again");

        let mut reader = kept(&path);
        let read = reader.read().expect("it is of use");
        assert_eq!(records(&read), records(&graph));
        assert_eq!((read.height(), read.chain_time_ms()), (0, 0), "it has seen no block yet");
        assert!(!reader.is_due(graph.version()), "it is there");
    }

    #[test]
    fn what_is_of_no_use_is_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("graph");
        let graph = Arc::new(RwLock::new(graph()));
        kept(&path).write(&graph);
        let urls = vec!["http://one".to_owned()];
        assert!(KeptGraph::new(path.clone(), network("other"), urls).read().is_none(), "another chain's");
        let urls = vec!["http://two".to_owned()];
        assert!(KeptGraph::new(path.clone(), network("test"), urls).read().is_none(), "another's word");

        let whole = std::fs::read(&path).expect("there");
        for at in (0..whole.len()).step_by(whole.len() / 97) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for bytes in [&changed[..], &whole[..at]] {
                std::fs::write(&path, bytes).expect("written");
                assert!(kept(&path).read().is_none(), "damaged at {at}");
            }
        }
        std::fs::write(&path, &whole).expect("written");
        assert!(kept(&path).read().is_some());

        let week = u64::try_from(MAX_AGE.as_millis()).expect("a week");
        for (read_ms, of_use) in
            [(now_ms() - week, false), (now_ms() + 60_000, false), (now_ms() - week / 2, true)]
        {
            let mut old = kept(&path);
            old.read_ms = read_ms;
            old.write(&graph);
            assert_eq!(kept(&path).read().is_some(), of_use);
        }
    }

    /// A channel that is forgotten while the graph is written makes another one move.
    #[test]
    fn records_that_move_are_not_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("graph");
        let shared = Arc::new(RwLock::new(graph()));
        struct Forgetting<'g>(&'g SharedGraph, u64);
        impl Write for Forgetting<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.1 == 3 {
                    self.0.write().forget(ChannelId(0));
                }
                self.1 += 1;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(!write_records(&mut Forgetting(&shared, 0), &shared).expect("written"));
        assert!(write_records(&mut io::sink(), &shared).expect("written"));
        kept(&path).write(&shared);
        assert_eq!(records(&kept(&path).read().expect("of use")), records(&shared.read()));
    }
}
