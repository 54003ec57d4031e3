//! The best way under bounds, exactly, and the next best ones.
//!
//! Each search runs from both ends at once and asks for more step by step:
//!
//! 1. The best way whatever the other bounds say (see [`reach`]). It is nearly always within them,
//!    and then it is the answer; if there is none, there is no route at all.
//! 2. Weights of the two criteria by which the best way is near the bound (see [`relax`]), and a way
//!    within it: nothing dearer needs to be looked at. Rough searches do for that.
//! 3. The best way within both bounds, searched in the order of that weighted sum (see [`meet`]), and
//! 4. within the limits on hops and on what each own channel can pay as well.
//!
//! What decides whether an edge is worth a look are rough numbers that lie close together; what is
//! taken is counted exactly.

mod heap;
mod measure;
mod meet;
mod nodes;
mod reach;
mod relax;

use std::collections::HashSet;

use por_types::{ChannelId, EdgeQuote, Terms, Yocto};

use super::{Goal, RouteError, RouteQuery};
use crate::graph::{Graph, Link};

use measure::{Lexical, Load, Rank};
use meet::{Attempt, Meeting};
use reach::Reach;
use relax::{Relaxation, Relaxed, share};

/// No label.
const NONE: u32 = u32::MAX;
/// The end at the source.
const SOURCE: usize = 0;

#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) body_len: u64,
    pub(super) response_limit: u64,
    pub(super) beside: u64,
}

impl Message {
    /// What an edge asks for the message; `None` if it does not take it.
    pub(super) fn quote(&self, terms: &Terms) -> Option<EdgeQuote> {
        let bytes = self.body_len.checked_add(self.response_limit)?;
        if bytes > terms.max_bytes {
            return None;
        }
        let quote = terms.quote(self.body_len, self.response_limit).ok()?;
        let allowance_ms = terms.allowance_ms(self.body_len.saturating_add(self.beside), self.response_limit);
        Some(EdgeQuote { allowance_ms, ..quote })
    }

    /// The same price and allowance from a link, without divisions of 128 bits.
    pub(super) fn weigh(&self, link: &Link) -> Option<(u128, u64)> {
        let bytes = self.body_len.checked_add(self.response_limit)?;
        if bytes > link.max_bytes {
            return None;
        }
        let fees = match u64::try_from(link.byte_fee) {
            Ok(fee) => u128::from(fee) * u128::from(bytes),
            Err(_) => link.byte_fee.checked_mul(u128::from(bytes))?,
        };
        let price = fees.checked_add(link.base_fee)?;
        let loaded = u128::from(self.body_len.saturating_add(self.beside)) + u128::from(self.response_limit);
        let transfer = match u64::try_from(loaded * 1000) {
            // A division takes longer than all the rest.
            Ok(short) if short <= link.bytes_per_s => u64::from(short > 0),
            Ok(short) => short.div_ceil(link.bytes_per_s),
            Err(_) => {
                let long = (loaded * 1000).div_ceil(u128::from(link.bytes_per_s));
                u64::try_from(long).unwrap_or(u64::MAX)
            }
        };
        Some((price, u64::from(link.rtt_ms).saturating_add(transfer)))
    }
}

/// What a route, or the rest of one, may need at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) latency: u64,
    /// Including the server's price.
    pub(super) price: u128,
    pub(super) hops: usize,
}

impl Bounds {
    /// The bound of the criterion that is not the goal.
    fn other(&self, goal: Goal) -> u128 {
        match goal {
            Goal::Cheapest if self.latency == u64::MAX => u128::MAX,
            Goal::Cheapest => u128::from(self.latency),
            Goal::Quickest => self.price,
        }
    }
}

/// One edge of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) channel: ChannelId,
    pub(super) from: u32,
    pub(super) to: u32,
}

pub(super) struct Search<'a> {
    graph: &'a Graph,
    message: Message,
    load: Load,
    query: &'a RouteQuery,
    start: u32,
    end: u32,
    excluded: HashSet<u32>,
    spendable: Option<&'a dyn Fn(ChannelId) -> Option<Yocto>>,
}

/// In the order of the query's goal: its criterion comes first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Cost {
    first: u128,
    second: u128,
    hops: u32,
}

impl Cost {
    fn plus(self, other: Cost) -> Option<Cost> {
        Some(Cost {
            first: self.first.checked_add(other.first)?,
            second: self.second.checked_add(other.second)?,
            hops: self.hops.checked_add(other.hops)?,
        })
    }
}

/// What a search must not touch.
#[derive(Default)]
struct Banned {
    nodes: Vec<u32>,
    /// Edges not to leave the spur node by.
    first: Vec<ChannelId>,
}

