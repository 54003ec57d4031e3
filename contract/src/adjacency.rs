//! The graph, packed for searching: one record holds the neighbours of 256 nodes, which makes
//! a search some fifty times cheaper than a record per node. A node with many neighbours (a
//! hub) has pages instead, each a range of neighbours, so that no record grows beyond its cap
//! and finding a neighbour means reading one page.
//!
//! A link is four bytes: the neighbour's index, and in the highest byte how many channels lead
//! there beyond the first.

use por_types::interface::{MAX_INDICES, NeighbourView, code};

use crate::Contract;
use crate::fail::fail;
use crate::store::{self, Table};

/// Nodes per record.
pub const GROUP: u32 = 256;
/// Most neighbours that a node has within its group's record.
const INLINE: usize = 64;
/// Most neighbours within one group's record, which so stays below 34 kB.
const GROUP_LINKS: usize = 8_192;
/// Most links in one page of a hub, unless more lead to one node.
const PAGE: usize = 512;
/// Stands for the length of a node whose neighbours are in pages.
const PAGED: u16 = u16::MAX;
/// Indices that a link can hold are below this.
const MAX_NODES: u32 = 1 << 24;
const _: () = assert!(MAX_INDICES <= MAX_NODES);
/// Most channels beyond the first that one link counts.
const MAX_PARALLEL: u32 = 255;

fn target(link: u32) -> u32 {
    link % MAX_NODES
}

fn add_link(links: &mut Vec<u32>, to: u32) {
    match links.binary_search_by_key(&to, |link| target(*link)) {
        Ok(at) if links[at] / MAX_NODES < MAX_PARALLEL => links[at] += MAX_NODES,
        // A link that is full has another beside it.
        Ok(at) | Err(at) => links.insert(at, to),
    }
}

fn remove_link(links: &mut Vec<u32>, to: u32) {
    match links.binary_search_by_key(&to, |link| target(*link)) {
        Ok(at) if links[at] >= MAX_NODES => links[at] -= MAX_NODES,
        Ok(at) => {
            links.remove(at);
        }
        Err(_) => fail!(code::OVERFLOW, "the graph misses an edge to node {to}; report this"),
    }
}

/// Where to divide a page: near its middle, and never between links to the same node, since these are
/// looked for in one page. `None` if all lead to one node.
fn middle(links: &[u32]) -> Option<usize> {
    let begins = |at: &usize| target(links[at - 1]) != target(links[*at]);
    let half = links.len() / 2;
    (half.max(1)..links.len()).find(begins).or_else(|| (1..half).rev().find(begins))
}

fn pack(links: &[u32], bytes: &mut Vec<u8>) {
    for link in links {
        bytes.extend_from_slice(&link.to_le_bytes());
    }
}

fn unpack(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect()
}

/// A group's record: how many nodes it covers, the number of links of each, the links.
#[derive(Default)]
struct Group {
    counts: Vec<u16>,
    links: Vec<u32>,
}

enum Place {
    /// Range of `Group::links`.
    Inline(usize, usize),
    Paged,
}

impl Group {
    fn read(group: u32) -> (Group, usize) {
        let Some(bytes) = store::read_bytes(Table::Groups, &group.to_le_bytes()) else {
            return (Group::default(), 0);
        };
        let header = bytes.first().map_or(0, |nodes| 2 * (usize::from(*nodes) + 1));
        let (counts, links) = bytes[1..].split_at(header);
        let counts = counts.as_chunks().0.iter().map(|chunk| u16::from_le_bytes(*chunk)).collect();
        (Group { counts, links: unpack(links) }, bytes.len())
    }

