//! Who is connected with whom, and the ways of requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use por_core::testing::{Rng, World};

/// A ring with chords, so that most pairs have several paths.
pub(super) fn pairs(nodes: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let mut pairs: BTreeSet<(usize, usize)> = (0..nodes).map(|a| (a, (a + 1) % nodes)).collect();
    for _ in 0..nodes {
        let (a, b) = (rng.below(nodes as u64) as usize, rng.below(nodes as u64) as usize);
        if a != b && !pairs.contains(&(b, a)) {
            pairs.insert((a, b));
        }
    }
    // Some have a second channel.
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    let second: Vec<_> = pairs.iter().step_by(5).copied().collect();
    pairs.extend(second);
    pairs
}

/// A shortest path over edges that are open as far as its beginning knows.
pub(super) fn path(world: &World, pairs: &[(usize, usize)], from: usize, to: usize) -> Option<Vec<usize>> {
    if from == to {
        return None;
    }
    let open: Vec<(usize, usize)> = world
        .edges
        .iter()
        .zip(pairs)
        .filter(|(edge, _)| world.is_open_to(from, edge.channel))
        .map(|(_, pair)| *pair)
        .collect();
    let mut before: BTreeMap<usize, usize> = BTreeMap::from([(from, from)]);
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        for &(a, b) in &open {
            let next = if a == node {
                b
            } else if b == node {
                a
            } else {
                continue;
            };
            if let std::collections::btree_map::Entry::Vacant(entry) = before.entry(next) {
                entry.insert(node);
                queue.push_back(next);
            }
        }
    }
    let mut path = vec![to];
    while *path.last()? != from {
        path.push(*before.get(path.last()?)?);
    }
    path.reverse();
    Some(path)
}