/// Where a search begins and ends, and which edges it may take.
#[derive(Clone, Copy)]
struct Gate<'s, 'a> {
    search: &'s Search<'a>,
    banned: &'s Banned,
    /// Where each end begins: the source, and the destination.
    origin: [u32; 2],
}

impl Gate<'_, '_> {
    /// True if the end of the `side` may take a link at `from`, by its place there.
    fn pass(&self, side: usize, from: u32, to: u32, link: u32) -> bool {
        let search = self.search;
        let [source, end] = self.origin;
        // Only the ends of the route may be excluded nodes.
        let through = to != source && to != end && to != search.start;
        if self.banned.nodes.contains(&to) || (through && search.excluded.contains(&to)) {
            return false;
        }
        let at_source = at_source(side, from, to, source);
        if !at_source && search.query.exclude.is_empty() {
            return true;
        }
        let link = &search.graph.links_of(from)[link as usize];
        !search.query.exclude.contains(&link.channel)
            && (!at_source
                || (!self.banned.first.contains(&link.channel) && self.own(side, from, link).is_some()))
    }

    /// What the author can spend on a way over this edge; `None` if it cannot be used.
    fn own(&self, side: usize, from: u32, link: &Link) -> Option<u128> {
        let [source, _] = self.origin;
        if source != self.search.start || !at_source(side, from, link.to, source) {
            return Some(u128::MAX);
        }
        self.search.own_limit(link.channel)?.checked_sub(self.search.query.server_price.0)
    }
}

/// The edge at the source is left by the one side and arrived at by the other.
fn at_source(side: usize, from: u32, to: u32, source: u32) -> bool {
    source == if side == SOURCE { from } else { to }
}