    fn write(mut self, group: u32) {
        while self.counts.last() == Some(&0) {
            self.counts.pop();
        }
        let Some(last) = self.counts.len().checked_sub(1) else {
            return store::remove(Table::Groups, &group.to_le_bytes());
        };
        let mut bytes = Vec::with_capacity(1 + 2 * self.counts.len() + 4 * self.links.len());
        // At most GROUP nodes, so the last slot fits.
        bytes.push(last as u8);
        for count in &self.counts {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        pack(&self.links, &mut bytes);
        store::write_bytes(Table::Groups, &group.to_le_bytes(), &bytes);
    }

    fn place(&self, slot: usize) -> Place {
        let counts = &self.counts[..slot.min(self.counts.len())];
        let start = counts.iter().filter(|count| **count != PAGED).map(|count| usize::from(*count)).sum();
        match self.counts.get(slot) {
            Some(&PAGED) => Place::Paged,
            Some(count) => Place::Inline(start, start + usize::from(*count)),
            None => Place::Inline(start, start),
        }
    }

    fn replace(&mut self, slot: usize, links: &[u32], count: u16) {
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        if let Place::Inline(start, end) = self.place(slot) {
            self.links.splice(start..end, links.iter().copied());
        }
        self.counts[slot] = count;
    }

    /// Moves the neighbours of the node in `slot` into pages.
    fn spill(&mut self, group: u32, slot: usize) {
        let Place::Inline(start, end) = self.place(slot) else { return };
        // A slot is below GROUP, so it fits.
        Hub::create(group * GROUP + slot as u32, &self.links[start..end]);
        self.replace(slot, &[], PAGED);
    }

    fn keep_cap(&mut self, group: u32, slot: usize) {
        let count = |slot: &usize| match self.counts[*slot] {
            PAGED => 0,
            count => count,
        };
        if usize::from(count(&slot)) > INLINE {
            self.spill(group, slot);
        } else if self.links.len() > GROUP_LINKS
            && let Some(biggest) = (0..self.counts.len()).max_by_key(count)
        {
            self.spill(group, biggest);
        }
    }
}

/// Pages of a hub. Page `i` holds the neighbours from `bounds[i]` to below `bounds[i + 1]`.
struct Hub {
    node: u32,
    bounds: Vec<u32>,
}

impl Hub {
    fn key(&self, page: usize) -> [u8; 8] {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&self.node.to_le_bytes());
        key[4..].copy_from_slice(&self.bounds[page].to_le_bytes());
        key
    }

    fn create(node: u32, links: &[u32]) {
        let hub = Hub { node, bounds: vec![0] };
        hub.write_page(0, links);
        hub.write();
    }

    fn read(node: u32) -> Hub {
        let bytes = store::read_bytes(Table::Pages, &node.to_le_bytes());
        Hub { node, bounds: bytes.map_or_else(Vec::new, |bytes| unpack(&bytes)) }
    }

    fn write(&self) {
        let mut bytes = Vec::new();
        pack(&self.bounds, &mut bytes);
        store::write_bytes(Table::Pages, &self.node.to_le_bytes(), &bytes);
    }

    fn page(&self, page: usize) -> Vec<u32> {
        store::read_bytes(Table::Pages, &self.key(page)).map_or_else(Vec::new, |bytes| unpack(&bytes))
    }

    fn write_page(&self, page: usize, links: &[u32]) {
        let mut bytes = Vec::new();
        pack(links, &mut bytes);
        store::write_bytes(Table::Pages, &self.key(page), &bytes);
    }

    /// The page where `to` belongs. Bounds begin with 0, so there is one.
    fn page_of(&self, to: u32) -> usize {
        self.bounds.partition_point(|bound| *bound <= to).saturating_sub(1)
    }

    fn add(mut self, to: u32) {
        let at = self.page_of(to);
        let mut links = self.page(at);
        add_link(&mut links, to);
        if links.len() > PAGE
            && let Some(middle) = middle(&links)
        {
            let upper = links.split_off(middle);
            self.bounds.insert(at + 1, target(upper[0]));
            self.write_page(at + 1, &upper);
            self.write();
        }
        self.write_page(at, &links);
    }

    /// True if the hub has no neighbours left; then nothing of it is stored.
    fn remove(mut self, to: u32) -> bool {
        let at = self.page_of(to);
        let mut links = self.page(at);
        remove_link(&mut links, to);
        if !links.is_empty() {
            self.write_page(at, &links);
            return false;
        }
        store::remove(Table::Pages, &self.key(at));
        if at > 0 {
            self.bounds.remove(at);
        }
        // The first page keeps its bound when it is emptied before others.
        if self.bounds.len() == 1 && (at == 0 || self.page(0).is_empty()) {
            store::remove(Table::Pages, &self.node.to_le_bytes());
            return true;
        }
        if at > 0 {
            self.write();
        }
        false
    }
}

fn place_of(node: u32) -> (u32, usize) {
    (node / GROUP, (node % GROUP) as usize)
}

fn add(node: u32, to: u32) {
    let (group, slot) = place_of(node);
    let (mut packed, _) = Group::read(group);
    match packed.place(slot) {
        Place::Paged => Hub::read(node).add(to),
        Place::Inline(start, end) => {
            let mut links = packed.links[start..end].to_vec();
            add_link(&mut links, to);
            // At most INLINE + 1, so it fits.
            packed.replace(slot, &links, links.len() as u16);
            packed.keep_cap(group, slot);
            packed.write(group);
        }
    }
}

