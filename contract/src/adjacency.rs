//! The graph, packed for searching: one record holds the neighbours of 512 nodes, which makes
//! a search some fifty times cheaper than a record per node. A node with many neighbours (a
//! hub) has overflow pages instead, one per group of neighbours, so that no record grows
//! beyond its cap and finding a neighbour never means searching all pages.
//!
//! Each open channel counts once at both ends; parallel channels count several times.

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::interface::{NeighbourView, code};

use crate::Contract;
use crate::fail::fail;
use crate::store::{self, Table};

/// Nodes per record.
const GROUP: u32 = 512;
/// Most neighbours that a node has within its group's record.
const INLINE: usize = 64;
/// Most neighbours within one group's record: 16 bytes each with what surrounds them, so a
/// record stays below 64 kB.
const GROUP_LINKS: usize = 4_096;

#[derive(Default, BorshSerialize, BorshDeserialize)]
struct Group {
    /// In order of `slot`.
    nodes: Vec<Linked>,
}

/// One node's neighbours.
#[derive(BorshSerialize, BorshDeserialize)]
struct Linked {
    /// Index within the group.
    slot: u16,
    links: Links,
}

#[derive(BorshSerialize, BorshDeserialize)]
enum Links {
    Inline(Vec<Link>),
    /// Groups that have a page, in order.
    Pages(Vec<u32>),
}

/// A neighbour and how many channels lead there.
#[derive(Clone, Copy, BorshSerialize, BorshDeserialize)]
struct Link {
    to: u32,
    channels: u32,
}

/// Neighbours of a hub within one group, in order.
type Page = Vec<Link>;

fn group_key(index: u32) -> [u8; 4] {
    (index / GROUP).to_le_bytes()
}

fn slot(index: u32) -> u16 {
    // Below GROUP, so it fits.
    (index % GROUP) as u16
}

fn page_key(hub: u32, group: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&hub.to_le_bytes());
    key[4..].copy_from_slice(&group.to_le_bytes());
    key
}

fn read_page(hub: u32, group: u32) -> Page {
    store::read(Table::Pages, &page_key(hub, group)).unwrap_or_default()
}

fn write_page(hub: u32, group: u32, page: &Page) {
    if page.is_empty() {
        store::remove(Table::Pages, &page_key(hub, group));
    } else {
        store::write(Table::Pages, &page_key(hub, group), page);
    }
}

fn add_link(links: &mut Vec<Link>, to: u32) {
    match links.binary_search_by_key(&to, |link| link.to) {
        Ok(at) => links[at].channels += 1,
        Err(at) => links.insert(at, Link { to, channels: 1 }),
    }
}

fn remove_link(links: &mut Vec<Link>, to: u32) {
    match links.binary_search_by_key(&to, |link| link.to) {
        Ok(at) if links[at].channels > 1 => links[at].channels -= 1,
        Ok(at) => {
            links.remove(at);
        }
        Err(_) => fail!(code::OVERFLOW, "the graph misses an edge to node {to}; report this"),
    }
}

impl Links {
    fn inline_len(&self) -> usize {
        match self {
            Links::Inline(links) => links.len(),
            Links::Pages(_) => 0,
        }
    }

    /// Moves the neighbours of `hub` out of the group's record.
    fn spill(&mut self, hub: u32) {
        let Links::Inline(links) = self else { return };
        let mut groups = Vec::new();
        // Links are in order, so those of one group are adjacent.
        for page in links.chunk_by(|x, y| x.to / GROUP == y.to / GROUP) {
            let group = page[0].to / GROUP;
            write_page(hub, group, &page.to_vec());
            groups.push(group);
        }
        *self = Links::Pages(groups);
    }

    fn add(&mut self, node: u32, to: u32) {
        match self {
            Links::Inline(links) => add_link(links, to),
            Links::Pages(groups) => {
                let group = to / GROUP;
                let mut page = read_page(node, group);
                add_link(&mut page, to);
                write_page(node, group, &page);
                if let Err(at) = groups.binary_search(&group) {
                    groups.insert(at, group);
                }
            }
        }
    }