impl<'a> Search<'a> {
    pub(super) fn new(
        graph: &'a Graph,
        message: Message,
        query: &'a RouteQuery,
        start: u32,
        end: u32,
        spendable: &'a dyn Fn(ChannelId) -> Option<Yocto>,
    ) -> Search<'a> {
        let excluded = query.exclude_nodes.iter().filter_map(|key| graph.place_of(key)).collect();
        let load = Load::new(&message, query.goal);
        Search { graph, message, load, query, start, end, excluded, spendable: Some(spendable) }
    }

    /// The same search with all the money in the world.
    pub(super) fn ignoring_balance(&self) -> Search<'a> {
        Search { spendable: None, excluded: self.excluded.clone(), ..*self }
    }

    /// The `k` best paths without loops, by deviation from the best (Yen's algorithm).
    pub(super) fn best(&self, bounds: Bounds, k: usize) -> Result<Vec<Vec<Step>>, RouteError> {
        let mut found: Vec<Vec<Step>> = Vec::new();
        let mut candidates: Vec<(Cost, Vec<Step>)> = Vec::new();
        if let Some(path) = self.from(self.start, bounds, &Banned::default())? {
            candidates.push((self.cost(&path), path));
        }
        while found.len() < k {
            let Some(best) = (0..candidates.len()).min_by(|&a, &b| candidates[a].cmp(&candidates[b])) else {
                break;
            };
            let (_, path) = candidates.swap_remove(best);
            if found.len() + 1 < k {
                for spur in 0..path.len() {
                    self.deviate(&path, spur, bounds, &found, &mut candidates)?;
                }
            }
            found.push(path);
        }
        Ok(found)
    }

    /// Adds the best path that follows `path` up to its edge `spur` and leaves it there.
    fn deviate(
        &self,
        path: &[Step],
        spur: usize,
        bounds: Bounds,
        found: &[Vec<Step>],
        candidates: &mut Vec<(Cost, Vec<Step>)>,
    ) -> Result<(), RouteError> {
        let root = &path[..spur];
        let known = found.iter().map(Vec::as_slice).chain([path]);
        let first = known.filter(|other| other.starts_with(root)).filter_map(|other| other.get(spur));
        let banned = Banned {
            nodes: root.iter().map(|step| step.from).collect(),
            first: first.map(|step| step.channel).collect(),
        };
        let Some(rest) = self.rest_of(root, bounds) else { return Ok(()) };
        if let Some(tail) = self.from(path[spur].from, rest, &banned)? {
            let whole = [root, &tail].concat();
            if !candidates.iter().any(|(_, other)| *other == whole) {
                candidates.push((self.cost(&whole), whole));
            }
        }
        Ok(())
    }

    /// What is left of the bounds after `root`.
    fn rest_of(&self, root: &[Step], bounds: Bounds) -> Option<Bounds> {
        let mut rest = bounds;
        if let Some(first) = root.first() {
            rest.price = rest.price.min(self.own_limit(first.channel)?);
        }
        for step in root {
            let quote = self.quote(step.channel)?;
            rest.latency = rest.latency.checked_sub(quote.allowance_ms)?;
            rest.price = rest.price.checked_sub(quote.price.0)?;
            rest.hops = rest.hops.checked_sub(1)?;
        }
        Some(rest)
    }

    fn quote(&self, channel: ChannelId) -> Option<EdgeQuote> {
        self.message.quote(&self.graph.edge(channel)?.view.terms)
    }

    /// What the author may spend over a channel of its own.
    fn own_limit(&self, channel: ChannelId) -> Option<u128> {
        match self.spendable {
            None => Some(u128::MAX),
            Some(spendable) => spendable(channel).map(|amount| amount.0),
        }
    }

    /// The cost of a path in the order of the query's goal.
    fn cost(&self, path: &[Step]) -> Cost {
        let quotes = path.iter().filter_map(|step| self.quote(step.channel));
        let mut whole = quotes.map(|quote| cost(self.query.goal, quote.price.0, quote.allowance_ms));
        whole.try_fold(Cost::default(), Cost::plus).unwrap_or(Cost {
            first: u128::MAX,
            second: u128::MAX,
            hops: u32::MAX,
        })
    }

    /// True if a path from `source` keeps to everything that an attempt may have left out.
    fn fits(&self, path: &[Step], source: u32, bounds: &Bounds) -> bool {
        let cost = self.cost(path);
        let (price, latency) = match self.query.goal {
            Goal::Cheapest => (cost.first, cost.second),
            Goal::Quickest => (cost.second, cost.first),
        };
        let Some(total) = price.checked_add(self.query.server_price.0) else { return false };
        let own = match path.first() {
            Some(step) if source == self.start => self.own_limit(step.channel).unwrap_or(0),
            _ => u128::MAX,
        };
        total <= bounds.price.min(own) && latency <= u128::from(bounds.latency) && path.len() <= bounds.hops
    }

    /// The best path from `source` to the destination.
    fn from(&self, source: u32, bounds: Bounds, banned: &Banned) -> Result<Option<Vec<Step>>, RouteError> {
        let goal = self.query.goal;
        let gate = Gate { search: self, banned, origin: [source, self.end] };
        let bounded = bounds.other(goal) != u128::MAX;
        let most = if bounded { bounds.other(goal).saturating_sub(self.fixed()) } else { u128::MAX };
        let found = Reach::<Lexical>::new(gate, Rank::GOAL, most).run();
        let Some(path) = &found.path else { return Ok(None) };
        if self.fits(path, source, &bounds) {
            return Ok(found.path);
        }
        let over = self.cost(path);
        let bounds = Bounds { price: bounds.price.min(self.richest(source)), ..bounds };
        if self.first_bound(&bounds).is_none_or(|most| over.first > most) {
            return Ok(None);
        }
        let rank = Rank::GOAL;
        let mut relaxed = Relaxed { rank, share: share(found.ends), known: None };
        if over.second > most {
            let Some(done) = Relaxation::new(gate, bounds, most, over, &found).run() else { return Ok(None) };
            relaxed = done;
            let attempt = Attempt { relaxed, bounded, all: false };
            let Some(path) = Meeting::new(gate, &bounds, attempt).run()? else { return Ok(None) };
            if self.fits(&path, source, &bounds) {
                return Ok(Some(path));
            }
        }
        // What an own channel can pay limits the price, whatever the goal.
        let attempt = Attempt { relaxed, bounded: bounded || goal == Goal::Quickest, all: true };
        Meeting::new(gate, &bounds, attempt).run()
    }

    /// Most that the author can spend over any one of its own channels, if the way begins with one.
    fn richest(&self, source: u32) -> u128 {
        if source != self.start {
            return u128::MAX;
        }
        let links = self.graph.links_of(source).iter();
        links.filter_map(|link| self.own_limit(link.channel)).max().unwrap_or(0)
    }

    /// Most of the goal's criterion on the edges; `None` if nothing is within the bounds.
    fn first_bound(&self, bounds: &Bounds) -> Option<u128> {
        match self.query.goal {
            Goal::Cheapest => bounds.price.checked_sub(self.query.server_price.0),
            Goal::Quickest => Some(bounds.latency.into()),
        }
    }

    /// What comes on top of the edges in the criterion that is not the goal.
    fn fixed(&self) -> u128 {
        match self.query.goal {
            Goal::Cheapest => 0,
            Goal::Quickest => self.query.server_price.0,
        }
    }
}

fn cost(order: Goal, price: u128, latency: u64) -> Cost {
    let (first, second) = match order {
        Goal::Cheapest => (price, u128::from(latency)),
        Goal::Quickest => (u128::from(latency), price),
    };
    Cost { first, second, hops: 1 }
}
