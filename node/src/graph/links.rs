//! Open channels as a search reads them: flat, by node, with their terms beside them.

use por_types::{ChannelId, Terms};

/// One direction of an open channel: all that a search asks of it, in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Link {
    pub(crate) base_fee: u128,
    pub(crate) byte_fee: u128,
    pub(crate) bytes_per_s: u64,
    pub(crate) max_bytes: u64,
    pub(crate) channel: ChannelId,
    pub(crate) rtt_ms: u32,
    /// Place of the node at the other end.
    pub(crate) to: u32,
}

impl Link {
    pub(super) fn new(channel: ChannelId, terms: &Terms, to: u32) -> Link {
        Link {
            base_fee: terms.base_fee.0,
            byte_fee: terms.byte_fee.0,
            bytes_per_s: terms.bytes_per_s.max(1),
            max_bytes: terms.max_bytes,
            channel,
            rtt_ms: terms.rtt_ms,
            to,
        }
    }
}

/// A [`Link`] about: what a search reads of the many that it does not take. Three in a cache line.
///
/// Numbers are the nearest of their kind, 1e-7 of themselves off at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    pub(crate) base_fee: f32,
    pub(crate) byte_fee: f32,
    pub(crate) bytes_per_s: f32,
    pub(crate) max_bytes: f32,
    pub(crate) rtt_ms: f32,
    /// Place of the node at the other end.
    pub(crate) to: u32,
}

impl From<&Link> for Outline {
    fn from(link: &Link) -> Outline {
        Outline {
            base_fee: link.base_fee as f32,
            byte_fee: link.byte_fee as f32,
            bytes_per_s: link.bytes_per_s as f32,
            max_bytes: link.max_bytes as f32,
            rtt_ms: link.rtt_ms as f32,
            to: link.to,
        }
    }
}

/// Where the links of a node are.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    len: u32,
    room: u32,
}

/// The links of all nodes in one array. A node that outgrows its room moves to the end with twice
/// as much; what it leaves is reclaimed once it is half of everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    pool: Vec<Link>,
    /// Of each link in the pool.
    outlines: Vec<Outline>,
    spans: Vec<Span>,
    unused: usize,
}

/// Room left behind that is not worth reclaiming.
const LITTER: usize = 4096;

impl Links {
    /// The links at each of `nodes` nodes, in the order in which they come.
    pub(super) fn new(nodes: usize, links: impl Iterator<Item = (u32, Link)> + Clone) -> Links {
        let mut spans = vec![Span::default(); nodes];
        for (node, _) in links.clone() {
            spans[node as usize].room += 1;
        }
        let mut used = 0;
        for span in &mut spans {
            span.start = used;
            used += span.room as usize;
        }
        let Some((_, any)) = links.clone().next() else {
            return Links { spans, ..Links::default() };
        };
        let (mut pool, mut outlines) = (vec![any; used], vec![Outline::from(&any); used]);
        for (node, link) in links {
            let span = &mut spans[node as usize];
            let place = span.start + span.len as usize;
            (pool[place], outlines[place]) = (link, Outline::from(&link));
            span.len += 1;
        }
        Links { pool, outlines, spans, unused: 0 }
    }

    pub(super) fn add_node(&mut self) {
        self.spans.push(Span::default());
    }

    pub(super) fn of(&self, node: u32) -> &[Link] {
        let span = self.spans[node as usize];
        &self.pool[span.start..span.start + span.len as usize]
    }

    /// In the order of [`Links::of`].
    pub(super) fn outlines_of(&self, node: u32) -> &[Outline] {
        let span = self.spans[node as usize];
        &self.outlines[span.start..span.start + span.len as usize]
    }

    pub(super) fn insert(&mut self, node: u32, link: Link) {
        let span = self.spans[node as usize];
        if span.len == span.room {
            self.grow(node, link);
        } else {
            let place = span.start + span.len as usize;
            self.pool[place] = link;
            self.outlines[place] = Outline::from(&link);
            self.spans[node as usize].len += 1;
        }
    }

    /// Moves a full node to the end, with `link` as its last.
    fn grow(&mut self, node: u32, link: Link) {
        let old = self.spans[node as usize];
        let start = self.pool.len();
        let room = (old.room * 2).max(2);
        let moved = old.start..old.start + old.len as usize;
        self.pool.extend_from_within(moved.clone());
        self.pool.resize(start + room as usize, link);
        self.outlines.extend_from_within(moved);
        self.outlines.resize(start + room as usize, Outline::from(&link));
        self.spans[node as usize] = Span { start, len: old.len + 1, room };
        self.unused += old.room as usize;
        if self.unused > LITTER && self.unused * 2 > self.pool.len() {
            self.compact();
        }
    }

    pub(super) fn remove(&mut self, node: u32, channel: ChannelId) {
        let span = self.spans[node as usize];
        let all = span.start..span.start + span.len as usize;
        let links = &mut self.pool[all.clone()];
        if let Some(place) = links.iter().position(|link| link.channel == channel) {
            let last = links.len() - 1;
            links.swap(place, last);
            self.outlines[all].swap(place, last);
            self.spans[node as usize].len -= 1;
        }
    }

    /// Leaves no room but what is used; neighbours in number become neighbours in memory.
    pub(super) fn compact(&mut self) {
        let used = self.spans.iter().map(|span| span.len as usize).sum();
        let mut pool = Vec::with_capacity(used);
        let mut outlines = Vec::with_capacity(used);
        for span in &mut self.spans {
            let start = pool.len();
            let all = span.start..span.start + span.len as usize;
            pool.extend_from_slice(&self.pool[all.clone()]);
            outlines.extend_from_slice(&self.outlines[all]);
            *span = Span { start, len: span.len, room: span.len };
        }
        self.pool = pool;
        self.outlines = outlines;
        self.unused = 0;
    }
}