    fn remove(&mut self, node: u32, to: u32) {
        match self {
            Links::Inline(links) => remove_link(links, to),
            Links::Pages(groups) => {
                let group = to / GROUP;
                let mut page = read_page(node, group);
                remove_link(&mut page, to);
                write_page(node, group, &page);
                if page.is_empty() {
                    groups.retain(|held| *held != group);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Links::Inline(links) => links.is_empty(),
            Links::Pages(groups) => groups.is_empty(),
        }
    }
}

impl Group {
    fn read(node: u32) -> Group {
        store::read(Table::Groups, &group_key(node)).unwrap_or_default()
    }

    fn write(&self, node: u32) {
        if self.nodes.is_empty() {
            store::remove(Table::Groups, &group_key(node));
        } else {
            store::write(Table::Groups, &group_key(node), self);
        }
    }

    fn position(&self, node: u32) -> Result<usize, usize> {
        self.nodes.binary_search_by_key(&slot(node), |linked| linked.slot)
    }

    fn add(&mut self, node: u32, to: u32) {
        let at = self.position(node).unwrap_or_else(|at| {
            self.nodes.insert(at, Linked { slot: slot(node), links: Links::Inline(Vec::new()) });
            at
        });
        self.nodes[at].links.add(node, to);
        if self.nodes[at].links.inline_len() > INLINE {
            self.nodes[at].links.spill(node);
        }
        self.keep_cap(node);
    }

    /// Spills the node with most neighbours when the record as a whole is too big.
    fn keep_cap(&mut self, node: u32) {
        let total: usize = self.nodes.iter().map(|linked| linked.links.inline_len()).sum();
        if total <= GROUP_LINKS {
            return;
        }
        if let Some(biggest) = self.nodes.iter_mut().max_by_key(|linked| linked.links.inline_len()) {
            let hub = node / GROUP * GROUP + u32::from(biggest.slot);
            biggest.links.spill(hub);
        }
    }

    fn remove(&mut self, node: u32, to: u32) {
        let Ok(at) = self.position(node) else {
            fail!(code::OVERFLOW, "the graph misses node {node}; report this")
        };
        self.nodes[at].links.remove(node, to);
        if self.nodes[at].links.is_empty() {
            self.nodes.remove(at);
        }
    }
}

impl Contract {
    /// An edge between `a` and `b` enters the graph.
    pub(crate) fn link(a: u32, b: u32) {
        for (node, to) in [(a, b), (b, a)] {
            let mut group = Group::read(node);
            group.add(node, to);
            group.write(node);
        }
    }

    /// An edge between `a` and `b` leaves the graph.
    pub(crate) fn unlink(a: u32, b: u32) {
        for (node, to) in [(a, b), (b, a)] {
            let mut group = Group::read(node);
            group.remove(node, to);
            group.write(node);
        }
    }

    /// Neighbours of `node` from index `from` on, at most `limit`.
    pub(crate) fn links_from(node: u32, from: u32, limit: usize) -> Vec<NeighbourView> {
        let group = Group::read(node);
        let Ok(at) = group.position(node) else { return Vec::new() };
        let wanted = |links: &[Link]| -> Vec<NeighbourView> {
            let links = links.iter().filter(|link| link.to >= from);
            links.map(|link| NeighbourView { index: link.to, channels: link.channels }).collect()
        };
        let mut found = Vec::new();
        match &group.nodes[at].links {
            Links::Inline(links) => found = wanted(links),
            Links::Pages(groups) => {
                for group in groups.iter().filter(|group| **group >= from / GROUP) {
                    if found.len() >= limit {
                        break;
                    }
                    found.extend(wanted(&read_page(node, *group)));
                }
            }
        }
        found.truncate(limit);
        found
    }
}