fn remove(node: u32, to: u32) {
    let (group, slot) = place_of(node);
    let (mut packed, _) = Group::read(group);
    match packed.place(slot) {
        Place::Paged => {
            if Hub::read(node).remove(to) {
                packed.counts[slot] = 0;
                packed.write(group);
            }
        }
        Place::Inline(start, end) => {
            let mut links = packed.links[start..end].to_vec();
            remove_link(&mut links, to);
            packed.replace(slot, &links, links.len() as u16);
            packed.write(group);
        }
    }
}

/// An edge between `a` and `b` enters the graph.
pub fn link(a: u32, b: u32) {
    add(a, b);
    add(b, a);
}

/// An edge between `a` and `b` leaves the graph.
pub fn unlink(a: u32, b: u32) {
    remove(a, b);
    remove(b, a);
}

/// Reads the graph for one call, each record once.
#[derive(Default)]
pub struct Graph {
    /// By number, with where the links of each node begin.
    groups: Vec<Option<(Group, Vec<u32>)>>,
    /// The hubs looked at last, one for each end of a search.
    hubs: Vec<Hub>,
    /// Bytes read so far.
    pub bytes: usize,
}

impl Graph {
    fn group(&mut self, group: u32) -> &(Group, Vec<u32>) {
        let bytes = &mut self.bytes;
        let at = group as usize;
        if self.groups.len() <= at {
            self.groups.resize_with(at + 1, || None);
        }
        self.groups[at].get_or_insert_with(|| {
            let (packed, read) = Group::read(group);
            *bytes += read;
            let mut start = 0;
            let starts = packed.counts.iter().map(|count| {
                let at = start;
                start += if *count == PAGED { 0 } else { u32::from(*count) };
                at
            });
            let starts = starts.collect();
            (packed, starts)
        })
    }

    fn hub(&mut self, node: u32) -> &Hub {
        let at = self.hubs.iter().position(|hub| hub.node == node).unwrap_or_else(|| {
            if self.hubs.len() == 2 {
                self.hubs.remove(0);
            }
            let hub = Hub::read(node);
            self.bytes += 4 * hub.bounds.len();
            self.hubs.push(hub);
            self.hubs.len() - 1
        });
        &self.hubs[at]
    }

    /// Neighbours in the `page`th part of `node`'s, and whether there are more parts.
    pub fn part(&mut self, node: u32, page: usize, out: &mut Vec<u32>) -> bool {
        out.clear();
        let (group, slot) = place_of(node);
        let (packed, starts) = self.group(group);
        match packed.counts.get(slot) {
            None => false,
            Some(&PAGED) => {
                let hub = self.hub(node);
                let more = page + 1 < hub.bounds.len();
                let links = hub.page(page);
                self.bytes += 4 * links.len();
                out.extend(links.into_iter().map(target));
                more
            }
            Some(count) => {
                let start = starts[slot] as usize;
                let links = &packed.links[start..start + usize::from(*count)];
                out.extend(links.iter().map(|link| target(*link)));
                false
            }
        }
    }

    /// The part of `node`'s neighbours in which `to` would be.
    fn part_of(&mut self, node: u32, to: u32) -> usize {
        let (group, slot) = place_of(node);
        match self.group(group).0.counts.get(slot) {
            Some(&PAGED) => self.hub(node).page_of(to),
            _ => 0,
        }
    }

    pub fn linked(&mut self, node: u32, to: u32) -> bool {
        let mut links = Vec::new();
        let part = self.part_of(node, to);
        self.part(node, part, &mut links);
        links.contains(&to)
    }
}

impl Contract {
    /// Neighbours of `node` from index `from` on, at most `limit`.
    pub(crate) fn links_from(node: u32, from: u32, limit: usize) -> Vec<NeighbourView> {
        let (group, slot) = place_of(node);
        let (packed, _) = Group::read(group);
        let mut links = Vec::new();
        match packed.place(slot) {
            Place::Inline(start, end) => links.extend_from_slice(&packed.links[start..end]),
            Place::Paged => {
                let hub = Hub::read(node);
                let mut page = hub.page_of(from);
                // One more page than enough: the first may be cut by `from`.
                while page < hub.bounds.len() && links.len() < limit + PAGE {
                    links.extend(hub.page(page));
                    page += 1;
                }
            }
        }
        let wanted = links.into_iter().filter(|link| target(*link) >= from);
        let mut found: Vec<NeighbourView> = Vec::new();
        for view in wanted.map(|link| NeighbourView { index: target(link), channels: link / MAX_NODES + 1 }) {
            if let Some(last) = found.last_mut().filter(|last| last.index == view.index) {
                last.channels += view.channels;
            } else if found.len() < limit {
                found.push(view);
            } else {
                break;
            }
        }
        found
    }
}
