use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::graph::Link;
use crate::routes::tests::seed;
use por_types::ChannelId;

/// Sums of prices and latencies of a way, in the order of the goal, as plain numbers.
type Plain = (u128, u128, u128);

fn plain(goal: Goal, price: u128, latency: u128, hops: u128) -> Plain {
    match goal {
        Goal::Cheapest => (price, latency, hops),
        Goal::Quickest => (latency, price, hops),
    }
}

/// A way of a few edges of all sizes, often a cheap one.
fn way(random: &mut StdRng) -> Vec<(u128, u64)> {
    let bits = random.random_range(24..128);
    let edge = |random: &mut StdRng| {
        let price = random.random::<u128>() >> bits;
        (price, random.random::<u64>() >> random.random_range(0..64))
    };
    (0..random.random_range(1..5)).map(|_| edge(random)).collect()
}

#[test]
fn exact_sums_are_in_the_order_of_all_criteria() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    for goal in [Goal::Cheapest, Goal::Quickest] {
        for _ in 0..3000 {
            let one = way(&mut random);
            // The same with another last edge, a hop more or a little less of something.
            let mut two = one.clone();
            match random.random_range(0..4) {
                0 => two.push((0, 0)),
                1 => two = way(&mut random),
                2 => two[0].0 = two[0].0.saturating_sub(1),
                _ => two[0].1 = two[0].1.saturating_sub(1),
            }
            let both = [one, two].map(|way| {
                let exact = way.iter().map(|&(price, latency)| Lexical::of(goal, price, latency));
                let sum = exact.fold(Lexical::default(), Exact::plus);
                let price = way.iter().map(|edge| edge.0).sum();
                let latency = way.iter().map(|edge| u128::from(edge.1)).sum();
                (sum, plain(goal, price, latency, way.len() as u128), sum.key(goal, 0.0))
            });
            let [one, two] = &both;
            assert_eq!(one.0.cmp(&two.0), one.1.cmp(&two.1), "seed {seed}, {goal:?}: {both:?}");
            assert!(one.0 > two.0 || one.2 <= two.2, "seed {seed}, {goal:?}: {both:?}");
        }
    }
}

#[test]
fn sums_that_do_not_fit_are_the_most() {
    let dear = Lexical { high: u128::MAX, low: 1 };
    assert_eq!(dear.plus(Lexical::of(Goal::Cheapest, 1, 1)), Lexical::MOST);
    assert_eq!(Lexical::MOST.plus(Lexical::MOST), Lexical::MOST);
}

#[test]
fn rough_numbers_are_not_above_exact_ones() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut taken = 0;
    for _ in 0..5000 {
        let small = |random: &mut StdRng| random.random::<u64>() >> random.random_range(0..64);
        let message = Message {
            body_len: small(&mut random) / 2,
            response_limit: small(&mut random) / 2,
            beside: small(&mut random),
        };
        let link = Link {
            base_fee: random.random::<u128>() >> random.random_range(0..128),
            byte_fee: random.random::<u128>() >> random.random_range(0..128),
            bytes_per_s: small(&mut random).max(1),
            // As much as the message has, in a fourth of the cases.
            max_bytes: match random.random_range(0..4) {
                0 => message.body_len + message.response_limit,
                _ => small(&mut random),
            },
            channel: ChannelId(0),
            rtt_ms: random.random_range(1..=600_000),
            to: 1,
        };
        let Some((price, latency)) = message.weigh(&link) else { continue };
        let rough = Load::new(&message, Goal::Cheapest).on(&Outline::from(&link));
        let context = format!("seed {seed}: {message:?} {link:?} {rough:?} {price} {latency}");
        let Some((about, time)) = rough else {
            assert!(real(price) >= TOO_DEAR * (1.0 - SLACK), "{context}");
            continue;
        };
        taken += 1;
        let (price, latency) = (real(price), latency as f64);
        assert!(about <= price * (1.0 + SLACK) && time <= latency * (1.0 + SLACK), "{context}");
        // A transfer may be taken for a millisecond less.
        let near = about >= price * (1.0 - 2.0 * SLACK) && time >= latency * (1.0 - 2.0 * SLACK) - 1.0;
        assert!(near, "{context}");
    }
    assert!(taken > 500, "{taken} taken: the others say nothing");
}
