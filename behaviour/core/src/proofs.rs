//! Flush proofs on the wire. The statements of one flush mostly travel together, and their Merkle
//! paths share the upper part: an item says only what differs from the item before it in its frame.
//!
//! Items of the same flush (signature, number of leaves) leave out the signature and every sibling
//! above the level where their way to the root joins that of the item before.

use std::fmt;
use std::marker::PhantomData;

use por_types::{FlushProof, Hash, MAX_FLUSH_DEPTH, Signature};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::{RequestItem, ResponseItem};

/// Most items of one frame: what is left out on the wire takes its place in memory again.
pub const MAX_ITEMS: usize = 4096;

/// A proof as far as it differs from the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Short<P = Vec<Hash>> {
    index: u32,
    /// Absent: the flush of the item before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flush: Option<(u32, Signature)>,
    /// The lower siblings; all of them with `flush`.
    path: P,
}

/// Levels of `index` that have a sibling, from level `from` on, in a tree with so many leaves.
fn siblings(index: u32, leaves: u32, from: u32) -> usize {
    let (mut index, mut width, mut level, mut count) = (index, leaves, 0, 0);
    while width > 1 {
        if level >= from && (index % 2 == 1 || index + 1 < width) {
            count += 1;
        }
        (index, width, level) = (index / 2, width.div_ceil(2), level + 1);
    }
    count
}

/// The level from which on two leaves share their way to the root's siblings.
fn joint(a: u32, b: u32) -> u32 {
    u32::BITS - (a ^ b).leading_zeros()
}

impl<'a> Short<&'a [Hash]> {
    fn of(proof: &'a FlushProof, before: Option<&FlushProof>) -> Self {
        let FlushProof { index, leaves, path, signature } = proof;
        let same = before.filter(|b| b.leaves == *leaves && b.signature == *signature);
        if let Some(before) = same {
            let shared = siblings(*index, *leaves, joint(*index, before.index));
            let lower = path.len().checked_sub(shared);
            let tail = before.path.len().checked_sub(shared);
            if let (Some(lower), Some(tail)) = (lower, tail)
                && path[lower..] == before.path[tail..]
            {
                return Short { index: *index, flush: None, path: &path[..lower] };
            }
        }
        Short { index: *index, flush: Some((*leaves, *signature)), path }
    }
}

impl Short {
    /// `None` if it leaves out what no item before it has told.
    fn whole(self, before: Option<&FlushProof>) -> Option<FlushProof> {
        let Short { index, flush, mut path } = self;
        if path.len() > MAX_FLUSH_DEPTH {
            return None;
        }
        if let Some((leaves, signature)) = flush {
            return Some(FlushProof { index, leaves, path, signature });
        }
        let before = before?;
        let (leaves, signature) = (before.leaves, before.signature);
        if index >= leaves {
            return None;
        }
        let shared = siblings(index, leaves, joint(index, before.index));
        let tail = before.path.len().checked_sub(shared)?;
        path.reserve_exact(shared);
        path.extend_from_slice(&before.path[tail..]);
        (path.len() <= MAX_FLUSH_DEPTH).then_some(FlushProof { index, leaves, path, signature })
    }
}

/// An item of a frame with its proof.
pub(crate) trait Proven: Sized {
    /// The same with a short proof.
    type Wire: for<'de> Deserialize<'de>;

    fn proof(&self) -> &FlushProof;
    fn put<S: SerializeSeq>(&self, seq: &mut S, short: Short<&[Hash]>) -> Result<(), S::Error>;
    fn split(wire: Self::Wire) -> (Short, impl FnOnce(FlushProof) -> Self);
}

pub(crate) fn serialize<T: Proven, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(items.len()))?;
    let mut before = None;
    for item in items {
        item.put(&mut seq, Short::of(item.proof(), before))?;
        before = Some(item.proof());
    }
    seq.end()
}

pub(crate) fn deserialize<'de, T: Proven, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Items<T>(PhantomData<T>);
    impl<'de, T: Proven> Visitor<'de> for Items<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_ITEMS} items with proofs")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items: Vec<T> = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX_ITEMS));
            while let Some(wire) = seq.next_element::<T::Wire>()? {
                if items.len() == MAX_ITEMS {
                    return Err(A::Error::invalid_length(items.len() + 1, &self));
                }
                let (short, build) = T::split(wire);
                let proof = short.whole(items.last().map(T::proof));
                let proof = proof.ok_or_else(|| A::Error::custom("a proof that continues none"))?;
                items.push(build(proof));
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(Items(PhantomData))
}

mod wire {
    use bytes::Bytes;
    use por_types::{ChannelId, Hash, ResponseReceipt};
    use serde::{Deserialize, Serialize};

    use super::Short;
    use crate::api::ExchangeId;
    use crate::wire::LateDue;

