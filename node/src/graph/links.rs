//! Open channels as a search reads them: flat, by node, with their terms beside them.

use por_types::{ChannelId, Terms};

/// One direction of an open channel: all that a search asks of it, in one cache line.
#[derive(Clone, Copy, Debug)]
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
    spans: Vec<Span>,
    unused: usize,
}

/// Room left behind that is not worth reclaiming.
const LITTER: usize = 4096;

impl Links {
    pub(super) fn add_node(&mut self) {
        self.spans.push(Span::default());
    }

    pub(super) fn of(&self, node: u32) -> &[Link] {
        let span = self.spans[node as usize];
        &self.pool[span.start..span.start + span.len as usize]
    }

    pub(super) fn insert(&mut self, node: u32, link: Link) {
        let span = self.spans[node as usize];
        if span.len == span.room {
            self.grow(node, link);
        } else {
            self.pool[span.start + span.len as usize] = link;
            self.spans[node as usize].len += 1;
        }
    }

    /// Moves a full node to the end, with `link` as its last.
    fn grow(&mut self, node: u32, link: Link) {
        let old = self.spans[node as usize];
        let start = self.pool.len();
        let room = (old.room * 2).max(2);
        self.pool.extend_from_within(old.start..old.start + old.len as usize);
        self.pool.resize(start + room as usize, link);
        self.spans[node as usize] = Span { start, len: old.len + 1, room };
        self.unused += old.room as usize;
        if self.unused > LITTER && self.unused * 2 > self.pool.len() {
            self.compact();
        }
    }

    pub(super) fn remove(&mut self, node: u32, channel: ChannelId) {
        let span = self.spans[node as usize];
        let links = &mut self.pool[span.start..span.start + span.len as usize];
        if let Some(place) = links.iter().position(|link| link.channel == channel) {
            links.swap(place, links.len() - 1);
            self.spans[node as usize].len -= 1;
        }
    }

    /// Leaves no room but what is used; neighbours in number become neighbours in memory.
    pub(super) fn compact(&mut self) {
        let used = self.spans.iter().map(|span| span.len as usize).sum();
        let mut pool = Vec::with_capacity(used);
        for span in &mut self.spans {
            let start = pool.len();
            pool.extend_from_slice(&self.pool[span.start..span.start + span.len as usize]);
            *span = Span { start, len: span.len, room: span.len };
        }
        self.pool = pool;
        self.unused = 0;
    }
}
