//! The best way under bounds, exactly, and the next best ones.
//!
//! Each search runs from both ends at once (see [`meet`]) and asks for more step by step:
//!
//! 1. The best way whatever the other bounds say. It is nearly always within them, and then it is
//!    the answer; if there is none, there is no route at all.
//! 2. The way that is best in the *other* criterion: if even that one is over its bound, there is
//!    no route. Otherwise it is a route, and nothing dearer needs to be looked at.
//! 3. The best way by a weighted sum of both, with the weights at which the two known ways, one
//!    over the bound and one within it, are equal; it takes the place of one of them. That is
//!    Lagrange's relaxation: a few of these leave little between the two.
//! 4. The best way within both bounds, searched in the order of the last sum, and
//! 5. within the limits on hops and on what each own channel can pay as well.

mod meet;

use std::collections::HashSet;

use por_types::{ChannelId, EdgeQuote, Terms, Yocto};

use super::{Goal, RouteError, RouteQuery};
use crate::graph::{Graph, Link};

use meet::{Attempt, Meeting, Order};

/// Weighted sums tried for one search; more of them make the last search shorter.
const SUMS: usize = 4;

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
    nodes: HashSet<u32>,
    /// Edges not to leave the spur node by.
    first: HashSet<ChannelId>,
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
        Search { graph, message, query, start, end, excluded, spendable: Some(spendable) }
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
        let run = |attempt| Meeting::new(self, source, &bounds, banned, attempt).run();
        let Some(path) = run(Attempt::relaxed(Order::Goal))? else { return Ok(None) };
        if self.fits(&path, source, &bounds) {
            return Ok(Some(path));
        }
        let bounded = bounds.other(goal) != u128::MAX;
        let (mut order, mut known) = (Order::Goal, None);
        if bounded {
            let Some(other) = run(Attempt::relaxed(Order::Other))? else { return Ok(None) };
            let most = bounds.other(goal).saturating_sub(self.fixed());
            let (mut over, mut within) = (self.cost(&path), self.cost(&other));
            known = self.fits(&other, source, &bounds).then_some(within);
            for _ in 0..SUMS {
                let (first, second) =
                    (within.first.checked_sub(over.first), over.second.checked_sub(within.second));
                let Some((second, first)) = first.zip(second).filter(|(a, b)| *a > 0 && *b > 0) else {
                    break;
                };
                order = Order::Mixed { first, second };
                let Some(middle) = run(Attempt::relaxed(order))? else { break };
                let cost = self.cost(&middle);
                if order.key(&cost) >= order.key(&over).min(order.key(&within)) {
                    break;
                }
                if cost.second > most {
                    over = cost;
                    continue;
                }
                within = cost;
                if self.fits(&middle, source, &bounds) && known.is_none_or(|known| cost < known) {
                    known = Some(cost);
                }
            }
            let Some(path) = run(Attempt::bounded(order, known))? else { return Ok(None) };
            if self.fits(&path, source, &bounds) {
                return Ok(Some(path));
            }
        }
        // What an own channel can pay limits the price, whatever the goal.
        run(Attempt::complete(order, bounded || goal == Goal::Quickest, known))
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