    #[derive(Serialize)]
    pub struct RequestRef<'a> {
        pub exchange: ExchangeId,
        pub hop: u8,
        pub head: &'a Bytes,
        pub proof: Short<&'a [Hash]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub body: Option<&'a Bytes>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub again: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub channel: Option<ChannelId>,
    }

    #[derive(Deserialize)]
    pub struct Request {
        pub exchange: ExchangeId,
        pub hop: u8,
        #[serde(deserialize_with = "crate::codec::packed")]
        pub head: Bytes,
        pub proof: Short,
        #[serde(default, deserialize_with = "crate::codec::packed_option")]
        pub body: Option<Bytes>,
        #[serde(default)]
        pub again: bool,
        #[serde(default)]
        pub channel: Option<ChannelId>,
    }

    #[derive(Serialize)]
    pub struct ResponseRef<'a> {
        pub exchange: ExchangeId,
        pub receipt: &'a ResponseReceipt,
        pub proof: Short<&'a [Hash]>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub resume: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub body: Option<&'a Bytes>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub late: Option<LateDue>,
    }

    #[derive(Deserialize)]
    pub struct Response {
        pub exchange: ExchangeId,
        pub receipt: ResponseReceipt,
        pub proof: Short,
        #[serde(default)]
        pub resume: bool,
        #[serde(default, deserialize_with = "crate::codec::packed_option")]
        pub body: Option<Bytes>,
        #[serde(default)]
        pub late: Option<LateDue>,
    }
}

impl Proven for RequestItem {
    type Wire = wire::Request;

    fn proof(&self) -> &FlushProof {
        &self.proof
    }

    fn put<S: SerializeSeq>(&self, seq: &mut S, proof: Short<&[Hash]>) -> Result<(), S::Error> {
        let RequestItem { exchange, hop, head, body, again, channel, .. } = self;
        seq.serialize_element(&wire::RequestRef {
            exchange: *exchange,
            hop: *hop,
            head,
            proof,
            body: body.as_ref(),
            again: *again,
            channel: *channel,
        })
    }

    fn split(wire: wire::Request) -> (Short, impl FnOnce(FlushProof) -> RequestItem) {
        let wire::Request { exchange, hop, head, proof, body, again, channel } = wire;
        (proof, move |proof| RequestItem { exchange, hop, head, proof, body, again, channel })
    }
}

impl Proven for ResponseItem {
    type Wire = wire::Response;

    fn proof(&self) -> &FlushProof {
        &self.receipt.proof
    }

    fn put<S: SerializeSeq>(&self, seq: &mut S, proof: Short<&[Hash]>) -> Result<(), S::Error> {
        let ResponseItem { exchange, receipt, resume, body, late } = self;
        seq.serialize_element(&wire::ResponseRef {
            exchange: *exchange,
            receipt: &receipt.receipt,
            proof,
            resume: *resume,
            body: body.as_ref(),
            late: *late,
        })
    }

    fn split(wire: wire::Response) -> (Short, impl FnOnce(FlushProof) -> ResponseItem) {
        let wire::Response { exchange, receipt, proof, resume, body, late } = wire;
        (proof, move |proof| {
            let receipt = por_types::SignedReceipt { receipt, proof };
            ResponseItem { exchange, receipt, resume, body, late }
        })
    }
}

#[cfg(test)]
mod tests {
    use por_types::FlushTree;
    use proptest::prelude::*;

    use super::*;

    fn flush(leaves: u32, seed: u8) -> Vec<FlushProof> {
        let leaf = |index: u32| {
            let mut hash = [seed; 32];
            hash[..4].copy_from_slice(&index.to_le_bytes());
            Hash(hash)
        };
        let tree = FlushTree::new((0..leaves).map(leaf).collect()).expect("leaves");
        (0..leaves).filter_map(|index| tree.proof(index, Signature([seed; 64]))).collect()
    }

    fn arrived(sent: Short<&[Hash]>) -> Short {
        let Short { index, flush, path } = sent;
        Short { index, flush, path: path.to_vec() }
    }

    proptest! {
        /// Any items of any flushes in any order come back as they were.
        #[test]
        fn proofs_survive_the_wire(
            sizes in prop::collection::vec(1u32..70, 1..4),
            picks in prop::collection::vec((any::<usize>(), any::<usize>()), 1..60),
        ) {
            let flushes: Vec<_> = sizes.iter().zip(1..).map(|(size, seed)| flush(*size, seed)).collect();
            let proofs: Vec<FlushProof> = picks
                .iter()
                .map(|(which, index)| {
                    let flush = &flushes[which % flushes.len()];
                    flush[index % flush.len()].clone()
                })
                .collect();
            let mut before: Option<FlushProof> = None;
            for proof in proofs {
                let whole = arrived(Short::of(&proof, before.as_ref())).whole(before.as_ref());
                prop_assert_eq!(whole.as_ref(), Some(&proof));
                before = Some(proof);
            }
        }
    }

    #[test]
    fn neighbours_of_a_flush_take_two_hashes_on_average() {
        let proofs = flush(1024, 1);
        let hashes: usize =
            proofs.windows(2).map(|pair| Short::of(&pair[1], Some(&pair[0])).path.len()).sum();
        assert!(hashes < 2 * 1024, "{hashes}");
    }

    #[test]
    fn what_continues_nothing_is_refused() {
        let proofs = flush(5, 1);
        let short = arrived(Short::of(&proofs[1], Some(&proofs[0])));
        assert_eq!(short.flush, None);
        assert_eq!(short.clone().whole(None), None);
        assert_eq!(Short { index: 5, ..short.clone() }.whole(Some(&proofs[0])), None);
        let bent = FlushProof { path: vec![], ..proofs[0].clone() };
        assert_eq!(short.whole(Some(&bent)), None);
    }
}
