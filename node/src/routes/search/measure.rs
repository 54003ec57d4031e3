//! What searches add up along a way.

use super::{Cost, Message};
use crate::graph::Outline;
use crate::routes::Goal;

/// Above what sums of rough numbers may be too large by, relative to them.
pub(super) const SLACK: f64 = 1e-6;

/// What a message weighs on edges, about.
#[derive(Clone, Copy)]
pub(super) struct Load {
    bytes: f64,
    /// Transfer takes so many milliseconds at a byte per second.
    time: f64,
    shortest: f64,
    goal: Goal,
}

impl Load {
    pub(super) fn new(message: &Message, goal: Goal) -> Load {
        let Message { body_len, response_limit, beside } = *message;
        let time = (body_len as f64 + beside as f64 + response_limit as f64) * 1e3;
        let shortest = if time > 0.0 { 1.0 } else { 0.0 };
        Load { bytes: (body_len as f64 + response_limit as f64) * (1.0 - SLACK), time, shortest, goal }
    }

    /// The goal's criterion and the other one of going over an edge: not above the exact ones by more
    /// than [`SLACK`]. `None` if the edge does not take the message; that it does is to be seen.
    pub(super) fn on(&self, edge: &Outline) -> Option<(f64, f64)> {
        let price = f64::from(edge.base_fee) + f64::from(edge.byte_fee) * self.bytes;
        if self.bytes > f64::from(edge.max_bytes) || price >= TOO_DEAR {
            return None;
        }
        let rate = f64::from(edge.bytes_per_s);
        let transfer = if self.time <= rate {
            self.shortest
        } else {
            (self.time / rate * (1.0 - SLACK)).ceil().min(u64::MAX as f64)
        };
        let latency = f64::from(edge.rtt_ms) + transfer;
        Some(match self.goal {
            Goal::Cheapest => (price, latency),
            Goal::Quickest => (latency, price),
        })
    }
}

/// The nearest number; in the same order. A third of the time of the plain conversion, which is a
/// call.
pub(super) fn real(amount: u128) -> f64 {
    (amount >> 64) as u64 as f64 * 18_446_744_073_709_551_616.0 + amount as u64 as f64
}

/// The weights of the goal's criterion and of the other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rank {
    pub(super) first: f64,
    pub(super) second: f64,
}

impl Rank {
    pub(super) const GOAL: Rank = Rank { first: 1.0, second: 0.0 };
    pub(super) const OTHER: Rank = Rank { first: 0.0, second: 1.0 };

    pub(super) fn key(&self, first: u128, second: u128) -> f64 {
        self.first * real(first) + self.second * real(second)
    }

    pub(super) fn of(&self, cost: &Cost) -> f64 {
        self.key(cost.first, cost.second)
    }
}

/// Sums that say more exactly what [`Rank`]s compare roughly.
pub(super) trait Exact: Copy + Ord + Default + 'static {
    /// More than any way has.
    const MOST: Self;
    /// Nothing but the rough sums is of interest.
    const ROUGH: bool;
    /// An edge's part.
    fn of(goal: Goal, price: u128, latency: u64) -> Self;
    /// True if a way with the first number may be better than one with the second.
    fn below(first: f64, second: f64) -> bool;
    /// No sum exceeds [`Self::MOST`].
    fn plus(self, other: Self) -> Self;
    /// The criterion of the goal in the order of the exact sums, if `rough` is not.
    fn key(self, goal: Goal, rough: f64) -> f64;
}

impl Exact for () {
    const MOST: () = ();
    const ROUGH: bool = true;

    fn of(_: Goal, _: u128, _: u64) {}

    fn below(first: f64, second: f64) -> bool {
        first < second
    }

    fn plus(self, (): ()) {}

    fn key(self, _: Goal, rough: f64) -> f64 {
        rough
    }
}

/// An edge that asks as much for one message, four times all NEAR that there is, cannot be paid and is
/// not taken. So no sum comes to the end of its numbers, whatever the length of the way.
const TOO_DEAR: f64 = (1u128 << 112) as f64;
/// Bits for hops, of which no way has as many as there can be nodes.
const HOPS: u32 = 32;
/// Bits of a price that are in the lower number, when the latency is above it.
const LOW_PRICE: u32 = 96;
/// Bits for the rest of a price.
const HIGH_PRICE: u32 = 40;

/// The criterion of the goal, then the other one, then hops: in a row, with room above each, so that
/// adding all of them takes two additions.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Lexical {
    high: u128,
    low: u128,
}

impl Exact for Lexical {
    const MOST: Lexical = Lexical { high: u128::MAX, low: u128::MAX };
    const ROUGH: bool = false;

    fn of(goal: Goal, price: u128, latency: u64) -> Lexical {
        let latency = u128::from(latency);
        match goal {
            Goal::Cheapest => Lexical { high: price, low: (latency << HOPS) | 1 },
            Goal::Quickest => {
                let high = (latency << HIGH_PRICE) | (price >> LOW_PRICE);
                Lexical { high, low: (price << HOPS) | 1 }
            }
        }
    }

    fn below(first: f64, second: f64) -> bool {
        first * (1.0 - SLACK) <= second
    }

    fn plus(self, other: Lexical) -> Lexical {
        let (low, carry) = self.low.overflowing_add(other.low);
        match self.high.checked_add(other.high).and_then(|high| high.checked_add(carry.into())) {
            Some(high) => Lexical { high, low },
            None => Lexical::MOST,
        }
    }

    fn key(self, goal: Goal, _: f64) -> f64 {
        match goal {
            Goal::Cheapest => real(self.high),
            Goal::Quickest => real(self.high) / (1u64 << HIGH_PRICE) as f64,
        }
    }
}

/// A sum along a way: exact, then roughly by the weights of the search.
#[derive(Clone, Copy, Default, PartialEq, PartialOrd, Debug)]
pub(super) struct Sum<E> {
    pub(super) exact: E,
    pub(super) key: f64,
}

impl<E: Exact> Sum<E> {
    pub(super) const MOST: Sum<E> = Sum { exact: E::MOST, key: f64::INFINITY };

    pub(super) fn plus(self, other: Sum<E>) -> Sum<E> {
        Sum { exact: self.exact.plus(other.exact), key: self.key + other.key }
    }
}

#[cfg(test)]
mod tests;
