//! Reading and writing an outboard that lies in a file.

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt};

use bao_tree::{BaoTree, TreeNode, io::sync::Outboard};
use blake3::Hash;

use crate::tree::{PAIR, geometry, outboard_len, parse_pair};

/// Bytes read from the file at a time: 256 nodes.
const BLOCK_BYTES: u64 = 16 * 1024;

/// An outboard in `file` from byte `base` on, for one encoding.
///
/// Nodes of one window lie close together in pre-order, so the blocks they lie in
/// are read once and kept until this is dropped: about 0.4 % of the window plus a
/// block per level of the tree.
///
/// What is missing in the file reads as zeros, which never verify.
pub struct FileOutboard<'a> {
    root: Hash,
    tree: BaoTree,
    file: Option<&'a File>,
    base: u64,
    blocks: RefCell<Vec<(u64, Box<[u8]>)>>,
}

impl<'a> FileOutboard<'a> {
    /// Without a file there are no inner nodes, as for content of one leaf.
    pub fn new(root: Hash, size: u64, file: Option<&'a File>, base: u64) -> Self {
        FileOutboard { root, tree: geometry(size), file, base, blocks: RefCell::default() }
    }

    fn read_block(&self, index: u64) -> io::Result<Box<[u8]>> {
        let Some(file) = self.file else {
            return Ok(Box::default());
        };
        let end = outboard_len(self.tree.size());
        let start = index * BLOCK_BYTES;
        let len = end.saturating_sub(start).min(BLOCK_BYTES) as usize;
        let mut block = vec![0; len].into_boxed_slice();
        let mut filled = 0;
        while filled < len {
            let at = self.base + start + filled as u64;
            match file.read_at(&mut block[filled..], at) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(block)
    }

    /// Length of the content.
    pub(crate) fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The node with this index in pre-order.
    pub(crate) fn node(&self, index: u64) -> io::Result<[u8; PAIR as usize]> {
        self.pair(index * PAIR)
    }

    fn pair(&self, offset: u64) -> io::Result<[u8; PAIR as usize]> {
        let (index, within) = (offset / BLOCK_BYTES, (offset % BLOCK_BYTES) as usize);
        let copy = |block: &[u8]| {
            let mut pair = [0; PAIR as usize];
            if let Some(bytes) = block.get(within..within + PAIR as usize) {
                pair.copy_from_slice(bytes);
            }
            pair
        };
        let mut blocks = self.blocks.borrow_mut();
        if let Some((_, block)) = blocks.iter().rev().find(|(at, _)| *at == index) {
            return Ok(copy(block));
        }
        let block = self.read_block(index)?;
        let pair = copy(&block);
        blocks.push((index, block));
        Ok(pair)
    }
}

impl Outboard for FileOutboard<'_> {
    fn root(&self) -> Hash {
        self.root
    }

    fn tree(&self) -> BaoTree {
        self.tree
    }

    fn load(&self, node: TreeNode) -> io::Result<Option<(Hash, Hash)>> {
        let Some(index) = self.tree.pre_order_offset(node) else {
            return Ok(None);
        };
        Ok(Some(parse_pair(&self.pair(index * PAIR)?)))
    }
}

/// Nodes to be written to an outboard, in pre-order; neighbours go out together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Index in pre-order and where its run continues in `bytes`.
    runs: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl Nodes {
    /// Adds the node with this pre-order index.
    pub fn push(&mut self, index: u64, pair: &[u8; PAIR as usize]) {
        let continues = self
            .runs
            .last()
            .is_some_and(|(first, at)| first + (self.bytes.len() - at) as u64 / PAIR == index);
        if !continues {
            self.runs.push((index, self.bytes.len()));
        }
        self.bytes.extend_from_slice(pair);
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.bytes.len() / PAIR as usize
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes the nodes into the outboard that starts at byte `base` of `file`.
    pub fn write_to(&self, file: &File, base: u64) -> io::Result<()> {
        for (at, (first, start)) in self.runs.iter().enumerate() {
            let end = self.runs.get(at + 1).map_or(self.bytes.len(), |next| next.1);
            file.write_all_at(&self.bytes[*start..end], base + first * PAIR)?;
        }
        Ok(())
    }
}
